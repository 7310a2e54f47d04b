//! Who is where: rooms and their shards, their members and what those publish. Pure.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use serde_json::Value;

use crate::engine::command::TrackInfo;
use crate::id::{PeerId, RoomId, ShardId, TrackId};

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
}

impl Default for RoomOptions {
    fn default() -> Self {
        Self {
            max_rooms: 1000,
            max_participants: 100,
            auto_create: true,
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
    /// What it calls itself.
    pub name: Option<String>,
    /// What it tells everyone about itself.
    pub metadata: Option<Value>,
    /// What it publishes, in the order of publication.
    pub tracks: Vec<MemberTrack>,
}

/// A track a member publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberTrack {
    /// The track.
    pub info: TrackInfo,
    /// Whether its publisher says that it is muted.
    pub muted: bool,
}

/// Why a peer may not enter a room.
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
}

/// All rooms of all shards.
#[derive(Debug)]
pub struct Directory {
    options: RoomOptions,
    shards: Vec<Load>,
    rooms: HashMap<RoomId, Room>,
    /// The room of every peer that is in one.
    peers: HashMap<PeerId, RoomId>,
    numbers: PeerNumbers,
}

/// What a shard carries, as far as the directory knows.
#[derive(Debug)]
struct Load {
    shard: ShardId,
    peers: usize,
    rooms: usize,
}

#[derive(Debug)]
struct Room {
    /// Index in [`Directory::shards`].
    home: usize,
    /// In the order they came; never empty.
    members: Vec<Member>,
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
        };
        Self {
            options,
            shards: shards.iter().map(load).collect(),
            rooms: HashMap::new(),
            peers: HashMap::new(),
            numbers: PeerNumbers::default(),
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
    pub fn enter(&mut self, room: RoomId, member: Member) -> Result<ShardId, NoEntry> {
        assert!(
            !self.peers.contains_key(&member.peer),
            "a peer leaves one room before it enters another"
        );
        if let Some(found) = self.rooms.get(&room) {
            if found.members.len() >= self.options.max_participants {
                return Err(NoEntry::RoomFull(found.members.len()));
            }
        } else {
            if !self.options.auto_create {
                return Err(NoEntry::NoSuchRoom);
            }
            if self.rooms.len() >= self.options.max_rooms {
                return Err(NoEntry::TooManyRooms(self.rooms.len()));
            }
            self.create(room.clone());
        }
        let entered = self.rooms.get_mut(&room).expect("it was found or made");
        let load = &mut self.shards[entered.home];
        load.peers += 1;
        self.peers.insert(member.peer, room);
        entered.members.push(member);
        Ok(load.shard)
    }

    fn create(&mut self, room: RoomId) {
        let (home, load) = self
            .shards
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, load)| (load.peers, load.rooms))
            .expect("there is at least one shard");
        load.rooms += 1;
        let members = Vec::new();
        self.rooms.insert(room, Room { home, members });
    }

    /// Takes a peer out of its room; the last one takes the room with it. Nothing happens when
    /// it is in none.
    pub fn leave(&mut self, peer: PeerId) {
        let Some(id) = self.peers.remove(&peer) else {
            return;
        };
        let room = self.rooms.get_mut(&id).expect("a peer's room exists");
        room.members.retain(|member| member.peer != peer);
        let load = &mut self.shards[room.home];
        load.peers -= 1;
        if room.members.is_empty() {
            load.rooms -= 1;
            self.rooms.remove(&id);
        }
    }

    /// Remembers a track of a peer. `false` when the peer is in no room.
    pub fn publish(&mut self, info: TrackInfo) -> bool {
        let Some(member) = self.member_mut(info.id.peer) else {
            return false;
        };
        member.tracks.retain(|track| track.info.id != info.id);
        member.tracks.push(MemberTrack { info, muted: false });
        true
    }

    /// Forgets a track. `false` when it was not known.
    pub fn unpublish(&mut self, id: TrackId) -> bool {
        let Some(member) = self.member_mut(id.peer) else {
            return false;
        };
        let before = member.tracks.len();
        member.tracks.retain(|track| track.info.id != id);
        member.tracks.len() < before
    }

    /// Remembers whether a track is muted. `false` when the track is not known.
    pub fn set_muted(&mut self, id: TrackId, muted: bool) -> bool {
        let tracks = self.member_mut(id.peer).map(|member| &mut member.tracks);
        let track = tracks
            .into_iter()
            .flatten()
            .find(|track| track.info.id == id);
        let Some(track) = track else {
            return false;
        };
        track.muted = muted;
        true
    }

    fn member_mut(&mut self, peer: PeerId) -> Option<&mut Member> {
        let room = self.rooms.get_mut(self.peers.get(&peer)?)?;
        room.members.iter_mut().find(|member| member.peer == peer)
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
        self.rooms.get(room).map_or(&[], |room| &room.members)
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

/// Draws numbers that cannot be guessed from one another: a counter under SipHash with the
/// operating system's randomness as its key.
#[derive(Debug, Default)]
pub struct PeerNumbers {
    key: RandomState,
    drawn: u64,
}

impl PeerNumbers {
    /// The next one. Two may be equal, as seldom as two of 64 random bits.
    pub fn draw(&mut self) -> PeerId {
        self.drawn += 1;
        PeerId::new(self.key.hash_one(self.drawn))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::command::{Kind, Source};

    fn directory(max_rooms: usize, max_participants: usize, shards: u16) -> Directory {
        let options = RoomOptions {
            max_rooms,
            max_participants,
            auto_create: true,
        };
        let shards: Vec<_> = (0..shards).map(ShardId::new).collect();
        Directory::new(options, &shards)
    }

    fn member(number: u64) -> Member {
        Member {
            peer: PeerId::new(number),
            socket: SocketId(number),
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
        let a = directory.enter(room("a"), member(1)).unwrap();
        let b = directory.enter(room("b"), member(2)).unwrap();
        let c = directory.enter(room("c"), member(3)).unwrap();
        assert!(a != b && b != c && a != c);
        assert_eq!(directory.enter(room("a"), member(4)), Ok(a));
        assert_eq!(directory.enter(room("a"), member(5)), Ok(a));
        assert_ne!(directory.enter(room("d"), member(6)), Ok(a));
        directory.leave(PeerId::new(3));
        assert_eq!(directory.enter(room("e"), member(7)), Ok(c));
    }

    #[test]
    fn each_limit_has_its_refusal() {
        let mut directory = directory(2, 2, 1);
        directory.enter(room("a"), member(1)).unwrap();
        directory.enter(room("a"), member(2)).unwrap();
        let refused = directory.enter(room("a"), member(3));
        assert_eq!(refused, Err(NoEntry::RoomFull(2)));
        directory.enter(room("b"), member(3)).unwrap();
        let refused = directory.enter(room("c"), member(4));
        assert_eq!(refused, Err(NoEntry::TooManyRooms(2)));
        directory.options.auto_create = false;
        let refused = directory.enter(room("c"), member(4));
        assert_eq!(refused, Err(NoEntry::NoSuchRoom));
        directory.leave(PeerId::new(1));
        assert!(directory.enter(room("a"), member(4)).is_ok());
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
        directory.enter(room("a"), member(1)).unwrap();
        assert!(directory.publish(info(0)));
        assert!(directory.publish(info(1)));
        assert!(directory.set_muted(info(1).id, true));
        assert!(directory.unpublish(info(0).id));
        assert!(!directory.unpublish(info(0).id));
        assert!(!directory.set_muted(info(0).id, true));
        let track = MemberTrack {
            info: info(1),
            muted: true,
        };
        assert_eq!(directory.member(peer).unwrap().tracks, [track]);
        directory.leave(peer);
        assert!(!directory.unpublish(info(1).id));
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
                    directory.leave(peer);
                    model.remove(&number);
                } else if !model.contains_key(&number) {
                    let there = model.values().filter(|room| **room == name).count();
                    let mut rooms: Vec<_> = model.values().collect();
                    rooms.sort();
                    rooms.dedup();
                    let fits = there < 4 && (there > 0 || rooms.len() < 3);
                    let entered = directory.enter(room(&name.to_string()), member(number));
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
