//! What participants tell one another, and whom it reaches. Pure.

use serde_json::{Map, Value};

use crate::id::{PeerId, RoomId, TrackId};
use crate::signal::directory::{Directory, Member, MutedBy, SocketId};
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
/// `no-such-track` when it does not publish it, `not-permitted` when an administrator has muted
/// it.
pub fn mute(
    peer: PeerId,
    track: &str,
    muted: bool,
    directory: &mut Directory,
) -> Result<Vec<Output>, Problem> {
    let id = TrackId::parse(track).filter(|track| track.peer == peer);
    let track = id.and_then(|id| directory.track_mut(id));
    let Some(track) = track else {
        return Err(Problem::new(Code::NoSuchTrack, "you publish no such track"));
    };
    if track.muted == Some(MutedBy::Admin) {
        let text = "an administrator has muted this track";
        return Err(Problem::new(Code::NotPermitted, text));
    }
    track.muted = muted.then_some(MutedBy::Publisher);
    let id = track.info.id;
    Ok(vec![tell_muted(id, muted, directory)])
}

/// Tells everyone in the room of a track that it is muted, or no longer.
#[must_use]
pub fn tell_muted(track: TrackId, muted: bool, directory: &Directory) -> Output {
    let message = ServerMessage::TrackMuted {
        participant_id: Shown(track.peer),
        track_id: Shown(track),
        muted,
    };
    let room = directory.room_of(track.peer);
    let sockets = room.map_or_else(Vec::new, |room| everyone(room, directory));
    Output::Tell(sockets, message)
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
            let member = addressee(from, to, directory)?;
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

/// A participant's own message to another one of its room, for a connection between the two.
/// Whom it is from is the server's word.
///
/// # Errors
///
/// `no-such-participant` when `to` is not in the room.
pub fn pass_on(
    from: PeerId,
    to: &str,
    mut fields: Map<String, Value>,
    directory: &Directory,
) -> Result<Vec<Output>, Problem> {
    let member = addressee(from, to, directory)?;
    fields.insert("from".to_owned(), from.to_string().into());
    let message = ServerMessage::Relayed(fields);
    Ok(vec![Output::Tell(vec![member.socket], message)])
}

/// A participant of the sender's room that the sender may know of.
fn addressee<'a>(from: PeerId, to: &str, directory: &'a Directory) -> Result<&'a Member, Problem> {
    let room = directory.room_of(from);
    PeerId::parse(to)
        .filter(|to| directory.room_of(*to) == room)
        .and_then(|to| directory.member(to))
        .filter(|member| !member.is_hidden)
        .ok_or_else(|| {
            let text = "nobody of this name is in the room";
            Problem::new(Code::NoSuchParticipant, text)
        })
}

/// The tracks of these names, which others in the peer's room publish.
///
/// # Errors
///
/// `no-such-track` when one of them is not.
pub fn tracks_of_others(
    peer: PeerId,
    names: &[String],
    directory: &Directory,
) -> Result<Vec<TrackId>, Problem> {
    let known = |name: &String| track_of_other(peer, name, directory);
    let tracks: Option<Vec<_>> = names.iter().map(known).collect();
    tracks.ok_or_else(|| {
        let text = "nobody else in the room publishes such a track";
        Problem::new(Code::NoSuchTrack, text)
    })
}

/// A track of this name that somebody else in the room publishes.
#[must_use]
pub fn track_of_other(peer: PeerId, name: &str, directory: &Directory) -> Option<TrackId> {
    let id = TrackId::parse(name).filter(|id| id.peer != peer)?;
    let publisher = directory.member(id.peer)?;
    let is_here = directory.room_of(id.peer) == directory.room_of(peer);
    let mut tracks = publisher.tracks.iter();
    (is_here && tracks.any(|track| track.info.id == id)).then_some(id)
}
