//! The API's way to empty the server: before it is stopped, or taken out of a group.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refusal::{Body, Caller, ProblemDocument, Refused};
use super::view::whole;
use crate::signal::http::Site;
use crate::signal::hub::{Input, Question};
use crate::signal::problem::Code;

/// Longest that calls may be given, in seconds: a day.
const MAX_SECONDS: u32 = 86_400;

/// How long calls may go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub struct DrainRequest {
    /// In seconds; `server.drain_timeout` when left out.
    #[schema(maximum = 86400)]
    #[serde(default, deserialize_with = "whole")]
    pub seconds: Option<u32>,
}

/// Whether the server takes new rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DrainView {
    /// Whether it takes none.
    pub draining: bool,
    /// When rooms are closed, in seconds since 1970; `null` unless that is to come.
    pub deadline: Option<u64>,
    /// Participants that are left.
    pub participants: usize,
}

/// Whether the server is draining.
#[utoipa::path(
    get,
    path = "/api/drain",
    responses(
        (status = 200, body = DrainView),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(site): State<Site>,
    caller: Caller,
) -> Result<Json<DrainView>, Refused> {
    caller.check(caller.access.check_list()).await?;
    ask(&site, Question::ShowDrain).await
}

/// Take no new rooms; calls go on until they end, or for so long.
#[utoipa::path(
    post,
    path = "/api/drain",
    request_body = DrainRequest,
    responses(
        (status = 200, body = DrainView),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn begin(
    State(site): State<Site>,
    caller: Caller,
    Body(wanted): Body<DrainRequest>,
) -> Result<Json<DrainView>, Refused> {
    caller.check(caller.access.check_create()).await?;
    if wanted.seconds.is_some_and(|seconds| seconds > MAX_SECONDS) {
        let text = format!("\"seconds\" is at most {MAX_SECONDS}");
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(Refused::new(status, Code::BadMessage, &text));
    }
    let patience = wanted
        .seconds
        .map(|seconds| Duration::from_secs(seconds.into()));
    ask(&site, |reply| Question::Drain(patience, reply)).await
}

/// Take new rooms again, even when the process was asked to end.
#[utoipa::path(
    delete,
    path = "/api/drain",
    responses(
        (status = 200, body = DrainView),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cancel(
    State(site): State<Site>,
    caller: Caller,
) -> Result<Json<DrainView>, Refused> {
    caller.check(caller.access.check_create()).await?;
    ask(&site, Question::CancelDrain).await
}

async fn ask(
    site: &Site,
    question: impl FnOnce(tokio::sync::oneshot::Sender<DrainView>) -> Question,
) -> Result<Json<DrainView>, Refused> {
    let asked = site.hub.ask(|reply| Input::Asked(question(reply)));
    Ok(Json(asked.await?))
}
