//! Merges and paces keyframe requests to a publisher.

use std::time::{Duration, Instant};

/// How keyframe requests are paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Shortest time between two requests for one layer, and how long the first waits for its
    /// answer.
    pub min_interval: Duration,
    /// A request that is not answered is sent again after twice the last wait, but at least this
    /// often.
    pub max_interval: Duration,
    /// How often it is sent before the publisher is given up, until somebody asks again.
    pub max_tries: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_millis(500),
            max_interval: Duration::from_secs(2),
            max_tries: 8,
        }
    }
}

/// The keyframe requests for one layer of one publisher.
#[derive(Debug)]
pub struct KeyframeRequests {
    options: Options,
    /// When the last request was sent.
    sent_at: Option<Instant>,
    /// What somebody asked for and no keyframe answered.
    wanted: Option<Wanted>,
}

/// A keyframe somebody waits for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// When to send a request.
    due: Instant,
    /// How long to wait for the answer then.
    wait: Duration,
    /// How many requests may be sent before giving up.
    tries_left: u8,
}

impl KeyframeRequests {
    /// Nobody waits for a keyframe.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self {
            options,
            sent_at: None,
            wanted: None,
        }
    }

    /// Somebody needs a keyframe. Joins those who already wait for one.
    pub fn request(&mut self, now: Instant) {
        let tries_left = self.options.max_tries;
        if let Some(wanted) = &mut self.wanted {
            wanted.tries_left = tries_left;
            return;
        }
        let free_at = self
            .sent_at
            .map_or(now, |at| at + self.options.min_interval);
        self.wanted = Some(Wanted {
            due: now.max(free_at),
            wait: self.options.min_interval,
            tries_left,
        });
    }

    /// A keyframe began: it answers everybody who waits.
    pub fn keyframe_seen(&mut self) {
        self.wanted = None;
    }

    /// Whether a keyframe request must be sent to the publisher; it counts as sent.
    pub fn poll(&mut self, now: Instant) -> bool {
        let Some(wanted) = self.wanted.filter(|w| w.due <= now) else {
            return false;
        };
        self.sent_at = Some(now);
        self.wanted = (wanted.tries_left > 1).then(|| Wanted {
            due: now + wanted.wait,
            wait: (wanted.wait * 2).min(self.options.max_interval),
            tries_left: wanted.tries_left - 1,
        });
        true
    }

    /// When [`Self::poll`] will next return true; `None` while nobody waits.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        self.wanted.map(|wanted| wanted.due)
    }
}
