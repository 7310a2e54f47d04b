//! Pages of which origins (RFC 6454) may open WebSockets and call the API from a browser.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Those that an operator allows, besides the server's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// Whether pages of any origin may open WebSockets.
    any: bool,
    named: Vec<HeaderValue>,
}

impl Origins {
    /// Those of a list, in which `*` is all.
    #[must_use]
    pub fn new(allowed: &[String]) -> Self {
        let named = allowed.iter().filter(|origin| *origin != "*");
        Self {
            any: allowed.iter().any(|origin| origin == "*"),
            named: named.filter_map(|origin| origin.parse().ok()).collect(),
        }
    }

    /// Whether the page that sends these headers may open a WebSocket.
    #[must_use]
    pub fn allow(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return true;
        };
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let of_page = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        let is_own = of_page.is_some_and(|(_, page)| Some(page) == host);
        self.any || is_own || self.named.contains(origin)
    }

    /// Lets pages of the named origins call the API. That any page may open a WebSocket does not
    /// let any page call it: without tokens it would be at the mercy of whatever a browser shows.
    pub fn cors(&self, token_header: &str) -> CorsLayer {
        let mut headers = vec![header::AUTHORIZATION, header::CONTENT_TYPE];
        headers.extend(HeaderName::try_from(token_header).ok());
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(self.named.iter().cloned()))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_origin_must_be_allowed() {
        let from = |origin: &'static str| {
            let pairs = [(header::HOST, "a.org:8080"), (header::ORIGIN, origin)];
            pairs
                .into_iter()
                .map(|(name, value)| (name, HeaderValue::from_static(value)))
                .collect::<HeaderMap>()
        };
        let some = Origins::new(&["https://b.org".to_owned()]);
        for good in ["https://b.org", "http://a.org:8080", "https://a.org:8080"] {
            assert!(some.allow(&from(good)), "{good}");
        }
        for bad in [
            "null",
            "",
            "https://b.org:1",
            "https://a.org",
            "https://b.org.evil",
        ] {
            assert!(!some.allow(&from(bad)), "{bad}");
        }
        assert!(some.allow(&HeaderMap::new()), "no browser");
        assert!(Origins::new(&["*".to_owned()]).allow(&from("null")));
        assert!(!Origins::default().allow(&from("null")));
    }
}
