//! What a refused request is answered: a problem document (RFC 9457).

use axum::body::HttpBody as _;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRef, FromRequest, FromRequestParts, OptionalFromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::id::{PeerId, RoomId};
use crate::signal::access::Access;
use crate::signal::http::Site;
use crate::signal::hub::{Input, Stopping};
use crate::signal::problem::{Code, Problem};
use crate::signal::session::Visitor;
use crate::signal::token::Denied;
use crate::signal::unix_time;

/// The body of every refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProblemDocument {
    /// `urn:corelay:problem:` and the code.
    pub r#type: String,
    /// What the status means.
    pub title: String,
    /// The status again.
    pub status: u16,
    /// What went wrong, for people.
    pub detail: String,
    /// What went wrong, for programs. Stable; the same codes as on the WebSocket.
    #[schema(value_type = String)]
    pub code: Code,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    status: StatusCode,
    problem: Problem,
}

impl Refused {
    /// Nothing of this name is there.
    #[must_use]
    pub fn nothing(code: Code, text: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, text)
    }

    /// The request cannot be understood.
    #[must_use]
    pub fn bad(code: Code, text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, text)
    }

    /// A refusal of any kind.
    #[must_use]
    pub fn new(status: StatusCode, code: Code, text: &str) -> Self {
        Self {
            status,
            problem: Problem::new(code, text),
        }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        let status = match problem.code {
            Code::NoSuchRoom | Code::NoSuchParticipant | Code::NoSuchTrack => StatusCode::NOT_FOUND,
            Code::RoomExists
            | Code::AlreadyRecording
            | Code::NotRecording
            | Code::RoomEncrypted
            | Code::RecordingDisabled => StatusCode::CONFLICT,
            Code::TooManyRoomsFromAddress => StatusCode::TOO_MANY_REQUESTS,
            Code::TooManyRooms | Code::ServerBusy | Code::ServerDraining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::NotPermitted => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        Self { status, problem }
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NotGranted(_) | Denied::WrongRoom => Self::new(
                StatusCode::FORBIDDEN,
                Code::NotPermitted,
                "the token does not grant this",
            ),
            _ => Self::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, "unauthorized"),
        }
    }
}

impl From<Stopping> for Refused {
    fn from(_: Stopping) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, Code::ServerBusy, "the server stops")
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection {
            JsonRejection::JsonSyntaxError(_) => Code::BadJson,
            JsonRejection::BytesRejection(_) => Code::MessageTooBig,
            _ => Code::BadMessage,
        };
        Self::new(rejection.status(), code, &rejection.body_text())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { status, problem } = self;
        let code = serde_json::to_value(problem.code).expect("a code is a text");
        let document = ProblemDocument {
            r#type: format!("urn:corelay:problem:{}", code.as_str().unwrap_or_default()),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: problem.message,
            code: problem.code,
        };
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = problem.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// A JSON body, refused with a problem document when it is none.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        // serde would take an array for an object: its elements for the fields, in their order.
        let Json(fields): Json<serde_json::Map<String, serde_json::Value>> =
            <Json<_> as FromRequest<S>>::from_request(request, state).await?;
        read(fields)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Refused> {
        let is_empty = request.body().size_hint().exact() == Some(0);
        if is_empty && !request.headers().contains_key(header::CONTENT_TYPE) {
            return Ok(None);
        }
        // As the description of an optional body has it, `null` is none.
        let Json(fields): Json<Option<serde_json::Map<String, serde_json::Value>>> =
            <Json<_> as FromRequest<S>>::from_request(request, state).await?;
        fields.map(read).transpose()
    }
}

fn read<T: DeserializeOwned>(
    fields: serde_json::Map<String, serde_json::Value>,
) -> Result<Body<T>, Refused> {
    let body = serde_json::from_value(fields.into()).map_err(|error| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Refused::new(status, Code::BadMessage, &error.to_string())
    })?;
    Ok(Body(body))
}

/// Who calls, by its token.
#[derive(Debug)]
pub struct Caller {
    /// What it may do.
    pub access: Access,
    /// Where it comes from.
    pub visitor: Visitor,
    site: Site,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Site: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let site = Site::from_ref(state);
        let Ok(visitor) = Visitor::from_request_parts(parts, &site).await;
        let admitted = {
            let access = &site.live.borrow().access;
            access.admit(visitor.token.as_deref(), unix_time())
        };
        match admitted {
            Ok(access) => Ok(Self {
                access,
                visitor,
                site,
            }),
            Err(denied) => Err(tell_denied(&site, denied).await),
        }
    }
}

impl Caller {
    /// Goes on when a check of the caller's access passed; else the log is told why not.
    ///
    /// # Errors
    ///
    /// [`Refused`] when it did not pass.
    pub async fn check(&self, verdict: Result<(), Denied>) -> Result<(), Refused> {
        match verdict {
            Ok(()) => Ok(()),
            Err(denied) => Err(tell_denied(&self.site, denied).await),
        }
    }
}

async fn tell_denied(site: &Site, denied: Denied) -> Refused {
    // A hub that has ended logs nothing any more.
    let _ = site.hub.tell(Input::Denied(denied.clone())).await;
    denied.into()
}

/// A room's name in a path.
///
/// # Errors
///
/// [`Refused`] when it cannot be one.
pub fn room_id(name: &str) -> Result<RoomId, Refused> {
    RoomId::parse(name).map_err(|e| Refused::bad(Code::BadRoomId, &e.to_string()))
}

/// A participant's name in a path.
///
/// # Errors
///
/// [`Refused`] when it cannot be one.
pub fn peer_id(name: &str) -> Result<PeerId, Refused> {
    let text = "nobody of this name is in the room";
    PeerId::parse(name).ok_or_else(|| Refused::nothing(Code::NoSuchParticipant, text))
}
