//! Moves the frames of one WebSocket between its client and the hub. Decides nothing.

use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use futures_util::SinkExt;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite;

use crate::signal::clock;
use crate::signal::directory::SocketId;
use crate::signal::hub::Handle;
use crate::signal::limits;
use crate::signal::session::CloseCode;

/// The hub's end of the queue to one socket, bounded in messages and in bytes.
#[derive(Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Outgoing>,
    bytes: Arc<Semaphore>,
    max_bytes: u32,
    cut: Arc<Notify>,
}

/// The socket's end of that queue.
#[derive(Debug)]
pub struct Mail {
    socket: SocketId,
    queue: mpsc::Receiver<Outgoing>,
    cut: Arc<Notify>,
    /// Dropped with the socket, which tells the hub that it has ended.
    _open: mpsc::Sender<()>,
}

#[derive(Debug)]
enum Outgoing {
    /// The permit is the room the text takes in the queue.
    Text(Utf8Bytes, OwnedSemaphorePermit),
    Close(CloseCode),
}

/// What one open WebSocket hears from its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message of this many bytes.
    Binary(usize),
    /// A ping frame.
    Ping,
    /// A message past [`limits::MAX_FRAME_BYTES`]; it reads no more.
    TooBig,
    /// Its client has closed it, or we have.
    Gone,
    /// It is gone without a word: its client may come back.
    Lost,
}

/// The outbox has no room: its reader is too slow, or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxFull;

/// The queue to one socket.
#[must_use]
pub fn mailbox(
    socket: SocketId,
    limits: &limits::Options,
    open: mpsc::Sender<()>,
) -> (Outbox, Mail) {
    let (sender, receiver) = mpsc::channel(limits.outbox_messages);
    let cut = Arc::new(Notify::new());
    let outbox = Outbox {
        queue: sender,
        bytes: Arc::new(Semaphore::new(limits.outbox_bytes as usize)),
        max_bytes: limits.outbox_bytes,
        cut: cut.clone(),
    };
    let mail = Mail {
        socket,
        queue: receiver,
        cut,
        _open: open,
    };
    (outbox, mail)
}

impl Outbox {
    /// Queues a message.
    ///
    /// # Errors
    ///
    /// [`OutboxFull`].
    pub fn push(&self, text: Utf8Bytes) -> Result<(), OutboxFull> {
        let bytes = u32::try_from(text.len())
            .unwrap_or(u32::MAX)
            .min(self.max_bytes);
        let room = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        let room = room.map_err(|_| OutboxFull)?;
        match self.queue.try_send(Outgoing::Text(text, room)) {
            Err(TrySendError::Full(_)) => Err(OutboxFull),
            // A client that has left is not slow: word of that is on its way.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Ends the socket once what is queued is written; at once when the queue is full.
    pub fn close(self, code: CloseCode) {
        if self.queue.try_send(Outgoing::Close(code)).is_err() {
            self.cut();
        }
    }

    /// Ends the socket without writing what is queued.
    pub fn cut(&self) {
        self.cut.notify_one();
    }
}

/// How a socket's service ended.
enum End {
    /// The client has said goodbye.
    Gone,
    /// The client has gone without a word, or is as good as gone.
    Lost,
    /// We close it.
    Close(u16, &'static str),
}

const SLOW: End = End::Close(close_code::POLICY, "reads too slowly");
const STOPPING: End = End::Close(close_code::AWAY, "the server stops");

/// Serves one WebSocket until it ends. `opened` is how its hub calls a new one.
pub async fn serve<I: From<(SocketId, Heard)>>(
    mut socket: WebSocket,
    hub: Handle<I>,
    opened: impl FnOnce(oneshot::Sender<Mail>) -> I,
) {
    let Ok(mut mail) = hub.ask(opened).await else {
        return;
    };
    let end = pump(&mut socket, &mut mail, &hub).await;
    let last = match end {
        End::Lost => Heard::Lost,
        End::Gone | End::Close(..) => Heard::Gone,
    };
    // A hub that has ended has forgotten the socket anyway.
    let _ = hub.tell((mail.socket, last).into()).await;
    say_goodbye(socket, end).await;
}

/// Closes a WebSocket that has just opened, for this reason.
pub async fn refuse(socket: WebSocket, reason: &'static str) {
    let end = End::Close(close_code::POLICY, reason);
    say_goodbye(socket, end).await;
}

async fn say_goodbye(mut socket: WebSocket, end: End) {
    let goodbye = async {
        if let End::Close(code, reason) = end {
            let reason = Utf8Bytes::from_static(reason);
            let frame = Message::Close(Some(CloseFrame { code, reason }));
            // The client may be gone first; then there is nobody to wait for.
            if socket.send(frame).await.is_err() {
                return;
            }
        }
        // tungstenite answers the client's close frame when it is read on.
        while let Some(Ok(_)) = socket.recv().await {}
    };
    let _ = timeout(limits::CLOSE_TIMEOUT, goodbye).await;
}

async fn pump<I: From<(SocketId, Heard)>>(
    socket: &mut WebSocket,
    mail: &mut Mail,
    hub: &Handle<I>,
) -> End {
    let mut reads = true;
    let mut heard = clock();
    let mut ping = interval(limits::PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once.
    ping.tick().await;
    loop {
        let frame = tokio::select! {
            () = mail.cut.notified() => return SLOW,
            outgoing = mail.queue.recv() => match outgoing {
                Some(Outgoing::Text(text, _room)) => Message::Text(text),
                Some(Outgoing::Close(code)) => return close(code),
                None => return STOPPING,
            },
            received = socket.recv(), if reads => {
                heard = clock();
                let what = match received {
                    None => return End::Lost,
                    Some(Ok(Message::Text(text))) => Heard::Text(text),
                    Some(Ok(Message::Binary(bytes))) => Heard::Binary(bytes.len()),
                    // tungstenite answers it.
                    Some(Ok(Message::Ping(_))) => Heard::Ping,
                    Some(Ok(Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_))) => return End::Gone,
                    Some(Err(e)) => match unreadable(e) {
                        Unreadable::TooBig => {
                            // Nothing more can be read, but the explanation is still to come.
                            reads = false;
                            Heard::TooBig
                        }
                        Unreadable::Ended(end) => return end,
                    },
                };
                if hub.tell((mail.socket, what).into()).await.is_err() {
                    return STOPPING;
                }
                continue;
            }
            _ = ping.tick() => {
                if clock().saturating_duration_since(heard) > limits::SILENCE_TIMEOUT {
                    return End::Lost;
                }
                Message::Ping(axum::body::Bytes::new())
            }
        };
        let writing = write(socket, frame, &mut mail.queue);
        tokio::select! {
            () = mail.cut.notified() => return SLOW,
            written = timeout(limits::WRITE_TIMEOUT, writing) => match written {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(code))) => return close(code),
                Ok(Err(_)) => return End::Lost,
                Err(_) => return SLOW,
            },
        }
    }
}

/// Writes a message and those that wait behind it. They leave together: a system call, and the
/// packet that it becomes, cost more than a message. Returns how to close, where that was next.
async fn write(
    socket: &mut WebSocket,
    first: Message,
    queue: &mut mpsc::Receiver<Outgoing>,
) -> Result<Option<CloseCode>, axum::Error> {
    let mut closing = None;
    socket.feed(first).await?;
    for _ in 1..limits::WRITE_TOGETHER_MESSAGES {
        match queue.try_recv() {
            Ok(Outgoing::Text(text, _room)) => socket.feed(Message::Text(text)).await?,
            Ok(Outgoing::Close(code)) => {
                closing = Some(code);
                break;
            }
            // Nothing waits; that the hub has ended is seen by who asks next.
            Err(_) => break,
        }
    }
    socket.flush().await?;
    Ok(closing)
}

fn close(code: CloseCode) -> End {
    match code {
        CloseCode::Policy => End::Close(close_code::POLICY, "see the message before"),
        CloseCode::Replaced => End::Close(close_code::POLICY, "replaced"),
        CloseCode::TooBig => End::Close(close_code::SIZE, "message too big"),
        CloseCode::GoingAway => STOPPING,
    }
}

/// What a failure to read means.
enum Unreadable {
    /// The message is longer than [`limits::MAX_FRAME_BYTES`].
    TooBig,
    /// The socket cannot go on.
    Ended(End),
}

fn unreadable(error: axum::Error) -> Unreadable {
    match error.into_inner().downcast_ref() {
        Some(tungstenite::Error::Capacity(_)) => Unreadable::TooBig,
        Some(tungstenite::Error::Utf8(_)) => {
            Unreadable::Ended(End::Close(close_code::INVALID, "text is not UTF-8"))
        }
        Some(tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        )) => Unreadable::Ended(End::Lost),
        Some(tungstenite::Error::Protocol(_)) => {
            Unreadable::Ended(End::Close(close_code::PROTOCOL, "no WebSocket frame"))
        }
        _ => Unreadable::Ended(End::Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(limits: &limits::Options) -> (Outbox, Mail) {
        mailbox(SocketId(1), limits, mpsc::channel(1).0)
    }

    fn text(bytes: usize) -> Utf8Bytes {
        "x".repeat(bytes).into()
    }

    #[test]
    fn an_outbox_is_full_when_its_bytes_are_and_empties_as_it_is_written() {
        let limits = limits::Options {
            outbox_bytes: 100,
            ..limits::Options::default()
        };
        let (outbox, mut mail) = queue(&limits);
        assert_eq!(outbox.push(text(60)), Ok(()));
        assert_eq!(outbox.push(text(41)), Err(OutboxFull));
        assert_eq!(outbox.push(text(40)), Ok(()));
        assert_eq!(outbox.push(text(1)), Err(OutboxFull));
        drop(mail.queue.try_recv().unwrap());
        assert_eq!(outbox.push(text(60)), Ok(()));
    }

    #[test]
    fn a_client_that_has_left_is_not_taken_for_slow() {
        let (outbox, mail) = queue(&limits::Options::default());
        drop(mail);
        assert_eq!(outbox.push(text(1)), Ok(()));
    }

    #[test]
    fn a_message_longer_than_the_outbox_fits_when_nothing_else_waits() {
        let limits = limits::Options {
            outbox_bytes: 100,
            ..limits::Options::default()
        };
        let (outbox, mut mail) = queue(&limits);
        assert_eq!(outbox.push(text(1000)), Ok(()));
        assert_eq!(outbox.push(text(1)), Err(OutboxFull));
        drop(mail.queue.try_recv().unwrap());
        assert_eq!(outbox.push(text(1)), Ok(()));
        assert_eq!(outbox.push(text(1000)), Err(OutboxFull));
    }

    #[test]
    fn an_outbox_is_full_when_it_has_its_number_of_messages() {
        let limits = limits::Options {
            outbox_messages: 2,
            ..limits::Options::default()
        };
        let (outbox, _mail) = queue(&limits);
        let pushed = (0..5).filter(|_| outbox.push(text(1)).is_ok()).count();
        assert_eq!(pushed, 2);
    }
}
