//! What participants tell one another, and whom it reaches. Pure.

use serde_json::Value;

use crate::id::{PeerId, RoomId, TrackId};
use crate::signal::directory::{Directory, SocketId};
use crate::signal::message::{ServerMessage, Shown};
use crate::signal::problem::{Code, Problem};
use crate::signal::session::Output;

/// Everyone in a room.
#[must_use]
pub fn everyone(room: &RoomId, directory: &Directory) -> Vec<SocketId> {
    let members = directory.members(room);
    members.iter().map(|member| member.socket).collect()
}

/// Everyone in the room of a peer but the peer.
#[must_use]
pub fn others(peer: PeerId, directory: &Directory) -> Vec<SocketId> {
    let members = directory.room_of(peer).map(|room| directory.members(room));
    let others = members.into_iter().flatten();
    others
        .filter(|member| member.peer != peer)
        .map(|member| member.socket)
        .collect()
}

/// A participant mutes or unmutes one of its tracks: everyone in its room is told.
///
/// # Errors
///
/// `no-such-track` when it does not publish it.
pub fn mute(
    peer: PeerId,
    track: &str,
    muted: bool,
    directory: &mut Directory,
) -> Result<Vec<Output>, Problem> {
    let track = TrackId::parse(track)
        .filter(|track| track.peer == peer && directory.set_muted(*track, muted))
        .ok_or_else(|| Problem::new(Code::NoSuchTrack, "you publish no such track"))?;
    let message = ServerMessage::TrackMuted {
        participant_id: Shown(peer),
        track_id: Shown(track),
        muted,
    };
    let room = directory.room_of(peer);
    let sockets = room.map_or_else(Vec::new, |room| everyone(room, directory));
    Ok(vec![Output::Tell(sockets, message)])
}

/// A participant says something to another one of its room, or to all others.
///
/// # Errors
///
/// `no-such-participant` when `to` is not in the room.
pub fn data(
    from: PeerId,
    to: Option<&str>,
    payload: Value,
    topic: Option<String>,
    directory: &Directory,
) -> Result<Vec<Output>, Problem> {
    let (to, sockets) = match to {
        None => (None, others(from, directory)),
        Some(to) => {
            let room = directory.room_of(from);
            let member = PeerId::parse(to)
                .filter(|to| directory.room_of(*to) == room)
                .and_then(|to| directory.member(to));
            let Some(member) = member else {
                let text = "nobody of this name is in the room";
                return Err(Problem::new(Code::NoSuchParticipant, text));
            };
            (Some(Shown(member.peer)), vec![member.socket])
        }
    };
    let message = ServerMessage::Data {
        from: Shown(from),
        to,
        payload,
        topic,
    };
    Ok(vec![Output::Tell(sockets, message)])
}
