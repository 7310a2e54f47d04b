//! Packets that are missing from one stream, and when its sender is asked for each again.

use std::time::{Duration, Instant};

/// How often a packet is asked for, as libwebrtc does (`kMaxNackRetries`).
pub const MAX_REQUESTS: u8 = 10;

/// Packets of one stream that are asked for at a time; of a longer gap the newest, since a picture
/// that lacks more needs a keyframe anyway.
pub const MAX_MISSING: usize = 256;

/// A packet that is missing for longer would come too late for anybody: as long as viewers' own
/// requests are answered.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// What is missing, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    missing: Vec<Missing>,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    index: u64,
    since: Instant,
    requests: u8,
    /// When it is asked for next.
    at: Instant,
}

impl Gaps {
    /// Takes note that the packet arrived, when `highest` was the highest before. Gives how long
    /// a packet took that was asked for once: a round trip.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        index: u64,
        highest: Option<u64>,
    ) -> Option<Duration> {
        let highest = highest?;
        if index > highest {
            let first = (highest + 1).max(index.saturating_sub(MAX_MISSING as u64));
            let room = MAX_MISSING - (index - first) as usize;
            let excess = self.missing.len().saturating_sub(room);
            self.missing.drain(..excess);
            self.missing.extend((first..index).map(|index| Missing {
                index,
                since: now,
                requests: 0,
                at: now,
            }));
            return None;
        }
        let place = self
            .missing
            .binary_search_by_key(&index, |m| m.index)
            .ok()?;
        let found = self.missing.remove(place);
        (found.requests == 1).then(|| now.saturating_duration_since(found.since))
    }

    /// Gives the numbers to ask for at `now`, each to be asked for again after `interval`.
    pub fn take_due(&mut self, now: Instant, interval: Duration, due: &mut Vec<u16>) {
        self.missing.retain(|missing| {
            let age = now.saturating_duration_since(missing.since);
            missing.requests < MAX_REQUESTS && age < MAX_AGE
        });
        for missing in self.missing.iter_mut().filter(|missing| missing.at <= now) {
            missing.requests += 1;
            missing.at = now + interval;
            due.push(missing.index as u16);
        }
    }

    /// When something is to be asked for.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;

    const INTERVAL: Duration = Duration::from_millis(50);

    fn due(gaps: &mut Gaps, now: Instant) -> Vec<u16> {
        let mut due = Vec::new();
        gaps.take_due(now, INTERVAL, &mut due);
        due
    }

    #[test]
    fn a_gap_is_asked_for_at_once_and_again_until_it_is_filled() {
        let (mut gaps, now) = (Gaps::default(), origin());
        gaps.handle_packet(now, 65_534, None);
        assert_eq!(gaps.wakeup(), None);
        gaps.handle_packet(now, 65_538, Some(65_534));
        assert_eq!(gaps.wakeup(), Some(now));
        assert_eq!(due(&mut gaps, now), [65_535, 0, 1]);
        assert!(due(&mut gaps, now).is_empty());
        let later = now + Duration::from_millis(30);
        let took = gaps.handle_packet(later, 65_536, Some(65_538));
        assert_eq!(took, Some(Duration::from_millis(30)));
        assert_eq!(due(&mut gaps, now + INTERVAL), [65_535, 1]);
        assert_eq!(
            gaps.handle_packet(later, 65_537, Some(65_538)),
            None,
            "of which request?"
        );
        assert_eq!(due(&mut gaps, now + 2 * INTERVAL), [65_535]);
    }

    #[test]
    fn what_never_comes_is_given_up() {
        let (mut gaps, start) = (Gaps::default(), origin());
        gaps.handle_packet(start, 7, Some(5));
        let mut requests = 0;
        while let Some(at) = gaps.wakeup() {
            requests += due(&mut gaps, at).len();
            assert!(at < start + 2 * MAX_AGE);
        }
        assert_eq!(requests, usize::from(MAX_REQUESTS));
    }

    #[test]
    fn a_long_gap_is_bounded() {
        let (mut gaps, now) = (Gaps::default(), origin());
        gaps.handle_packet(now, 10, Some(5));
        gaps.handle_packet(now, 10_000, Some(10));
        let asked = due(&mut gaps, now);
        assert_eq!(asked.len(), MAX_MISSING);
        assert_eq!(asked.last(), Some(&9_999));
        gaps.handle_packet(now, 10_003, Some(10_000));
        assert_eq!(gaps.missing.len(), MAX_MISSING);
        assert_eq!(due(&mut gaps, now), [10_001, 10_002]);
    }
}
