//! Tokens: is this one genuine, does it hold at this time, and whose claims are in it? Pure.
//!
//! JSON Web Tokens (RFC 7519) with the claims of LiveKit's server SDKs, so that what those mint
//! means the same here. Each key has one algorithm, so that no header can choose another
//! (RFC 8725 §3.1), and signatures are compared in constant time by AWS-LC.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::signal::limits;

/// A key that tokens are signed with.
#[derive(Debug, Clone)]
pub struct Key {
    id: String,
    algorithm: Algorithm,
    verify: DecodingKey,
    /// `None` for a public key, which checks tokens and mints none.
    sign: Option<EncodingKey>,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// RFC 7518 §3.2 asks for as many bits as the hash has.
    #[error(
        "a shared secret has at least 32 bytes, this one has {0}; `openssl rand -hex 32` \
             makes one"
    )]
    ShortSecret(usize),
    /// A server that only checks tokens has no use for it, and should not have it.
    #[error(
        "this is a private key; the server needs the public one \
             (`openssl pkey -pubout`)"
    )]
    Private,
    /// Neither RSA nor Ed25519.
    #[error("this is no public key of RSA or Ed25519 in PEM")]
    NoPublicKey,
}

impl Key {
    /// A shared secret, for HS256. `id` is the `kid` (or, as LiveKit does it, the `iss`) of its
    /// tokens.
    ///
    /// # Errors
    ///
    /// [`BadKey::ShortSecret`].
    pub fn secret(id: &str, secret: &str) -> Result<Self, BadKey> {
        if secret.len() < 32 {
            return Err(BadKey::ShortSecret(secret.len()));
        }
        Ok(Self {
            id: id.to_owned(),
            algorithm: Algorithm::HS256,
            verify: DecodingKey::from_secret(secret.as_bytes()),
            sign: Some(EncodingKey::from_secret(secret.as_bytes())),
        })
    }

    /// A public key in PEM, for RS256 or EdDSA.
    ///
    /// # Errors
    ///
    /// [`BadKey`].
    pub fn public(id: &str, pem: &str) -> Result<Self, BadKey> {
        if pem.contains("PRIVATE KEY") {
            return Err(BadKey::Private);
        }
        let rsa = DecodingKey::from_rsa_pem(pem.as_bytes()).map(|key| (Algorithm::RS256, key));
        let any = rsa.or_else(|_| {
            DecodingKey::from_ed_pem(pem.as_bytes()).map(|key| (Algorithm::EdDSA, key))
        });
        let (algorithm, verify) = any.map_err(|_| BadKey::NoPublicKey)?;
        Ok(Self {
            id: id.to_owned(),
            algorithm,
            verify,
            sign: None,
        })
    }
}

/// What a token says. Fields we do not know are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Who minted it; LiveKit's SDKs name the key here and have no `kid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The identity: one participant of a room has it at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// What to call the participant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Told to the others as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// From when on it does not hold, in seconds since 1970.
    pub exp: f64,
    /// From when on it holds, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<f64>,
    /// What it grants.
    #[serde(default)]
    pub video: VideoGrant,
}

impl Claims {
    /// Whether they hold at `now`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Denied::Expired`], [`Denied::NotYetValid`].
    pub fn check_times(&self, now: u64) -> Result<(), Denied> {
        let (now, leeway) = (now as f64, limits::CLOCK_LEEWAY_SECONDS);
        if self.exp + leeway <= now {
            return Err(Denied::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf - leeway > now) {
            return Err(Denied::NotYetValid);
        }
        Ok(())
    }
}

/// What a token grants, with LiveKit's names. What is not said is not granted, but for the three
/// that say what somebody who may join may do there.
#[derive(
    Debug,
    Clone,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    /// May enter `room`.
    pub room_join: bool,
    /// The one room that `roomJoin`, `roomAdmin` and `roomRecord` are about.
    pub room: String,
    /// May publish tracks; yes when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// What may be published: `camera`, `microphone`, `screen_share`, `screen_share_audio`; all
    /// when left out or empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// May watch and hear others; yes when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// May send `data`; as `canPublish` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// May remove and mute participants of `room`, and mint tokens for it.
    pub room_admin: bool,
    /// May make and delete rooms.
    pub room_create: bool,
    /// May list rooms, and see how the server does.
    pub room_list: bool,
    /// May record `room`.
    pub room_record: bool,
    /// The others do not learn of this participant.
    pub hidden: bool,
}

/// Why a token does not hold, or does not grant what it is shown for. For the log: the client
/// is told `unauthorized` and no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// None came, and one is needed.
    #[error("there is no token")]
    Missing,
    /// It is longer than [`limits::MAX_TOKEN_BYTES`].
    #[error("the token is too long")]
    TooLong,
    /// It is no token, or not one of an algorithm we take. `alg: none` ends here.
    #[error("this is no token, or of an algorithm that is not taken")]
    Malformed,
    /// No key of ours has the name it gives.
    #[error("the token names a key that is not configured")]
    UnknownKey,
    /// No key of ours has signed it.
    #[error("the signature is of another key")]
    WrongKey,
    /// Its claims are not those of a token, for instance without `exp`.
    #[error("the claims cannot be read")]
    BadClaims,
    /// It did hold.
    #[error("the token has expired")]
    Expired,
    /// It will hold.
    #[error("the token does not hold yet")]
    NotYetValid,
    /// It does not say who comes.
    #[error("the token has no `sub`")]
    NoIdentity,
    /// It does not grant what was asked for.
    #[error("the token does not grant {0}")]
    NotGranted(&'static str),
    /// It is for another room.
    #[error("the token is for another room")]
    WrongRoom,
    /// It is not about the participant that shows it.
    #[error("the token is of another identity")]
    WrongIdentity,
}

/// Checks a token at `now`, in seconds since 1970.
///
/// # Errors
///
/// [`Denied`] is the first thing that is wrong.
pub fn verify(token: &str, keys: &[Key], now: u64) -> Result<Claims, Denied> {
    if token.len() > limits::MAX_TOKEN_BYTES {
        return Err(Denied::TooLong);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Denied::Malformed)?;
    let claims = candidates(token, &header, keys)?
        .into_iter()
        .filter(|key| key.algorithm == header.alg)
        .find_map(|key| genuine(token, key))
        .ok_or(Denied::WrongKey)??;
    claims.check_times(now)?;
    Ok(claims)
}

/// The keys a token may be signed with: the one it names in `kid`, else the one named by its
/// issuer, else any.
fn candidates<'a>(token: &str, header: &Header, keys: &'a [Key]) -> Result<Vec<&'a Key>, Denied> {
    let named = |name: &str| -> Vec<&'a Key> { keys.iter().filter(|key| key.id == name).collect() };
    if let Some(id) = &header.kid {
        let found = named(id);
        return if found.is_empty() {
            Err(Denied::UnknownKey)
        } else {
            Ok(found)
        };
    }
    #[derive(Deserialize)]
    struct Issuer {
        iss: Option<String>,
    }
    // Nothing is believed here: it only chooses which key the signature is checked with.
    let issuer = jsonwebtoken::dangerous::insecure_decode::<Issuer>(token)
        .map_err(|_| Denied::Malformed)?
        .claims
        .iss;
    let found = issuer.map_or_else(Vec::new, |issuer| named(&issuer));
    Ok(if found.is_empty() {
        keys.iter().collect()
    } else {
        found
    })
}

/// `None` when the key has not signed the token.
fn genuine(token: &str, key: &Key) -> Option<Result<Claims, Denied>> {
    let mut rules = Validation::new(key.algorithm);
    // The times are checked against the `now` we are given; nobody has agreed on an audience.
    rules.required_spec_claims.clear();
    rules.validate_exp = false;
    rules.validate_aud = false;
    match jsonwebtoken::decode::<Claims>(token, &key.verify, &rules) {
        Ok(token) => Some(Ok(token.claims)),
        Err(error) => match error.kind() {
            jsonwebtoken::errors::ErrorKind::Json(_)
            | jsonwebtoken::errors::ErrorKind::Utf8(_)
            | jsonwebtoken::errors::ErrorKind::InvalidClaimFormat(_) => {
                Some(Err(Denied::BadClaims))
            }
            _ => None,
        },
    }
}

/// None of the keys can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no shared secret is configured: set security.token_secret, or one of security.token_keys")]
pub struct NoSigningKey;

/// Signs `claims` with the first key that can.
///
/// # Errors
///
/// [`NoSigningKey`].
pub fn mint(claims: &Claims, keys: &[Key]) -> Result<String, NoSigningKey> {
    let signing = keys.iter().find_map(|key| Some((key, key.sign.as_ref()?)));
    let (key, sign) = signing.ok_or(NoSigningKey)?;
    let header = Header {
        kid: Some(key.id.clone()),
        ..Header::new(key.algorithm)
    };
    let token = jsonwebtoken::encode(&header, claims, sign);
    Ok(token.expect("a shared secret signs whatever is JSON"))
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, SigningKey as _};
    use serde_json::json;

    use super::*;
    use crate::signal::fixture::{NOW, SECRET, key, token};

    fn sign(header: Value, claims: Value, secret: &str) -> String {
        let part = |value: &Value| jsonwebtoken_base64(value.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(&claims));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", jsonwebtoken_base64(tag.as_ref()))
    }

    /// RFC 4648 §5, without padding.
    fn jsonwebtoken_base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk
                .iter()
                .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for digit in 0..=chunk.len() {
                text.push(DIGITS[(word >> (18 - 6 * digit) & 63) as usize].into());
            }
        }
        text
    }

    #[test]
    fn a_token_that_was_minted_holds_until_it_expires() {
        let token = token(
            "ada",
            json!({"roomJoin": true, "room": "r", "canPublish": false}),
        );
        let claims = verify(&token, &[key()], NOW).unwrap();
        assert_eq!(claims.sub.as_deref(), Some("ada"));
        assert_eq!(claims.video.can_publish, Some(false));
        assert!(
            verify(&token, &[key()], NOW + 60).is_ok(),
            "clocks differ a little"
        );
        assert_eq!(verify(&token, &[key()], NOW + 71), Err(Denied::Expired));
    }

    #[test]
    fn the_tokens_of_other_libraries_are_understood() {
        let claims = json!({"iss": "main", "sub": "ada", "nbf": NOW - 10, "exp": NOW + 10,
            "name": "Ada", "metadata": "{}", "kind": "standard",
            "video": {"roomJoin": true, "room": "r", "canPublishSources": ["camera"]}});
        let token = sign(json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET);
        let other = Key::secret("other", &SECRET.replace("thirty", "30____")).unwrap();
        let claims = verify(&token, &[other, key()], NOW).unwrap();
        assert_eq!(claims.video.can_publish_sources, ["camera"]);
    }

    #[test]
    fn whatever_is_no_valid_token_is_denied_for_its_reason() {
        let good = json!({"sub": "a", "exp": NOW + 10});
        let hs256 = json!({"alg": "HS256"});
        let with = |header: &Value, claims: &Value| sign(header.clone(), claims.clone(), SECRET);
        let genuine = with(&hs256, &good);
        let (body, signature) = genuine.rsplit_once('.').unwrap();
        let other_claims = with(&hs256, &json!({"sub": "b", "exp": NOW + 10}));
        let swapped = format!("{}.{signature}", other_claims.rsplit_once('.').unwrap().0);
        let table = [
            (String::new(), Denied::Malformed),
            ("a.b.c".to_owned(), Denied::Malformed),
            ("....".to_owned(), Denied::Malformed),
            ("é.é.é".to_owned(), Denied::Malformed),
            ("x".repeat(limits::MAX_TOKEN_BYTES + 1), Denied::TooLong),
            (format!("{body}."), Denied::WrongKey),
            (swapped, Denied::WrongKey),
            (with(&json!({"alg": "none"}), &good), Denied::Malformed),
            (with(&json!({"alg": "HS512"}), &good), Denied::WrongKey),
            (with(&json!({"alg": "RS256"}), &good), Denied::WrongKey),
            (
                with(&json!({"alg": "HS256", "kid": "x"}), &good),
                Denied::UnknownKey,
            ),
            (
                sign(
                    hs256.clone(),
                    good.clone(),
                    "another secret of 32 characters..",
                ),
                Denied::WrongKey,
            ),
            (with(&hs256, &json!({"sub": "a"})), Denied::BadClaims),
            (
                with(&hs256, &json!({"sub": "a", "exp": "soon"})),
                Denied::BadClaims,
            ),
            (
                with(&hs256, &json!({"sub": "a", "exp": NOW - 60})),
                Denied::Expired,
            ),
            (
                with(&hs256, &json!({"exp": NOW + 99, "nbf": NOW + 60})),
                Denied::NotYetValid,
            ),
        ];
        assert!(verify(&genuine, &[key()], NOW).is_ok());
        for (token, denied) in table {
            assert_eq!(verify(&token, &[key()], NOW), Err(denied), "{token}");
        }
        assert_eq!(verify(&genuine, &[], NOW), Err(Denied::WrongKey));
    }

    #[test]
    fn public_keys_check_what_their_private_ones_have_signed() {
        for (algorithm, kind) in [("RS256", &PKCS_RSA_SHA256), ("EdDSA", &PKCS_ED25519)] {
            let pair = KeyPair::generate_for(kind).unwrap();
            let part = |value: Value| jsonwebtoken_base64(value.to_string().as_bytes());
            let header = part(json!({"alg": algorithm, "kid": "p"}));
            let message = format!("{header}.{}", part(json!({"sub": "a", "exp": NOW + 10})));
            let signature = jsonwebtoken_base64(&pair.sign(message.as_bytes()).unwrap());
            let public = Key::public("p", &pair.public_key_pem()).unwrap();
            let token = format!("{message}.{signature}");
            assert!(
                verify(&token, std::slice::from_ref(&public), NOW).is_ok(),
                "{algorithm}"
            );
            // The public key's text is no secret, so it must not work as one (RFC 8725 §2.1).
            let claims = json!({"sub": "a", "exp": NOW + 10});
            let forged = sign(
                json!({"alg": "HS256", "kid": "p"}),
                claims,
                &pair.public_key_pem(),
            );
            assert_eq!(verify(&forged, &[public], NOW), Err(Denied::WrongKey));
            assert_eq!(
                Key::public("p", &pair.serialize_pem()).unwrap_err(),
                BadKey::Private
            );
        }
    }

    #[test]
    fn keys_can_be_changed_while_old_tokens_still_hold() {
        let old = token("ada", json!({}));
        let new = Key::secret("2027", "another secret of 32 characters..").unwrap();
        let keys = [new, key()];
        assert!(verify(&old, &keys, NOW).is_ok());
        let claims = Claims {
            exp: (NOW + 9) as f64,
            ..Claims::default()
        };
        let minted = mint(&claims, &keys).unwrap();
        assert!(verify(&minted, &keys, NOW).is_ok());
        assert_eq!(verify(&minted, &[key()], NOW), Err(Denied::UnknownKey));
    }

    #[test]
    fn a_key_that_is_none_is_told_apart() {
        assert_eq!(
            Key::secret("a", "short").unwrap_err(),
            BadKey::ShortSecret(5)
        );
        assert_eq!(Key::public("a", "hello").unwrap_err(), BadKey::NoPublicKey);
        assert_eq!(mint(&Claims::default(), &[]), Err(NoSigningKey));
    }
}
