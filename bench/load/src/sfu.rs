//! The seam between a client and a kind of server: what to say over its WebSocket, and when.
//!
//! An adapter is a pure state machine of one client. It is told what happened and says what to
//! do; sockets, ICE, DTLS and media are the client's. To measure another server, write one: a
//! publisher's must turn [`Told::Offer`] into [`Say::Answered`], a subscriber's must bring
//! [`Say::Offered`] and take [`Told::Answer`] (or offer like a publisher, if the server wants
//! that).

mod corelay;
mod janus;

use crate::plan::SfuKind;

/// Something happened.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    /// The WebSocket is open.
    Opened,
    /// The server said this.
    Text(&'a str),
    /// The offer that [`Say::Offer`] asked for.
    Offer(String),
    /// The answer to [`Say::Offered`].
    Answer(String),
    /// Some seconds have passed.
    Tick,
    /// The client is about to close the socket.
    Leaving,
}

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Say {
    /// Send this to the server.
    Text(String),
    /// Make an offer of everything the client publishes and this many receiving m-lines in all.
    Offer { audio: u32, video: u32 },
    /// The server answered the offer.
    Answered(String),
    /// The server offers.
    Offered(String),
    /// This client cannot go on.
    Failed(String),
}

/// Who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its room, from 0.
    pub(crate) room: u32,
    /// Its place in the room; the publishers come first.
    pub(crate) index: u32,
    /// Publishers of the room.
    pub(crate) publishers: u32,
    /// Whether it publishes.
    pub(crate) publishes: bool,
    /// Whether it watches the room's publishers.
    pub(crate) watches: bool,
    /// Whether publishers send sound, and pictures.
    pub(crate) audio: bool,
    pub(crate) video: bool,
}

/// One client's signalling.
pub(crate) trait Sfu: Send {
    /// What the WebSocket asks for as `Sec-WebSocket-Protocol`.
    fn subprotocol(&self) -> Option<&'static str>;

    /// Takes in what happened and says what to do about it.
    fn handle(&mut self, told: Told<'_>, say: &mut Vec<Say>);
}

/// The adapter for one client.
pub(crate) fn adapter(kind: SfuKind, member: Member) -> Box<dyn Sfu> {
    match kind {
        SfuKind::Corelay => Box::new(corelay::Corelay::new(member)),
        SfuKind::Janus => Box::new(janus::Janus::new(member)),
    }
}
