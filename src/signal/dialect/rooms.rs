//! Who is in which room: for the dialects that have rooms.

use std::collections::BTreeMap;

use crate::id::RoomId;
use crate::signal::dialect::Refusal;
use crate::signal::directory::{RoomOptions, SocketId};

/// A bounded number of rooms with a bounded number of members each. Empty rooms do not exist.
#[derive(Debug)]
pub struct Rooms {
    max_rooms: usize,
    max_members: usize,
    /// Members in the order they came.
    members: BTreeMap<RoomId, Vec<SocketId>>,
    places: BTreeMap<SocketId, RoomId>,
}

impl Rooms {
    /// No rooms.
    #[must_use]
    pub fn new(options: &RoomOptions) -> Self {
        Self {
            max_rooms: options.max_rooms,
            max_members: options.max_participants,
            members: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// Whether a socket could enter a room.
    ///
    /// # Errors
    ///
    /// [`Refusal::RoomFull`], [`Refusal::TooManyRooms`].
    pub fn check(&self, socket: SocketId, room: &RoomId) -> Result<(), Refusal> {
        let alone = |left: &RoomId| self.members[left].len() == 1;
        let frees = usize::from(self.places.get(&socket).is_some_and(alone));
        match self.members.get(room) {
            Some(members) if members.contains(&socket) => Ok(()),
            Some(members) if members.len() >= self.max_members => Err(Refusal::RoomFull),
            None if self.members.len() - frees >= self.max_rooms => Err(Refusal::TooManyRooms),
            _ => Ok(()),
        }
    }

    /// Puts a socket that is in no room into one. Ask [`Rooms::check`] first.
    pub fn enter(&mut self, socket: SocketId, room: RoomId) {
        self.members.entry(room.clone()).or_default().push(socket);
        let left = self.places.insert(socket, room);
        assert!(left.is_none(), "a socket is in one room");
    }

    /// Takes a socket out of its room: the room's name and who is left.
    pub fn leave(&mut self, socket: SocketId) -> Option<(RoomId, Vec<SocketId>)> {
        let room = self.places.remove(&socket)?;
        let members = self.members.get_mut(&room)?;
        members.retain(|member| *member != socket);
        let left = members.clone();
        if left.is_empty() {
            self.members.remove(&room);
        }
        Some((room, left))
    }

    /// The room a socket is in.
    #[must_use]
    pub fn room_of(&self, socket: SocketId) -> Option<&RoomId> {
        self.places.get(&socket)
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
        let mut rooms = Rooms::new(&RoomOptions {
            max_rooms: 2,
            max_participants: 2,
            ..RoomOptions::default()
        });
        let room = |name| RoomId::parse(name).unwrap();
        let mut try_enter = |number, name| {
            let entered = rooms.check(SocketId(number), &room(name));
            if entered.is_ok() {
                rooms.leave(SocketId(number));
                rooms.enter(SocketId(number), room(name));
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
}
