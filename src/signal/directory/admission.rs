//! Whether anyone is taken in at all, and rooms that are made before anyone comes.

use std::time::Instant;

use super::{Directory, NewRoom, NoEntry, RoomOptions};
use crate::id::{RoomId, ShardId};
use crate::signal::addresses::Network;

impl Directory {
    /// From here on rooms are made, or not.
    pub fn set_draining(&mut self, is_draining: bool) {
        self.is_draining = is_draining;
    }

    /// Whether nobody is taken in for want of memory.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }

    /// From here on nobody is taken in, or everybody.
    pub fn set_out_of_memory(&mut self, is_out_of_memory: bool) {
        self.is_out_of_memory = is_out_of_memory;
    }

    /// From here on a shard takes peers in, or not.
    pub fn set_overloaded(&mut self, shard: ShardId, is_overloaded: bool) {
        let mut loads = self.shards.iter_mut();
        if let Some(load) = loads.find(|load| load.shard == shard) {
            load.is_overloaded = is_overloaded;
        }
    }

    /// From here on these limits hold, for those who come.
    pub fn set_options(&mut self, options: RoomOptions) {
        self.addresses.set_options(options.per_address.clone());
        self.options = options;
    }

    /// Why nobody who would make a room is taken in, if so.
    #[must_use]
    pub fn closed(&self) -> Option<NoEntry> {
        if self.is_draining {
            return Some(NoEntry::Draining);
        }
        let is_overloaded = self.shards.iter().all(|load| load.is_overloaded);
        (is_overloaded || self.is_out_of_memory).then_some(NoEntry::Overloaded)
    }

    /// Makes a room that is kept while nobody is in it.
    ///
    /// # Errors
    ///
    /// [`NoEntry`] says which limit is reached.
    pub fn create(
        &mut self,
        now: Instant,
        new: NewRoom,
        maker: Network,
    ) -> Result<RoomId, NoEntry> {
        let id = new.id.unwrap_or_else(|| self.draw_room());
        if self.rooms.contains_key(&id) {
            return Err(NoEntry::RoomExists);
        }
        let room = self.open(now, &id, maker)?;
        room.is_kept = true;
        room.name = new.name;
        let most = room.max_participants;
        room.max_participants = new.max_participants.unwrap_or(most).min(most);
        Ok(id)
    }

    fn draw_room(&mut self) -> RoomId {
        let name = format!("room-{:016x}", self.numbers.draw_number());
        RoomId::parse(&name).expect("letters, digits and a dash")
    }
}
