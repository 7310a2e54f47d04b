//! Which lost packets are sent again, and which requests are not answered.
//!
//! A request is answered once per round trip, from a budget that is a share of the viewer's rate:
//! resends must not deepen the congestion that lost the packets.

use std::time::{Duration, Instant};

use super::history::{Sent, SentLog, TrackHistory};

/// Resends' share of a viewer's rate, as a divisor: a quarter. Random loss of 20 % needs that
/// much; beyond it congestion control cuts the rate, and what is lost then is congestion's.
/// Ours: str0m stops at 15 % of what was sent.
pub const RTX_SHARE_DIVISOR: u64 = 4;

/// How long an unused budget adds up: one burst may take this long's share.
pub const RTX_BURST: Duration = Duration::from_millis(500);

/// The budget of a viewer however low its rate, in bytes per second: a lost packet of sound or of
/// a thumbnail is always worth sending again.
pub const RTX_FLOOR_BYTES_PER_S: u64 = 12_000;

/// Requests answered in one message; the rest is asked for again. libwebrtc's receivers list up to
/// 1000 lost packets (`kMaxNackPackets`) but send that only when they give up on a picture.
pub const MAX_RESENDS_PER_MESSAGE: usize = 128;

/// How often one packet is sent again. libwebrtc's receivers ask 10 times (`kMaxNackRetries`).
pub const MAX_RESENDS: u8 = 10;

/// Round trip assumed while none was measured. libwebrtc's receivers assume 100 ms
/// (`kDefaultRttMs`).
pub const UNKNOWN_RTT: Duration = Duration::from_millis(100);

/// A packet is never sent again sooner than this, however short the round trip: requests of one
/// viewer may be one report and one timer apart.
pub const MIN_RESEND_GAP: Duration = Duration::from_millis(10);

/// What a viewer's resends may still cost.
#[derive(Debug, Clone)]
pub struct RtxBudget {
    bytes: u64,
    filled_at: Instant,
}

impl RtxBudget {
    /// A full budget at the lowest rate.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            bytes: share(RTX_FLOOR_BYTES_PER_S, RTX_BURST),
            filled_at: now,
        }
    }

    /// Adds what has accrued since the last call, at `rate` bytes per second to this viewer.
    pub fn refill(&mut self, now: Instant, rate: u64) {
        let rate = (rate / RTX_SHARE_DIVISOR).max(RTX_FLOOR_BYTES_PER_S);
        let elapsed = now.saturating_duration_since(self.filled_at);
        if elapsed < Duration::from_millis(1) {
            // So that many calls in a row do not round the accrual away.
            return;
        }
        let most = share(rate, RTX_BURST);
        let accrued = share(rate, elapsed.min(RTX_BURST));
        self.bytes = (self.bytes + accrued).min(most);
        self.filled_at = now;
    }

    /// Takes what one resend costs, if it is there.
    fn take(&mut self, bytes: u64) -> bool {
        let rest = self.bytes.checked_sub(bytes);
        self.bytes = rest.unwrap_or(self.bytes);
        rest.is_some()
    }
}

fn share(bytes_per_s: u64, span: Duration) -> u64 {
    bytes_per_s.saturating_mul(span.as_micros() as u64) / 1_000_000
}

/// What became of the requests of one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NackOutcome {
    /// Answered.
    pub resent: u32,
    /// Forgotten, never sent, or past [`MAX_RESENDS_PER_MESSAGE`].
    pub unknown: u32,
    /// Answered less than a round trip ago, or [`MAX_RESENDS`] times.
    pub repeated: u32,
    /// The budget is spent.
    pub over_budget: u32,
}

/// What one slot sent and can send again.
#[derive(Debug)]
pub struct Resendable<'a> {
    /// The highest sequence number sent, roll-over counter included.
    pub highest: u64,
    /// How its packets left.
    pub log: &'a mut SentLog,
    /// What its track keeps of them.
    pub history: &'a TrackHistory,
}

/// Decides which of the `requested` sequence numbers of one slot are sent again, and puts them
/// into `resends` in the order asked. They count as sent from here on. `rtt` is the viewer's round
/// trip if it is known.
pub fn answer(
    now: Instant,
    requested: &[u16],
    slot: Resendable<'_>,
    rtt: Option<Duration>,
    budget: &mut RtxBudget,
    resends: &mut Vec<Sent>,
) -> NackOutcome {
    let Resendable {
        highest,
        log,
        history,
    } = slot;
    let gate = rtt.unwrap_or(UNKNOWN_RTT).max(MIN_RESEND_GAP);
    let mut outcome = NackOutcome::default();
    let (requested, ignored) = requested.split_at(requested.len().min(MAX_RESENDS_PER_MESSAGE));
    outcome.unknown += ignored.len() as u32;
    for wire in requested {
        let found = extend(*wire, highest).and_then(|seq| log.sent(seq));
        let found = found.and_then(|sent| Some((sent, history.packet(sent.stored)?)));
        let Some((sent, stored)) = found else {
            outcome.unknown += 1;
            continue;
        };
        let repeated = log
            .resent(now, sent.seq)
            .is_some_and(|(ago, resends)| resends > 0 && (ago < gate || resends >= MAX_RESENDS));
        if repeated {
            outcome.repeated += 1;
        } else if !budget.take(stored.payload.len() as u64) {
            outcome.over_budget += 1;
        } else {
            log.handle_resend(now, sent.seq);
            resends.push(sent);
            outcome.resent += 1;
        }
    }
    outcome
}

/// The number at or below `highest` that ends in `wire`; `None` when there is none.
fn extend(wire: u16, highest: u64) -> Option<u64> {
    let behind = (highest as u16).wrapping_sub(wire);
    highest.checked_sub(behind.into())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::some_instant;
    use super::super::history::{HistoryId, Stored};
    use super::super::patch::HeadPatch;
    use super::*;

    struct Viewer {
        now: Instant,
        history: TrackHistory,
        log: SentLog,
        budget: RtxBudget,
        highest: u64,
        rtt: Option<Duration>,
    }

    impl Viewer {
        /// One that was sent `numbers` in packets of 1000 bytes, on a budget of 125 KB/s.
        fn sent(numbers: impl IntoIterator<Item = u64>) -> Self {
            let now = some_instant();
            let mut viewer = Self {
                now,
                history: TrackHistory::new(HistoryId(1)),
                log: SentLog::new(now),
                budget: RtxBudget::new(now),
                highest: 0,
                rtt: Some(Duration::from_millis(50)),
            };
            for seq in numbers {
                viewer.send(seq);
            }
            viewer.after(Duration::from_secs(1), 500_000);
            viewer
        }

        fn send(&mut self, seq: u64) {
            let stored = Stored {
                payload: [0; 1000].as_slice().into(),
                descriptor: None,
                audio_level: None,
                video_orientation: None,
                marker: false,
            };
            let sent = Sent {
                seq,
                stored: self.history.push(self.now, stored),
                timestamp: 0,
                patch: HeadPatch::NONE,
            };
            self.log.insert(self.now, &sent);
            self.highest = self.highest.max(seq);
        }

        fn after(&mut self, pause: Duration, rate: u64) {
            self.now += pause;
            self.budget.refill(self.now, rate);
        }

        fn asks(&mut self, requested: &[u16]) -> (Vec<u64>, NackOutcome) {
            let mut resends = Vec::new();
            let outcome = answer(
                self.now,
                requested,
                Resendable {
                    highest: self.highest,
                    log: &mut self.log,
                    history: &self.history,
                },
                self.rtt,
                &mut self.budget,
                &mut resends,
            );
            (resends.iter().map(|sent| sent.seq).collect(), outcome)
        }
    }

    #[test]
    fn what_was_lost_is_sent_again_in_the_order_asked() {
        let mut viewer = Viewer::sent(1..=20);
        let (resent, outcome) = viewer.asks(&[4, 3, 17]);
        assert_eq!(resent, [4, 3, 17]);
        assert_eq!(outcome.resent, 3);
    }

    #[test]
    fn a_number_is_found_across_a_roll_over() {
        let mut viewer = Viewer::sent(0xfff0..=0x1_0010);
        assert_eq!(viewer.asks(&[0xfff5, 3]).0, [0xfff5, 0x1_0003]);
    }

    #[test]
    fn a_repeated_request_is_answered_once_per_round_trip() {
        let mut viewer = Viewer::sent(1..=20);
        assert_eq!(viewer.asks(&[5, 5]).0, [5]);
        viewer.after(Duration::from_millis(49), 500_000);
        let (resent, outcome) = viewer.asks(&[5]);
        assert_eq!((resent.len(), outcome.repeated), (0, 1));
        viewer.after(Duration::from_millis(1), 500_000);
        assert_eq!(viewer.asks(&[5]).0, [5]);
    }

    #[test]
    fn an_unknown_or_tiny_round_trip_still_gates() {
        for (rtt, gate) in [(None, UNKNOWN_RTT), (Some(Duration::ZERO), MIN_RESEND_GAP)] {
            let mut viewer = Viewer::sent(1..=3);
            viewer.rtt = rtt;
            assert_eq!(viewer.asks(&[2]).0, [2]);
            viewer.after(gate - Duration::from_millis(1), 500_000);
            assert!(viewer.asks(&[2]).0.is_empty());
            viewer.after(Duration::from_millis(1), 500_000);
            assert_eq!(viewer.asks(&[2]).0, [2]);
        }
    }

    #[test]
    fn nobody_gets_a_packet_for_ever() {
        let mut viewer = Viewer::sent(1..=3);
        viewer.rtt = Some(Duration::ZERO);
        let mut answered = 0;
        // The history lets go of it after a second; ask faster than that.
        viewer.now -= Duration::from_secs(1);
        for _ in 0..40 {
            viewer.after(MIN_RESEND_GAP, 500_000);
            answered += viewer.asks(&[2]).0.len();
        }
        assert_eq!(answered, usize::from(MAX_RESENDS));
    }

    #[test]
    fn what_was_never_sent_or_is_forgotten_is_not_answered() {
        let mut viewer = Viewer::sent([100, 102]);
        let (resent, outcome) = viewer.asks(&[101, 99, 103, 0xffff]);
        assert_eq!((resent.len(), outcome.unknown), (0, 4));
        viewer.after(Duration::from_secs(2), 500_000);
        viewer.history.handle_timeout(viewer.now);
        assert_eq!(viewer.asks(&[100]).1.unknown, 1);
    }

    #[test]
    fn resends_keep_to_their_share_of_the_rate() {
        let mut viewer = Viewer::sent(1..=120);
        let all: Vec<u16> = (1..=120).collect();
        // 125 KB/s for half a second: 62 packets of 1000 bytes.
        let (resent, outcome) = viewer.asks(&all);
        assert_eq!((resent.len(), outcome.over_budget), (62, 58));
        viewer.after(Duration::from_millis(80), 500_000);
        assert_eq!(viewer.asks(&all[62..]).0.len(), 10);
    }

    #[test]
    fn a_budget_shrinks_with_the_rate_but_not_below_its_floor() {
        let mut viewer = Viewer::sent(1..=120);
        let all: Vec<u16> = (1..=120).collect();
        viewer.after(Duration::from_millis(1), 0);
        assert_eq!(viewer.asks(&all).0.len(), 6);
    }

    #[test]
    fn a_message_is_answered_only_so_far() {
        let mut viewer = Viewer::sent(1..=300);
        viewer.after(Duration::from_secs(1), 500_000_000);
        let all: Vec<u16> = (1..=300).collect();
        let (resent, outcome) = viewer.asks(&all);
        assert_eq!(resent.len(), MAX_RESENDS_PER_MESSAGE);
        assert_eq!(outcome.unknown as usize, 300 - MAX_RESENDS_PER_MESSAGE);
    }
}
