//! Real WebSockets against the real thread, with shards that are only queues.

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use crossbeam_channel::Receiver;
    use futures_util::{SinkExt, StreamExt};
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::{mpsc, oneshot};
    use tokio::time::{sleep, timeout};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

    use crate::engine::command::{Command, Event, Kind, Slot, Source, Spared, TrackInfo};
    use crate::id::{PeerId, RoomId, ShardId, TrackId};
    use crate::mailbox::{self, COMMAND_QUEUE, Report, Snapshot, Waker};
    use crate::signal::ice_servers::IceServers;
    use crate::signal::operator::Operator;
    use crate::signal::{Options, ServeError, limits, run, serve};

    /// How long anything may take before a test fails instead of hanging.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// The signalling thread between a test's clients and its own hands as the shards.
    struct Server {
        address: SocketAddr,
        shards: Vec<Receiver<Command>>,
        /// Rings when a shard is woken.
        woken: mpsc::UnboundedReceiver<()>,
        reports: Option<mpsc::Sender<Report>>,
        shutdown: Option<oneshot::Sender<()>>,
        thread: JoinHandle<Result<(), ServeError>>,
    }

    impl Server {
        fn start(options: Options, shards: u16) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (wake, woken) = mpsc::unbounded_channel();
            let waker = Waker::new(move || {
                let _ = wake.send(());
            });
            let queues =
                (0..shards).map(|shard| mailbox::commands(ShardId::new(shard), waker.clone()));
            let (commands, shards) = queues.unzip();
            let (reports, receiver) = mailbox::reports();
            let (shutdown, stop) = oneshot::channel();
            let thread = std::thread::spawn(move || {
                let stop = async {
                    let _ = stop.await;
                };
                let operator = Operator::default();
                serve(options, listener, commands, receiver, None, operator, stop)
            });
            Self {
                address,
                shards,
                woken,
                reports: Some(reports),
                shutdown: Some(shutdown),
                thread,
            }
        }

        /// The next command of any shard.
        async fn command(&mut self) -> Command {
            timeout(PATIENCE, self.woken.recv())
                .await
                .expect("a command in time");
            let mut commands = self.shards.iter().filter_map(|shard| shard.try_recv().ok());
            commands.next().expect("who is woken has a command")
        }

        async fn report(&self, event: Event) {
            let reports = self.reports.as_ref().unwrap();
            reports.send(Report::Event(event)).await.unwrap();
        }

        async fn stop(mut self) -> Result<(), ServeError> {
            self.shutdown.take();
            let stopped = tokio::task::spawn_blocking(|| self.thread.join().unwrap());
            stopped.await.unwrap()
        }

        /// The status line, the head and the body of an answer.
        async fn request(&self, head: &str) -> (String, String, String) {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            timeout(PATIENCE, read).await.unwrap().unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let (status, head) = head.split_once("\r\n").unwrap();
            (status.to_owned(), head.to_lowercase(), body.to_owned())
        }

        async fn get(&self, path: &str) -> (String, String, String) {
            let head =
                format!("GET {path} HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\n\r\n");
            self.request(&head).await
        }

        async fn json(&self, path: &str) -> Value {
            let (status, _, body) = self.get(path).await;
            assert_eq!(status, "HTTP/1.1 200 OK");
            serde_json::from_str(&body).unwrap()
        }
    }

    struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

    impl Client {
        async fn connect(server: &Server) -> (Self, Value) {
            let url = format!("ws://{}/ws", server.address);
            let (socket, _) = timeout(PATIENCE, connect_async(url))
                .await
                .unwrap()
                .unwrap();
            let mut client = Self(socket);
            let connected = client.hear("connected").await;
            (client, connected)
        }

        async fn join(server: &mut Server, room: &str) -> (Self, PeerId) {
            let (mut client, connected) = Self::connect(server).await;
            client.say(&json!({"type": "join", "roomId": room})).await;
            let joined = client.hear("joined").await;
            assert_eq!(joined["participantId"], connected["participantId"]);
            let Command::Join { peer, .. } = server.command().await else {
                panic!("no join");
            };
            assert_eq!(joined["participantId"], json!(peer.to_string()));
            (client, peer)
        }

        async fn say(&mut self, message: &Value) {
            self.0
                .send(Message::text(message.to_string()))
                .await
                .unwrap();
        }

        /// The next message, which must be of this type.
        async fn hear(&mut self, kind: &str) -> Value {
            self.hear_within(kind, PATIENCE).await
        }

        async fn hear_within(&mut self, kind: &str, patience: Duration) -> Value {
            loop {
                match timeout(patience, self.0.next())
                    .await
                    .expect("a message in time")
                {
                    Some(Ok(Message::Text(text))) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        assert_eq!(message["type"], kind, "{message}");
                        return message;
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("{other:?} and no {kind}"),
                }
            }
        }

        async fn error(&mut self) -> String {
            let error = self.hear("error").await;
            error["code"].as_str().unwrap().to_owned()
        }

        async fn close_code(mut self) -> u16 {
            let next = timeout(PATIENCE, self.0.next()).await.unwrap();
            let Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) = next else {
                panic!("{next:?}");
            };
            code.into()
        }
    }

    fn room(name: &str) -> RoomId {
        RoomId::parse(name).unwrap()
    }

    #[tokio::test]
    async fn two_clients_meet_exchange_and_part() {
        let ice_servers = vec![json!({"urls": ["stun:192.0.2.1:3478"]})];
        let options = Options {
            ice_servers: IceServers {
                fixed: ice_servers.clone(),
                turn: None,
            },
            ..Options::default()
        };
        let mut server = Server::start(options, 2);
        let (mut ada, ada_peer) = Client::join(&mut server, "r").await;
        server
            .report(Event::RequestOffer {
                peer: ada_peer,
                audio: 0,
                video: 0,
            })
            .await;
        assert_eq!(ada.hear("request-offer").await["roomId"], "r");
        ada.say(&json!({"type": "offer", "roomId": "r", "sdp": "v=0\r\n"}))
            .await;
        let offer = Command::Offer {
            peer: ada_peer,
            sdp: "v=0\r\n".to_owned(),
            sources: Vec::new(),
        };
        assert_eq!(server.command().await, offer);
        let track = TrackInfo {
            id: TrackId {
                peer: ada_peer,
                number: 0,
            },
            kind: Kind::Video,
            source: Source::Camera,
        };
        server
            .report(Event::TrackPublished {
                room: room("r"),
                track: track.clone(),
            })
            .await;
        server
            .report(Event::Answer {
                peer: ada_peer,
                sdp: "v=0\r\nanswer".to_owned(),
                slots: Vec::new(),
            })
            .await;
        ada.hear("track-published").await;
        assert_eq!(ada.hear("answer").await["sdp"], "v=0\r\nanswer");

        let (mut bob, bob_peer) = Client::join(&mut server, "r").await;
        let came = ada.hear("participant-joined").await;
        assert_eq!(came["participant"]["id"], json!(bob_peer.to_string()));
        let slot = Slot {
            mid: "1".to_owned(),
            track: Some(track),
        };
        server
            .report(Event::Slots {
                peer: bob_peer,
                slots: vec![slot],
            })
            .await;
        let slots = bob.hear("slots").await;
        assert_eq!(
            slots["slots"]["1"]["participantId"],
            json!(ada_peer.to_string())
        );
        bob.say(&json!({"type": "data", "payload": "hello"})).await;
        assert_eq!(ada.hear("data").await["from"], json!(bob_peer.to_string()));

        let health = server.json("/health").await;
        let expected = json!({"status": "healthy", "rooms": 1, "participants": 2,
        "config": {"max_rooms": 1000, "max_participants_per_room": 100}});
        assert_eq!(health, expected);

        bob.0.close(None).await.unwrap();
        let left = ada.hear("participant-left").await;
        assert_eq!(left["participantId"], json!(bob_peer.to_string()));
        assert_eq!(server.command().await, Command::Leave { peer: bob_peer });
        assert_eq!(server.json("/health").await["participants"], 1);
        ada.0.close(None).await.unwrap();
        assert_eq!(server.command().await, Command::Leave { peer: ada_peer });
        let health = server.json("/health").await;
        assert_eq!(
            (&health["rooms"], &health["participants"]),
            (&json!(0), &json!(0))
        );
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_lost_socket_is_replaced_and_its_participant_goes_on() {
        let mut server = Server::start(Options::default(), 1);
        let (mut ada, connected) = Client::connect(&server).await;
        ada.say(&json!({"type": "join", "roomId": "r"})).await;
        let joined = ada.hear("joined").await;
        let (mut bob, _) = Client::connect(&server).await;
        bob.say(&json!({"type": "join", "roomId": "r"})).await;
        bob.hear("joined").await;
        ada.hear("participant-joined").await;
        // Whether the server has noticed the loss or not makes no difference.
        for notices in [true, false] {
            let lost = std::mem::replace(&mut ada, Client::connect(&server).await.0);
            let kept = if notices {
                drop(lost);
                None
            } else {
                Some(lost)
            };
            let token = &joined["resumeToken"];
            let token = if notices {
                token.clone()
            } else {
                bob_hears(&mut bob).await
            };
            ada.say(&json!({"type": "join", "roomId": "r", "resumeToken": token}))
                .await;
            let back = ada.hear("joined").await;
            assert_eq!(back["participantId"], connected["participantId"]);
            assert_eq!(back["resumed"], true);
            assert_eq!(back["participants"].as_array().unwrap().len(), 1);
            ada.hear("slots").await;
            if let Some(kept) = kept {
                assert_eq!(kept.close_code().await, 1008);
            }
            let payload = &back["resumeToken"];
            ada.say(&json!({"type": "data", "payload": payload})).await;
        }
        bob_hears(&mut bob).await;
        assert_eq!(server.json("/health").await["participants"], 2);
        server.command().await;
        server.command().await;
        assert!(server.woken.try_recv().is_err(), "no shard heard of it");
        server.stop().await.unwrap();
    }

    async fn bob_hears(bob: &mut Client) -> Value {
        bob.hear("data").await["payload"].clone()
    }

    #[tokio::test]
    async fn bad_input_gets_its_code_and_harms_nobody() {
        let mut server = Server::start(Options::default(), 1);
        let (mut witness, _) = Client::join(&mut server, "r").await;
        let (mut client, _) = Client::connect(&server).await;
        for (text, code) in [
            ("{", "bad-json"),
            ("7", "bad-message"),
            (r#"{"type":"x"}"#, "unknown-type"),
            (r#"{"type":"offer","sdp":"v=0"}"#, "not-joined"),
            (r#"{"type":"join","roomId":"a b"}"#, "bad-room-id"),
        ] {
            client.0.send(Message::text(text)).await.unwrap();
            assert_eq!(client.error().await, code);
        }
        client.0.send(Message::binary(vec![0; 10])).await.unwrap();
        assert_eq!(client.error().await, "binary-frame");
        witness.say(&json!({"type": "ping"})).await;
        witness.hear("pong").await;
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_message_past_its_limit_is_explained_before_the_socket_closes() {
        let server = Server::start(Options::default(), 1);
        let sizes = [
            limits::MAX_MESSAGE_BYTES + 1,
            limits::MAX_FRAME_BYTES + 1,
            10 * 1024 * 1024,
        ];
        for size in sizes {
            let (mut client, _) = Client::connect(&server).await;
            let message = json!({"type": "data", "payload": "x".repeat(size)});
            client.say(&message).await;
            assert_eq!(client.error().await, "message-too-big", "{size}");
            assert_eq!(client.close_code().await, 1009, "{size}");
        }
        let (mut client, _) = Client::connect(&server).await;
        let sdp = "a=\r\n".repeat(limits::MAX_SDP_BYTES / 4);
        client.say(&json!({"type": "offer", "sdp": sdp})).await;
        assert_eq!(client.error().await, "not-joined");
        client
            .say(&json!({"type": "offer", "sdp": sdp + "a"}))
            .await;
        assert_eq!(client.error().await, "message-too-big");
        assert_eq!(client.close_code().await, 1009);
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_flood_is_explained_before_the_socket_closes() {
        let server = Server::start(Options::default(), 1);
        let (mut client, _) = Client::connect(&server).await;
        let burst = Options::default().limits.message_burst;
        for _ in 0..burst + 1000 {
            client
                .0
                .feed(Message::text(r#"{"type":"ping"}"#))
                .await
                .unwrap();
        }
        client.0.flush().await.unwrap();
        for _ in 0..burst {
            client.hear("pong").await;
        }
        let next = loop {
            let next = client.0.next().await.unwrap().unwrap();
            let text = next.to_text().unwrap().to_owned();
            if !text.contains("pong") {
                break text;
            }
        };
        assert!(next.contains("rate-exceeded"), "{next}");
        assert_eq!(client.close_code().await, 1008);
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn whoever_does_not_read_is_disconnected_and_the_others_go_on() {
        let limits = limits::Options {
            outbox_bytes: 256 * 1024,
            message_burst: 1_000_000,
            byte_burst: u64::MAX / 2,
            ..limits::Options::default()
        };
        let options = Options {
            limits,
            ..Options::default()
        };
        let mut server = Server::start(options, 1);
        let (mut sleeper, sleeping) = Client::join(&mut server, "r").await;
        let (mut talker, _) = Client::join(&mut server, "r").await;
        let (mut listener, _) = Client::join(&mut server, "r").await;
        talker.hear("participant-joined").await;
        let payload = "x".repeat(60_000);
        // The kernel's buffers hold some; more than they ever can is said.
        let mut heard = 0;
        let left = loop {
            assert!(heard < 2_000, "nothing happened to who does not read");
            talker
                .say(&json!({"type": "data", "payload": payload}))
                .await;
            let next = timeout(PATIENCE, listener.0.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            let message: Value = serde_json::from_str(next.to_text().unwrap()).unwrap();
            if message["type"] == "participant-left" {
                break message;
            }
            heard += 1;
        };
        assert_eq!(left["participantId"], json!(sleeping.to_string()));
        assert_eq!(server.command().await, Command::Leave { peer: sleeping });
        let stats = server.json("/api/stats").await;
        assert_eq!(stats["signalling"]["slow_readers"], 1);
        // What still waited for it is not written any more.
        let mut late = 0;
        while let Some(Ok(Message::Text(text))) = timeout(PATIENCE, sleeper.0.next()).await.unwrap()
        {
            late += usize::from(text.len() > payload.len());
        }
        assert!(late + 2 < heard, "{late} of {heard}");
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_busy_shard_refuses_joins_and_hears_of_everyone_who_leaves() {
        let mut server = Server::start(Options::default(), 1);
        let (mut ada, ada_peer) = Client::join(&mut server, "r").await;
        let (mut bob, _) = Client::join(&mut server, "r").await;
        // The shard takes nothing while offers fill its queue.
        let (mut carol, _) = Client::connect(&server).await;
        let mut filling = Vec::new();
        let mut queued = 2;
        while queued <= COMMAND_QUEUE {
            let (mut client, _) = Client::connect(&server).await;
            let room = format!("room-{}", filling.len());
            client.say(&json!({"type": "join", "roomId": room})).await;
            for _ in 0..150 {
                client.say(&json!({"type": "offer", "sdp": "v=0"})).await;
            }
            client.hear("joined").await;
            queued += 151;
            if queued > COMMAND_QUEUE {
                assert_eq!(client.error().await, "server-busy");
            } else {
                // Once this is answered all its offers are in the queue.
                client.say(&json!({"type": "ping"})).await;
                client.hear("pong").await;
            }
            filling.push(client);
        }
        carol
            .say(&json!({"type": "join", "roomId": "r", "ref": "j"}))
            .await;
        let error = carol.hear("error").await;
        assert_eq!(
            (&error["code"], &error["ref"]),
            (&json!("server-busy"), &json!("j"))
        );
        ada.0.close(None).await.unwrap();
        bob.hear("participant-left").await;
        carol.say(&json!({"type": "join", "roomId": "r"})).await;
        assert_eq!(carol.error().await, "server-busy");
        // The shard works again: the leave still comes, and so can others.
        let shard = server.shards[0].clone();
        let leave = Command::Leave { peer: ada_peer };
        let found = tokio::task::spawn_blocking(move || {
            while let Ok(command) = shard.recv_timeout(PATIENCE) {
                if command == leave {
                    return true;
                }
            }
            false
        });
        assert!(found.await.unwrap());
        carol.say(&json!({"type": "join", "roomId": "r"})).await;
        assert_eq!(
            carol.hear("joined").await["participants"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn when_the_server_stops_clients_are_told_and_the_thread_ends() {
        let mut server = Server::start(Options::default(), 1);
        let (mut inside, peer) = Client::join(&mut server, "r").await;
        let (outside, _) = Client::connect(&server).await;
        let shard = server.shards[0].clone();
        let stopping = tokio::spawn(server.stop());
        assert_eq!(
            inside.hear("room-closed").await["reason"],
            "server-shutdown"
        );
        assert_eq!(inside.close_code().await, 1001);
        assert_eq!(outside.close_code().await, 1001);
        timeout(PATIENCE, stopping).await.unwrap().unwrap().unwrap();
        assert_eq!(shard.try_recv(), Ok(Command::Leave { peer }));
    }

    #[tokio::test]
    async fn when_all_shards_have_ended_the_thread_says_so() {
        let mut server = Server::start(Options::default(), 1);
        server.reports.take();
        let Server {
            thread, shutdown, ..
        } = server;
        let ended = tokio::task::spawn_blocking(|| thread.join().unwrap());
        let ended = timeout(PATIENCE, ended).await.unwrap().unwrap();
        assert!(matches!(ended, Err(ServeError::ShardsEnded)));
        drop(shutdown);
    }

    #[tokio::test]
    async fn the_latest_snapshot_of_each_shard_is_shown() {
        let server = Server::start(Options::default(), 2);
        let reports = server.reports.clone().unwrap();
        for forwarded in [3, 5] {
            let mut snapshot = Snapshot::default();
            snapshot.engine.forwarded = forwarded;
            let report = Report::Snapshot(ShardId::new(1), Box::new(snapshot));
            reports.send(report).await.unwrap();
        }
        // The hub may answer before it looks at the reports.
        let mut stats = server.json("/api/stats").await;
        while stats["totals"]["engine"]["forwarded"] != 5 {
            stats = server.json("/api/stats").await;
        }
        assert_eq!(stats["shards"]["0"]["engine"]["forwarded"], 0);
        assert_eq!(stats["shards"]["1"]["engine"]["forwarded"], 5);
        drop(reports);
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn the_page_is_served_with_headers_that_confine_it() {
        let server = Server::start(Options::default(), 1);
        let (status, head, body) = server.get("/").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(body.to_lowercase().contains("<!doctype html>"));
        assert!(head.contains("content-type: text/html"));
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"));
        assert!(head.contains("connect-src 'self' ws://localhost:8080 wss://localhost:8080"));
        assert!(head.contains("x-content-type-options: nosniff"));
        let tag = head
            .lines()
            .find_map(|line| line.strip_prefix("etag: "))
            .unwrap();
        let again = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(server.request(&again).await.0, "HTTP/1.1 304 Not Modified");
        assert_eq!(server.get("/no-such.js").await.0, "HTTP/1.1 404 Not Found");
        assert_eq!(
            server.get("/../Cargo.toml").await.0,
            "HTTP/1.1 404 Not Found"
        );
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(
            server.request(post).await.0,
            "HTTP/1.1 405 Method Not Allowed"
        );
        server.stop().await.unwrap();

        let options = Options {
            page: false,
            ..Options::default()
        };
        let server = Server::start(options, 1);
        assert_eq!(server.get("/").await.0, "HTTP/1.1 404 Not Found");
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_plain_request_for_the_websocket_and_an_endless_head_are_refused() {
        let server = Server::start(Options::default(), 1);
        assert!(server.get("/ws").await.0.starts_with("HTTP/1.1 4"));
        let long = "x".repeat(limits::MAX_HEAD_BYTES);
        let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n");
        assert!(server.request(&endless).await.0.starts_with("HTTP/1.1 431"));
        server.stop().await.unwrap();
    }

    /// The signalling thread's work on the test's own thread, whose clock jumps to the next
    /// deadline when nothing else is left to do.
    fn start_on_a_jumping_clock() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (wake, woken) = mpsc::unbounded_channel();
        let waker = Waker::new(move || {
            let _ = wake.send(());
        });
        let (commands, shard) = mailbox::commands(ShardId::new(0), waker);
        let (reports, receiver) = mailbox::reports();
        let serving = run(
            Options::default(),
            listener,
            vec![commands],
            receiver,
            None,
            (Operator::default(), None),
            std::future::pending(),
        );
        tokio::spawn(serving);
        Server {
            address,
            shards: vec![shard],
            woken,
            reports: Some(reports),
            shutdown: None,
            thread: std::thread::spawn(|| Ok(())),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_finish_its_request_is_dropped() {
        let server = start_on_a_jumping_clock();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let start = tokio::time::Instant::now();
        let mut answer = Vec::new();
        let ended = timeout(limits::HEAD_TIMEOUT * 2, stream.read_to_end(&mut answer)).await;
        ended.expect("dropped in time").unwrap();
        assert!(start.elapsed() >= limits::HEAD_TIMEOUT);
        assert!(!String::from_utf8(answer).unwrap().contains("200"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_answered_with_408() {
        let server = start_on_a_jumping_clock();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = b"POST /api/rooms HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
            Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
        stream.write_all(head).await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(limits::REQUEST_TIMEOUT * 3, stream.read_to_end(&mut answer)).await;
        ended.expect("answered in time").unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }

    /// Lets the shard be this busy for so many seconds, telling it each second. What it was told to
    /// spare itself meanwhile, and when.
    async fn be_busy(
        server: &Server,
        told: &mut Snapshot,
        percent: u64,
        seconds: u64,
    ) -> Vec<(u64, Spared)> {
        let mut spared = Vec::new();
        for second in 0..seconds {
            told.shard[0].1 += percent * 10_000;
            let snapshot = Report::Snapshot(ShardId::new(0), Box::new(told.clone()));
            server
                .reports
                .as_ref()
                .unwrap()
                .send(snapshot)
                .await
                .unwrap();
            sleep(Duration::from_secs(1)).await;
            for command in server.shards[0].try_iter() {
                let Command::Spare(what) = command else {
                    panic!("{command:?}");
                };
                spared.push((second, what));
            }
        }
        spared
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_with_too_much_to_do_gives_up_ever_more_and_takes_it_back() {
        let server = start_on_a_jumping_clock();
        let mut told = Snapshot {
            shard: vec![("busy_us", 0)],
            ..Snapshot::default()
        };
        let spared = |top_layers, videos| Spared { top_layers, videos };
        assert_eq!(be_busy(&server, &mut told, 50, 20).await, []);
        let steps = be_busy(&server, &mut told, 95, 8).await;
        let what: Vec<_> = steps.iter().map(|(_, what)| *what).collect();
        assert_eq!(what, [spared(true, None), spared(true, Some(4))]);
        assert!(steps[0].0 >= 2 && steps[1].0 >= steps[0].0 + 3, "{steps:?}");
        assert_eq!(server.get("/readyz").await.0, "HTTP/1.1 200 OK");
        be_busy(&server, &mut told, 95, 4).await;
        let (status, head, _) = server.get("/readyz").await;
        assert!(status.starts_with("HTTP/1.1 503"), "{status}");
        assert!(head.contains("retry-after: 10"), "{head}");
        let (mut late, _) = Client::connect(&server).await;
        late.say(&json!({"type": "join", "roomId": "r"})).await;
        let refused = late.hear("error").await;
        assert_eq!(refused["code"], "server-busy");
        assert_eq!(refused["retryAfter"], 10);
        let steps = be_busy(&server, &mut told, 20, 45).await;
        let what: Vec<_> = steps.iter().map(|(_, what)| *what).collect();
        let back = [spared(true, Some(4)), spared(true, None), Spared::default()];
        assert_eq!(what, back);
        assert!(steps[0].0 >= 9, "{steps:?}");
        late.say(&json!({"type": "join", "roomId": "r"})).await;
        late.hear("joined").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_answers_no_ping_has_left_and_one_that_does_stays() {
        let mut server = start_on_a_jumping_clock();
        let (silent, silent_peer) = Client::join(&mut server, "r").await;
        let (mut alive, _) = Client::join(&mut server, "r").await;
        let heard = tokio::spawn(async move {
            alive
                .hear_within("participant-left", limits::SILENCE_TIMEOUT * 3)
                .await;
            alive.say(&json!({"type": "ping"})).await;
            alive.hear("pong").await
        });
        // docs/operations.md: as long as this at most, also when the server drains. The silence is
        // noticed by the next ping; then it may come back for a while longer.
        let noticed = limits::SILENCE_TIMEOUT + limits::PING_INTERVAL;
        let patience = noticed + limits::Options::default().resume_timeout + limits::SWEEP_INTERVAL;
        let left = timeout(patience, server.woken.recv()).await;
        left.expect("a command in time");
        let leave = Command::Leave { peer: silent_peer };
        assert_eq!(server.shards[0].try_recv(), Ok(leave));
        heard.await.unwrap();
        drop(silent);
    }
}
