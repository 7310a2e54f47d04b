//! HTTPS and WSS: a certificate and its key from files, which are read again when they change.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::signal::unix::{SignalKind, signal as on_signal};
use tokio::sync::watch;
use tokio::time::interval;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::signal::{limits, unix_time, validity};

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A file with the certificate in PEM, the server's own first, then those that signed it.
    pub certificate: PathBuf,
    /// A file with its private key in PEM.
    pub key: PathBuf,
    /// For how long browsers are told to come by HTTPS only (RFC 6797), in seconds; 0 for never.
    pub hsts_seconds: u64,
}

/// Why HTTPS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's file cannot be used.
    #[error("no certificate in {0}: {1}")]
    Certificate(PathBuf, rustls::pki_types::pem::Error),
    /// The file has none.
    #[error("no certificate in {0}")]
    NoCertificate(PathBuf),
    /// The key's file cannot be used.
    #[error("no private key in {0}: {1}")]
    Key(PathBuf, rustls::pki_types::pem::Error),
    /// They do not fit together, or are of a kind that is not taken.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The latest certificate, for each new connection.
pub type Current = watch::Receiver<Arc<ServerConfig>>;

/// Reads certificate and key.
///
/// # Errors
///
/// [`TlsError`] is the first thing that is wrong.
pub fn load(options: &Options) -> Result<Arc<ServerConfig>, TlsError> {
    let Options {
        certificate, key, ..
    } = options;
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| TlsError::Certificate(certificate.clone(), e))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| TlsError::Key(key.clone(), e))?;
    // rustls has no cipher suite and no version that it would be a mistake to offer.
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Reads them again when the files change or on SIGHUP, for ever. What cannot be used is told,
/// and the certificate stays as it was.
pub async fn follow(options: Options, current: watch::Sender<Arc<ServerConfig>>) {
    let Ok(mut hangup) = on_signal(SignalKind::hangup()) else {
        return tracing::warn!("SIGHUP cannot be listened for: certificates are not reloaded");
    };
    let mut look = interval(limits::CERTIFICATE_INTERVAL);
    let mut seen = stamps(&options);
    let mut told = None;
    loop {
        tell_of_end(&options, &mut told);
        let is_asked = tokio::select! {
            _ = hangup.recv() => true,
            _ = look.tick() => false,
        };
        let now = stamps(&options);
        if !is_asked && now == seen {
            continue;
        }
        seen = now;
        match load(&options) {
            Ok(config) => {
                current.send_replace(config);
                tracing::info!("the certificate was read again");
            }
            Err(e) => tracing::error!("the certificate stays as it was: {e}"),
        }
    }
}

/// Tells once when the certificate should be renewed, and once when it is too late.
fn tell_of_end(options: &Options, told: &mut Option<Ending>) {
    let end = validity::end(&options.certificate);
    let left = end.map(|end| end.saturating_sub(unix_time()));
    let ending = match left {
        Some(0) => Some(Ending::Over),
        Some(..validity::SOON) => Some(Ending::Soon),
        _ => None,
    };
    if ending != *told {
        match (ending, left.unwrap_or_default() / 86_400) {
            (Some(Ending::Over), _) => {
                tracing::error!("the certificate does not hold any more: renew it");
            }
            (Some(Ending::Soon), days) => {
                tracing::warn!(days, "the certificate ends soon: renew it");
            }
            (None, _) => {}
        }
    }
    *told = ending;
}

/// Why a certificate is to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Soon,
    Over,
}

/// When each file last changed, and how long it is. Two small local files: to ask takes less
/// time than to hand the question to another thread.
fn stamps(options: &Options) -> [Option<(SystemTime, u64)>; 2] {
    [&options.certificate, &options.key].map(|path| {
        let file = fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len()))
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::signal::http::{self, Site};
    use crate::signal::hub::Handle;
    use crate::signal::listener;

    /// A folder of its own for each test.
    fn options(test: &str) -> Options {
        let folder = std::env::temp_dir().join(format!("corelay-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Options {
            certificate: folder.join("cert.pem"),
            key: folder.join("key.pem"),
            hsts_seconds: 0,
        }
    }

    /// Writes a fresh certificate for `localhost`, and returns it.
    fn write(options: &Options) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&options.certificate, cert.pem()).unwrap();
        fs::write(&options.key, signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    fn forget(options: &Options) {
        let folder = options.certificate.parent().map(Path::to_owned);
        fs::remove_dir_all(folder.unwrap()).unwrap();
    }

    #[test]
    fn what_cannot_be_served_is_told_apart() {
        let options = options("apart");
        assert!(matches!(load(&options), Err(TlsError::Certificate(..))));
        write(&options);
        assert!(load(&options).is_ok());
        fs::write(&options.certificate, "hello").unwrap();
        assert!(matches!(load(&options), Err(TlsError::NoCertificate(_))));
        write(&options);
        fs::write(&options.key, "hello").unwrap();
        assert!(matches!(load(&options), Err(TlsError::Key(..))));
        write(&options);
        let key = fs::read(&options.key).unwrap();
        write(&options);
        fs::write(&options.key, key).unwrap();
        assert!(matches!(load(&options), Err(TlsError::Unusable(_))));
        forget(&options);
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_change_are_read_again_and_bad_ones_change_nothing() {
        let options = options("follow");
        write(&options);
        let (sender, mut current) = watch::channel(load(&options).unwrap());
        let following = tokio::spawn(follow(options.clone(), sender));
        tokio::time::sleep(limits::CERTIFICATE_INTERVAL * 2).await;
        assert!(!current.has_changed().unwrap(), "nothing has changed");
        fs::write(&options.key, "no key").unwrap();
        tokio::time::sleep(limits::CERTIFICATE_INTERVAL * 2).await;
        assert!(
            !current.has_changed().unwrap(),
            "the old one is better than none"
        );
        write(&options);
        tokio::time::sleep(limits::CERTIFICATE_INTERVAL * 2).await;
        assert!(current.has_changed().unwrap());
        current.mark_unchanged();
        following.abort();
        forget(&options);
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_certificate_is_served_and_http_is_not() {
        let mut options = options("served");
        options.hsts_seconds = 31_536_000;
        let certificate = write(&options);
        let (_sender, current) = watch::channel(load(&options).unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (hub, _inputs) = Handle::new();
        let signalling = crate::signal::Options {
            tls: Some(options.clone()),
            ..crate::signal::Options::default()
        };
        let (_settings, live) = watch::channel(Arc::new(signalling));
        let (_stuck, vitals) = watch::channel(Vec::new());
        let site = Site::new(hub, live, vitals);
        let app = http::router(site, false, axum::Router::new());
        tokio::spawn(listener::accept(listener, app, Some(current), 10));
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let hsts = "strict-transport-security: max-age=31536000\r\n";
        assert!(answer.to_lowercase().contains(hsts), "{answer}");
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.unwrap();
        assert!(!answer.starts_with(b"HTTP"));
        forget(&options);
    }
}
