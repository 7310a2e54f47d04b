//! What goes out to sockets and shards, and what becomes of those that do not take it.

use axum::extract::ws::Utf8Bytes;

use super::{Client, Hub};
use crate::engine::command::Command;
use crate::signal::Now;
use crate::signal::directory::SocketId;
use crate::signal::message::{Reference, ServerMessage};
use crate::signal::session::{CloseCode, Output};

impl Hub {
    /// Returns those whose outbox is full.
    pub(super) fn tell(&mut self, sockets: &[SocketId], message: &ServerMessage) -> Vec<SocketId> {
        if sockets.is_empty() {
            return Vec::new();
        }
        let text = Utf8Bytes::from(message.to_json());
        let mut slow = Vec::new();
        for socket in sockets {
            // A client that was found too slow a moment ago is still named by what was decided
            // before.
            let Some(client) = self.clients.get(socket) else {
                continue;
            };
            let outbox = client.outbox.as_ref();
            if outbox.is_some_and(|outbox| outbox.push(text.clone()).is_err()) {
                slow.push(*socket);
            }
        }
        slow
    }

    /// Ends a client that does not read, without waiting for its outbox.
    pub(super) fn cut(&mut self, now: Now, socket: SocketId) -> Vec<Output> {
        let Some(mut client) = self.remove(socket) else {
            return Vec::new();
        };
        if let Some(outbox) = client.outbox {
            outbox.cut();
        }
        self.signalling.slow_readers += 1;
        if let Some(held) = self.log.slow.pass(now.at) {
            tracing::info!(held, "a client reads too slowly and was disconnected");
        }
        client.session.handle_cut(&mut self.directory)
    }

    pub(super) fn close(&mut self, socket: SocketId, code: CloseCode) {
        if let Some(Client { outbox, .. }) = self.remove(socket) {
            if let Some(outbox) = outbox {
                outbox.close(code);
            }
            self.signalling.sockets_refused += u64::from(code != CloseCode::GoingAway);
        }
    }

    pub(super) fn undelivered(
        &mut self,
        now: Now,
        socket: SocketId,
        command: &Command,
        reference: Option<Reference>,
    ) -> Vec<Output> {
        self.signalling.server_busy += 1;
        if let Some(held) = self.log.busy.pass(now.at) {
            tracing::warn!(
                held,
                "a shard's command queue is full: requests are refused"
            );
        }
        let Some(client) = self.clients.get_mut(&socket) else {
            return Vec::new();
        };
        client
            .session
            .handle_undelivered(command, reference, &mut self.directory)
    }
}
