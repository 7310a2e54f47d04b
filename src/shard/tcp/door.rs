//! The thread that holds all ICE-TCP connections: it accepts, cuts streams into packets and back.
//!
//! A connection's first packet must be a STUN request; the shard its ufrag names gets that and
//! all that follow. Whoever is not answered, because no peer knows those credentials, is closed.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Sender;
use socket2::{Domain, Protocol, Socket, Type};
use str0m::ice::StunMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::framing::Deframer;
use super::{ARRIVED_PACKETS, Arrived, Figures, LEAVING_RUNS, Leaving, Port};
use crate::id::ShardId;
use crate::mailbox::Waker;
use crate::shard::{socket, sys};

/// Connections at one time. One more is closed as soon as it is accepted.
const CONNECTIONS: usize = 4096;
/// Connections the kernel holds before they are accepted.
const BACKLOG: i32 = 256;
/// How long a connection may wait for the first packet to it: a peer's answer to its first STUN
/// request, if a peer knows it. Then it is closed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent: clients check it every few seconds. Then it is closed.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the kernel may take no byte of a connection. Then it is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes waiting to be written to one connection: a second of 2 Mbit/s. When they do not fit,
/// whole packets are dropped and counted: late media is worth less than none.
const WAITING_BYTES: usize = 256 * 1024;
/// Runs waiting to be written to one connection; past them as above.
const WAITING_RUNS: usize = 512;
/// Bytes the kernel may hold beyond what is on its way: what is there waits for no fresher packet.
const UNSENT_BYTES: i32 = 64 * 1024;
/// Runs given to connections before others get their turn.
const BATCH_RUNS: usize = 256;

/// Listens for ICE-TCP. An address of all IPv6 listens on IPv4 as well.
///
/// # Errors
///
/// What `bind` says.
pub(in crate::shard) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The running thread.
#[derive(Debug)]
pub(in crate::shard) struct Door {
    thread: JoinHandle<()>,
    /// Dropping it is the message.
    stop: watch::Sender<()>,
}

/// A shard as the door sees it.
#[derive(Clone)]
struct Shard {
    queue: Sender<Arrived>,
    waker: Waker,
}

/// What every connection needs.
struct Hall {
    shards: Vec<Shard>,
    figures: Arc<Figures>,
}

/// Starts the thread; the ports are for the shards, in their order.
///
/// # Errors
///
/// When the thread, or what it needs, is refused.
pub(in crate::shard) fn start(
    listener: TcpListener,
    wakers: &[Waker],
) -> io::Result<(Door, Vec<Port>)> {
    let number = listener.local_addr()?.port();
    let figures = Arc::new(Figures::default());
    let (leaving, left) = mpsc::channel(LEAVING_RUNS);
    let mut shards = Vec::new();
    let mut ports = Vec::new();
    for waker in wakers {
        let (queue, arrived) = crossbeam_channel::bounded(ARRIVED_PACKETS);
        shards.push(Shard {
            queue,
            waker: waker.clone(),
        });
        ports.push(Port {
            number,
            arrived,
            leaving: leaving.clone(),
            figures: ports.is_empty().then(|| figures.clone()),
            counts: super::Counts::default(),
        });
    }
    let hall = Arc::new(Hall { shards, figures });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = watch::channel(());
    let run = move || {
        runtime.block_on(async {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => run(listener, hall, left, stopped).await,
                Err(error) => warn!(%error, "ICE-TCP cannot be served"),
            }
        });
    };
    let thread = thread::Builder::new().name("ice-tcp".into()).spawn(run)?;
    Ok((Door { thread, stop }, ports))
}

impl Door {
    /// Closes all connections and waits for the thread.
    pub(in crate::shard) fn stop(self) {
        drop(self.stop);
        // A panic has been told by the hook; there is nothing left to end.
        let _ = self.thread.join();
    }
}

/// The queue to one connection, bounded in runs and in bytes.
struct Connection {
    queue: mpsc::Sender<(Bytes, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

async fn run(
    listener: tokio::net::TcpListener,
    hall: Arc<Hall>,
    mut left: mpsc::Receiver<Leaving>,
    mut stop: watch::Receiver<()>,
) {
    let mut connections: HashMap<SocketAddr, Connection> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut batch = Vec::with_capacity(BATCH_RUNS);
    loop {
        tokio::select! {
            // Nobody sends: it only ever ends.
            _ = stop.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    let remote = socket::unmapped(remote);
                    let is_full = connections.len() >= CONNECTIONS;
                    // The kernel has one connection of each address: an older one has just ended.
                    if is_full || connections.contains_key(&remote) {
                        Figures::add(&hall.figures.refused, 1);
                        continue;
                    }
                    let (connection, waiting) = Connection::new();
                    connections.insert(remote, connection);
                    tasks.spawn(serve(stream, remote, hall.clone(), waiting));
                    Figures::add(&hall.figures.accepted, 1);
                }
                // Out of file descriptors, or gone again: without a pause this would be a busy
                // loop.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            taken = left.recv_many(&mut batch, BATCH_RUNS) => {
                if taken == 0 {
                    return;
                }
                for leaving in batch.drain(..) {
                    let connection = connections.get(&leaving.remote);
                    if !connection.is_some_and(|connection| connection.push(leaving.bytes)) {
                        Figures::add(&hall.figures.slow_dropped, leaving.packets.into());
                    }
                }
            }
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                // A connection that panicked is not named; its entry goes with the thread.
                if let Ok(remote) = ended {
                    connections.remove(&remote);
                }
            }
        }
        let open = connections.len() as u64;
        let counter = &hall.figures.open;
        counter.store(open, Ordering::Relaxed);
    }
}

impl Connection {
    fn new() -> (Self, mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>) {
        let (queue, waiting) = mpsc::channel(WAITING_RUNS);
        let room = Arc::new(Semaphore::new(WAITING_BYTES));
        (Self { queue, room }, waiting)
    }

    /// Queues a run, or says `false` when there is no room for it.
    fn push(&self, bytes: Bytes) -> bool {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(length);
        room.is_ok_and(|room| self.queue.try_send((bytes, room)).is_ok())
    }
}

/// Serves one connection until it ends, and says which it was.
async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    hall: Arc<Hall>,
    waiting: mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>,
) -> SocketAddr {
    // A connection that refuses these is broken, and will say so when it is read.
    let _ = stream.set_nodelay(true);
    let lowat = libc::TCP_NOTSENT_LOWAT;
    let _ = sys::set_option(stream.as_fd(), libc::IPPROTO_TCP, lowat, UNSENT_BYTES);
    let Ok(local) = stream.local_addr() else {
        return remote;
    };
    let (reader, writer) = stream.into_split();
    let ended = tokio::select! {
        ended = read(reader, remote, socket::unmapped(local), &hall) => ended,
        ended = write(writer, waiting) => ended,
    };
    if ended == Ended::BrokeRule {
        Figures::add(&hall.figures.refused, 1);
    }
    remote
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The client closed it, or it broke.
    Gone,
    /// We close it.
    BrokeRule,
}

async fn read(mut reader: OwnedReadHalf, from: SocketAddr, to: SocketAddr, hall: &Hall) -> Ended {
    let mut deframer = Deframer::new();
    let mut shard = None;
    loop {
        match timeout(SILENCE_TIMEOUT, reader.read(deframer.room())).await {
            Ok(Ok(0) | Err(_)) => return Ended::Gone,
            Ok(Ok(bytes)) => deframer.handle_bytes(bytes),
            Err(_) => return Ended::BrokeRule,
        }
        loop {
            let packet = match deframer.poll_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(_) => return Ended::BrokeRule,
            };
            // After an ICE restart the ufrag is another one of the same shard.
            shard = shard.or_else(|| hall.shard_named_by(packet));
            let Some(shard) = shard else {
                return Ended::BrokeRule;
            };
            let arrived = Arrived {
                from,
                to,
                bytes: packet.into(),
            };
            match shard.queue.try_send(arrived) {
                Ok(()) => shard.waker.wake(),
                Err(_) => Figures::add(&hall.figures.in_dropped, 1),
            }
        }
    }
}

impl Hall {
    /// The shard whose ufrag a STUN request names.
    fn shard_named_by(&self, packet: &[u8]) -> Option<&Shard> {
        let message = StunMessage::parse(packet).ok()?;
        let (ours, _) = message.split_username()?;
        let shard = ShardId::from_ufrag(ours.as_bytes())?;
        self.shards
            .get(shard.index())
            .filter(|_| message.is_binding_request())
    }
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut waiting: mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>,
) -> Ended {
    let mut first = match timeout(ANSWER_TIMEOUT, waiting.recv()).await {
        Ok(Some(run)) => Some(run),
        Ok(None) => return Ended::Gone,
        Err(_) => return Ended::BrokeRule,
    };
    while let Some((bytes, _room)) = match first.take() {
        Some(run) => Some(run),
        None => waiting.recv().await,
    } {
        match timeout(WRITE_TIMEOUT, writer.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ended::Gone,
            Err(_) => return Ended::BrokeRule,
        }
    }
    Ended::Gone
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net;

    use super::*;
    use crate::shard::steering::binding_request;
    use crate::shard::tcp::framing;

    /// Longer than anything here takes.
    const LIMIT: Duration = Duration::from_secs(30);

    /// A door, the shards' ports, and word of each packet that came.
    struct Rig {
        address: SocketAddr,
        door: Door,
        ports: Vec<Port>,
        woken: crossbeam_channel::Receiver<()>,
    }

    fn rig() -> Rig {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (wake, woken) = crossbeam_channel::unbounded();
        let waker = Waker::new(move || {
            let _ = wake.send(());
        });
        let (door, ports) = start(listener, &[waker.clone(), waker]).unwrap();
        Rig {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            door,
            ports,
            woken,
        }
    }

    impl Rig {
        fn connect(&self) -> net::TcpStream {
            let stream = net::TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream
        }

        fn arrived(&mut self, shard: usize) -> Arrived {
            self.woken.recv_timeout(LIMIT).expect("a packet comes");
            self.ports[shard].take().expect("it is this shard's")
        }

        fn figure(&self, name: &str) -> u64 {
            let mut counters = self.ports[0].counters();
            counters.find(|(counter, _)| *counter == name).unwrap().1
        }
    }

    fn say(stream: &mut net::TcpStream, packet: &[u8]) {
        let mut framed = Vec::new();
        assert!(framing::frame(&mut framed, packet));
        stream.write_all(&framed).unwrap();
    }

    fn hear(stream: &mut net::TcpStream) -> Vec<u8> {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut packet).unwrap();
        packet
    }

    #[test]
    fn packets_pass_between_a_client_and_the_shard_its_first_request_names() {
        let mut rig = rig();
        let mut client = rig.connect();
        let request = binding_request("01somebody:client");
        say(&mut client, &request);
        say(&mut client, b"media");
        let first = rig.arrived(1);
        assert_eq!(first.from, client.local_addr().unwrap());
        assert_eq!(first.to, rig.address);
        assert_eq!(*first.bytes, *request);
        assert_eq!(*rig.arrived(1).bytes, *b"media");
        assert!(rig.ports[1].is_of(first.to));
        rig.ports[1].push(first.from, [&b"one"[..], b"", b"two"].into_iter());
        for packet in [&b"one"[..], b"", b"two"] {
            assert_eq!(hear(&mut client), packet);
        }
        rig.door.stop();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn whoever_does_not_begin_with_a_request_for_a_shard_is_closed() {
        let rig = rig();
        let cases: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\n\r\n",
            &[0, 3, 1, 2, 3],
            &[0xff, 0xff, 0, 1],
            &[&[0, 88], &binding_request("99no shard:client")[..]].concat(),
        ];
        for bytes in cases {
            let mut client = rig.connect();
            client.write_all(bytes).unwrap();
            // A reset is an end as well.
            assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
        }
        drop(rig.connect());
        while rig.figure("tcp_refused") < 4 {
            thread::yield_now();
        }
        assert!(rig.ports.iter().all(|port| port.arrived.is_empty()));
    }

    #[test]
    fn a_reader_that_is_too_slow_loses_whole_packets() {
        let mut rig = rig();
        let mut client = rig.connect();
        say(&mut client, &binding_request("00somebody:client"));
        let remote = rig.arrived(0).from;
        let sent = 20_000_u32;
        for number in 0..sent {
            let packet = [&number.to_be_bytes()[..], &[7; 1196]].concat();
            // The door must not be the one that is too slow.
            while rig.ports[0].leaving.capacity() < LEAVING_RUNS / 2 {
                thread::yield_now();
            }
            rig.ports[0].push(remote, [&packet[..]].into_iter());
        }
        while rig.ports[0].leaving.capacity() < LEAVING_RUNS {
            thread::yield_now();
        }
        // What the door still has in hand is counted once it serves another.
        let mut other = rig.connect();
        say(&mut other, &binding_request("00other:client"));
        rig.arrived(0);
        let lost = rig.figure("tcp_slow_dropped");
        assert!(lost > 0, "the kernel does not hold {sent} packets");
        let mut last = None;
        for _ in 0..u64::from(sent) - lost {
            let packet = hear(&mut client);
            assert_eq!(packet[4..], [7; 1196]);
            let number = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]);
            assert!(last < Some(number), "in order");
            last = Some(number);
        }
        assert_eq!(rig.figure("tcp_out_dropped"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_no_peer_answers_is_closed() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (queue, _arrived) = crossbeam_channel::bounded(1);
        let waker = Waker::new(|| {});
        let hall = Arc::new(Hall {
            shards: vec![Shard { queue, waker }],
            figures: Arc::new(Figures::default()),
        });
        let figures = hall.figures.clone();
        let (_leaving, left) = mpsc::channel(1);
        let (_stop, stopped) = watch::channel(());
        tokio::spawn(run(listener, hall, left, stopped));
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut framed = Vec::new();
        assert!(framing::frame(
            &mut framed,
            &binding_request("00nobody:client")
        ));
        client.write_all(&framed).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(figures.refused.load(Ordering::Relaxed), 1);
    }
}
