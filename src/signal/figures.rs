//! What has been counted, as `GET /api/stats` gives it: every shard, and their sum.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::stats::{Dropped, Stats};
use crate::id::ShardId;
use crate::mailbox::{Histograms, Snapshot};
use crate::metrics::Family;
use crate::signal::happening::Happening;
use crate::signal::outlets::OutletFigures;

/// The answer to `GET /api/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Figures {
    signalling: Signalling,
    /// Where events go, in the order of the configuration.
    events: Vec<OutletFigures>,
    totals: ShardFigures,
    #[schema(value_type = BTreeMap<String, ShardFigures>)]
    shards: BTreeMap<usize, ShardFigures>,
}

/// What the signalling thread counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Signalling {
    /// Gauge: open WebSockets.
    pub sockets: u64,
    /// Gauge: rooms with at least one participant.
    pub rooms: u64,
    /// Gauge: participants in rooms.
    pub participants: u64,
    /// WebSockets that were opened.
    pub sockets_opened: u64,
    /// WebSockets closed because they broke a limit.
    pub sockets_refused: u64,
    /// WebSockets cut because their reader was too slow.
    pub slow_readers: u64,
    /// Requests refused because a shard's queue was full.
    pub server_busy: u64,
    /// Tokens refused.
    pub unauthorized: u64,
    /// Participants that lost their socket and came back.
    pub resumed: u64,
    /// Times that the configuration was read again.
    pub reloads: u64,
    /// Times that it could not be, and stayed as it was.
    pub reloads_failed: u64,
    /// Rooms that were made.
    pub rooms_started: u64,
    /// Recordings begun so far.
    pub recordings_started: u64,
    /// Participants that have entered a room.
    pub participants_joined: u64,
    /// Tracks that were published.
    pub tracks_published: u64,
}

impl Signalling {
    /// The same for Prometheus.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let gauge = |name, help, value: u64| Family::gauge(name, help, value as f64);
        vec![
            gauge("corelay_sockets", "Open WebSockets.", self.sockets),
            Family::counter(
                "corelay_sockets_opened",
                "WebSockets opened.",
                self.sockets_opened,
            ),
            Family::counter(
                "corelay_sockets_refused",
                "WebSockets closed because they broke a limit.",
                self.sockets_refused,
            ),
            Family::counter(
                "corelay_slow_readers",
                "WebSockets cut because their reader was too slow.",
                self.slow_readers,
            ),
            Family::counter(
                "corelay_server_busy",
                "Requests refused because a shard's queue was full.",
                self.server_busy,
            ),
            Family::counter("corelay_unauthorized", "Tokens refused.", self.unauthorized),
            Family::counter(
                "corelay_resumed",
                "Participants that lost their socket and came back.",
                self.resumed,
            ),
            Family::counter(
                "corelay_rooms_started",
                "Rooms that were made.",
                self.rooms_started,
            ),
            Family::counter(
                "corelay_tracks_published",
                "Tracks that were published.",
                self.tracks_published,
            ),
            Family::counter(
                "corelay_reloads",
                "Configurations read again.",
                self.reloads,
            ),
            Family::counter(
                "corelay_reloads_failed",
                "Configurations that could not be used when they were read again.",
                self.reloads_failed,
            ),
        ]
    }

    /// Counts what has happened.
    pub fn note(&mut self, happening: &Happening) {
        match happening {
            Happening::RoomStarted { .. } => self.rooms_started += 1,
            Happening::ParticipantJoined { .. } => self.participants_joined += 1,
            Happening::TrackPublished { .. } => self.tracks_published += 1,
            Happening::RecordingStarted { .. } => self.recordings_started += 1,
            _ => {}
        }
    }
}

/// What one shard counts, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
struct ShardFigures {
    #[schema(value_type = BTreeMap<String, u64>)]
    engine: BTreeMap<&'static str, u64>,
    #[schema(value_type = BTreeMap<String, u64>)]
    dropped: BTreeMap<&'static str, u64>,
    #[schema(value_type = BTreeMap<String, u64>)]
    shard: BTreeMap<&'static str, u64>,
    #[schema(value_type = BTreeMap<String, Latency>)]
    latency: BTreeMap<&'static str, Latency>,
}

/// How long something takes, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Latency {
    /// Half are shorter, in the last second in which anything was measured.
    p50: u64,
    /// All but one in a hundred are shorter, likewise.
    p99: u64,
    /// All but one in a thousand are shorter, likewise.
    p999: u64,
    /// Lengths and how often they occurred since the server began.
    buckets: Vec<(u64, u64)>,
}

impl Latency {
    fn new(ever: &Histogram<u64>, recent: &Histogram<u64>) -> Self {
        let at = |quantile| recent.value_at_quantile(quantile) / 1000;
        let mut buckets: BTreeMap<u64, u64> = BTreeMap::new();
        for value in ever.iter_recorded() {
            let us = value.value_iterated_to() / 1000;
            *buckets.entry(us).or_default() += value.count_at_value();
        }
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            buckets: buckets.into_iter().collect(),
        }
    }
}

/// What one shard told last, and the part of it that is new.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Which.
    pub shard: ShardId,
    /// All it told.
    pub snapshot: &'a Snapshot,
    /// What it measured since it told before.
    pub recent: &'a Histograms,
}

impl Figures {
    /// Sums up the latest snapshot of every shard.
    pub fn new<'a>(
        signalling: Signalling,
        events: Vec<OutletFigures>,
        told: impl Iterator<Item = Told<'a>>,
    ) -> Self {
        let mut shards = BTreeMap::new();
        let mut totals = ShardFigures::default();
        let (mut ever, mut recent) = (Histograms::default(), Histograms::default());
        for told in told {
            let shard = ShardFigures::from(told);
            add(&mut totals.engine, &shard.engine);
            add(&mut totals.dropped, &shard.dropped);
            add(&mut totals.shard, &shard.shard);
            ever.add(&told.snapshot.histograms);
            recent.add(told.recent);
            shards.insert(told.shard.index(), shard);
        }
        totals.latency = latency(&ever, &recent);
        Self {
            signalling,
            events,
            totals,
            shards,
        }
    }
}

impl From<Told<'_>> for ShardFigures {
    fn from(told: Told<'_>) -> Self {
        let snapshot = told.snapshot;
        let dropped = &snapshot.engine.dropped;
        let dropped = Dropped::ALL.map(|reason| (reason.label(), dropped.count(reason)));
        Self {
            engine: engine(&snapshot.engine).into(),
            dropped: dropped.into(),
            shard: snapshot.shard.iter().copied().collect(),
            latency: latency(&snapshot.histograms, told.recent),
        }
    }
}

fn latency(ever: &Histograms, recent: &Histograms) -> BTreeMap<&'static str, Latency> {
    [
        ("turn_us", Latency::new(&ever.turn_ns, &recent.turn_ns)),
        ("delay_us", Latency::new(&ever.delay_ns, &recent.delay_ns)),
    ]
    .into()
}

fn engine(stats: &Stats) -> [(&'static str, u64); 27] {
    [
        ("rooms", stats.rooms),
        ("peers", stats.peers),
        ("audio_tracks", stats.audio_tracks),
        ("video_tracks", stats.video_tracks),
        ("subscriptions", stats.subscriptions),
        ("addresses", stats.addresses),
        ("estimated_bps", stats.estimated_bps),
        ("connected", stats.connected),
        ("datagrams_in", stats.datagrams_in),
        ("bytes_in", stats.bytes_in),
        ("datagrams_out", stats.datagrams_out),
        ("bytes_out", stats.bytes_out),
        ("rtp_in", stats.rtp_in),
        ("forwarded", stats.forwarded),
        ("resent", stats.resent),
        ("paced", stats.paced),
        ("padding", stats.padding),
        ("data_in", stats.data_in),
        ("data_out", stats.data_out),
        ("data_lost", stats.data_lost),
        ("data_refused", stats.data_refused),
        ("reports", stats.reports),
        ("reported_loss_256", stats.reported_loss_256),
        ("reported_jitter_us", stats.reported_jitter_us),
        ("keyframe_requests", stats.keyframe_requests),
        ("guarded", stats.guarded),
        ("peer_panics", stats.peer_panics),
    ]
}

fn add(totals: &mut BTreeMap<&'static str, u64>, figures: &BTreeMap<&'static str, u64>) {
    for (name, figure) in figures {
        *totals.entry(name).or_default() += figure;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sums_of_all_shards() {
        let mut first = Snapshot::default();
        first.engine.peers = 2;
        first.engine.dropped.add(Dropped::NoTrack);
        first.shard.push(("turns", 5));
        let mut second = Snapshot::default();
        second.engine.peers = 3;
        second.engine.dropped.add(Dropped::NoTrack);
        second.shard.push(("turns", 7));
        for _ in 0..99 {
            first.histograms.turn_ns.record(10_000).unwrap();
        }
        second.histograms.turn_ns.record(3_000_000).unwrap();
        let told = [&first, &second].into_iter().enumerate();
        let told = told.map(|(index, snapshot)| Told {
            shard: ShardId::new(index as u16),
            snapshot,
            recent: &snapshot.histograms,
        });
        let figures = Figures::new(Signalling::default(), Vec::new(), told);
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(json["totals"]["engine"]["peers"], 5);
        assert_eq!(json["totals"]["dropped"]["no_track"], 2);
        assert_eq!(json["totals"]["dropped"]["malformed"], 0);
        assert_eq!(json["totals"]["shard"]["turns"], 12);
        assert_eq!(json["shards"]["1"]["engine"]["peers"], 3);
        let turn = &json["totals"]["latency"]["turn_us"];
        assert_eq!((&turn["p50"], &turn["p99"]), (&10.into(), &10.into()));
        assert!(
            turn["p999"].as_u64() > Some(2_900),
            "not a sum, not a mean: {turn}"
        );
        assert_eq!(turn["buckets"][0][1], 99);
    }
}
