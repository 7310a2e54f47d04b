//! Fast path: media down to the slots that play it, keyframe requests up to its publisher.

use std::time::Instant;

use str0m::media::Rid;
use str0m::rtp::RtpPacket;

use super::Engine;
use super::arena::Key;
use super::codec::{self, PayloadFacts};
use super::command::Kind;
use super::limits::TURN_PACKETS;
use super::peer::{Due, Peer};
use super::stats::Dropped;
use super::track::{MediaPacket, Track};

impl Engine {
    /// Queues one packet for everyone who watches its track.
    pub(super) fn take_rtp(&mut self, publisher: Key<Peer>, packet: RtpPacket) {
        self.stats.rtp_in += 1;
        if let Err(dropped) = self.queue_rtp(publisher, packet) {
            self.stats.dropped.add(dropped);
        }
    }

    fn queue_rtp(&mut self, publisher: Key<Peer>, packet: RtpPacket) -> Result<(), Dropped> {
        let Self {
            peers,
            tracks,
            turn,
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
        if facts.starts_keyframe {
            track.layers[usize::from(layer)].keyframes.keyframe_seen();
        }
        let index = u32::try_from(turn.packets.len()).expect("TURN_PACKETS is small");
        for watcher in &track.watchers {
            let Some(viewer) = peers.get_mut(watcher.peer) else {
                continue;
            };
            if !viewer.is_connected() {
                continue;
            }
            if viewer.due.is_empty() {
                turn.dirty.push_back(watcher.peer);
            }
            viewer.due.push(Due {
                packet: index,
                slot: watcher.slot,
            });
        }
        turn.packets.push(media_packet(key, layer, facts, packet));
        Ok(())
    }

    /// Gives out to the next subscriber with something due; `false` when the turn is over.
    pub(super) fn give_out_next(&mut self) -> bool {
        let Some(key) = self.turn.dirty.pop_front() else {
            self.turn.packets.clear();
            return false;
        };
        let Self {
            tracks, turn, now, ..
        } = self;
        // The guard needs the whole engine; what it reads meanwhile is set aside.
        let (tracks, packets) = (std::mem::take(tracks), std::mem::take(&mut turn.packets));
        let now = *now;
        self.with_peer(key, |peer, stats| {
            peer.give_out(now, &packets, &tracks, stats)
        });
        self.tracks = tracks;
        self.turn.packets = packets;
        true
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

/// Takes out of a received packet what its subscribers need, and nothing that names the
/// publisher's m-line: str0m would send it on after the first receiver report.
fn media_packet(
    track: Key<Track>,
    layer: u8,
    facts: PayloadFacts,
    packet: RtpPacket,
) -> MediaPacket {
    let mut extensions = packet.header.ext_vals;
    extensions.mid = None;
    extensions.rid = None;
    extensions.rid_repair = None;
    extensions.transport_cc = None;
    extensions.abs_send_time = None;
    MediaPacket {
        track,
        layer,
        seq: *packet.seq_no,
        timestamp: packet.header.timestamp,
        marker: packet.header.marker,
        pt: packet.header.payload_type,
        payload: packet.payload,
        extensions,
        facts,
        arrived: packet.timestamp,
    }
}
