//! What each path of the one HTTP port answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use tower_http::timeout::TimeoutLayer;

use crate::signal::api::refusal::Refused;
use crate::signal::caller::Places;
use crate::signal::calls::Asker;
use crate::signal::hub::{Handle, Input, Stopping};
use crate::signal::origin::Origins;
use crate::signal::problem::Code;
use crate::signal::proxies::Proxies;
use crate::signal::session::Visitor;
use crate::signal::watchdog::Vitals;
use crate::signal::{Live, api, limits, page, tls, websocket};

/// What every route may use.
#[derive(Debug, Clone)]
pub struct Site {
    /// Who knows everything.
    pub hub: Handle,
    /// The latest options.
    pub live: Live,
    /// Who is believed about addresses.
    pub proxies: Arc<Proxies>,
    /// Shards that do not turn.
    pub vitals: Vitals,
    /// Pages of which origins may use it.
    pub origins: Arc<Origins>,
    /// Where the call log is asked, if there is one.
    pub call_log: Option<Asker>,
    /// Places for those who read `/api/events`.
    pub readers: Arc<Semaphore>,
    /// What `Strict-Transport-Security` says, if anything.
    hsts: Option<HeaderValue>,
}

impl Site {
    /// A site in front of `hub`.
    #[must_use]
    pub fn new(hub: Handle, live: Live, vitals: Vitals) -> Self {
        let options = live.borrow().clone();
        Self {
            hub,
            proxies: Arc::new(options.proxies.clone()),
            live,
            vitals,
            origins: Arc::new(Origins::new(&options.allowed_origins)),
            call_log: options.call_log.clone(),
            readers: Arc::new(Semaphore::new(limits::MAX_READERS)),
            hsts: options.tls.as_ref().and_then(hsts),
        }
    }
}

impl FromRef<Site> for Places {
    fn from_ref(site: &Site) -> Self {
        Self {
            live: site.live.clone(),
            proxies: Arc::clone(&site.proxies),
        }
    }
}

/// All routes; those of the dialects are given.
pub fn router(site: Site, with_page: bool, dialects: Router<Site>) -> Router {
    let cors = site.origins.cors(&site.live.borrow().access.token_header);
    let api = api::routes()
        .layer(cors)
        .layer(DefaultBodyLimit::max(limits::MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            limits::REQUEST_TIMEOUT,
        ));
    let router = Router::new()
        .route("/ws", get(open_websocket))
        .merge(api)
        .merge(dialects);
    let router = if with_page {
        router.fallback(page::serve)
    } else {
        router
    };
    router
        .layer(middleware::from_fn_with_state(site.clone(), check_origin))
        .layer(middleware::from_fn(check_host))
        .layer(middleware::from_fn_with_state(
            site.clone(),
            add_security_headers,
        ))
        .with_state(site)
}

/// A request of HTTP/1.1 names one host: what stands between the client and here must not take
/// it for another one than we do (RFC 9112 §3.2).
async fn check_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11) {
        return next.run(request).await;
    }
    let text = "a request has one \"Host\"";
    Refused::bad(Code::BadMessage, text).into_response()
}

/// Browsers open WebSockets to anywhere, and leave it to the server which pages may (RFC 6455
/// §10.2). Whoever is no browser sends no `Origin`, or any.
async fn check_origin(State(site): State<Site>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.contains_key(header::UPGRADE) && !site.origins.allow(headers) {
        tracing::debug!(origin = ?headers.get(header::ORIGIN), "a page's WebSocket was refused");
        let text = "pages of this origin may not open WebSockets here";
        return Refused::new(StatusCode::FORBIDDEN, Code::NotPermitted, text).into_response();
    }
    next.run(request).await
}

fn hsts(tls: &tls::Options) -> Option<HeaderValue> {
    let value = format!("max-age={}", tls.hsts_seconds);
    (tls.hsts_seconds > 0).then(|| HeaderValue::try_from(value).expect("digits are printable"))
}

async fn open_websocket(
    State(site): State<Site>,
    visitor: Visitor,
    upgrade: WebSocketUpgrade,
) -> Response {
    let opened = |mail| Input::Opened(visitor, mail);
    bounded(upgrade).on_upgrade(|socket| websocket::serve(socket, site.hub, opened))
}

/// The bounds of every WebSocket, whatever is spoken on it.
pub(super) fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .max_message_size(limits::MAX_FRAME_BYTES)
        .max_frame_size(limits::MAX_FRAME_BYTES)
        .read_buffer_size(limits::READ_BUFFER_BYTES)
}

impl IntoResponse for Stopping {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, "the server stops").into_response()
    }
}

/// The same for every answer, so that no path can be forgotten.
const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(self), microphone=(self), display-capture=(self), geolocation=()",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

async fn add_security_headers(State(site): State<Site>, request: Request, next: Next) -> Response {
    let policy = content_security_policy(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    if let Some(hsts) = site.hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The page's own scripts and styles, and connections to where it came from. The WebSocket is
/// named by its host because not every browser takes `'self'` to cover it (CSP 3 §6.7.2.8).
fn content_security_policy(request: &HeaderMap) -> HeaderValue {
    let host = request
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| host.bytes().all(is_host_byte));
    let sockets = host.map_or_else(String::new, |host| format!(" ws://{host} wss://{host}"));
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         media-src 'self' blob:; connect-src 'self'{sockets}; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("a host that passed the filter is printable")
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_none_cannot_add_to_the_policy() {
        let policy = |host: &'static str| {
            let headers = [(header::HOST, HeaderValue::from_static(host))];
            let policy = content_security_policy(&headers.into_iter().collect());
            policy.to_str().unwrap().to_owned()
        };
        assert!(policy("localhost:8080").contains("connect-src 'self' ws://localhost:8080 wss:"));
        assert!(policy("[::1]:8080").contains(" ws://[::1]:8080 "));
        for host in ["a; script-src *", "a b", "a/b", "a'b", ""] {
            assert_eq!(policy(host).matches("script-src").count(), 1);
            assert!(!policy(host).contains("a b") && !policy(host).contains("*"));
        }
    }
}
