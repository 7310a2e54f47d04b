//! Who is on the way to media, and which way that ended: for the log, the metrics, traces, and
//! whoever asks about a room.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tracing::Span;

use crate::engine::command::{CloseReason, MissingStep};
use crate::id::{PeerId, RoomId};
use crate::mailbox::Histograms;
use crate::metrics::{Buckets, Family, Sample, Samples};
use crate::signal::Now;
use crate::signal::limits::LogGate;

/// Failures that are remembered, of all rooms. Beyond it the oldest is forgotten.
const FAILURES: usize = 1000;

/// Upper bounds of how long it takes to connect, in seconds.
const BOUNDS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A participant whose media did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where it was.
    pub room: RoomId,
    /// Who.
    pub peer: PeerId,
    /// When it was given up, in seconds since 1970.
    pub at: u64,
    /// The first step that was missing.
    pub step: MissingStep,
}

/// See the module.
#[derive(Debug)]
pub struct Joins {
    on_the_way: BTreeMap<PeerId, Way>,
    counts: Counts,
    failures: VecDeque<Failure>,
    connect_ns: Histogram<u64>,
    log: LogGate,
}

/// One participant without media.
#[derive(Debug)]
struct Way {
    room: RoomId,
    since: Instant,
    /// Exported when it is dropped, where traces are wanted.
    span: Span,
}

#[derive(Debug, Default)]
struct Counts {
    entered: u64,
    connected: u64,
    left_before: u64,
    closed: u64,
    failed: BTreeMap<MissingStep, u64>,
}

impl Joins {
    /// Nobody is on the way.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            on_the_way: BTreeMap::new(),
            counts: Counts::default(),
            failures: VecDeque::new(),
            connect_ns: Histograms::default().turn_ns,
            log: LogGate::new(now),
        }
    }

    /// A participant is in a room.
    pub fn handle_entered(&mut self, now: Instant, room: RoomId, peer: PeerId) {
        self.counts.entered += 1;
        let span = tracing::info_span!(
            target: "corelay::join",
            "join",
            %peer,
            result = tracing::field::Empty,
            step = tracing::field::Empty,
        );
        let since = now;
        self.on_the_way.insert(peer, Way { room, since, span });
    }

    /// Its media flows.
    pub fn handle_connected(&mut self, now: Instant, peer: PeerId) {
        // After an ICE restart it connects again.
        if let Some(way) = self.on_the_way.remove(&peer) {
            way.span.record("result", "connected");
            self.counts.connected += 1;
            let took = now.saturating_duration_since(way.since);
            self.connect_ns.saturating_record(took.as_nanos() as u64);
        }
    }

    /// Its shard has given it up.
    pub fn handle_closed(&mut self, now: Now, peer: PeerId, reason: CloseReason) {
        let Some(way) = self.on_the_way.remove(&peer) else {
            return;
        };
        let CloseReason::ConnectTimeout(step) = reason else {
            way.span.record("result", "closed");
            self.counts.closed += 1;
            return;
        };
        way.span.record("result", "failed");
        way.span.record("step", step.label());
        *self.counts.failed.entry(step).or_default() += 1;
        if let Some(held) = self.log.pass(now.at) {
            let (step, why) = (step.label(), step.sentence());
            tracing::info!(%peer, step, held, "a participant got no media: {why}");
        }
        if self.failures.len() == FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back(Failure {
            room: way.room,
            peer,
            at: now.unix,
            step,
        });
    }

    /// It has left.
    pub fn handle_left(&mut self, peer: PeerId) {
        if let Some(way) = self.on_the_way.remove(&peer) {
            way.span.record("result", "left");
            self.counts.left_before += 1;
        }
    }

    /// Whose media did not come about in a room of late, the latest first.
    pub fn failures<'a>(&'a self, room: &'a RoomId) -> impl Iterator<Item = &'a Failure> {
        let failures = self.failures.iter().rev();
        failures.filter(move |failure| failure.room == *room)
    }

    /// For how long the one who waits longest has waited.
    #[must_use]
    pub fn longest(&self, now: Instant) -> Duration {
        let waits = self.on_the_way.values();
        let waits = waits.map(|way| now.saturating_duration_since(way.since));
        waits.max().unwrap_or_default()
    }

    /// What is counted, for Prometheus.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let of = |label, value: &str, count: u64| Sample {
            labels: vec![(label, value.to_owned())],
            value: count as f64,
        };
        let counts = &self.counts;
        let failed = |step| counts.failed.get(&step).copied().unwrap_or_default();
        let results = [
            ("connected", counts.connected),
            ("failed", counts.failed.values().sum()),
            ("closed", counts.closed),
            ("left", counts.left_before),
        ];
        let results = results.map(|(result, count)| of("result", result, count));
        let steps = MissingStep::ALL.map(|step| of("step", step.label(), failed(step)));
        vec![
            Family::counter(
                "corelay_joins",
                "Participants that entered a room.",
                counts.entered,
            ),
            Family::new(
                "corelay_join_results",
                "How the way to media of those who entered ended.",
                Samples::Counter(results.into()),
            ),
            Family::new(
                "corelay_join_failures",
                "Participants without media, by the first step that was missing.",
                Samples::Counter(steps.into()),
            ),
            Family::gauge(
                "corelay_joins_waiting",
                "Participants that are in a room and have no media yet.",
                self.on_the_way.len() as f64,
            ),
            Family::new(
                "corelay_connect_seconds",
                "From entering a room to flowing media.",
                Samples::Histogram(vec![Sample {
                    labels: Vec::new(),
                    value: Buckets::new(&self.connect_ns, &BOUNDS, 1e9),
                }]),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Format, write};

    #[test]
    fn each_join_ends_in_one_way_and_a_failure_names_the_missing_step() {
        let now = Now::read();
        let room = RoomId::parse("r").unwrap();
        let mut joins = Joins::new(now.at);
        for number in 0..4 {
            joins.handle_entered(now.at, room.clone(), PeerId::new(number));
        }
        joins.handle_connected(now.at + Duration::from_millis(300), PeerId::new(0));
        joins.handle_connected(now.at, PeerId::new(0));
        let timeout = CloseReason::ConnectTimeout(MissingStep::Dtls);
        joins.handle_closed(now, PeerId::new(1), timeout);
        joins.handle_closed(now, PeerId::new(1), timeout);
        joins.handle_left(PeerId::new(2));
        let failures: Vec<_> = joins.failures(&room).collect();
        assert_eq!((failures.len(), failures[0].step), (1, MissingStep::Dtls));
        let text = write(joins.families(), Format::Plain);
        for line in [
            "corelay_joins_total 4.0",
            "corelay_join_results_total{result=\"connected\"} 1.0",
            "corelay_join_results_total{result=\"failed\"} 1.0",
            "corelay_join_results_total{result=\"left\"} 1.0",
            "corelay_join_failures_total{step=\"dtls\"} 1.0",
            "corelay_join_failures_total{step=\"stun\"} 0.0",
            "corelay_joins_waiting 1.0",
            "corelay_connect_seconds_bucket{le=\"0.5\"} 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn failures_are_bounded() {
        let now = Now::read();
        let room = RoomId::parse("r").unwrap();
        let mut joins = Joins::new(now.at);
        for number in 0..FAILURES as u64 + 5 {
            let peer = PeerId::new(number);
            joins.handle_entered(now.at, room.clone(), peer);
            joins.handle_closed(now, peer, CloseReason::ConnectTimeout(MissingStep::Stun));
        }
        assert_eq!(joins.failures(&room).count(), FAILURES);
        assert_eq!(joins.failures(&room).last().unwrap().peer, PeerId::new(5));
    }
}
