//! The keys of tokens: those in the file, and those in files that it names.

use super::Config;
use super::read::Problem;
use super::sections::TokenKey;
use crate::signal::access;
use crate::signal::token::Key;

/// What the key in `security.token_secret` is called.
const DEFAULT_ID: &str = "default";

/// Most keys: a token that names none is checked with each.
const MAX_KEYS: usize = 16;

impl Config {
    /// Who gets in.
    ///
    /// # Errors
    ///
    /// [`Problem`] names the first key that cannot be used.
    pub fn access(&self) -> Result<access::Options, Problem> {
        let security = &self.file.security;
        let mut keys = Vec::new();
        let secret = security.token_secret.reveal();
        if !secret.is_empty() {
            let key = Key::secret(DEFAULT_ID, secret);
            keys.push(key.map_err(|e| problem("security.token_secret", e.to_string()))?);
        }
        if security.token_keys.len() > MAX_KEYS {
            let what = format!("there are more than {MAX_KEYS} keys");
            return Err(problem("security.token_keys", what));
        }
        for (index, entry) in security.token_keys.iter().enumerate() {
            let path = format!("security.token_keys[{index}]");
            keys.push(key(entry).map_err(|what| problem(&path, what))?);
        }
        if security.require_auth && keys.is_empty() {
            let what = "there is no key that a token could be checked with, so nobody could come \
                        in. Set security.token_secret (`openssl rand -hex 32` makes one) or \
                        security.token_keys.";
            return Err(problem("security.require_auth", what.to_owned()));
        }
        Ok(access::Options {
            require_auth: security.require_auth,
            token_header: security.auth_token_header.as_str().to_owned(),
            keys,
        })
    }
}

fn key(entry: &TokenKey) -> Result<Key, String> {
    match (&entry.secret, &entry.public_key) {
        (Some(secret), None) => Key::secret(&entry.id, secret.reveal()).map_err(|e| e.to_string()),
        (None, Some(path)) => {
            let pem = std::fs::read_to_string(path)
                .map_err(|e| format!("the file {path} cannot be read: {e}"))?;
            Key::public(&entry.id, &pem).map_err(|e| format!("{path}: {e}"))
        }
        _ => Err("name either a `secret` or a file with a `public_key`".to_owned()),
    }
}

pub(super) fn problem(key: &str, what: String) -> Problem {
    Problem {
        origin: "configuration".to_owned(),
        line: None,
        key: key.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::from_text;
    use super::*;

    fn access(text: &str) -> Result<access::Options, Problem> {
        let file = from_text("w.yaml", text, &[]).unwrap();
        let config = Config {
            file,
            ..Config::default()
        };
        config.access()
    }

    #[test]
    fn secrets_and_public_keys_are_taken_and_told_apart() {
        let secret = "0123456789abcdef0123456789abcdef";
        let yaml = format!(
            "security: {{require_auth: true, token_secret: {secret}, \
             token_keys: [{{id: b, secret: {secret}}}]}}"
        );
        assert_eq!(access(&yaml).unwrap().keys.len(), 2);
        assert!(access("").unwrap().keys.is_empty());
        for (yaml, said) in [
            ("security: {require_auth: true}", "no key"),
            ("security: {token_secret: short}", "32 bytes"),
            ("security: {token_keys: [{id: a}]}", "either"),
            (
                "security: {token_keys: [{id: a, public_key: /nonexistent}]}",
                "cannot be read",
            ),
        ] {
            let problem = access(yaml).unwrap_err().to_string();
            assert!(problem.contains(said), "{problem}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let yaml = "security: {token_secret: hunter2}";
        let file: super::super::sections::WebrtcFile = from_text("w.yaml", yaml, &[]).unwrap();
        assert!(!format!("{file:?}").contains("hunter2"));
    }
}
