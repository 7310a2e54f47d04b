//! What leaves for one peer in this turn, and what waits for its pacer.

use std::collections::VecDeque;
use std::time::Instant;

use super::arena::Arena;
use super::command::Kind;
use super::egress::clock::Ntp;
use super::egress::packet::Batch;
use super::limits::WAITING_PACKETS;
use super::peer::{Due, Peer};
use super::stats::{Dropped, Stats};
use super::subscription::Passing;
use super::track::{MediaPacket, Track};

/// Packets that can wait without memory being asked for. Those of most viewers never do.
const KEPT_PLACES: usize = 4;

/// Video that waits until its peer's pacer lets it leave, in order. It gets its numbers when it
/// leaves: what is dropped here leaves no gap.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// With the index of the slot it may leave in, and how.
    packets: VecDeque<(u8, Passing, MediaPacket)>,
    /// Of their payloads.
    bytes: usize,
}

impl Waiting {
    /// Payload bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, slot: u8, passing: Passing, packet: MediaPacket) {
        self.bytes += packet.payload.len();
        self.packets.push_back((slot, passing, packet));
    }

    /// Lets go of what waits for a slot; returns how many packets that were.
    fn drop_slot(&mut self, slot: u8) -> usize {
        let before = self.packets.len();
        let Self { packets, bytes } = self;
        packets.retain(|(of, _, packet)| {
            *bytes -= if *of == slot { packet.payload.len() } else { 0 };
            *of != slot
        });
        before - packets.len()
    }

    fn pop(&mut self) -> Option<(u8, Passing, MediaPacket)> {
        let next = self.packets.pop_front()?;
        self.bytes -= next.2.payload.len();
        if self.packets.is_empty() {
            // What a keyframe needed is not kept for the calls between.
            self.packets.shrink_to(KEPT_PLACES);
        }
        Some(next)
    }
}

/// What a turn writes into, and counts in.
pub(crate) struct Desk<'a> {
    pub(crate) now: Instant,
    /// The same in our wall clock.
    pub(crate) at: Ntp,
    pub(crate) tracks: &'a Arena<Track>,
    pub(crate) batch: &'a mut Batch,
    pub(crate) stats: &'a mut Stats,
}

impl Peer {
    /// Writes, side by side, what may leave for this peer now: what waited, then what is due.
    /// Audio never waits.
    ///
    /// `false` when so much waited that it was dropped: its slots need keyframes.
    pub(crate) fn give_out(&mut self, packets: &[MediaPacket], desk: &mut Desk<'_>) -> bool {
        let mut left = self.send_side.grant(desk.now, self.waiting.bytes());
        while left > 0
            && let Some((slot, passing, packet)) = self.waiting.pop()
        {
            left = left.saturating_sub(self.send(slot, passing, &packet, desk));
        }
        let mut due = std::mem::take(&mut self.due);
        for Due {
            packet,
            slot,
            passing,
        } in due.drain(..)
        {
            let packet = &packets[packet as usize];
            let Some(place) = self.slots.get(usize::from(slot)) else {
                desk.stats.dropped.add(Dropped::NoTrack);
                continue;
            };
            if matches!(passing, Passing::Begins { .. }) {
                // Who begins anew has no use for what came before.
                for _ in 0..self.waiting.drop_slot(slot) {
                    desk.stats.dropped.add(Dropped::OtherLayer);
                }
                self.send_side.forget(usize::from(slot));
            }
            let may_leave = left > 0 && self.waiting.packets.is_empty();
            if may_leave || place.kind == Kind::Audio {
                left = left.saturating_sub(self.send(slot, passing, packet, desk));
            } else {
                desk.stats.paced += 1;
                self.waiting.push(slot, passing, packet.clone());
            }
        }
        self.due = due;
        desk.stats.padding += self.send_side.pad(desk.now, desk.at, left, desk.batch);
        let keeps_up = self.waiting.packets.len() <= WAITING_PACKETS;
        if !keeps_up {
            self.drop_waiting(desk.now, desk.stats);
        }
        keeps_up
    }

    /// Writes one packet; returns the bytes it takes of what may leave.
    fn send(
        &mut self,
        index: u8,
        passing: Passing,
        packet: &MediaPacket,
        desk: &mut Desk<'_>,
    ) -> usize {
        let Self {
            slots,
            rtc,
            send_side,
            ..
        } = self;
        let index = usize::from(index);
        let (Some(slot), Some(track)) = (slots.get_mut(index), desk.tracks.get(packet.track))
        else {
            desk.stats.dropped.add(Dropped::NoTrack);
            return 0;
        };
        let forwarded = slot.forward(packet, passing, track, rtc.codec_config());
        let written = forwarded.and_then(|forward| {
            let leaving = forward.leaving(packet);
            send_side
                .write(desk.now, desk.at, index, &leaving, desk.batch)
                .map_err(|_| Dropped::TooLate)
        });
        match written {
            Ok(bytes) => {
                desk.stats.forwarded += 1;
                bytes
            }
            Err(dropped) => {
                desk.stats.dropped.add(dropped);
                0
            }
        }
    }

    /// Too much waits to be of use. What plays goes on with keyframes.
    fn drop_waiting(&mut self, now: Instant, stats: &mut Stats) {
        while let Some((slot, ..)) = self.waiting.pop() {
            stats.dropped.add(Dropped::PacerFull);
            if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
                slot.await_keyframe(now);
            }
        }
    }
}
