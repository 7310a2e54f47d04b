//! What has been counted, as `GET /api/stats` gives it: every shard, and their sum.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::stats::{Dropped, Stats};
use crate::id::ShardId;
use crate::mailbox::Snapshot;
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
}

impl Figures {
    /// Sums up the latest snapshot of every shard.
    pub fn new<'a>(
        signalling: Signalling,
        events: Vec<OutletFigures>,
        snapshots: impl Iterator<Item = (ShardId, &'a Snapshot)>,
    ) -> Self {
        let shards: BTreeMap<_, _> = snapshots
            .map(|(id, snapshot)| (id.index(), ShardFigures::from(snapshot)))
            .collect();
        let mut totals = ShardFigures::default();
        for shard in shards.values() {
            add(&mut totals.engine, &shard.engine);
            add(&mut totals.dropped, &shard.dropped);
            add(&mut totals.shard, &shard.shard);
        }
        Self {
            signalling,
            events,
            totals,
            shards,
        }
    }
}

impl From<&Snapshot> for ShardFigures {
    fn from(snapshot: &Snapshot) -> Self {
        let dropped = &snapshot.engine.dropped;
        let dropped = Dropped::ALL.map(|reason| (reason.label(), dropped.count(reason)));
        Self {
            engine: engine(&snapshot.engine).into(),
            dropped: dropped.into(),
            shard: snapshot.shard.iter().copied().collect(),
        }
    }
}

fn engine(stats: &Stats) -> [(&'static str, u64); 24] {
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
        let snapshots = [(ShardId::new(0), &first), (ShardId::new(1), &second)];
        let figures = Figures::new(Signalling::default(), Vec::new(), snapshots.into_iter());
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(json["totals"]["engine"]["peers"], 5);
        assert_eq!(json["totals"]["dropped"]["no_track"], 2);
        assert_eq!(json["totals"]["dropped"]["malformed"], 0);
        assert_eq!(json["totals"]["shard"]["turns"], 12);
        assert_eq!(json["shards"]["1"]["engine"]["peers"], 3);
    }
}
