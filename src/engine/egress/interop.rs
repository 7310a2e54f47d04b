//! A stock str0m viewer takes what we send, and we read what it sends back.

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
    use str0m::crypto::dtls::{
        DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion, SrtpProfile,
    };
    use str0m::crypto::{CryptoError, from_feature_flags};
    use str0m::media::{KeyframeRequestKind, MediaKind, Mid};
    use str0m::net::{Protocol, Receive};
    use str0m::rtp::{RtpPacket, Ssrc, VideoOrientation};
    use str0m::{Candidate, Event, Input, Output, Rtc};

    use crate::engine::egress::clock::{StreamClock, WallClock};
    use crate::engine::egress::extension::{ExtensionIds, PacketExtensions};
    use crate::engine::egress::feedback::{Feedback, FeedbackReader, Item};
    use crate::engine::egress::fixture::{keying_material, session_keys, some_instant};
    use crate::engine::egress::guard::{Guard, Verdict};
    use crate::engine::egress::history::{HistoryId, Sent, SentLog, Stored, TrackHistory};
    use crate::engine::egress::keys::Side;
    use crate::engine::egress::packet::{
        Batch, MediaPacket, Outlet, RtxDesc, SlotDesc, SlotWriter,
    };
    use crate::engine::egress::patch::HeadPatch;
    use crate::engine::egress::reports::{SenderReport, round_trip, write_goodbye, write_report};
    use crate::engine::egress::rtx::{Resendable, RtxBudget, answer};
    use crate::engine::egress::seal::{Opener, Sealer};

    const SSRC: u32 = 0x1111;
    const RTX_SSRC: u32 = 0x2222;

    /// A viewer (stock str0m, the DTLS client), a server's str0m that only holds the connection,
    /// and the send side under test. Virtual time; datagrams arrive at once.
    struct Call {
        now: Instant,
        clock: WallClock,
        viewer: Rtc,
        server: Rtc,
        seen: Vec<RtpPacket>,
        from_viewer: VecDeque<Vec<u8>>,
        guard: Guard,
        slot: SlotWriter,
        outlet: Outlet,
        reader: FeedbackReader,
        batch: Batch,
    }

    impl Call {
        fn connect(profile: SrtpProfile) -> Self {
            let now = some_instant();
            let rtc = || {
                let stock = from_feature_flags();
                let dtls_provider: &KnownKeys = Box::leak(Box::new(KnownKeys(profile)));
                let provider = CryptoProvider {
                    dtls_provider,
                    ..stock
                };
                let config = Rtc::builder().set_rtp_mode(true);
                config.set_crypto_provider(Arc::new(provider)).build(now)
            };
            let mut guard = Guard::new();
            let slot = SlotWriter::new(&desc(), &mut guard).expect("free SSRCs");
            let ours = session_keys(profile, Side::Server, 1);
            let theirs = session_keys(profile, Side::Client, 1);
            let mut call = Self {
                now,
                clock: WallClock::new(now, Duration::from_secs(1_700_000_000)),
                viewer: rtc(),
                server: rtc(),
                seen: Vec::new(),
                from_viewer: VecDeque::new(),
                guard,
                slot,
                outlet: Outlet::new(Sealer::new(&ours)),
                reader: FeedbackReader::new(Opener::new(&theirs)),
                batch: Batch::new(),
            };
            call.introduce();
            for _ in 0..200 {
                call.advance(Duration::from_millis(10));
                if call.viewer.is_connected() && call.server.is_connected() {
                    return call;
                }
            }
            panic!("no connection after two seconds");
        }

        fn introduce(&mut self) {
            let (viewer, server) = (&mut self.viewer, &mut self.server);
            for (rtc, local, remote) in [
                (&mut *viewer, VIEWER, SERVER),
                (&mut *server, SERVER, VIEWER),
            ] {
                let candidate = |at: &str| Candidate::host(address(at), "udp").expect("an address");
                rtc.add_local_candidate(candidate(local));
                rtc.add_remote_candidate(candidate(remote));
            }
            let (mut client, mut host) = (viewer.direct_api(), server.direct_api());
            let fingerprint = client.local_dtls_fingerprint().clone();
            client.set_remote_fingerprint(host.local_dtls_fingerprint().clone());
            host.set_remote_fingerprint(fingerprint);
            let credentials = client.local_ice_credentials();
            client.set_remote_ice_credentials(host.local_ice_credentials());
            host.set_remote_ice_credentials(credentials);
            client.set_ice_controlling(true);
            host.set_ice_controlling(false);
            client.start_dtls(true).expect("starts");
            host.start_dtls(false).expect("starts");
            client.enable_twcc_feedback();
            client.declare_media(mid(), MediaKind::Video);
            client.expect_stream_rx(SSRC.into(), Some(RTX_SSRC.into()), mid(), None);
        }

        fn advance(&mut self, span: Duration) {
            self.now += span;
            for rtc in [&mut self.viewer, &mut self.server] {
                rtc.handle_input(Input::Timeout(self.now)).expect("time");
            }
            self.pump();
        }

        /// Moves datagrams until none is left. What the viewer protects goes to us, not to str0m.
        fn pump(&mut self) {
            loop {
                let (to_server, to_viewer) = (self.drain_viewer(), self.drain_server());
                if to_server.is_empty() && to_viewer.is_empty() {
                    return;
                }
                for bytes in to_server {
                    self.deliver(false, &bytes);
                }
                for bytes in to_viewer {
                    self.deliver(true, &bytes);
                }
            }
        }

        fn drain_viewer(&mut self) -> Vec<Vec<u8>> {
            let mut datagrams = Vec::new();
            loop {
                match self.viewer.poll_output().expect("a healthy viewer") {
                    Output::Timeout(_) => return datagrams,
                    Output::Event(Event::RtpPacket(packet)) => self.seen.push(packet),
                    Output::Event(_) => {}
                    Output::Transmit(transmit) => {
                        let bytes = transmit.contents.to_vec();
                        let is_srtp = (128..=191).contains(&bytes[0]);
                        if is_srtp {
                            self.from_viewer.push_back(bytes);
                        } else {
                            datagrams.push(bytes);
                        }
                    }
                }
            }
        }

        fn drain_server(&mut self) -> Vec<Vec<u8>> {
            let mut datagrams = Vec::new();
            loop {
                match self.server.poll_output().expect("a healthy server") {
                    Output::Timeout(_) => return datagrams,
                    Output::Event(_) => {}
                    Output::Transmit(transmit) => {
                        let verdict = self.guard.handle_transmit(&transmit.contents);
                        assert_eq!(verdict, Verdict::Pass);
                        datagrams.push(transmit.contents.to_vec());
                    }
                }
            }
        }

        fn deliver(&mut self, to_viewer: bool, bytes: &[u8]) {
            let (rtc, from, to) = match to_viewer {
                true => (&mut self.viewer, SERVER, VIEWER),
                false => (&mut self.server, VIEWER, SERVER),
            };
            let receive = Receive::new(Protocol::Udp, address(from), address(to), bytes);
            let receive = receive.expect("a datagram of some protocol");
            rtc.handle_input(Input::Receive(self.now, receive))
                .expect("a datagram that does no harm");
        }

        /// Writes a packet and lets it arrive, unless it is `lost`.
        fn send(&mut self, packet: &MediaPacket<'_>, lost: bool) {
            let at = self.clock.at(self.now);
            let written = self
                .slot
                .write_media(&mut self.outlet, at, packet, &mut self.batch);
            written.expect("a fresh number");
            if lost {
                self.batch.clear();
            }
            self.flush();
        }

        fn flush(&mut self) {
            let batch = std::mem::take(&mut self.batch);
            for range in batch.packets() {
                self.deliver(true, &batch.bytes()[range.clone()]);
                self.pump();
            }
        }

        /// Everything the viewer reported until nothing more comes.
        fn feedback(&mut self) -> Vec<Feedback> {
            let mut all = Vec::new();
            while let Some(datagram) = self.from_viewer.pop_front() {
                let mut feedback = Feedback::new();
                let read = self.reader.handle_srtcp(&datagram, &mut feedback);
                assert_eq!(feedback.malformed(), 0);
                read.expect("ours to read");
                all.push(feedback);
            }
            all
        }

        /// Lets up to two seconds pass until the viewer has reported what `wanted` finds.
        fn until<T>(&mut self, wanted: impl Fn(&Feedback, &Item) -> Option<T>) -> T {
            for _ in 0..200 {
                for feedback in self.feedback() {
                    let found = feedback.items().iter().find_map(|i| wanted(&feedback, i));
                    if let Some(found) = found {
                        return found;
                    }
                }
                self.advance(Duration::from_millis(10));
            }
            panic!("the viewer never reported it");
        }
    }

    const VIEWER: &str = "192.0.2.1:1000";
    const SERVER: &str = "192.0.2.2:2000";

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn mid() -> Mid {
        "vid".into()
    }

    /// str0m's usual ids and payload types, which are Chrome's.
    fn desc() -> SlotDesc {
        SlotDesc {
            mid: mid(),
            ssrc: SSRC.into(),
            pt: 96.into(),
            rtx: Some(RtxDesc {
                ssrc: RTX_SSRC.into(),
                pt: 97.into(),
                first_seq: 77,
            }),
            extensions: ExtensionIds {
                mid: Some(4),
                twcc: Some(3),
                abs_send_time: Some(2),
                audio_level: Some(1),
                video_orientation: Some(13),
                dependency_descriptor: None,
                mixed: false,
            },
        }
    }

    fn packet(seq: u64, payload: &[u8]) -> MediaPacket<'_> {
        MediaPacket {
            seq,
            timestamp: 3_000 * seq as u32,
            marker: seq.is_multiple_of(2),
            payload,
            patch: HeadPatch::NONE,
            extensions: PacketExtensions::default(),
        }
    }

    #[test]
    fn a_stock_viewer_takes_every_packet_of_every_profile() {
        for profile in SrtpProfile::ALL {
            let mut call = Call::connect(*profile);
            for seq in 0x7ffe..0x8004 {
                let mut packet = packet(seq, b"\x90\x80\x01pictures");
                packet.extensions.video_orientation = Some(0x02);
                call.send(&packet, false);
            }
            let seqs: Vec<u64> = call.seen.iter().map(|packet| *packet.seq_no).collect();
            assert_eq!(seqs, (0x7ffe..0x8004).collect::<Vec<_>>());
            for (packet, twcc) in call.seen.iter().zip(0..) {
                assert_eq!(packet.payload[..], b"\x90\x80\x01pictures"[..]);
                assert_eq!(packet.header.timestamp, 3_000 * *packet.seq_no as u32);
                assert_eq!(packet.header.marker, *packet.seq_no % 2 == 0);
                let values = &packet.header.ext_vals;
                assert_eq!(values.mid, Some(mid()));
                assert_eq!(values.transport_cc, Some(twcc));
                assert_eq!(values.video_orientation, Some(VideoOrientation::Deg180));
                assert!(values.abs_send_time.is_some());
            }
        }
    }

    #[test]
    fn a_stock_viewer_follows_many_roll_overs() {
        let mut call = Call::connect(SrtpProfile::AES128_CM_SHA1_80);
        let mut sent = 0;
        for seq in (1..0x5_0000).step_by(0x3fff) {
            call.send(&packet(seq, b"x"), false);
            sent += 1;
        }
        assert_eq!(call.seen.len(), sent);
    }

    #[test]
    fn a_lost_packet_is_asked_for_and_arrives_on_the_rtx_stream() {
        for profile in SrtpProfile::ALL {
            let mut call = Call::connect(*profile);
            let mut history = TrackHistory::new(HistoryId(1));
            let mut log = SentLog::new(call.now);
            let mut budget = RtxBudget::new(call.now);
            for seq in 10..=20_u64 {
                let payload = [0x90, 0x80, seq as u8, 1, 2, 3];
                let packet = packet(seq, &payload);
                let stored = Stored {
                    payload: payload.as_slice().into(),
                    descriptor: None,
                    audio_level: None,
                    video_orientation: None,
                    marker: packet.marker,
                };
                let sent = Sent {
                    seq,
                    stored: history.push(call.now, stored),
                    timestamp: packet.timestamp,
                    patch: packet.patch,
                };
                log.insert(call.now, &sent);
                call.send(&packet, seq == 15);
                call.advance(Duration::from_millis(1));
            }
            let lost = call.until(|feedback, item| match item {
                Item::Nack { ssrc, lost } if **ssrc == SSRC => Some(feedback.lost(lost).to_vec()),
                _ => None,
            });
            assert_eq!(lost, [15]);
            let slot = Resendable {
                highest: call.slot.highest().expect("packets were sent"),
                log: &mut log,
                history: &history,
            };
            let mut resends = Vec::new();
            answer(call.now, &lost, slot, None, &mut budget, &mut resends);
            let at = call.clock.at(call.now);
            let stored = history.packet(resends[0].stored).expect("still kept");
            let again = resends[0].packet(stored);
            let written = call
                .slot
                .write_rtx(&mut call.outlet, at, &again, &mut call.batch);
            written.expect("RTX was negotiated");
            call.flush();
            let last = call.seen.last().expect("packets arrived");
            assert_eq!((*last.seq_no, last.header.timestamp), (15, 45_000));
            assert_eq!(last.payload[..], [0x90, 0x80, 15, 1, 2, 3]);
            assert_eq!(call.seen.len(), 11);
        }
    }

    #[test]
    fn a_viewer_tells_when_each_packet_arrived() {
        let mut call = Call::connect(SrtpProfile::AEAD_AES_256_GCM);
        for seq in 1..=30 {
            call.send(&packet(seq, b"x"), seq == 12);
            call.advance(Duration::from_millis(4));
        }
        let mut arrived = Vec::new();
        for _ in 0..50 {
            call.advance(Duration::from_millis(10));
            for feedback in call.feedback() {
                for item in feedback.items() {
                    if let Item::Twcc { arrivals, .. } = item {
                        arrived.extend_from_slice(feedback.arrivals(arrivals));
                    }
                }
            }
        }
        let numbers: Vec<u16> = arrived.iter().map(|arrival| arrival.seq.0).collect();
        assert_eq!(numbers, (0..30).collect::<Vec<_>>());
        assert_eq!(arrived[11].at_us, None);
        let start = arrived[0].at_us.expect("the first arrived");
        for (place, arrival) in arrived.iter().enumerate().filter(|(place, _)| *place != 11) {
            let after = arrival.at_us.expect("it arrived") - start;
            assert_eq!(after, 4_000 * place as i64);
        }
    }

    #[test]
    fn keyframe_requests_and_estimates_of_a_viewer_are_read() {
        let mut call = Call::connect(SrtpProfile::AEAD_AES_128_GCM);
        call.send(&packet(1, b"x"), false);
        let ssrc: Ssrc = SSRC.into();
        let request = |call: &mut Call, kind| {
            let mut direct = call.viewer.direct_api();
            let stream = direct.stream_rx(&ssrc).expect("it was declared");
            stream.request_keyframe(kind);
        };
        request(&mut call, KeyframeRequestKind::Pli);
        let asked = call.until(|_, item| match item {
            Item::Pli { ssrc } => Some(*ssrc),
            _ => None,
        });
        assert_eq!(asked, ssrc);
        request(&mut call, KeyframeRequestKind::Fir);
        let asked = call.until(|_, item| match item {
            Item::Fir { ssrc, .. } => Some(*ssrc),
            _ => None,
        });
        assert_eq!(asked, ssrc);
        let mut direct = call.viewer.direct_api();
        let stream = direct.stream_rx(&ssrc).expect("it was declared");
        stream.request_remb(str0m::bwe::Bitrate::kbps(1_234));
        let estimate = call.until(|_, item| match item {
            Item::Remb { bits_per_s } => Some(*bits_per_s),
            _ => None,
        });
        assert!((1_230_000..=1_234_000).contains(&estimate), "{estimate}");
    }

    #[test]
    fn a_viewer_echoes_our_report_and_with_it_the_round_trip() {
        let mut call = Call::connect(SrtpProfile::AEAD_AES_128_GCM);
        call.send(&packet(1, b"first"), false);
        let at = call.clock.at(call.now);
        let report = SenderReport {
            ssrc: SSRC.into(),
            at,
            timestamp: StreamClock::new(at, 3_000, 90_000).timestamp(at),
            totals: call.slot.totals(),
        };
        let pushed = call.batch.push_rtcp(&mut call.outlet, |buf| {
            write_report(&report, "corelay", buf);
        });
        assert!(pushed.is_ok());
        // The network holds it for 40 ms.
        call.advance(Duration::from_millis(40));
        call.flush();
        call.send(&packet(2, b"second"), false);
        let info = call.seen.last().expect("arrived").last_sender_info;
        let info = info.expect("the report came before");
        assert_eq!((info.sender_packet_count, info.sender_octet_count), (1, 5));
        assert_eq!(info.rtp_time.numer() as u32, 3_000);

        let at_echo = |call: &Call| call.clock.at(call.now);
        let block = call.until(|_, item| match item {
            Item::Report(block) if block.last_report != 0 => Some(*block),
            _ => None,
        });
        assert_eq!(*block.ssrc, SSRC);
        assert_eq!(block.last_report, report.at.middle());
        let measured = round_trip(at_echo(&call), block.last_report, block.delay);
        let measured = measured.expect("an echo").as_millis();
        assert!((38..=52).contains(&measured), "{measured} ms");
    }

    #[test]
    fn a_goodbye_is_taken_and_the_connection_lives_on() {
        let mut call = Call::connect(SrtpProfile::AES128_CM_SHA1_80);
        call.send(&packet(1, b"x"), false);
        let pushed = call.batch.push_rtcp(&mut call.outlet, |buf| {
            write_goodbye(&[SSRC.into(), RTX_SSRC.into()], "corelay", buf);
        });
        assert!(pushed.is_ok());
        call.flush();
        call.advance(Duration::from_secs(1));
        assert!(call.viewer.is_connected());
        assert_eq!(call.guard.dropped(), 0);
    }

    /// A handshake as usual, but both sides take the same known keys from it.
    #[derive(Debug)]
    struct KnownKeys(SrtpProfile);

    #[derive(Debug)]
    struct KnownKeysInstance(Box<dyn DtlsInstance>, SrtpProfile);

    impl DtlsProvider for KnownKeys {
        fn generate_certificate(&self) -> Option<DtlsCert> {
            from_feature_flags().dtls_provider.generate_certificate()
        }

        fn new_dtls(
            &self,
            certificate: &DtlsCert,
            now: Instant,
            version: DtlsVersion,
            mtu: Option<usize>,
        ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
            let stock = from_feature_flags().dtls_provider;
            let instance = stock.new_dtls(certificate, now, version, mtu)?;
            Ok(Box::new(KnownKeysInstance(instance, self.0)))
        }
    }

    impl DtlsInstance for KnownKeysInstance {
        fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
            match self.0.poll_output(buf) {
                DtlsOutput::KeyingMaterial(..) => {
                    DtlsOutput::KeyingMaterial(keying_material(self.1, 1), self.1)
                }
                other => other,
            }
        }

        fn set_active(&mut self, active: bool) {
            self.0.set_active(active);
        }

        fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
            self.0.handle_packet(packet)
        }

        fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
            self.0.handle_timeout(now)
        }

        fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
            self.0.send_application_data(data)
        }

        fn is_active(&self) -> bool {
            self.0.is_active()
        }

        fn protocol_version(&self) -> Option<ProtocolVersion> {
            self.0.protocol_version()
        }

        fn close(&mut self) -> Result<(), DtlsImplError> {
            self.0.close()
        }
    }
}
