//! Fast path: media down to the slots that play it, keyframe requests up to its publisher.

use std::collections::VecDeque;
use std::time::{Instant, UNIX_EPOCH};

use str0m::media::{Rid, SenderFeedback};
use str0m::rtp::{ExtensionValues, RtpPacket};

use super::Engine;
use super::arena::Key;
use super::codec::{self, PayloadFacts};
use super::command::Kind;
use super::egress::clock::{Ntp, StreamClock, WallClock};
use super::egress::history::Stored;
use super::limits::TURN_PACKETS;
use super::pacing::Desk;
use super::peer::{Due, Peer};
use super::stats::Dropped;
use super::subscription::{Slot, clock_rate};
use super::track::{MediaPacket, Track};

/// What was taken in and is still to be given out.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Every media packet of the turn, in order of arrival.
    pub(super) packets: Vec<MediaPacket>,
    /// Who has something due, in the order it came up.
    pub(super) dirty: VecDeque<Key<Peer>>,
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
    pub(super) fn take_rtp(&mut self, now: Instant, publisher: Key<Peer>, packet: RtpPacket) {
        self.stats.rtp_in += 1;
        if let Err(dropped) = self.queue_rtp(now, publisher, packet) {
            self.stats.dropped.add(dropped);
        }
    }

    fn queue_rtp(
        &mut self,
        now: Instant,
        publisher: Key<Peer>,
        packet: RtpPacket,
    ) -> Result<(), Dropped> {
        let Self {
            peers,
            tracks,
            turn,
            wall_clock,
            ..
        } = self;
        let peer = peers.get_mut(publisher).ok_or(Dropped::NoTrack)?;
        let (mid, rid) = peer.incoming(packet.header.ssrc).ok_or(Dropped::NoTrack)?;
        let line = peer
            .lines
            .iter()
            .find(|line| line.mid == mid)
            .ok_or(Dropped::NoTrack)?;
        let key = line.track.ok_or(Dropped::NoTrack)?;
        let track = tracks.get_mut(key).ok_or(Dropped::NoTrack)?;
        let layer = track.layer(rid).ok_or(Dropped::OtherLayer)?;
        if turn.packets.len() == TURN_PACKETS {
            return Err(Dropped::TurnQueueFull);
        }
        let facts = facts_of(track, &packet);
        let stream = &mut track.layers[usize::from(layer)];
        stream.rate.count(now, packet.payload.len());
        if facts.starts_keyframe {
            stream.keyframes.keyframe_seen();
        }
        let index = u32::try_from(turn.packets.len()).expect("TURN_PACKETS is small");
        for watcher in &track.watchers {
            let Some(viewer) = peers.get_mut(watcher.peer) else {
                continue;
            };
            if !viewer.is_connected() {
                continue;
            }
            turn.list(watcher.peer, viewer);
            viewer.due.push(Due {
                packet: index,
                slot: watcher.slot,
            });
        }
        turn.packets
            .push(keep((now, wall_clock), (key, track), layer, facts, packet));
        Ok(())
    }

    /// A publisher told its clock: what plays from it is told in ours.
    pub(super) fn take_sender_report(&mut self, publisher: Key<Peer>, report: &SenderFeedback) {
        let Self {
            peers,
            tracks,
            wall_clock,
            ..
        } = self;
        let Some(peer) = peers.get_mut(publisher) else {
            return;
        };
        let Some(line) = peer.lines.iter().find(|line| line.mid == report.mid) else {
            return;
        };
        let Some(track) = line.track.and_then(|key| tracks.get_mut(key)) else {
            return;
        };
        let Ok(told) = report.sender_info.ntp_time.duration_since(UNIX_EPOCH) else {
            return;
        };
        let arrival = wall_clock.at(report.received_at);
        let at = peer.clock.handle_report(arrival, Ntp::from_unix(told));
        let rate = clock_rate(track.info.kind);
        let timestamp = report.sender_info.rtp_time.numer() as u32;
        if let Some(layer) = track
            .layers
            .iter_mut()
            .find(|layer| layer.rid == report.rid)
        {
            layer.clock = Some(StreamClock::new(at, timestamp, rate));
        }
    }

    /// Gives out to the next subscriber with something due; `false` when the turn is over.
    pub(super) fn give_out_next(&mut self) -> bool {
        let Some(key) = self.turn.dirty.pop_front() else {
            self.turn.packets.clear();
            return false;
        };
        // The guard needs the whole engine; what the peer reads and writes is set aside.
        let tracks = std::mem::take(&mut self.tracks);
        let packets = std::mem::take(&mut self.turn.packets);
        let mut batch = std::mem::take(&mut self.batch);
        let (now, at) = (self.now, self.wall_clock.at(self.now));
        let first = batch.packets().len();
        let kept_up = self.with_peer(key, |peer, stats| {
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
        if kept_up == Some(false) {
            self.want_keyframes(now, key);
        }
        true
    }

    /// Asks for a keyframe of everything that cannot play to a peer without one.
    pub(super) fn want_keyframes(&mut self, now: Instant, viewer: Key<Peer>) {
        let Some(peer) = self.peers.get(viewer) else {
            return;
        };
        let slots = peer.slots.iter().filter(|slot| slot.awaits_keyframe());
        let waiting: Vec<_> = slots.filter_map(Slot::track).collect();
        for track in waiting {
            self.want_keyframe(now, track);
        }
    }

    /// Someone needs a keyframe of the layer of `track` that plays to them.
    pub(super) fn want_keyframe(&mut self, now: Instant, track: Key<Track>) {
        let Some(track) = self.tracks.get_mut(track) else {
            return;
        };
        if track.info.kind == Kind::Audio {
            return;
        }
        if track.layers.is_empty() {
            // Nothing has arrived yet: its first picture is a keyframe.
            return;
        }
        track.layers[0].keyframes.request(now);
        let publisher = track.publisher;
        self.send_due_keyframe_requests(now, publisher);
    }

    /// Sends what the pacers of a publisher's layers let through.
    pub(super) fn send_due_keyframe_requests(&mut self, now: Instant, publisher: Key<Peer>) {
        let Some(peer) = self.peers.get(publisher) else {
            return;
        };
        let published: Vec<Key<Track>> = peer.lines.iter().filter_map(|line| line.track).collect();
        for key in published {
            let Some(track) = self.tracks.get_mut(key) else {
                continue;
            };
            let mid = track.mid;
            let due: Vec<Option<Rid>> = track
                .layers
                .iter_mut()
                .filter_map(|layer| layer.keyframes.poll(now).then_some(layer.rid))
                .collect();
            for rid in due {
                let sent = self.with_peer(publisher, |peer, _| peer.request_keyframe(mid, rid));
                self.stats.keyframe_requests += u64::from(sent == Some(true));
            }
        }
    }
}

fn facts_of(track: &Track, packet: &RtpPacket) -> PayloadFacts {
    track
        .format(packet.header.payload_type)
        .and_then(|format| format.codec)
        .map(|codec| codec::facts(codec, &packet.payload))
        .unwrap_or_default()
}

/// Takes out of a received packet what its subscribers need, and keeps it to be sent again.
fn keep(
    (now, wall_clock): (Instant, &WallClock),
    (key, track): (Key<Track>, &mut Track),
    layer: u8,
    facts: PayloadFacts,
    packet: RtpPacket,
) -> MediaPacket {
    let header = &packet.header;
    let clock = *track.layers[usize::from(layer)]
        .clock
        .get_or_insert_with(|| {
            StreamClock::new(
                wall_clock.at(now),
                header.timestamp,
                clock_rate(track.info.kind),
            )
        });
    let stored = Stored {
        payload: packet.payload.clone(),
        descriptor: None,
        audio_level: audio_level(&header.ext_vals),
        video_orientation: header.ext_vals.video_orientation.map(|o| o as u8),
        marker: header.marker,
    };
    MediaPacket {
        track: key,
        layer,
        seq: *packet.seq_no,
        arrived: now,
        timestamp: header.timestamp,
        marker: header.marker,
        pt: header.payload_type,
        audio_level: stored.audio_level,
        video_orientation: stored.video_orientation,
        clock,
        stored: track.history.push(now, stored),
        payload: packet.payload,
        facts,
    }
}

/// RFC 6464 §3: the voice flag, then how far below full scale, in decibels.
fn audio_level(extensions: &ExtensionValues) -> Option<u8> {
    let level = extensions.audio_level?.unsigned_abs() & 0x7f;
    let voice = extensions.voice_activity.unwrap_or(false);
    Some(level | u8::from(voice) << 7)
}
