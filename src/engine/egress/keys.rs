//! Session keys of SRTP and SRTCP, derived from what the DTLS handshake exported.
//!
//! DTLS-SRTP (RFC 5764 §4.2) exports two master keys and two master salts, one pair for each
//! side. Each side's session keys follow by RFC 3711 §4.3 with AES in counter mode as the
//! pseudo-random function, for the GCM profiles too (RFC 7714 §11). Key derivation rate 0:
//! they are derived once (RFC 5764 §4.1.2 leaves the rate at its default).

use std::fmt;

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use str0m::crypto::dtls::{KeyingMaterial, SrtpProfile};
use zeroize::Zeroize;

/// Longest session encryption key, in bytes: AES-256.
const MAX_KEY_BYTES: usize = 32;

/// Longest session salt, in bytes: AES-CM takes 112 bits (RFC 3711 §8.2), GCM 96 (RFC 7714 §12).
const MAX_SALT_BYTES: usize = 14;

/// HMAC-SHA1 session authentication key, in bytes (RFC 3711 §8.2: 160 bits).
const AUTH_KEY_BYTES: usize = 20;

/// Which side of the DTLS handshake writes with a set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that sent the ClientHello (`a=setup:active`).
    Client,
    /// The one that answered it (`a=setup:passive`).
    Server,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Why no keys can be derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyingMaterial {
    /// The exported block has not the length its profile asks for.
    #[error("keying material has {got} bytes, its profile needs {want}")]
    Length {
        /// Bytes exported.
        got: usize,
        /// Bytes the profile needs (RFC 5764 §4.2).
        want: usize,
    },
    /// A protection profile that is not one of the three this server knows.
    #[error("unknown SRTP protection profile")]
    Profile,
}

/// Everything one side needs to protect what it sends, and the other to open it.
///
/// Zeroed when dropped; printing it shows the profile only.
pub struct SessionKeys {
    profile: SrtpProfile,
    srtp: CipherKeys,
    srtcp: CipherKeys,
}

/// The keys of one of SRTP and SRTCP.
pub(super) struct CipherKeys {
    key: [u8; MAX_KEY_BYTES],
    key_len: usize,
    salt: [u8; MAX_SALT_BYTES],
    salt_len: usize,
    /// Used by AES-CM with HMAC-SHA1 only; GCM authenticates by itself.
    auth: [u8; AUTH_KEY_BYTES],
}

impl SessionKeys {
    /// The session keys that `side` writes with.
    ///
    /// # Errors
    ///
    /// [`BadKeyingMaterial`] when the block does not fit the profile.
    pub fn derive(
        material: &KeyingMaterial,
        profile: SrtpProfile,
        side: Side,
    ) -> Result<Self, BadKeyingMaterial> {
        let (key_len, salt_len) = lengths(profile)?;
        let want = 2 * (key_len + salt_len);
        if material.len() != want {
            let got = material.len();
            return Err(BadKeyingMaterial::Length { got, want });
        }
        // RFC 5764 §4.2: client key, server key, client salt, server salt.
        let (keys, salts) = material.split_at(2 * key_len);
        let (key, salt) = match side {
            Side::Client => (&keys[..key_len], &salts[..salt_len]),
            Side::Server => (&keys[key_len..], &salts[salt_len..]),
        };
        Ok(Self::from_master(profile, key, salt))
    }

    /// The profile these keys are for.
    #[must_use]
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    pub(super) fn srtp(&self) -> &CipherKeys {
        &self.srtp
    }

    pub(super) fn srtcp(&self) -> &CipherKeys {
        &self.srtcp
    }

    fn from_master(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Self {
        let prf = Prf::new(key, salt);
        Self {
            profile,
            srtp: prf.cipher_keys(0, salt.len()),
            srtcp: prf.cipher_keys(3, salt.len()),
        }
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKeys({})", self.profile)
    }
}

impl CipherKeys {
    pub(super) fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    pub(super) fn salt(&self) -> &[u8] {
        &self.salt[..self.salt_len]
    }

    pub(super) fn auth(&self) -> &[u8] {
        &self.auth
    }

    /// Session keys as a test vector prints them.
    #[cfg(test)]
    pub(super) fn from_session(key: &[u8], salt: &[u8]) -> Self {
        let mut keys = Self {
            key: [0; MAX_KEY_BYTES],
            key_len: key.len(),
            salt: [0; MAX_SALT_BYTES],
            salt_len: salt.len(),
            auth: [0; AUTH_KEY_BYTES],
        };
        keys.key[..key.len()].copy_from_slice(key);
        keys.salt[..salt.len()].copy_from_slice(salt);
        keys
    }
}

impl Drop for CipherKeys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
        self.auth.zeroize();
    }
}

/// Key and salt lengths in bytes (RFC 5764 §4.1.2, RFC 7714 §12).
fn lengths(profile: SrtpProfile) -> Result<(usize, usize), BadKeyingMaterial> {
    match profile {
        SrtpProfile::AES128_CM_SHA1_80 => Ok((16, 14)),
        SrtpProfile::AEAD_AES_128_GCM => Ok((16, 12)),
        SrtpProfile::AEAD_AES_256_GCM => Ok((32, 12)),
        _ => Err(BadKeyingMaterial::Profile),
    }
}

/// The pseudo-random function of RFC 3711 §4.3.3: a key stream of AES in counter mode.
struct Prf {
    cipher: EncryptingKey,
    key_len: usize,
    /// The master salt, padded on the right to 112 bits (RFC 7714 §11).
    salt: [u8; MAX_SALT_BYTES],
}

impl Prf {
    fn new(key: &[u8], master_salt: &[u8]) -> Self {
        let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
        let cipher = UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr);
        let mut salt = [0; MAX_SALT_BYTES];
        salt[..master_salt.len()].copy_from_slice(master_salt);
        Self {
            cipher: cipher.expect("the key has the length of its algorithm"),
            key_len: key.len(),
            salt,
        }
    }

    /// Encryption key, authentication key and salt have three labels in a row (RFC 3711 §4.3.1,
    /// §4.3.2): 0, 1, 2 for SRTP; 3, 4, 5 for SRTCP.
    fn cipher_keys(&self, first_label: u8, salt_len: usize) -> CipherKeys {
        let mut keys = CipherKeys {
            key: [0; MAX_KEY_BYTES],
            key_len: self.key_len,
            salt: [0; MAX_SALT_BYTES],
            salt_len,
            auth: [0; AUTH_KEY_BYTES],
        };
        self.fill(first_label, &mut keys.key[..self.key_len]);
        self.fill(first_label + 1, &mut keys.auth);
        self.fill(first_label + 2, &mut keys.salt[..salt_len]);
        keys
    }

    /// Writes the key stream of `label` over `zeros`.
    fn fill(&self, label: u8, zeros: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..MAX_SALT_BYTES].copy_from_slice(&self.salt);
        // RFC 3711 §4.3.1: the label stands 48 bits above the low end of the 112-bit input.
        iv[7] ^= label;
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        let done = self.cipher.less_safe_encrypt(zeros, context);
        iv.zeroize();
        done.map(drop).expect("counter mode takes any length");
    }
}

impl Drop for Prf {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::hex;
    use super::*;

    #[test]
    fn aes_128_session_keys_are_those_of_rfc_3711_appendix_b_3() {
        let keys = SessionKeys::from_master(
            SrtpProfile::AES128_CM_SHA1_80,
            &hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
            &hex("0EC675AD498AFEEBB6960B3AABE6"),
        );
        let srtp = keys.srtp();
        assert_eq!(srtp.key(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(srtp.salt(), hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(srtp.auth(), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
        assert_ne!(keys.srtcp().key(), srtp.key());
    }

    #[test]
    fn aes_256_session_keys_are_those_of_rfc_6188_section_7_2() {
        let keys = SessionKeys::from_master(
            SrtpProfile::AEAD_AES_256_GCM,
            &hex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6"),
            &hex("3b04803de51ee7c96423ab5b78d2"),
        );
        let key = "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4";
        assert_eq!(keys.srtp().key(), hex(key));
        assert_eq!(keys.srtp().salt(), hex("fa31791685ca444a9e07c6c64e93"));
    }

    #[test]
    fn each_side_has_its_own_part_of_the_exported_block() {
        for profile in SrtpProfile::ALL {
            let block: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
            let (key_len, salt_len) = lengths(*profile).expect("a known profile");
            let material = KeyingMaterial::new(&block);
            let server = SessionKeys::derive(&material, *profile, Side::Server).expect("fits");
            let key = &block[key_len..2 * key_len];
            let salt = &block[2 * key_len + salt_len..];
            let alone = SessionKeys::from_master(*profile, key, salt);
            assert_eq!(server.srtp().key(), alone.srtp().key());
            assert_eq!(server.srtcp().salt(), alone.srtcp().salt());
            let client = SessionKeys::derive(&material, *profile, Side::Server.other());
            let client = client.expect("fits");
            assert_ne!(client.srtp().key(), server.srtp().key());
        }
    }

    #[test]
    fn a_block_of_the_wrong_length_is_refused() {
        let short = KeyingMaterial::new(&[0; 55]);
        let refused = SessionKeys::derive(&short, SrtpProfile::AEAD_AES_128_GCM, Side::Client);
        let length = BadKeyingMaterial::Length { got: 55, want: 56 };
        assert_eq!(refused.map(drop), Err(length));
    }

    #[test]
    fn printing_keys_shows_none() {
        let material = KeyingMaterial::new(&[0xab; 56]);
        let keys = SessionKeys::derive(&material, SrtpProfile::AEAD_AES_128_GCM, Side::Client);
        let shown = format!("{:?}", keys.expect("fits"));
        assert_eq!(shown, "SessionKeys(SRTP_AEAD_AES_128_GCM)");
    }
}
