//! The receive side of one peer: its streams, and what their sender is told of them.

use std::time::{Duration, Instant};

use str0m::format::PayloadParams;
use str0m::media::{Mid, Pt, Rid};
use str0m::rtp::Ssrc;

use super::arrivals::Arrivals;
use super::gaps::Gaps;
use super::header::{Header, Meanings};
use super::payload::{Payload, Spares};
use super::reception::Reception;
use super::report;
use crate::engine::command::Kind;
use crate::engine::egress::clock::Ntp;
use crate::engine::egress::seal::RtpOpener;
use crate::engine::limits::PEER_STREAMS;
use crate::engine::stats::Dropped;
use crate::engine::subscription::clock_rate;

/// From one reception report to the next (RFC 3550 §6.2 allows a fixed interval this short for
/// few members; libwebrtc's video receivers do the same).
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// From one request for a packet to the next, while no round trip was seen.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(100);

/// No shorter one is believed: the sender answers in turns of its own.
const LEAST_ROUND_TRIP: Duration = Duration::from_millis(10);

/// Everything that is known of what one client sends.
#[derive(Debug, Default)]
pub(crate) struct ReceiveSide {
    /// What its header extensions mean.
    meanings: Meanings,
    /// The payload types it may send.
    formats: Vec<Format>,
    /// There from its first packet on: most clients of a large room only watch.
    live: Option<Box<Live>>,
}

#[derive(Debug)]
struct Live {
    opener: RtpOpener,
    streams: Vec<Stream>,
    arrivals: Arrivals,
    /// When the next reception report is due; `None` while nothing came since the last.
    report_at: Option<Instant>,
    /// From asking for a packet to its arrival, smoothed.
    round_trip: Duration,
    /// Packets so far.
    count: u64,
    /// What is asked for again: reused.
    lost: Vec<u16>,
    /// The place of the stream that the next report begins with: one does not hold all of many.
    next: usize,
}

/// One SSRC.
#[derive(Debug)]
struct Stream {
    ssrc: Ssrc,
    /// Where it belongs, once that is known.
    source: Option<Source>,
    /// The name of the m-line in its latest packet that had one: mostly the next has the same.
    named: Name,
    reception: Reception,
    gaps: Gaps,
    /// [`Live::count`] at its latest packet.
    heard: u64,
    /// The middle bits of its latest sender report's time, and when that came.
    told: Option<(u32, Instant)>,
}

/// What a packet names an m-line by (RFC 8843 §15.1), and its length; zeros follow.
type Name = ([u8; 16], usize);

/// Where a stream belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// The m-line.
    pub(crate) mid: Mid,
    /// The layer; `None` without simulcast.
    pub(crate) rid: Option<Rid>,
    /// What the m-line is of.
    pub(crate) kind: Kind,
    /// It carries again what was lost of the layer (RFC 4588).
    pub(crate) repairs: bool,
}

/// One payload type, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Format {
    pt: Pt,
    rtx: Option<Pt>,
    /// Whether what is lost is asked for again.
    nacks: bool,
}

/// A packet as it was meant: opened, and out of its wrapping if it was sent again.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    pub(crate) source: Source,
    /// Extended sequence number.
    pub(crate) seq: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) pt: Pt,
    /// Without padding; empty when there was nothing else.
    pub(crate) payload: Payload,
    pub(crate) audio_level: Option<u8>,
    pub(crate) video_orientation: Option<u8>,
    pub(crate) descriptor: Option<&'a [u8]>,
}

impl ReceiveSide {
    /// Takes over what was negotiated.
    pub(crate) fn set_negotiated(&mut self, meanings: Meanings, params: &[PayloadParams]) {
        self.meanings = meanings;
        let format = |params: &PayloadParams| Format {
            pt: params.pt(),
            rtx: params.resend(),
            nacks: params.fb_nack(),
        };
        self.formats = params.iter().map(format).collect();
    }

    /// Forgets where streams belong that `keeps` says no to.
    pub(crate) fn retain_sources(&mut self, keeps: impl Fn(Ssrc, &Source) -> bool) {
        for stream in self.live.iter_mut().flat_map(|live| &mut live.streams) {
            let ssrc = stream.ssrc;
            stream.source = stream.source.filter(|source| keeps(ssrc, source));
        }
    }

    /// Begins with the client's key, once.
    pub(crate) fn begin(&mut self, now: Instant, opener: impl FnOnce() -> Option<RtpOpener>) {
        if self.live.is_none()
            && let Some(opener) = opener()
        {
            self.live = Some(Box::new(Live {
                opener,
                streams: Vec::new(),
                arrivals: Arrivals::new(now),
                report_at: None,
                round_trip: FIRST_ROUND_TRIP,
                count: 0,
                lost: Vec::new(),
                next: 0,
            }));
        }
    }

    /// Reads the clear part of an SRTP packet.
    pub(crate) fn header<'a>(&self, datagram: &'a [u8]) -> Option<Header<'a>> {
        Header::parse(datagram, &self.meanings)
    }

    /// Takes in an SRTP packet; `None` when it is authentic and there is nothing to forward.
    /// `find` says where a stream belongs, given whether its payload type is one for repairs.
    ///
    /// # Errors
    ///
    /// Why it was dropped. Only authentic packets leave a trace.
    pub(crate) fn handle_packet<'a>(
        &mut self,
        now: Instant,
        datagram: &[u8],
        header: &Header<'a>,
        spares: &mut Spares,
        find: impl FnOnce(&Header<'a>, bool) -> Option<Source>,
    ) -> Result<Option<Received<'a>>, Dropped> {
        let live = self.live.as_mut().ok_or(Dropped::NoTrack)?;
        let (place, index, payload) = live.open(datagram, header, spares)?;
        live.report_at.get_or_insert(now + REPORT_INTERVAL);
        if let Some(number) = header.extensions.transport_sequence {
            live.arrivals.handle_packet(now, number);
        }
        let stream = &mut live.streams[place];
        let is_named_anew = stream.is_named_anew(header);
        if is_named_anew || stream.source.is_none() {
            let mut formats = self.formats.iter();
            let is_rtx = formats.any(|format| format.rtx == Some(header.pt));
            stream.source = find(header, is_rtx);
        }
        let Some(source) = stream.source else {
            stream
                .reception
                .handle_packet(now, index, header.timestamp, 0);
            // libwebrtc finds out what a path carries before it has a stream.
            return if *header.ssrc == 0 {
                Ok(None)
            } else {
                Err(Dropped::NoTrack)
            };
        };
        let highest = stream.reception.highest();
        let rate = clock_rate(source.kind);
        stream
            .reception
            .handle_packet(now, index, header.timestamp, rate);
        let (seq, pt, payload) = if source.repairs {
            match live.unwrap_repair(now, source, header.pt, payload, &self.formats) {
                Some(repaired) => repaired,
                None => return Ok(None),
            }
        } else {
            if self
                .formats
                .iter()
                .any(|format| format.pt == header.pt && format.nacks)
            {
                let took = stream.gaps.handle_packet(now, index, highest);
                live.handle_round_trip(took);
            }
            (index, header.pt, payload)
        };
        Ok(Some(Received {
            source,
            seq,
            timestamp: header.timestamp,
            marker: header.marker,
            pt,
            payload,
            audio_level: header.extensions.audio_level,
            video_orientation: header.extensions.video_orientation,
            descriptor: header.extensions.dependency_descriptor,
        }))
    }

    /// Takes in that a stream's sender told its time; gives where the stream belongs.
    pub(crate) fn handle_sender_report(
        &mut self,
        now: Instant,
        ssrc: Ssrc,
        at: Ntp,
    ) -> Option<Source> {
        let streams = &mut self.live.as_mut()?.streams;
        let stream = streams.iter_mut().find(|stream| stream.ssrc == ssrc)?;
        stream.told = Some((at.middle(), now));
        stream.source
    }

    /// The stream that a layer comes in; the one heard last, should it have changed.
    pub(crate) fn ssrc_of(&self, mid: Mid, rid: Option<Rid>) -> Option<Ssrc> {
        let streams = self.live.iter().flat_map(|live| &live.streams);
        let is_it = |stream: &&Stream| {
            let source = stream.source.as_ref();
            source.is_some_and(|s| !s.repairs && s.mid == mid && s.rid == rid)
        };
        let latest = streams.filter(is_it).max_by_key(|stream| stream.heard)?;
        Some(latest.ssrc)
    }

    /// When [`Self::write_due`] has something to write.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        let live = self.live.as_ref()?;
        let gaps = live
            .streams
            .iter()
            .filter_map(|stream| stream.gaps.wakeup());
        gaps.chain(live.report_at)
            .chain(live.arrivals.wakeup())
            .min()
    }

    /// Writes one RTCP packet of what is due; `false` when nothing is.
    pub(crate) fn write_due(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let Some(live) = &mut self.live else {
            return false;
        };
        let interval = live.round_trip;
        for stream in &mut live.streams {
            if stream.gaps.wakeup().is_some_and(|at| at <= now) {
                live.lost.clear();
                stream.gaps.take_due(now, interval, &mut live.lost);
                if !live.lost.is_empty() {
                    report::write_nack(stream.ssrc, &live.lost, buf);
                    return true;
                }
            }
        }
        if live.report_at.is_some_and(|at| at <= now) {
            live.report_at = None;
            live.write_report(now, buf);
            return true;
        }
        let is_due = live.arrivals.wakeup().is_some_and(|at| at <= now);
        let media = live.streams.first().map_or(0.into(), |stream| stream.ssrc);
        is_due && live.arrivals.write(report::REPORTER.into(), media, buf)
    }
}

impl Live {
    /// Opens a packet; gives its stream's place, its index and its payload.
    fn open(
        &mut self,
        datagram: &[u8],
        header: &Header<'_>,
        spares: &mut Spares,
    ) -> Result<(usize, u64, Payload), Dropped> {
        let known = self
            .streams
            .iter()
            .position(|stream| stream.ssrc == header.ssrc);
        let reception = known.map(|place| &self.streams[place].reception);
        let index = reception.map_or(header.seq.into(), |known| known.index(header.seq));
        if reception.is_some_and(|known| !known.is_fresh(index)) {
            return Err(Dropped::Duplicate);
        }
        let opener = &self.opener;
        let len = opener.payload_len(datagram.len(), header.len);
        let len = len.ok_or(Dropped::Malformed)?;
        let payload = spares
            .fill(len, |out| opener.open_rtp(datagram, header.len, index, out))
            .map_err(|_| Dropped::Malformed)?;
        let padding = match payload.last() {
            _ if !header.is_padded => 0,
            Some(padding) => usize::from(*padding),
            None => return Err(Dropped::Malformed),
        };
        let len = len.checked_sub(padding).ok_or(Dropped::Malformed)?;
        self.count += 1;
        let place = known.unwrap_or_else(|| self.add(header.ssrc));
        self.streams[place].heard = self.count;
        Ok((place, index, payload.narrow(0..len)))
    }

    /// A place for a new stream: that of the one not heard for longest, when there are too many.
    fn add(&mut self, ssrc: Ssrc) -> usize {
        let stream = Stream {
            ssrc,
            source: None,
            named: Name::default(),
            reception: Reception::default(),
            gaps: Gaps::default(),
            heard: self.count,
            told: None,
        };
        if self.streams.len() < PEER_STREAMS {
            self.streams.push(stream);
            return self.streams.len() - 1;
        }
        let heard = |place: &usize| self.streams[*place].heard;
        let oldest = (0..self.streams.len()).min_by_key(heard).unwrap_or(0);
        self.streams[oldest] = stream;
        oldest
    }

    /// Takes a packet that was sent again out of its wrapping (RFC 4588 §4); `None` when it is not
    /// missing, or is padding.
    fn unwrap_repair(
        &mut self,
        now: Instant,
        source: Source,
        pt: Pt,
        payload: Payload,
        formats: &[Format],
    ) -> Option<(u64, Pt, Payload)> {
        let seq = u16::from_be_bytes(*payload.first_chunk()?);
        let repaired = Some(Source {
            repairs: false,
            ..source
        });
        let streams = self.streams.iter_mut();
        let stream = streams
            .filter(|stream| stream.source == repaired)
            .max_by_key(|stream| stream.heard)?;
        let index = stream.reception.index(seq);
        let highest = stream.reception.highest();
        if !stream.reception.handle_repaired(index) {
            return None;
        }
        let took = stream.gaps.handle_packet(now, index, highest);
        self.handle_round_trip(took);
        let format = formats.iter().find(|format| format.rtx == Some(pt));
        let len = payload.len();
        Some((
            index,
            format.map_or(pt, |format| format.pt),
            payload.narrow(2..len),
        ))
    }

    fn handle_round_trip(&mut self, took: Option<Duration>) {
        if let Some(took) = took {
            let smoothed = (self.round_trip * 7 + took) / 8;
            self.round_trip = smoothed.max(LEAST_ROUND_TRIP);
        }
    }

    fn write_report(&mut self, now: Instant, buf: &mut Vec<u8>) {
        let streams = self.streams[self.next..].iter_mut();
        let streams = streams.take(report::MAX_BLOCKS);
        let placed = streams.filter(|stream| stream.source.is_some());
        let blocks = placed.filter_map(|stream| {
            let echo = stream.told.map_or((0, 0), |(told, at)| {
                let held = now.saturating_duration_since(at).as_micros();
                let delay = u32::try_from(held * 65_536 / 1_000_000);
                (told, delay.unwrap_or(u32::MAX))
            });
            stream.reception.report(stream.ssrc, echo)
        });
        let blocks: Vec<_> = blocks.collect();
        if !blocks.is_empty() {
            report::write_report(&blocks, buf);
        }
        self.next += report::MAX_BLOCKS;
        if self.next >= self.streams.len() {
            self.next = 0;
        }
    }
}

impl Stream {
    /// Whether a packet names another m-line than the one before.
    fn is_named_anew(&mut self, header: &Header<'_>) -> bool {
        let Some(named) = header.extensions.mid else {
            return false;
        };
        if self.named.0.get(..self.named.1) == Some(named) {
            return false;
        }
        let mut name = Name::default();
        for (byte, from) in name.0.iter_mut().zip(named) {
            *byte = *from;
        }
        name.1 = named.len();
        self.named = name;
        true
    }
}

/// Whether a header extension names an m-line or layer. str0m has `_` in place of whatever is no
/// letter or digit.
pub(crate) fn names(bytes: &[u8], id: &str) -> bool {
    let plain = |byte: &u8| {
        if byte.is_ascii_alphanumeric() {
            *byte
        } else {
            b'_'
        }
    };
    bytes.len() == id.len() && bytes.iter().map(plain).eq(id.bytes())
}

#[cfg(test)]
mod tests {
    use str0m::crypto::dtls::SrtpProfile;

    use super::*;
    use crate::engine::egress::feedback::{Feedback, Item, parse};
    use crate::engine::egress::fixture::session_keys;
    use crate::engine::egress::keys::Side;
    use crate::engine::egress::seal::Sealer;
    use crate::engine::ingress::header::Meaning;
    use crate::sim::clock::origin;

    const CAMERA: u32 = 7;
    const REPAIR: u32 = 8;

    /// A client that sends, and the side of the server that receives it.
    struct Call {
        now: Instant,
        sealer: Sealer,
        side: ReceiveSide,
        spares: Spares,
        /// How often a stream's place was looked for.
        asked: u32,
    }

    /// What came of one packet.
    type Taken = Result<Option<(u64, u8, Vec<u8>)>, Dropped>;

    impl Call {
        fn new(profile: SrtpProfile) -> Self {
            let keys = session_keys(profile, Side::Client, 5);
            let mut side = ReceiveSide::default();
            let mut meanings = Meanings::default();
            meanings.insert(1, Meaning::Mid);
            meanings.insert(2, Meaning::TransportSequence);
            side.meanings = meanings;
            side.formats = vec![Format {
                pt: 96.into(),
                rtx: Some(97.into()),
                nacks: true,
            }];
            side.begin(origin(), || Some(RtpOpener::new(&keys)));
            Self {
                now: origin(),
                sealer: Sealer::new(&keys),
                side,
                spares: Spares::default(),
                asked: 0,
            }
        }

        /// A sealed packet with a transport-wide number, which is its own.
        fn packet(&self, ssrc: u32, index: u64, pt: u8, payload: &[u8]) -> Vec<u8> {
            let mut packet = vec![0x90, pt];
            packet.extend((index as u16).to_be_bytes());
            packet.extend((index as u32 * 3000).to_be_bytes());
            packet.extend(ssrc.to_be_bytes());
            packet.extend([0xbe, 0xde, 0, 1, 0x21]);
            packet.extend((index as u16).to_be_bytes());
            packet.push(0);
            let header = packet.len();
            packet.extend(payload);
            self.sealer.seal_rtp(&mut packet, 0, header, ssrc, index);
            packet
        }

        fn take(&mut self, datagram: &[u8]) -> Taken {
            let header = self.side.header(datagram).ok_or(Dropped::Malformed)?;
            let asked = &mut self.asked;
            let find = |header: &Header<'_>, _| {
                *asked += 1;
                let source = |repairs| Source {
                    mid: "cam".into(),
                    rid: None,
                    kind: Kind::Video,
                    repairs,
                };
                match *header.ssrc {
                    CAMERA => Some(source(false)),
                    REPAIR => Some(source(true)),
                    _ => None,
                }
            };
            let spares = &mut self.spares;
            let taken = self
                .side
                .handle_packet(self.now, datagram, &header, spares, find)?;
            Ok(taken.map(|packet| (packet.seq, *packet.pt, packet.payload.to_vec())))
        }

        fn media(&mut self, index: u64) -> Taken {
            let packet = self.packet(CAMERA, index, 96, b"picture");
            self.take(&packet)
        }

        /// What is told when it is due: everything that is written until nothing more is.
        fn told(&mut self, after: Duration) -> Vec<Item> {
            self.now += after;
            let mut items = Vec::new();
            let mut buf = Vec::new();
            while self.side.write_due(self.now, &mut buf) {
                let mut feedback = Feedback::new();
                parse(&buf, &mut feedback);
                assert_eq!(feedback.malformed(), 0);
                items.extend(feedback.items().to_vec());
                buf.clear();
            }
            items
        }
    }

    fn picture(index: u64) -> Taken {
        Ok(Some((index, 96, b"picture".to_vec())))
    }

    #[test]
    fn a_packet_is_taken_once_in_whatever_order_over_the_wrap() {
        for profile in SrtpProfile::ALL {
            let mut call = Call::new(*profile);
            for index in [65_530, 65_540, 65_533, 95_000, 125_000, 131_080] {
                assert_eq!(call.media(index), picture(index), "{profile}");
                assert_eq!(call.media(index), Err(Dropped::Duplicate));
            }
            assert_eq!(call.asked, 1, "its place is known from the first on");
        }
    }

    #[test]
    fn a_forged_packet_leaves_no_trace() {
        let mut call = Call::new(SrtpProfile::AEAD_AES_128_GCM);
        let mut forged = call.packet(CAMERA, 1, 96, b"picture");
        forged[25] ^= 1;
        assert_eq!(call.take(&forged), Err(Dropped::Malformed));
        assert_eq!(call.take(&forged[..20]), Err(Dropped::Malformed));
        assert_eq!(call.side.wakeup(), None);
        assert!(
            call.side
                .live
                .as_ref()
                .is_some_and(|live| live.streams.is_empty())
        );
        assert_eq!(call.media(1), picture(1));
    }

    #[test]
    fn what_was_sent_again_comes_as_it_was_meant_and_once() {
        let mut call = Call::new(SrtpProfile::AEAD_AES_128_GCM);
        for index in [10, 12] {
            assert_eq!(call.media(index), picture(index));
        }
        let again = call.packet(REPAIR, 500, 97, b"\0\x0bpicture");
        assert_eq!(call.take(&again), picture(11));
        let doubled = call.packet(REPAIR, 501, 97, b"\0\x0bpicture");
        assert_eq!(call.take(&doubled), Ok(None));
        let padding = call.packet(REPAIR, 502, 97, b"");
        assert_eq!(call.take(&padding), Ok(None));
        assert_eq!(
            call.media(11),
            Err(Dropped::Duplicate),
            "the lost one itself, late"
        );
    }

    #[test]
    fn what_is_missing_is_asked_for_and_what_came_is_told() {
        let mut call = Call::new(SrtpProfile::AEAD_AES_128_GCM);
        for index in [10, 11, 14] {
            assert_eq!(call.media(index), picture(index));
        }
        let [Item::Nack { ssrc, lost }] = &call.told(Duration::ZERO)[..] else {
            panic!("what is missing is asked for at once");
        };
        assert_eq!((**ssrc, lost.len()), (CAMERA, 2));
        let told = call.told(Duration::from_millis(100));
        assert!(
            matches!(told[..], [Item::Nack { .. }, Item::Twcc { .. }]),
            "{told:?}"
        );
        let told = call.told(REPORT_INTERVAL);
        let report = told.iter().find_map(|item| match item {
            Item::Report(report) => Some(report),
            _ => None,
        });
        let report = report.expect("a report a second");
        assert_eq!((*report.ssrc, report.lost, report.highest), (CAMERA, 2, 14));
        call.told(Duration::from_secs(2));
        assert_eq!(call.side.wakeup(), None, "nothing comes, nothing is told");
    }

    #[test]
    fn a_stream_of_no_m_line_is_dropped_and_looked_for_again() {
        let mut call = Call::new(SrtpProfile::AEAD_AES_128_GCM);
        for index in 1..=3 {
            let packet = call.packet(99, index, 96, b"picture");
            assert_eq!(call.take(&packet), Err(Dropped::NoTrack));
        }
        assert_eq!(call.asked, 3);
        let probe = call.packet(0, 1, 96, b"");
        assert_eq!(call.take(&probe), Ok(None));
    }

    #[test]
    fn a_packet_that_names_its_m_line_is_looked_for_once() {
        let mut call = Call::new(SrtpProfile::AEAD_AES_128_GCM);
        let named = |call: &mut Call, index: u64, name: &[u8; 2]| {
            let mut packet = vec![0x90, 96];
            packet.extend((index as u16).to_be_bytes());
            packet.extend([0, 0, 0, 0, 0, 0, 0, CAMERA as u8, 0xbe, 0xde, 0, 1, 0x11]);
            packet.extend(name);
            packet.push(0);
            packet.extend(b"picture");
            call.sealer.seal_rtp(&mut packet, 0, 20, CAMERA, index);
            assert_eq!(call.take(&packet), picture(index));
            call.asked
        };
        assert_eq!(named(&mut call, 1, b"m1"), 1);
        assert_eq!(named(&mut call, 2, b"m1"), 1);
        assert_eq!(named(&mut call, 3, b"m2"), 2, "it may have moved");
        assert_eq!(call.media(4), picture(4));
        assert_eq!(call.asked, 2);
    }

    #[test]
    fn a_bounded_number_of_streams_is_known() {
        let mut call = Call::new(SrtpProfile::AEAD_AES_128_GCM);
        assert_eq!(call.media(1), picture(1));
        for ssrc in 0..2 * PEER_STREAMS as u32 {
            let packet = call.packet(1000 + ssrc, 1, 96, b"");
            assert_eq!(call.take(&packet), Err(Dropped::NoTrack));
        }
        let streams = call.side.live.as_ref().map(|live| live.streams.len());
        assert_eq!(streams, Some(PEER_STREAMS));
        assert_eq!(call.media(2), picture(2), "forgotten, and found again");
    }
}
