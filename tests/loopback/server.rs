//! One running server, and sockets to it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::address_in;

/// Nothing here takes a tenth of it, unless it does not happen at all.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

const BINARY: &str = env!("CARGO_BIN_EXE_corelay");

/// The real binary, on ports that the kernel chose.
pub(crate) struct Server {
    process: Child,
    log: JoinHandle<String>,
    pub(crate) greeting: String,
    pub(crate) http: SocketAddr,
    pub(crate) udp: SocketAddr,
    /// `None` where they are off.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        match Self::start_with(arguments, &[]).await {
            Ok(server) => server,
            Err(refused) => panic!("{}", refused.err),
        }
    }

    /// `None`, with a word about it, where this machine refuses what `arguments` ask for.
    pub(crate) async fn start_if_allowed(arguments: &[&str]) -> Option<Self> {
        let refused = match Self::start_with(arguments, &[]).await {
            Ok(server) => return Some(server),
            Err(refused) => refused.err,
        };
        let known = refused.contains("needs io_uring") || refused.contains("not possible here");
        assert!(known, "{refused}");
        // Not by `eprintln!`: the test runner keeps that to itself when all is well.
        let line = format!("NOT RUN: {}: {refused}", arguments.join(" "));
        std::io::stderr()
            .write_all(line.as_bytes())
            .expect("stderr is open");
        None
    }

    pub(crate) async fn start_with(
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self, Run> {
        let mut process = Command::new(BINARY)
            .args(["serve", "--http", "127.0.0.1:0", "--udp", "127.0.0.1:0"])
            .args(["--metrics", "127.0.0.1:0"])
            .args(arguments)
            .envs(variables.iter().copied())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary was built");
        let mut out = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut greeting = String::new();
        while !greeting.contains("Ctrl-C") {
            let read = timeout(DEADLINE, out.read_line(&mut greeting)).await;
            if read.expect("it greets in time").expect("it is text") == 0 {
                return Err(Run::of(process).await);
            }
        }
        let mut err = process.stderr.take().expect("it is piped");
        let log = tokio::spawn(async move {
            let mut log = String::new();
            let _ = err.read_to_string(&mut log).await;
            log
        });
        Ok(Self {
            log,
            http: address_in(&greeting, "http://"),
            udp: address_in(&greeting, "UDP "),
            metrics: (!greeting.contains("Metrics    off"))
                .then(|| address_in(&greeting.replace("/metrics", ""), "Metrics    ")),
            process,
            greeting,
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], "").await
    }

    /// Sends one request; a body goes as JSON unless `headers` say otherwise.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let named = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !named("host") {
            request += "Host: localhost\r\n";
        }
        if !body.is_empty() && !named("content-type") {
            request += "Content-Type: application/json\r\n";
        }
        if method != "GET" && !named("content-length") {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        request += body;
        self.exchange(request.as_bytes()).await
    }

    /// Sends these bytes, whatever they are, and reads what comes until the end.
    pub(crate) async fn exchange(&self, request: &[u8]) -> Response {
        let exchange = async {
            let mut stream = TcpStream::connect(self.http).await?;
            stream.write_all(request).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.map(|_| answer)
        };
        let answer = timeout(DEADLINE, exchange)
            .await
            .expect("it answers in time");
        let answer = String::from_utf8(answer.expect("it answers")).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Response {
            status: status.unwrap_or_default(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) async fn connect(&self) -> Socket {
        self.connect_to("/ws").await
    }

    pub(crate) async fn connect_to(&self, path: &str) -> Socket {
        let opening = connect_async(format!("ws://{}{path}", self.http));
        let opened = timeout(DEADLINE, opening).await.expect("it opens in time");
        Socket(opened.expect("it opens").0)
    }

    /// To end at once.
    pub(crate) async fn ask_to_end(&self) {
        self.signal("INT").await;
    }

    /// To end when nobody is left.
    pub(crate) async fn ask_to_drain(&self) {
        self.signal("TERM").await;
    }

    pub(crate) async fn signal(&self, name: &str) {
        let id = self.process.id().expect("it runs");
        let asked = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{name} {id}"))
            .status();
        assert!(asked.await.expect("there is a shell").success());
    }

    /// What it left, once it has ended.
    pub(crate) async fn ended(mut self) -> Run {
        let ended = timeout(DEADLINE, self.process.wait()).await;
        Run {
            code: ended.expect("it ends in time").expect("it ran").code(),
            out: self.greeting,
            err: self.log.await.expect("the log was read"),
        }
    }

    /// Ends it, which must go well, and returns its log.
    pub(crate) async fn end(self) -> String {
        self.ask_to_end().await;
        let run = self.ended().await;
        assert_eq!(run.code, Some(0), "{}", run.err);
        run.err
    }

    /// Asks again for the counters until they are as `awaited` says.
    pub(crate) async fn counters(&self, awaited: impl Fn(&Value) -> bool) -> Value {
        let mut stats = Value::Null;
        let polling = async {
            // Shards report about once a second.
            let mut tick = interval(Duration::from_millis(50));
            while !awaited(&stats["totals"]["engine"]) {
                tick.tick().await;
                stats = self.get("/api/stats").await.json();
            }
        };
        let came = timeout(DEADLINE, polling).await;
        assert!(came.is_ok(), "the counters do not come to that: {stats}");
        stats
    }
}

/// What a GET brought.
pub(crate) struct Response {
    /// 0 when the connection ended without an answer.
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// What a run that ended by itself left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    async fn of(process: Child) -> Self {
        let ended = timeout(DEADLINE, process.wait_with_output()).await;
        let output = ended.expect("it ends in time").expect("it ran");
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs the binary until it ends by itself.
pub(crate) async fn run(arguments: &[&str]) -> Run {
    let process = Command::new(BINARY)
        .args(arguments)
        .args(["--log", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    Run::of(process.expect("the binary was built")).await
}

/// Writes a file for one test, and returns its path.
pub(crate) fn file(name: &str, text: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the folder for tests can be written");
    path.to_str().expect("a path of text").to_owned()
}

/// One client's WebSocket.
pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn say(&mut self, text: &str) {
        let said = timeout(DEADLINE, self.0.send(Message::text(text))).await;
        said.expect("it is taken in time")
            .expect("the socket is open");
    }

    /// As [`Socket::say`], to a server that may close the socket while it listens.
    pub(crate) async fn say_if_possible(&mut self, text: &str) {
        let said = timeout(DEADLINE, self.0.send(Message::text(text))).await;
        let _ = said.expect("it is taken or refused in time");
    }

    /// Closes it, as a client does that leaves.
    pub(crate) async fn close(mut self) {
        let closed = timeout(DEADLINE, self.0.close(None)).await;
        closed.expect("it closes in time").expect("it was open");
        // Until the server agrees: what is unread would make it a reset.
        self.closed().await;
    }

    /// The next message of this type; others before it are passed over.
    pub(crate) async fn expect(&mut self, wanted: &str) -> Value {
        let mut others = Vec::new();
        loop {
            let next = timeout(DEADLINE, self.0.next()).await;
            let Ok(Some(Ok(message))) = next else {
                panic!("no {wanted}, but {next:?} after {others:?}");
            };
            let Message::Text(text) = message else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).expect("JSON");
            if message["type"] == wanted {
                return message;
            }
            others.push(message);
        }
    }

    /// The next message, whatever it is.
    pub(crate) async fn first(&mut self) -> Value {
        loop {
            let next = timeout(DEADLINE, self.0.next()).await;
            let Ok(Some(Ok(message))) = next else {
                panic!("no message, but {next:?}");
            };
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).expect("JSON");
            }
        }
    }

    /// The code that the server closes the socket with.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            match timeout(DEADLINE, self.0.next())
                .await
                .expect("it closes in time")
            {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// A token of this secret.
pub(crate) async fn mint(secret: &str, arguments: &[&str]) -> String {
    let minting = Command::new(BINARY)
        .arg("token")
        .args(arguments)
        .env("CORELAY_SECURITY_TOKEN_SECRET", secret)
        .output();
    let output = minting.await.expect("the binary was built");
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).expect("a token is text");
    token.trim().to_owned()
}
