//! `GET /api/events`: what happens, as it happens (server-sent events).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

use super::refusal::{Caller, ProblemDocument, Refused};
use crate::signal::happening::Notice;
use crate::signal::http::Site;
use crate::signal::hub::{Input, Question};
use crate::signal::problem::Code;
use crate::signal::{clock, limits, unix_time};

/// One event of an answer of `/api/events`, as the HTML standard's §9.2 writes it.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it is described, and written by axum")]
pub struct EventFrame {
    /// The `type` of what happened; `lagged` or `expired` at the end of an answer.
    event: String,
    /// The `id` of what happened.
    id: Option<String>,
    /// What happened: the JSON of a `Notice`. Of `lagged` it is `{"missed": n}`, of `expired` `{}`.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// What a reader is served from.
struct Reading {
    events: Receiver<Arc<Notice>>,
    /// When its token no longer holds.
    until: Instant,
    /// Its place among the readers there may be.
    _place: OwnedSemaphorePermit,
}

/// What happens from here on: each event with its `type` as the event's name and, as data, the
/// JSON that webhooks are sent. A reader that falls too far behind is told `lagged`, with how
/// many it missed, and has to call again; so has one whose token has expired (`expired`).
#[utoipa::path(
    get,
    path = "/api/events",
    responses(
        (status = 200, body = EventFrame, content_type = "text/event-stream"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(site): State<Site>,
    caller: Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    caller.check(caller.access.check_list()).await?;
    let Ok(place) = Arc::clone(&site.readers).try_acquire_owned() else {
        let text = "as many read the events already as may";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Refused::new(status, Code::ServerBusy, text));
    };
    let events = site
        .hub
        .ask(|reply| Input::Asked(Question::Events(reply)))
        .await?;
    let holds = caller.access.seconds_left(unix_time());
    let reading = Reading {
        events,
        until: Instant::from_std(clock())
            + Duration::from_secs(holds.min(limits::MAX_READING_SECONDS)),
        _place: place,
    };
    let events = stream::unfold(Some(reading), |reading| async { next(reading?).await });
    let keep_alive = KeepAlive::new().interval(limits::PING_INTERVAL);
    Ok(Sse::new(events).keep_alive(keep_alive))
}

/// The next event, and what the one after it is read from, if there may be one.
async fn next(mut reading: Reading) -> Option<(Result<Event, Infallible>, Option<Reading>)> {
    let received = tokio::select! {
        received = reading.events.recv() => received,
        () = sleep_until(reading.until) => {
            let event = Event::default().event("expired").data("{}");
            return Some((Ok(event), None));
        }
    };
    match received {
        Ok(notice) => {
            let value = serde_json::to_value(&*notice).expect("an event is a map of texts");
            let name = value["type"].as_str().unwrap_or_default().to_owned();
            let event = Event::default().id(notice.id.clone()).event(name);
            Some((Ok(event.data(value.to_string())), Some(reading)))
        }
        Err(RecvError::Lagged(missed)) => {
            let data = json!({ "missed": missed }).to_string();
            Some((Ok(Event::default().event("lagged").data(data)), None))
        }
        // The server stops.
        Err(RecvError::Closed) => None,
    }
}
