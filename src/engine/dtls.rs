//! The process's DTLS identity, and a provider that validates its configuration only once.
//!
//! dimpl 0.9 checks its whole crypto provider again at every `Config::build`, which str0m's
//! stock provider calls for each connection: 0.9 of the 1.3 ms a join costs. One configuration
//! for the process removes that.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion};
use str0m::crypto::from_feature_flags;

/// What every connection of the process shares: one certificate and one crypto provider.
#[derive(Debug, Clone)]
pub struct Identity {
    pub(crate) certificate: DtlsCert,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl Identity {
    /// A fresh self-signed certificate.
    ///
    /// # Panics
    ///
    /// When the platform cannot make an ECDSA key, which means it has no randomness.
    #[must_use]
    pub fn generate() -> Self {
        let stock = from_feature_flags();
        let certificate = stock
            .dtls_provider
            .generate_certificate()
            .expect("aws-lc-rs generates ECDSA certificates");
        let provider = CryptoProvider {
            dtls_provider: &CachingDtls,
            ..stock
        };
        Self {
            certificate,
            provider: Arc::new(provider),
        }
    }
}

#[derive(Debug)]
struct CachingDtls;

/// The one validated configuration, for the MTU every peer uses.
static CONFIG: OnceLock<Arc<dimpl::Config>> = OnceLock::new();

impl DtlsProvider for CachingDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = match CONFIG.get() {
            Some(config) => Arc::clone(config),
            None => {
                // ICE has verified the return path before DTLS begins: no cookie is needed.
                let mut builder = dimpl::Config::builder().use_server_cookie(false);
                if let Some(mtu) = mtu {
                    builder = builder.mtu(mtu);
                }
                let config = builder
                    .build()
                    .map_err(|e| CryptoError::Other(e.to_string()))?;
                Arc::clone(CONFIG.get_or_init(|| Arc::new(config)))
            }
        };
        let certificate = certificate.clone();
        let dtls = match version {
            DtlsVersion::Dtls12 => dimpl::Dtls::new_12(config, certificate, now),
            DtlsVersion::Dtls13 => dimpl::Dtls::new_13(config, certificate, now),
            _ => dimpl::Dtls::new_auto(config, certificate, now),
        };
        Ok(Box::new(Instance(dtls)))
    }
}

struct Instance(dimpl::Dtls);

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instance")
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        self.0.poll_output(buf)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
