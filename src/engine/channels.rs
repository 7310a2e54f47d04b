//! Data channels: what a peer sends on its channel of a label goes to everyone else in its room,
//! each on their channel of that label. Where a peer has none, the server opens one like it with
//! the first message: not before, so that a client that is about to open its own comes first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::RtcError;
use str0m::channel::{ChannelConfig, ChannelData, ChannelId, Reliability};

use super::Engine;
use super::arena::Key;
use super::command::Event;
use super::limits::{CHANNEL_LABEL_BYTES, CHANNEL_WAITING_BYTES, PEER_CHANNELS};
use super::peer::Peer;
use super::room::Room;

/// How long a message waits for a peer that reads slowly, on a channel that may lose messages.
const UNRELIABLE_AGE: Duration = Duration::from_secs(1);

/// And on one that may not: by then the peer has been told of congestion for long.
const RELIABLE_AGE: Duration = Duration::from_secs(30);

/// How often what waits is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// How often a peer is told what it lost.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// The data channels of one peer.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    list: Vec<Channel>,
    /// Bytes that wait, of all.
    waiting_bytes: usize,
    retry_at: Option<Instant>,
    /// Messages lost since the peer was last told.
    lost: u32,
    told_at: Option<Instant>,
}

#[derive(Debug)]
struct Channel {
    id: ChannelId,
    config: ChannelConfig,
    /// Its client opened it; else the server did.
    is_theirs: bool,
    /// Both ends have it.
    is_open: bool,
    waiting: VecDeque<Message>,
}

/// One message on its way to one peer.
#[derive(Debug, Clone)]
struct Message {
    since: Instant,
    /// Binary, not text.
    is_binary: bool,
    data: Arc<[u8]>,
}

impl Channel {
    fn is_reliable(&self) -> bool {
        self.config.reliability == Reliability::Reliable
    }

    fn age(&self) -> Duration {
        if self.is_reliable() {
            RELIABLE_AGE
        } else {
            UNRELIABLE_AGE
        }
    }
}

impl Channels {
    /// When what waits is to be tried again.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        self.retry_at
    }

    /// What its client opened.
    fn theirs(&self) -> impl Iterator<Item = &ChannelConfig> {
        let theirs = self.list.iter().filter(|channel| channel.is_theirs);
        theirs.map(|channel| &channel.config)
    }

    fn of_label(&mut self, label: &str) -> Option<&mut Channel> {
        self.list
            .iter_mut()
            .find(|channel| channel.config.label == label)
    }

    /// Lets a message wait. Past the limit those go first that may be lost, the oldest first; if
    /// there is none of them, this one.
    fn hold(&mut self, label: &str, message: Message) {
        while self.waiting_bytes + message.data.len() > CHANNEL_WAITING_BYTES {
            let mut unreliable = self.list.iter_mut().filter(|c| !c.is_reliable());
            let Some(lost) = unreliable.find_map(|channel| channel.waiting.pop_front()) else {
                self.lost = self.lost.saturating_add(1);
                return;
            };
            self.waiting_bytes -= lost.data.len();
            self.lost = self.lost.saturating_add(1);
        }
        let bytes = message.data.len();
        if let Some(channel) = self.of_label(label) {
            channel.waiting.push_back(message);
            self.waiting_bytes += bytes;
        }
    }

    /// Takes the messages away that have waited too long.
    fn expire(&mut self, now: Instant) {
        for channel in &mut self.list {
            let age = channel.age();
            while let Some(message) = channel.waiting.front() {
                if now.saturating_duration_since(message.since) < age {
                    break;
                }
                self.waiting_bytes -= message.data.len();
                self.lost = self.lost.saturating_add(1);
                channel.waiting.pop_front();
            }
        }
    }

    /// How many messages the peer is to be told it lost.
    fn take_lost(&mut self, now: Instant) -> Option<u32> {
        let is_quiet = self
            .told_at
            .is_none_or(|at| now.saturating_duration_since(at) >= TELL_INTERVAL);
        if self.lost == 0 || !is_quiet {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.lost))
    }

    fn remove(&mut self, id: ChannelId) -> Option<Channel> {
        let place = self.list.iter().position(|channel| channel.id == id)?;
        let channel = self.list.swap_remove(place);
        let bytes: usize = channel.waiting.iter().map(|m| m.data.len()).sum();
        self.waiting_bytes -= bytes;
        Some(channel)
    }
}

impl Peer {
    /// A channel is open at both ends: one of ours, or one that the client opened.
    fn channel_opened(&mut self, id: ChannelId, label: &str) -> Result<(), RtcError> {
        if let Some(ours) = self.channels.list.iter_mut().find(|c| c.id == id) {
            ours.is_open = true;
            return Ok(());
        }
        let config = self.rtc.channel(id).and_then(|c| c.config().cloned());
        let is_full = self.channels.list.len() >= PEER_CHANNELS;
        let (Some(config), false) = (config, is_full || label.len() > CHANNEL_LABEL_BYTES) else {
            return self.close_channel(id);
        };
        let opened = Channel {
            id,
            config,
            is_theirs: true,
            is_open: true,
            waiting: VecDeque::new(),
        };
        match self.channels.of_label(label) {
            Some(known) if known.is_theirs => return self.close_channel(id),
            // The server opened one a moment before: one is enough, and has what waits.
            Some(known) => {
                let waiting = std::mem::take(&mut known.waiting);
                let ours = std::mem::replace(known, Channel { waiting, ..opened });
                return self.close_channel(ours.id);
            }
            None => self.channels.list.push(opened),
        }
        Ok(())
    }

    fn close_channel(&mut self, id: ChannelId) -> Result<(), RtcError> {
        self.channels.remove(id);
        self.mutate(|rtc| {
            rtc.direct_api().close_data_channel(id);
            Ok(())
        })
    }

    /// Opens a channel like somebody else's, unless there is one of its label, or none can be.
    fn open_channel(&mut self, like: &ChannelConfig) -> Result<(), RtcError> {
        let is_full = self.channels.list.len() >= PEER_CHANNELS;
        if !self.offers_data || is_full || self.channels.of_label(&like.label).is_some() {
            return Ok(());
        }
        let config = ChannelConfig {
            negotiated: None,
            ..like.clone()
        };
        let id = self.mutate(|rtc| Ok(rtc.direct_api().create_data_channel(config.clone())))?;
        self.channels.list.push(Channel {
            id,
            config,
            is_theirs: false,
            is_open: false,
            waiting: VecDeque::new(),
        });
        Ok(())
    }

    /// Sends what waits as far as there is room, and forgets what has waited too long.
    pub(crate) fn flush_channels(&mut self, now: Instant) -> Result<(), RtcError> {
        self.channels.expire(now);
        for index in 0..self.channels.list.len() {
            while let Some((id, message)) = next_of(&self.channels.list[index]) {
                let write = |rtc: &mut str0m::Rtc| {
                    let channel = rtc.channel(id);
                    // One that just closed says so next: what waits goes with it.
                    Ok(channel.is_some_and(|mut channel| {
                        matches!(channel.write(message.is_binary, &message.data), Ok(true))
                    }))
                };
                if !self.mutate(write)? {
                    break;
                }
                self.channels.waiting_bytes -= message.data.len();
                self.channels.list[index].waiting.pop_front();
            }
        }
        let channels = &mut self.channels;
        let untold = (channels.lost > 0).then(|| now + TELL_INTERVAL);
        channels.retry_at = (channels.waiting_bytes > 0).then(|| now + RETRY).or(untold);
        Ok(())
    }
}

/// What an open channel sends next.
fn next_of(channel: &Channel) -> Option<(ChannelId, Message)> {
    let message = channel.waiting.front().filter(|_| channel.is_open)?;
    Some((channel.id, message.clone()))
}

impl Engine {
    /// A channel of a peer is open at both ends: what waited for that can leave.
    pub(super) fn channel_opened(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        id: ChannelId,
        label: &str,
    ) {
        self.with_peer(key, |peer, _| {
            peer.channel_opened(id, label)?;
            peer.flush_channels(now)
        });
    }

    /// Passes a message on to everyone else in the room.
    pub(super) fn relay_data(&mut self, now: Instant, key: Key<Peer>, message: &ChannelData) {
        let Some(peer) = self.peers.get(key) else {
            return;
        };
        let channel = peer.channels.list.iter().find(|c| c.id == message.id);
        let Some(like) = channel.map(|channel| channel.config.clone()) else {
            return;
        };
        if !self.permissions_of(key).data {
            self.stats.data_refused += 1;
            return;
        }
        self.stats.data_in += 1;
        let data: Arc<[u8]> = message.data.as_slice().into();
        for other in self.others_of(key) {
            let message = Message {
                since: now,
                is_binary: message.binary,
                data: Arc::clone(&data),
            };
            let held = self.with_peer(other, |peer, _| {
                peer.open_channel(&like)?;
                peer.channels.hold(&like.label, message);
                peer.flush_channels(now)
            });
            self.stats.data_out += u64::from(held.is_some());
            self.tell_lost(now, other);
        }
    }

    /// Tells a peer what was lost of the messages to it.
    pub(super) fn tell_lost(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if let Some(messages) = peer.channels.take_lost(now) {
            let peer = peer.id;
            self.stats.data_lost += u64::from(messages);
            self.tell(Event::DataLost { peer, messages });
        }
    }

    /// A channel of a peer is closed.
    pub(super) fn channel_closed(&mut self, key: Key<Peer>, id: ChannelId) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let room = peer.room;
        if peer.channels.remove(id).is_some_and(|c| c.is_theirs) {
            self.close_orphans(room);
        }
    }

    /// Closes the server's channels of labels of which no client has one any more.
    pub(super) fn close_orphans(&mut self, room: Key<Room>) {
        let Some(room) = self.rooms.get(room) else {
            return;
        };
        let members = room.peers.clone();
        let peers = members.iter().filter_map(|key| self.peers.get(*key));
        let labels: Vec<String> = peers
            .flat_map(|peer| peer.channels.theirs().map(|c| c.label.clone()))
            .collect();
        for key in members {
            let Some(peer) = self.peers.get(key) else {
                continue;
            };
            let is_orphan = |c: &&Channel| !c.is_theirs && !labels.contains(&c.config.label);
            let orphans: Vec<_> = peer
                .channels
                .list
                .iter()
                .filter(is_orphan)
                .map(|c| c.id)
                .collect();
            for id in orphans {
                self.with_peer(key, |peer, _| peer.close_channel(id));
            }
        }
    }

    /// Everyone in a peer's room but the peer.
    fn others_of(&self, key: Key<Peer>) -> Vec<Key<Peer>> {
        let room = self
            .peers
            .get(key)
            .and_then(|peer| self.rooms.get(peer.room));
        let members = room.map(|room| room.peers.iter().copied().filter(|other| *other != key));
        members.into_iter().flatten().collect()
    }
}
