//! The process's DTLS identity, and a provider that validates its configuration only once and
//! lets the send side have its keys.
//!
//! dimpl 0.9 checks its whole crypto provider again at every `Config::build`, which str0m's
//! stock provider calls for each connection: 0.9 of the 1.3 ms a join costs. One configuration
//! for the process removes that.
//!
//! What a handshake exports stays here: str0m neither seals nor opens SRTP, and without keys it
//! keeps nothing for that. [`with_keys`] ties a connection to where its keys will appear.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, KeyingMaterial, ProtocolVersion,
    SrtpProfile,
};
use str0m::crypto::from_feature_flags;

use super::egress::keys::{SessionKeys, Side};
use super::signing::LastKey;

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

/// Where the keys of one connection appear once its handshake is done.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyPort(Arc<OnceLock<Keys>>);

/// Both directions of one connection.
#[derive(Debug)]
pub(crate) struct Keys {
    /// What we seal with.
    pub(crate) ours: SessionKeys,
    /// What the client seals with.
    pub(crate) theirs: SessionKeys,
    /// Both, to be looked at packets with.
    #[cfg(debug_assertions)]
    pub(crate) exported: super::export::ExportedKeys,
}

impl KeyPort {
    /// The keys, once they are there.
    pub(crate) fn keys(&self) -> Option<&Keys> {
        self.0.get()
    }
}

thread_local! {
    /// The port of the connection being built: str0m asks for its DTLS instance within
    /// `RtcConfig::build`, and has no other way to say for whom.
    static BUILDING: RefCell<Option<KeyPort>> = const { RefCell::new(None) };
}

/// Builds a connection whose keys will appear in the port.
pub(crate) fn with_keys<T>(build: impl FnOnce() -> T) -> (T, KeyPort) {
    let port = KeyPort::default();
    BUILDING.set(Some(port.clone()));
    let built = build();
    BUILDING.set(None);
    (built, port)
}

/// The same for a client of a simulation: its str0m has the keys too.
#[cfg(test)]
pub(crate) fn with_shared_keys<T>(build: impl FnOnce() -> T) -> (T, KeyPort) {
    let is_stock = super::stock::outgoing().is_some();
    super::stock::choose(true);
    let built = with_keys(build);
    super::stock::choose(is_stock);
    built
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
                let provider = dimpl::crypto::CryptoProvider {
                    key_provider: &LastKey,
                    ..dimpl::crypto::aws_lc_rs::default_provider()
                };
                // ICE has verified the return path before DTLS begins: no cookie is needed.
                let mut builder = dimpl::Config::builder()
                    .with_crypto_provider(provider)
                    .use_server_cookie(false);
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
        Ok(Box::new(Instance {
            dtls,
            port: BUILDING.take(),
            #[cfg(test)]
            is_stock: super::stock::outgoing().is_some(),
        }))
    }
}

struct Instance {
    dtls: dimpl::Dtls,
    /// `None` where str0m is to have the keys.
    port: Option<KeyPort>,
    /// Whether str0m sends in our place, and needs the keys.
    #[cfg(test)]
    is_stock: bool,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instance")
    }
}

impl Instance {
    /// Derives the keys of both sides and leaves them in the port.
    fn keep(&self, port: &KeyPort, material: &KeyingMaterial, profile: SrtpProfile) {
        let side = if self.dtls.is_active() {
            Side::Client
        } else {
            Side::Server
        };
        let derive = |side| SessionKeys::derive(material, profile, side);
        // A profile that is not ours leaves the port empty: nothing is sent to such a peer.
        if let (Ok(ours), Ok(theirs)) = (derive(side), derive(side.other())) {
            let _ = port.0.set(Keys {
                ours,
                theirs,
                #[cfg(debug_assertions)]
                exported: super::export::ExportedKeys::new(material, profile, side),
            });
        }
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.dtls.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let output = self.dtls.poll_output(buf);
        #[cfg(test)]
        let output = aes_cm::instead(output);
        let (DtlsOutput::KeyingMaterial(material, profile), Some(port)) = (&output, &self.port)
        else {
            return output;
        };
        self.keep(port, material, *profile);
        #[cfg(test)]
        if self.is_stock {
            return output;
        }
        // str0m 0.25 takes note of this once, and knows it already.
        DtlsOutput::Connected
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls.close()
    }
}

/// Connections of tests that settle on AES-CM with HMAC-SHA1: dimpl prefers GCM on both sides.
#[cfg(test)]
pub(crate) mod aes_cm {
    use std::cell::Cell;

    use str0m::crypto::dtls::{DtlsOutput, KeyingMaterial, SrtpProfile};

    thread_local! {
        static CHOSEN: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether handshakes of this thread that end from here on settle on it.
    pub(crate) fn choose(aes_cm: bool) {
        CHOSEN.set(aes_cm);
    }

    pub(super) fn instead(output: DtlsOutput<'_>) -> DtlsOutput<'_> {
        match output {
            DtlsOutput::KeyingMaterial(material, _) if CHOSEN.get() => {
                let profile = SrtpProfile::AES128_CM_SHA1_80;
                let block = &material[..profile.keying_material_len()];
                DtlsOutput::KeyingMaterial(KeyingMaterial::new(block), profile)
            }
            output => output,
        }
    }
}
