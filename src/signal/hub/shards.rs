//! The shards as the hub knows them: their queues, their figures, and who has yet to leave.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::engine::command::{Caps, Command, Spared};
use crate::id::{PeerId, ShardId};
use crate::mailbox::{CommandSender, Histograms, Snapshot, Undelivered};
use crate::signal::figures::Told;
use crate::signal::load::{Load, Window};

/// All shards.
#[derive(Debug)]
pub(super) struct Shards(BTreeMap<ShardId, Shard>);

#[derive(Debug)]
struct Shard {
    commands: CommandSender,
    /// Those who left while the shard's queue was full. While there are any the shard takes no
    /// new peers, so there are never more than it had peers.
    leaving: VecDeque<PeerId>,
    /// What it spares itself, while it could not be told.
    spared: Option<Spared>,
    /// How much may come in, while it could not be told.
    caps: Option<Caps>,
    figures: Box<Snapshot>,
    /// What of them is new.
    recent: Box<Histograms>,
    window: Window,
}

/// A shard that has told nothing for so long has nothing to do: what it measured is old.
const QUIET: Duration = Duration::from_millis(2500);

impl Shards {
    pub(super) fn new(commands: Vec<CommandSender>) -> Self {
        let shard = |commands: CommandSender| {
            let id = commands.shard();
            let shard = Shard {
                commands,
                leaving: VecDeque::new(),
                spared: None,
                caps: None,
                figures: Box::default(),
                recent: Box::default(),
                window: Window::default(),
            };
            (id, shard)
        };
        Self(commands.into_iter().map(shard).collect())
    }

    /// Gives a command to its shard, or gives it back. A leave is kept and tried again.
    pub(super) fn send(&mut self, shard: ShardId, command: Command) -> Result<(), Undelivered> {
        let shard = self
            .0
            .get_mut(&shard)
            .expect("the directory names known shards");
        match command {
            Command::Join { .. } if !shard.leaving.is_empty() => Err(Undelivered(command)),
            Command::Leave { peer } => {
                shard.leaving.push_back(peer);
                shard.tell_rest();
                Ok(())
            }
            command => shard.commands.try_send(command),
        }
    }

    /// Has a shard spare itself this, as soon as its queue has room.
    pub(super) fn spare(&mut self, shard: ShardId, spared: Spared) {
        if let Some(shard) = self.0.get_mut(&shard) {
            shard.spared = Some(spared);
            shard.tell_rest();
        }
    }

    /// Has this much come in from here on, into all of them together.
    pub(super) fn limit(&mut self, caps: Caps) {
        let shards = u16::try_from(self.0.len()).expect("shards are numbered by a u16");
        for shard in self.0.values_mut() {
            shard.caps = Some(caps.shared_by(shards));
            shard.tell_rest();
        }
    }

    /// The way to a shard, for somebody else.
    pub(super) fn sender(&self, shard: ShardId) -> CommandSender {
        let shard = self.0.get(&shard);
        let shard = shard.expect("the directory names known shards");
        shard.commands.clone()
    }

    pub(super) fn handle_snapshot(&mut self, now: Instant, id: ShardId, figures: Box<Snapshot>) {
        if let Some(shard) = self.0.get_mut(&id) {
            *shard.recent = figures.histograms.since(&shard.figures.histograms);
            shard.window.push(now, &figures);
            shard.figures = figures;
        }
    }

    /// How much each has had to do of late.
    pub(super) fn loads(&self, now: Instant) -> Vec<(ShardId, Load)> {
        let load = |(id, shard): (&ShardId, &Shard)| {
            let is_quiet = shard.window.silence(now).is_none_or(|quiet| quiet > QUIET);
            let load = match is_quiet {
                true => Load::default(),
                false => shard.window.load(&shard.recent),
            };
            (*id, load)
        };
        self.0.iter().map(load).collect()
    }

    /// What all of them did a second, of late.
    pub(super) fn windows(&self) -> impl Iterator<Item = &Window> {
        self.0.values().map(|shard| &shard.window)
    }

    /// Whether a shard's queue had no room for what must not be lost.
    pub(super) fn has_more_to_tell(&self) -> bool {
        let is_waiting = |shard: &Shard| {
            !shard.leaving.is_empty() || shard.spared.is_some() || shard.caps.is_some()
        };
        self.0.values().any(is_waiting)
    }

    /// Tries that again.
    pub(super) fn tell_rest(&mut self) {
        for shard in self.0.values_mut() {
            shard.tell_rest();
        }
    }

    /// The latest figures of each.
    pub(super) fn figures(&self) -> impl Iterator<Item = Told<'_>> {
        self.0.iter().map(|(id, shard)| Told {
            shard: *id,
            snapshot: &shard.figures,
            recent: &shard.recent,
        })
    }
}

impl Shard {
    fn tell_rest(&mut self) {
        while let Some(peer) = self.leaving.front() {
            let leave = Command::Leave { peer: *peer };
            if self.commands.try_send(leave).is_err() {
                return;
            }
            self.leaving.pop_front();
        }
        let commands = &self.commands;
        let is_told = |command| commands.try_send(command).is_ok();
        self.spared
            .take_if(|spared| is_told(Command::Spare(*spared)));
        self.caps.take_if(|caps| is_told(Command::Limit(*caps)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::Permissions;
    use crate::id::RoomId;
    use crate::mailbox::{self, COMMAND_QUEUE, Waker};

    #[test]
    fn those_who_leave_go_before_those_who_come() {
        let id = ShardId::new(0);
        let (commands, shard) = mailbox::commands(id, Waker::new(|| {}));
        let mut shards = Shards::new(vec![commands]);
        let join = |number| Command::Join {
            room: RoomId::parse("r").unwrap(),
            peer: PeerId::new(number),
            permissions: Permissions::ALL,
        };
        for number in 0..COMMAND_QUEUE as u64 {
            shards.send(id, join(number)).unwrap();
        }
        let peer = PeerId::new(0);
        shards.send(id, Command::Leave { peer }).unwrap();
        for _ in 0..10 {
            shard.recv().unwrap();
        }
        assert!(shards.send(id, join(9999)).is_err());
        assert!(shards.has_more_to_tell());
        shards.tell_rest();
        shards.send(id, join(9999)).unwrap();
        let last: Vec<_> = shard.try_iter().collect();
        let expected = [Command::Leave { peer }, join(9999)];
        assert_eq!(last[last.len() - 2..], expected);
    }

    #[test]
    fn a_shard_with_a_full_queue_is_told_its_latest_settings_when_there_is_room() {
        let id = ShardId::new(0);
        let (commands, shard) = mailbox::commands(id, Waker::new(|| {}));
        let mut shards = Shards::new(vec![commands]);
        let peer = PeerId::new(0);
        for _ in 0..COMMAND_QUEUE {
            shards.send(id, Command::Leave { peer }).unwrap();
        }
        let spared = |videos| Spared {
            top_layers: true,
            videos,
        };
        shards.spare(id, spared(None));
        shards.spare(id, spared(Some(4)));
        shards.limit(Caps::NONE);
        assert!(shards.has_more_to_tell());
        assert_eq!(shard.try_iter().count(), COMMAND_QUEUE);
        shards.tell_rest();
        assert!(!shards.has_more_to_tell());
        let told: Vec<_> = shard.try_iter().collect();
        let expected = [Command::Spare(spared(Some(4))), Command::Limit(Caps::NONE)];
        assert_eq!(told, expected);
    }
}
