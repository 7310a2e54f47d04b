//! Fast path: media down to the slots that play it, keyframe requests up to its publisher.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::arena::{Arena, Key};
use super::codec::PayloadFacts;
use super::command::Kind;
use super::copies::Copied;
use super::egress::clock::{StreamClock, WallClock};
use super::egress::history::Stored;
use super::ingress::receive_side::{Received, Source};
use super::layers;
use super::limits::TURN_PACKETS;
use super::pacing::Desk;
use super::peer::{Due, Peer};
use super::prefetch::prefetch;
use super::reading::read;
use super::room::Room;
use super::stats::{Dropped, Stats};
use super::subscription::clock_rate;
use super::svc::Frame;
use super::track::{MediaPacket, Queued, Track, Watcher};
use super::{Engine, Output};

/// What was taken in and is still to be given out.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Every media packet of the turn, in order of arrival.
    pub(super) packets: Vec<MediaPacket>,
    /// Tracks with packets that were not offered to those who watch.
    fresh: Vec<Key<Track>>,
    /// Who has something due, in the order it came up.
    pub(super) dirty: VecDeque<Key<Peer>>,
}

/// What a packet changed besides its being there.
enum News {
    None,
    /// A layer of this track started or stopped.
    Layers(Key<Track>),
    /// Somebody in this room was heard.
    Voice(Key<Room>),
}

impl Turn {
    /// Something may leave for a peer.
    pub(super) fn list(&mut self, key: Key<Peer>, peer: &mut Peer) {
        if !std::mem::replace(&mut peer.is_listed, true) {
            self.dirty.push_back(key);
        }
    }
}

impl Engine {
    /// Queues one packet for everyone who watches its track.
    pub(super) fn take_rtp(&mut self, now: Instant, publisher: Key<Peer>, packet: Received<'_>) {
        self.stats.rtp_in += 1;
        match self.queue_rtp(now, publisher, packet) {
            Ok(News::None) => {}
            Ok(News::Layers(track)) => self.reallocate(now, track),
            Ok(News::Voice(room)) => self.weigh_voices(now, room),
            Err(dropped) => self.stats.dropped.add(dropped),
        }
    }

    /// The layers of a track changed: what its watchers get is decided anew.
    fn reallocate(&mut self, now: Instant, key: Key<Track>) {
        let Some(track) = self.tracks.get_mut(key) else {
            return;
        };
        track.pace_keyframes();
        let watchers: Vec<_> = track.watchers.iter().map(|watcher| watcher.peer).collect();
        for viewer in watchers {
            self.allocate(now, viewer);
        }
    }

    fn queue_rtp(
        &mut self,
        now: Instant,
        publisher: Key<Peer>,
        packet: Received<'_>,
    ) -> Result<News, Dropped> {
        let Self {
            peers,
            tracks,
            turn,
            wall_clock,
            outbox,
            spares,
            ..
        } = self;
        let peer = peers.get(publisher).ok_or(Dropped::NoTrack)?;
        let Source { mid, rid, .. } = packet.source;
        let line = peer.line(mid);
        let key = line.and_then(|line| line.track).ok_or(Dropped::NoTrack)?;
        let track = tracks.get_mut(key).ok_or(Dropped::NoTrack)?;
        let layer = track.layer(rid).ok_or(Dropped::OtherLayer)?;
        if turn.packets.len() == TURN_PACKETS {
            return Err(Dropped::TurnQueueFull);
        }
        let (facts, frame) = read(track, layer, &packet);
        let has_changed = watch_layer(track, now, layer, &facts, &packet);
        let (copied, asked) = track.copy(layer, &facts, now, &packet);
        outbox.extend(copied.map(|packet| Output::Copied(Copied::Packet(packet))));
        if let Some(layer) = asked.and_then(|asked| track.layers.get_mut(usize::from(asked))) {
            layer.keyframes.request(now);
        }
        let described = (facts, frame);
        let packet = keep((now, wall_clock), (key, track), layer, described, packet);
        track.history.reclaim().for_each(|gone| spares.keep(gone));
        keep_to_replay(now, track, layer, &packet);
        let level = packet.audio_level;
        if track.queue(turn.packets.len(), layer) {
            turn.fresh.push(key);
        }
        turn.packets.push(packet);
        if let Some(level) = level.filter(|_| track.info.kind == Kind::Audio) {
            track.loudness.handle_level(now, level);
            return Ok(News::Voice(track.room));
        }
        Ok(if has_changed {
            News::Layers(key)
        } else {
            News::None
        })
    }

    /// Offers what has come to those who watch, viewer by viewer: the memory of each is fetched
    /// once for all packets of a picture. To be done before anything changes what a slot takes.
    pub(super) fn offer_queued(&mut self) {
        let Self {
            peers,
            tracks,
            turn,
            stats,
            ..
        } = self;
        if turn.fresh.is_empty() {
            return;
        }
        let mut fresh = std::mem::take(&mut turn.fresh);
        for key in fresh.drain(..) {
            if let Some(track) = tracks.get_mut(key) {
                for next in 0..track.watchers.len() {
                    prefetch_watchers(&track.watchers[next..], &track.queued, peers);
                    let watcher = &mut track.watchers[next];
                    offer(watcher, &track.queued, peers, turn, stats);
                }
                track.queued.clear();
            }
        }
        turn.fresh = fresh;
    }

    /// Gives out to the next subscriber with something due; `false` when the turn is over.
    pub(super) fn give_out_next(&mut self) -> bool {
        let Some(key) = self.turn.dirty.pop_front() else {
            self.turn.packets.clear();
            return false;
        };
        self.prefetch_next();
        // The guard needs the whole engine; what the peer reads and writes is set aside.
        let tracks = std::mem::take(&mut self.tracks);
        let packets = std::mem::take(&mut self.turn.packets);
        let mut batch = std::mem::take(&mut self.batch);
        let (now, at) = (self.now, self.wall_clock.at(self.now));
        let first = batch.packets().len();
        let kept_up = self.guard(key, |peer, stats| {
            peer.is_listed = false;
            let mut desk = Desk {
                now,
                at,
                tracks: &tracks,
                batch: &mut batch,
                stats,
            };
            let kept_up = peer.give_out(&packets, &mut desk);
            #[cfg(test)]
            peer.write_stock(now)?;
            Ok(kept_up)
        });
        self.tracks = tracks;
        self.turn.packets = packets;
        self.batch = batch;
        self.send_batch(key, first);
        #[cfg(test)]
        if self.is_stock(key) {
            self.touched.push_back(key);
        }
        if let Some(at) = self.peers.get(key).and_then(Peer::sending_wakeup) {
            self.deadlines.hasten(key, at);
        }
        if kept_up == Some(false) {
            self.begin_layers(now, key);
        }
        true
    }

    /// Asks for the memory of those whose turn comes next.
    fn prefetch_next(&self) {
        let next = |ahead: usize| self.peers.get(*self.turn.dirty.get(ahead)?);
        if let Some(peer) = next(1) {
            prefetch(peer);
        }
        if let Some(peer) = next(0) {
            peer.prefetch();
        }
    }

    /// Begins everything that waits for a keyframe of a peer: with one that was just sent, or by
    /// asking for another.
    pub(super) fn begin_layers(&mut self, now: Instant, viewer: Key<Peer>) {
        let Some(peer) = self.peers.get(viewer) else {
            return;
        };
        let slots = peer.slots.iter().zip(0_u8..);
        let waiting: Vec<_> = slots
            .filter_map(|(slot, index)| Some((index, slot.track()?, slot.wants_keyframe()?)))
            .collect();
        for (slot, track, layer) in waiting {
            let layer = self
                .tracks
                .get(track)
                .map_or(layer, |track| track.stream_of(layer));
            if !self.replay(now, viewer, slot, (track, layer)) {
                self.want_keyframe(now, track, layer);
            }
        }
    }

    /// Gives a slot the last keyframe of a layer again, if it is fresh. Not where that would come a
    /// second time: in one stream with what plays.
    fn replay(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        index: u8,
        (track, layer): (Key<Track>, u8),
    ) -> bool {
        let Self {
            peers,
            tracks,
            turn,
            ..
        } = self;
        let Some(played) = tracks.get(track) else {
            return false;
        };
        let Some(packets) = played
            .layers
            .get(usize::from(layer))
            .map(|layer| layer.replay.packets(now))
        else {
            return false;
        };
        let Some(viewer) = peers.get_mut(key) else {
            return false;
        };
        let Some(slot) = viewer.slots.get_mut(usize::from(index)) else {
            return false;
        };
        let is_again = slot.live().is_some() && played.is_svc();
        if is_again || turn.packets.len() + packets.len() > TURN_PACKETS {
            return false;
        }
        for (_, packet) in packets {
            let packet = MediaPacket {
                arrived: now,
                // What is known by now: the first of a stream did not tell.
                is_svc: played.is_svc(),
                ..packet.clone()
            };
            let Ok(passing) = slot.select(&packet) else {
                continue;
            };
            viewer.due.push(Due {
                packet: u32::try_from(turn.packets.len()).expect("TURN_PACKETS is small"),
                slot: index,
                passing,
            });
            turn.packets.push(packet);
        }
        let has_begun = if played.is_svc() {
            slot.live().is_some()
        } else {
            slot.live() == Some(layer)
        };
        if has_begun {
            turn.list(key, viewer);
        }
        has_begun
    }

    /// Someone needs a keyframe of a layer of `track`.
    pub(super) fn want_keyframe(&mut self, now: Instant, track: Key<Track>, layer: u8) {
        let Some(track) = self.tracks.get_mut(track) else {
            return;
        };
        if track.info.kind == Kind::Audio {
            return;
        }
        let layer = track.stream_of(layer);
        // Before anything has arrived there is nothing to ask for: it begins with a keyframe.
        let Some(layer) = track.layers.get_mut(usize::from(layer)) else {
            return;
        };
        layer.keyframes.request(now);
        let publisher = track.publisher;
        self.send_due_keyframe_requests(now, publisher);
    }
}

/// Asks for the memory of those who will be offered something after the first of these watchers.
fn prefetch_watchers(watchers: &[Watcher], queued: &Queued, peers: &Arena<Peer>) {
    let ahead = |places: usize| {
        let watcher = watchers.get(places)?;
        let peer = peers.get(watcher.peer)?;
        (watcher.takes & queued.layers != 0).then_some((watcher, peer))
    };
    if let Some((_, peer)) = ahead(4) {
        prefetch(peer);
    }
    if let Some((watcher, peer)) = ahead(2)
        && let Some(slot) = peer.slots.get(usize::from(watcher.slot))
    {
        prefetch(slot);
    }
}

/// Offers a track's packets to a slot, which takes them or counts why not.
fn offer(
    watcher: &mut Watcher,
    queued: &Queued,
    peers: &mut Arena<Peer>,
    turn: &mut Turn,
    stats: &mut Stats,
) {
    if watcher.takes & queued.layers == 0 {
        return;
    }
    let Some(viewer) = peers.get_mut(watcher.peer).filter(|v| v.is_connected()) else {
        return;
    };
    let Some(slot) = viewer.slots.get_mut(usize::from(watcher.slot)) else {
        return;
    };
    let before = viewer.due.len();
    for place in &queued.places {
        let packet = &turn.packets[*place as usize];
        if watcher.takes & 1 << packet.layer == 0 {
            continue;
        }
        match slot.select(packet) {
            Ok(passing) => viewer.due.push(Due {
                packet: *place,
                slot: watcher.slot,
                passing,
            }),
            Err(dropped) => stats.dropped.add(dropped),
        }
        watcher.takes = slot.takes();
    }
    if viewer.due.len() > before {
        turn.list(watcher.peer, viewer);
    }
}

/// Takes note of a packet's layer; `true` when a layer started or stopped.
fn watch_layer(
    track: &mut Track,
    now: Instant,
    layer: u8,
    facts: &PayloadFacts,
    packet: &Received<'_>,
) -> bool {
    if facts.starts_keyframe {
        track.layers[usize::from(layer)].keyframes.keyframe_seen();
    }
    if packet.payload.is_empty() {
        return false;
    }
    let packet = layers::Packet {
        layer: if track.is_svc() {
            facts.spatial_layer.unwrap_or(0)
        } else {
            layer
        },
        temporal: facts.temporal_layer.unwrap_or(0),
        bytes: packet.payload.len(),
        timestamp: packet.timestamp,
        sizes: facts.sizes,
    };
    track.seen.handle_packet(now, &packet).is_some()
}

/// Keeps a packet for who comes or switches just now.
fn keep_to_replay(now: Instant, track: &mut Track, layer: u8, packet: &MediaPacket) {
    let is_key = packet.facts.starts_keyframe;
    let replay = &mut track.layers[usize::from(layer)].replay;
    if track.info.kind == Kind::Video && replay.wants(is_key) {
        let place = (packet.seq, packet.timestamp);
        replay.handle_packet(now, place, is_key, packet.clone());
    }
}

/// Takes out of a received packet what its subscribers need, and keeps it to be sent again.
fn keep(
    (now, wall_clock): (Instant, &WallClock),
    (key, track): (Key<Track>, &mut Track),
    layer: u8,
    (facts, frame): (PayloadFacts, Option<Arc<Frame>>),
    packet: Received<'_>,
) -> MediaPacket {
    let clock = *track.layers[usize::from(layer)]
        .clock
        .get_or_insert_with(|| {
            StreamClock::new(
                wall_clock.at(now),
                packet.timestamp,
                clock_rate(track.info.kind),
            )
        });
    let stored = Stored {
        payload: packet.payload.clone(),
        descriptor: frame.as_ref().map(|frame| Arc::clone(&frame.bytes)),
        audio_level: packet.audio_level,
        video_orientation: packet.video_orientation,
        marker: packet.marker,
    };
    MediaPacket {
        track: key,
        layer,
        is_svc: track.is_svc(),
        seq: packet.seq,
        arrived: now,
        timestamp: packet.timestamp,
        marker: packet.marker,
        pt: packet.pt,
        audio_level: packet.audio_level,
        video_orientation: packet.video_orientation,
        clock,
        stored: track.history.push(now, stored),
        payload: packet.payload,
        facts,
        frame,
    }
}
