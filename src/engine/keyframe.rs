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

/// What publishers are asked for keyframes at most, by layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Shortest time between two requests for the biggest layer of a video, or its only one.
    pub high: Duration,
    /// Likewise for a smaller one: many viewers come and go on it, and a big keyframe of it is
    /// still a small one.
    pub low: Duration,
}

/// A request that is not answered is sent again at least this often, unless requests are further
/// apart than that.
const MAX_INTERVAL: Duration = Duration::from_secs(2);

/// How often a request is sent to a publisher that does not answer.
const MAX_TRIES: u8 = 8;

impl Default for Pacing {
    fn default() -> Self {
        Self {
            high: Duration::from_millis(500),
            low: Duration::from_secs(1),
        }
    }
}

impl Pacing {
    /// For the biggest layer, or a smaller one.
    #[must_use]
    pub fn of(self, is_biggest: bool) -> Options {
        let min_interval = if is_biggest { self.high } else { self.low };
        Options {
            min_interval,
            max_interval: MAX_INTERVAL.max(min_interval),
            max_tries: MAX_TRIES,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Pacing::default().of(true)
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

    /// Paces otherwise from the next request on: the layer's place among the others changed.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum What {
        Request,
        Keyframe,
    }

    /// When it happens, in ms, and what.
    type Happening = (u64, What);

    /// Times of the requests sent, in ms, when these things happen and the clock then runs on to
    /// `end`. Woken only when it asked to be.
    fn run(options: Options, happenings: &[Happening], end: u64) -> Vec<u64> {
        let start = origin();
        let mut requests = KeyframeRequests::new(options);
        let mut sent = Vec::new();
        for ms in 0..=end {
            let now = start + Duration::from_millis(ms);
            for (_, what) in happenings.iter().filter(|&&(at, _)| at == ms) {
                match what {
                    What::Request => requests.request(now),
                    What::Keyframe => requests.keyframe_seen(),
                }
            }
            if requests.wakeup().is_some_and(|at| at <= now) {
                assert!(requests.poll(now), "woken for nothing");
                sent.push(ms);
            }
            assert!(!requests.poll(now), "two at once");
        }
        sent
    }

    #[test]
    fn the_first_request_goes_at_once_and_the_next_waits_its_turn() {
        use What::{Keyframe, Request};
        let table: [(&[Happening], &[u64]); 6] = [
            // Asked once, answered.
            (&[(10, Request), (60, Keyframe)], &[10]),
            // Many ask before the answer: one request.
            (
                &[(10, Request), (11, Request), (12, Request), (60, Keyframe)],
                &[10],
            ),
            // Asked again soon after the answer: when the interval ends.
            (
                &[
                    (10, Request),
                    (60, Keyframe),
                    (90, Request),
                    (540, Keyframe),
                ],
                &[10, 510],
            ),
            // A keyframe comes by itself before that: nothing more to ask.
            (
                &[
                    (10, Request),
                    (60, Keyframe),
                    (90, Request),
                    (400, Keyframe),
                ],
                &[10],
            ),
            // Asked again long after the answer: at once.
            (
                &[
                    (10, Request),
                    (60, Keyframe),
                    (900, Request),
                    (950, Keyframe),
                ],
                &[10, 900],
            ),
            // Never answered: again after 0.5, 1, 2, 2 s.
            (&[(0, Request)], &[0, 500, 1500, 3500, 5500]),
        ];
        for (happenings, sent) in table {
            assert_eq!(
                run(Options::default(), happenings, 6000),
                sent,
                "{happenings:?}"
            );
        }
    }

    #[test]
    fn a_silent_publisher_is_given_up_until_somebody_asks_again() {
        let options = Options {
            max_tries: 2,
            ..Options::default()
        };
        assert_eq!(run(options, &[(0, What::Request)], 9000), [0, 500]);
        let twice = [(0, What::Request), (600, What::Request)];
        assert_eq!(run(options, &twice, 9000), [0, 500, 1000, 1500]);
        // Asked again before the last try: as many tries again, but no faster.
        let options = Options {
            max_tries: 3,
            ..options
        };
        let meanwhile = [(0, What::Request), (700, What::Request)];
        assert_eq!(run(options, &meanwhile, 9000), [0, 500, 1500, 3500, 5500]);
    }

    #[test]
    fn a_smaller_layer_is_asked_less_often() {
        let happenings = [
            (0, What::Request),
            (50, What::Keyframe),
            (60, What::Request),
        ];
        let pacing = Pacing::default();
        let sent = run(pacing.of(false), &happenings, 6000);
        assert_eq!(sent, [0, 1000, 2000, 4000, 6000]);
        let mut requests = KeyframeRequests::new(pacing.of(false));
        let start = origin();
        requests.request(start);
        assert!(requests.poll(start));
        requests.keyframe_seen();
        requests.set_options(pacing.of(true));
        requests.request(start);
        assert_eq!(requests.wakeup(), Some(start + Duration::from_millis(500)));
    }

    #[test]
    fn publishers_are_asked_as_often_as_configured() {
        let pacing = Pacing {
            high: Duration::from_millis(200),
            low: Duration::from_secs(5),
        };
        let never = [(0, What::Request)];
        assert_eq!(run(pacing.of(true), &never, 1500), [0, 200, 600, 1400]);
        assert_eq!(run(pacing.of(false), &never, 11_000), [0, 5000, 10_000]);
    }

    proptest! {
        #[test]
        fn everybody_is_answered_and_nobody_is_flooded(
            max_tries in 1..5_u8,
            mut happenings in prop::collection::vec(
                (0..3000_u64, prop_oneof![Just(What::Request), Just(What::Keyframe)]), 0..12),
        ) {
            happenings.sort_by_key(|&(at, _)| at);
            let options = Options { max_tries, ..Options::default() };
            let sent = run(options, &happenings, 20_000);

            for pair in sent.windows(2) {
                prop_assert!(pair[1] - pair[0] >= 500, "{} and {}", pair[0], pair[1]);
            }
            for (i, &(at, what)) in happenings.iter().enumerate() {
                if what == What::Keyframe {
                    continue;
                }
                let answer = happenings[i..].iter().find(|(_, w)| *w == What::Keyframe);
                let answered_at = answer.map_or(u64::MAX, |&(at, _)| at);
                // The longest wait is what remains of an earlier, unanswered request's interval.
                let asked = sent.iter().any(|&s| s >= at && s <= at + 2000);
                prop_assert!(asked || answered_at <= at + 2000, "nobody cared about {at}");
            }
            for &at in &sent {
                let last = happenings.iter().rfind(|&&(t, _)| t <= at);
                let is_waiting = last.is_some_and(|&(_, what)| what == What::Request);
                prop_assert!(is_waiting, "asked at {at} although nobody waits");
            }
            let last_request = happenings.iter().rfind(|(_, w)| *w == What::Request);
            let after = last_request.map_or(0, |&(at, _)| at);
            prop_assert!(sent.iter().filter(|&&s| s > after).count() <= usize::from(max_tries));
        }
    }
}
