//! Serves the sockets of one dialect: one task that owns its state and waits for nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::signal::clock;
use crate::signal::dialect::{Caller, Dialect, Output, Refusal};
use crate::signal::directory::SocketId;
use crate::signal::hub::{self, Handle};
use crate::signal::limits::{self, LogGate, Rate};
use crate::signal::session::CloseCode;
use crate::signal::sockets::Sockets;
use crate::signal::websocket::{Heard, Mail, Outbox};

/// What a switchboard is told or asked.
#[derive(Debug)]
pub enum Input {
    /// A WebSocket is open and wants its mail.
    Opened(Box<Caller>, oneshot::Sender<Mail>),
    /// It heard something.
    Heard(SocketId, Heard),
    /// What has been counted?
    Figures(oneshot::Sender<Figures>),
}

impl From<(SocketId, Heard)> for Input {
    fn from((socket, heard): (SocketId, Heard)) -> Self {
        Self::Heard(socket, heard)
    }
}

/// What one dialect has counted since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Open sockets.
    pub sockets: u64,
    /// Rooms or calls.
    pub meetings: u64,
    /// Messages taken in.
    pub messages_in: u64,
    /// Messages given out, one for each socket.
    pub messages_out: u64,
    /// Messages refused.
    pub refused: u64,
    /// Sockets closed because they broke a rule, or were replaced.
    pub sockets_refused: u64,
    /// Sockets closed because their readers were too slow.
    pub slow_readers: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Switchboard<D> {
    dialect: D,
    limits: Arc<limits::Options>,
    inputs: mpsc::Receiver<Input>,
    lines: BTreeMap<SocketId, Line>,
    sockets: Sockets,
    figures: Figures,
    slow: LogGate,
}

#[derive(Debug)]
struct Line {
    outbox: Outbox,
    rate: Rate,
}

impl<D: Dialect> Switchboard<D> {
    /// A switchboard without sockets.
    #[must_use]
    pub fn new(dialect: D, now: Instant, limits: Arc<limits::Options>) -> (Self, Handle<Input>) {
        let (handle, inputs) = Handle::new();
        let switchboard = Self {
            dialect,
            limits,
            inputs,
            lines: BTreeMap::new(),
            sockets: Sockets::new(),
            figures: Figures::default(),
            slow: LogGate::new(now),
        };
        (switchboard, handle)
    }

    /// Runs until the sender of `stop` is dropped; then waits a moment for the sockets to close.
    pub async fn run(mut self, hub: Handle, mut stop: watch::Receiver<()>) {
        loop {
            tokio::select! {
                // Nobody sends: it only ever ends.
                _ = stop.changed() => break,
                input = self.inputs.recv() => match input {
                    Some(input) => self.handle_input(clock(), input),
                    None => break,
                },
            }
            while let Some(happening) = self.dialect.poll_happening() {
                // The hub waits for nobody, so this is soon done; one that has ended tells nobody.
                let _ = hub.tell(hub::Input::Happened(happening)).await;
            }
        }
        for (_, line) in std::mem::take(&mut self.lines) {
            line.outbox.close(CloseCode::GoingAway);
        }
        drop(self.inputs);
        self.sockets.closed().await;
    }

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Opened(caller, reply) => self.handle_opened(now, *caller, reply),
            Input::Heard(socket, heard) => self.handle_heard(now, socket, heard),
            // Whoever asked and did not wait for the answer needs none.
            Input::Figures(reply) => drop(reply.send(self.figures())),
        }
    }

    fn handle_opened(&mut self, now: Instant, caller: Caller, reply: oneshot::Sender<Mail>) {
        let Some((socket, outbox)) = self.sockets.open(&self.limits, reply) else {
            return;
        };
        let rate = Rate::new(now, &self.limits);
        self.lines.insert(socket, Line { outbox, rate });
        let outputs = self.dialect.handle_opened(socket, caller);
        self.act(now, outputs);
    }

    fn handle_heard(&mut self, now: Instant, socket: SocketId, heard: Heard) {
        // What a socket heard before it was closed may still be on its way.
        let Some(line) = self.lines.get_mut(&socket) else {
            return;
        };
        self.figures.messages_in += 1;
        let outputs = if !line.rate.take(now, length(&heard)) {
            Err(Refusal::RateExceeded)
        } else {
            match heard {
                Heard::Gone | Heard::Lost => return self.hang_up(now, socket, None),
                Heard::Text(text) => self.dialect.handle_text(socket, &text),
                Heard::Binary(_) => Err(Refusal::BinaryFrame),
                Heard::TooBig => Err(Refusal::MessageTooBig),
                Heard::Ping => Ok(Vec::new()),
            }
        };
        match outputs {
            Ok(outputs) => self.act(now, outputs),
            Err(refusal) => self.refuse(now, socket, refusal),
        }
    }

    fn refuse(&mut self, now: Instant, socket: SocketId, refusal: Refusal) {
        self.figures.refused += 1;
        self.act(now, vec![Output::Tell(vec![socket], refusal.to_value())]);
        match refusal {
            Refusal::RateExceeded => self.hang_up(now, socket, Some(CloseCode::Policy)),
            Refusal::MessageTooBig => self.hang_up(now, socket, Some(CloseCode::TooBig)),
            _ => {}
        }
    }

    /// Forgets a socket; with a code, closes it.
    fn hang_up(&mut self, now: Instant, socket: SocketId, code: Option<CloseCode>) {
        self.close(socket, code);
        let outputs = self.dialect.handle_gone(socket);
        self.act(now, outputs);
    }

    fn close(&mut self, socket: SocketId, code: Option<CloseCode>) {
        if let (Some(line), Some(code)) = (self.lines.remove(&socket), code) {
            self.figures.sockets_refused += 1;
            line.outbox.close(code);
        }
    }

    fn act(&mut self, now: Instant, outputs: Vec<Output>) {
        let mut due = VecDeque::from(outputs);
        while let Some(output) = due.pop_front() {
            match output {
                Output::Tell(sockets, message) => {
                    for slow in self.tell(&sockets, &message) {
                        self.cut(now, slow);
                        due.extend(self.dialect.handle_gone(slow));
                    }
                }
                Output::Replaced(socket) => {
                    let _ = self.tell(&[socket], &Refusal::Replaced.to_value());
                    self.close(socket, Some(CloseCode::Replaced));
                }
            }
        }
    }

    /// Returns those whose outbox is full.
    fn tell(&mut self, sockets: &[SocketId], message: &Value) -> Vec<SocketId> {
        let text = Utf8Bytes::from(message.to_string());
        let mut slow = Vec::new();
        for socket in sockets {
            // One that was found too slow a moment ago is still named by what was decided before.
            let Some(line) = self.lines.get(socket) else {
                continue;
            };
            match line.outbox.push(text.clone()) {
                Ok(()) => self.figures.messages_out += 1,
                Err(_) => slow.push(*socket),
            }
        }
        slow
    }

    /// Ends a socket that is not read, without waiting for its outbox.
    fn cut(&mut self, now: Instant, socket: SocketId) {
        let Some(line) = self.lines.remove(&socket) else {
            return;
        };
        line.outbox.cut();
        self.figures.slow_readers += 1;
        if let Some(held) = self.slow.pass(now) {
            tracing::info!(held, "a client reads too slowly and was disconnected");
        }
    }

    fn figures(&self) -> Figures {
        Figures {
            sockets: self.lines.len() as u64,
            meetings: self.dialect.meetings() as u64,
            ..self.figures.clone()
        }
    }
}

fn length(heard: &Heard) -> usize {
    match heard {
        Heard::Text(text) => text.len(),
        Heard::Binary(bytes) => *bytes,
        Heard::Ping | Heard::TooBig | Heard::Gone | Heard::Lost => 0,
    }
}
