//! When feedback is read: beside other work, for nobody waits for it as for media.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// It is read in whatever turn comes, but no more often than this.
const PAUSE: Duration = Duration::from_millis(1);
/// It waits no longer than this, half the time between two pictures. A wake-up for each message
/// costs several times what the message does: a client reports 20 times a second, and 100 of them
/// would leave no time between turns.
const WAIT: Duration = Duration::from_millis(17);
/// While none comes it is looked for ever less often, down to this.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The socket to which the SRTCP of known clients comes.
pub(super) struct Feedback {
    pub(super) socket: UdpSocket,
    /// When it was last read to its end.
    read_at: Instant,
    /// How long after that it is read again, at the latest.
    wait: Duration,
}

impl Feedback {
    pub(super) fn new(now: Instant, socket: UdpSocket) -> Self {
        Self {
            socket,
            read_at: now,
            wait: WAIT,
        }
    }

    /// Whether a turn that is under way should read it.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.read_at + PAUSE
    }

    /// It was read to its end, and so many datagrams were there.
    pub(super) fn handle_read(&mut self, now: Instant, datagrams: usize) {
        self.read_at = now;
        self.wait = if datagrams > 0 {
            WAIT
        } else {
            (self.wait * 2).min(WAIT_MAX)
        };
    }

    /// When it is to be read if no other work wakes the shard.
    pub(super) fn wakeup(&self) -> Instant {
        self.read_at + self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;

    #[test]
    fn it_is_read_at_most_every_millisecond_and_twice_a_picture_while_some_comes() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut now = origin();
        let mut feedback = Feedback::new(now, socket);
        for found in [0, 0, 0, 0, 0, 3] {
            now = feedback.wakeup();
            feedback.handle_read(now, found);
        }
        assert!(!feedback.is_due(now));
        assert!(feedback.is_due(now + PAUSE));
        assert_eq!(feedback.wakeup(), now + WAIT);
        for _ in 0..10 {
            feedback.handle_read(now, 0);
        }
        assert_eq!(feedback.wakeup(), now + WAIT_MAX);
    }
}
