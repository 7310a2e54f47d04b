//! The API's rooms and participants.
#![expect(
    unused_qualifications,
    reason = "what utoipa writes for the parameters of a query names them in full"
)]

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::refusal::{Body, Caller, ProblemDocument, Refused, peer_id, room_id};
use super::view::{
    MuteRequest, ParticipantList, RoomDetail, RoomList, RoomRequest, RoomStats, RoomView,
};
use crate::id::{RoomId, TrackId};
use crate::signal::directory::NewRoom;
use crate::signal::http::Site;
use crate::signal::hub::{Input, Question};
use crate::signal::limits;
use crate::signal::message::Participant;
use crate::signal::problem::{Code, Problem};

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// How many at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Those whose names come after this one.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    after: Option<String>,
}

/// Why somebody is removed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct KickQuery {
    /// Told to the participant.
    #[param(max_length = 128)]
    reason: Option<String>,
}

pub(super) type Fields<T> = Result<Query<T>, QueryRejection>;

pub(super) fn fields<T>(query: Fields<T>) -> Result<T, Refused> {
    match query {
        Ok(Query(fields)) => Ok(fields),
        Err(e) => Err(Refused::bad(Code::BadMessage, &e.body_text())),
    }
}

fn no_room() -> Refused {
    Refused::nothing(Code::NoSuchRoom, "there is no such room")
}

/// Make a room that is kept while nobody is in it.
#[utoipa::path(
    post,
    path = "/api/rooms",
    request_body = RoomRequest,
    responses(
        (status = 201, body = RoomView),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(site): State<Site>,
    caller: Caller,
    Body(wanted): Body<RoomRequest>,
) -> Result<Response, Refused> {
    caller.check(caller.access.check_create()).await?;
    let new = new_room(wanted)?;
    let maker = caller.visitor.network;
    let made = site
        .hub
        .ask(|reply| Input::Asked(Question::CreateRoom(new, maker, reply)))
        .await?;
    let room = made.map_err(Problem::from)?;
    let place = [(header::LOCATION, format!("/api/rooms/{}", room.id))];
    Ok((StatusCode::CREATED, place, Json(room)).into_response())
}

fn new_room(wanted: RoomRequest) -> Result<NewRoom, Refused> {
    let id = wanted.id.as_deref().map(room_id).transpose()?;
    let is_long = |name: &String| name.chars().count() > limits::MAX_NAME_CHARS;
    if wanted.name.as_ref().is_some_and(is_long) {
        let text = format!("\"name\" has at most {} characters", limits::MAX_NAME_CHARS);
        return Err(Refused::bad(Code::BadMessage, &text));
    }
    if wanted
        .max_participants
        .is_some_and(|most| !(1..=10_000).contains(&most))
    {
        let text = "\"maxParticipants\" is 1 to 10000";
        return Err(Refused::bad(Code::BadMessage, text));
    }
    Ok(NewRoom {
        id,
        name: wanted.name,
        max_participants: wanted.max_participants.map(|most| most as usize),
    })
}

/// The rooms there are.
#[utoipa::path(
    get,
    path = "/api/rooms",
    params(Page),
    responses(
        (status = 200, body = RoomList),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(site): State<Site>,
    caller: Caller,
    page: Fields<Page>,
) -> Result<Json<RoomList>, Refused> {
    caller.check(caller.access.check_list()).await?;
    let Page { limit, after } = fields(page)?;
    let limit = limit.unwrap_or(100);
    if !(1..=limits::MAX_PAGE).contains(&limit) {
        let text = format!("\"limit\" is 1 to {}", limits::MAX_PAGE);
        return Err(Refused::bad(Code::BadMessage, &text));
    }
    let after = after.as_deref().map(room_id).transpose()?;
    let rooms = site
        .hub
        .ask(|reply| Input::Asked(Question::ListRooms(after, limit as usize, reply)))
        .await?;
    Ok(Json(rooms))
}

/// One room and who is in it.
#[utoipa::path(
    get,
    path = "/api/rooms/{id}",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$")),
    responses(
        (status = 200, body = RoomDetail),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RoomDetail>, Refused> {
    let id = seen(&caller, &id).await?;
    let room = site
        .hub
        .ask(|reply| Input::Asked(Question::Room(id, reply)))
        .await?;
    room.map(Json).ok_or_else(no_room)
}

/// A room that the caller may look into: as its administrator, or as one who may list all.
pub(super) async fn seen(caller: &Caller, id: &str) -> Result<RoomId, Refused> {
    let id = room_id(id)?;
    let access = &caller.access;
    let verdict = access.check_admin(&id).or_else(|_| access.check_list());
    caller.check(verdict).await?;
    Ok(id)
}

/// A room whose participants the caller may remove and mute.
async fn administered(caller: &Caller, id: &str) -> Result<RoomId, Refused> {
    let id = room_id(id)?;
    caller.check(caller.access.check_admin(&id)).await?;
    Ok(id)
}

/// Delete a room: everyone in it is told `room-closed`.
#[utoipa::path(
    delete,
    path = "/api/rooms/{id}",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$")),
    responses(
        (status = 204),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    let id = room_id(&id)?;
    caller.check(caller.access.check_create()).await?;
    let was_there = site
        .hub
        .ask(|reply| Input::Asked(Question::DeleteRoom(id, reply)))
        .await?;
    was_there
        .then_some(StatusCode::NO_CONTENT)
        .ok_or_else(no_room)
}

/// What is counted of one room.
#[utoipa::path(
    get,
    path = "/api/rooms/{id}/stats",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$")),
    responses(
        (status = 200, body = RoomStats),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stats(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RoomStats>, Refused> {
    let id = seen(&caller, &id).await?;
    let stats = site
        .hub
        .ask(|reply| Input::Asked(Question::RoomStats(id, reply)))
        .await?;
    stats.map(Json).ok_or_else(no_room)
}

/// Who is in a room.
#[utoipa::path(
    get,
    path = "/api/rooms/{id}/participants",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$")),
    responses(
        (status = 200, body = ParticipantList),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn participants(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ParticipantList>, Refused> {
    let id = seen(&caller, &id).await?;
    let room = site
        .hub
        .ask(|reply| Input::Asked(Question::Room(id, reply)))
        .await?;
    let participants = room.ok_or_else(no_room)?.participants;
    Ok(Json(ParticipantList { participants }))
}

/// One participant.
#[utoipa::path(
    get,
    path = "/api/rooms/{id}/participants/{pid}",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$"),
        ("pid" = String, Path, description = "the participant", pattern = "^p_[0-9a-f]{16}$")),
    responses(
        (status = 200, body = Participant),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn participant(
    State(site): State<Site>,
    caller: Caller,
    Path((id, pid)): Path<(String, String)>,
) -> Result<Json<Participant>, Refused> {
    let (id, peer) = (seen(&caller, &id).await?, peer_id(&pid)?);
    let found = site
        .hub
        .ask(|reply| Input::Asked(Question::Participant(id, peer, reply)))
        .await?;
    Ok(Json(found?))
}

/// Remove a participant, who is told `kicked`.
#[utoipa::path(
    delete,
    path = "/api/rooms/{id}/participants/{pid}",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$"),
        ("pid" = String, Path, description = "the participant", pattern = "^p_[0-9a-f]{16}$"),
        KickQuery),
    responses(
        (status = 204),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn kick(
    State(site): State<Site>,
    caller: Caller,
    Path((id, pid)): Path<(String, String)>,
    query: Fields<KickQuery>,
) -> Result<StatusCode, Refused> {
    let (id, peer) = (administered(&caller, &id).await?, peer_id(&pid)?);
    let reason = fields(query)?.reason;
    if reason
        .as_ref()
        .is_some_and(|text| text.chars().count() > limits::MAX_NAME_CHARS)
    {
        let text = format!(
            "\"reason\" has at most {} characters",
            limits::MAX_NAME_CHARS
        );
        return Err(Refused::bad(Code::BadMessage, &text));
    }
    let kicked = site
        .hub
        .ask(|reply| Input::Asked(Question::Kick(id, peer, reason, reply)))
        .await?;
    kicked?;
    Ok(StatusCode::NO_CONTENT)
}

/// Mute what a participant publishes, for everyone, or no longer.
#[utoipa::path(
    post,
    path = "/api/rooms/{id}/participants/{pid}/mute",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$"),
        ("pid" = String, Path, description = "the participant", pattern = "^p_[0-9a-f]{16}$")),
    request_body = MuteRequest,
    responses(
        (status = 200, body = Participant),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn mute(
    State(site): State<Site>,
    caller: Caller,
    Path((id, pid)): Path<(String, String)>,
    Body(wanted): Body<MuteRequest>,
) -> Result<Json<Participant>, Refused> {
    let (id, peer) = (administered(&caller, &id).await?, peer_id(&pid)?);
    let track = wanted.track_id.as_deref().map(|name| {
        let text = "the participant publishes no such track";
        TrackId::parse(name).ok_or_else(|| Refused::nothing(Code::NoSuchTrack, text))
    });
    let track = track.transpose()?;
    let muted = wanted.muted;
    let done = site
        .hub
        .ask(|reply| Input::Asked(Question::Mute(id, peer, track, muted, reply)))
        .await?;
    Ok(Json(done?))
}
