//! How much media may come in: of one peer, into one room, into one shard.
//!
//! What is past a cap is dropped before it costs anything. A publisher's congestion control sees
//! that as loss, and sends less.

use std::time::{Duration, Instant};

use super::Engine;
use super::arena::Key;
use super::peer::Peer;
use super::stats::Dropped;

/// The caps of one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// Of one peer.
    pub peer: Cap,
    /// Of all peers of one room.
    pub room: Cap,
    /// Of all peers of the shard.
    pub shard: Cap,
}

impl Caps {
    /// No cap at all.
    pub const NONE: Self = Self {
        peer: Cap::NONE,
        room: Cap::NONE,
        shard: Cap::NONE,
    };

    /// These, where `shard` is meant for all of so many shards together. Rooms are spread evenly
    /// over shards, so each has its part.
    #[must_use]
    pub fn shared_by(self, shards: u16) -> Self {
        let part = |all: u64| all.div_ceil(shards.max(1).into());
        let shard = Cap {
            bits: part(self.shard.bits),
            packets: part(self.shard.packets),
        };
        Self { shard, ..self }
    }
}

/// How much of RTP and RTCP may come in, in the long run; twice as much within one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cap {
    /// In bits per second, UDP's and IP's headers aside; 0 for no cap.
    pub bits: u64,
    /// In packets per second; 0 for no cap.
    pub packets: u64,
}

impl Cap {
    /// None.
    pub const NONE: Self = Self {
        bits: 0,
        packets: 0,
    };
}

/// What has come in under one cap.
#[derive(Debug)]
pub(crate) struct Meter {
    bits: Level,
    packets: Level,
}

/// A bucket that leaks at a cap's rate, and overflows at what comes in two seconds at that rate.
#[derive(Debug)]
struct Level {
    /// What is in it, in units that leak one each nanosecond at a rate of 1/s.
    full: u128,
    at: Instant,
}

/// What a bucket holds, in time at its rate.
const DEPTH: Duration = Duration::from_secs(2);

impl Meter {
    pub(crate) fn new(now: Instant) -> Self {
        let level = || Level { full: 0, at: now };
        Self {
            bits: level(),
            packets: level(),
        }
    }

    fn has_room(&mut self, now: Instant, bits: u64, cap: Cap) -> bool {
        self.packets.has_room(now, 1, cap.packets) && self.bits.has_room(now, bits, cap.bits)
    }

    fn add(&mut self, bits: u64, cap: Cap) {
        self.packets.add(1, cap.packets);
        self.bits.add(bits, cap.bits);
    }
}

impl Level {
    fn has_room(&mut self, now: Instant, amount: u64, rate: u64) -> bool {
        if rate == 0 {
            return true;
        }
        let leaked = now.saturating_duration_since(self.at).as_nanos() * u128::from(rate);
        self.at = self.at.max(now);
        self.full = self.full.saturating_sub(leaked);
        let depth = u128::from(rate) * DEPTH.as_nanos();
        self.full + u128::from(amount) * NANOSECONDS <= depth
    }

    fn add(&mut self, amount: u64, rate: u64) {
        if rate > 0 {
            self.full += u128::from(amount) * NANOSECONDS;
        }
    }
}

/// Of one second.
const NANOSECONDS: u128 = 1_000_000_000;

impl Engine {
    /// Counts a packet of RTP or RTCP against the caps of its peer, its room and the shard, or
    /// says which one it is past; then it counts against none.
    pub(super) fn charge(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        bytes: usize,
    ) -> Result<(), Dropped> {
        let caps = self.options.caps;
        let Some(peer) = self.peers.get_mut(key) else {
            return Ok(());
        };
        let room = self.rooms.get_mut(peer.room);
        let room = room.expect("a room lives as long as its peers");
        let bits = bytes as u64 * 8;
        let mut meters = [
            (&mut peer.meter, caps.peer, Dropped::PeerCap),
            (&mut room.meter, caps.room, Dropped::RoomCap),
            (&mut self.meter, caps.shard, Dropped::ServerCap),
        ];
        for (meter, cap, reason) in &mut meters {
            if !meter.has_room(now, bits, *cap) {
                return Err(*reason);
            }
        }
        for (meter, cap, _) in meters {
            meter.add(bits, cap);
        }
        Ok(())
    }
}

/// RFC 7983 §7: the first byte of RTP and RTCP.
pub(super) fn is_media(bytes: &[u8]) -> bool {
    matches!(bytes, [128..=191, ..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock;

    /// How many of `packets` of 1000 bits pass, evenly over so many seconds.
    fn passed(meter: &mut Meter, start: Instant, packets: u32, seconds: u32, cap: Cap) -> u32 {
        let step = Duration::from_secs(seconds.into()) / packets;
        let pass = |index: &u32| {
            let has_room = meter.has_room(start + step * *index, 1000, cap);
            if has_room {
                meter.add(1000, cap);
            }
            has_room
        };
        (0..packets).filter(pass).count() as u32
    }

    #[test]
    fn what_comes_at_the_cap_passes_and_of_twice_as_much_half() {
        let cap = Cap {
            bits: 100_000,
            packets: 0,
        };
        let start = clock::origin();
        assert_eq!(passed(&mut Meter::new(start), start, 1000, 10, cap), 1000);
        let half = passed(&mut Meter::new(start), start, 10_000, 50, cap);
        // 50 s at 100 packets/s, and what the bucket holds.
        assert!((5_195..=5_200).contains(&half), "{half}");
    }

    #[test]
    fn packets_are_capped_whatever_their_size_and_zero_is_no_cap() {
        let cap = Cap {
            bits: 0,
            packets: 10,
        };
        let start = clock::origin();
        let mut meter = Meter::new(start);
        assert_eq!(passed(&mut meter, start, 1000, 1, cap), 29);
        let none = Cap::default();
        assert_eq!(passed(&mut Meter::new(start), start, 1000, 1, none), 1000);
    }
}
