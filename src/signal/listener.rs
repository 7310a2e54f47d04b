//! Accepts connections and sees them to their end: a bounded number, with bounded patience.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
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
use crate::signal::limits::{self, Bucket, LogGate};
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
    /// How much more is read of it.
    allowance: Bucket,
    /// Bytes read that are not yet taken out of that.
    owed: u64,
    /// Rings when it may be read again; `None` while it may.
    rest: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        // Signalling is small messages that should not wait for one another. A connection that
        // refuses the option is broken and will say so when it is read.
        let _ = stream.set_nodelay(true);
        let (burst, rate) = (limits::READ_BURST_BYTES, limits::READ_BYTES_PER_SECOND);
        Self {
            open: Some((stream, place)),
            stalled: None,
            allowance: Bucket::new(clock(), burst, rate),
            owed: 0,
            rest: None,
        }
    }

    /// Waits until what was read before is allowed for.
    fn poll_allowance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(rest) = &mut self.rest {
                ready!(rest.as_mut().poll(cx));
                self.rest = None;
            }
            if self.allowance.take(clock(), self.owed) {
                self.owed = 0;
                return Poll::Ready(());
            }
            self.rest = Some(Box::pin(sleep(limits::READ_PAUSE)));
        }
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
        ready!(self.poll_allowance(cx));
        let before = buf.filled().len();
        let read = self.stream().poll_read(cx, buf);
        self.owed += (buf.filled().len() - before) as u64;
        read
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

    /// A client, and the connection that was accepted from it.
    async fn connected() -> (TcpStream, Lingering) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        (client.unwrap(), Lingering::new(accepted.unwrap().0, place))
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_without_an_end_is_read_no_faster_than_it_may() {
        let (mut client, mut stream) = connected().await;
        let seconds = 10;
        let bytes = limits::READ_BURST_BYTES + seconds * limits::READ_BYTES_PER_SECOND;
        let sending = async {
            // Empty frames of a message that never ends, RFC 6455 section 5.4.
            let frames = [0, 0x80, 0, 0, 0, 0].repeat(1000);
            for _ in 0..=bytes / frames.len() as u64 {
                client.write_all(&frames).await.unwrap();
            }
        };
        let began = clock();
        let reading = async {
            let mut scrap = vec![0; 8 * 1024];
            let mut left = bytes;
            while left > 0 {
                left = left.saturating_sub(stream.read(&mut scrap).await.unwrap() as u64);
            }
        };
        tokio::join!(sending, reading);
        let took = clock().saturating_duration_since(began);
        let least = Duration::from_secs(seconds - 1);
        assert!((least..least * 2).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_in_nothing_is_dropped() {
        let (client, mut stream) = connected().await;
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
