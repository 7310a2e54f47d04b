//! Changing a peer, and what follows from that: its events, its datagrams, when to wake it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use str0m::RtcError;

use super::arena::Key;
use super::command::CloseReason;
use super::peer::Peer;
use super::stats::Stats;
use super::{Engine, Output};

impl Engine {
    /// Changes a peer's connection: what that brings about is looked at by [`Self::settle`].
    pub(super) fn with_peer<T>(
        &mut self,
        key: Key<Peer>,
        change: impl FnOnce(&mut Peer, &mut Stats) -> Result<T, RtcError>,
    ) -> Option<T> {
        let value = self.guard(key, change)?;
        self.touched.push_back(key);
        Some(value)
    }

    /// Changes what a peer's connection knows nothing of: its media and what is told of that.
    pub(super) fn with_media<T>(
        &mut self,
        key: Key<Peer>,
        change: impl FnOnce(&mut Peer, &mut Stats) -> Result<T, RtcError>,
    ) -> Option<T> {
        if self.restless.last() != Some(&key) {
            self.restless.push(key);
        }
        self.guard(key, change)
    }

    /// The panic boundary: whatever happens in here ends this peer at most.
    pub(super) fn guard<T>(
        &mut self,
        key: Key<Peer>,
        change: impl FnOnce(&mut Peer, &mut Stats) -> Result<T, RtcError>,
    ) -> Option<T> {
        let Self {
            peers,
            stats,
            doomed,
            ..
        } = self;
        let peer = peers.get_mut(key)?;
        let id = peer.id;
        let outcome = catch_unwind(AssertUnwindSafe(|| change(peer, stats)));
        match outcome {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                tracing::debug!(peer = %id, %error, "peer misbehaved");
                doomed.push((key, CloseReason::Misbehaved));
                None
            }
            Err(_) => {
                stats.peer_panics += 1;
                tracing::error!(peer = %id, "a peer's state machine panicked; the peer is closed");
                doomed.push((key, CloseReason::Panicked));
                None
            }
        }
    }

    /// Looks at every peer that changed until none is left.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            if let Some((key, reason)) = self.doomed.pop() {
                self.close(now, key, reason);
            } else if let Some(key) = self.touched.pop_front() {
                self.tend(now, key);
            } else {
                return;
            }
        }
    }

    /// Takes a peer's events and datagrams, and notes when it must be woken.
    fn tend(&mut self, now: Instant, key: Key<Peer>) {
        while let Some(event) = self
            .peers
            .get_mut(key)
            .and_then(|peer| peer.events.pop_front())
        {
            self.handle_event(now, key, event);
        }
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        // Half a kilobyte each, and there are few.
        peer.events = VecDeque::new();
        self.stats.guarded += peer.send_side.take_guarded();
        self.outbox
            .extend(peer.outbox.drain(..).map(Output::Transmit));
        self.note_deadline(key);
    }

    /// Notes when those must be woken whose media came and went in this turn.
    pub(super) fn calm(&mut self) {
        while let Some(key) = self.restless.pop() {
            self.note_deadline(key);
        }
    }

    fn note_deadline(&mut self, key: Key<Peer>) {
        let Some(peer) = self.peers.get(key) else {
            return;
        };
        let keyframes = peer
            .lines
            .iter()
            .filter_map(|line| self.tracks.get(line.track?)?.wakeup());
        let wakeup = peer.wakeup().into_iter().chain(keyframes).min();
        self.deadlines.set(key, wakeup);
    }
}
