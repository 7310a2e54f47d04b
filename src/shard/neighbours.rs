//! The rings between shards: what one shard hands to another, and the knock that wakes it.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::engine::Handoff;
use crate::id::ShardId;
use crate::mailbox::Waker;

/// Handed-over datagrams and facts waiting for one shard. When full a datagram is dropped and
/// counted.
pub(super) const RING: usize = 4096;
/// Facts (learned and forgotten addresses) kept for a shard whose ring is full. They must not
/// be lost to a flood of datagrams; beyond this the oldest is dropped and counted.
const FACTS: usize = 16_384;

/// A shard's way to the others, and its own ring.
pub(super) struct Neighbours {
    own: ShardId,
    /// By shard index; the own entry is never used.
    others: Vec<Neighbour>,
    ring: Receiver<(ShardId, Handoff)>,
    counts: Counts,
}

struct Neighbour {
    ring: Sender<(ShardId, Handoff)>,
    waker: Waker,
    /// What did not fit its ring, in order.
    facts: VecDeque<Handoff>,
    /// Whether something was put in its ring since it was last woken.
    to_wake: bool,
}

/// What the rings count.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Datagrams and facts taken from the own ring.
    pub(super) taken: u64,
    /// Datagrams and facts given to others.
    pub(super) given: u64,
    /// Datagrams dropped because the other's ring was full, or there is no such shard.
    pub(super) dropped: u64,
    /// Facts dropped because even the place for waiting ones was full.
    pub(super) facts_dropped: u64,
}

/// Rings for all shards, given how each is woken.
pub(super) fn rings(wakers: &[Waker]) -> Vec<Neighbours> {
    let (senders, receivers): (Vec<_>, Vec<_>) = wakers
        .iter()
        .map(|_| crossbeam_channel::bounded(RING))
        .unzip();
    let others = |_| {
        let pairs = senders.iter().zip(wakers);
        pairs
            .map(|(ring, waker)| Neighbour::new(ring.clone(), waker.clone()))
            .collect()
    };
    let numbered = (0..).map(ShardId::new).zip(receivers);
    numbered
        .map(|(own, ring)| Neighbours {
            own,
            others: others(own),
            ring,
            counts: Counts::default(),
        })
        .collect()
}

impl Neighbour {
    fn new(ring: Sender<(ShardId, Handoff)>, waker: Waker) -> Self {
        Self {
            ring,
            waker,
            facts: VecDeque::new(),
            to_wake: false,
        }
    }
}

impl Neighbours {
    /// The next thing another shard handed over.
    pub(super) fn take(&mut self) -> Option<(ShardId, Handoff)> {
        let taken = self.ring.try_recv().ok()?;
        self.counts.taken += 1;
        Some(taken)
    }

    /// Hands something to another shard, which is woken by [`Neighbours::knock`].
    pub(super) fn give(&mut self, to: ShardId, handoff: Handoff) {
        let other = self.others.get_mut(to.index()).filter(|_| to != self.own);
        let Some(other) = other else {
            self.counts.dropped += 1;
            return;
        };
        let is_datagram = matches!(handoff, Handoff::Datagram { .. });
        if !is_datagram && !other.facts.is_empty() {
            other.keep(handoff, &mut self.counts);
            return;
        }
        match other.ring.try_send((self.own, handoff)) {
            Ok(()) => {
                other.to_wake = true;
                self.counts.given += 1;
            }
            Err(TrySendError::Full((_, handoff)) | TrySendError::Disconnected((_, handoff))) => {
                other.to_wake = true;
                if is_datagram {
                    self.counts.dropped += 1;
                } else {
                    other.keep(handoff, &mut self.counts);
                }
            }
        }
    }

    /// Tells every other shard a fact.
    pub(super) fn tell_all(&mut self, fact: &Handoff) {
        for shard in (0..self.others.len() as u16).map(ShardId::new) {
            if shard != self.own {
                self.give(shard, fact.clone());
            }
        }
    }

    /// Hands over the facts that had to wait, then wakes every shard that got something.
    /// Returns whether facts are still waiting.
    pub(super) fn knock(&mut self) -> bool {
        let mut waiting = false;
        for other in &mut self.others {
            while let Some(fact) = other.facts.pop_front() {
                if let Err(TrySendError::Full((_, fact))) = other.ring.try_send((self.own, fact)) {
                    other.facts.push_front(fact);
                    waiting = true;
                    break;
                }
                other.to_wake = true;
                self.counts.given += 1;
            }
            if std::mem::take(&mut other.to_wake) {
                other.waker.wake();
            }
        }
        waiting
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}

impl Neighbour {
    fn keep(&mut self, fact: Handoff, counts: &mut Counts) {
        if self.facts.len() == FACTS {
            self.facts.pop_front();
            counts.facts_dropped += 1;
        }
        self.facts.push_back(fact);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn datagram(number: u8) -> Handoff {
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        Handoff::Datagram {
            from: address,
            to: address,
            bytes: [number].into(),
        }
    }

    fn fact(port: u16) -> Handoff {
        Handoff::Learned(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    /// Two shards, and how often the second was woken.
    fn pair() -> (Neighbours, Neighbours, Arc<AtomicU32>) {
        let woken = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&woken);
        let second = Waker::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut rings = rings(&[Waker::new(|| {}), second]).into_iter();
        (rings.next().unwrap(), rings.next().unwrap(), woken)
    }

    #[test]
    fn what_is_handed_over_arrives_in_order_with_one_knock() {
        let (mut first, mut second, woken) = pair();
        first.give(ShardId::new(1), datagram(1));
        first.give(ShardId::new(1), datagram(2));
        assert!(!first.knock());
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(second.take(), Some((ShardId::new(0), datagram(1))));
        assert_eq!(second.take(), Some((ShardId::new(0), datagram(2))));
        assert_eq!(second.take(), None);
    }

    #[test]
    fn a_full_ring_drops_datagrams_and_counts_them() {
        let (mut first, mut second, _) = pair();
        for _ in 0..RING + 3 {
            first.give(ShardId::new(1), datagram(0));
        }
        assert_eq!(first.counts().dropped, 3);
        let taken = std::iter::from_fn(|| second.take()).count();
        assert_eq!(taken, RING);
    }

    #[test]
    fn facts_outlast_a_full_ring() {
        let (mut first, mut second, _) = pair();
        for _ in 0..RING {
            first.give(ShardId::new(1), datagram(0));
        }
        first.tell_all(&fact(1));
        first.tell_all(&fact(2));
        assert!(first.knock(), "they wait for room");
        while second.take().is_some() {}
        assert!(!first.knock());
        assert_eq!(second.take(), Some((ShardId::new(0), fact(1))));
        assert_eq!(second.take(), Some((ShardId::new(0), fact(2))));
    }

    #[test]
    fn a_shard_that_does_not_exist_gets_nothing() {
        let (mut first, _, _) = pair();
        first.give(ShardId::new(7), datagram(0));
        first.give(ShardId::new(0), datagram(0));
        assert_eq!(first.counts().dropped, 2);
    }
}
