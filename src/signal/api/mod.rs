//! The HTTP API under `/api`, and its description in OpenAPI 3.1, from the same functions.

pub mod calls;
pub mod diagnostics;
pub mod drain;
pub mod events;
pub mod recordings;
pub mod refusal;
pub mod rooms;
pub mod server;
pub mod view;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::signal::happening::Notice;
use crate::signal::http::Site;

/// What the description says of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "corelay",
        description = "Rooms and who is in them. Calls need a token where the server asks for one.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(Notice)),
    modifiers(&Bearer),
    security((), ("bearer" = []))
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", scheme);
    }
}

/// All routes, with the one that describes them.
pub fn routes() -> Router<Site> {
    let (router, description) = described().split_for_parts();
    // Written once: every copy of a route has one, and the description has 340 KB in memory.
    let description = serde_json::to_vec(&description).expect("it has no maps but of strings");
    let description = Bytes::from(description);
    let json = HeaderValue::from_static("application/json");
    let answer =
        move || std::future::ready(([(header::CONTENT_TYPE, json.clone())], description.clone()));
    router.route("/api/openapi.json", get(answer))
}

fn described() -> OpenApiRouter<Site> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(rooms::create, rooms::list))
        .routes(routes!(rooms::show, rooms::delete))
        .routes(routes!(rooms::stats))
        .routes(routes!(diagnostics::diagnostics))
        .routes(routes!(rooms::participants))
        .routes(routes!(rooms::participant, rooms::kick))
        .routes(routes!(rooms::mute))
        .routes(routes!(recordings::start))
        .routes(routes!(recordings::stop))
        .routes(routes!(recordings::list))
        .routes(routes!(recordings::show))
        .routes(routes!(server::mint))
        .routes(routes!(server::figures))
        .routes(routes!(events::events))
        .routes(routes!(calls::list))
        .routes(routes!(calls::show))
        .routes(routes!(drain::show, drain::begin, drain::cancel))
        .routes(routes!(server::health))
        .routes(routes!(server::live))
        .routes(routes!(server::ready))
}
