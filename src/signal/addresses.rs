//! What one client address holds, so that one machine cannot take everyone's place. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use crate::signal::limits::Bucket;

/// Where a client comes from, as far as limits tell clients apart: an IPv4 address, or the /64
/// that an IPv6 host can choose its addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
            v4 => v4,
        })
    }
}

/// What one [`Network`] may hold and do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether there is any limit.
    pub enabled: bool,
    /// Most rooms it made. One more is refused with `too-many-rooms-from-address`.
    pub max_rooms: usize,
    /// Most participants. One more is refused with `too-many-from-address`.
    pub max_participants: usize,
    /// Most open WebSockets. One more is told `too-many-sockets` and closed with 1008.
    pub max_sockets: usize,
    /// Most joins per second, in the long run, after a burst of ten times as many. One more is
    /// refused with `joins-too-fast`.
    pub joins_per_second: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enabled: false,
            max_rooms: 10,
            max_participants: 50,
            max_sockets: 100,
            joins_per_second: 10,
        }
    }
}

/// What an address has too many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Rooms it made.
    #[error("your address has made {0} rooms, and may make no more")]
    Rooms(usize),
    /// Participants.
    #[error("{0} participants come from your address, and no more may")]
    Participants(usize),
    /// WebSockets.
    #[error("your address has {0} open WebSockets, and may have no more")]
    Sockets(usize),
    /// Joins.
    #[error("your address joins too often; try again in a moment")]
    Joins,
}

/// What all addresses hold. One that holds nothing is forgotten, so it is never larger than what
/// is held, but for those that joined in the last ten seconds.
#[derive(Debug)]
pub struct Addresses {
    options: Options,
    held: HashMap<Network, Held>,
}

#[derive(Debug)]
struct Held {
    rooms: usize,
    participants: usize,
    sockets: usize,
    joins: Bucket,
}

impl Addresses {
    /// No address holds anything.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            held: HashMap::new(),
        }
    }

    /// From here on these limits hold; what is held already stays.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Counts a room that this address makes.
    ///
    /// # Errors
    ///
    /// [`TooMany::Rooms`].
    pub fn add_room(&mut self, now: Instant, from: Network) -> Result<(), TooMany> {
        let max = self.options.max_rooms;
        let enabled = self.options.enabled;
        let held = self.held_mut(now, from);
        if enabled && held.rooms >= max {
            return Err(TooMany::Rooms(held.rooms));
        }
        held.rooms += 1;
        Ok(())
    }

    /// A room that this address made is no more.
    pub fn remove_room(&mut self, from: Network) {
        self.lessen(from, |held| &mut held.rooms);
    }

    /// Counts a join of a participant from this address.
    ///
    /// # Errors
    ///
    /// [`TooMany::Participants`], [`TooMany::Joins`].
    pub fn add_participant(&mut self, now: Instant, from: Network) -> Result<(), TooMany> {
        let max = self.options.max_participants;
        let enabled = self.options.enabled;
        let held = self.held_mut(now, from);
        if enabled && held.participants >= max {
            return Err(TooMany::Participants(held.participants));
        }
        if enabled && !held.joins.take(now, 1) {
            return Err(TooMany::Joins);
        }
        held.participants += 1;
        Ok(())
    }

    /// A participant from this address has left.
    pub fn remove_participant(&mut self, from: Network) {
        self.lessen(from, |held| &mut held.participants);
    }

    /// Counts a WebSocket that this address opens.
    ///
    /// # Errors
    ///
    /// [`TooMany::Sockets`]; then it is not counted.
    pub fn add_socket(&mut self, now: Instant, from: Network) -> Result<(), TooMany> {
        let max = self.options.max_sockets;
        let enabled = self.options.enabled;
        let held = self.held_mut(now, from);
        if enabled && held.sockets >= max {
            return Err(TooMany::Sockets(held.sockets));
        }
        held.sockets += 1;
        Ok(())
    }

    /// A WebSocket of this address is closed.
    pub fn remove_socket(&mut self, from: Network) {
        self.lessen(from, |held| &mut held.sockets);
    }

    /// Counts a socket that is a participant from its first moment on.
    ///
    /// # Errors
    ///
    /// [`TooMany`]; then it is not counted.
    pub fn admit(&mut self, now: Instant, from: Network) -> Result<(), TooMany> {
        self.add_socket(now, from)?;
        self.add_participant(now, from)
            .inspect_err(|_| self.remove_socket(from))
    }

    /// Such a socket is closed.
    pub fn release(&mut self, from: Network) {
        self.remove_participant(from);
        self.remove_socket(from);
    }

    /// Forgets those that hold nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.held.retain(|_, held| {
            let holds = held.rooms + held.participants + held.sockets > 0;
            holds || !held.joins.is_full(now)
        });
    }

    fn held_mut(&mut self, now: Instant, from: Network) -> &mut Held {
        let per_second = self.options.joins_per_second;
        self.held.entry(from).or_insert_with(|| Held {
            rooms: 0,
            participants: 0,
            sockets: 0,
            joins: Bucket::new(now, per_second.saturating_mul(10), per_second),
        })
    }

    fn lessen(&mut self, from: Network, count: impl Fn(&mut Held) -> &mut usize) {
        let held = self.held.get_mut(&from);
        let count = count(held.expect("what is given back was held"));
        *count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::signal::clock;

    fn network(address: &str) -> Network {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_ipv6_host_has_one_address_however_many_it_takes() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn each_limit_is_for_one_address_and_ends_when_something_is_given_back() {
        let options = Options {
            enabled: true,
            max_rooms: 1,
            max_participants: 2,
            max_sockets: 1,
            joins_per_second: 100,
        };
        let now = clock();
        let mut addresses = Addresses::new(options);
        let (one, other) = (network("192.0.2.1"), network("192.0.2.2"));
        addresses.add_room(now, one).unwrap();
        assert_eq!(addresses.add_room(now, one), Err(TooMany::Rooms(1)));
        addresses.add_room(now, other).unwrap();
        addresses.add_socket(now, one).unwrap();
        assert_eq!(addresses.add_socket(now, one), Err(TooMany::Sockets(1)));
        addresses.add_participant(now, one).unwrap();
        addresses.add_participant(now, one).unwrap();
        let more = addresses.add_participant(now, one);
        assert_eq!(more, Err(TooMany::Participants(2)));
        addresses.remove_participant(one);
        addresses.add_participant(now, one).unwrap();
    }

    #[test]
    fn joins_have_a_rate_and_an_address_that_holds_nothing_is_forgotten() {
        let options = Options {
            enabled: true,
            joins_per_second: 1,
            ..Options::default()
        };
        let now = clock();
        let mut addresses = Addresses::new(options);
        let one = network("192.0.2.1");
        for _ in 0..10 {
            addresses.add_participant(now, one).unwrap();
            addresses.remove_participant(one);
        }
        assert_eq!(addresses.add_participant(now, one), Err(TooMany::Joins));
        addresses.handle_timeout(now);
        assert_eq!(
            addresses.held.len(),
            1,
            "what it did is not forgotten at once"
        );
        addresses.handle_timeout(now + Duration::from_secs(10));
        assert!(addresses.held.is_empty());
    }

    #[test]
    fn without_limits_nothing_is_refused() {
        let now = clock();
        let mut addresses = Addresses::new(Options::default());
        for _ in 0..1000 {
            addresses.add_room(now, network("::1")).unwrap();
            addresses.add_participant(now, network("::1")).unwrap();
        }
    }
}
