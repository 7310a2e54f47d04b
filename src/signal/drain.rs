//! When the server takes no new rooms any more, and until when those there are may go on. Pure.

use std::time::{Duration, Instant};

use crate::signal::Now;

/// How far the server is with emptying itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Drain {
    /// It takes in whoever comes.
    #[default]
    Open,
    /// It makes no rooms; those there are go on until the deadline.
    Draining(Deadline),
    /// The deadline has passed and all rooms are closed.
    Drained,
}

/// Until when calls go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
    /// The same, in seconds since 1970.
    pub unix: u64,
    /// Whether the process ends when nobody is left, or then.
    pub then_end: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Every room is to be closed.
    CloseRooms,
    /// The process is to end.
    End,
}

impl Drain {
    /// Calls may go on for so long. Of two reasons to end the process the earlier deadline counts;
    /// otherwise the latest word does.
    pub fn begin(&mut self, now: Now, patience: Duration, then_end: bool) {
        let mut deadline = Deadline {
            at: now.at + patience,
            unix: now.unix + patience.as_secs(),
            then_end,
        };
        if let Self::Draining(earlier) = *self {
            deadline.then_end |= earlier.then_end;
            if deadline.then_end && earlier.at < deadline.at {
                (deadline.at, deadline.unix) = (earlier.at, earlier.unix);
            }
        }
        *self = Self::Draining(deadline);
    }

    /// Takes in whoever comes again. Returns whether that is news.
    pub fn cancel(&mut self) -> bool {
        std::mem::take(self) != Self::Open
    }

    /// Looks at the time and at how many are left.
    pub fn handle_timeout(&mut self, now: Instant, participants: usize) -> Due {
        match self {
            Self::Draining(deadline) if deadline.then_end => {
                let is_over = participants == 0 || now >= deadline.at;
                if is_over { Due::End } else { Due::Nothing }
            }
            Self::Draining(deadline) if now >= deadline.at => {
                *self = Self::Drained;
                Due::CloseRooms
            }
            _ => Due::Nothing,
        }
    }

    /// Until when calls go on; `None` unless they must end.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        match self {
            Self::Draining(deadline) => Some(*deadline),
            Self::Open | Self::Drained => None,
        }
    }

    /// Whether new rooms are refused.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self != Self::Open
    }
}

impl Deadline {
    /// How long it is until then.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(now: Now, seconds: u64) -> Now {
        Now {
            at: now.at + Duration::from_secs(seconds),
            unix: now.unix + seconds,
            unix_ms: now.unix_ms + 1000 * seconds,
        }
    }

    #[test]
    fn the_process_ends_when_the_last_has_left_or_at_the_deadline() {
        let now = Now::read();
        let mut drain = Drain::default();
        drain.begin(now, Duration::from_secs(300), true);
        assert_eq!(drain.deadline().unwrap().unix, now.unix + 300);
        assert_eq!(drain.handle_timeout(later(now, 299).at, 2), Due::Nothing);
        assert_eq!(drain.handle_timeout(later(now, 299).at, 0), Due::End);
        assert_eq!(drain.handle_timeout(later(now, 300).at, 2), Due::End);
    }

    #[test]
    fn a_drain_that_ends_nothing_closes_the_rooms_once_and_can_be_undone() {
        let now = Now::read();
        let mut drain = Drain::default();
        drain.begin(now, Duration::from_secs(10), false);
        assert_eq!(drain.handle_timeout(later(now, 9).at, 0), Due::Nothing);
        assert_eq!(drain.handle_timeout(later(now, 10).at, 5), Due::CloseRooms);
        assert_eq!(drain.handle_timeout(later(now, 11).at, 0), Due::Nothing);
        assert!(drain.is_on() && drain.cancel() && !drain.is_on());
        assert!(!drain.cancel());
    }

    #[test]
    fn an_end_that_is_asked_for_keeps_the_earlier_deadline() {
        let now = Now::read();
        let mut drain = Drain::default();
        drain.begin(now, Duration::from_secs(10), false);
        drain.begin(later(now, 5), Duration::from_secs(300), true);
        let deadline = drain.deadline().unwrap();
        assert_eq!((deadline.unix, deadline.then_end), (now.unix + 10, true));
        let mut drain = Drain::default();
        drain.begin(now, Duration::from_secs(10), false);
        drain.begin(now, Duration::from_secs(60), false);
        assert_eq!(
            drain.deadline().unwrap().unix,
            now.unix + 60,
            "the latest word"
        );
    }
}
