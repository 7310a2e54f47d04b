//! `GET /api/rooms/{id}/diagnostics`: how far each participant has come, and what it gets.

use axum::extract::{Path, State};
use axum::response::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::refusal::{Caller, ProblemDocument, Refused};
use super::rooms::seen;
use crate::engine::command::{MissingStep, PeerReport};
use crate::signal::directory::Member;
use crate::signal::http::Site;
use crate::signal::hub::{Input, Question};
use crate::signal::message::Participant;
use crate::signal::service::Service;

/// What is known of a room, for whoever looks for a fault.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RoomDiagnosis {
    /// Everyone in it, in the order they came.
    pub participants: Vec<ParticipantDiagnosis>,
}

/// What is known of one participant.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantDiagnosis {
    /// Who, and what it publishes.
    pub participant: Participant,
    /// Whether its WebSocket is open; it has some seconds to come back.
    pub has_socket: bool,
    /// The first step on the way to media that it has not taken; null when media can flow.
    pub missing: Option<StepName>,
    /// `ipv4` or `ipv6`, once its client has chosen a path.
    pub family: Option<&'static str>,
    /// `udp` or `tcp`, likewise.
    pub transport: Option<&'static str>,
    /// Its receiving m-lines.
    pub slots: usize,
    /// What its path carries, as estimated, in bit/s; null while it watches nothing.
    pub estimated_bps: Option<u64>,
    /// In how many of its receiving m-lines something plays.
    pub watched: usize,
    /// How it is served, as its client is told by `stats`.
    pub service: Service,
}

/// A step on the way to media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepName {
    /// The shard has not taken it in yet.
    Join,
    /// No offer of its client could be used yet.
    Offer,
    /// No check of its client has reached the media port: is it open, is the address right?
    Stun,
    /// Checks came, but the client chose no path: what is sent back does not reach it.
    Nomination,
    /// A path is there, but no handshake of the encryption has begun.
    Dtls,
    /// The handshake began and did not end, or the path was lost.
    DtlsEnd,
}

impl From<MissingStep> for StepName {
    fn from(step: MissingStep) -> Self {
        match step {
            MissingStep::Stun => Self::Stun,
            MissingStep::Nomination => Self::Nomination,
            MissingStep::Dtls => Self::Dtls,
            MissingStep::DtlsEnd => Self::DtlsEnd,
        }
    }
}

impl ParticipantDiagnosis {
    /// What signalling and, if it answered for this one, the shard know.
    #[must_use]
    pub fn new(member: &Member, has_socket: bool, report: Option<&PeerReport>) -> Self {
        let remote = report.and_then(|report| report.remote);
        let figures = report.map(|report| &report.figures);
        let is_tcp = report.is_some_and(|report| report.is_tcp);
        Self {
            participant: Participant::from(member),
            has_socket,
            missing: missing(report),
            family: remote.map(|remote| if remote.is_ipv4() { "ipv4" } else { "ipv6" }),
            transport: remote.map(|_| if is_tcp { "tcp" } else { "udp" }),
            slots: report.map_or(0, |report| report.slots),
            estimated_bps: figures.and_then(|figures| figures.estimated_bps),
            watched: figures.map_or(0, |figures| figures.watches.len()),
            service: figures.map_or_else(Service::default, Service::from),
        }
    }
}

fn missing(report: Option<&PeerReport>) -> Option<StepName> {
    match report {
        None => Some(StepName::Join),
        Some(report) if report.is_connected => None,
        Some(report) if !report.has_offered => Some(StepName::Offer),
        Some(report) => Some(report.missing.into()),
    }
}

/// How far each participant of a room has come on the way to media, and what it gets.
#[utoipa::path(
    get,
    path = "/api/rooms/{id}/diagnostics",
    params(
        ("id" = String, Path, description = "the room", min_length = 1, max_length = 64,
            pattern = "^[A-Za-z0-9_-]+$")),
    responses(
        (status = 200, body = RoomDiagnosis),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn diagnostics(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RoomDiagnosis>, Refused> {
    let id = seen(&caller, &id).await?;
    let diagnosis = site
        .hub
        .ask(|reply| Input::Asked(Question::Diagnose(id, reply)))
        .await?;
    Ok(Json(diagnosis?))
}
