//! What turns a shard: glommio where io_uring is allowed, else a plain thread with epoll.

pub(super) mod epoll;
pub(super) mod glommio;

use std::fmt;
use std::io;

use tracing::info;

use super::turn::Parts;
use super::{StartError, sys};
use crate::mailbox::Waker;

/// Which driver an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverChoice {
    /// glommio where the kernel allows io_uring, else epoll.
    #[default]
    Auto,
    /// glommio, or no start.
    Glommio,
    /// epoll.
    Epoll,
}

/// Which driver turns the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// A glommio executor per shard, waiting by io_uring.
    Glommio,
    /// A plain thread per shard, waiting by epoll.
    Epoll,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Glommio => "glommio",
            Self::Epoll => "epoll",
        })
    }
}

/// Settles which driver to use.
///
/// # Errors
///
/// [`StartError::IoUring`] when glommio is asked for and io_uring is refused.
pub(super) fn choose(choice: DriverChoice) -> Result<Driver, StartError> {
    if choice == DriverChoice::Epoll {
        return Ok(Driver::Epoll);
    }
    // Asked of the kernel first: where it refuses, glommio panics.
    match (
        sys::probe_io_uring().and_then(|()| glommio::probe()),
        choice,
    ) {
        (Ok(()), _) => Ok(Driver::Glommio),
        (Err(error), DriverChoice::Glommio) => Err(StartError::IoUring(error)),
        (Err(error), _) => {
            info!(%error, "io_uring is refused here: using the epoll driver");
            Ok(Driver::Epoll)
        }
    }
}

/// Where one shard sleeps, and what wakes it.
pub(super) enum Bed {
    Glommio(glommio::Bed),
    Epoll(epoll::Bed),
}

impl Bed {
    pub(super) fn new(driver: Driver) -> io::Result<Self> {
        Ok(match driver {
            Driver::Glommio => Self::Glommio(glommio::Bed::default()),
            Driver::Epoll => Self::Epoll(epoll::Bed::new()?),
        })
    }

    pub(super) fn waker(&self) -> Waker {
        match self {
            Self::Glommio(bed) => bed.waker(),
            Self::Epoll(bed) => bed.waker(),
        }
    }

    /// Turns the shard on this thread until it is stopped. `ready` is told, once, that it runs.
    ///
    /// # Errors
    ///
    /// Why the shard could not begin; `ready` is then not called.
    pub(super) fn run(self, parts: Parts, ready: impl FnOnce()) -> io::Result<()> {
        match self {
            Self::Glommio(bed) => bed.run(parts, ready),
            Self::Epoll(bed) => bed.run(parts, ready),
        }
    }
}
