//! Who is where: rooms and their shards, their members and what those publish. Pure.

mod admission;
mod recording;
mod tracks;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::command::TrackInfo;
use crate::id::{PeerId, RoomId, ShardId};
use crate::record::order::RecordingId;
use crate::signal::addresses::{self, Addresses, Network, TooMany};
use crate::signal::happening::{FinishReason, Happening, LeaveReason};
use crate::signal::message::Shown;
use crate::signal::numbers::PeerNumbers;

/// How many rooms there may be and how full, and who makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomOptions {
    /// Most rooms at once. A join that would make one more is refused with `too-many-rooms`.
    pub max_rooms: usize,
    /// Most participants in one room. One more is refused with `room-full`.
    pub max_participants: usize,
    /// Whether joining a room that does not exist makes it; if not, the join is refused with
    /// `no-such-room`.
    pub auto_create: bool,
    /// How long a room that was made through the API is kept while nobody is in it.
    pub idle_timeout: Duration,
    /// What one client address may hold.
    pub per_address: addresses::Options,
}

impl Default for RoomOptions {
    fn default() -> Self {
        Self {
            max_rooms: 1000,
            max_participants: 100,
            auto_create: true,
            idle_timeout: Duration::from_secs(3600),
            per_address: addresses::Options::default(),
        }
    }
}

/// One WebSocket, unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u64);

/// A peer in a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its name.
    pub peer: PeerId,
    /// Where it is reached.
    pub socket: SocketId,
    /// Where it comes from.
    pub network: Network,
    /// Who it is. A room has one member of an identity at a time.
    pub identity: Option<String>,
    /// Whether a token says so, and not only itself.
    pub is_verified: bool,
    /// What it calls itself.
    pub name: Option<String>,
    /// What it tells everyone about itself.
    pub metadata: Option<Value>,
    /// Whether the others do not learn of it.
    pub is_hidden: bool,
    /// Whether it encrypts its media end to end.
    pub is_encrypted: bool,
    /// What it publishes, in the order of publication.
    pub tracks: Vec<MemberTrack>,
}

/// A track a member publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberTrack {
    /// The track.
    pub info: TrackInfo,
    /// Who says that it is muted, if anyone does.
    pub muted: Option<MutedBy>,
}

/// Who has muted a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MutedBy {
    /// Its publisher, which has stopped sending by itself.
    Publisher,
    /// An administrator: the track is not forwarded, and only an administrator unmutes it.
    Admin,
}

/// Why a peer may not enter a room, or a room may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEntry {
    /// The room does not exist and joining does not make it.
    #[error("there is no such room")]
    NoSuchRoom,
    /// The room is full.
    #[error("the room is full: it has {0} participants")]
    RoomFull(usize),
    /// The server has as many rooms as it may have.
    #[error("the server has {0} rooms and takes no more")]
    TooManyRooms(usize),
    /// The server takes no new rooms any more.
    #[error("the server is about to stop and takes no new rooms; another one may")]
    Draining,
    /// The shard that the peer would come to has too much to do already.
    #[error("the server has more to do than it can take; try again in a moment")]
    Overloaded,
    /// The room that is to be made is there.
    #[error("there is a room of this name already")]
    RoomExists,
    /// The client's address has used up its share.
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// A room to be made before anyone joins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoom {
    /// What it is called; drawn when left out.
    pub id: Option<RoomId>,
    /// What people call it.
    pub name: Option<String>,
    /// Most participants; [`RoomOptions::max_participants`] when left out, and never more.
    pub max_participants: Option<usize>,
}

/// All rooms of all shards.
#[derive(Debug)]
pub struct Directory {
    options: RoomOptions,
    shards: Vec<Load>,
    rooms: BTreeMap<RoomId, Room>,
    /// The room of every peer that is in one.
    peers: HashMap<PeerId, RoomId>,
    addresses: Addresses,
    numbers: PeerNumbers,
    happenings: VecDeque<Happening>,
    is_draining: bool,
    is_out_of_memory: bool,
}

/// What a shard carries, as far as the directory knows.
#[derive(Debug)]
struct Load {
    shard: ShardId,
    peers: usize,
    rooms: usize,
    /// Whether it has too much to do to take anyone in.
    is_overloaded: bool,
}

/// A room.
#[derive(Debug)]
pub struct Room {
    /// Index in [`Directory::shards`].
    home: usize,
    /// In the order they came; empty only in a room that was made through the API.
    members: Vec<Member>,
    /// What people call it.
    pub name: Option<String>,
    /// Most participants.
    pub max_participants: usize,
    /// When it was made.
    pub since: Instant,
    /// How many have entered it so far.
    pub joins: u64,
    /// The recording of it that goes on.
    pub recording: Option<RecordingId>,
    /// Who made it.
    maker: Network,
    /// Whether it was made through the API, and so outlives its members.
    is_kept: bool,
    /// Since when nobody has been in it, as far as was looked.
    empty_since: Option<Instant>,
}

impl Room {
    /// Everyone in it, in the order they came.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }
}

impl Directory {
    /// A directory with no rooms.
    ///
    /// # Panics
    ///
    /// When there is no shard.
    #[must_use]
    pub fn new(options: RoomOptions, shards: &[ShardId]) -> Self {
        assert!(!shards.is_empty(), "a server has at least one shard");
        let load = |&shard| Load {
            shard,
            peers: 0,
            rooms: 0,
            is_overloaded: false,
        };
        Self {
            addresses: Addresses::new(options.per_address.clone()),
            options,
            shards: shards.iter().map(load).collect(),
            rooms: BTreeMap::new(),
            peers: HashMap::new(),
            numbers: PeerNumbers::default(),
            happenings: VecDeque::new(),
            is_draining: false,
            is_out_of_memory: false,
        }
    }

    /// A name that no peer in any room has, and that nobody can guess.
    pub fn draw_peer(&mut self) -> PeerId {
        loop {
            let peer = self.numbers.draw();
            if !self.peers.contains_key(&peer) {
                return peer;
            }
        }
    }

    /// Puts a peer into a room, and says which shard the room lives on: the least loaded one
    /// when the peer is the room's first.
    ///
    /// # Errors
    ///
    /// [`NoEntry`] says which limit is reached.
    ///
    /// # Panics
    ///
    /// When the peer is in a room already.
    pub fn enter(
        &mut self,
        now: Instant,
        room: RoomId,
        member: Member,
    ) -> Result<ShardId, NoEntry> {
        assert!(
            !self.peers.contains_key(&member.peer),
            "a peer leaves one room before it enters another"
        );
        match self.rooms.get(&room) {
            Some(found) if found.members.len() >= found.max_participants => {
                return Err(NoEntry::RoomFull(found.members.len()));
            }
            Some(found) if self.is_out_of_memory || self.shards[found.home].is_overloaded => {
                return Err(NoEntry::Overloaded);
            }
            None if !self.options.auto_create => return Err(NoEntry::NoSuchRoom),
            _ => self.addresses.add_participant(now, member.network)?,
        }
        if !self.rooms.contains_key(&room)
            && let Err(no) = self.open(now, &room, member.network)
        {
            self.addresses.remove_participant(member.network);
            return Err(no);
        }
        let entered = self.rooms.get_mut(&room).expect("it was found or made");
        entered.joins += 1;
        entered.empty_since = None;
        let load = &mut self.shards[entered.home];
        load.peers += 1;
        self.peers.insert(member.peer, room.clone());
        self.happenings.push_back(Happening::ParticipantJoined {
            room_id: Shown(room),
            participant_id: Shown(member.peer),
            user_id: member.identity.clone(),
            name: member.name.clone(),
        });
        entered.members.push(member);
        Ok(load.shard)
    }

    fn open(&mut self, now: Instant, id: &RoomId, maker: Network) -> Result<&mut Room, NoEntry> {
        if let Some(no) = self.closed() {
            return Err(no);
        }
        if self.rooms.len() >= self.options.max_rooms {
            return Err(NoEntry::TooManyRooms(self.rooms.len()));
        }
        self.addresses.add_room(now, maker)?;
        let (home, load) = self
            .shards
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, load)| (load.is_overloaded, load.peers, load.rooms))
            .expect("there is at least one shard");
        load.rooms += 1;
        let room_id = Shown(id.clone());
        self.happenings
            .push_back(Happening::RoomStarted { room_id });
        Ok(self.rooms.entry(id.clone()).or_insert(Room {
            home,
            members: Vec::new(),
            name: None,
            max_participants: self.options.max_participants,
            since: now,
            joins: 0,
            recording: None,
            maker,
            is_kept: false,
            empty_since: None,
        }))
    }

    /// Takes a peer out of its room; the last one takes the room with it, unless it was made
    /// through the API. `None` when it is in none.
    pub fn leave(&mut self, peer: PeerId, reason: LeaveReason) -> Option<Member> {
        let id = self.peers.remove(&peer)?;
        let room = self.rooms.get_mut(&id).expect("a peer's room exists");
        let place = room.members.iter().position(|member| member.peer == peer);
        let gone = room.members.remove(place.expect("a peer is in its room"));
        self.shards[room.home].peers -= 1;
        self.addresses.remove_participant(gone.network);
        let is_over = room.members.is_empty() && !room.is_kept;
        let tracks = gone.tracks.iter().map(|track| track.info.id);
        let unpublished = tracks.map(|track| Happening::unpublished(id.clone(), track));
        self.happenings.extend(unpublished);
        self.happenings.push_back(Happening::ParticipantLeft {
            room_id: Shown(id.clone()),
            participant_id: Shown(peer),
            user_id: gone.identity.clone(),
            reason,
        });
        if is_over {
            self.forget(&id, reason.into());
        }
        Some(gone)
    }

    /// Takes a room away as soon as nobody is in it. `false` when there is no such room.
    pub fn close(&mut self, id: &RoomId) -> bool {
        let Some(room) = self.rooms.get_mut(id) else {
            return false;
        };
        room.is_kept = false;
        if room.members.is_empty() {
            self.forget(id, FinishReason::Deleted);
        }
        true
    }

    /// Takes away the rooms that were made through the API and have been empty for too long.
    /// To be called about once a second.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.addresses.handle_timeout(now);
        let mut idle = Vec::new();
        for (id, room) in &mut self.rooms {
            if room.members.is_empty() {
                let since = *room.empty_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= self.options.idle_timeout {
                    idle.push(id.clone());
                }
            }
        }
        for id in idle {
            self.forget(&id, FinishReason::Idle);
        }
    }

    fn forget(&mut self, id: &RoomId, reason: FinishReason) {
        let Some(room) = self.rooms.remove(id) else {
            return;
        };
        self.shards[room.home].rooms -= 1;
        self.addresses.remove_room(room.maker);
        let room_id = Shown(id.clone());
        self.happenings
            .push_back(Happening::RoomFinished { room_id, reason });
    }

    /// From here on a peer is reached at another socket.
    pub fn reach(&mut self, peer: PeerId, socket: SocketId) {
        if let Some(member) = self.member_mut(peer) {
            member.socket = socket;
        }
    }

    fn member_mut(&mut self, peer: PeerId) -> Option<&mut Member> {
        let room = self.rooms.get_mut(self.peers.get(&peer)?)?;
        room.members.iter_mut().find(|member| member.peer == peer)
    }

    /// What has happened and nobody has looked at, oldest first.
    pub fn poll_happening(&mut self) -> Option<Happening> {
        self.happenings.pop_front()
    }

    /// What client addresses hold.
    pub fn addresses_mut(&mut self) -> &mut Addresses {
        &mut self.addresses
    }

    /// A room.
    #[must_use]
    pub fn room(&self, room: &RoomId) -> Option<&Room> {
        self.rooms.get(room)
    }

    /// The rooms after `after`, in the order of their names.
    pub fn rooms_after(&self, after: Option<&RoomId>) -> impl Iterator<Item = (&RoomId, &Room)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.rooms.range((from, Bound::Unbounded))
    }

    /// The shard that owns a room.
    #[must_use]
    pub fn shard(&self, room: &RoomId) -> Option<ShardId> {
        let room = self.rooms.get(room)?;
        Some(self.shards[room.home].shard)
    }

    /// Everyone in a room, in the order they came; nobody when there is no such room.
    #[must_use]
    pub fn members(&self, room: &RoomId) -> &[Member] {
        self.rooms.get(room).map_or(&[], Room::members)
    }

    /// The member of a room with this identity.
    #[must_use]
    pub fn member_of_identity(&self, room: &RoomId, identity: &str) -> Option<&Member> {
        let mut members = self.members(room).iter();
        members.find(|member| member.identity.as_deref() == Some(identity))
    }

    /// A peer that is in a room.
    #[must_use]
    pub fn member(&self, peer: PeerId) -> Option<&Member> {
        let room = self.peers.get(&peer)?;
        self.members(room).iter().find(|member| member.peer == peer)
    }

    /// The room a peer is in.
    #[must_use]
    pub fn room_of(&self, peer: PeerId) -> Option<&RoomId> {
        self.peers.get(&peer)
    }

    /// How many rooms there are.
    #[must_use]
    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// How many peers are in rooms.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// What rooms may be.
    #[must_use]
    pub fn options(&self) -> &RoomOptions {
        &self.options
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::command::{Kind, Source};
    use crate::id::TrackId;
    use crate::signal::clock;

    fn directory(max_rooms: usize, max_participants: usize, shards: u16) -> Directory {
        let options = RoomOptions {
            max_rooms,
            max_participants,
            ..RoomOptions::default()
        };
        let shards: Vec<_> = (0..shards).map(ShardId::new).collect();
        Directory::new(options, &shards)
    }

    fn member(number: u64) -> Member {
        Member {
            peer: PeerId::new(number),
            socket: SocketId(number),
            network: std::net::IpAddr::from([192, 0, 2, 1]).into(),
            identity: None,
            is_verified: false,
            is_hidden: false,
            is_encrypted: false,
            name: None,
            metadata: None,
            tracks: Vec::new(),
        }
    }

    fn room(name: &str) -> RoomId {
        RoomId::parse(name).unwrap()
    }

    #[test]
    fn a_room_is_made_on_the_least_loaded_shard_and_stays_there() {
        let mut directory = directory(10, 10, 3);
        let a = directory.enter(clock(), room("a"), member(1)).unwrap();
        let b = directory.enter(clock(), room("b"), member(2)).unwrap();
        let c = directory.enter(clock(), room("c"), member(3)).unwrap();
        assert!(a != b && b != c && a != c);
        assert_eq!(directory.enter(clock(), room("a"), member(4)), Ok(a));
        assert_eq!(directory.enter(clock(), room("a"), member(5)), Ok(a));
        assert_ne!(directory.enter(clock(), room("d"), member(6)), Ok(a));
        directory.leave(PeerId::new(3), LeaveReason::Left);
        assert_eq!(directory.enter(clock(), room("e"), member(7)), Ok(c));
    }

    #[test]
    fn each_limit_has_its_refusal() {
        let mut directory = directory(2, 2, 1);
        directory.enter(clock(), room("a"), member(1)).unwrap();
        directory.enter(clock(), room("a"), member(2)).unwrap();
        let refused = directory.enter(clock(), room("a"), member(3));
        assert_eq!(refused, Err(NoEntry::RoomFull(2)));
        directory.enter(clock(), room("b"), member(3)).unwrap();
        let refused = directory.enter(clock(), room("c"), member(4));
        assert_eq!(refused, Err(NoEntry::TooManyRooms(2)));
        directory.options.auto_create = false;
        let refused = directory.enter(clock(), room("c"), member(4));
        assert_eq!(refused, Err(NoEntry::NoSuchRoom));
        directory.leave(PeerId::new(1), LeaveReason::Left);
        assert!(directory.enter(clock(), room("a"), member(4)).is_ok());
    }

    #[test]
    fn a_track_is_known_until_it_is_unpublished_or_its_peer_leaves() {
        let mut directory = directory(1, 2, 1);
        let peer = PeerId::new(1);
        let info = |number| TrackInfo {
            id: TrackId { peer, number },
            kind: Kind::Audio,
            source: Source::Microphone,
        };
        assert!(!directory.publish(info(0)));
        directory.enter(clock(), room("a"), member(1)).unwrap();
        assert!(directory.publish(info(0)));
        assert!(directory.publish(info(1)));
        directory.track_mut(info(1).id).unwrap().muted = Some(MutedBy::Publisher);
        assert!(directory.unpublish(info(0).id));
        assert!(!directory.unpublish(info(0).id));
        assert_eq!(directory.track_mut(info(0).id), None);
        let track = MemberTrack {
            info: info(1),
            muted: Some(MutedBy::Publisher),
        };
        assert_eq!(directory.member(peer).unwrap().tracks, [track]);
        directory.leave(peer, LeaveReason::Left);
        assert!(!directory.unpublish(info(1).id));
    }

    #[test]
    fn a_room_made_through_the_api_outlives_its_members_but_not_for_ever() {
        let mut directory = directory(9, 9, 1);
        let now = clock();
        let new = NewRoom {
            id: None,
            name: Some("Daily".to_owned()),
            max_participants: Some(1),
        };
        let maker = member(1).network;
        let id = directory.create(now, new.clone(), maker).unwrap();
        let same = NewRoom {
            id: Some(id.clone()),
            ..new
        };
        let again = directory.create(now, same, maker);
        assert_eq!(again, Err(NoEntry::RoomExists));
        directory.enter(now, id.clone(), member(1)).unwrap();
        let refused = directory.enter(now, id.clone(), member(2));
        assert_eq!(refused, Err(NoEntry::RoomFull(1)));
        let idle = directory.options().idle_timeout;
        directory.handle_timeout(now + idle * 2);
        assert_eq!(directory.room_count(), 1, "somebody is in it");
        directory.leave(PeerId::new(1), LeaveReason::Left);
        let empty = now + idle * 3;
        directory.handle_timeout(empty);
        directory.handle_timeout(empty + idle - Duration::from_secs(1));
        assert_eq!(directory.room_count(), 1);
        directory.handle_timeout(empty + idle);
        assert_eq!(directory.room_count(), 0);
        let happened: Vec<_> = std::iter::from_fn(|| directory.poll_happening()).collect();
        let room_id = Shown(id);
        let started = room_id.clone();
        assert_eq!(happened[0], Happening::RoomStarted { room_id: started });
        assert_eq!(happened.len(), 4);
        let reason = FinishReason::Idle;
        assert_eq!(happened[3], Happening::RoomFinished { room_id, reason });
    }

    #[test]
    fn a_deleted_room_goes_with_its_last_member() {
        let mut directory = directory(9, 9, 1);
        let now = clock();
        let id = room("a");
        let new = NewRoom {
            id: Some(id.clone()),
            name: None,
            max_participants: None,
        };
        directory.create(now, new, member(1).network).unwrap();
        directory.enter(now, id.clone(), member(1)).unwrap();
        assert!(directory.close(&id));
        assert_eq!(directory.room_count(), 1);
        directory.leave(PeerId::new(1), LeaveReason::Left);
        assert!(!directory.close(&id));
    }

    #[test]
    fn one_address_cannot_take_all_rooms_nor_all_places() {
        let mut directory = Directory::new(
            RoomOptions {
                per_address: addresses::Options {
                    enabled: true,
                    max_rooms: 1,
                    max_participants: 2,
                    ..addresses::Options::default()
                },
                ..RoomOptions::default()
            },
            &[ShardId::new(0)],
        );
        let now = clock();
        directory.enter(now, room("a"), member(1)).unwrap();
        let refused = directory.enter(now, room("b"), member(2));
        assert_eq!(refused, Err(TooMany::Rooms(1).into()));
        directory.enter(now, room("a"), member(2)).unwrap();
        let refused = directory.enter(now, room("a"), member(3));
        assert_eq!(refused, Err(TooMany::Participants(2).into()));
        directory.leave(PeerId::new(1), LeaveReason::Left);
        directory.enter(now, room("a"), member(3)).unwrap();
    }

    #[test]
    fn drawn_names_differ() {
        let mut directory = directory(1, 1, 1);
        let names: std::collections::HashSet<_> =
            (0..10_000).map(|_| directory.draw_peer()).collect();
        assert_eq!(names.len(), 10_000);
    }

    proptest! {
        #[test]
        fn the_directory_agrees_with_a_plain_list_of_who_is_where(
            steps in prop::collection::vec((0..12u64, 0..5u8, any::<bool>()), 1..200),
        ) {
            let mut directory = directory(3, 4, 2);
            let mut model: BTreeMap<u64, u8> = BTreeMap::new();
            for (number, name, enters) in steps {
                let peer = PeerId::new(number);
                if !enters {
                    directory.leave(peer, LeaveReason::Left);
                    model.remove(&number);
                } else if !model.contains_key(&number) {
                    let there = model.values().filter(|room| **room == name).count();
                    let mut rooms: Vec<_> = model.values().collect();
                    rooms.sort();
                    rooms.dedup();
                    let fits = there < 4 && (there > 0 || rooms.len() < 3);
                    let entered = directory.enter(clock(), room(&name.to_string()), member(number));
                    prop_assert_eq!(entered.is_ok(), fits);
                    if fits {
                        model.insert(number, name);
                    }
                }
                prop_assert_eq!(directory.peer_count(), model.len());
                for name in 0..5u8 {
                    let id = room(&name.to_string());
                    let members = directory.members(&id);
                    let there = model.values().filter(|room| **room == name).count();
                    prop_assert_eq!(members.len(), there);
                    prop_assert_eq!(directory.shard(&id).is_some(), there > 0);
                    for member in members {
                        prop_assert_eq!(directory.room_of(member.peer), Some(&id));
                    }
                }
                let loads: usize = directory.shards.iter().map(|load| load.peers).sum();
                prop_assert_eq!(loads, model.len());
                let rooms: usize = directory.shards.iter().map(|load| load.rooms).sum();
                prop_assert_eq!(rooms, directory.room_count());
            }
        }
    }
}
