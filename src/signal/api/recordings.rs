//! The API's recordings.

use axum::extract::{Path, State};
use axum::response::Json;

use super::refusal::{Body, Caller, ProblemDocument, Refused, room_id};
use super::view::{RecordingList, RecordingView};
use crate::record::manifest::Manifest;
use crate::record::order::{RecordingId, RecordingRequest};
use crate::signal::http::Site;
use crate::signal::hub::{Input, Question};
use crate::signal::problem::Code;

/// Begin to record a room, without a body as the server is configured.
#[utoipa::path(
    post,
    path = "/api/rooms/{id}/recording/start",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$")),
    request_body = Option<RecordingRequest>,
    responses(
        (status = 200, body = RecordingView),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn start(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
    request: Option<Body<RecordingRequest>>,
) -> Result<Json<RecordingView>, Refused> {
    let request = request.map(|Body(request)| request).unwrap_or_default();
    record(&site, &caller, &id, Some(request)).await
}

/// Stop recording a room. Its files are whole about a second later.
#[utoipa::path(
    post,
    path = "/api/rooms/{id}/recording/stop",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$")),
    responses(
        (status = 200, body = RecordingView),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stop(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RecordingView>, Refused> {
    record(&site, &caller, &id, None).await
}

async fn record(
    site: &Site,
    caller: &Caller,
    id: &str,
    wanted: Option<RecordingRequest>,
) -> Result<Json<RecordingView>, Refused> {
    let room = room_id(id)?;
    caller.check(caller.access.check_record(&room)).await?;
    let done = site
        .hub
        .ask(|reply| Input::Asked(Question::Record(room, wanted, reply)))
        .await?;
    Ok(Json(done?))
}

/// Every recording that is known, the newest first.
#[utoipa::path(
    get,
    path = "/api/recordings",
    responses(
        (status = 200, body = RecordingList),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(site): State<Site>,
    caller: Caller,
) -> Result<Json<RecordingList>, Refused> {
    let recordings = known(&site, &caller).await?;
    Ok(Json(RecordingList { recordings }))
}

/// One recording.
#[utoipa::path(
    get,
    path = "/api/recordings/{id}",
    params(
        ("id" = String, Path, description = "the recording", pattern = "^rec_[0-9a-f]{16}$")),
    responses(
        (status = 200, body = Manifest),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Manifest>, Refused> {
    let all = known(&site, &caller).await?;
    let wanted = RecordingId::parse(&id);
    let found = wanted.and_then(|id| all.into_iter().find(|one| one.id == id.as_str()));
    let text = "there is no such recording";
    let found = found.ok_or_else(|| Refused::nothing(Code::NoSuchRecording, text))?;
    Ok(Json(found))
}

async fn known(site: &Site, caller: &Caller) -> Result<Vec<Manifest>, Refused> {
    caller.check(caller.access.check_list()).await?;
    let asked = site
        .hub
        .ask(|reply| Input::Asked(Question::Recordings(reply)));
    Ok(asked.await?)
}
