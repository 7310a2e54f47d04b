//! The families of all shards, from what each told last.

use hdrhistogram::Histogram;

use super::engine::{COUNTERS, Entry, GAUGES};
use super::{Buckets, Family, Sample, Samples};
use crate::engine::stats::Dropped;
use crate::id::ShardId;
use crate::mailbox::Snapshot;

/// Upper bounds of the histograms of time, in seconds.
const SECONDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
    5.0,
];

/// Upper bounds of the histogram of run lengths, in datagrams: a bucket has what is below.
const RUNS: [f64; 7] = [2.0, 3.0, 5.0, 9.0, 17.0, 33.0, 65.0];

/// Counters of sockets and queues that say what is there now; the others only grow.
const NOW: [&str; 2] = ["udp_out_backlog", "command_queue"];

/// Of what there is one for all shards, by the beginning of its name.
const ONE_FOR_ALL: [&str; 2] = ["steering_", "driver_"];

/// What Prometheus wants in seconds.
const BUSY_US: &str = "busy_us";

/// A shard and what it told last.
pub type Shard<'a> = (ShardId, &'a Snapshot);

/// Everything that shards count.
#[must_use]
pub fn families(shards: &[Shard<'_>]) -> Vec<Family> {
    let mut families = Vec::new();
    for entry in GAUGES {
        families.push(of_engine(entry, shards, Samples::Gauge));
    }
    for entry in COUNTERS {
        families.push(of_engine(entry, shards, Samples::Counter));
    }
    families.push(dropped(shards));
    families.push(busy(shards));
    families.extend(sockets(shards));
    families.extend(histograms(shards));
    families
}

fn label(shard: ShardId) -> Vec<(&'static str, String)> {
    vec![("shard", shard.index().to_string())]
}

fn of_engine(
    (name, help, value): Entry,
    shards: &[Shard<'_>],
    kind: fn(Vec<Sample<f64>>) -> Samples,
) -> Family {
    let samples = shards.iter().map(|(shard, snapshot)| Sample {
        labels: label(*shard),
        value: value(&snapshot.engine) as f64,
    });
    Family::new(name, help, kind(samples.collect()))
}

fn dropped(shards: &[Shard<'_>]) -> Family {
    let samples = shards.iter().flat_map(|(shard, snapshot)| {
        let dropped = &snapshot.engine.dropped;
        Dropped::ALL.map(|reason| Sample {
            labels: vec![
                ("shard", shard.index().to_string()),
                ("reason", reason.label().to_owned()),
            ],
            value: dropped.count(reason) as f64,
        })
    });
    let help = "Datagrams and packets dropped, by reason.";
    Family::new("corelay_dropped", help, Samples::Counter(samples.collect()))
}

fn busy(shards: &[Shard<'_>]) -> Family {
    let samples = shards.iter().map(|(shard, snapshot)| {
        let mut counters = snapshot.shard.iter();
        let us = counters.find(|(name, _)| *name == BUSY_US);
        Sample {
            labels: label(*shard),
            value: us.map_or(0, |(_, us)| *us) as f64 / 1e6,
        }
    });
    let samples = Samples::Counter(samples.collect());
    let help = "How long a shard has been busy.";
    Family::new("corelay_shard_busy_seconds", help, samples)
}

/// What sockets and queues count, under the names that they have at `/api/stats`.
fn sockets(shards: &[Shard<'_>]) -> Vec<Family> {
    let Some((_, first)) = shards.first() else {
        return Vec::new();
    };
    let names = first.shard.iter().map(|(name, _)| *name);
    let names = names.filter(|name| *name != BUSY_US);
    names
        .map(|name| {
            let is_one_for_all = ONE_FOR_ALL.iter().any(|begin| name.starts_with(begin));
            let shown = shards
                .iter()
                .take(if is_one_for_all { 1 } else { shards.len() });
            let samples = shown.filter_map(|(shard, snapshot)| {
                let counter = snapshot.shard.iter().find(|(found, _)| *found == name)?;
                let labels = if is_one_for_all {
                    Vec::new()
                } else {
                    label(*shard)
                };
                let value = counter.1 as f64;
                Some(Sample { labels, value })
            });
            let samples = samples.collect();
            let is_now = is_one_for_all || NOW.contains(&name);
            Family {
                name: format!("corelay_shard_{name}").into(),
                help: format!("What shards count as {name} at /api/stats.").into(),
                samples: match is_now {
                    true => Samples::Gauge(samples),
                    false => Samples::Counter(samples),
                },
            }
        })
        .collect()
}

fn histograms(shards: &[Shard<'_>]) -> Vec<Family> {
    let family = |name, help, bounds: &[f64], unit, of: fn(&Snapshot) -> &Histogram<u64>| {
        let samples = shards.iter().map(|(shard, snapshot)| Sample {
            labels: label(*shard),
            value: Buckets::new(of(snapshot), bounds, unit),
        });
        Family::new(name, help, Samples::Histogram(samples.collect()))
    };
    vec![
        family(
            "corelay_turn_seconds",
            "Length of a shard's turns with work.",
            &SECONDS,
            1e9,
            |snapshot| &snapshot.histograms.turn_ns,
        ),
        family(
            "corelay_forwarding_delay_seconds",
            "From the kernel's receiving a datagram to the send call that follows it.",
            &SECONDS,
            1e9,
            |snapshot| &snapshot.histograms.delay_ns,
        ),
        family(
            "corelay_gso_run_datagrams",
            "Datagrams in one entry of a send call; a bucket has those that are shorter.",
            &RUNS,
            1.0,
            |snapshot| &snapshot.histograms.run_datagrams,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{Format, write};
    use super::*;

    #[test]
    fn each_shard_has_its_own_samples() {
        let mut busy = Snapshot::default();
        busy.engine.peers = 3;
        busy.engine.dropped.add(Dropped::NoTrack);
        busy.shard = vec![("turns", 9), ("driver_glommio", 1), ("udp_out_backlog", 4)];
        busy.histograms.turn_ns.record(70_000).unwrap();
        let idle = Snapshot {
            shard: vec![("turns", 1), ("driver_glommio", 1), ("udp_out_backlog", 0)],
            ..Snapshot::default()
        };
        let shards = [(ShardId::new(0), &busy), (ShardId::new(1), &idle)];
        let text = write(families(&shards), Format::Plain);
        for line in [
            "corelay_peers{shard=\"0\"} 3.0",
            "corelay_peers{shard=\"1\"} 0.0",
            "corelay_dropped_total{shard=\"0\",reason=\"no_track\"} 1.0",
            "corelay_shard_turns_total{shard=\"0\"} 9.0",
            "corelay_shard_driver_glommio 1.0",
            "# TYPE corelay_shard_udp_out_backlog gauge",
            "corelay_turn_seconds_bucket{le=\"0.0001\",shard=\"0\"} 1",
            "corelay_turn_seconds_bucket{le=\"0.00005\",shard=\"0\"} 0",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
