//! Whose is a datagram? By known address, else by the ufrag of its STUN USERNAME.

use std::collections::HashMap;
use std::net::SocketAddr;

use str0m::ice::StunMessage;

use super::arena::Key;
use super::limits::{FOREIGN_ADDRESSES, PEER_ADDRESSES};
use super::peer::Peer;
use crate::id::ShardId;

/// Who owns a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A peer of this shard: it came from an address known to be the peer's.
    Known(Key<Peer>),
    /// A peer of this shard by the ufrag a STUN request names; its integrity is still to be
    /// checked.
    Named(Key<Peer>),
    /// Another shard.
    Elsewhere(ShardId),
    /// A STUN request for a ufrag that nobody of this shard has.
    UnknownUfrag,
    /// Nobody anyone knows of.
    Unknown,
}

/// The two ways a datagram finds its peer, and what other shards said is theirs.
#[derive(Debug)]
pub(crate) struct Demux {
    shard: ShardId,
    shards: u16,
    /// An address has one owner: the peer that last proved it.
    addresses: HashMap<SocketAddr, Key<Peer>>,
    /// The ufrag given out in a peer's latest answer.
    ufrags: HashMap<String, Key<Peer>>,
    /// Addresses other shards have proved.
    foreign: HashMap<SocketAddr, ShardId>,
}

impl Demux {
    pub(crate) fn new(shard: ShardId, shards: u16) -> Self {
        Self {
            shard,
            shards,
            addresses: HashMap::new(),
            ufrags: HashMap::new(),
            foreign: HashMap::new(),
        }
    }

    /// Who owns a datagram from this address.
    pub(crate) fn owner(&self, from: SocketAddr, bytes: &[u8]) -> Owner {
        if is_stun(bytes) {
            return self.owner_of_stun(from, bytes);
        }
        if let Some(key) = self.addresses.get(&from) {
            return Owner::Known(*key);
        }
        self.foreign
            .get(&from)
            .map_or(Owner::Unknown, |shard| Owner::Elsewhere(*shard))
    }

    /// A STUN request goes by its USERNAME even from a known address: a browser may use the
    /// same port for its next connection.
    fn owner_of_stun(&self, from: SocketAddr, bytes: &[u8]) -> Owner {
        let Ok(message) = StunMessage::parse(bytes) else {
            return Owner::Unknown;
        };
        if !message.is_binding_request() {
            return self
                .addresses
                .get(&from)
                .map_or(Owner::Unknown, |key| Owner::Known(*key));
        }
        let Some((ours, _)) = message.split_username() else {
            return Owner::UnknownUfrag;
        };
        if let Some(key) = self.ufrags.get(ours) {
            return Owner::Named(*key);
        }
        match ShardId::from_ufrag(ours.as_bytes()) {
            Some(shard) if shard != self.shard && shard.index() < usize::from(self.shards) => {
                Owner::Elsewhere(shard)
            }
            _ => Owner::UnknownUfrag,
        }
    }

    /// `key` answers to this ufrag.
    pub(crate) fn name(&mut self, ufrag: String, key: Key<Peer>) {
        self.ufrags.insert(ufrag, key);
    }

    /// Nobody answers to this ufrag.
    pub(crate) fn unname(&mut self, ufrag: &str) {
        self.ufrags.remove(ufrag);
    }

    /// `key` proved that the address is its own. Returns who owned it before.
    pub(crate) fn learn(&mut self, remote: SocketAddr, key: Key<Peer>) -> Option<Key<Peer>> {
        self.foreign.remove(&remote);
        self.addresses.insert(remote, key)
    }

    /// The address is no longer this peer's.
    pub(crate) fn forget(&mut self, remote: SocketAddr, key: Key<Peer>) {
        if self.addresses.get(&remote) == Some(&key) {
            self.addresses.remove(&remote);
        }
    }

    /// Another shard proved that the address is its own. Returns the peer that had it here.
    pub(crate) fn learn_foreign(
        &mut self,
        remote: SocketAddr,
        shard: ShardId,
    ) -> Option<Key<Peer>> {
        if self.foreign.len() < FOREIGN_ADDRESSES || self.foreign.contains_key(&remote) {
            self.foreign.insert(remote, shard);
        }
        self.addresses.remove(&remote)
    }

    /// Another shard no longer owns the address.
    pub(crate) fn forget_foreign(&mut self, remote: SocketAddr, shard: ShardId) {
        if self.foreign.get(&remote) == Some(&shard) {
            self.foreign.remove(&remote);
        }
    }

    /// How many addresses of its own peers it knows.
    pub(crate) fn addresses(&self) -> usize {
        self.addresses.len()
    }
}

/// The addresses of one peer, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Vec<SocketAddr>);

impl Addresses {
    /// Adds one; returns the oldest when there was no room.
    pub(crate) fn add(&mut self, remote: SocketAddr) -> Option<SocketAddr> {
        if self.0.contains(&remote) {
            return None;
        }
        let evicted = (self.0.len() == PEER_ADDRESSES).then(|| self.0.remove(0));
        self.0.push(remote);
        evicted
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, remote: SocketAddr) {
        self.0.retain(|a| *a != remote);
    }

    /// Whether it has proved none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of them.
    pub(crate) fn contains(&self, remote: SocketAddr) -> bool {
        self.0.contains(&remote)
    }

    /// All of them, leaving none.
    pub(crate) fn take(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.0)
    }
}

/// RFC 7983 §7: the first byte of STUN is 0 to 3, and RFC 8489 §5 fixes its magic cookie.
fn is_stun(bytes: &[u8]) -> bool {
    bytes.len() >= 20 && bytes[0] <= 3 && bytes[4..8] == [0x21, 0x12, 0xa4, 0x42]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn keys(count: u32) -> Vec<Key<Peer>> {
        (0..count).map(Key::nth).collect()
    }

    #[test]
    fn media_finds_its_peer_by_address_only_once_it_is_proved() {
        let mut demux = Demux::new(ShardId::new(0), 2);
        let key = keys(1)[0];
        let rtp = [0x80; 40];
        assert_eq!(demux.owner(address(1), &rtp), Owner::Unknown);
        demux.learn(address(1), key);
        assert_eq!(demux.owner(address(1), &rtp), Owner::Known(key));
    }

    #[test]
    fn an_address_of_another_shard_is_handed_over_until_it_forgets_it() {
        let mut demux = Demux::new(ShardId::new(0), 2);
        let other = ShardId::new(1);
        demux.learn_foreign(address(1), other);
        assert_eq!(
            demux.owner(address(1), &[0x80; 40]),
            Owner::Elsewhere(other)
        );
        demux.forget_foreign(address(1), other);
        assert_eq!(demux.owner(address(1), &[0x80; 40]), Owner::Unknown);
    }

    proptest! {
        #[test]
        fn an_address_has_one_owner_the_last_to_prove_it(
            steps in proptest::collection::vec((0u16..6, 0usize..4, any::<bool>()), 0..60)
        ) {
            let keys = keys(4);
            let mut demux = Demux::new(ShardId::new(0), 1);
            let mut model = std::collections::BTreeMap::new();
            for (port, peer, learn) in steps {
                if learn {
                    demux.learn(address(port), keys[peer]);
                    model.insert(port, peer);
                } else {
                    demux.forget(address(port), keys[peer]);
                    if model.get(&port) == Some(&peer) {
                        model.remove(&port);
                    }
                }
            }
            for port in 0..6 {
                let expected =
                    model.get(&port).map_or(Owner::Unknown, |peer| Owner::Known(keys[*peer]));
                prop_assert_eq!(demux.owner(address(port), &[0x80; 40]), expected);
            }
            prop_assert_eq!(demux.addresses(), model.len());
        }

        #[test]
        fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let demux = Demux::new(ShardId::new(0), 4);
            let _ = demux.owner(address(9), &bytes);
        }
    }
}
