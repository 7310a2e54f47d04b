//! What clients are told of STUN and TURN servers: some as they are configured, and one with
//! credentials that are each client's own and expire. Pure.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Longest part of a TURN user name that says whose it is, in bytes. The rest is left out.
const MAX_IDENTITY_BYTES: usize = 64;

/// The servers that clients are told of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IceServers {
    /// Each an `RTCIceServer`, the same for everyone.
    pub fixed: Vec<Value>,
    /// A TURN server that shares a secret with us.
    pub turn: Option<Turn>,
}

/// A TURN server whose users are named by us: it checks that we did by a shared secret
/// (draft-uberti-behave-turn-rest, coturn's `use-auth-secret`).
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    /// Its addresses, each as in `RTCIceServer.urls`.
    pub urls: Vec<String>,
    /// The secret that it shares.
    pub secret: String,
    /// How long credentials hold. A client that allocates before goes on after.
    pub lifetime: Duration,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("urls", &self.urls)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl IceServers {
    /// A list of `RTCIceServer` for one client, at `now` in seconds since 1970. The operator of the
    /// TURN server sees `identity` in its log.
    #[must_use]
    pub fn list(&self, now: u64, identity: &str) -> Vec<Value> {
        let turn = self.turn.iter().map(|turn| turn.server(now, identity));
        self.fixed.iter().cloned().chain(turn).collect()
    }
}

impl Turn {
    fn server(&self, now: u64, identity: &str) -> Value {
        // The user name is one word of its wire and of its log.
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let identity = identity.chars().filter(plain).take(MAX_IDENTITY_BYTES);
        let expiry = now + self.lifetime.as_secs();
        let username = format!("{expiry}:{}", identity.collect::<String>());
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.secret.as_bytes());
        let credential = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
        json!({"urls": self.urls, "username": username, "credential": credential})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> IceServers {
        IceServers {
            fixed: vec![json!({"urls": ["stun:stun.example.org"]})],
            turn: Some(Turn {
                urls: vec!["turn:turn.example.org:3478".to_owned()],
                secret: "north".to_owned(),
                lifetime: Duration::from_secs(3600),
            }),
        }
    }

    #[test]
    fn each_client_gets_credentials_of_its_own() {
        let list = turn().list(1_700_000_000, "ann");
        assert_eq!(list[0], json!({"urls": ["stun:stun.example.org"]}));
        // printf %s 1700003600:ann | openssl dgst -sha1 -hmac north -binary | base64
        let expected = json!({
            "urls": ["turn:turn.example.org:3478"],
            "username": "1700003600:ann",
            "credential": "TwqKCcbzejRFa1sgGqGS7SEzCGg=",
        });
        assert_eq!(list[1], expected);
        assert_ne!(turn().list(1_700_000_000, "bob")[1], expected);
    }

    #[test]
    fn a_strange_name_makes_a_plain_user_name() {
        let list = turn().list(0, &format!("a:b\n ü{}", "x".repeat(200)));
        let username = list[1]["username"].as_str().unwrap();
        assert_eq!(username, format!("3600:ab{}", "x".repeat(62)));
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", turn()).contains("north"));
    }
}
