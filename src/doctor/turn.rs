//! TURN servers: does each answer, and does it take the credentials that clients are given?
//! (RFC 8656 and RFC 8489, over UDP.)

use std::net::{ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::Value;

use super::{Finding, md5};
use crate::config::Config;
use crate::signal::unix_time;

const ABOUT: &str = "TURN";
/// How long a server may take to answer one request.
const ANSWER: Duration = Duration::from_secs(1);
/// Requests that are sent at most for one answer: UDP loses some.
const TRIES: usize = 3;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const ALLOCATE: u16 = 0x0003;
const ALLOCATED: u16 = 0x0103;
const REFRESH: u16 = 0x0004;
const ERROR: u16 = 0x0113;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const LIFETIME: u16 = 0x000d;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// 17 is UDP.
const UDP: [u8; 4] = [17, 0, 0, 0];

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let Ok(options) = config.signal_options() else {
        return Vec::new();
    };
    let servers = options.ice_servers.list(unix_time(), "doctor");
    let mut findings = Vec::new();
    for server in &servers {
        let text = |name: &str| server[name].as_str().unwrap_or_default();
        let urls = match &server["urls"] {
            Value::String(url) => vec![url.as_str()],
            urls => urls
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect(),
        };
        for url in urls.into_iter().filter(|url| url.starts_with("turn")) {
            findings.push(examine_server(url, text("username"), text("credential")));
        }
    }
    if findings.is_empty() {
        let seen = "none: clients whose network lets no UDP through need ICE-TCP or a TURN server";
        findings.push(Finding::good(ABOUT, seen));
    }
    findings
}

fn examine_server(url: &str, username: &str, password: &str) -> Finding {
    let Some(place) = udp_place(url) else {
        return Finding::good(ABOUT, format!("{url}: not tried, it is not on UDP"));
    };
    match allocate(&place, username, password) {
        Ok(()) => Finding::good(ABOUT, format!("{url} takes the credentials of clients")),
        Err(TurnError::Refused(code)) => Finding::bad(
            ABOUT,
            format!("{url} refuses the credentials of clients ({code})"),
            "webrtc.turn.secret must be coturn's static-auth-secret, with use-auth-secret",
        ),
        Err(error) => Finding::bad(
            ABOUT,
            format!("{url}: {error}"),
            "is the TURN server running, and its port open from here?",
        ),
    }
}

/// Host and port of `turn:host[:port][?transport=udp]` (RFC 7065).
fn udp_place(url: &str) -> Option<String> {
    let rest = url.strip_prefix("turn:")?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if query.contains("transport=tcp") {
        return None;
    }
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    Some(if has_port {
        place.to_owned()
    } else {
        format!("{place}:3478")
    })
}

#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error("{0}")]
    Socket(#[from] std::io::Error),
    #[error("it does not answer")]
    Silent,
    #[error("it answers what a TURN server would not")]
    Strange,
    #[error("refused with {0}")]
    Refused(u16),
}

/// Asks for a relayed address, and gives it back.
fn allocate(place: &str, username: &str, password: &str) -> Result<(), TurnError> {
    let to = place.to_socket_addrs()?.next().ok_or(TurnError::Silent)?;
    let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(ANSWER))?;
    let first = exchange(
        &socket,
        &Message::new(ALLOCATE)
            .with(REQUESTED_TRANSPORT, &UDP)
            .bytes(),
    )?;
    if first.kind == ALLOCATED {
        return Ok(());
    }
    let (Some(realm), Some(nonce)) = (first.attribute(REALM), first.attribute(NONCE)) else {
        return Err(TurnError::Strange);
    };
    let realm_text = String::from_utf8_lossy(realm);
    let key = md5::digest(format!("{username}:{realm_text}:{password}").as_bytes());
    let signed = |message: Message| {
        let message = message.with(USERNAME, username.as_bytes());
        message.with(REALM, realm).with(NONCE, nonce).sealed(&key)
    };
    let request = signed(Message::new(ALLOCATE).with(REQUESTED_TRANSPORT, &UDP));
    let answer = exchange(&socket, &request)?;
    if answer.kind != ALLOCATED {
        return Err(answer.code().map_or(TurnError::Strange, TurnError::Refused));
    }
    // Nobody needs the address: whether it is given back in time does not matter.
    let refresh = signed(Message::new(REFRESH).with(LIFETIME, &[0; 4]));
    let _ = socket.send(&refresh);
    Ok(())
}

fn exchange(socket: &UdpSocket, request: &[u8]) -> Result<Answer, TurnError> {
    let mut buffer = [0; 2048];
    for _ in 0..TRIES {
        socket.send(request)?;
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        let answer = Answer::parse(&buffer[..length]).ok_or(TurnError::Strange)?;
        if answer.bytes[8..20] == request[8..20] {
            return Ok(answer);
        }
    }
    Err(TurnError::Silent)
}

/// A request being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16) -> Self {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        let mut id = [0; 12];
        aws_lc_rs::rand::fill(&mut id).expect("the system has randomness");
        bytes.extend(id);
        Self(bytes)
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(kind.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn bytes(mut self) -> Vec<u8> {
        let length = (self.0.len() - 20) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }

    /// With its integrity (RFC 8489 §14.5), whose length counts in the header that it covers.
    fn sealed(mut self, key: &[u8]) -> Vec<u8> {
        let length = (self.0.len() - 20 + 24) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let tag = hmac::sign(&key, &self.0);
        self.with(MESSAGE_INTEGRITY, tag.as_ref()).bytes()
    }
}

/// An answer that was read.
struct Answer {
    kind: u16,
    bytes: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let is_stun = bytes.len() >= 20 && bytes[0] < 4 && bytes[4..8] == COOKIE;
        is_stun.then(|| Self {
            kind: u16::from_be_bytes([bytes[0], bytes[1]]),
            bytes: bytes.to_vec(),
        })
    }

    fn attribute(&self, kind: u16) -> Option<&[u8]> {
        let mut rest = &self.bytes[20..];
        while let [k0, k1, l0, l1, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            if u16::from_be_bytes([*k0, *k1]) == kind {
                return after.get(..length);
            }
            rest = after.get(length.next_multiple_of(4)..)?;
        }
        None
    }

    fn code(&self) -> Option<u16> {
        let value = self.attribute(ERROR_CODE).filter(|_| self.kind == ERROR)?;
        Some(u16::from(*value.get(2)?) * 100 + u16::from(*value.get(3)?))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_place_of_a_turn_server_is_in_its_url() {
        assert_eq!(
            udp_place("turn:t.example.org").unwrap(),
            "t.example.org:3478"
        );
        assert_eq!(
            udp_place("turn:192.0.2.1:5349?transport=udp").unwrap(),
            "192.0.2.1:5349"
        );
        assert_eq!(udp_place("turn:[::1]").unwrap(), "[::1]:3478");
        assert_eq!(udp_place("turn:t.example.org?transport=tcp"), None);
        assert_eq!(udp_place("turns:t.example.org"), None);
    }

    /// A TURN server that knows one password.
    fn server(key: [u8; 16]) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let place = socket.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let request = Answer::parse(&buffer[..length]).unwrap();
                let reply = |kind| {
                    let mut message = Message::new(kind);
                    message.0[8..20].copy_from_slice(&request.bytes[8..20]);
                    message
                };
                let is_genuine = request.attribute(MESSAGE_INTEGRITY).is_some_and(|tag| {
                    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
                    hmac::verify(&key, &request.bytes[..length - 24], tag).is_ok()
                });
                let reply = match is_genuine {
                    true => reply(ALLOCATED),
                    false => {
                        let refused = reply(ERROR).with(ERROR_CODE, &[0, 0, 4, 1]);
                        refused.with(REALM, b"here").with(NONCE, b"n")
                    }
                };
                socket.send_to(&reply.bytes(), from).unwrap();
            }
        });
        place
    }

    #[test]
    fn a_server_that_takes_the_credentials_is_told_from_one_that_does_not() {
        let place = server(md5::digest(b"ann:here:right"));
        assert!(allocate(&place, "ann", "right").is_ok());
        let refused = allocate(&place, "ann", "wrong");
        assert!(
            matches!(refused, Err(TurnError::Refused(401))),
            "{refused:?}"
        );
    }
}
