//! The one certificate of every engine, and the DTLS it is spoken with.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{DtlsInstance, DtlsProvider};

use crate::engine::dtls::Identity;

/// An engine's identity. With another `version` than the product's, connections are made with
/// that.
pub(super) fn server_identity(version: DtlsVersion) -> Identity {
    let identity = product_identity();
    if version == DtlsVersion::Dtls12 {
        return identity.clone();
    }
    let provider = CryptoProvider {
        dtls_provider: &Newer,
        ..CryptoProvider::clone(&identity.provider)
    };
    Identity {
        certificate: identity.certificate.clone(),
        provider: Arc::new(provider),
    }
}

fn product_identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(Identity::generate)
}

/// DTLS 1.3, whatever was asked for.
#[derive(Debug)]
struct Newer;

impl DtlsProvider for Newer {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        product_identity()
            .provider
            .dtls_provider
            .generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _asked: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let product = product_identity().provider.dtls_provider;
        product.new_dtls(certificate, now, DtlsVersion::Dtls13, mtu)
    }
}
