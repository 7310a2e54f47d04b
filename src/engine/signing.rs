//! Our private key for handshakes, read once a thread.
//!
//! dimpl has its provider load the key for every connection, and AWS-LC checks a key that it
//! reads: it computes the public key again, which takes as long as a signature. A shard has one
//! key for all its connections.

use std::cell::RefCell;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use dimpl::crypto::{Buf, HashAlgorithm, KeyProvider, SignatureAlgorithm, SigningKey};
use dimpl::{CryptoError, CryptoOperation};
use zeroize::Zeroizing;

/// Reads P-256 keys in PKCS #8, which is what certificates are generated with here, and has the
/// one that this thread read last ready.
#[derive(Debug)]
pub(super) struct LastKey;

struct Loaded {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
}

thread_local! {
    static LAST: RefCell<Option<Loaded>> = const { RefCell::new(None) };
}

impl KeyProvider for LastKey {
    fn load_private_key(&self, pkcs8: &[u8]) -> Result<Box<dyn SigningKey>, CryptoError> {
        LAST.with_borrow_mut(|last| {
            if let Some(loaded) = last.as_ref().filter(|loaded| *loaded.pkcs8 == pkcs8) {
                return Ok(Box::new(Key(loaded.pair.clone())) as Box<dyn SigningKey>);
            }
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
                .map_err(|_| CryptoError::InvalidPrivateKey)?;
            *last = Some(Loaded {
                pkcs8: Zeroizing::new(pkcs8.to_vec()),
                pair: pair.clone(),
            });
            Ok(Box::new(Key(pair)))
        })
    }
}

/// A reference to AWS-LC's key, which counts them.
#[derive(Debug)]
struct Key(EcdsaKeyPair);

impl SigningKey for Key {
    fn sign(&mut self, data: &[u8], hash: HashAlgorithm, out: &mut Buf) -> Result<(), CryptoError> {
        if hash != HashAlgorithm::SHA256 {
            return Err(CryptoError::SigningKeyHashMismatch {
                key_hash: HashAlgorithm::SHA256,
                requested: hash,
            });
        }
        let signature = self.0.sign(&SystemRandom::new(), data);
        let signature =
            signature.map_err(|_| CryptoError::OperationFailed(CryptoOperation::Sign))?;
        out.clear();
        out.extend_from_slice(signature.as_ref());
        Ok(())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::SHA256
    }

    fn supported_hash_algorithms(&self) -> &[HashAlgorithm] {
        &[HashAlgorithm::SHA256]
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, KeyPair, UnparsedPublicKey};

    use super::*;

    fn generated() -> (Vec<u8>, UnparsedPublicKey<Vec<u8>>) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let pkcs8 = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
        (
            pkcs8,
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public),
        )
    }

    fn signed(pkcs8: &[u8], data: &[u8]) -> Buf {
        let mut signature = Buf::new();
        let mut key = LastKey.load_private_key(pkcs8).unwrap();
        key.sign(data, HashAlgorithm::SHA256, &mut signature)
            .unwrap();
        signature
    }

    #[test]
    fn each_key_signs_as_itself_whichever_was_read_before() {
        let (one, other) = (generated(), generated());
        for (pkcs8, public) in [&one, &one, &other, &one] {
            public.verify(b"hello", &signed(pkcs8, b"hello")).unwrap();
        }
        let (_, public) = other;
        assert!(public.verify(b"hello", &signed(&one.0, b"hello")).is_err());
    }

    #[test]
    fn what_is_no_key_is_refused_after_a_good_one_too() {
        let (pkcs8, _) = generated();
        signed(&pkcs8, b"hello");
        assert!(LastKey.load_private_key(&pkcs8[1..]).is_err());
    }
}
