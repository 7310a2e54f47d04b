//! How long the queue on the path is, and whose: ours is drained after a cut that came too late
//! for it, another flow's is not left to that flow. Neither is in the draft, whose cuts of 15 %
//! take two seconds to drain 300 ms, and which starves beside a flow that keeps the queue full.

/// The least delay is remembered over one to two of these, in microseconds: long enough to
/// remember how short the path was before another flow filled it.
const MEMORY_US: u64 = 120_000_000;

/// Queues longer than this are drained, until they are shorter than the second figure, in ms.
const LONG_MS: f64 = 50.0;
const SHORT_MS: f64 = 15.0;

/// A queue that is longer than this and grew by this much from one report to the next: far more
/// is sent than the path carries any longer. In ms.
const JUMPED_MS: f64 = 100.0;
const JUMP_MS: f64 = 50.0;

/// A queue must be long for all of this to count, in microseconds: one late group is jitter.
const LASTING_US: u64 = 100_000;

/// What is sent meanwhile, as a share of the rate: 0.85 x 0.7 of the capacity leaves 0.4 of it
/// for the queue.
const DRAIN: f64 = 0.7;

/// Draining lasts at most this long, in microseconds.
const MAX_DRAIN_US: u64 = 1_000_000;

/// A queue that has been long for all of this, in microseconds, stands: it is no jitter of a client
/// that reads late now and then.
const STANDING_US: u64 = 700_000;

/// A queue that has been long for all of this, in microseconds, is another flow's: cuts of 15 %
/// and more would have drained ours.
const CONTESTED_US: u64 = 4_000_000;

/// Knows the queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    delay_ms: f64,
    /// Least delay of the present stretch of [`MEMORY_US`], and of the one before.
    least_ms: Option<[f64; 2]>,
    stretch_us: u64,
    /// Since when the queue has been long.
    long_us: Option<u64>,
    /// How long it was at the report before.
    reported_ms: f64,
    /// Draining ends by this time.
    until_us: Option<u64>,
}

impl Queue {
    /// A group arrived with this one-way delay, counted from any fixed origin.
    pub(super) fn on_delay(&mut self, now_us: u64, delay_ms: f64) {
        self.delay_ms = delay_ms;
        let [least, before] = self.least_ms.get_or_insert([delay_ms; 2]);
        if now_us.saturating_sub(self.stretch_us) >= MEMORY_US {
            self.stretch_us = now_us;
            *before = *least;
            *least = delay_ms;
        }
        *least = least.min(delay_ms);
        let since_us = self.long_us.unwrap_or(now_us);
        self.long_us = (self.queue_ms() > LONG_MS).then_some(since_us);
    }

    /// A report has been taken in. Whether the queue has jumped since the one before: the slope of
    /// many groups would say so too late, since few arrive then.
    pub(super) fn on_report(&mut self) -> bool {
        let queue_ms = self.queue_ms();
        let grew_ms = queue_ms - std::mem::replace(&mut self.reported_ms, queue_ms);
        queue_ms > JUMPED_MS && grew_ms > JUMP_MS
    }

    /// The rate was cut.
    pub(super) fn on_cut(&mut self, now_us: u64) {
        if self.queue_ms() > LONG_MS && !self.is_contested(now_us) {
            self.until_us = Some(now_us + MAX_DRAIN_US);
        }
    }

    /// The share of the rate that may be sent.
    pub(super) fn share(&mut self, now_us: u64) -> f64 {
        let draining = |until_us: &u64| now_us < *until_us && self.queue_ms() > SHORT_MS;
        self.until_us = self.until_us.filter(draining);
        self.until_us.map_or(1.0, |_| DRAIN)
    }

    /// The queue is long and may be ours: sending more only makes it longer.
    pub(super) fn is_long(&self, now_us: u64) -> bool {
        self.has_been_long(now_us, LASTING_US) && !self.is_contested(now_us)
    }

    /// The queue does not go away.
    pub(super) fn stands(&self, now_us: u64) -> bool {
        self.has_been_long(now_us, STANDING_US)
    }

    /// Another flow keeps the queue.
    pub(super) fn is_contested(&self, now_us: u64) -> bool {
        self.has_been_long(now_us, CONTESTED_US)
    }

    fn has_been_long(&self, now_us: u64, us: u64) -> bool {
        self.long_us
            .is_some_and(|since_us| now_us.saturating_sub(since_us) >= us)
    }

    fn queue_ms(&self) -> f64 {
        self.least_ms
            .map_or(0.0, |[least, before]| self.delay_ms - least.min(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn a_queue_that_jumps_is_told_from_one_that_stands() {
        let mut queue = Queue::default();
        let told = [0.0, 40.0, 120.0, 200.0, 210.0, 90.0, 130.0].map(|delay_ms| {
            queue.on_delay(0, delay_ms);
            queue.on_report()
        });
        assert_eq!(told, [false, false, true, true, false, false, false]);
    }

    #[test]
    fn a_cut_with_a_long_queue_is_followed_by_draining_it() {
        let mut queue = Queue::default();
        queue.on_delay(0, -500.0);
        queue.on_delay(SECOND_US, -300.0);
        assert_eq!(queue.share(SECOND_US), 1.0);
        queue.on_cut(SECOND_US);
        assert_eq!(queue.share(SECOND_US), DRAIN);
        queue.on_delay(SECOND_US + 1, -490.0);
        assert_eq!(queue.share(SECOND_US + 1), 1.0);
        queue.on_delay(SECOND_US + 2, -300.0);
        assert_eq!(queue.share(SECOND_US + 2), 1.0);
    }

    #[test]
    fn a_queue_that_stays_is_anothers() {
        let mut queue = Queue::default();
        queue.on_delay(0, 0.0);
        for at_s in 1..5 {
            assert!(!queue.is_contested(at_s * SECOND_US));
            queue.on_delay(at_s * SECOND_US, 200.0);
        }
        assert!(queue.is_contested(5 * SECOND_US));
        queue.on_cut(5 * SECOND_US);
        assert_eq!(queue.share(5 * SECOND_US), 1.0);
        queue.on_delay(6 * SECOND_US, 30.0);
        assert!(!queue.is_contested(6 * SECOND_US));
    }

    #[test]
    fn draining_is_given_up_in_time() {
        let mut queue = Queue::default();
        queue.on_delay(0, 0.0);
        queue.on_delay(SECOND_US, 300.0);
        queue.on_cut(SECOND_US);
        assert_eq!(queue.share(2 * SECOND_US - 1), DRAIN);
        assert_eq!(queue.share(2 * SECOND_US), 1.0);
    }
}
