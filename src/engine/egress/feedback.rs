//! Reads what clients report: compound RTCP after decryption.
//!
//! Items are pushed into a [`Feedback`] that is kept and reused, so that reading allocates nothing.
//! Any bytes may come: a peer's keys say who sent them, not that they make sense. Work is bounded
//! by the length of the datagram and the limits here.

use std::ops::Range;

use str0m::rtp::Ssrc;

use super::clock::Ntp;
use super::seal::{Opener, RtcpStamp, Sealed};
use super::statuses::{fill_times, read_statuses};
use super::window::Window;
use crate::engine::bwe::twcc::Arrival;

/// Lost packets named in one message; further ones are left for its repetition. libwebrtc lists
/// up to 1000 (`kMaxNackPackets`).
pub const MAX_LOST_PER_MESSAGE: usize = 1024;

/// Packet statuses in one message; a message with more is left out. 250 ms, the longest interval
/// libwebrtc waits, of 16,000 packets a second.
pub const MAX_ARRIVALS_PER_MESSAGE: usize = 4096;

/// Items in one message; further ones are left out. A browser with 25 slots reports on 50 SSRCs.
pub const MAX_ITEMS_PER_MESSAGE: usize = 256;

/// Sender SSRCs whose replay windows are kept; past it the least recently heard is forgotten.
/// A browser uses one per m-line it publishes on, and one more.
pub const MAX_SENDERS: usize = 64;

/// Everything one datagram reported.
#[derive(Debug, Default)]
pub struct Feedback {
    items: Vec<Item>,
    lost: Vec<u16>,
    arrivals: Vec<Arrival>,
    /// Parts that were left out: cut short, contradictory or past a limit.
    malformed: u32,
}

/// One thing a viewer reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A reception report block (RFC 3550 §6.4.1).
    Report(ReportBlock),
    /// A sender's time (RFC 3550 §6.4.1).
    SenderReport {
        /// Whose.
        ssrc: Ssrc,
        /// When it was written, on the sender's wall clock.
        at: Ntp,
        /// The stream's RTP timestamp then.
        timestamp: u32,
    },
    /// Packets are missing (RFC 4585 §6.2.1). See [`Feedback::lost`].
    Nack {
        /// In which of our streams.
        ssrc: Ssrc,
        /// Where [`Feedback::lost`] has them.
        lost: Range<usize>,
    },
    /// Pictures cannot be decoded: Picture Loss Indication (RFC 4585 §6.3.1).
    Pli {
        /// In which of our streams.
        ssrc: Ssrc,
    },
    /// A keyframe is wanted: Full Intra Request (RFC 5104 §4.3.1).
    Fir {
        /// In which of our streams.
        ssrc: Ssrc,
        /// Counts requests; the same number is the same request.
        number: u8,
    },
    /// When packets arrived, by transport-wide number
    /// (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
    Twcc {
        /// Counts these messages, wrapping.
        number: u8,
        /// Where [`Feedback::arrivals`] has the packets.
        arrivals: Range<usize>,
    },
    /// The receiver's time (RFC 3611 §4.4): told back at once, it tells the round trip.
    ReceiverTime {
        /// Whose.
        ssrc: Ssrc,
        /// The middle 32 bits of its NTP time.
        at: u32,
    },
    /// The receiver's own estimate (draft-alvestrand-rmcat-remb-03 §2.2).
    Remb {
        /// Bits per second that the streams named may have in all.
        bits_per_s: u64,
    },
}

/// How one of our streams fares at a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: Ssrc,
    /// Lost since the previous report, in 256ths.
    pub fraction_lost: u8,
    /// Lost in all; negative when duplicates outnumber losses. 24 bits.
    pub lost: i32,
    /// Highest sequence number received, with the receiver's count of wraps above it.
    pub highest: u32,
    /// Interarrival jitter, in ticks of the stream's clock.
    pub jitter: u32,
    /// Middle bits of the last sender report's time; 0 when none came.
    pub last_report: u32,
    /// From then to this report, in 65536ths of a second.
    pub delay: u32,
}

/// Why a datagram was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It could not be opened.
    #[error(transparent)]
    Sealed(#[from] Sealed),
    /// It was read before, or is too old to tell.
    #[error("a replayed SRTCP packet")]
    Replayed,
}

impl Feedback {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was reported, in the order it was.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The lost sequence numbers of an [`Item::Nack`].
    #[must_use]
    pub fn lost(&self, lost: &Range<usize>) -> &[u16] {
        &self.lost[lost.clone()]
    }

    /// The packets of an [`Item::Twcc`].
    #[must_use]
    pub fn arrivals(&self, arrivals: &Range<usize>) -> &[Arrival] {
        &self.arrivals[arrivals.clone()]
    }

    /// Parts of the message that were left out: cut short, contradictory or past a limit.
    #[must_use]
    pub fn malformed(&self) -> u32 {
        self.malformed
    }

    fn clear(&mut self) {
        self.items.clear();
        self.lost.clear();
        self.arrivals.clear();
        self.malformed = 0;
    }

    fn push(&mut self, item: Item) {
        if self.items.len() < MAX_ITEMS_PER_MESSAGE {
            self.items.push(item);
        } else {
            self.malformed += 1;
        }
    }
}

/// Opens one viewer's SRTCP, each packet once.
#[derive(Debug)]
pub struct FeedbackReader {
    opener: Opener,
    senders: Vec<Sender>,
    /// Datagrams read.
    count: u64,
    /// The datagram being opened.
    plain: Vec<u8>,
}

/// The replay window of one sender SSRC (RFC 3711 §3.3.2).
#[derive(Debug)]
struct Sender {
    ssrc: u32,
    read: Window,
    /// [`FeedbackReader::count`] when it was last heard.
    heard: u64,
}

impl FeedbackReader {
    /// A reader that has read nothing.
    #[must_use]
    pub fn new(opener: Opener) -> Self {
        Self {
            opener,
            senders: Vec::new(),
            count: 0,
            plain: Vec::new(),
        }
    }

    /// Opens and reads one SRTCP datagram into `feedback`, which is emptied first.
    ///
    /// # Errors
    ///
    /// [`Unread`]: `feedback` is empty then.
    pub fn handle_srtcp(&mut self, datagram: &[u8], feedback: &mut Feedback) -> Result<(), Unread> {
        feedback.clear();
        let stamp = self.opener.stamp(datagram)?;
        let known = self.senders.iter().position(|s| s.ssrc == stamp.sender);
        if known.is_some_and(|place| !self.senders[place].read.is_fresh(stamp.index.into())) {
            return Err(Unread::Replayed);
        }
        self.plain.clear();
        self.plain.extend_from_slice(datagram);
        let len = self.opener.open_rtcp(&mut self.plain)?.len();
        self.note(known, stamp);
        parse(&self.plain[..len], feedback);
        Ok(())
    }

    /// Marks an authenticated packet as read.
    fn note(&mut self, known: Option<usize>, stamp: RtcpStamp) {
        self.count += 1;
        let sender = Sender {
            ssrc: stamp.sender,
            read: Window::default(),
            heard: self.count,
        };
        let place = match known {
            Some(place) => place,
            None if self.senders.len() < MAX_SENDERS => {
                self.senders.push(sender);
                self.senders.len() - 1
            }
            None => {
                let heard = |place: &usize| self.senders[*place].heard;
                let oldest = (0..MAX_SENDERS).min_by_key(heard).unwrap_or(0);
                self.senders[oldest] = sender;
                oldest
            }
        };
        self.senders[place].heard = self.count;
        self.senders[place].read.take(stamp.index.into());
    }
}

/// Reads a compound RTCP packet (RFC 3550 §6.1) or a reduced-size one (RFC 5506) and adds its
/// items to `feedback`. Descriptions and goodbyes are skipped: browsers say goodbye to streams that
/// go on.
pub fn parse(mut compound: &[u8], feedback: &mut Feedback) {
    while !compound.is_empty() {
        let Some((packet, rest)) = Packet::split(compound) else {
            feedback.malformed += 1;
            break;
        };
        compound = rest;
        let read = match (packet.kind, packet.format) {
            (200, blocks) => packet
                .sender_report(feedback)
                .and_then(|()| packet.reports(24, blocks, feedback)),
            (201, blocks) => packet.reports(4, blocks, feedback),
            (205, 1) => packet.nack(feedback),
            (205, 15) => packet.twcc(feedback),
            (206, 1) => packet.pli(feedback),
            (206, 4) => packet.fir(feedback),
            (206, 15) => packet.remb(feedback),
            (207, _) => packet.receiver_time(feedback),
            _ => Some(()),
        };
        feedback.malformed += u32::from(read.is_none());
    }
}

/// One RTCP packet of a compound.
struct Packet<'a> {
    /// Its type (RFC 3550 §12.1, RFC 4585 §6.1).
    kind: u8,
    /// The five bits that count report blocks or name the feedback format.
    format: u8,
    /// What follows its first word, without padding.
    body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Splits the first packet off; `None` when there is no whole one.
    fn split(compound: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = compound.split_first_chunk::<4>()?;
        if head[0] >> 6 != 2 {
            return None;
        }
        let len = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (mut body, rest) = rest.split_at_checked(len)?;
        if head[0] & 0x20 != 0 {
            // RFC 3550 §6.4.1: the last byte counts the padding, itself included.
            let padding = usize::from(*body.last()?);
            body = &body[..body.len().checked_sub(padding)?];
        }
        let packet = Self {
            kind: head[1],
            format: head[0] & 0x1f,
            body,
        };
        Some((packet, rest))
    }

    fn sender_report(&self, feedback: &mut Feedback) -> Option<()> {
        let (head, _) = self.body.split_first_chunk::<16>()?;
        let at = u64::from(be32(head, 4)?) << 32 | u64::from(be32(head, 8)?);
        feedback.push(Item::SenderReport {
            ssrc: be32(head, 0)?.into(),
            at: Ntp::from_bits(at),
            timestamp: be32(head, 12)?,
        });
        Some(())
    }

    /// Report blocks behind `skip` bytes of SSRC and sender info (RFC 3550 §6.4).
    fn reports(&self, skip: usize, blocks: u8, feedback: &mut Feedback) -> Option<()> {
        let (blocks, _) = self
            .body
            .get(skip..)?
            .split_at_checked(24 * usize::from(blocks))?;
        for block in blocks.chunks_exact(24) {
            let lost = be32(block, 4)? & 0x00ff_ffff;
            feedback.push(Item::Report(ReportBlock {
                ssrc: be32(block, 0)?.into(),
                fraction_lost: block[4],
                // Sign-extended from 24 bits.
                lost: (lost << 8).cast_signed() >> 8,
                highest: be32(block, 8)?,
                jitter: be32(block, 12)?,
                last_report: be32(block, 16)?,
                delay: be32(block, 20)?,
            }));
        }
        Some(())
    }

    /// RFC 3611 §4.4: block type 4 among others, which are skipped.
    fn receiver_time(&self, feedback: &mut Feedback) -> Option<()> {
        let ssrc = be32(self.body, 0)?.into();
        let mut blocks = &self.body[4..];
        while let Some((head, rest)) = blocks.split_first_chunk::<4>() {
            let len = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (block, rest) = rest.split_at_checked(len)?;
            if head[0] == 4 {
                feedback.push(Item::ReceiverTime {
                    ssrc,
                    at: be32(block, 2)?,
                });
            }
            blocks = rest;
        }
        Some(())
    }

    /// RFC 4585 §6.2.1: a number and a mask of the 16 that follow it.
    fn nack(&self, feedback: &mut Feedback) -> Option<()> {
        let ssrc = be32(self.body, 4)?.into();
        let start = feedback.lost.len();
        for entry in self.body[8..].chunks_exact(4) {
            let first = u16::from_be_bytes([entry[0], entry[1]]);
            let mask = u16::from_be_bytes([entry[2], entry[3]]);
            let masked = (0..16)
                .filter(|bit| mask >> bit & 1 == 1)
                .map(|bit| bit + 1);
            for offset in std::iter::once(0).chain(masked) {
                if feedback.lost.len() < MAX_LOST_PER_MESSAGE {
                    feedback.lost.push(first.wrapping_add(offset));
                } else {
                    feedback.malformed += 1;
                }
            }
        }
        let lost = start..feedback.lost.len();
        feedback.push(Item::Nack { ssrc, lost });
        Some(())
    }

    fn pli(&self, feedback: &mut Feedback) -> Option<()> {
        let ssrc = be32(self.body, 4)?.into();
        feedback.push(Item::Pli { ssrc });
        Some(())
    }

    /// RFC 5104 §4.3.1.1: each entry names a stream; the SSRC in the header is unused.
    fn fir(&self, feedback: &mut Feedback) -> Option<()> {
        for entry in self.body.get(8..)?.chunks_exact(8) {
            let ssrc = be32(entry, 0)?.into();
            let number = entry[4];
            feedback.push(Item::Fir { ssrc, number });
        }
        Some(())
    }

    /// draft-alvestrand-rmcat-remb-03 §2.2: 6 bits of exponent, 18 of mantissa.
    fn remb(&self, feedback: &mut Feedback) -> Option<()> {
        if self.body.get(8..12)? != b"REMB" {
            return Some(());
        }
        let word = be32(self.body, 12)?;
        let (exponent, mantissa) = (word >> 18 & 0x3f, u64::from(word & 0x0003_ffff));
        let shifted = mantissa.checked_mul(1_u64.checked_shl(exponent)?)?;
        feedback.push(Item::Remb {
            bits_per_s: shifted,
        });
        Some(())
    }

    /// Transport-wide feedback: which packets came, then when, in deltas of 250 us.
    fn twcc(&self, feedback: &mut Feedback) -> Option<()> {
        let head = self.body.get(8..16)?;
        let base = u16::from_be_bytes([head[0], head[1]]);
        let count = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if feedback.arrivals.len() + count > MAX_ARRIVALS_PER_MESSAGE {
            return None;
        }
        let start = feedback.arrivals.len();
        let read = read_statuses(&self.body[16..], base, count, &mut feedback.arrivals);
        let arrivals = &mut feedback.arrivals[start..];
        // Signed 24 bits of 64 ms.
        let reference = (be32(head, 4)? & 0xffff_ff00).cast_signed() >> 8;
        let filled = read.and_then(|deltas| fill_times(deltas, i64::from(reference), arrivals));
        if filled.is_none() {
            feedback.arrivals.truncate(start);
            return None;
        }
        let (number, arrivals) = (head[7], start..feedback.arrivals.len());
        feedback.push(Item::Twcc { number, arrivals });
        Some(())
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let (word, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use str0m::crypto::dtls::SrtpProfile;

    use super::super::fixture::session_keys;
    use super::super::keys::Side;
    use super::super::seal::Sealer;
    use super::*;

    /// One RTCP packet: sender SSRC 1 and what follows it.
    fn rtcp(kind: u8, format: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | format, kind, 0, (body.len() / 4 + 1) as u8];
        bytes.extend([0, 0, 0, 1]);
        bytes.extend(body);
        bytes
    }

    fn read(compound: &[u8]) -> Feedback {
        let mut feedback = Feedback::new();
        parse(compound, &mut feedback);
        feedback
    }

    fn arrivals(compound: &[u8]) -> Vec<(u16, Option<i64>)> {
        let feedback = read(compound);
        let [Item::Twcc { arrivals, .. }] = feedback.items() else {
            panic!("one feedback message: {feedback:?}");
        };
        let arrivals = feedback.arrivals(arrivals).iter();
        arrivals
            .map(|arrival| (arrival.seq.0, arrival.at_us))
            .collect()
    }

    #[test]
    fn a_receivers_time_is_found_among_other_blocks() {
        let xr = [
            &[0x80, 207, 0, 7][..],
            &[0, 0, 0, 9],
            &[6, 0, 0, 1, 1, 2, 3, 4],
            &[4, 0, 0, 2, 0, 1, 2, 3, 4, 5, 6, 7],
            &[8, 0, 0, 0],
        ];
        let mut feedback = Feedback::new();
        parse(&xr.concat(), &mut feedback);
        let told = Item::ReceiverTime {
            ssrc: 9.into(),
            at: 0x0203_0405,
        };
        assert_eq!(feedback.items(), [told]);
    }

    #[test]
    fn reception_reports_are_read_from_receiver_and_sender_reports() {
        let block = [
            &[0, 0, 0, 9, 64, 0xff, 0xff, 0xfe][..],
            &[0, 1, 0, 7, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5],
        ];
        let block = block.concat();
        let expected = Item::Report(ReportBlock {
            ssrc: 9.into(),
            fraction_lost: 64,
            lost: -2,
            highest: 0x1_0007,
            jitter: 3,
            last_report: 4,
            delay: 5,
        });
        let feedback = read(&rtcp(201, 1, &block));
        assert_eq!(feedback.items(), std::slice::from_ref(&expected));
        let sender_report = [vec![0xee; 20], block].concat();
        let feedback = read(&rtcp(200, 1, &sender_report));
        let time = Item::SenderReport {
            ssrc: 1.into(),
            at: Ntp::from_bits(0xeeee_eeee_eeee_eeee),
            timestamp: 0xeeee_eeee,
        };
        assert_eq!(feedback.items(), [time, expected]);
    }

    #[test]
    fn a_nack_names_a_number_and_those_in_its_mask() {
        let body = [0, 0, 0, 9, 0xff, 0xff, 0x80, 0x01, 0, 7, 0, 0];
        let feedback = read(&rtcp(205, 1, &body));
        let [Item::Nack { ssrc, lost }] = feedback.items() else {
            panic!("one request");
        };
        assert_eq!(*ssrc, 9.into());
        assert_eq!(feedback.lost(lost), [0xffff, 0, 15, 7]);
    }

    #[test]
    fn keyframe_requests_of_both_kinds_are_read() {
        let pli = rtcp(206, 1, &[0, 0, 0, 9]);
        let fir = [0, 0, 0, 0, 0, 0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 7, 4, 0, 0, 0];
        let feedback = read(&[pli, rtcp(206, 4, &fir)].concat());
        let fir = |ssrc: u32, number| Item::Fir {
            ssrc: ssrc.into(),
            number,
        };
        let pli = Item::Pli { ssrc: 9.into() };
        assert_eq!(feedback.items(), [pli, fir(8, 3), fir(7, 4)]);
    }

    #[test]
    fn an_estimate_is_a_mantissa_and_an_exponent() {
        let remb = |word: u32| {
            let body = [&[0; 4], &b"REMB"[..], &word.to_be_bytes(), &[0, 0, 0, 9]];
            let feedback = read(&rtcp(206, 15, &body.concat()));
            (feedback.items().first().cloned(), feedback.malformed())
        };
        let bits_per_s = 200_000 << 3;
        let word = 1 << 24 | 3 << 18 | 200_000;
        assert_eq!(remb(word), (Some(Item::Remb { bits_per_s }), 0));
        assert_eq!(remb(0x01ff_ffff), (None, 1), "more than 64 bits");
    }

    #[test]
    fn other_application_feedback_is_not_an_estimate() {
        let feedback = read(&rtcp(206, 15, b"\0\0\0\0NAMEdata"));
        assert!(feedback.items().is_empty());
        assert_eq!(feedback.malformed(), 0);
    }

    #[test]
    fn arrival_times_add_up_from_the_reference() {
        // Base 0xffff, 5 packets, reference -1 (64 ms), message 7; two-bit symbols: small, none,
        // large, small, small; deltas 4, -2, 0, 1.
        let body = [
            &[0, 0, 0, 0, 0xff, 0xff, 0, 5, 0xff, 0xff, 0xff, 7][..],
            &[0b1101_0010, 0b0101_0000, 4, 0xff, 0xfe, 0, 1, 0],
        ];
        let us = |quarters: i64| Some(-64_000 + 250 * quarters);
        let expected = [
            (0xffff, us(4)),
            (0, None),
            (1, us(2)),
            (2, us(2)),
            (3, us(3)),
        ];
        assert_eq!(arrivals(&rtcp(205, 15, &body.concat())), expected);
    }

    #[test]
    fn runs_and_one_bit_vectors_of_arrivals_are_read() {
        // A run of 3 not received, then one-bit symbols 1, 0, 1 of 14.
        let body = [
            &[0, 0, 0, 0, 0, 10, 0, 6, 0, 0, 1, 0][..],
            &[0x00, 0x03, 0b1010_1000, 0, 8, 4, 0, 0],
        ];
        let times = arrivals(&rtcp(205, 15, &body.concat()));
        let at = |ms: i64| Some(ms * 1_000);
        assert_eq!(times[..3], [(10, None), (11, None), (12, None)]);
        assert_eq!(times[3..], [(13, at(66)), (14, None), (15, at(67))]);
    }

    #[test]
    fn contradictory_arrivals_are_left_out_whole() {
        let short = [0, 0, 0, 0, 0, 10, 0, 6, 0, 0, 1, 0, 0x20, 0x06, 4, 0];
        let reserved = [0, 0, 0, 0, 0, 10, 0, 1, 0, 0, 1, 0, 0x60, 0x01, 4, 0];
        for body in [short, reserved] {
            let feedback = read(&rtcp(205, 15, &body));
            assert!(feedback.items().is_empty() && feedback.arrivals.is_empty());
            assert_eq!(feedback.malformed(), 1);
        }
    }

    #[test]
    fn a_message_about_too_many_packets_is_left_out() {
        let about = |packets: usize| {
            let [high, low] = (packets as u16).to_be_bytes();
            // One run of packets that did not arrive.
            let body = [0, 0, 0, 0, 0, 10, high, low, 0, 0, 1, 0, high, low, 0, 0];
            read(&rtcp(205, 15, &body)).items().len()
        };
        assert_eq!(about(MAX_ARRIVALS_PER_MESSAGE), 1);
        assert_eq!(about(MAX_ARRIVALS_PER_MESSAGE + 1), 0);
    }

    #[test]
    fn what_follows_a_broken_packet_is_not_read() {
        let mut compound = rtcp(206, 1, &[0, 0, 0, 9]);
        compound.extend(rtcp(206, 1, &[0; 4]));
        compound[12] = 0x40;
        let feedback = read(&compound);
        assert_eq!((feedback.items().len(), feedback.malformed()), (1, 1));
    }

    #[test]
    fn padding_is_not_read() {
        let mut compound = rtcp(205, 1, &[0, 0, 0, 9, 0, 7, 0, 0, 0, 0, 0, 4]);
        compound[0] |= 0x20;
        let feedback = read(&compound);
        let [Item::Nack { lost, .. }] = feedback.items() else {
            panic!("one request");
        };
        assert_eq!(feedback.lost(lost), [7]);
    }

    /// A viewer's sealer and our reader of it.
    fn viewer() -> (Sealer, FeedbackReader) {
        let keys = session_keys(SrtpProfile::AEAD_AES_128_GCM, Side::Client, 3);
        (Sealer::new(&keys), FeedbackReader::new(Opener::new(&keys)))
    }

    fn sealed(sealer: &mut Sealer, sender: u32) -> Vec<u8> {
        let mut datagram = rtcp(206, 1, &[0, 0, 0, 9]);
        datagram[4..8].copy_from_slice(&sender.to_be_bytes());
        sealer
            .seal_rtcp(&mut datagram, 0)
            .expect("indexes are left");
        datagram
    }

    #[test]
    fn a_datagram_is_read_once_whatever_the_order() {
        let (mut sealer, mut reader) = viewer();
        let mut feedback = Feedback::new();
        let datagrams = [1, 2, 1, 2].map(|sender| sealed(&mut sealer, sender));
        for place in [2, 0, 3, 1] {
            let read = reader.handle_srtcp(&datagrams[place], &mut feedback);
            assert_eq!(read, Ok(()));
            assert_eq!(feedback.items().len(), 1);
        }
        for datagram in &datagrams {
            let read = reader.handle_srtcp(datagram, &mut feedback);
            assert_eq!(read, Err(Unread::Replayed));
            assert!(feedback.items().is_empty());
        }
    }

    #[test]
    fn a_forged_datagram_does_not_use_up_an_index() {
        let (mut sealer, mut reader) = viewer();
        let mut feedback = Feedback::new();
        let good = sealed(&mut sealer, 1);
        let mut forged = good.clone();
        forged[9] ^= 1;
        let read = reader.handle_srtcp(&forged, &mut feedback);
        assert_eq!(read, Err(Unread::Sealed(Sealed::Forged)));
        assert!(reader.senders.is_empty());
        let read = reader.handle_srtcp(&good, &mut feedback);
        assert_eq!(read, Ok(()));
    }

    #[test]
    fn a_bounded_number_of_senders_is_remembered() {
        let (mut sealer, mut reader) = viewer();
        let mut feedback = Feedback::new();
        let mut hear = |sender| {
            let datagram = sealed(&mut sealer, sender);
            reader.handle_srtcp(&datagram, &mut feedback).expect("new");
        };
        (0..MAX_SENDERS as u32 - 1).for_each(&mut hear);
        hear(0);
        (1_000..1_002).for_each(&mut hear);
        assert_eq!(reader.senders.len(), MAX_SENDERS);
        let known = |ssrc| reader.senders.iter().any(|sender| sender.ssrc == ssrc);
        assert!(known(0) && known(1_000) && known(1_001));
        assert!(!known(1), "the one not heard for longest");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_bytes_are_read_within_the_limits(
            bytes in prop::collection::vec(any::<u8>(), 0..1_500)
        ) {
            let feedback = read(&bytes);
            within_limits(&feedback)?;
        }

        #[test]
        fn any_well_framed_packets_are_read_within_the_limits(
            packets in prop::collection::vec(
                (200_u8..208, 0_u8..32, prop::collection::vec(any::<[u8; 4]>(), 0..60)),
                0..30,
            )
        ) {
            let mut compound = Vec::new();
            for (kind, format, words) in packets {
                compound.extend(rtcp(kind, format, &words.concat()));
            }
            let feedback = read(&compound);
            within_limits(&feedback)?;
        }

        #[test]
        fn any_datagram_is_refused_or_read(
            bytes in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let (_, mut reader) = viewer();
            let refused = reader.handle_srtcp(&bytes, &mut Feedback::new()).is_err();
            prop_assert!(refused, "a forged tag by chance?");
        }
    }

    fn within_limits(feedback: &Feedback) -> Result<(), TestCaseError> {
        prop_assert!(feedback.items().len() <= MAX_ITEMS_PER_MESSAGE);
        prop_assert!(feedback.lost.len() <= MAX_LOST_PER_MESSAGE);
        prop_assert!(feedback.arrivals.len() <= MAX_ARRIVALS_PER_MESSAGE);
        for item in feedback.items() {
            match item {
                Item::Nack { lost, .. } => drop(feedback.lost(lost)),
                Item::Twcc { arrivals, .. } => drop(feedback.arrivals(arrivals)),
                _ => {}
            }
        }
        Ok(())
    }
}
