//! What is done once everybody has left: it may hold up every thread, and then it holds up no call.

use std::time::{Duration, Instant};

/// How long nobody must have been there: who left together comes again together.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether anybody is there, and what is to be done when nobody is.
#[derive(Debug, Default)]
pub struct Idle {
    task: Option<fn()>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody has been there since it was done.
    #[default]
    Done,
    /// Somebody is there.
    Busy,
    /// Since when nobody is.
    Empty(Instant),
}

impl Idle {
    /// `task` is to be done when everybody has left.
    #[must_use]
    pub fn new(task: Option<fn()>) -> Self {
        let state = State::Done;
        Self { task, state }
    }

    /// Takes in how many there are, once a second or so, and does what is due.
    pub fn handle_participants(&mut self, now: Instant, participants: usize) {
        self.state = match self.state {
            _ if participants > 0 => State::Busy,
            State::Busy => State::Empty(now),
            State::Empty(since) if now.saturating_duration_since(since) >= PATIENCE => {
                if let Some(task) = self.task {
                    task();
                }
                State::Done
            }
            State::Empty(since) => State::Empty(since),
            State::Done => State::Done,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::signal::clock;

    thread_local!(static DONE: Cell<u32> = const { Cell::new(0) });

    #[test]
    fn it_is_done_once_each_time_everybody_has_left_for_a_while() {
        let mut idle = Idle::new(Some(|| DONE.set(DONE.get() + 1)));
        let start = clock();
        let mut second = 0;
        let mut pass = |participants, seconds| {
            for _ in 0..seconds {
                second += 1;
                idle.handle_participants(start + Duration::from_secs(second), participants);
            }
            DONE.get()
        };
        assert_eq!(pass(0, 60), 0, "nobody has come yet");
        assert_eq!(pass(2, 60), 0);
        assert_eq!(pass(0, 8), 0);
        assert_eq!(pass(1, 1), 0);
        assert_eq!(pass(0, 60), 1);
        assert_eq!(pass(0, 60), 1);
        assert_eq!(pass(3, 1), 1);
        assert_eq!(pass(0, 20), 2);
    }
}
