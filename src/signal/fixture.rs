//! What tests of tokens share.

use serde_json::Value;

use crate::signal::token::{Claims, Key, mint};

/// A time at which the tokens of tests are made.
pub(crate) const NOW: u64 = 1_800_000_000;

/// The secret they are signed with.
pub(crate) const SECRET: &str = "a secret of thirty-two characters";

/// It, named `main`.
pub(crate) fn key() -> Key {
    Key::secret("main", SECRET).unwrap()
}

/// A token that holds for a minute and grants `video`.
pub(crate) fn token(identity: &str, video: Value) -> String {
    token_at(NOW, identity, video)
}

/// As [`token`], minted at another time.
pub(crate) fn token_at(now: u64, identity: &str, video: Value) -> String {
    let claims = Claims {
        sub: Some(identity.to_owned()),
        exp: (now + 60) as f64,
        video: serde_json::from_value(video).unwrap(),
        ..Claims::default()
    };
    mint(&claims, &[key()]).unwrap()
}
