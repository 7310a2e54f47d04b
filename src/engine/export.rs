//! Session keys on their way out, for those who look at packets. Debug builds only.

use std::fmt::{self, Write};
use std::net::SocketAddr;

use str0m::crypto::dtls::{KeyingMaterial, SrtpProfile};

use super::Engine;
use super::Output;
use super::arena::Key;
use super::egress::keys::Side;
use super::peer::Peer;

/// The master keys of one connection. Printing it shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct ExportedKeys {
    profile: SrtpProfile,
    /// Key and salt in hexadecimal digits: what we seal with.
    ours: String,
    /// What the client seals with.
    theirs: String,
}

impl ExportedKeys {
    /// Takes them out of what a handshake exported (RFC 5764 §4.2): client key, server key, client
    /// salt, server salt.
    pub(super) fn new(material: &KeyingMaterial, profile: SrtpProfile, side: Side) -> Self {
        let salt_len = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => 14,
            _ => 12,
        };
        let key_len = (material.len() / 2).saturating_sub(salt_len);
        let (keys, salts) = material.split_at(2 * key_len);
        let of = |place: usize| {
            let key = &keys[place * key_len..][..key_len];
            let salt = &salts[place * salt_len..][..salt_len];
            hex(key) + &hex(salt)
        };
        let (ours, theirs) = match side {
            Side::Client => (of(0), of(1)),
            Side::Server => (of(1), of(0)),
        };
        Self {
            profile,
            ours,
            theirs,
        }
    }

    /// One line: the client's address, the profile, what the server seals with and what the client
    /// seals with.
    #[must_use]
    pub fn line(&self, client: SocketAddr) -> String {
        format!("{client} {} {} {}\n", self.profile, self.ours, self.theirs)
    }
}

impl fmt::Debug for ExportedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExportedKeys").field(&self.profile).finish()
    }
}

impl Engine {
    /// The peer is connected: its keys go where the shard was told to put them, if anywhere.
    pub(super) fn export_keys(&mut self, key: Key<Peer>) {
        let peer = self.peers.get(key);
        let exported = peer.and_then(|peer| {
            let keys = peer.send_side.exported_keys()?;
            Some((peer.path?.destination, keys))
        });
        if let Some((client, keys)) = exported {
            self.outbox.push_back(Output::Keys(client, keys));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_is_told_its_own_key_and_salt_and_printing_shows_none() {
        // AES-CM: keys of 16 bytes, salts of 14.
        let block = [[1; 16].as_slice(), &[2; 16], &[3; 14], &[4; 14]].concat();
        let material = KeyingMaterial::new(&block);
        let keys = ExportedKeys::new(&material, SrtpProfile::AES128_CM_SHA1_80, Side::Server);
        let client = SocketAddr::from(([10, 0, 0, 1], 9));
        let (ours, theirs) = (
            "02".repeat(16) + &"04".repeat(14),
            "01".repeat(16) + &"03".repeat(14),
        );
        let line = keys.line(client);
        assert!(line.starts_with("10.0.0.1:9 "), "{line}");
        assert!(line.ends_with(&format!(" {ours} {theirs}\n")), "{line}");
        assert!(!format!("{keys:?}").contains("0202"));
    }
}
