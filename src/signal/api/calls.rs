//! The API's view of the call log.
#![expect(
    unused_qualifications,
    reason = "what utoipa writes for the parameters of a query names them in full"
)]

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::IntoParams;

use super::refusal::{Caller, ProblemDocument, Refused};
use super::rooms::{Fields, fields};
use crate::signal::calls::{CallDetail, CallList, Place, Question, Reply};
use crate::signal::http::Site;
use crate::signal::limits;
use crate::signal::problem::Code;

/// Which part of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Part {
    /// How many at most; 100 when left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// What the part before said in `next`.
    #[param(
        min_length = 1,
        max_length = 128,
        pattern = "^[0-9]{1,18}-[A-Za-z0-9_]+$"
    )]
    before: Option<String>,
}

/// The calls that were and are, the latest first: rooms, and the calls of the dialects.
#[utoipa::path(
    get,
    path = "/api/calls",
    params(Part),
    responses(
        (status = 200, body = CallList),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(site): State<Site>,
    caller: Caller,
    part: Fields<Part>,
) -> Result<Json<CallList>, Refused> {
    caller.check(caller.access.check_list()).await?;
    let Part { limit, before } = fields(part)?;
    let limit = limit.unwrap_or(100);
    if !(1..=limits::MAX_PAGE).contains(&limit) {
        let text = format!("\"limit\" is 1 to {}", limits::MAX_PAGE);
        return Err(Refused::bad(Code::BadMessage, &text));
    }
    let place = before.as_deref().map_or(Some(Place::first()), Place::parse);
    let place = place.filter(|place| place.id.is_empty() || is_call_id(&place.id));
    let Some(place) = place else {
        let text = "\"before\" is what the part before said in \"next\"";
        return Err(Refused::bad(Code::BadMessage, text));
    };
    let calls = ask(&site, |reply| Question::List(place, limit, reply)).await?;
    Ok(Json(calls))
}

/// One call, who was in it and what was recorded of it.
#[utoipa::path(
    get,
    path = "/api/calls/{id}",
    params(("id" = String, Path, description = "the call, as the list names it",
        min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_]+$")),
    responses(
        (status = 200, body = CallDetail),
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
) -> Result<Json<CallDetail>, Refused> {
    caller.check(caller.access.check_list()).await?;
    let nothing = || Refused::nothing(Code::NoSuchRoom, "there is no such call");
    if !is_call_id(&id) {
        return Err(nothing());
    }
    let call = ask(&site, |reply| Question::Show(id, reply)).await?;
    call.map(Json).ok_or_else(nothing)
}

/// Whether a text may go to the database as a call's name.
fn is_call_id(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&text.len()) && text.bytes().all(is_fit)
}

async fn ask<T>(site: &Site, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, Refused> {
    let Some(log) = &site.call_log else {
        let text = "there is no call log: call_log.url is not set";
        return Err(Refused::nothing(Code::NotSupported, text));
    };
    let unavailable = || {
        let text = "the call log cannot be read now; try again later";
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, Code::ServerBusy, text)
    };
    let (reply, answer) = oneshot::channel();
    log.try_send(question(reply)).map_err(|_| unavailable())?;
    match answer.await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(unavailable()),
    }
}
