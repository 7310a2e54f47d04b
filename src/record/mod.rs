//! Records rooms, on a thread of its own: copies of packets in, media files out.
//!
//! A packet's way: the [`engine`](crate::engine::copies) copies it onto a bounded queue, [`jitter`]
//! puts it in order, [`depacketise`] makes frames of it, [`timeline`] tells when they were, and
//! [`webm`] or [`mp4`] writes them. Nothing is decoded. Control says by [`order`] what is recorded;
//! a [`manifest`] beside the files says what they are. What comes [`after`] is [`compose`] and
//! [`upload`].

pub mod after;
pub mod compose;
pub mod container;
pub mod depacketise;
mod ebml;
#[cfg(test)]
mod fixture;
pub mod jitter;
pub mod layout;
pub mod manifest;
pub mod mp4;
pub mod opus;
pub mod order;
pub mod pieces;
mod recorder;
mod recording;
#[cfg(test)]
mod simulated;
pub mod template;
pub mod timeline;
mod track;
pub mod upload;
pub mod webm;

use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use tokio::sync::mpsc;

use crate::engine::copies::Copied;
use after::After;
pub use container::Format;
use order::{Notice, Order};
use recorder::Recorder;
pub use recorder::{mend, repair};
use template::Template;

/// Orders waiting for the recorder. When full, a request to record is refused.
pub const ORDER_QUEUE: usize = 4096;

/// Notices waiting for the signalling thread. When full, the recorder keeps them.
pub const NOTICE_QUEUE: usize = 1024;

/// How often the recorder looks for copies and at the time, and how often while nothing is
/// recorded. It does not wait for copies: each would have to wake it, which costs more than to
/// write it.
const TICK: Duration = Duration::from_millis(100);
const IDLE_TICK: Duration = Duration::from_secs(1);

/// How much less than a shard the recorder has to say about a core that both want: a late packet
/// in a call is worse than a late one in a file. Low enough that it gets on while shards are busy.
const NICENESS: i32 = 10;

/// Copies taken between two looks at the time.
const COPIES_PER_TURN: usize = 16_384;

/// What the recorder is told once, at start-up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of all recordings.
    pub path: PathBuf,
    /// Where in it each recording has its own.
    pub template: Template,
    /// What kind of files are made.
    pub format: Format,
    /// How long missing packets are awaited.
    pub jitter: jitter::Options,
    /// Free space of the disk below which nothing is recorded, in bytes.
    pub min_free_bytes: u64,
    /// How long recordings are kept; `None` for ever.
    pub retention: Option<Duration>,
    /// What is done with each that has ended.
    pub after: after::Options,
}

/// The signalling thread's ends of the recorder.
#[derive(Debug)]
pub struct Desk {
    /// What is to be recorded.
    pub orders: Sender<Order>,
    /// What became of it.
    pub notices: mpsc::Receiver<Notice>,
}

/// Starts the recorder's thread. It ends, and finishes all files, when the orders' sender is gone.
///
/// # Errors
///
/// When the thread cannot be started.
pub fn start(options: Options, copies: Receiver<Copied>) -> io::Result<(Desk, JoinHandle<()>)> {
    let after = After::start(options.after.clone())?;
    let (orders, ordered) = crossbeam_channel::bounded(ORDER_QUEUE);
    let (tell, notices) = mpsc::channel(NOTICE_QUEUE);
    let thread = thread::Builder::new()
        .name("record".to_owned())
        .spawn(move || {
            // Linux keeps niceness for each thread. Where it may not be changed nothing is lost.
            let _ = rustix::process::nice(NICENESS);
            run(options, after, &ordered, &copies, &tell);
        })?;
    Ok((Desk { orders, notices }, thread))
}

fn run(
    options: Options,
    after: Option<After>,
    orders: &Receiver<Order>,
    copies: &Receiver<Copied>,
    tell: &mpsc::Sender<Notice>,
) {
    let mut recorder = Recorder::new(clock(), options, after);
    let mut waiting: Option<Notice> = None;
    while await_turn(&mut recorder, orders) {
        let now = clock();
        for copied in copies.try_iter().take(COPIES_PER_TURN) {
            // What is copied for a recording comes after the order to begin it.
            if !orders.is_empty() {
                handle_orders(&mut recorder, orders);
            }
            recorder.handle_copied(now, copied);
        }
        recorder.handle_timeout(now);
        while let Some(notice) = waiting.take().or_else(|| recorder.poll_notice()) {
            match tell.try_send(notice) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(notice)) => {
                    waiting = Some(notice);
                    break;
                }
                // Nobody listens any more: the process is ending.
                Err(mpsc::error::TrySendError::Closed(_)) => break,
            }
        }
    }
    let now = clock();
    for copied in copies.try_iter() {
        recorder.handle_copied(now, copied);
    }
    recorder.shutdown(now);
}

/// Waits for what is to be done, and takes in the orders; `false` when nobody gives any more.
///
/// While something is recorded it sleeps: to wait for an order costs more, for the channel spins
/// and yields before it sleeps, and that on a core where a shard has packets to forward.
fn await_turn(recorder: &mut Recorder, orders: &Receiver<Order>) -> bool {
    if recorder.is_idle() {
        match orders.recv_timeout(IDLE_TICK) {
            Ok(order) => recorder.handle_order(clock(), order),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    } else {
        thread::park_timeout(TICK);
    }
    handle_orders(recorder, orders)
}

/// Takes in the orders that wait; `false` when nobody gives any more.
fn handle_orders(recorder: &mut Recorder, orders: &Receiver<Order>) -> bool {
    loop {
        match orders.try_recv() {
            Ok(order) => recorder.handle_order(clock(), order),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

/// The one place where the recorder reads the clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the recorder reads the clock"
)]
fn clock() -> Instant {
    Instant::now()
}

/// The wall clock, in milliseconds since 1970.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the recorder reads the wall clock"
)]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
