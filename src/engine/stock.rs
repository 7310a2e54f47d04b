//! The other way to send, for tests alone: every packet through str0m's own `write_rtp`.
//!
//! What the send side makes of a scenario must reach clients as what str0m makes of it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Instant;

use str0m::RtcError;
use str0m::media::{Mid, Pt};
use str0m::net::Protocol;
use str0m::rtp::RtpWrite;

use super::Engine;
use super::arena::Key;
use super::command::Kind;
use super::egress::send_side::{Leaving, SendSide};
use super::peer::Peer;
use super::stats::Dropped;

thread_local! {
    static CHOSEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether peers made on this thread from here on send through str0m.
pub(crate) fn choose(stock: bool) {
    CHOSEN.set(stock);
}

/// What waits to be given to str0m; `None` where the send side is ours.
pub(crate) fn outgoing() -> Option<Vec<Outgoing>> {
    CHOSEN.get().then(Vec::new)
}

/// One packet as the slot sends it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    slot: usize,
    pt: Pt,
    seq: u64,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

impl Outgoing {
    pub(crate) fn new(slot: usize, leaving: &Leaving<'_>) -> Self {
        let packet = &leaving.packet;
        let mut payload = packet.payload.to_vec();
        packet.patch.apply(&mut payload);
        Self {
            slot,
            pt: leaving.pt,
            seq: packet.seq,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload,
        }
    }
}

impl SendSide {
    /// Whether str0m sends in its place.
    pub(crate) fn is_stock(&self) -> bool {
        self.stock.is_some()
    }
}

impl Peer {
    /// Gives str0m what was written in this turn.
    pub(super) fn write_stock(&mut self, now: Instant) -> Result<(), RtcError> {
        let packets = self.send_side.stock.as_mut().map(std::mem::take);
        for packet in packets.into_iter().flatten() {
            let (ssrc, kind) = (self.slots[packet.slot].ssrc, self.slots[packet.slot].kind);
            self.mutate(|rtc| {
                let mut api = rtc.direct_api();
                let stream = api.stream_tx(&ssrc).expect("its streams stay in str0m");
                let Outgoing {
                    pt,
                    seq,
                    timestamp,
                    marker,
                    payload,
                    ..
                } = packet;
                let write = RtpWrite::new(pt, seq.into(), timestamp, now, payload);
                stream.write_rtp(write.marker(marker).nackable(kind == Kind::Video));
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Engine {
    /// Whether str0m sends to a peer, and reads what it reports.
    pub(super) fn is_stock(&self, key: Key<Peer>) -> bool {
        let peer = self.peers.get(key);
        peer.is_some_and(|peer| peer.send_side.is_stock())
    }

    /// Gives str0m what a client reports.
    pub(super) fn take_stock_rtcp(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        (from, to): (SocketAddr, SocketAddr),
        bytes: &[u8],
    ) -> Result<(), Dropped> {
        let taken = self.with_peer(key, |peer, _| {
            peer.handle_datagram(now, Protocol::Udp, from, to, bytes)
        });
        taken.unwrap_or(Ok(()))
    }

    /// str0m read a client's request for a keyframe. Ours it never sees.
    pub(super) fn take_stock_request(&mut self, now: Instant, key: Key<Peer>, mid: Mid) {
        let peer = self.peers.get(key).filter(|peer| peer.send_side.is_stock());
        let slot = peer.and_then(|peer| peer.slots.iter().find(|slot| slot.mid == mid));
        let playing = slot.and_then(|slot| Some((slot.track()?, slot.live().unwrap_or(0))));
        if let Some((track, layer)) = playing {
            self.want_keyframe(now, track, layer);
        }
    }
}
