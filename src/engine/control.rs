//! Commands carried out: joins, offers, leaves, and what they change for everyone in the room.

use std::time::Instant;

use str0m::Candidate;

use super::arena::Key;
use super::command::{self, CloseReason, Event, Kind, Permissions, Refusal, Source, TrackInfo};
use super::egress::history::HistoryId;
use super::limits::SHARD_PEERS;
use super::peer::Peer;
use super::room::{Room, info_of, play_wanted, source_for};
use super::track::Track;
use super::wishes::Wish;
use super::{Engine, Output, negotiation};
use crate::id::{PeerId, RoomId};

impl Engine {
    pub(super) fn join(
        &mut self,
        now: Instant,
        room: RoomId,
        id: PeerId,
        permissions: Permissions,
    ) {
        if let Some(old) = self.peer_names.get(&id) {
            self.close(now, *old, CloseReason::Left);
        }
        if self.peers.len() == SHARD_PEERS {
            self.tell(Event::Closed {
                peer: id,
                room,
                reason: CloseReason::Full,
            });
            return;
        }
        let room_key = match self.room_names.get(&room) {
            Some(key) => *key,
            None => {
                let key = self.rooms.insert_with(|_| Room::new(now, room.clone()));
                self.room_names.insert(room, key);
                key
            }
        };
        let creds = self.credentials.draw();
        let options = &self.options;
        let key = self.peers.insert_with(|_| {
            Peer::new(now, id, room_key, creds, &options.identity, options.into())
        });
        self.peer_names.insert(id, key);
        let room = self
            .rooms
            .get_mut(room_key)
            .expect("a room lives as long as its peers");
        room.peers.push(key);
        room.wishes.insert(key, Wish::new(permissions));
        self.request_offer(key, true);
    }

    pub(super) fn offer(
        &mut self,
        now: Instant,
        id: PeerId,
        sdp: &str,
        sources: &[(String, Source)],
    ) {
        let Some(key) = self.peer_names.get(&id).copied() else {
            return self.refuse(id, Refusal::NotJoined);
        };
        if self
            .peers
            .get(key)
            .is_some_and(|peer| negotiation::is_new_connection(peer, sdp))
        {
            self.renew(now, key);
        }
        let Self { credentials, .. } = self;
        let mut spare = Some(credentials.draw());
        let answered = self.with_peer(key, |peer, _| {
            let spare = || spare.take().expect("one restart an offer");
            Ok(negotiation::answer(now, peer, sdp, spare))
        });
        match answered {
            Some(Ok(answered)) => {
                self.settle(now);
                self.apply_answer(now, key, answered, sources);
            }
            Some(Err(refusal)) => {
                self.refuse(id, refusal);
                if !self.peers.get(key).is_some_and(Peer::is_alive) {
                    self.doomed.push((key, CloseReason::Misbehaved));
                }
            }
            None => self.refuse(id, Refusal::BadOffer("it broke the connection".into())),
        }
    }

    fn apply_answer(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        answered: negotiation::Answered,
        sources: &[(String, Source)],
    ) {
        self.name_peer(key, answered.ufrag);
        let published = self.sync_tracks(key, sources);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.sync_slots(now);
            let room = peer.room;
            self.sync_taps(now, room);
        }
        let changed = self.play_to(key);
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let id = peer.id;
        if negotiation::is_satisfied(peer) {
            peer.requested = None;
        }
        let slots = self.slots_of(key, None);
        self.tell(Event::Answer {
            peer: id,
            sdp: answered.sdp,
            slots,
        });
        if !changed.started.is_empty() {
            self.allocate(now, key);
        }
        for (room, track) in published {
            self.tell(Event::TrackPublished { room, track });
        }
        self.refresh_room(now, key);
        self.request_offer(key, false);
    }

    pub(super) fn candidate(&mut self, id: PeerId, candidate: &str) {
        let Some(key) = self.peer_names.get(&id).copied() else {
            return self.refuse(id, Refusal::NotJoined);
        };
        let line = candidate.strip_prefix("a=").unwrap_or(candidate);
        match Candidate::from_sdp_string(line) {
            Ok(candidate) => {
                self.with_peer(key, |peer, _| peer.add_candidate(candidate));
            }
            // A browser hides its host addresses behind mDNS names, and offers TCP candidates:
            // an ICE-lite server that learns addresses from checks has no use for either.
            Err(_) if line.contains(".local ") || line.contains(" tcp ") => {}
            Err(_) => self.refuse(id, Refusal::BadCandidate),
        }
    }

    pub(super) fn leave(&mut self, now: Instant, id: PeerId) {
        if let Some(key) = self.peer_names.get(&id) {
            self.close(now, *key, CloseReason::Left);
        }
    }

    /// Ends a peer and frees everything it held.
    pub(super) fn close(&mut self, now: Instant, key: Key<Peer>, reason: CloseReason) {
        self.disconnect(key);
        let Some(peer) = self.peers.remove(key) else {
            return;
        };
        self.peer_names.remove(&peer.id);
        self.deadlines.set(key, None);
        let (id, room_key) = (peer.id, peer.room);
        // What is being dropped may be what panicked.
        drop_quietly(peer);
        let room = self
            .rooms
            .get_mut(room_key)
            .expect("a room lives as long as its peers");
        let name = room.id.clone();
        room.peers.retain(|other| *other != key);
        room.wishes.remove(&key);
        if room.peers.is_empty() {
            self.rooms.remove(room_key);
            self.room_names.remove(&name);
        }
        self.tell(Event::Closed {
            peer: id,
            room: name,
            reason,
        });
        self.close_orphans(room_key);
        self.refresh_peers(now, room_key, None);
    }

    /// Gives a peer a fresh connection, as if it had just joined: its client made a new one.
    pub(super) fn renew(&mut self, now: Instant, key: Key<Peer>) {
        self.disconnect(key);
        let creds = self.credentials.draw();
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let options = &self.options;
        let mut fresh = Peer::new(
            now,
            peer.id,
            peer.room,
            creds,
            &options.identity,
            options.into(),
        );
        fresh.keep_names_of(peer);
        let room = peer.room;
        drop_quietly(std::mem::replace(peer, fresh));
        self.deadlines.set(key, None);
        self.refresh_peers(now, room, Some(key));
    }

    /// Takes a peer out of everything that refers to its connection.
    fn disconnect(&mut self, key: Key<Peer>) {
        let first = self.batch.packets().len();
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if peer.is_connected() {
            peer.send_side.say_goodbye(&mut self.batch);
            self.send_batch(key, first);
        }
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let published: Vec<_> = peer
            .lines
            .iter_mut()
            .filter_map(|l| l.track.take())
            .collect();
        let addresses = peer.addresses.take();
        let ufrag = peer.ufrag.take();
        let watched: Vec<_> = peer.slots.iter().filter_map(|slot| slot.track()).collect();
        for track in watched {
            if let Some(track) = self.tracks.get_mut(track) {
                track.watchers.retain(|watcher| watcher.peer != key);
            }
        }
        for track in published {
            self.unpublish(track);
        }
        for remote in addresses {
            self.demux.forget(remote, key);
            self.outbox.push_back(Output::Forgotten(remote));
        }
        if let Some(ufrag) = ufrag {
            self.demux.unname(&ufrag);
        }
    }

    pub(super) fn unpublish(&mut self, key: Key<Track>) {
        let Some(track) = self.tracks.remove(key) else {
            return;
        };
        self.copy_end(&track);
        if let Some(room) = self.rooms.get_mut(track.room) {
            room.tracks.retain(|other| *other != key);
            room.forget(track.info.id);
            let room = room.id.clone();
            self.tell(Event::TrackUnpublished {
                room,
                track: track.info.id,
            });
        }
    }

    /// Publishes and unpublishes what the latest offer says; returns what is new.
    fn sync_tracks(
        &mut self,
        key: Key<Peer>,
        sources: &[(String, Source)],
    ) -> Vec<(RoomId, TrackInfo)> {
        let permissions = self.permissions_of(key);
        let Some(peer) = self.peers.get_mut(key) else {
            return Vec::new();
        };
        let id = peer.id;
        let formats = peer.formats();
        let mut published = Vec::new();
        let mut gone = Vec::new();
        let mut refused = Vec::new();
        for index in 0..peer.lines.len() {
            let line = peer.lines[index];
            match (peer.publishes(line.mid), line.track) {
                (true, None) => {
                    let said = sources.iter().find(|(mid, _)| *mid == *line.mid);
                    let source = source_for(line.kind, said.map(|(_, source)| *source));
                    if !permissions.may_publish(source) {
                        refused.push((line.mid.to_string(), source));
                        continue;
                    }
                    let info = TrackInfo {
                        id: peer.name_track(),
                        kind: line.kind,
                        source,
                    };
                    self.histories = self.histories.wrapping_add(1);
                    let history = HistoryId(self.histories);
                    let (room, pacing) = (peer.room, self.options.keyframes);
                    let track = Track::new(info.clone(), key, room, line.mid, history, pacing);
                    let track = self.tracks.insert_with(|_| track);
                    peer.lines[index].track = Some(track);
                    published.push((track, info));
                }
                (false, Some(track)) => {
                    peer.lines[index].track = None;
                    gone.push(track);
                }
                _ => {}
            }
        }
        for track in peer.lines.iter().filter_map(|line| line.track) {
            if let Some(track) = self.tracks.get_mut(track) {
                track.set_formats(formats.iter().copied());
            }
        }
        negotiation::forget_gone_lines(peer);
        let room_key = peer.room;
        let room = self
            .rooms
            .get_mut(room_key)
            .expect("a room lives as long as its peers");
        room.tracks
            .extend(published.iter().map(|(track, _)| *track));
        let name = room.id.clone();
        for track in gone {
            self.unpublish(track);
        }
        for (mid, source) in refused {
            let peer = id;
            self.tell(Event::NotPublished { peer, mid, source });
        }
        published
            .into_iter()
            .map(|(_, info)| (name.clone(), info))
            .collect()
    }

    /// Brings what plays to everyone else in the peer's room up to date.
    fn refresh_room(&mut self, now: Instant, except: Key<Peer>) {
        if let Some(peer) = self.peers.get(except) {
            self.refresh_peers(now, peer.room, Some(except));
        }
    }

    pub(super) fn refresh_peers(
        &mut self,
        now: Instant,
        room: Key<Room>,
        except: Option<Key<Peer>>,
    ) {
        let Some(room) = self.rooms.get(room) else {
            return;
        };
        for key in room.peers.clone() {
            if Some(key) != except {
                self.refresh_peer(now, key);
            }
        }
    }

    /// Brings what plays to one peer up to date.
    pub(super) fn refresh_peer(&mut self, now: Instant, key: Key<Peer>) {
        let changed = self.play_to(key);
        if !changed.slots.is_empty() {
            let slots = self.slots_of(key, Some(&changed.slots));
            if let Some(peer) = self.peers.get(key) {
                let peer = peer.id;
                self.tell(Event::Slots { peer, slots });
            }
        }
        if !changed.started.is_empty() {
            self.allocate(now, key);
        }
        self.request_offer(key, false);
    }

    fn play_to(&mut self, key: Key<Peer>) -> super::room::Changed {
        self.offer_queued();
        let Self {
            peers,
            rooms,
            tracks,
            ..
        } = self;
        let Some(peer) = peers.get_mut(key) else {
            return super::room::Changed::default();
        };
        let room = rooms
            .get(peer.room)
            .expect("a room lives as long as its peers");
        play_wanted(room, tracks, key, peer)
    }

    /// The slots of a peer, or those of these indices, as the client may know them.
    fn slots_of(&self, key: Key<Peer>, indices: Option<&[usize]>) -> Vec<command::Slot> {
        let Some(peer) = self.peers.get(key) else {
            return Vec::new();
        };
        peer.slots
            .iter()
            .enumerate()
            .filter(|(index, slot)| indices.map_or(slot.open, |some| some.contains(index)))
            .map(|(_, slot)| command::Slot {
                mid: slot.mid.to_string(),
                track: info_of(&self.tracks, slot.track()),
            })
            .collect()
    }

    /// Asks the client for more receiving m-lines when others publish more than it can show.
    fn request_offer(&mut self, key: Key<Peer>, always: bool) {
        let Self {
            peers,
            rooms,
            tracks,
            options,
            ..
        } = self;
        let Some(peer) = peers.get_mut(key) else {
            return;
        };
        let room = rooms
            .get(peer.room)
            .expect("a room lives as long as its peers");
        let wanted = |kind, most: u8| {
            let tracks = room.wanted(tracks, key, kind).len();
            u8::try_from(tracks).unwrap_or(u8::MAX).min(most)
        };
        let audio = wanted(Kind::Audio, options.max_audio_slots);
        let video = wanted(Kind::Video, options.max_video_slots);
        let lacks = audio > peer.receives(Kind::Audio) || video > peer.receives(Kind::Video);
        if always || (lacks && peer.requested != Some((audio, video))) {
            peer.requested = Some((audio, video));
            let peer = peer.id;
            self.tell(Event::RequestOffer { peer, audio, video });
        }
    }

    fn name_peer(&mut self, key: Key<Peer>, ufrag: String) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if peer.ufrag.as_ref() == Some(&ufrag) {
            return;
        }
        if let Some(before) = peer.ufrag.replace(ufrag.clone()) {
            self.demux.unname(&before);
        }
        self.demux.name(ufrag, key);
    }

    fn refuse(&mut self, peer: PeerId, refusal: Refusal) {
        self.tell(Event::Refused { peer, refusal });
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.outbox.push_back(Output::Event(event));
    }
}

/// Drops a peer whose destructor may panic as its methods did.
fn drop_quietly(peer: Peer) {
    let peer = std::panic::AssertUnwindSafe(peer);
    let _ = std::panic::catch_unwind(move || drop(peer));
}
