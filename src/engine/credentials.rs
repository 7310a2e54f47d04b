//! ICE credentials whose ufrag names the shard (RFC 8445 §5.3).

use std::sync::Arc;

use str0m::IceCreds;
use str0m::config::CryptoProvider;

use crate::id::ShardId;

/// Draws credentials from a seed: unguessable when the seed is secret, repeatable when it is
/// fixed. Each is SHA-256 of the seed and a counter.
#[derive(Debug)]
pub(crate) struct Credentials {
    shard: ShardId,
    seed: [u8; 32],
    provider: Arc<CryptoProvider>,
    drawn: u64,
}

impl Credentials {
    pub(crate) fn new(shard: ShardId, seed: [u8; 32], provider: Arc<CryptoProvider>) -> Self {
        Self {
            shard,
            seed,
            provider,
            drawn: 0,
        }
    }

    /// Credentials never given out before: 84 bits of ufrag after the shard's two characters,
    /// 144 bits of password.
    pub(crate) fn draw(&mut self) -> IceCreds {
        let mut ufrag = String::with_capacity(16);
        ufrag.extend(self.shard.ufrag_prefix().map(char::from));
        push_characters(&mut ufrag, &self.block(), 14);
        let mut pass = String::with_capacity(24);
        push_characters(&mut pass, &self.block(), 24);
        IceCreds { ufrag, pass }
    }

    fn block(&mut self) -> [u8; 32] {
        let mut input = [0; 42];
        input[..32].copy_from_slice(&self.seed);
        input[32..40].copy_from_slice(&self.drawn.to_be_bytes());
        input[40..].copy_from_slice(&self.shard.ufrag_prefix());
        self.drawn += 1;
        self.provider.sha256_provider.sha256(&input)
    }
}

/// Six bits of each byte become one ice-char (RFC 8445 §15.4).
fn push_characters(text: &mut String, bytes: &[u8; 32], count: usize) {
    const ICE_CHARS: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text.extend(
        bytes
            .iter()
            .take(count)
            .map(|b| char::from(ICE_CHARS[usize::from(b & 63)])),
    );
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::engine::dtls::Identity;

    #[test]
    fn credentials_name_their_shard_and_never_repeat() {
        let provider = Identity::generate().provider;
        let shard = ShardId::new(77);
        let mut source = Credentials::new(shard, [7; 32], Arc::clone(&provider));
        let drawn: HashSet<_> = (0..100).map(|_| source.draw().ufrag).collect();
        assert_eq!(drawn.len(), 100);
        assert!(
            drawn
                .iter()
                .all(|u| ShardId::from_ufrag(u.as_bytes()) == Some(shard))
        );
        let again = Credentials::new(shard, [7; 32], provider).draw();
        assert!(
            drawn.contains(&again.ufrag),
            "the same seed gives the same credentials"
        );
    }
}
