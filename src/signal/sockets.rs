//! The open sockets of one task that serves some: their names, and whether all have closed.

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::signal::directory::SocketId;
use crate::signal::limits;
use crate::signal::websocket::{self, Mail, Outbox};

/// See the module.
#[derive(Debug)]
pub struct Sockets {
    opened: u64,
    /// A clone is in every open socket's mail, so that the end of the last one can be awaited.
    open: mpsc::Sender<()>,
    closed: mpsc::Receiver<()>,
}

impl Sockets {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        let (open, closed) = mpsc::channel(1);
        Self {
            opened: 0,
            open,
            closed,
        }
    }

    /// Gives a socket that waits for it its mail; `None` when it has closed meanwhile.
    pub fn open(
        &mut self,
        limits: &limits::Options,
        reply: oneshot::Sender<Mail>,
    ) -> Option<(SocketId, Outbox)> {
        self.opened += 1;
        let socket = SocketId(self.opened);
        let (outbox, mail) = websocket::mailbox(socket, limits, self.open.clone());
        reply.send(mail).ok()?;
        Some((socket, outbox))
    }

    /// Waits a moment for all to close, which those do whose outbox is closed. Whether they did:
    /// the others are dropped with the runtime.
    pub async fn closed(self) -> bool {
        let Self {
            open, mut closed, ..
        } = self;
        drop(open);
        timeout(limits::SHUTDOWN_TIMEOUT, closed.recv())
            .await
            .is_ok()
    }
}

impl Default for Sockets {
    fn default() -> Self {
        Self::new()
    }
}
