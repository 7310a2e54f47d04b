//! Acts, per core: a pinned thread with a socket and an [`Engine`](crate::engine::Engine).

mod bpf;
mod clock;
mod driver;
#[cfg(debug_assertions)]
mod key_file;
mod neighbours;
pub mod probe;
mod reports;
mod socket;
mod steering;
mod sys;
mod tcp;
mod turn;
mod udp_in;
mod udp_out;

pub use driver::{Driver, DriverChoice};
pub use steering::{Steering, SteeringChoice};

use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::process;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use crate::engine;
use crate::id::ShardId;
use crate::mailbox::{self, CommandSender, CopySender, Pulse, Report, Waker};
use driver::Bed;
use tcp::Port;
use tcp::door::Door;
use turn::Parts;

/// What the shards are told at start-up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The UDP address all shards share. `[::]` listens on IPv4 as well, and on IPv4 alone
    /// where there is no IPv6; port 0 lets the kernel choose.
    pub udp: SocketAddr,
    /// The TCP address of ICE-TCP.
    pub tcp: TcpChoice,
    /// How many shards; `None` for one per CPU the process may use.
    pub shards: Option<u16>,
    /// What turns them.
    pub driver: DriverChoice,
    /// How the kernel chooses a shard for a datagram.
    pub steering: SteeringChoice,
    /// The way to the recorder, where there is one.
    pub copies: Option<CopySender>,
}

/// Where ICE-TCP is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TcpChoice {
    /// On the port after the UDP one, and nowhere when that is taken.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// Here, or no start. The port differs from the UDP one.
    At(SocketAddr),
}

/// What the sockets are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// UDP, of all shards.
    pub udp: SocketAddr,
    /// TCP, where there is ICE-TCP.
    pub tcp: Option<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            udp: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 10_000),
            tcp: TcpChoice::Auto,
            shards: None,
            driver: DriverChoice::Auto,
            steering: SteeringChoice::Auto,
            copies: None,
        }
    }
}

/// Why the shards could not start, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the port.
    #[error(
        "UDP port {} is already in use: stop the process that has it \
         (`ss -ulpn 'sport = :{}'` names it) or choose another with --udp", .0.port(), .0.port()
    )]
    PortTaken(SocketAddr),
    /// The address is none of this machine's.
    #[error(
        "{} is not an address of this machine: listen on [::], or on one of those that \
         `ip address` lists, with --udp", .0.ip()
    )]
    NoSuchAddress(SocketAddr),
    /// The port is a privileged one.
    #[error(
        "no permission to open UDP port {}: choose one above 1023 with --udp, or grant \
         CAP_NET_BIND_SERVICE", .0.port()
    )]
    PortForbidden(SocketAddr),
    /// The socket could not be made for another reason.
    #[error("the UDP socket on {0} could not be opened: {1}")]
    Socket(SocketAddr, io::Error),
    /// ICE-TCP cannot be where it is asked for.
    #[error("ICE-TCP cannot listen on {0}: {1}; choose another address with webrtc.tcp, or `off`")]
    Tcp(SocketAddr, io::Error),
    /// ICE-TCP shares a port number with UDP.
    #[error("webrtc.udp and webrtc.tcp have the same port, {0}: give them different ones")]
    SamePort(u16),
    /// glommio is asked for where the kernel refuses io_uring.
    #[error(
        "the glommio driver needs io_uring, which is refused here ({0}): use --driver epoll, or \
         allow io_uring (see kernel.io_uring_disabled, the container's seccomp profile and the \
         memlock limit)"
    )]
    IoUring(io::Error),
    /// The steering that is asked for is not possible.
    #[error(
        "the steering asked for is not possible here ({0}): use steering auto, or grant CAP_BPF \
         for eBPF"
    )]
    Steering(String),
    /// The number of shards makes no sense.
    #[error("{0} shards cannot be started: choose 1 to {max} with --shards", max = ShardId::MAX)]
    ShardCount(u16),
    /// A thread or what it needs was refused.
    #[error("shard {0} could not be started: {1}; check the limits on threads and open files")]
    Thread(ShardId, io::Error),
}

impl StartError {
    /// What a refused `bind` means.
    fn bind(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::PortTaken(address),
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress(address),
            io::ErrorKind::PermissionDenied => Self::PortForbidden(address),
            _ => Self::Socket(address, error),
        }
    }
}

/// The running shards. Dropped, they stop as well, but are not waited for.
#[derive(Debug)]
pub struct Shards {
    /// The way to each shard, in shard order.
    pub commands: Vec<CommandSender>,
    /// Whether each turns, in shard order.
    pub pulses: Vec<Pulse>,
    /// What the sockets are bound to.
    pub bound: Bound,
    /// Which driver turns them.
    pub driver: Driver,
    /// Which steering is live.
    pub steering: Steering,
    threads: Vec<JoinHandle<()>>,
    /// Each thread holds the other end until it is over.
    over: Receiver<Infallible>,
    door: Option<Door>,
    ending: Ending,
}

/// How long shards that are told to end may take, which is a turn. A kernel that does not let a
/// thread go must not hold up the process.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells the shards to end, when dropped.
#[derive(Debug)]
struct Ending {
    /// Closing them is the message.
    stops: Vec<Sender<Infallible>>,
    wakers: Vec<Waker>,
}

/// Starts the shards. `engine_options` is called once for each, with its name, how many there
/// are and what the sockets are bound to. A shard that panics ends the process.
///
/// # Errors
///
/// [`StartError`] says in one sentence what happened and what to do next.
pub fn start(
    options: &Options,
    mut engine_options: impl FnMut(ShardId, u16, Bound) -> engine::Options,
    reports: &mpsc::Sender<Report>,
) -> Result<Shards, StartError> {
    let cpus = sys::allowed_cpus().unwrap_or_default();
    let count = shard_count(options.shards, cpus.len())?;
    let driver = driver::choose(options.driver)?;
    let sockets = socket::open(options.udp, count)?;
    let socket_error = |error| StartError::Socket(options.udp, error);
    let udp = sockets[0].local_addr().map_err(socket_error)?;
    let host = sys::interface_addresses().map_err(socket_error)?;
    let attached = steering::attach(options.steering, &sockets).map_err(StartError::Steering)?;
    attached.explain();
    let steering = attached.steering;
    info!(%udp, shards = count, %driver, %steering, "shards start");

    let ids = (0..count).map(ShardId::new);
    let beds = ids
        .clone()
        .map(|id| Bed::new(driver).map_err(|e| StartError::Thread(id, e)));
    let beds: Vec<Bed> = beds.collect::<Result<_, _>>()?;
    let wakers: Vec<Waker> = beds.iter().map(Bed::waker).collect();
    let rings = neighbours::rings(&wakers);
    let tcp = open_door(options.tcp, udp, &wakers)?;
    let mut ports = tcp.ports.into_iter();
    let mut ending = Ending::new(wakers);
    let (pulses, mut commands, mut threads) = (pulses(&ending.wakers), Vec::new(), Vec::new());
    let mut feedback = attached.feedback.into_iter();
    let (lives, over) = crossbeam_channel::bounded(0);
    for (((shard, bed), socket), neighbours) in ids.zip(beds).zip(sockets).zip(rings) {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        ending.stops.push(stop);
        let (sender, queue) = mailbox::commands(shard, ending.wakers[shard.index()].clone());
        commands.push(sender);
        let parts = Parts {
            shard,
            engine: engine_options(shard, count, tcp.bound),
            socket,
            feedback: feedback.next(),
            bound: udp,
            host: host.clone(),
            commands: queue,
            neighbours,
            tcp: ports.next(),
            reports: reports.clone(),
            copies: options.copies.clone(),
            flows: attached.flows.clone(),
            steering,
            driver,
            pulse: pulses[shard.index()].clone(),
            stop: stopped,
        };
        let cpu = cpus.get(shard.index() % cpus.len().max(1)).copied();
        let thread = spawn(bed, parts, cpu, lives.clone());
        let thread = thread.map_err(|error| StartError::Thread(shard, error))?;
        threads.push(thread);
    }
    Ok(Shards {
        commands,
        pulses,
        bound: tcp.bound,
        driver,
        steering,
        threads,
        over,
        door: tcp.door,
        ending,
    })
}

fn pulses(wakers: &[Waker]) -> Vec<Pulse> {
    let each = (0..).map(ShardId::new).zip(wakers);
    each.map(|(shard, waker)| Pulse::new(shard, waker.clone()))
        .collect()
}

/// How many shards there are to be, on so many CPUs.
fn shard_count(wanted: Option<u16>, cpus: usize) -> Result<u16, StartError> {
    let one_per_cpu = cpus.clamp(1, usize::from(ShardId::MAX)) as u16;
    let count = wanted.unwrap_or(one_per_cpu);
    if count == 0 || count > ShardId::MAX {
        return Err(StartError::ShardCount(count));
    }
    Ok(count)
}

/// ICE-TCP, or its absence.
struct TcpSide {
    bound: Bound,
    door: Option<Door>,
    /// One for each shard; none where it is off.
    ports: Vec<Port>,
}

/// Opens ICE-TCP, where it is wanted.
fn open_door(choice: TcpChoice, udp: SocketAddr, wakers: &[Waker]) -> Result<TcpSide, StartError> {
    let without = TcpSide {
        bound: Bound { udp, tcp: None },
        door: None,
        ports: Vec::new(),
    };
    let (address, listener) = match choice {
        TcpChoice::Off => return Ok(without),
        TcpChoice::At(address) if address.port() == udp.port() => {
            return Err(StartError::SamePort(udp.port()));
        }
        TcpChoice::At(address) => (address, tcp::door::listen(address)),
        TcpChoice::Auto => {
            let address = SocketAddr::new(udp.ip(), udp.port().wrapping_add(1));
            match tcp::door::listen(address) {
                Ok(listener) => (address, Ok(listener)),
                Err(error) => {
                    info!(%address, %error, "no ICE-TCP: clients without UDP cannot connect");
                    return Ok(without);
                }
            }
        }
    };
    let refused = |error| StartError::Tcp(address, error);
    let listener = listener.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let (door, ports) = tcp::door::start(listener, wakers).map_err(refused)?;
    Ok(TcpSide {
        bound: Bound {
            udp,
            tcp: Some(bound),
        },
        door: Some(door),
        ports,
    })
}

/// Starts one shard's thread and waits until it runs or says why it cannot. The thread drops `life`
/// as the last thing.
fn spawn(
    bed: Bed,
    parts: Parts,
    cpu: Option<usize>,
    life: Sender<Infallible>,
) -> io::Result<JoinHandle<()>> {
    let shard = parts.shard;
    let (ready, readiness) = crossbeam_channel::bounded(1);
    let thread = thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(move || {
            let _life = life;
            let _guard = EndProcess(shard);
            if let Err(error) = cpu.map_or(Ok(()), sys::pin_to) {
                warn!(%shard, ?cpu, %error, "the shard is not pinned to its CPU and may be slower");
            }
            let refused = ready.clone();
            match bed.run(parts, move || drop(ready.send(Ok(())))) {
                Ok(()) => debug!(%shard, "shard ended"),
                // Before `ready` it is a refusal to start; after it nobody listens.
                Err(error) => match refused.try_send(Err(error)) {
                    Ok(()) => {}
                    Err(error) => panic!("the shard cannot wait for its socket: {error:?}"),
                },
            }
        })?;
    let ended = |_| Err(io::Error::other("its thread ended"));
    readiness.recv().unwrap_or_else(ended).map(|()| thread)
}

/// Ends the process when its thread panics: the shard's rooms are lost, and a new process
/// serves them sooner than half a one.
struct EndProcess(ShardId);

impl Drop for EndProcess {
    fn drop(&mut self) {
        if thread::panicking() {
            error!(shard = %self.0, "a shard panicked: the process ends");
            process::abort();
        }
    }
}

impl Shards {
    /// Ends the shards and waits for their threads, but not for ever.
    pub fn stop(self) {
        drop(self.ending);
        if let Some(door) = self.door {
            door.stop();
        }
        if self.over.recv_timeout(STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            return error!("a shard does not end: the process ends without it");
        }
        for thread in self.threads {
            // A panic has ended the process before this.
            let _ = thread.join();
        }
    }
}

impl Ending {
    fn new(wakers: Vec<Waker>) -> Self {
        let stops = Vec::new();
        Self { stops, wakers }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.stops.clear();
        self.wakers.iter().for_each(Waker::wake);
    }
}

/// Gives memory that is free back to the system, where the C library can: it keeps most for later.
/// Takes milliseconds, in which other threads may wait for memory.
pub fn give_memory_back() {
    sys::give_memory_back();
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::env;
    use std::net::UdpSocket;
    use std::os::unix::process::ExitStatusExt;

    use tokio::sync::mpsc::Receiver;
    use tokio::time::timeout;

    use super::*;
    use crate::engine::command::{Command, Permissions};
    use crate::engine::dtls::Identity;
    use crate::id::{PeerId, RoomId};

    /// Longer than anything a working shard lets a test wait for.
    const LIMIT: Duration = Duration::from_secs(30);

    fn options(udp: &str, driver: DriverChoice, shards: u16) -> Options {
        let (udp, shards) = (udp.parse().unwrap(), Some(shards));
        Options {
            udp,
            tcp: TcpChoice::Auto,
            shards,
            driver,
            steering: SteeringChoice::Auto,
            copies: None,
        }
    }

    fn engine_options(shard: ShardId, shards: u16, bound: Bound) -> engine::Options {
        engine::Options {
            shard,
            shards,
            candidates: [bound.udp].into(),
            tcp_candidates: bound.tcp.into_iter().collect(),
            identity: Identity::generate(),
            seed: [shard.index() as u8; 32],
            max_video_slots: 4,
            max_audio_slots: 4,
            caps: engine::caps::Caps::NONE,
            thresholds: Default::default(),
            keyframes: Default::default(),
        }
    }

    /// Waits until a counter, summed over all shards, has reached a value.
    async fn reaches(reports: &mut Receiver<Report>, name: &str, value: u64) {
        let mut latest = HashMap::new();
        while latest.values().sum::<u64>() < value {
            let report = timeout(LIMIT, reports.recv())
                .await
                .expect("the counter gets there");
            if let Report::Snapshot(shard, snapshot) = report.expect("a shard is alive") {
                let counter = snapshot.shard.iter().find(|(counter, _)| *counter == name);
                latest.insert(shard, counter.expect("it is exported").1);
            }
        }
    }

    /// Runs `test` with each driver the kernel allows.
    fn with_each_driver(test: impl AsyncFn(DriverChoice)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for driver in [DriverChoice::Epoll, DriverChoice::Glommio] {
            match driver::choose(driver) {
                Ok(_) => runtime.block_on(test(driver)),
                Err(refused) => {
                    use std::io::Write;
                    let _ = writeln!(io::stderr(), "NOT RUN: {driver:?}: {refused}");
                }
            }
        }
    }

    #[test]
    fn shards_receive_take_commands_and_stop() {
        with_each_driver(async |driver| {
            let (sender, mut reports) = mailbox::reports();
            let shards = start(&options("[::]:0", driver, 2), engine_options, &sender).unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            for number in 0..5 {
                client
                    .send_to(&[number], ("127.0.0.1", shards.bound.udp.port()))
                    .unwrap();
            }
            reaches(&mut reports, "udp_in_datagrams", 5).await;
            for commands in &shards.commands {
                let room = RoomId::parse("room").unwrap();
                let peer = PeerId::new(commands.shard().index() as u64);
                commands
                    .try_send(Command::Join {
                        room,
                        peer,
                        permissions: Permissions::ALL,
                    })
                    .unwrap();
            }
            reaches(&mut reports, "commands", 2).await;
            drop(sender);
            shards.stop();
            while reports.recv().await.is_some() {}
        });
    }

    #[test]
    fn an_idle_shard_sleeps_until_it_is_woken() {
        with_each_driver(async |driver| {
            let (sender, mut reports) = mailbox::reports();
            let shards =
                start(&options("127.0.0.1:0", driver, 1), engine_options, &sender).unwrap();
            reaches(&mut reports, "driver_epoll", 0).await;
            for round in 1..=200 {
                let (room, peer) = (RoomId::parse("room").unwrap(), PeerId::new(round));
                shards.commands[0]
                    .try_send(Command::Join {
                        room,
                        peer,
                        permissions: Permissions::ALL,
                    })
                    .unwrap();
                let (room, peer) = (RoomId::parse("room").unwrap(), PeerId::new(round));
                let _ = (room, shards.commands[0].try_send(Command::Leave { peer }));
            }
            reaches(&mut reports, "commands", 400).await;
            shards.stop();
        });
    }

    #[test]
    fn a_taken_port_is_reported_in_one_sentence() {
        let (sender, _reports) = mailbox::reports();
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let options = options(&address, DriverChoice::Epoll, 1);
        let refused = start(&options, engine_options, &sender)
            .unwrap_err()
            .to_string();
        let port = taken.local_addr().unwrap().port();
        assert!(
            refused.starts_with(&format!("UDP port {port} is already in use")),
            "{refused}"
        );
        assert!(!refused.contains('\n'));
    }

    #[test]
    fn the_number_of_shards_is_checked() {
        let (sender, _reports) = mailbox::reports();
        for count in [0, ShardId::MAX + 1] {
            let options = options("127.0.0.1:0", DriverChoice::Epoll, count);
            let refused = start(&options, engine_options, &sender).unwrap_err();
            assert!(matches!(refused, StartError::ShardCount(given) if given == count));
        }
    }

    /// Run by the test below, in a process of its own.
    #[test]
    #[ignore = "ends its process"]
    fn panics_in_a_shard() {
        let choice = match env::var("CORELAY_TEST_DRIVER").as_deref() {
            Ok("glommio") => DriverChoice::Glommio,
            _ => DriverChoice::Epoll,
        };
        let bed = Bed::new(driver::choose(choice).unwrap()).unwrap();
        let (parts, _ends) = turn::parts("127.0.0.1:0", 1, SteeringChoice::None, 8)
            .unwrap()
            .remove(0);
        let shard = thread::spawn(move || {
            let _guard = EndProcess(parts.shard);
            bed.run(parts, || panic!("on purpose"))
        });
        let _ = shard.join();
    }

    #[test]
    fn a_panicking_shard_ends_the_process() {
        with_each_driver(async |choice| {
            let driver = driver::choose(choice).unwrap().to_string();
            let ended = process::Command::new(env::current_exe().unwrap())
                .args(["--exact", "shard::tests::panics_in_a_shard", "--ignored"])
                .env("CORELAY_TEST_DRIVER", &driver)
                .output()
                .unwrap();
            assert_eq!(
                ended.status.signal(),
                Some(libc::SIGABRT),
                "{driver}: {ended:?}"
            );
        });
    }
}
