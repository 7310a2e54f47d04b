//! Writes sender reports, descriptions and goodbyes, and reads the round trip from their echo.

use std::time::Duration;

use str0m::rtp::Ssrc;

use super::clock::Ntp;
use super::packet::SentTotals;

/// How often a video slot sends a report: every second, as libwebrtc does
/// (`kDefaultVideoReportInterval`). RFC 3550 §6.2 allows 360 s divided by the rate in kbit/s.
pub const VIDEO_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How often an audio slot sends a report: every 5 s, as libwebrtc does
/// (`kDefaultAudioReportInterval`), the fixed minimum of RFC 3550 §6.2.
pub const AUDIO_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A longer round trip is not believed: the echo is of a report long gone.
pub const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);

/// Longest CNAME, in bytes (RFC 3550 §6.5: the length is one byte).
const MAX_CNAME_BYTES: usize = 255;

/// SSRCs in one goodbye (RFC 3550 §6.6: the count has five bits).
pub const MAX_GOODBYES: usize = 31;

const SENDER_REPORT: u8 = 200;
pub(in crate::engine) const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// Feedback to the transport, and about payloads (RFC 4585 §6.1).
pub(in crate::engine) const TRANSPORT_FEEDBACK: u8 = 205;
pub(in crate::engine) const PAYLOAD_FEEDBACK: u8 = 206;
const EXTENDED_REPORT: u8 = 207;

/// Block type of a receiver's time told back (RFC 3611 §4.5).
const TIME_ECHO: u8 = 5;

/// What one slot says about its stream.
#[derive(Debug, Clone, Copy)]
pub struct SenderReport {
    /// The media SSRC.
    pub ssrc: Ssrc,
    /// When the report is written, on our wall clock.
    pub at: Ntp,
    /// The RTP timestamp of that time, by [`super::clock::StreamClock::timestamp`].
    pub timestamp: u32,
    /// What the stream has sent.
    pub totals: SentTotals,
}

/// Writes a compound packet: the report (RFC 3550 §6.4.1, without report blocks) and the CNAME
/// (§6.5), as §6.1 demands of every compound.
pub fn write_report(report: &SenderReport, cname: &str, buf: &mut Vec<u8>) {
    write_head(SENDER_REPORT, 0, 6, buf);
    buf.extend_from_slice(&report.ssrc.to_be_bytes());
    buf.extend_from_slice(&report.at.bits().to_be_bytes());
    buf.extend_from_slice(&report.timestamp.to_be_bytes());
    buf.extend_from_slice(&report.totals.packets.to_be_bytes());
    buf.extend_from_slice(&report.totals.octets.to_be_bytes());
    write_cname(report.ssrc, cname, buf);
}

/// Writes a compound packet that ends streams: an empty receiver report, the CNAME of the first,
/// and the goodbye (RFC 3550 §6.6). At most [`MAX_GOODBYES`]; further ones are left out.
pub fn write_goodbye(ssrcs: &[Ssrc], cname: &str, buf: &mut Vec<u8>) {
    let ssrcs = &ssrcs[..ssrcs.len().min(MAX_GOODBYES)];
    let Some(first) = ssrcs.first() else { return };
    write_head(RECEIVER_REPORT, 0, 1, buf);
    buf.extend_from_slice(&first.to_be_bytes());
    write_cname(*first, cname, buf);
    write_head(GOODBYE, ssrcs.len() as u8, ssrcs.len() as u16, buf);
    for ssrc in ssrcs {
        buf.extend_from_slice(&ssrc.to_be_bytes());
    }
}

/// Tells a receiver's time back at once (RFC 3611 §4.5, DLRR). A delay of 0 would mean that none
/// had come, so it is 1 of 65536 parts of a second. `ssrc` is one of ours, `of`
/// the receiver's, `at` what it told.
pub fn write_time_echo(ssrc: Ssrc, of: Ssrc, at: u32, buf: &mut Vec<u8>) {
    write_head(EXTENDED_REPORT, 0, 5, buf);
    buf.extend_from_slice(&ssrc.to_be_bytes());
    buf.extend_from_slice(&[TIME_ECHO, 0, 0, 3]);
    buf.extend_from_slice(&of.to_be_bytes());
    buf.extend_from_slice(&at.to_be_bytes());
    buf.extend_from_slice(&[0, 0, 0, 1]);
}

/// One chunk with one CNAME item; the chunk ends in one to four zeros (RFC 3550 §6.5).
fn write_cname(ssrc: Ssrc, cname: &str, buf: &mut Vec<u8>) {
    let cname = &cname.as_bytes()[..cname.len().min(MAX_CNAME_BYTES)];
    let item = 2 + cname.len();
    let words = item / 4 + 1;
    write_head(DESCRIPTION, 1, 1 + words as u16, buf);
    buf.extend_from_slice(&ssrc.to_be_bytes());
    buf.extend_from_slice(&[1, cname.len() as u8]);
    buf.extend_from_slice(cname);
    buf.extend_from_slice(&[0; 4][..4 * words - item]);
}

/// The first word of an RTCP packet with `words` behind it (RFC 3550 §6.4.1).
pub(in crate::engine) fn write_head(kind: u8, count: u8, words: u16, buf: &mut Vec<u8>) {
    buf.extend_from_slice(&[2 << 6 | count, kind]);
    buf.extend_from_slice(&words.to_be_bytes());
}

/// Writes into the first word of the RTCP packet from `start` on how many words follow it.
pub(in crate::engine) fn write_length(start: usize, buf: &mut [u8]) {
    let words = ((buf.len() - start) / 4 - 1) as u16;
    buf[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

/// The round trip that a report block received at `at` tells (RFC 3550 §6.4.1): now, less when
/// the report it echoes left, less how long the viewer held it. `None` when it echoes none, or
/// tells nothing believable.
#[must_use]
pub fn round_trip(at: Ntp, last_report: u32, delay: u32) -> Option<Duration> {
    if last_report == 0 {
        return None;
    }
    let units = at.middle().wrapping_sub(last_report).wrapping_sub(delay);
    let units = u64::try_from(units.cast_signed()).ok()?;
    let span = Duration::from_micros(units * 1_000_000 / 65_536);
    (span <= MAX_ROUND_TRIP).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTALS: SentTotals = SentTotals {
        packets: 5,
        octets: 6,
    };

    fn report(cname: &str) -> Vec<u8> {
        let report = SenderReport {
            ssrc: 0x0102_0304.into(),
            at: Ntp::from_bits(0x1111_1111_2222_2222),
            timestamp: 7,
            totals: TOTALS,
        };
        let mut buf = Vec::new();
        write_report(&report, cname, &mut buf);
        buf
    }

    #[test]
    fn a_report_is_laid_out_as_rfc_3550_says() {
        let expected = [
            &[0x80, 200, 0, 6, 1, 2, 3, 4][..],
            &[0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x22, 0x22],
            &[0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 6],
            &[
                0x81, 202, 0, 3, 1, 2, 3, 4, 1, 4, b'n', b'a', b'm', b'e', 0, 0,
            ],
        ];
        assert_eq!(report("name"), expected.concat());
    }

    #[test]
    fn a_cname_of_any_length_ends_in_a_zero_on_a_word() {
        for len in 0..=300 {
            let bytes = report(&"n".repeat(len));
            let words = usize::from(u16::from_be_bytes([bytes[30], bytes[31]]));
            assert_eq!(bytes.len(), 28 + 4 + 4 * words, "{len}");
            assert_eq!(bytes.last(), Some(&0), "{len}");
            assert_eq!(usize::from(bytes[37]), len.min(255));
        }
    }

    #[test]
    fn a_time_echo_is_laid_out_as_rfc_3611_says() {
        let mut buf = Vec::new();
        write_time_echo(1.into(), 2.into(), 0x0a0b_0c0d, &mut buf);
        let expected = [
            &[0x80, 207, 0, 5, 0, 0, 0, 1][..],
            &[5, 0, 0, 3, 0, 0, 0, 2, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, 1],
        ];
        assert_eq!(buf, expected.concat());
    }

    #[test]
    fn a_goodbye_names_every_stream_that_ends() {
        let mut buf = Vec::new();
        write_goodbye(&[1.into(), 2.into()], "c", &mut buf);
        let expected = [
            &[0x80, 201, 0, 1, 0, 0, 0, 1][..],
            &[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 1, b'c', 0],
            &[0x82, 203, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],
        ];
        assert_eq!(buf, expected.concat());
        buf.clear();
        write_goodbye(&[], "c", &mut buf);
        assert!(buf.is_empty());
        write_goodbye(&[9.into(); 40], "c", &mut buf);
        assert_eq!(buf.len(), 8 + 12 + 4 + 4 * 31);
    }

    #[test]
    fn the_round_trip_of_rfc_3550_figure_2() {
        // §6.4.1: A = 0xb710:8000, LSR = 0xb705:2000, DLSR = 0x0005:4000, round trip 6.125 s.
        let at = Ntp::from_bits(0xb710_8000 << 16);
        let measured = round_trip(at, 0xb705_2000, 0x0005_4000);
        assert_eq!(measured, Some(Duration::from_millis(6_125)));
    }

    #[test]
    fn an_echo_that_makes_no_sense_tells_no_round_trip() {
        let at = Ntp::from_bits(100 << 32);
        assert_eq!(round_trip(at, 0, 0), None, "no report was received");
        assert_eq!(round_trip(at, 101 << 16, 0), None, "from the future");
        assert_eq!(round_trip(at, 99 << 16, 2 << 16), None, "held for too long");
        assert_eq!(round_trip(at, 89 << 16, 0), None, "too long ago");
        let at = Ntp::from_bits(0x1_0000_0000_0000);
        let across = round_trip(at, u32::MAX - 0x7fff, 0);
        assert_eq!(across, Some(Duration::from_millis(500)), "over the wrap");
    }
}
