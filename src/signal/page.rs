//! The page and its modules: what is in `web/`, compiled into the binary.

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{Embed, EmbeddedFile};

use crate::signal::api::refusal::Refused;
use crate::signal::problem::Code;

#[derive(Embed)]
#[folder = "web/"]
struct Web;

/// Answers a path that no route has.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if uri.path().starts_with("/api/") {
        return Refused::nothing(Code::UnknownType, "the API has no such path").into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let Some((file, kind)) = find(uri.path()) else {
        return (StatusCode::NOT_FOUND, "there is nothing here\n").into_response();
    };
    let tag = tag(&file);
    // The tag decides, so that a new binary's page is seen at once.
    let fresh = [
        (header::ETAG, tag.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let known = headers.get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, fresh).into_response();
    }
    let kind = [(header::CONTENT_TYPE, kind)];
    (fresh, kind, Body::from(file.data)).into_response()
}

/// The file of a path and its type. A file of an unknown type is not part of the page.
fn find(path: &str) -> Option<(EmbeddedFile, &'static str)> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name,
    };
    let kind = match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        _ => return None,
    };
    Some((Web::get(name)?, kind))
}

fn tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let digits = hash[..8].iter().map(|byte| format!("{byte:02x}"));
    format!("\"{}\"", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_page() {
        let (file, kind) = find("/").unwrap();
        assert!(kind.starts_with("text/html"));
        assert_eq!(find("/index.html").unwrap().0.data, file.data);
    }

    #[test]
    fn nothing_outside_the_page_is_found() {
        for path in [
            "/../Cargo.toml",
            "/..%2fCargo.toml",
            "//etc/passwd",
            "/./index.html",
            "/index.html/",
            "/.html",
            "/Cargo.toml",
            "",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }
}
