//! What arrived of one stream: which indexes, for SRTP and against replay, and how well, for the
//! reception report its sender gets.

use std::time::Instant;

use str0m::rtp::Ssrc;

use super::nearest;
use crate::engine::egress::feedback::ReportBlock;
use crate::engine::egress::window::Window;

/// What is known of one stream.
#[derive(Debug, Clone, Default)]
pub struct Reception {
    arrived: Window,
    /// The first index.
    first: u64,
    /// Packets that arrived, those sent again aside.
    received: u64,
    /// What was expected and received when the last report was made.
    reported: (u64, u64),
    jitter: Option<Jitter>,
}

/// Interarrival jitter (RFC 3550 §6.4.1), of the first packet of each frame.
#[derive(Debug, Clone, Copy)]
struct Jitter {
    at: Instant,
    timestamp: u32,
    /// In 16ths of a tick (RFC 3550 §A.8).
    ticks_16: u64,
}

impl Reception {
    /// Roll-over counter and sequence number in one, as a sender that is not 2^15 packets ahead
    /// or behind means it (RFC 3711 §3.3.1).
    #[must_use]
    pub fn index(&self, seq: u16) -> u64 {
        let highest = self.arrived.highest();
        highest
            .and_then(|highest| nearest(highest, seq))
            .unwrap_or(seq.into())
    }

    /// The highest index that arrived.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.arrived.highest()
    }

    /// Whether a packet may be opened: it is neither old nor a repetition (RFC 3711 §3.3.2).
    #[must_use]
    pub fn is_fresh(&self, index: u64) -> bool {
        self.arrived.is_fresh(index)
    }

    /// Takes note of an authentic packet. `rate` is the stream's ticks per second.
    pub fn handle_packet(&mut self, now: Instant, index: u64, timestamp: u32, rate: u32) {
        if self.arrived.highest().is_none() {
            self.first = index;
        }
        self.first = self.first.min(index);
        self.received += u64::from(self.arrived.take(index));
        match &mut self.jitter {
            Some(jitter) => jitter.handle_packet(now, timestamp, rate),
            None => {
                self.jitter = Some(Jitter {
                    at: now,
                    timestamp,
                    ticks_16: 0,
                });
            }
        }
    }

    /// Takes note of a packet that was sent again in another stream. It stays lost in reports:
    /// its sender must know what the path does. Returns whether it had been missing.
    pub fn handle_repaired(&mut self, index: u64) -> bool {
        self.arrived.take(index)
    }

    /// What the next report says of the stream; `None` before the first packet. `echo` are the
    /// middle bits of its last sender report's time, and how long ago that came.
    pub fn report(&mut self, ssrc: Ssrc, echo: (u32, u32)) -> Option<ReportBlock> {
        let highest = self.arrived.highest()?;
        let expected = highest - self.first + 1;
        let (expected_before, received_before) = self.reported;
        self.reported = (expected, self.received);
        let expected_now = expected.saturating_sub(expected_before);
        let received_now = self.received - received_before;
        let fraction_lost = match expected_now.saturating_sub(received_now) {
            0 => 0,
            lost => (lost * 256 / expected_now).min(255) as u8,
        };
        let lost = expected.cast_signed() - self.received.cast_signed();
        let (last_report, delay) = echo;
        Some(ReportBlock {
            ssrc,
            fraction_lost,
            lost: lost.clamp(-0x0080_0000, 0x007f_ffff) as i32,
            highest: highest as u32,
            jitter: self
                .jitter
                .map_or(0, |jitter| (jitter.ticks_16 / 16) as u32),
            last_report,
            delay,
        })
    }
}

impl Jitter {
    fn handle_packet(&mut self, now: Instant, timestamp: u32, rate: u32) {
        if timestamp == self.timestamp {
            return;
        }
        let span = now.saturating_duration_since(self.at).as_nanos() as u64;
        let ticks = (span.saturating_mul(rate.into()) / 1_000_000_000).cast_signed();
        let told = i64::from(timestamp.wrapping_sub(self.timestamp).cast_signed());
        // A source that stopped and came back tells nothing of the path.
        let off = ticks.abs_diff(told).min(rate.into());
        (self.at, self.timestamp) = (now, timestamp);
        self.ticks_16 = self.ticks_16 + off - (self.ticks_16 + 8) / 16;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sim::clock::origin;

    const RATE: u32 = 90_000;

    /// Takes in packets 20 ms apart, one per frame, of these numbers.
    fn received(numbers: impl IntoIterator<Item = u64>) -> Reception {
        let mut reception = Reception::default();
        let start = origin();
        for number in numbers {
            let at = start + Duration::from_millis(20) * number as u32;
            reception.handle_packet(at, number, number as u32 * 1800, RATE);
        }
        reception
    }

    fn told(reception: &mut Reception) -> ReportBlock {
        let report = reception.report(1.into(), (0, 0));
        report.expect("packets came")
    }

    #[test]
    fn an_index_follows_the_highest_over_the_wrap() {
        let mut reception = Reception::default();
        assert_eq!(reception.index(65_530), 65_530);
        reception.handle_packet(origin(), 65_530, 0, RATE);
        assert_eq!(reception.index(3), 65_539);
        reception.handle_packet(origin(), 65_539, 0, RATE);
        assert_eq!(
            reception.index(65_531),
            65_531,
            "late, from before the wrap"
        );
    }

    #[test]
    fn what_is_lost_is_told_once_as_a_fraction_and_for_good_as_a_sum() {
        let mut reception = received((0..100).filter(|number| number % 4 != 3));
        let first = told(&mut reception);
        assert_eq!((first.lost, first.highest), (24, 98));
        assert_eq!(first.fraction_lost, (24 * 256 / 99) as u8);
        let second = told(&mut reception);
        assert_eq!((second.lost, second.fraction_lost), (24, 0));
    }

    #[test]
    fn what_was_sent_again_stays_lost_and_is_taken_once() {
        let mut reception = received([0, 1, 3]);
        assert!(reception.handle_repaired(2));
        assert!(!reception.handle_repaired(2));
        assert_eq!(told(&mut reception).lost, 1);
    }

    #[test]
    fn a_packet_from_before_the_first_is_expected_too() {
        let mut reception = received([5, 6]);
        reception.handle_packet(origin(), 4, 0, RATE);
        assert_eq!(told(&mut reception).lost, 0);
    }

    #[test]
    fn jitter_is_what_frames_are_off_by_on_average() {
        let even = told(&mut received(0..200));
        assert_eq!(even.jitter, 0);
        let mut reception = Reception::default();
        let start = origin();
        for number in 0..400_u64 {
            let late = if number % 2 == 0 { 0 } else { 5 };
            let at = start + Duration::from_millis(20 * number + late);
            reception.handle_packet(at, number, number as u32 * 1800, RATE);
        }
        let jitter = told(&mut reception).jitter;
        assert!(
            (440..=460).contains(&jitter),
            "5 ms are 450 ticks: {jitter}"
        );
    }
}
