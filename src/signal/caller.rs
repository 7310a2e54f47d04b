//! Who sends a request: the address it comes from, and the token it brings.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};

use crate::signal::Live;
use crate::signal::proxies::Proxies;
use crate::signal::session::Visitor;

/// What the listener writes on each request: the address at the other end of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Remote(pub IpAddr);

/// Where to look for what a request says of its sender.
#[derive(Debug, Clone)]
pub struct Places {
    /// Names the headers of tokens.
    pub live: Live,
    /// Who is believed about addresses.
    pub proxies: Arc<Proxies>,
}

impl<S: Sync> FromRequestParts<S> for Visitor
where
    Places: axum::extract::FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let places = <Places as axum::extract::FromRef<S>>::from_ref(state);
        let remote = parts.extensions.get::<Remote>();
        let address = remote.map_or(IpAddr::from([0, 0, 0, 0]), |remote| remote.0);
        Ok(Self {
            network: places.proxies.client(address, &parts.headers).into(),
            token: token(
                &parts.headers,
                &parts.uri,
                &places.live.borrow().access.token_header,
            ),
        })
    }
}

/// `Authorization: Bearer` counts more than the other header, and that more than `?token=`.
/// Other kinds of `Authorization` are for a proxy in front of us.
fn token(headers: &HeaderMap, uri: &Uri, other_header: &str) -> Option<String> {
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let in_query = || {
        let mut fields = uri.query()?.split('&');
        fields.find_map(|field| field.strip_prefix("token="))
    };
    let other = || {
        (!other_header.is_empty())
            .then(|| text(other_header))
            .flatten()
    };
    bearer.or_else(other).or_else(in_query).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_found_in_each_of_its_places() {
        let found = |header: Option<(&'static str, &'static str)>, uri: &'static str| {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, HeaderValue::from_static(value));
            }
            token(&headers, &Uri::from_static(uri), "X-Auth-Token")
        };
        let some = |token: &str| Some(token.to_owned());
        assert_eq!(found(None, "/ws"), None);
        assert_eq!(found(None, "/ws?a=b&token=t"), some("t"));
        assert_eq!(
            found(Some(("authorization", "Bearer h")), "/ws?token=t"),
            some("h")
        );
        assert_eq!(
            found(Some(("authorization", "bearer  h")), "/ws"),
            some("h")
        );
        assert_eq!(found(Some(("authorization", "Basic eDp5")), "/ws"), None);
        assert_eq!(found(Some(("x-auth-token", "x")), "/ws?token=t"), some("x"));
    }
}
