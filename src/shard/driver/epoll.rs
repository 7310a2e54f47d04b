//! The epoll driver: a plain thread that sleeps on its socket and an eventfd.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::mailbox::Waker;
use crate::shard::sys;
use crate::shard::turn::{Next, Parts, Turn};

/// Where a shard sleeps under epoll.
pub(in crate::shard) struct Bed {
    epoll: sys::Epoll,
    bell: Arc<Bell>,
}

/// Rung by other threads.
struct Bell {
    /// Whether it was rung since the shard last woke: further rings need no system call.
    rung: AtomicBool,
    event: File,
}

impl Bed {
    pub(in crate::shard) fn new() -> io::Result<Self> {
        let event = sys::event_fd()?;
        let epoll = sys::Epoll::new()?;
        epoll.watch(event.as_fd(), libc::EPOLLIN)?;
        let bell = Bell {
            rung: AtomicBool::new(false),
            event,
        };
        Ok(Self {
            epoll,
            bell: Arc::new(bell),
        })
    }

    pub(in crate::shard) fn waker(&self) -> Waker {
        let bell = Arc::clone(&self.bell);
        Waker::new(move || bell.ring())
    }

    /// Turns the shard until it is stopped.
    pub(in crate::shard) fn run(self, parts: Parts, ready: impl FnOnce()) -> io::Result<()> {
        let mut turn = Turn::new(parts);
        let mut watched = libc::EPOLLIN;
        self.epoll.watch(turn.socket().as_fd(), watched)?;
        ready();
        loop {
            match turn.run() {
                Next::Again => {}
                Next::Stop => return Ok(()),
                Next::Sleep(longest) => {
                    let blocked = if turn.is_blocked() { libc::EPOLLOUT } else { 0 };
                    if watched != libc::EPOLLIN | blocked {
                        watched = libc::EPOLLIN | blocked;
                        self.epoll.watch(turn.socket().as_fd(), watched)?;
                    }
                    if self.epoll.wait(longest, self.bell.event.as_fd())? {
                        self.bell.hush();
                    }
                }
            }
        }
    }
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // It fails only when the counter is full: then the shard is being woken already.
            let _ = (&self.event).write(&1_u64.to_ne_bytes());
        }
    }

    /// Must come after a ring and before the queues are looked at: what is queued after them
    /// rings again.
    fn hush(&self) {
        let _ = (&self.event).read(&mut [0; 8]);
        self.rung.swap(false, Ordering::AcqRel);
    }
}
