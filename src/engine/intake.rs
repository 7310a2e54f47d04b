//! Datagrams given to their owners, and what they prove about addresses.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::ice::StunMessage;
use str0m::net::Protocol;

use super::arena::Key;
use super::demux::Owner;
use super::peer::{Path, Peer};
use super::stats::Dropped;
use super::{Arrival, Datagram, Engine, Handoff, Output, caps, tcp};

impl Engine {
    /// Gives a datagram to its owner.
    pub(super) fn deliver(&mut self, now: Instant, datagram: Datagram<'_>) -> Result<(), Dropped> {
        let Datagram {
            from,
            to,
            bytes,
            arrival,
        } = datagram;
        let protocol = self.protocol_at(to);
        let remote = match protocol {
            Protocol::Tcp => tcp::marked(from),
            _ => from,
        };
        let key = match self.demux.owner(remote, bytes) {
            Owner::Known(key) => key,
            Owner::Named(key) => {
                let peer = self.peers.get(key).ok_or(Dropped::UnknownUfrag)?;
                if !peer.accepts(now, from, bytes) {
                    return Err(Dropped::Malformed);
                }
                self.learn(remote, key);
                self.follow(now, key, (from, to), bytes);
                key
            }
            Owner::Elsewhere(_) if arrival == Arrival::HandedOver => {
                return Err(Dropped::StrayHandoff);
            }
            Owner::Elsewhere(shard) => {
                let bytes = bytes.into();
                self.outbox.push_back(Output::Handoff(
                    shard,
                    Handoff::Datagram { from, to, bytes },
                ));
                return Ok(());
            }
            Owner::UnknownUfrag => return Err(Dropped::UnknownUfrag),
            Owner::Unknown => return Err(Dropped::UnknownAddress),
        };
        let to = self.candidate_at(to);
        if caps::is_media(bytes) {
            self.charge(now, key, bytes.len())?;
        }
        if is_rtcp(bytes) {
            self.take_rtcp(now, key, bytes)?;
            #[cfg(test)]
            if self.is_stock(key) {
                return self.take_stock_rtcp(now, key, (from, to), bytes);
            }
            return Ok(());
        }
        if caps::is_media(bytes) {
            return self.take_media(now, key, bytes);
        }
        let taken = self.with_peer(key, |peer, _| {
            peer.handle_datagram(now, protocol, from, to, bytes)
        });
        taken.unwrap_or(Ok(()))
    }

    /// A client checked a pair. One that nominates it (RFC 8445 §8.1.1) is sent to there from now
    /// on: after a NAT rebinding str0m would go on with the old pair until it expires.
    fn follow(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        (destination, to): (SocketAddr, SocketAddr),
        bytes: &[u8],
    ) {
        let nominates = StunMessage::parse(bytes).is_ok_and(|message| message.use_candidate());
        let source = self.candidate_at(to);
        if let Some(peer) = self.peers.get_mut(key) {
            let path = Path {
                source,
                destination,
            };
            peer.handle_check(now, nominates.then_some(path));
        }
    }

    /// The candidate a client sent to when it reached the socket at `to`. Behind NAT the two
    /// differ, and ICE knows only the candidate.
    fn candidate_at(&self, to: SocketAddr) -> SocketAddr {
        let candidates = match self.protocol_at(to) {
            Protocol::Tcp => &self.options.tcp_candidates,
            _ => &self.options.candidates,
        };
        if candidates.contains(&to) {
            return to;
        }
        let same_family = candidates.iter().find(|c| c.is_ipv4() == to.is_ipv4());
        same_family.copied().unwrap_or(to)
    }

    /// What is spoken at a local address: TCP has a port of its own.
    fn protocol_at(&self, to: SocketAddr) -> Protocol {
        let tcp = self.options.tcp_candidates.first();
        if tcp.is_some_and(|candidate| candidate.port() == to.port()) {
            Protocol::Tcp
        } else {
            Protocol::Udp
        }
    }

    /// `remote` proved that it belongs to the peer.
    fn learn(&mut self, remote: SocketAddr, key: Key<Peer>) {
        let before = self.demux.learn(remote, key);
        if before == Some(key) {
            return;
        }
        match before.and_then(|before| self.peers.get_mut(before)) {
            Some(before) => before.addresses.remove(remote),
            None => self.outbox.push_back(Output::Learned(remote)),
        }
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if let Some(evicted) = peer.addresses.add(remote) {
            self.demux.forget(evicted, key);
            self.outbox.push_back(Output::Forgotten(evicted));
        }
    }
}

/// RFC 7983 §7 and RFC 5761 §4: RTCP packet types 192 to 223 behind the first byte of RTP.
fn is_rtcp(bytes: &[u8]) -> bool {
    matches!(bytes, [128..=191, 192..=223, ..])
}
