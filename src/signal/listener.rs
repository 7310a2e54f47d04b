//! Accepts connections and sees them to their end: a bounded number, with bounded patience.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::signal::caller::Remote;
use crate::signal::clock;
use crate::signal::limits::{self, LogGate};
use crate::signal::tls;

/// Accepts for ever; with `tls`, HTTPS only.
pub async fn accept(
    listener: TcpListener,
    app: Router,
    tls: Option<tls::Current>,
    max_connections: usize,
) {
    let places = Arc::new(Semaphore::new(max_connections));
    let mut full = LogGate::new(clock());
    let mut failed = LogGate::new(clock());
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                if let Some(held) = failed.pass(clock()) {
                    tracing::warn!(held, "cannot accept a connection: {e}");
                }
                // Out of file descriptors: without a pause this would be a busy loop.
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if let Some(held) = full.pass(clock()) {
                tracing::warn!(held, max_connections, "a connection was refused: too many");
            }
            continue;
        };
        let remote = Remote(address.ip());
        let (stream, app) = (Lingering::new(stream, place), app.clone());
        match &tls {
            None => tokio::spawn(serve(stream, remote, app)),
            Some(current) => {
                let acceptor = TlsAcceptor::from(Arc::clone(&current.borrow()));
                tokio::spawn(serve_tls(acceptor, stream, remote, app))
            }
        };
    }
}

async fn serve_tls(acceptor: TlsAcceptor, stream: Lingering, remote: Remote, app: Router) {
    match timeout(limits::HEAD_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, remote, app).await,
        Ok(Err(e)) => tracing::debug!("a TLS handshake failed: {e}"),
        Err(_) => tracing::debug!("a TLS handshake was not finished in time"),
    }
}

async fn serve<S>(stream: S, remote: Remote, app: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let app = TowerToHyperService::new(app);
    let with_remote = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(remote);
        app.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_TIMEOUT)
        .max_buf_size(limits::MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), with_remote)
        .with_upgrades()
        .await;
    if let Err(e) = served {
        tracing::debug!("an HTTP connection failed: {e}");
    }
}

/// A connection that takes in for a moment what the client is still sending when we are done.
/// Closing with bytes unread would reset it, and the client might never see our last words.
struct Lingering {
    /// `None` once it lingers.
    open: Option<(TcpStream, OwnedSemaphorePermit)>,
    /// Rings when the client has taken in nothing for too long; `None` while it does.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        // Signalling is small messages that should not wait for one another. A connection that
        // refuses the option is broken and will say so when it is read.
        let _ = stream.set_nodelay(true);
        let open = Some((stream, place));
        let stalled = None;
        Self { open, stalled }
    }

    /// Ends the patience with a client that takes in nothing.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = || Box::pin(sleep(limits::STALL_TIMEOUT));
        let stalled = self.stalled.get_or_insert_with(patience);
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        let (stream, _) = self.open.as_mut().expect("it lingers only when dropped");
        Pin::new(stream)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        // Outside the runtime nobody is left to wait.
        if let (Some((stream, place)), Ok(runtime)) =
            (self.open.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(linger(stream, place));
        }
    }
}

async fn linger(mut stream: TcpStream, place: OwnedSemaphorePermit) {
    let drain = async {
        stream.shutdown().await?;
        let mut left = limits::LINGER_BYTES;
        let mut scrap = vec![0; 16 * 1024];
        while left > 0 {
            match stream.read(&mut scrap).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    // However it ends, the connection is over.
    let _ = timeout(limits::CLOSE_TIMEOUT, drain).await;
    drop(place);
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_in_nothing_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let mut stream = Lingering::new(accepted.unwrap().0, place);
        let endless = async {
            loop {
                stream.write_all(&[0; 64 * 1024]).await?;
            }
            #[expect(unreachable_code, reason = "it gives the block its type")]
            io::Result::Ok(())
        };
        let ended = timeout(limits::STALL_TIMEOUT * 10, endless).await;
        let error = ended.expect("dropped in time").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }
}
