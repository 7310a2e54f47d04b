//! A client's WebSocket, without waiting once it is open.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::{HeaderValue, Uri};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

/// Longest that opening may take.
const OPENING: Duration = Duration::from_secs(20);
/// The default of 128 KiB would be most of a client's memory.
const BUFFER_BYTES: usize = 4096;

/// One open socket.
pub(crate) struct Signalling(WebSocket<TcpStream>);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{0} is no ws:// address; TLS is not spoken: measure behind the proxy")]
    BadUrl(String),
    #[error("cannot connect to {0}: {1}")]
    Connect(String, io::Error),
    #[error("{0} refused the WebSocket: {1}")]
    Refused(String, String),
}

impl Signalling {
    /// Opens a socket, which takes a round trip or two.
    pub(crate) fn open(
        url: &str,
        token: Option<&str>,
        subprotocol: Option<&'static str>,
    ) -> Result<Self, OpenError> {
        let address = host_of(url)?;
        let connect = |error| OpenError::Connect(address.clone(), error);
        let mut addresses = address.to_socket_addrs().map_err(connect)?;
        let first = addresses.next();
        let first = first.ok_or_else(|| connect(io::Error::from(ErrorKind::NotFound)))?;
        let stream = TcpStream::connect_timeout(&first, OPENING).map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        stream.set_read_timeout(Some(OPENING)).map_err(connect)?;
        let url = match token {
            Some(token) if url.contains('?') => format!("{url}&token={token}"),
            Some(token) => format!("{url}?token={token}"),
            None => url.to_owned(),
        };
        let refused = |error: &dyn ToString| OpenError::Refused(address.clone(), error.to_string());
        let mut request = url.into_client_request().map_err(|e| refused(&e))?;
        if let Some(subprotocol) = subprotocol {
            let value = HeaderValue::from_static(subprotocol);
            request
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", value);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0);
        let opened = tungstenite::client::client_with_config(request, stream, Some(config));
        let (socket, _) = opened.map_err(|e| refused(&e))?;
        let nonblocking = socket.get_ref().set_nonblocking(true);
        nonblocking.map_err(connect)?;
        Ok(Self(socket))
    }

    /// The address this host has towards the server: media comes from it too.
    pub(crate) fn local_ip(&self) -> io::Result<IpAddr> {
        Ok(self.0.get_ref().local_addr()?.ip())
    }

    /// The next message; `None` when there is none yet.
    pub(crate) fn receive(&mut self) -> Result<Option<String>, Error> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(Some(text.to_string())),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a message; what the kernel does not take waits for the next call.
    pub(crate) fn send(&mut self, text: String) -> Result<(), Error> {
        would_block_is_fine(self.0.send(Message::text(text)))
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        would_block_is_fine(self.0.flush())
    }
}

impl AsFd for Signalling {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

fn would_block_is_fine(sent: Result<(), Error>) -> Result<(), Error> {
    match sent {
        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        sent => sent,
    }
}

/// `host:port` of a `ws://` address.
pub(crate) fn host_of(url: &str) -> Result<String, OpenError> {
    let bad = || OpenError::BadUrl(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("ws"));
    let host = host.ok_or_else(bad)?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_has_a_port() {
        assert_eq!(host_of("ws://[::1]:8080/ws").unwrap(), "[::1]:8080");
        assert_eq!(host_of("ws://localhost/ws").unwrap(), "localhost:80");
        for bad in ["wss://localhost/ws", "http://localhost", "x"] {
            assert!(host_of(bad).is_err(), "{bad}");
        }
    }
}
