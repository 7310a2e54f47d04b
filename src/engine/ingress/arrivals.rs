//! When a client's packets arrived, told back to it for its congestion control
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use str0m::rtp::Ssrc;

use super::nearest;
use crate::engine::egress::reports::{TRANSPORT_FEEDBACK, write_head, write_length};

/// From the first packet that was not told of to when it is. libwebrtc waits 50 to 250 ms, by the
/// rate; 100 ms is what it begins with.
pub const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);

/// Numbers that one message may span, and that wait at most: past it what waits is left out.
/// 100 ms of 20,000 packets a second.
pub const MAX_SPAN: usize = 2048;

/// How far below what was told already a late packet may be and still be told.
const MAX_LATE: u64 = 64;

/// Longest message, in bytes: with SRTCP's, UDP's and IP's own it stays below any path's MTU.
const MAX_BYTES: usize = 1100;

/// Unit of arrival times, and of the time they count from, in microseconds (§3.1).
const DELTA_US: i64 = 250;
const REFERENCE_US: i64 = 64_000;

/// Fewest numbers in one chunk of two bytes but the last (§3.1.4).
const CHUNK_LEAST: usize = 7;

const _: () = assert!(
    2 * MAX_SPAN.div_ceil(CHUNK_LEAST) + 2 <= MAX_BYTES,
    "one that came after as many that did not must fit"
);

/// Longest run in one chunk (§3.1.3: 13 bits).
const MAX_RUN: usize = 0x1fff;

/// What arrived and was not told yet.
#[derive(Debug)]
pub struct Arrivals {
    /// What reference times count from.
    epoch: Instant,
    /// The number of the first of [`Self::waiting`]: everything below was told.
    next: u64,
    /// From there on; `None` did not arrive. The last did.
    waiting: VecDeque<Option<Instant>>,
    /// Whether any number was seen.
    has_begun: bool,
    /// Counts messages, wrapping.
    messages: u8,
    /// When the next is due.
    due: Option<Instant>,
}

/// How one number fared (§3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Missing = 0,
    /// It came 0 to 63.75 ms after the one before.
    Small = 1,
    Large = 2,
}

impl Arrivals {
    /// None yet. Times count from `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            next: 0,
            waiting: VecDeque::new(),
            has_begun: false,
            messages: 0,
            due: None,
        }
    }

    /// Takes note that a packet of this number arrived.
    pub fn handle_packet(&mut self, now: Instant, seq: u16) {
        if !self.has_begun {
            // One turn of the counter above zero: an older one may come after it.
            self.next = (1 << 16) | u64::from(seq);
            self.has_begun = true;
        }
        let end = self.next + self.waiting.len() as u64;
        let Some(number) = nearest(end, seq) else {
            return;
        };
        if number < self.next {
            if self.next - number > MAX_LATE {
                return;
            }
            while self.next > number {
                self.waiting.push_front(None);
                self.next -= 1;
            }
        }
        if number - self.next >= MAX_SPAN as u64 {
            self.waiting.clear();
            self.next = number;
        }
        let place = (number - self.next) as usize;
        if place >= self.waiting.len() {
            self.waiting.resize(place + 1, None);
        }
        self.waiting[place].get_or_insert(now);
        self.due.get_or_insert(now + FEEDBACK_INTERVAL);
    }

    /// When [`Self::write`] is to be called.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        self.due
    }

    /// Writes one message (§3.1) of what waits; `false` when nothing does. Call it until then:
    /// one message may not hold all.
    pub fn write(&mut self, sender: Ssrc, media: Ssrc, buf: &mut Vec<u8>) -> bool {
        let Some(first) = self.waiting.iter().find_map(|arrived| *arrived) else {
            self.due = None;
            return false;
        };
        let reference = self.us(first).div_euclid(REFERENCE_US);
        let start = buf.len();
        write_head(TRANSPORT_FEEDBACK, 15, 0, buf);
        buf.extend_from_slice(&sender.to_be_bytes());
        buf.extend_from_slice(&media.to_be_bytes());
        buf.extend_from_slice(&(self.next as u16).to_be_bytes());
        let told = self.count(reference);
        buf.extend_from_slice(&(told as u16).to_be_bytes());
        buf.extend_from_slice(&(reference as u32).to_be_bytes()[1..]);
        buf.push(self.messages);
        self.messages = self.messages.wrapping_add(1);
        self.write_chunks(reference, told, buf);
        self.write_deltas(reference, told, buf);
        let padding = (4 - (buf.len() - start) % 4) % 4;
        if padding > 0 {
            // RFC 3550 §6.4.1: the last byte counts the padding.
            buf.extend_from_slice(&[0, 0, 0][..padding - 1]);
            buf.push(padding as u8);
            buf[start] |= 0x20;
        }
        write_length(start, buf);
        self.waiting.drain(..told);
        self.next += told as u64;
        true
    }

    /// How many numbers fit one message: as far as times can be told and there is room. The first
    /// that came always does.
    fn count(&self, reference: i64) -> usize {
        let mut deltas = 0;
        let mut told = 0;
        for (place, step) in self.steps(reference).enumerate() {
            // What is missing is told with the next that came.
            let Some(step) = step else { continue };
            let Some((_, len)) = status(step) else { break };
            deltas += len;
            let chunks = 2 * (place + 1).div_ceil(CHUNK_LEAST);
            if chunks + deltas > MAX_BYTES {
                break;
            }
            told = place + 1;
        }
        told
    }

    /// For each number, how many units it came after the one before it that came.
    fn steps(&self, reference: i64) -> impl Iterator<Item = Option<i64>> {
        let mut before = reference * REFERENCE_US / DELTA_US;
        self.waiting.iter().map(move |arrived| {
            let at = arrived.map(|at| self.us(at).div_euclid(DELTA_US))?;
            Some(at - std::mem::replace(&mut before, at))
        })
    }

    fn us(&self, at: Instant) -> i64 {
        at.saturating_duration_since(self.epoch).as_micros() as i64
    }

    fn write_chunks(&self, reference: i64, told: usize, buf: &mut Vec<u8>) {
        let statuses = |skip: usize| {
            let steps = self.steps(reference).take(told).skip(skip);
            steps.map(|step| match step {
                None => Status::Missing,
                Some(step) => status(step).map_or(Status::Missing, |(status, _)| status),
            })
        };
        let mut done = 0;
        while let Some(first) = statuses(done).next() {
            let run = statuses(done)
                .take(MAX_RUN)
                .take_while(|s| *s == first)
                .count();
            let few = || statuses(done).take(14);
            let chunk;
            if run >= 14 || done + run == told {
                // §3.1.3: a run of one status.
                chunk = (first as u16) << 13 | run as u16;
                done += run;
            } else if few().all(|status| status != Status::Large) {
                // §3.1.4: one bit each of 14.
                let bits = few().zip((0..14).rev());
                let bits = bits.fold(0, |bits, (status, at)| bits | (status as u16) << at);
                chunk = 0x8000 | bits;
                done += 14.min(told - done);
            } else {
                // §3.1.4: two bits each of 7.
                let bits = few().zip((0..7).rev());
                let bits = bits.fold(0, |bits, (status, at)| bits | (status as u16) << (2 * at));
                chunk = 0xc000 | bits;
                done += 7.min(told - done);
            }
            buf.extend_from_slice(&chunk.to_be_bytes());
        }
    }

    fn write_deltas(&self, reference: i64, told: usize, buf: &mut Vec<u8>) {
        for step in self.steps(reference).take(told).flatten() {
            match status(step) {
                Some((Status::Small, _)) => buf.push(step as u8),
                _ => buf.extend_from_slice(&(step as i16).to_be_bytes()),
            }
        }
    }
}

/// How a step is told, and in how many bytes; `None` when it cannot be.
fn status(step: i64) -> Option<(Status, usize)> {
    match step {
        0..=255 => Some((Status::Small, 1)),
        _ if i16::try_from(step).is_ok() => Some((Status::Large, 2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::egress::feedback::{Feedback, Item, parse};
    use crate::sim::clock::origin;

    /// Reads all messages: each number told, and when it came, in microseconds since the epoch.
    fn told(arrivals: &mut Arrivals) -> Vec<(u16, Option<i64>)> {
        let mut told = Vec::new();
        let mut buf = Vec::new();
        while arrivals.write(1.into(), 2.into(), &mut buf) {
            assert!(buf.len() <= MAX_BYTES + 28 && buf.len().is_multiple_of(4));
            let mut feedback = Feedback::new();
            parse(&buf, &mut feedback);
            assert_eq!(feedback.malformed(), 0);
            let [Item::Twcc { arrivals, .. }] = feedback.items() else {
                panic!("one message: {:?}", feedback.items());
            };
            let arrivals = feedback.arrivals(arrivals).iter();
            told.extend(arrivals.map(|arrival| (arrival.seq.0, arrival.at_us)));
            buf.clear();
        }
        told
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_came_and_what_did_not_is_told_once() {
        let start = origin();
        let mut arrivals = Arrivals::new(start);
        assert_eq!(arrivals.wakeup(), None);
        arrivals.handle_packet(start + ms(70), 65_534);
        arrivals.handle_packet(start + ms(75), 1);
        arrivals.handle_packet(start + ms(72), 65_535);
        assert_eq!(arrivals.wakeup(), Some(start + ms(70) + FEEDBACK_INTERVAL));
        let expected = [
            (65_534, Some(70_000)),
            (65_535, Some(72_000)),
            (0, None),
            (1, Some(75_000)),
        ];
        assert_eq!(told(&mut arrivals), expected);
        assert_eq!((told(&mut arrivals), arrivals.wakeup()), (vec![], None));
    }

    #[test]
    fn what_comes_late_is_told_after_all() {
        let start = origin();
        let mut arrivals = Arrivals::new(start);
        arrivals.handle_packet(start, 10);
        arrivals.handle_packet(start, 12);
        told(&mut arrivals);
        arrivals.handle_packet(start + ms(5), 11);
        assert_eq!(told(&mut arrivals), [(11, Some(5_000))]);
        arrivals.handle_packet(start + ms(9), 13);
        let again = told(&mut arrivals);
        assert_eq!(again.last(), Some(&(13, Some(9_000))));
        arrivals.handle_packet(start, 13_u16.wrapping_sub(2 * MAX_LATE as u16));
        assert_eq!(told(&mut arrivals), []);
    }

    #[test]
    fn long_pauses_and_jumps_are_told_in_several_messages() {
        let start = origin();
        let mut arrivals = Arrivals::new(start);
        arrivals.handle_packet(start, 1);
        arrivals.handle_packet(start + ms(20_000), 2);
        assert_eq!(told(&mut arrivals), [(1, Some(0)), (2, Some(20_000_000))]);
        arrivals.handle_packet(start + ms(20_000), 3);
        arrivals.handle_packet(start + ms(20_000), 30_003);
        let jumped = told(&mut arrivals);
        assert_eq!(
            jumped,
            [(30_003, Some(20_000_000))],
            "what waited is left out"
        );
    }

    proptest! {
        #[test]
        fn every_pattern_is_read_as_it_was_written(
            steps in prop::collection::vec((1_u16..40, -3_i64..400), 1..1500)
        ) {
            let start = origin();
            let mut arrivals = Arrivals::new(start);
            let mut expected = Vec::new();
            let (mut seq, mut at_ms) = (65_000_u16, 0_i64);
            for (index, (skip, later)) in steps.into_iter().enumerate() {
                let skip = if skip < 30 { 1 } else { skip };
                let missing = (1..skip).map(|step| (seq.wrapping_add(step), None));
                if index > 0 {
                    expected.extend(missing);
                }
                seq = seq.wrapping_add(skip);
                at_ms = (at_ms + if later > 300 { later } else { later / 50 }).max(0);
                arrivals.handle_packet(start + ms(at_ms as u64), seq);
                expected.push((seq, Some(at_ms * 1000)));
                if arrivals.waiting.len() > 1000 {
                    let got = told(&mut arrivals);
                    prop_assert_eq!(&got, &expected);
                    expected.clear();
                }
            }
            prop_assert_eq!(told(&mut arrivals), expected);
        }
    }
}
