//! What passes between clients and engines: datagrams over links, commands and events over
//! signalling, hand-overs between shards.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::client;
use super::trace::{Class, Fact, Who};
use super::world::{Steering, World};
use crate::engine::command::{Command, Event, PeerFigures, Slot};
use crate::engine::{Arrival, Datagram, Handoff, Output};
use crate::id::{PeerId, ShardId};

/// Signalling takes this long one way.
pub(super) const SIGNALLING_DELAY: Duration = Duration::from_millis(5);
/// A hand-over between shards takes this long.
const HANDOFF_DELAY: Duration = Duration::from_micros(20);

/// Something on its way.
#[derive(Debug)]
pub(super) enum Delivery {
    ToServer {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    ToClient {
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Command {
        shard: usize,
        command: Command,
    },
    Event {
        client: usize,
        event: Event,
    },
    Handoff {
        to: usize,
        from: ShardId,
        handoff: Handoff,
    },
}

impl World {
    /// Something arrives.
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::ToServer { from, bytes } => {
                let index = self.steer(from);
                self.note(Who::Shard(index), || arrived(&bytes));
                let shard = &mut self.shards[index];
                shard.traffic.datagrams_in += 1;
                shard.traffic.rtp_in += u64::from(Class::of(&bytes) == Class::Rtp);
                shard.touched = true;
                let datagram = Datagram {
                    from,
                    to: self.server,
                    bytes: &bytes,
                    arrival: Arrival::Socket,
                };
                shard.engine.handle_datagram(self.now, datagram);
            }
            Delivery::ToClient { to, bytes } => {
                let Some(index) = self.addresses.get(&to).copied() else {
                    return;
                };
                self.note(Who::Client(index), || arrived(&bytes));
                if let Some(seat) = &mut self.seats[index] {
                    seat.client.handle_datagram(self.now, self.server, &bytes);
                }
            }
            Delivery::Command { shard, command } => {
                let shard = &mut self.shards[shard];
                shard.engine.handle_command(self.now, command);
                shard.touched = true;
            }
            Delivery::Event { client, event } => {
                if let Some(seat) = &mut self.seats[client] {
                    seat.client.handle_event(self.now, event);
                }
            }
            Delivery::Handoff { to, from, handoff } => {
                let shard = &mut self.shards[to];
                shard.traffic.handed_in += u64::from(matches!(handoff, Handoff::Datagram { .. }));
                shard.engine.handle_handoff(self.now, from, handoff);
                shard.touched = true;
            }
        }
    }

    /// Which shard's socket a datagram of this sender lands on.
    fn steer(&self, from: SocketAddr) -> usize {
        let count = self.shards.len();
        let seat = self
            .addresses
            .get(&from)
            .and_then(|index| self.seats[*index].as_ref());
        let right = seat.map_or(0, |seat| seat.shard);
        match self.setup.steering {
            Steering::Right => right,
            Steering::Wrong => (right + 1) % count,
            Steering::Hash => {
                let IpAddr::V4(ip) = from.ip() else {
                    return 0;
                };
                let sum = ip
                    .octets()
                    .iter()
                    .map(|byte| usize::from(*byte))
                    .sum::<usize>();
                (sum + usize::from(from.port())) / 2 % count
            }
        }
    }

    /// Ends a turn: everything the engine wants done is done.
    pub(super) fn empty_shard(&mut self, index: usize) {
        if !std::mem::take(&mut self.shards[index].touched) {
            return;
        }
        let from = ShardId::new(u16::try_from(index).unwrap());
        let mut transmits: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        loop {
            let engine = &mut self.shards[index].engine;
            let Some(output) = engine.poll_output() else {
                if engine.release() {
                    continue;
                }
                break;
            };
            match output {
                Output::Transmit(transmit) => {
                    transmits.push((transmit.destination, transmit.contents.into()));
                }
                Output::Run(run) => {
                    let datagrams = engine.arena()[run.bytes.clone()].chunks(run.segment);
                    transmits.extend(datagrams.map(|bytes| (run.destination, bytes.to_vec())));
                }
                Output::Event(event) => self.handle_engine_event(index, event),
                Output::Handoff(to, handoff) => {
                    let counted = u64::from(matches!(handoff, Handoff::Datagram { .. }));
                    self.shards[index].traffic.handed_out += counted;
                    self.hand_over(from, to.index(), handoff);
                }
                Output::Learned(address) => self.tell_others(from, &Handoff::Learned(address)),
                Output::Forgotten(address) => self.tell_others(from, &Handoff::Forgotten(address)),
                Output::Copied(_) => panic!("nobody asked for copies"),
                #[cfg(debug_assertions)]
                Output::Keys(..) => {}
            }
        }
        transmits.sort_by_key(|(to, bytes)| (*to, order_key(bytes)));
        for (to, bytes) in transmits {
            self.transmit(index, to, bytes);
        }
    }

    fn tell_others(&mut self, from: ShardId, handoff: &Handoff) {
        for to in (0..self.shards.len()).filter(|to| *to != from.index()) {
            self.hand_over(from, to, handoff.clone());
        }
    }

    fn hand_over(&mut self, from: ShardId, to: usize, handoff: Handoff) {
        assert_ne!(from.index(), to, "a shard hands over to itself");
        let at = self.now + HANDOFF_DELAY;
        self.schedule(at, Delivery::Handoff { to, from, handoff });
    }

    fn transmit(&mut self, index: usize, to: SocketAddr, bytes: Vec<u8>) {
        let traffic = &mut self.shards[index].traffic;
        traffic.datagrams_out += 1;
        traffic.bytes_out += bytes.len() as u64;
        self.note(Who::Shard(index), || sent(&bytes));
        let had = self
            .had
            .get(&to)
            .and_then(|index| self.seats[*index].as_mut());
        if let Some(seat) = had {
            seat.account.handle_datagram(&bytes);
        }
        let Some(index) = self.addresses.get(&to).copied() else {
            return;
        };
        let seat = self.seats[index]
            .as_mut()
            .expect("addresses are of clients that are here");
        for at in seat.down.send(self.now, &bytes).into_iter().flatten() {
            let bytes = bytes.clone();
            self.schedule(at, Delivery::ToClient { to, bytes });
        }
    }

    fn handle_engine_event(&mut self, index: usize, event: Event) {
        self.note(Who::Shard(index), || Fact::Said(summary(&event)));
        let peer = match &event {
            Event::TrackPublished { room, track } => {
                let told = (room.clone(), track.clone());
                let before = self.tracks.insert(track.id, told);
                assert!(before.is_none(), "track {} published twice", track.id);
                return;
            }
            Event::Speakers { room, speakers } => {
                self.speakers.insert(room.clone(), speakers.clone());
                return;
            }
            Event::Warning { .. } => return,
            Event::Sent { peer, tracks } => {
                for (track, layer, reason) in tracks {
                    self.told.insert((*peer, *track), (*layer, *reason));
                }
                return;
            }
            Event::Unwanted {
                track,
                rids,
                spatial_layers,
                ..
            } => {
                self.unwanted.insert(*track, rids.clone());
                self.unwanted_spatial.insert(*track, spatial_layers.clone());
                return;
            }
            Event::Measured { peer, figures } => {
                self.measured.insert(*peer, PeerFigures::clone(figures));
                return;
            }
            Event::TrackUnpublished { .. } | Event::Inspected { .. } => return,
            Event::Closed { peer, reason, .. } => {
                self.closed.push((*peer, *reason));
                return;
            }
            Event::Answer { peer, slots, .. } | Event::Slots { peer, slots } => {
                self.note_slots(*peer, slots);
                *peer
            }
            Event::Refused { peer, .. }
            | Event::NotPublished { peer, .. }
            | Event::DataLost { peer, .. }
            | Event::RequestOffer { peer, .. }
            | Event::Connected { peer } => *peer,
        };
        match self.peers.get(&peer).copied() {
            Some(client) => {
                let at = self.now + SIGNALLING_DELAY;
                self.schedule(at, Delivery::Event { client, event });
            }
            None => self.strays.push(event),
        }
    }

    fn note_slots(&mut self, peer: PeerId, slots: &[Slot]) {
        let time = self.time();
        let index = self.peers.get(&peer).copied();
        let Some(seat) = index.and_then(|index| self.seats[index].as_mut()) else {
            return;
        };
        for slot in slots {
            let told = seat.slots.entry(slot.mid.clone()).or_default();
            if told.last().is_none_or(|(_, track)| *track != slot.track) {
                told.push((time, slot.track.clone()));
            }
        }
    }

    /// Everything the client wants done is done.
    pub(super) fn empty_client(&mut self, index: usize) {
        let Some(seat) = &mut self.seats[index] else {
            return;
        };
        let (outside, shard) = (seat.outside, seat.shard);
        let mut transmits: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        while let Some(output) = self.seats[index]
            .as_mut()
            .and_then(|s| s.client.poll_output())
        {
            match output {
                client::Output::Transmit { to, bytes } => transmits.push((to, bytes)),
                client::Output::Command(command) => {
                    self.note(Who::Client(index), || Fact::Said(asked(&command)));
                    self.command(shard, command);
                }
            }
        }
        transmits.sort_by_key(|(_, bytes)| order_key(bytes));
        for (to, bytes) in transmits {
            self.note(Who::Client(index), || sent(&bytes));
            let Some(seat) = self.seats[index].as_mut().filter(|_| to == self.server) else {
                continue;
            };
            for at in seat.up.send(self.now, &bytes).into_iter().flatten() {
                let (from, bytes) = (outside, bytes.clone());
                self.schedule(at, Delivery::ToServer { from, bytes });
            }
        }
    }
}

/// Where a datagram stands among those that leave for one address at one instant: streams one
/// after the other, each in its own order. str0m keeps streams in a hash map, whose order nobody
/// can seed.
fn order_key(bytes: &[u8]) -> (Class, [u8; 4]) {
    let class = Class::of(bytes);
    let ssrc = bytes.get(8..12).filter(|_| class == Class::Rtp);
    (
        class,
        ssrc.map_or([0; 4], |ssrc| [ssrc[0], ssrc[1], ssrc[2], ssrc[3]]),
    )
}

fn sent(bytes: &[u8]) -> Fact {
    let class = Class::of(bytes);
    Fact::Sent(class, class.length(bytes))
}

fn arrived(bytes: &[u8]) -> Fact {
    let class = Class::of(bytes);
    Fact::Arrived(class, class.length(bytes))
}

fn summary(event: &Event) -> String {
    match event {
        Event::Answer { peer, sdp, slots } => format!("answer {peer} {} {slots:?}", sdp.len()),
        other => format!("{other:?}"),
    }
}

fn asked(command: &Command) -> String {
    match command {
        Command::Offer { peer, sdp, sources } => format!("offer {peer} {} {sources:?}", sdp.len()),
        other => format!("{other:?}"),
    }
}
