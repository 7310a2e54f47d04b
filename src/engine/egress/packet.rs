//! Writes RTP packets into the shard's send arena and seals them there.
//!
//! A slot's headers hardly change from packet to packet, so each stream keeps them as bytes and
//! fills in what does. The payload is copied once, behind its header. Packets of one peer lie side
//! by side in a [`Batch`], ready to leave as one GSO run.

use std::fmt;
use std::ops::Range;

use str0m::media::{Mid, Pt};
use str0m::rtp::Ssrc;

use super::clock::Ntp;
use super::extension::{ExtensionIds, HeaderTemplates, PacketExtensions};
use super::guard::Guard;
use super::patch::HeadPatch;
use super::seal::{IndexesSpent, SRTP_INDEX_END, Sealer};
use super::window::Window;
use crate::engine::bwe::twcc::TwccSeq;

/// An index that is this far ahead makes the receiver guess a wrong roll-over counter
/// (RFC 3711 §3.3.1), so a stream neither begins nor jumps beyond it.
pub const ROLL_OVER_GUESS: u64 = 1 << 15;

/// Longest padding of one packet, in bytes (RFC 3550 §5.1: the count is one byte).
pub const MAX_PADDING_BYTES: u8 = 255;

/// Packets of one peer, sealed, one after another without a gap. Kept and cleared, not dropped:
/// then it allocates nothing.
#[derive(Default)]
pub struct Batch {
    buf: Vec<u8>,
    packets: Vec<Range<usize>>,
}

impl Batch {
    /// An empty batch with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buf: Vec::with_capacity(bytes),
            packets: Vec::new(),
        }
    }

    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Where each packet lies in [`Batch::bytes`]; each begins where the one before it ends.
    #[must_use]
    pub fn packets(&self) -> &[Range<usize>] {
        &self.packets
    }

    /// Forgets the packets, keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.packets.clear();
    }

    /// Adds the RTCP packet that `write` writes, sealed. Returns its length; 0 when `write` wrote
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`IndexesSpent`]: nothing was added.
    pub fn push_rtcp(
        &mut self,
        outlet: &mut Outlet,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<usize, IndexesSpent> {
        let start = self.buf.len();
        write(&mut self.buf);
        if self.buf.len() == start {
            return Ok(0);
        }
        if let Err(spent) = outlet.sealer.seal_rtcp(&mut self.buf, start) {
            self.buf.truncate(start);
            return Err(spent);
        }
        Ok(self.close(start))
    }

    fn close(&mut self, start: usize) -> usize {
        let end = self.buf.len();
        self.packets.push(start..end);
        end - start
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (packets, bytes) = (self.packets.len(), self.buf.len());
        write!(f, "Batch({packets} packets, {bytes} bytes)")
    }
}

/// What all slots of a peer share when they send: the keys and the transport-wide count.
#[derive(Debug)]
pub struct Outlet {
    sealer: Sealer,
    /// The next transport-wide sequence number
    /// (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    next_twcc: u16,
}

impl Outlet {
    /// An outlet that has sent nothing.
    #[must_use]
    pub fn new(sealer: Sealer) -> Self {
        Self {
            sealer,
            next_twcc: 0,
        }
    }

    /// The number that the next packet gets.
    pub(super) fn next_twcc(&self) -> TwccSeq {
        TwccSeq(self.next_twcc)
    }
}

/// One sending m-line, as its answer announced it.
#[derive(Debug, Clone)]
pub struct SlotDesc {
    /// Its `a=mid`.
    pub mid: Mid,
    /// The SSRC of its media, for as long as the m-line lives.
    pub ssrc: Ssrc,
    /// The payload type of what plays.
    pub pt: Pt,
    /// Where resends go; `None` when RTX was not negotiated. Then nothing is resent: another seal
    /// of the same packet would have another transport-wide number under the same nonce.
    pub rtx: Option<RtxDesc>,
    /// Which header extensions the m-line carries, and under which ids.
    pub extensions: ExtensionIds,
}

/// The retransmission stream of an m-line (RFC 4588).
#[derive(Debug, Clone, Copy)]
pub struct RtxDesc {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Its payload type, bound by `apt` to the media's.
    pub pt: Pt,
    /// Its first sequence number, drawn at random (RFC 3550 §5.1), from 0 to 2^15.
    pub first_seq: u16,
}

/// What is in one RTP packet, whether it is sent for the first time or again.
#[derive(Debug, Clone, Copy)]
pub struct MediaPacket<'a> {
    /// Roll-over counter and sequence number in one.
    pub seq: u64,
    /// RTP timestamp, as the viewer is to see it.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// As the publisher sent it.
    pub payload: &'a [u8],
    /// What differs at its head for this viewer.
    pub patch: HeadPatch,
    /// Header extensions that travel with it.
    pub extensions: PacketExtensions<'a>,
}

/// A packet that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its bytes as a UDP payload, sealed.
    pub bytes: usize,
    /// Its transport-wide number; `None` where the m-line carries none.
    pub twcc: Option<TwccSeq>,
}

/// Why a packet was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    /// Its index was used before, or is too old to tell: sealing it could repeat a nonce.
    #[error("the sequence number was used before")]
    Used,
    /// Its index is more than [`ROLL_OVER_GUESS`] ahead: no receiver could open it.
    #[error("the sequence number is too far ahead")]
    TooFarAhead,
    /// The m-line has no RTX.
    #[error("the m-line has no retransmission stream")]
    NoRtx,
}

/// How much a stream has sent: what its sender reports say (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SentTotals {
    /// Packets, wrapping.
    pub packets: u32,
    /// Payload bytes without headers and padding, wrapping.
    pub octets: u32,
}

/// Writes the packets of one slot.
#[derive(Debug)]
pub struct SlotWriter {
    extensions: ExtensionIds,
    media: Stream,
    rtx: Option<Stream>,
    /// The index of the next RTX packet.
    next_rtx: u64,
    /// The newest timestamp sent, which padding repeats.
    timestamp: u32,
}

/// A slot asked for an SSRC that was sent under before: its indexes may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the SSRC was sent under before")]
pub struct SsrcTaken;

impl SlotWriter {
    /// A slot that has sent nothing. `guard` is the peer's: one SSRC is given to one writer, once.
    ///
    /// # Errors
    ///
    /// [`SsrcTaken`]: another writer of this peer had one of the SSRCs.
    pub fn new(desc: &SlotDesc, guard: &mut Guard) -> Result<Self, SsrcTaken> {
        let ssrcs = [Some(desc.ssrc), desc.rtx.map(|rtx| rtx.ssrc)];
        if !ssrcs.into_iter().flatten().all(|ssrc| guard.claim(ssrc)) {
            return Err(SsrcTaken);
        }
        let stream = |ssrc, pt| Stream::new(ssrc, pt, desc.mid, &desc.extensions);
        Ok(Self {
            extensions: desc.extensions,
            media: stream(desc.ssrc, desc.pt),
            rtx: desc.rtx.map(|rtx| stream(rtx.ssrc, rtx.pt)),
            next_rtx: desc.rtx.map_or(0, |rtx| rtx.first_seq.into()),
            timestamp: 0,
        })
    }

    /// Another codec plays from here on.
    pub fn handle_codec(&mut self, pt: Pt, rtx_pt: Option<Pt>) {
        self.media.pt = *pt;
        if let (Some(rtx), Some(pt)) = (&mut self.rtx, rtx_pt) {
            rtx.pt = *pt;
        }
    }

    /// The m-line was negotiated again: its header extensions are these from here on. SSRCs and
    /// numbers go on as they were.
    pub fn handle_extensions(&mut self, mid: Mid, extensions: ExtensionIds) {
        self.extensions = extensions;
        for stream in std::iter::once(&mut self.media).chain(&mut self.rtx) {
            stream.headers = HeaderTemplates::new(stream.ssrc, mid, &extensions);
        }
    }

    /// The viewer reported on this SSRC, so it knows which m-line it belongs to: the MID extension
    /// is no longer needed (RFC 8843 §9.2 lets it go) and packets get shorter.
    pub fn handle_known(&mut self, ssrc: Ssrc) {
        for stream in std::iter::once(&mut self.media).chain(&mut self.rtx) {
            if stream.ssrc == *ssrc {
                stream.headers.omit_mid();
            }
        }
    }

    /// Writes a media packet.
    ///
    /// # Errors
    ///
    /// [`Unwritten`]; nothing is written then.
    pub fn write_media(
        &mut self,
        outlet: &mut Outlet,
        at: Ntp,
        packet: &MediaPacket<'_>,
        batch: &mut Batch,
    ) -> Result<Written, Unwritten> {
        let draft = Draft {
            index: packet.seq,
            osn: None,
            padding: 0,
            packet,
        };
        let written = self
            .media
            .write(&self.extensions, outlet, at, &draft, batch)?;
        if self.highest() == Some(packet.seq) {
            self.timestamp = packet.timestamp;
        }
        Ok(written)
    }

    /// Writes a media packet again, as RFC 4588 §4 asks: on the RTX stream, its own sequence number
    /// before its payload.
    ///
    /// # Errors
    ///
    /// [`Unwritten`]; nothing is written then.
    pub fn write_rtx(
        &mut self,
        outlet: &mut Outlet,
        at: Ntp,
        packet: &MediaPacket<'_>,
        batch: &mut Batch,
    ) -> Result<Written, Unwritten> {
        let rtx = self.rtx.as_mut().ok_or(Unwritten::NoRtx)?;
        let draft = Draft {
            index: self.next_rtx,
            osn: Some(packet.seq as u16),
            padding: 0,
            packet,
        };
        self.next_rtx += 1;
        rtx.write(&self.extensions, outlet, at, &draft, batch)
    }

    /// Writes a packet of nothing but padding on the RTX stream, for probes that no media is left
    /// for. `padding` is from 1 to [`MAX_PADDING_BYTES`].
    ///
    /// # Errors
    ///
    /// [`Unwritten`]; nothing is written then.
    ///
    /// # Panics
    ///
    /// When `padding` is 0: a packet of no length probes nothing.
    pub fn write_padding(
        &mut self,
        outlet: &mut Outlet,
        at: Ntp,
        padding: u8,
        batch: &mut Batch,
    ) -> Result<Written, Unwritten> {
        assert!(padding > 0, "a padding packet has padding");
        let rtx = self.rtx.as_mut().ok_or(Unwritten::NoRtx)?;
        let packet = MediaPacket {
            seq: self.next_rtx,
            timestamp: self.timestamp,
            marker: false,
            payload: &[],
            patch: HeadPatch::NONE,
            extensions: PacketExtensions::default(),
        };
        let draft = Draft {
            index: self.next_rtx,
            osn: None,
            padding,
            packet: &packet,
        };
        self.next_rtx += 1;
        rtx.write(&self.extensions, outlet, at, &draft, batch)
    }

    /// What the media stream has sent, resends and padding aside.
    #[must_use]
    pub fn totals(&self) -> SentTotals {
        self.media.totals
    }

    /// The media SSRC.
    #[must_use]
    pub fn ssrc(&self) -> Ssrc {
        self.media.ssrc.into()
    }

    /// Whether padding can be sent: it takes the SSRC of resends, and the media's last timestamp.
    #[must_use]
    pub fn can_pad(&self) -> bool {
        self.rtx.is_some() && self.highest().is_some()
    }

    /// The SSRC of resends.
    #[must_use]
    pub fn rtx_ssrc(&self) -> Option<Ssrc> {
        self.rtx.as_ref().map(|rtx| rtx.ssrc.into())
    }

    /// The highest media sequence number sent, roll-over counter included.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.media.used.highest()
    }
}

/// One SSRC of a slot.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    pt: u8,
    headers: HeaderTemplates,
    /// Indexes sealed: each once.
    used: Window,
    totals: SentTotals,
}

/// One packet on its way into a batch.
struct Draft<'a> {
    index: u64,
    /// Original sequence number (RFC 4588 §4), in resends.
    osn: Option<u16>,
    padding: u8,
    packet: &'a MediaPacket<'a>,
}

impl Stream {
    fn new(ssrc: Ssrc, pt: Pt, mid: Mid, ids: &ExtensionIds) -> Self {
        Self {
            ssrc: *ssrc,
            pt: *pt,
            headers: HeaderTemplates::new(*ssrc, mid, ids),
            used: Window::default(),
            totals: SentTotals::default(),
        }
    }

    fn write(
        &mut self,
        ids: &ExtensionIds,
        outlet: &mut Outlet,
        at: Ntp,
        draft: &Draft<'_>,
        batch: &mut Batch,
    ) -> Result<Written, Unwritten> {
        let Draft { index, packet, .. } = *draft;
        let highest = self.used.highest().unwrap_or(0);
        if index > highest + ROLL_OVER_GUESS || index >= SRTP_INDEX_END {
            return Err(Unwritten::TooFarAhead);
        }
        if !self.used.take(index) {
            return Err(Unwritten::Used);
        }
        let twcc = outlet.next_twcc;
        let buf = &mut batch.buf;
        let start = buf.len();
        let extensions = &packet.extensions;
        let header_len = self.headers.write(ids, extensions, at, twcc, buf);
        // RFC 3550 §5.1: padding flag in the first byte, marker and payload type in the second.
        let header = &mut buf[start..];
        header[0] |= u8::from(draft.padding > 0) << 5;
        let marker = packet.marker || packet.patch.sets_marker();
        header[1] = u8::from(marker) << 7 | self.pt;
        header[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        header[4..8].copy_from_slice(&packet.timestamp.to_be_bytes());

        if let Some(osn) = draft.osn {
            buf.extend_from_slice(&osn.to_be_bytes());
        }
        let payload_at = buf.len();
        buf.extend_from_slice(packet.payload);
        packet.patch.apply(&mut buf[payload_at..]);
        if draft.padding > 0 {
            buf.resize(buf.len() + usize::from(draft.padding) - 1, 0);
            buf.push(draft.padding);
        }
        outlet
            .sealer
            .seal_rtp(buf, start, header_len, self.ssrc, index);

        self.totals.packets = self.totals.packets.wrapping_add(1);
        let octets = packet.payload.len() as u32;
        self.totals.octets = self.totals.octets.wrapping_add(octets);
        outlet.next_twcc = twcc.wrapping_add(ids.twcc.is_some().into());
        Ok(Written {
            bytes: batch.close(start),
            twcc: ids.twcc.map(|_| TwccSeq(twcc)),
        })
    }
}

#[cfg(test)]
mod tests {
    use str0m::crypto::dtls::SrtpProfile;

    use super::super::fixture::{open_rtp, session_keys};
    use super::super::keys::Side;
    use super::super::seal::RtpOpener;
    use super::*;

    const AT: Ntp = Ntp::from_bits(0x1234_5678_9abc_def0);

    fn desc(extensions: ExtensionIds) -> SlotDesc {
        let rtx = RtxDesc {
            ssrc: 2.into(),
            pt: 97.into(),
            first_seq: 5,
        };
        SlotDesc {
            mid: "m1".into(),
            ssrc: 1.into(),
            pt: 96.into(),
            rtx: Some(rtx),
            extensions,
        }
    }

    fn writer(desc: &SlotDesc) -> SlotWriter {
        SlotWriter::new(desc, &mut Guard::new()).expect("no SSRC is taken")
    }

    fn packet(seq: u64, payload: &[u8]) -> MediaPacket<'_> {
        MediaPacket {
            seq,
            timestamp: 90_000,
            marker: true,
            payload,
            patch: HeadPatch::NONE,
            extensions: PacketExtensions::default(),
        }
    }

    fn outlet() -> (Outlet, RtpOpener) {
        let keys = session_keys(SrtpProfile::AEAD_AES_128_GCM, Side::Server, 0);
        (Outlet::new(Sealer::new(&keys)), RtpOpener::new(&keys))
    }

    fn usual_ids() -> ExtensionIds {
        ExtensionIds {
            mid: Some(4),
            twcc: Some(3),
            abs_send_time: Some(2),
            audio_level: Some(1),
            video_orientation: Some(13),
            dependency_descriptor: Some(12),
            mixed: true,
        }
    }

    #[test]
    fn a_packet_arrives_as_it_was_meant() {
        let (mut outlet, opener) = outlet();
        let mut slot = writer(&desc(usual_ids()));
        let mut batch = Batch::new();
        let written = slot.write_media(&mut outlet, AT, &packet(7, b"picture"), &mut batch);
        let twcc = Some(TwccSeq(0));
        let bytes = batch.bytes().len();
        assert_eq!(written, Ok(Written { bytes, twcc }));
        let rtp = open_rtp(&opener, batch.bytes(), 0).expect("opens");
        assert_eq!((rtp.ssrc, rtp.pt, rtp.marker), (1, 96, true));
        assert_eq!((rtp.seq, rtp.timestamp), (7, 90_000));
        assert_eq!(rtp.payload, b"picture");
        let time = vec![0xe2, 0x6a, 0xf3];
        assert_eq!(
            u32::from_be_bytes([0, 0xe2, 0x6a, 0xf3]),
            AT.abs_send_time()
        );
        let expected = [(2, time), (3, vec![0, 0]), (4, b"m1".to_vec())];
        assert_eq!(rtp.extensions, expected);
    }

    #[test]
    fn an_m_line_without_extensions_has_a_bare_header() {
        let (mut outlet, opener) = outlet();
        let mut slot = writer(&desc(ExtensionIds::default()));
        let mut batch = Batch::new();
        let mut packet = packet(1, b"sound");
        packet.extensions.audio_level = Some(0x85);
        let written = slot.write_media(&mut outlet, AT, &packet, &mut batch);
        let bytes = 12 + 5 + 16;
        assert_eq!(written, Ok(Written { bytes, twcc: None }));
        let rtp = open_rtp(&opener, batch.bytes(), 0).expect("opens");
        assert_eq!(rtp.extensions, []);
    }

    #[test]
    fn what_the_publisher_said_about_a_packet_travels_with_it() {
        let (mut outlet, opener) = outlet();
        let mut slot = writer(&desc(usual_ids()));
        slot.handle_known(1.into());
        for (seq, len) in [(1, 3), (2, 16), (3, 17), (4, 255), (5, 256)] {
            let descriptor = vec![0xdd; len];
            let mut packet = packet(seq, b"x");
            packet.extensions = PacketExtensions {
                audio_level: Some(0x85),
                video_orientation: Some(0x03),
                dependency_descriptor: &descriptor,
                frame_number: None,
            };
            let mut batch = Batch::new();
            slot.write_media(&mut outlet, AT, &packet, &mut batch)
                .expect("fresh");
            let rtp = open_rtp(&opener, batch.bytes(), 0).expect("opens");
            let mut carried = vec![(1, vec![0x85]), (13, vec![0x03]), (12, descriptor)];
            carried.truncate(if len > 255 { 2 } else { 3 });
            assert_eq!(rtp.extensions[2..], carried, "descriptor of {len} bytes");
        }
    }

    #[test]
    fn forms_are_mixed_only_where_that_was_negotiated() {
        let (mut outlet, _) = outlet();
        let mut form_of = |ids: ExtensionIds, descriptor: &[u8]| {
            let mut slot = writer(&desc(ids));
            let mut batch = Batch::new();
            let mut packet = packet(1, b"x");
            packet.extensions.dependency_descriptor = descriptor;
            slot.write_media(&mut outlet, AT, &packet, &mut batch)
                .expect("fresh");
            u16::from_be_bytes([batch.bytes()[12], batch.bytes()[13]])
        };
        let (mixed, mut strict, mut high) = (usual_ids(), usual_ids(), usual_ids());
        strict.mixed = false;
        high.twcc = Some(15);
        assert_eq!(form_of(mixed, &[1; 3]), 0xbede);
        assert_eq!(form_of(mixed, &[1; 30]), 0x1000);
        assert_eq!(form_of(strict, &[1; 3]), 0x1000);
        assert_eq!(form_of(high, &[1; 3]), 0x1000);
        strict.dependency_descriptor = None;
        assert_eq!(form_of(strict, &[1; 30]), 0xbede);
    }

    #[test]
    fn an_m_line_negotiated_again_goes_on_with_its_numbers() {
        let (mut outlet, opener) = outlet();
        let mut slot = writer(&desc(usual_ids()));
        let mut batch = Batch::new();
        let mut write = |slot: &mut SlotWriter, seq| {
            batch.clear();
            let written = slot.write_media(&mut outlet, AT, &packet(seq, b"x"), &mut batch);
            written.map(|_| open_rtp(&opener, batch.bytes(), 0).expect("opens"))
        };
        assert_eq!(write(&mut slot, 1).map(|rtp| rtp.extensions.len()), Ok(3));
        let fewer = ExtensionIds {
            mid: Some(9),
            ..ExtensionIds::default()
        };
        slot.handle_extensions("m2".into(), fewer);
        assert_eq!(write(&mut slot, 1), Err(Unwritten::Used));
        let rtp = write(&mut slot, 2).expect("fresh");
        assert_eq!(rtp.extensions, [(9, b"m2".to_vec())]);
    }

    #[test]
    fn a_packet_without_payload_is_sealed_under_every_profile() {
        for profile in SrtpProfile::ALL {
            let keys = session_keys(*profile, Side::Server, 0);
            let (mut outlet, opener) = (Outlet::new(Sealer::new(&keys)), RtpOpener::new(&keys));
            let mut slot = writer(&desc(usual_ids()));
            let mut batch = Batch::new();
            let written = slot.write_media(&mut outlet, AT, &packet(1, b""), &mut batch);
            assert!(written.is_ok());
            let rtp = open_rtp(&opener, batch.bytes(), 0).expect("opens");
            assert!(rtp.payload.is_empty());
        }
    }

    #[test]
    fn the_mid_goes_once_the_viewer_knows_the_ssrc() {
        let (mut outlet, opener) = outlet();
        let mut slot = writer(&desc(usual_ids()));
        let mut mids = |slot: &mut SlotWriter, seq| {
            let mut batch = Batch::new();
            let packet = packet(seq, b"x");
            slot.write_media(&mut outlet, AT, &packet, &mut batch)
                .expect("fresh");
            slot.write_rtx(&mut outlet, AT, &packet, &mut batch)
                .expect("fresh");
            let has_mid = |range: &Range<usize>| {
                let rtp = open_rtp(&opener, &batch.bytes()[range.clone()], 0).expect("opens");
                rtp.extensions.iter().any(|(id, _)| *id == 4)
            };
            batch.packets().iter().map(has_mid).collect::<Vec<_>>()
        };
        assert_eq!(mids(&mut slot, 1), [true, true]);
        slot.handle_known(1.into());
        assert_eq!(mids(&mut slot, 2), [false, true]);
        slot.handle_known(2.into());
        assert_eq!(mids(&mut slot, 3), [false, false]);
    }

    #[test]
    fn a_resend_carries_the_packet_and_its_number_on_the_rtx_stream() {
        let (mut outlet, opener) = outlet();
        let mut slot = writer(&desc(usual_ids()));
        let mut batch = Batch::new();
        let lost = packet(0x1_0007, b"picture");
        slot.write_rtx(&mut outlet, AT, &lost, &mut batch)
            .expect("fresh");
        slot.write_rtx(&mut outlet, AT, &lost, &mut batch)
            .expect("fresh");
        let [first, second] = batch.packets() else {
            panic!("two packets");
        };
        assert_eq!(
            (first.start, first.end, second.end),
            (0, second.start, batch.bytes().len())
        );
        let first = open_rtp(&opener, &batch.bytes()[first.clone()], 0).expect("opens");
        assert_eq!((first.ssrc, first.pt, first.seq), (2, 97, 5));
        assert_eq!((first.timestamp, first.marker), (90_000, true));
        assert_eq!(first.payload, b"\0\x07picture");
        let second = open_rtp(&opener, &batch.bytes()[second.clone()], 0).expect("opens");
        assert_eq!(second.seq, 6);
        assert_eq!(second.extensions[1], (3, vec![0, 1]), "a number of its own");
        assert_eq!(slot.totals(), SentTotals::default());
    }

    #[test]
    fn without_rtx_nothing_is_sent_again() {
        let (mut outlet, _) = outlet();
        let plain = SlotDesc {
            rtx: None,
            ..desc(usual_ids())
        };
        let mut slot = writer(&plain);
        let mut batch = Batch::new();
        let packet = packet(1, b"x");
        let refused = slot.write_rtx(&mut outlet, AT, &packet, &mut batch);
        assert_eq!(refused, Err(Unwritten::NoRtx));
        let refused = slot.write_padding(&mut outlet, AT, 9, &mut batch);
        assert_eq!(refused, Err(Unwritten::NoRtx));
        assert!(batch.packets().is_empty() && batch.bytes().is_empty());
    }

    #[test]
    fn an_ssrc_is_given_to_one_writer_once() {
        let mut guard = Guard::new();
        let first = desc(usual_ids());
        assert!(SlotWriter::new(&first, &mut guard).is_ok());
        let again = SlotWriter::new(&first, &mut guard).map(drop);
        assert_eq!(again, Err(SsrcTaken));
        let mut other = first;
        other.ssrc = 3.into();
        let shares_rtx = SlotWriter::new(&other, &mut guard).map(drop);
        assert_eq!(shares_rtx, Err(SsrcTaken));
    }

    #[test]
    fn padding_is_nothing_but_padding() {
        let (mut outlet, opener) = outlet();
        let mut slot = writer(&desc(usual_ids()));
        let mut batch = Batch::new();
        slot.write_media(&mut outlet, AT, &packet(1, b"x"), &mut batch)
            .expect("fresh");
        batch.clear();
        for padding in [1, 255] {
            slot.write_padding(&mut outlet, AT, padding, &mut batch)
                .expect("fresh");
            let rtp = open_rtp(&opener, batch.bytes(), 0).expect("opens");
            assert_eq!((rtp.ssrc, rtp.timestamp), (2, 90_000));
            assert_eq!((rtp.padding, rtp.payload.len()), (padding, 0));
            batch.clear();
        }
    }

    #[test]
    fn a_number_is_never_sealed_twice_and_never_out_of_reach() {
        let (mut outlet, opener) = outlet();
        let mut slot = writer(&desc(usual_ids()));
        let mut batch = Batch::new();
        let mut write = |seq| slot.write_media(&mut outlet, AT, &packet(seq, b"x"), &mut batch);
        assert_eq!(write(ROLL_OVER_GUESS + 1), Err(Unwritten::TooFarAhead));
        assert_eq!(write(ROLL_OVER_GUESS).map(|w| w.twcc), Ok(Some(TwccSeq(0))));
        assert_eq!(write(ROLL_OVER_GUESS), Err(Unwritten::Used));
        assert_eq!(
            write(ROLL_OVER_GUESS - 3).map(|w| w.twcc),
            Ok(Some(TwccSeq(1)))
        );
        assert_eq!(write(2 * ROLL_OVER_GUESS + 1), Err(Unwritten::TooFarAhead));
        assert_eq!(
            write(2 * ROLL_OVER_GUESS).map(|w| w.twcc),
            Ok(Some(TwccSeq(2)))
        );
        assert_eq!(write(3), Err(Unwritten::Used));
        assert_eq!(batch.packets().len(), 3);
        let last = batch.packets()[2].clone();
        let rolled = open_rtp(&opener, &batch.bytes()[last], 1).expect("opens");
        assert_eq!(rolled.seq, 0);
        assert_eq!(
            slot.totals(),
            SentTotals {
                packets: 3,
                octets: 3
            }
        );
    }
}
