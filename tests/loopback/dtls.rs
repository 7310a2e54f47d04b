//! The DTLS of media: whose key it is, and which ciphers it settles on.

use std::process::Command;

use serde_json::json;

use super::caller::Caller;
use super::server::{DEADLINE, Server};

const VOICE: &[u8] = b"a voice";

/// What a client's first message offers in the place of what it would: cipher suites, and profiles
/// for SRTP (RFC 5764 section 4.1.2).
struct Offered {
    suites: &'static [u16],
    profiles: &'static [u16],
}

impl Offered {
    /// Writes them into a ClientHello, over and over until its lists are full; leaves all other
    /// datagrams as they are.
    fn write(&self, datagram: &mut [u8]) {
        let Some(body) = handshake(datagram, CLIENT_HELLO) else {
            return;
        };
        let mut at = body + 2 + 32;
        at += 1 + usize::from(datagram[at]); // The session.
        at += 1 + usize::from(datagram[at]); // The cookie.
        let length = number(datagram, at);
        fill(&mut datagram[at + 2..at + 2 + length], self.suites);
        at += 2 + length;
        at += 1 + usize::from(datagram[at]); // Compression.
        if let Some(data) = extension(datagram, at, USE_SRTP) {
            let length = number(datagram, data);
            fill(&mut datagram[data + 2..data + 2 + length], self.profiles);
        }
    }
}

/// What the server settled on, where it said so.
#[derive(Debug, PartialEq)]
struct Settled {
    suite: u16,
    profile: Option<u16>,
}

impl Settled {
    fn read(datagram: &[u8]) -> Option<Self> {
        let mut at = handshake(datagram, SERVER_HELLO)? + 2 + 32;
        at += 1 + usize::from(datagram[at]); // The session.
        let profile = extension(datagram, at + 3, USE_SRTP);
        Some(Self {
            suite: number(datagram, at) as u16,
            profile: profile.map(|data| number(datagram, data + 2) as u16),
        })
    }
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const USE_SRTP: usize = 14;

/// Where the body of a handshake message of this type begins: behind the headers of record and
/// message, RFC 6347 sections 4.1 and 4.2.2.
fn handshake(datagram: &[u8], kind: u8) -> Option<usize> {
    (datagram.first() == Some(&22) && datagram.get(13) == Some(&kind)).then_some(25)
}

/// Where the data of an extension begins; `at` is where all extensions do.
fn extension(datagram: &[u8], at: usize, wanted: usize) -> Option<usize> {
    let end = at + 2 + number(datagram, at);
    let mut at = at + 2;
    while at < end {
        if number(datagram, at) == wanted {
            return Some(at + 4);
        }
        at += 4 + number(datagram, at + 2);
    }
    None
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn fill(list: &mut [u8], with: &[u16]) {
    for (entry, value) in list.chunks_mut(2).zip(with.iter().cycle()) {
        entry.copy_from_slice(&value.to_be_bytes());
    }
}

/// Whether it is the first record of a connection, by its epoch and number.
fn is_first(datagram: &[u8]) -> bool {
    datagram.first() == Some(&22) && datagram[3..11] == [0; 8]
}

/// Begins a handshake with the server, everything sent going through `tamper`: what the server
/// settles on.
async fn settle(server: &Server, tamper: fn(&mut [u8])) -> Settled {
    let mut client = Caller::join(server, "r", VOICE).await;
    client.tamper = tamper;
    let answering = async {
        while client.answered.is_none() {
            client.turn(VOICE).await;
        }
    };
    let answered = tokio::time::timeout(DEADLINE, answering).await;
    answered.expect("it is answered in time");
    let answer = client.answered.take().expect("it is answered");
    client.leave().await;
    Settled::read(&answer).expect("the answer is a ServerHello")
}

/// ECDHE with AES-GCM, RFC 5289, and ChaCha20, RFC 7905.
const STRONG: [u16; 3] = [0xC02B, 0xC02C, 0xCCA9];

#[tokio::test]
async fn weak_ciphers_are_refused_or_passed_over() {
    let server = Server::start(&[]).await;
    let usual = settle(&server, |_| {}).await;
    assert!(STRONG.contains(&usual.suite), "{usual:?}");
    // AEAD-AES-256-GCM, RFC 7714 section 14.2.
    assert_eq!(usual.profile, Some(0x0008));

    // No encryption; RC4; 3DES; no forward secrecy, with CBC and with GCM; ECDHE with CBC. Nobody
    // answers that; what is answered is what the client sends next, with all that it has.
    let none = settle(&server, |datagram| {
        let suites = &[0x0000, 0xC006, 0xC007, 0x000A, 0x002F, 0x009C, 0xC009];
        let profiles = &[0x0007];
        if is_first(datagram) {
            Offered { suites, profiles }.write(datagram);
        }
    });
    assert_eq!(none.await, usual);
    // The strong one comes last.
    let strong = settle(&server, |datagram| {
        let suites = &[0xC009, 0xC02B];
        let profiles = &[0x0001];
        Offered { suites, profiles }.write(datagram);
    });
    let (suite, profile) = (0xC02B, Some(0x0001));
    assert_eq!(strong.await, Settled { suite, profile });

    // A tag of 32 bits, and no encryption with tags of 80 and of 32 bits: no media can flow.
    let silent = settle(&server, |datagram| {
        let suites = &[0xC02B];
        let profiles = &[0x0002, 0x0005, 0x0006];
        Offered { suites, profiles }.write(datagram);
    });
    let profile = None;
    assert_eq!(silent.await, Settled { suite, profile });
    let strong = settle(&server, |datagram| {
        let suites = &[0xC02B];
        let profiles = &[0x0002, 0x0001, 0x0007];
        Offered { suites, profiles }.write(datagram);
    });
    let profile = Some(0x0007);
    assert_eq!(strong.await, Settled { suite, profile });

    let stats = server.counters(|engine| engine["peers"] == 0).await;
    assert_eq!(stats["totals"]["engine"]["peer_panics"], 0, "{stats}");
    server.end().await;
}

/// The fingerprint of the server's certificate, as an answer names it.
async fn fingerprint(server: &Server) -> String {
    let mut ada = server.connect().await;
    ada.join("r", "Ada").await;
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\n\
        a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
        a=fingerprint:sha-256 00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:\
        00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00\r\na=rtpmap:111 opus/48000/2\r\na=sendonly\r\n";
    ada.say(&json!({"type": "offer", "sdp": sdp}).to_string())
        .await;
    let answer = ada.expect("answer").await;
    let answer = answer["sdp"].as_str().expect("a session description");
    let line = answer
        .lines()
        .find(|line| line.starts_with("a=fingerprint:"));
    line.expect("it names its certificate").to_owned()
}

/// How the DER of a private key for P-256 begins (RFC 5208 with RFC 5915, and the latter alone):
/// as bytes, in hexadecimal digits, as Rust prints bytes, and in base64.
const KEYS: [&[u8]; 9] = [
    b"PRIVATE KEY",
    b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07",
    b"308187020100301306",
    b"48, 129, 135, 2, 1, 0, 48, 19",
    b"MIGHAgEAMBMG",
    b"\x30\x6b\x02\x01\x01\x04\x20",
    b"306b0201010420",
    b"48, 107, 2, 1, 1, 4, 32",
    b"MGsCAQEEI",
];

#[tokio::test]
async fn each_start_has_a_key_of_its_own_and_writes_it_nowhere() {
    let home = std::env::temp_dir().join(format!("corelay-keys-{}", std::process::id()));
    std::fs::create_dir(&home).expect("the folder for temporary files can be written");
    let path = home.to_str().expect("a path of text");
    let variables = [
        ("HOME", path),
        ("TMPDIR", path),
        ("XDG_CACHE_HOME", path),
        ("STATE_DIRECTORY", path),
        ("CORELAY_LOG_LEVEL", "trace"),
    ];
    let mut seen = Vec::new();
    for _ in 0..2 {
        let started = Server::start_with(&["--log", "trace"], &variables).await;
        let server = started.unwrap_or_else(|refused| panic!("{}", refused.err));
        let first = fingerprint(&server).await;
        assert_eq!(fingerprint(&server).await, first, "one key for all");
        assert!(!seen.contains(&first), "a key is used twice");
        seen.push(first);
        settle(&server, |_| {}).await;
        let log = server.end().await;
        assert!(log.contains("TRACE"), "the log has everything: {log:.2000}");
        let files = Command::new("find").args([path, "-type", "f"]).output();
        let files = String::from_utf8(files.expect("there is find").stdout).expect("text");
        let mut written = vec![("the log".to_owned(), log.into_bytes())];
        for file in files.lines() {
            written.push((file.to_owned(), std::fs::read(file).expect("it is there")));
        }
        assert!(written.len() > 1, "the call log is a file");
        for (name, bytes) in written {
            for key in KEYS {
                let found = bytes.windows(key.len()).any(|window| window == key);
                assert!(!found, "{name} holds {}", String::from_utf8_lossy(key));
            }
        }
    }
    let _ = std::fs::remove_dir_all(home);
}
