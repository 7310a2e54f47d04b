//! Feedback from a viewer that means harm, or is broken: whatever it says, the estimator goes on,
//! stays within its bounds, and does not ask to be woken without end.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use str0m::bwe::Bitrate;

use super::origin;
use crate::engine::bwe::twcc::{Arrival, TwccSeq};
use crate::engine::bwe::{Bwe, Options};

/// One thing that can happen to an estimator.
#[derive(Debug, Clone)]
enum Input {
    Sent {
        seq: u16,
        bytes: usize,
        count: u8,
    },
    Feedback(Vec<(u16, Option<i64>)>),
    /// All of the latest packets, at a plain pace.
    Honest {
        gap_us: i64,
        count: u8,
    },
    Rtt(u64),
    Loss(u8),
    Remb(u64),
    Timeout,
    Wanted(u64),
    Poll,
}

fn input() -> impl Strategy<Value = Input> {
    let at_us = prop_oneof![
        4 => (0..2_000_000_000i64).prop_map(Some),
        1 => any::<i64>().prop_map(Some),
        1 => Just(None),
    ];
    let seq = prop_oneof![0..300u16, any::<u16>(), 65_400..=65_535u16];
    let reports = proptest::collection::vec((seq.clone(), at_us), 0..40);
    prop_oneof![
        4 => (seq, 0..70_000usize, 0..60u8)
            .prop_map(|(seq, bytes, count)| Input::Sent { seq, bytes, count }),
        4 => reports.prop_map(Input::Feedback),
        4 => (-2_000..100_000i64, 1..60u8)
            .prop_map(|(gap_us, count)| Input::Honest { gap_us, count }),
        1 => any::<u64>().prop_map(Input::Rtt),
        1 => any::<u8>().prop_map(Input::Loss),
        1 => any::<u64>().prop_map(Input::Remb),
        2 => Just(Input::Timeout),
        1 => any::<u64>().prop_map(Input::Wanted),
        2 => Just(Input::Poll),
    ]
}

/// An estimator and what its owner remembers.
struct Run {
    now: Instant,
    bwe: Bwe,
    next_seq: u16,
    arrival_us: i64,
}

impl Run {
    fn take(&mut self, input: Input) {
        match input {
            Input::Sent { seq, bytes, count } => {
                for step in 0..u16::from(count) {
                    self.next_seq = seq.wrapping_add(step);
                    let cluster = self.bwe.poll_probe().map(|cluster| cluster.id);
                    self.bwe
                        .on_sent(self.now, TwccSeq(self.next_seq), bytes, cluster);
                }
            }
            Input::Feedback(reports) => {
                let arrivals = reports.into_iter().map(|(seq, at_us)| Arrival {
                    seq: TwccSeq(seq),
                    at_us,
                });
                self.bwe.on_feedback(self.now, arrivals);
            }
            Input::Honest { gap_us, count } => self.report(gap_us, count),
            Input::Rtt(us) => self.bwe.on_rtt(Duration::from_micros(us)),
            Input::Loss(lost) => self.bwe.on_loss_report(self.now, lost),
            Input::Remb(bps) => self.bwe.on_remb(self.now, Bitrate::bps(bps)),
            Input::Timeout => self.time_out(),
            Input::Wanted(bps) => self.bwe.set_wanted(Bitrate::bps(bps)),
            Input::Poll => while self.bwe.poll_probe().is_some() {},
        }
    }

    fn report(&mut self, gap_us: i64, count: u8) {
        let first = self.next_seq.wrapping_sub(u16::from(count) - 1);
        let start_us = self.arrival_us;
        let arrivals = (0..u16::from(count)).map(|step| Arrival {
            seq: TwccSeq(first.wrapping_add(step)),
            at_us: Some(start_us + i64::from(step) * gap_us),
        });
        self.bwe.on_feedback(self.now, arrivals);
        self.arrival_us += i64::from(count) * gap_us;
    }

    fn time_out(&mut self) {
        self.bwe.on_timeout(self.now);
        let due = self.bwe.wakeup();
        assert!(due.is_none_or(|at| at > self.now), "due again at once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_a_viewer_reports_the_target_stays_within_its_bounds(
        inputs in proptest::collection::vec((0..1_500_000u64, input()), 1..120),
        transport_wide in any::<bool>(),
    ) {
        let now = origin();
        let options = Options { transport_wide, ..Options::default() };
        let mut run = Run { now, bwe: Bwe::new(now, options), next_seq: 0, arrival_us: 0 };
        for (passed_us, input) in inputs {
            run.now += Duration::from_micros(passed_us);
            run.take(input);
            let target = run.bwe.target();
            prop_assert!(target >= options.min && target <= options.max, "{target}");
            prop_assert!(run.bwe.rtt() <= Duration::from_secs(2));
            let _ = run.bwe.wakeup();
        }
    }
}

#[test]
fn a_clock_that_runs_away_does_not_overflow() {
    let now = origin();
    let mut run = Run {
        now,
        bwe: Bwe::new(now, Options::default()),
        next_seq: 0,
        arrival_us: 0,
    };
    for step in 0..200_000u64 {
        run.now += Duration::from_micros(100);
        let seq = TwccSeq(step as u16);
        run.bwe.on_sent(run.now, seq, 1_200, None);
        let at_us = Some((step as i64).wrapping_mul(0x1d_cd64_ffff));
        run.bwe.on_feedback(run.now, [Arrival { seq, at_us }]);
    }
    assert!(run.bwe.target() >= Options::default().min);
}
