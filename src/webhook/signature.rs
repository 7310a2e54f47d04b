//! The header by which a receiver knows that an event is ours, and not an old one again.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};

/// The name of the header.
pub(super) const HEADER: &str = "Corelay-Signature";

/// Makes signatures with one secret.
pub(super) struct Signer(hmac::Key);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    pub(super) fn new(secret: &str) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, secret.as_bytes()))
    }

    /// `t=TIME,v1=HEX`: the time of the attempt in seconds since 1970, and HMAC-SHA256 (RFC 2104)
    /// of that number, a full stop and the body.
    pub(super) fn sign(&self, unix: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(unix.to_string().as_bytes());
        context.update(b".");
        context.update(body);
        let tag = context.sign();
        let digits = tag.as_ref().iter().map(|b| format!("{b:02x}"));
        format!("t={unix},v1={}", digits.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_compute() {
        let signer = Signer::new("0123456789abcdef0123456789abcdef");
        // hmac.new(secret, b'1800000000.{"id":"e_1"}', 'sha256').hexdigest() of Python.
        let expected = "t=1800000000,v1=\
            b56b2820707235d7766122f22d341ffa110fea1a6d7c1f333fa48cf4ea1532bd";
        assert_eq!(signer.sign(1_800_000_000, br#"{"id":"e_1"}"#), expected);
        assert_ne!(signer.sign(1_800_000_001, br#"{"id":"e_1"}"#), expected);
    }
}
