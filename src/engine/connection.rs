//! What every peer's connection is built with.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::config::DtlsVersion;
use str0m::net::{Protocol, TcpType};
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

use super::Options;
use super::dtls::{Identity, KeyPort, with_keys};
use super::limits::CHANNEL_SENDING_BYTES;
use super::svc::extension;

/// Where clients can reach this server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidates<'a> {
    pub(crate) udp: &'a [SocketAddr],
    pub(crate) tcp: &'a [SocketAddr],
}

impl<'a> From<&'a Options> for Candidates<'a> {
    fn from(options: &'a Options) -> Self {
        Self {
            udp: &options.candidates,
            tcp: &options.tcp_candidates,
        }
    }
}

/// A connection that waits for its client's offer, and where its keys will appear.
pub(super) fn build(
    now: Instant,
    creds: IceCreds,
    identity: &Identity,
    candidates: Candidates<'_>,
) -> (Rtc, KeyPort) {
    let (mut rtc, keys) = with_keys(|| config(creds, identity).build(now));
    let udp = candidates.udp.iter().copied();
    let udp = udp.map(|address| Candidate::host(address, Protocol::Udp));
    let tcp = candidates.tcp.iter().copied().map(|address| {
        let host = Candidate::builder().tcp().host(address);
        host.tcptype(TcpType::Passive).build()
    });
    // An address that ICE refuses (port 0, unspecified) was refused at start-up.
    for candidate in udp.chain(tcp).flatten() {
        rtc.add_local_candidate(candidate);
    }
    (rtc, keys)
}

/// DTLS 1.2, though 1.3 works with the browsers: dimpl 0.9 as a 1.3 server takes the client's
/// first SRTP profile, which in Chromium is AES-CM with HMAC-SHA1, four times the cost of GCM; as
/// a 1.2 server it prefers GCM.
fn config(creds: IceCreds, identity: &Identity) -> RtcConfig {
    with_codecs(RtcConfig::new())
        .set_ice_lite(true)
        .set_rtp_mode(true)
        .set_crypto_provider(identity.provider.clone())
        .set_dtls_cert(identity.certificate.clone())
        .set_dtls_version(DtlsVersion::Dtls12)
        .set_local_ice_credentials(creds)
        .set_sctp_max_buffered_amount(CHANNEL_SENDING_BYTES)
        .set_extension(extension::ID, extension::extension())
}

/// The codecs we answer with, and no others.
pub(super) fn with_codecs(config: RtcConfig) -> RtcConfig {
    config
        .clear_codecs()
        .enable_opus(true, true)
        .enable_vp8(true)
        .enable_vp9(true)
        .enable_h264(true)
        .enable_av1(true)
}
