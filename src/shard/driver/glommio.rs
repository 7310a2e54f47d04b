//! The glommio driver: an executor whose only task turns the shard.
//!
//! Of glommio only the executor, timers and waiting for readability are used; datagrams go
//! through the same system calls as under epoll. (Its `send_to` sends one byte of a datagram
//! when the socket's buffer is full.)

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use glommio::net::UdpSocket;
use glommio::timer::Timer;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::mailbox::Waker;
use crate::shard::sys;
use crate::shard::turn::{Next, Parts, Turn};

/// Memory glommio registers with the kernel: it moves no payload, so the least it takes.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// Where a shard sleeps under glommio.
#[derive(Default)]
pub(in crate::shard) struct Bed(Arc<Bell>);

/// Rung by other threads.
#[derive(Default)]
struct Bell {
    /// Whether it was rung since the shard last woke.
    rung: AtomicBool,
    sleeper: AtomicWaker,
}

/// Builds an executor on a thread of its own: where a limit stands in the way, glommio panics.
pub(in crate::shard) fn probe() -> io::Result<()> {
    let build = || executor().map(drop);
    let probing = thread::Builder::new().name("probe".into()).spawn(build)?;
    let refused = || io::Error::other("glommio could not set up its rings");
    probing.join().unwrap_or_else(|_| Err(refused()))
}

impl Bed {
    pub(in crate::shard) fn waker(&self) -> Waker {
        let bell = Arc::clone(&self.0);
        Waker::new(move || {
            if !bell.rung.swap(true, Ordering::AcqRel) {
                bell.sleeper.wake();
            }
        })
    }

    /// Turns the shard until it is stopped.
    pub(in crate::shard) fn run(self, parts: Parts, ready: impl FnOnce()) -> io::Result<()> {
        executor()?.run(async move {
            let mut turn = Turn::new(parts);
            let mut readiness = Readiness::new(&turn)?;
            ready();
            loop {
                match turn.run() {
                    Next::Again => {}
                    Next::Sleep(longest) => self.sleep(longest, &mut readiness).await,
                    Next::Stop => break,
                }
            }
            // glommio's wakers should end on their own thread.
            drop(self.0.sleeper.take());
            Ok(())
        })
    }

    async fn sleep(&self, longest: Option<Duration>, readiness: &mut Readiness) {
        let mut timer = longest.map(Timer::new);
        poll_fn(|context| {
            self.0.sleeper.register(context.waker());
            let woken = self.0.rung.swap(false, Ordering::AcqRel)
                || readiness.poll(context).is_ready()
                || timer
                    .as_mut()
                    .is_some_and(|timer| Pin::new(timer).poll(context).is_ready());
            if woken {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// Waits for datagrams without taking them.
struct Readiness {
    socket: Rc<UdpSocket>,
    /// Outlives a sleep that something else ended: to give it up and ask again costs more.
    waiting: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Readiness {
    fn new(turn: &Turn) -> io::Result<Self> {
        let socket = Rc::new(sys::glommio_socket(turn.socket().as_fd())?);
        Ok(Self {
            socket,
            waiting: None,
        })
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let waiting = self.waiting.get_or_insert_with(|| {
            let socket = Rc::clone(&self.socket);
            Box::pin(async move {
                // An error is the socket's to report again when it is read.
                let _ = socket.peek_from(&mut [0; 1]).await;
            })
        });
        let polled = waiting.as_mut().poll(context);
        if polled.is_ready() {
            self.waiting = None;
        }
        polled
    }
}

/// An executor on this thread, which is already where it should run.
fn executor() -> io::Result<LocalExecutor> {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(IO_MEMORY_BYTES);
    builder
        .make()
        .map_err(|error| io::Error::other(error.to_string()))
}
