//! How much a shard has had to do in the last seconds, from what it tells. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::engine::stats::Stats;
use crate::mailbox::{Histograms, Snapshot};

/// Snapshots that are looked back on, one a second.
const SNAPSHOTS: usize = 10;

/// How much a shard has had to do since it told before.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Share of the time that it was busy, 0 to 1.
    pub busy: f64,
    /// All but one in a hundred of its turns were shorter.
    pub turn_p99: Duration,
    /// Datagrams that wait for the kernel to take them.
    pub backlog: u64,
    /// Commands that wait for it.
    pub commands: u64,
}

/// The last seconds of one shard.
#[derive(Debug, Default)]
pub struct Window(VecDeque<Moment>);

/// What it had counted at some moment.
#[derive(Debug)]
struct Moment {
    at: Instant,
    stats: Stats,
    busy_us: u64,
    backlog: u64,
    commands: u64,
}

/// What happened in the window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Bytes a second from clients.
    pub bytes_in: f64,
    /// Bytes a second to clients.
    pub bytes_out: f64,
    /// Reports of viewers.
    pub reports: u64,
    /// Sum of the losses that they tell, each 0 to 1.
    pub losses: f64,
    /// Sum of the jitters that they tell, in milliseconds.
    pub jitters_ms: f64,
}

impl Window {
    /// Takes in what the shard told at `now`.
    pub fn push(&mut self, now: Instant, snapshot: &Snapshot) {
        let counter = |name| {
            let found = snapshot.shard.iter().find(|(counter, _)| *counter == name);
            found.map_or(0, |(_, value)| *value)
        };
        if self.0.len() == SNAPSHOTS {
            self.0.pop_front();
        }
        self.0.push_back(Moment {
            at: now,
            stats: snapshot.engine.clone(),
            busy_us: counter("busy_us"),
            backlog: counter("udp_out_backlog"),
            commands: counter("command_queue"),
        });
    }

    /// How long it has told nothing; `None` when it never did.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.0.back()?.at))
    }

    /// How much it has had to do between the last two times it told; `recent` is what it measured
    /// in between.
    #[must_use]
    pub fn load(&self, recent: &Histograms) -> Load {
        let mut latest = self.0.iter().rev();
        let (Some(last), Some(before)) = (latest.next(), latest.next()) else {
            return Load::default();
        };
        let elapsed = last.at.saturating_duration_since(before.at).as_secs_f64();
        let busy = (last.busy_us.saturating_sub(before.busy_us)) as f64 / 1e6;
        Load {
            busy: if elapsed > 0.0 {
                (busy / elapsed).min(1.0)
            } else {
                0.0
            },
            turn_p99: Duration::from_nanos(recent.turn_ns.value_at_quantile(0.99)),
            backlog: last.backlog,
            commands: last.commands,
        }
    }

    /// What happened in the window; nothing when it is older than itself.
    #[must_use]
    pub fn rates(&self, now: Instant) -> Rates {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else {
            return Rates::default();
        };
        let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
        let age = now.saturating_duration_since(last.at);
        if seconds <= 0.0 || age > Duration::from_secs(SNAPSHOTS as u64) {
            return Rates::default();
        }
        let grown = |of: fn(&Stats) -> u64| of(&last.stats).saturating_sub(of(&first.stats));
        Rates {
            bytes_in: grown(|stats| stats.bytes_in) as f64 / seconds,
            bytes_out: grown(|stats| stats.bytes_out) as f64 / seconds,
            reports: grown(|stats| stats.reports),
            losses: grown(|stats| stats.reported_loss_256) as f64 / 256.0,
            jitters_ms: grown(|stats| stats.reported_jitter_us) as f64 / 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::clock;

    fn told(busy_us: u64, bytes_in: u64, reports: u64) -> Snapshot {
        let mut snapshot = Snapshot {
            shard: vec![("busy_us", busy_us), ("udp_out_backlog", 3)],
            ..Snapshot::default()
        };
        snapshot.engine.bytes_in = bytes_in;
        snapshot.engine.reports = reports;
        snapshot.engine.reported_loss_256 = reports * 64;
        snapshot.engine.reported_jitter_us = reports * 5000;
        snapshot
    }

    #[test]
    fn a_load_is_of_the_last_two_tellings_and_rates_are_of_the_window() {
        let start = clock();
        let mut window = Window::default();
        assert_eq!(window.load(&Histograms::default()), Load::default());
        window.push(start, &told(0, 0, 0));
        window.push(start + Duration::from_secs(1), &told(100_000, 1000, 4));
        window.push(start + Duration::from_secs(2), &told(850_000, 3000, 8));
        let mut recent = Histograms::default();
        recent.turn_ns.record(2_000_000).unwrap();
        let load = window.load(&recent);
        assert!((load.busy - 0.75).abs() < 1e-9, "{load:?}");
        assert_eq!((load.backlog, load.turn_p99.as_millis()), (3, 2));
        let now = start + Duration::from_secs(3);
        let rates = window.rates(now);
        assert!((rates.bytes_in - 1500.0).abs() < 1e-9, "{rates:?}");
        assert_eq!(
            (rates.reports, rates.losses, rates.jitters_ms),
            (8, 2.0, 40.0)
        );
        let later = start + Duration::from_secs(60);
        assert_eq!(
            window.rates(later),
            Rates::default(),
            "what is old is no rate"
        );
    }
}
