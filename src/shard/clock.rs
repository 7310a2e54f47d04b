//! The one place that reads a clock. Kernel time stamps become instants that never go back.

use std::time::{Duration, Instant, SystemTime};

/// A datagram that claims to have waited longer was stamped before the system's clock was set.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The time of one shard.
#[derive(Debug)]
pub(super) struct Clock {
    /// When the clock was last read.
    now: Instant,
    /// The same moment since the epoch.
    wall: Duration,
    /// The latest instant given out for the engine.
    latest: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        let (now, wall) = read();
        Self {
            now,
            wall,
            latest: now,
        }
    }

    /// Unix time at the last reading.
    pub(super) fn since_epoch(&self) -> Duration {
        self.wall
    }

    /// Reads the clock.
    pub(super) fn tick(&mut self) -> Instant {
        (self.now, self.wall) = read();
        self.now
    }

    /// The moment of the last reading, for the engine: no arrival given out later is before it.
    pub(super) fn moment(&mut self) -> Instant {
        self.latest = self.latest.max(self.now);
        self.latest
    }

    /// When a datagram arrived that the kernel stamped `at`: not before any instant given out
    /// so far, not after now. Also how long it has waited.
    pub(super) fn arrival(&mut self, at: Option<Duration>) -> (Instant, Duration) {
        let waited = at
            .and_then(|at| self.wall.checked_sub(at))
            .unwrap_or_default();
        let waited = if waited > LONGEST_WAIT {
            Duration::ZERO
        } else {
            waited
        };
        self.latest = self.before_now(waited).max(self.latest);
        (self.latest, waited)
    }

    /// The instant this long before the last reading.
    pub(super) fn before_now(&self, waited: Duration) -> Instant {
        self.now.checked_sub(waited).unwrap_or(self.now)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where the driver reads the clock"
)]
fn read() -> (Instant, Duration) {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    (Instant::now(), wall.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_never_go_back_and_are_never_in_the_future() {
        let mut clock = Clock::new();
        let start = clock.now;
        let wall = clock.wall;
        clock.now = start + Duration::from_millis(20);
        clock.wall = wall + Duration::from_millis(20);
        let at = |ms| Some(wall + Duration::from_millis(ms));

        let (first, waited) = clock.arrival(at(5));
        assert_eq!(first, start + Duration::from_millis(5));
        assert_eq!(waited, Duration::from_millis(15));
        assert_eq!(
            clock.arrival(at(3)).0,
            first,
            "an earlier stamp is raised to the last"
        );
        assert_eq!(
            clock.arrival(at(50)).0,
            clock.now,
            "a later stamp is lowered to now"
        );
        assert_eq!(clock.arrival(None).0, clock.now);
    }

    #[test]
    fn an_arrival_is_not_before_a_moment_given_out() {
        let mut clock = Clock::new();
        let moment = clock.moment();
        let stamp = clock.wall.checked_sub(Duration::from_millis(5));
        assert_eq!(clock.arrival(stamp).0, moment);
    }

    #[test]
    fn a_stamp_from_before_the_clock_was_set_counts_as_now() {
        let mut clock = Clock::new();
        assert_eq!(
            clock.arrival(Some(Duration::from_secs(1))),
            (clock.now, Duration::ZERO)
        );
    }
}
