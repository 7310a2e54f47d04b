//! The bounded queues between the signalling thread and the shards, and between shards.
//!
//! Commands go to a shard over a crossbeam channel and wake it; events come back over a tokio
//! channel, which wakes the signalling thread. Nothing here blocks: a full queue is the
//! sender's to handle.

use std::fmt;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};

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
}

/// The shards' shared queue to the signalling thread.
#[must_use]
pub fn reports() -> (
    tokio::sync::mpsc::Sender<Report>,
    tokio::sync::mpsc::Receiver<Report>,
) {
    tokio::sync::mpsc::channel(REPORT_QUEUE)
}
