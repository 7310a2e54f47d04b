//! The bounded queues between the signalling thread and the shards, and between shards.
//!
//! Commands go to a shard over a crossbeam channel and wake it; events come back over a tokio
//! channel, which wakes the signalling thread. Nothing here blocks: a full queue is the
//! sender's to handle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use hdrhistogram::Histogram;

use crate::engine::command::{Command, Event};
use crate::engine::copies::Copied;
use crate::engine::stats::Stats;
use crate::id::ShardId;

/// Commands waiting for a shard. When full, the signalling thread refuses the request that
/// would have made the next one ("server busy").
pub const COMMAND_QUEUE: usize = 4096;

/// Reports waiting for the signalling thread. When full, the shard keeps its events, takes no
/// further commands, and goes on forwarding media.
pub const REPORT_QUEUE: usize = 8192;

/// Wakes a sleeping shard from any thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`, which must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes the shard; harmless when it is awake.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// One shard's pulse, as others feel it: a shard that is woken turns, and a turn is a beat.
#[derive(Debug, Clone)]
pub struct Pulse {
    shard: ShardId,
    beats: Arc<AtomicU64>,
    waker: Waker,
}

impl Pulse {
    /// A pulse that has not beaten, of a shard that `waker` wakes.
    #[must_use]
    pub fn new(shard: ShardId, waker: Waker) -> Self {
        Self {
            shard,
            beats: Arc::default(),
            waker,
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The shard turns.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes the shard, and says how often it had turned until now.
    #[must_use]
    pub fn feel(&self) -> u64 {
        self.waker.wake();
        self.beats.load(Ordering::Relaxed)
    }
}

/// The signalling thread's end of one shard's command queue.
#[derive(Debug, Clone)]
pub struct CommandSender {
    shard: ShardId,
    queue: Sender<Command>,
    waker: Waker,
}

/// The shard's queue is full, or the shard has ended: the command comes back.
#[derive(Debug)]
pub struct Undelivered(pub Command);

impl CommandSender {
    /// Queues one command and wakes the shard.
    ///
    /// # Errors
    ///
    /// [`Undelivered`] when the queue is full or the shard has ended.
    pub fn try_send(&self, command: Command) -> Result<(), Undelivered> {
        match self.queue.try_send(command) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => {
                Err(Undelivered(command))
            }
        }
    }

    /// Which shard it leads to.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

/// A queue of commands into one shard, which `waker` wakes.
#[must_use]
pub fn commands(shard: ShardId, waker: Waker) -> (CommandSender, Receiver<Command>) {
    let (queue, receiver) = crossbeam_channel::bounded(COMMAND_QUEUE);
    (
        CommandSender {
            shard,
            queue,
            waker,
        },
        receiver,
    )
}

/// Copies waiting for the recorder. When full the newest is dropped and counted: a gap in a file
/// is better than a late packet in a call.
pub const COPY_QUEUE: usize = 16_384;

/// A shard's end of the queue to the recorder.
#[derive(Debug, Clone)]
pub struct CopySender(Sender<Copied>);

impl CopySender {
    /// Queues one copy; `false` when the queue is full, or nobody records any more.
    #[must_use]
    pub fn try_send(&self, copied: Copied) -> bool {
        self.0.try_send(copied).is_ok()
    }
}

/// The shards' shared queue to the recorder.
#[must_use]
pub fn copies() -> (CopySender, Receiver<Copied>) {
    let (queue, receiver) = crossbeam_channel::bounded(COPY_QUEUE);
    (CopySender(queue), receiver)
}

/// What a shard sends to the signalling thread.
#[derive(Debug, Clone)]
pub enum Report {
    /// Something happened to a peer or a room.
    Event(Event),
    /// The shard's counters, about once a second. Replaces the one before.
    Snapshot(ShardId, Box<Snapshot>),
}

/// One shard's counters.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What the engine counts.
    pub engine: Stats,
    /// What the shard's sockets and queues count, by metric name.
    pub shard: Vec<(&'static str, u64)>,
    /// How long things take, and how many go together.
    pub histograms: Histograms,
}

/// What one shard has measured since it began. Those of several shards add up.
#[derive(Debug, Clone, PartialEq)]
pub struct Histograms {
    /// Length of turns with work, in nanoseconds.
    pub turn_ns: Histogram<u64>,
    /// From the kernel's receiving a datagram to the send call that follows it, in nanoseconds.
    pub delay_ns: Histogram<u64>,
    /// Datagrams in one entry of a send call, which the kernel cuts up (GSO).
    pub run_datagrams: Histogram<u64>,
}

/// Longest time the histograms tell apart, in nanoseconds: longer ones count as this.
const LONGEST_NS: u64 = 10_000_000_000;

/// Longest run the histograms tell apart, in datagrams.
const LONGEST_RUN: u64 = 1024;

impl Default for Histograms {
    fn default() -> Self {
        let histogram = |most| Histogram::new_with_bounds(1, most, 2).expect("bounds in order");
        Self {
            turn_ns: histogram(LONGEST_NS),
            delay_ns: histogram(LONGEST_NS),
            run_datagrams: histogram(LONGEST_RUN),
        }
    }
}

impl Histograms {
    /// Adds what another shard has measured.
    pub fn add(&mut self, other: &Self) {
        let why = "all have the same bounds";
        self.turn_ns.add(&other.turn_ns).expect(why);
        self.delay_ns.add(&other.delay_ns).expect(why);
        self.run_datagrams.add(&other.run_datagrams).expect(why);
    }

    /// What was measured after `earlier`, which the same shard told before.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        let why = "histograms of one shard only grow";
        later.turn_ns.subtract(&earlier.turn_ns).expect(why);
        later.delay_ns.subtract(&earlier.delay_ns).expect(why);
        let runs = &mut later.run_datagrams;
        runs.subtract(&earlier.run_datagrams).expect(why);
        later
    }
}

/// The shards' shared queue to the signalling thread.
#[must_use]
pub fn reports() -> (
    tokio::sync::mpsc::Sender<Report>,
    tokio::sync::mpsc::Receiver<Report>,
) {
    tokio::sync::mpsc::channel(REPORT_QUEUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_shards_have_measured_is_one_distribution() {
        let (mut calm, mut busy) = (Histograms::default(), Histograms::default());
        for _ in 0..990 {
            calm.turn_ns.saturating_record(10_000);
        }
        for _ in 0..10 {
            busy.turn_ns.saturating_record(5_000_000);
        }
        let mut both = calm.clone();
        both.add(&busy);
        assert_eq!(both.turn_ns.len(), 1000);
        let at = |quantile| both.turn_ns.value_at_quantile(quantile) / 1_000_000;
        assert_eq!((at(0.5), at(0.98), at(0.999)), (0, 0, 5));
        assert_eq!(both.since(&calm), busy);
    }

    #[test]
    fn a_pulse_wakes_and_counts() {
        let (woken, wakes) = crossbeam_channel::bounded(8);
        let waker = Waker::new(move || {
            let _ = woken.try_send(());
        });
        let pulse = Pulse::new(ShardId::new(0), waker);
        assert_eq!(pulse.feel(), 0);
        pulse.clone().beat();
        assert_eq!((pulse.feel(), wakes.len()), (1, 2));
    }
}
