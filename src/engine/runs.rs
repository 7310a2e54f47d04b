//! Packets that lie side by side, given out as runs.

use std::net::SocketAddr;
use std::ops::Range;

use super::arena::Key;
use super::limits::{RUN_BYTES, RUN_SEGMENTS};
use super::peer::{Path, Peer};
use super::{Engine, Output, Run};

impl Engine {
    /// Turns the packets written from `first` on into runs to the peer.
    pub(super) fn send_batch(&mut self, key: Key<Peer>, first: usize) {
        let packets = &self.batch.packets()[first..];
        let Some(path) = self.peers.get(key).and_then(|peer| peer.path) else {
            return;
        };
        let Path {
            source,
            destination,
        } = path;
        for bytes in packets.iter().cloned() {
            let run = match self.outbox.back_mut() {
                Some(Output::Run(run)) if joins(run, destination, &bytes) => Some(run),
                _ => None,
            };
            match run {
                Some(run) => run.bytes.end = bytes.end,
                None => {
                    let segment = bytes.len();
                    self.outbox.push_back(Output::Run(Run {
                        source,
                        destination,
                        bytes,
                        segment,
                    }));
                }
            }
        }
    }
}

/// Whether a packet may follow a run: same destination, adjacent, no longer than the others, and
/// none but the last is shorter.
fn joins(run: &Run, destination: SocketAddr, bytes: &Range<usize>) -> bool {
    run.destination == destination
        && run.bytes.end == bytes.start
        && bytes.len() <= run.segment
        && run.bytes.len().is_multiple_of(run.segment)
        && run.bytes.len() / run.segment < RUN_SEGMENTS
        && run.bytes.len() + bytes.len() <= RUN_BYTES
}
