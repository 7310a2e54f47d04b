//! Writes what a receiver tells a sender: reception reports, what is missing, that a keyframe is
//! needed.

use str0m::rtp::Ssrc;

use crate::engine::egress::feedback::ReportBlock;
use crate::engine::egress::reports::{
    PAYLOAD_FEEDBACK, RECEIVER_REPORT, TRANSPORT_FEEDBACK, write_head, write_length,
};

/// Under which SSRC we report to every client: it has no stream, as that of a libwebrtc receiver
/// that sends nothing, which is 1 too.
pub const REPORTER: u32 = 1;

/// Blocks in one report (RFC 3550 §6.4.1: the count has five bits).
pub const MAX_BLOCKS: usize = 31;

/// Writes a receiver report (RFC 3550 §6.4.2). At most [`MAX_BLOCKS`]; further ones are left out.
pub fn write_report(blocks: &[ReportBlock], buf: &mut Vec<u8>) {
    let blocks = &blocks[..blocks.len().min(MAX_BLOCKS)];
    write_head(
        RECEIVER_REPORT,
        blocks.len() as u8,
        1 + 6 * blocks.len() as u16,
        buf,
    );
    buf.extend_from_slice(&REPORTER.to_be_bytes());
    for block in blocks {
        let lost = (block.lost as u32 & 0x00ff_ffff) | u32::from(block.fraction_lost) << 24;
        for word in [
            *block.ssrc,
            lost,
            block.highest,
            block.jitter,
            block.last_report,
            block.delay,
        ] {
            buf.extend_from_slice(&word.to_be_bytes());
        }
    }
}

/// Asks for packets again (RFC 4585 §6.2.1). `lost` is in order.
pub fn write_nack(media: Ssrc, lost: &[u16], buf: &mut Vec<u8>) {
    let start = buf.len();
    write_head(TRANSPORT_FEEDBACK, 1, 0, buf);
    buf.extend_from_slice(&REPORTER.to_be_bytes());
    buf.extend_from_slice(&media.to_be_bytes());
    let mut lost = lost.iter().peekable();
    while let Some(first) = lost.next() {
        let mut mask = 0_u16;
        while let Some(bit) = lost.peek().map(|next| next.wrapping_sub(*first))
            && (1..=16).contains(&bit)
        {
            mask |= 1 << (bit - 1);
            lost.next();
        }
        buf.extend_from_slice(&first.to_be_bytes());
        buf.extend_from_slice(&mask.to_be_bytes());
    }
    write_length(start, buf);
}

/// Asks for a keyframe (Picture Loss Indication, RFC 4585 §6.3.1).
pub fn write_pli(media: Ssrc, buf: &mut Vec<u8>) {
    write_head(PAYLOAD_FEEDBACK, 1, 2, buf);
    buf.extend_from_slice(&REPORTER.to_be_bytes());
    buf.extend_from_slice(&media.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::egress::feedback::{Feedback, Item, parse};

    fn read(bytes: &[u8]) -> Feedback {
        let mut feedback = Feedback::new();
        parse(bytes, &mut feedback);
        assert_eq!(feedback.malformed(), 0);
        feedback
    }

    #[test]
    fn a_report_says_what_its_blocks_say() {
        let block = |ssrc: u32| ReportBlock {
            ssrc: ssrc.into(),
            fraction_lost: 7,
            lost: -2,
            highest: 0x0003_fffe,
            jitter: 90,
            last_report: 0x1234_5678,
            delay: 65_536,
        };
        let blocks: Vec<_> = (1..=40).map(block).collect();
        let mut buf = Vec::new();
        write_report(&blocks, &mut buf);
        let feedback = read(&buf);
        assert_eq!(feedback.items().len(), MAX_BLOCKS);
        assert_eq!(feedback.items()[0], Item::Report(block(1)));
    }

    #[test]
    fn a_keyframe_request_is_laid_out_as_rfc_4585_says() {
        let mut buf = Vec::new();
        write_pli(0x0a0b_0c0d.into(), &mut buf);
        assert_eq!(buf, [0x81, 206, 0, 2, 0, 0, 0, 1, 0x0a, 0x0b, 0x0c, 0x0d]);
    }

    proptest! {
        #[test]
        fn what_is_missing_is_read_as_it_was_written(
            first: u16, steps in prop::collection::vec(1_u16..40, 0..100)
        ) {
            let mut lost = vec![first];
            for step in steps {
                lost.push(lost.last().map_or(0, |last| last.wrapping_add(step)));
            }
            let mut buf = Vec::new();
            write_nack(5.into(), &lost, &mut buf);
            let feedback = read(&buf);
            let [Item::Nack { ssrc, lost: told }] = feedback.items() else {
                panic!("one request");
            };
            prop_assert_eq!(**ssrc, 5);
            prop_assert_eq!(feedback.lost(told), &lost[..]);
        }
    }
}
