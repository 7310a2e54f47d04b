//! The API's view of the server as a whole, and the tokens it mints.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::refusal::{Body, Caller, ProblemDocument, Refused, room_id};
use super::view::{Token, TokenRequest};
use crate::signal::figures::Figures;
use crate::signal::http::Site;
use crate::signal::hub::{Health, Input, Question};
use crate::signal::problem::Code;
use crate::signal::token::{self, Claims, Denied};
use crate::signal::{limits, unix_time};

/// How long the hub may take to answer before the server is not ready.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// How long a token holds unless it is said, in seconds.
const TOKEN_SECONDS: u32 = 6 * 60 * 60;

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Liveness {
    /// Always `ok`: a server that is not does not answer so.
    pub status: &'static str,
}

/// Rooms and participants, and how many there may be.
#[utoipa::path(
    get,
    path = "/health",
    responses(
        (status = 200, body = Health),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn health(State(site): State<Site>) -> Result<Json<Health>, Refused> {
    let health = site
        .hub
        .ask(|reply| Input::Asked(Question::Health(reply)))
        .await?;
    Ok(Json(health))
}

/// Every thread turns.
#[utoipa::path(
    get,
    path = "/livez",
    responses(
        (status = 200, body = Liveness),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn live(State(site): State<Site>) -> Result<Json<Liveness>, Refused> {
    let stuck: Vec<_> = site
        .vitals
        .borrow()
        .iter()
        .map(ToString::to_string)
        .collect();
    if stuck.is_empty() {
        return Ok(Json(Liveness { status: "ok" }));
    }
    let text = format!("these shards do not turn: {}", stuck.join(", "));
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Err(Refused::new(status, Code::InternalError, &text))
}

/// The server takes participants in.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, body = Liveness),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ready(State(site): State<Site>) -> Result<Json<Liveness>, Refused> {
    let asked = site.hub.ask(|reply| Input::Asked(Question::Ready(reply)));
    match timeout(READY_WITHIN, asked).await {
        Ok(Ok(Ok(()))) => Ok(Json(Liveness { status: "ok" })),
        Ok(Ok(Err(problem))) => Err(problem.into()),
        Ok(Err(stopping)) => Err(stopping.into()),
        Err(_) => Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Code::ServerBusy,
            "the server has more to do than it can take",
        )),
    }
}

/// Every counter, by shard and in all.
#[utoipa::path(
    get,
    path = "/api/stats",
    responses(
        (status = 200, body = Figures),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn figures(
    State(site): State<Site>,
    caller: Caller,
) -> Result<Json<Figures>, Refused> {
    caller.check(caller.access.check_list()).await?;
    let figures = site
        .hub
        .ask(|reply| Input::Asked(Question::Figures(reply)))
        .await?;
    Ok(Json(figures))
}

/// Mint a token for a participant of a room of which the caller is an administrator.
#[utoipa::path(
    post,
    path = "/api/tokens",
    request_body = TokenRequest,
    responses(
        (status = 200, body = Token),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn mint(
    State(site): State<Site>,
    caller: Caller,
    Body(wanted): Body<TokenRequest>,
) -> Result<Json<Token>, Refused> {
    // Tokens are minted for those who showed one, never for nobody in particular.
    let shown = caller.access.identity().map(|_| ()).ok_or(Denied::Missing);
    caller.check(shown).await?;
    let room = room_id(&wanted.video.room)?;
    caller
        .check(caller.access.check_mint(&room, &wanted.video))
        .await?;
    let is_fit =
        |text: &str, least: usize, most: usize| (least..=most).contains(&text.chars().count());
    let name = wanted.name.as_deref().unwrap_or_default();
    let metadata = wanted.metadata.as_ref();
    let metadata = metadata.map_or(0, |json| json.to_string().len());
    let seconds = wanted.seconds.unwrap_or(TOKEN_SECONDS);
    if !is_fit(&wanted.identity, 1, limits::MAX_IDENTITY_CHARS)
        || !is_fit(name, 0, limits::MAX_NAME_CHARS)
        || metadata > limits::MAX_METADATA_BYTES
        || !(1..=31_536_000).contains(&seconds)
    {
        let text = "\"identity\", \"name\", \"metadata\" or \"seconds\" is out of its bounds";
        return Err(Refused::bad(Code::BadMessage, text));
    }
    let claims = Claims {
        sub: Some(wanted.identity),
        name: wanted.name,
        metadata: wanted.metadata,
        exp: (unix_time() + u64::from(seconds)) as f64,
        video: wanted.video,
        ..Claims::default()
    };
    match token::mint(&claims, &site.live.borrow().access.keys) {
        Ok(token) => Ok(Json(Token { token })),
        Err(no_key) => Err(Refused::new(
            StatusCode::CONFLICT,
            Code::NotSupported,
            &no_key.to_string(),
        )),
    }
}
