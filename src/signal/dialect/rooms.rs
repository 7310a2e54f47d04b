//! Who is in which room: for the dialects that have rooms.

use std::collections::BTreeMap;

use crate::id::RoomId;
use crate::signal::dialect::Refusal;
use crate::signal::dialect::news::News;
use crate::signal::directory::{RoomOptions, SocketId};
use crate::signal::happening::{DialectName, EndReason, Happening};

/// A bounded number of rooms with a bounded number of members each. Empty rooms do not exist.
#[derive(Debug)]
pub struct Rooms {
    max_rooms: usize,
    max_members: usize,
    /// Members in the order they came.
    members: BTreeMap<RoomId, Vec<SocketId>>,
    places: BTreeMap<SocketId, Place>,
    news: News,
}

#[derive(Debug)]
struct Place {
    room: RoomId,
    /// What its member is called there.
    name: Box<str>,
}

impl Rooms {
    /// No rooms.
    #[must_use]
    pub fn new(dialect: DialectName, options: &RoomOptions) -> Self {
        Self {
            max_rooms: options.max_rooms,
            max_members: options.max_participants,
            members: BTreeMap::new(),
            places: BTreeMap::new(),
            news: News::new(dialect),
        }
    }

    /// Whether a socket could enter a room.
    ///
    /// # Errors
    ///
    /// [`Refusal::RoomFull`], [`Refusal::TooManyRooms`].
    pub fn check(&self, socket: SocketId, room: &RoomId) -> Result<(), Refusal> {
        let alone = |left: &Place| self.members[&left.room].len() == 1;
        let frees = usize::from(self.places.get(&socket).is_some_and(alone));
        match self.members.get(room) {
            Some(members) if members.contains(&socket) => Ok(()),
            Some(members) if members.len() >= self.max_members => Err(Refusal::RoomFull),
            None if self.members.len() - frees >= self.max_rooms => Err(Refusal::TooManyRooms),
            _ => Ok(()),
        }
    }

    /// Puts a socket that is in no room into one. Ask [`Rooms::check`] first.
    pub fn enter(&mut self, socket: SocketId, room: RoomId, name: &str) {
        let members = self.members.entry(room.clone()).or_default();
        if members.is_empty() {
            self.news.started(room.as_str());
        }
        members.push(socket);
        self.news.joined(room.as_str(), name);
        let name = name.into();
        let left = self.places.insert(socket, Place { room, name });
        assert!(left.is_none(), "a socket is in one room");
    }

    /// Takes a socket out of its room: the room's name and who is left.
    pub fn leave(&mut self, socket: SocketId) -> Option<(RoomId, Vec<SocketId>)> {
        let Place { room, name } = self.places.remove(&socket)?;
        let members = self.members.get_mut(&room)?;
        members.retain(|member| *member != socket);
        let left = members.clone();
        self.news.left(room.as_str(), &name);
        if left.is_empty() {
            self.members.remove(&room);
            self.news.ended(room.as_str(), EndReason::Empty);
        }
        Some((room, left))
    }

    /// What has happened and nobody has looked at, oldest first.
    pub fn poll_happening(&mut self) -> Option<Happening> {
        self.news.poll()
    }

    /// The room a socket is in.
    #[must_use]
    pub fn room_of(&self, socket: SocketId) -> Option<&RoomId> {
        self.places.get(&socket).map(|place| &place.room)
    }

    /// Who is in a room, in the order they came.
    #[must_use]
    pub fn members(&self, room: &RoomId) -> &[SocketId] {
        self.members.get(room).map_or(&[], Vec::as_slice)
    }

    /// How many rooms there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_bounded_in_number_and_size_and_end_with_their_last_member() {
        let options = RoomOptions {
            max_rooms: 2,
            max_participants: 2,
            ..RoomOptions::default()
        };
        let mut rooms = Rooms::new(DialectName::Mesh, &options);
        let room = |name| RoomId::parse(name).unwrap();
        let mut try_enter = |number, name| {
            let entered = rooms.check(SocketId(number), &room(name));
            if entered.is_ok() {
                rooms.leave(SocketId(number));
                rooms.enter(SocketId(number), room(name), "x");
            }
            entered
        };
        assert_eq!(try_enter(1, "a"), Ok(()));
        assert_eq!(try_enter(2, "a"), Ok(()));
        assert_eq!(try_enter(3, "a"), Err(Refusal::RoomFull));
        assert_eq!(try_enter(3, "b"), Ok(()));
        assert_eq!(try_enter(4, "c"), Err(Refusal::TooManyRooms));
        // Its own room ends as it goes.
        assert_eq!(try_enter(3, "c"), Ok(()));
        assert_eq!(try_enter(1, "a"), Ok(()));
        assert_eq!(rooms.count(), 2);
        assert_eq!(
            rooms.leave(SocketId(1)),
            Some((room("a"), vec![SocketId(2)]))
        );
        assert_eq!(rooms.leave(SocketId(2)), Some((room("a"), Vec::new())));
        assert_eq!(rooms.leave(SocketId(2)), None);
        assert_eq!(rooms.count(), 1);
    }

    #[test]
    fn a_room_is_told_of_from_its_first_member_to_its_last() {
        let mut rooms = Rooms::new(DialectName::Webrtc, &RoomOptions::default());
        let room = RoomId::parse("r").unwrap();
        rooms.enter(SocketId(1), room.clone(), "ann");
        rooms.enter(SocketId(2), room, "bob");
        rooms.leave(SocketId(1));
        rooms.leave(SocketId(2));
        let told = std::iter::from_fn(|| rooms.poll_happening());
        let told: Vec<_> = told.map(|what| format!("{what:?}")).collect();
        let kinds = told.iter().map(|what| what.split(' ').next().unwrap());
        let expected = [
            "CallStarted",
            "CallJoined",
            "CallJoined",
            "CallLeft",
            "CallLeft",
            "CallEnded",
        ];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
        assert!(
            told[3].contains("ann") && told[4].contains("bob"),
            "{told:?}"
        );
    }
}
