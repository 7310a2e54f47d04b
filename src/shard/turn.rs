//! One turn of a shard: take in what has come, let the engine decide, give out, then sleep.

mod counters;
mod feedback;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use tokio::sync::mpsc::Sender;
use tracing::trace;

use super::clock::Clock;
#[cfg(debug_assertions)]
use super::key_file::KeyFile;
use super::neighbours::Neighbours;
use super::reports::Reports;
use super::steering::Flows;
use super::tcp::Port;
use super::udp_in::{Batch, Inlet, UdpIn};
use super::udp_out::UdpOut;
use super::{Driver, Steering};
use crate::engine::command::Command;
use crate::engine::copies::Copied;
use crate::engine::{self, Arrival, Datagram, Engine, Handoff, Output};
use crate::id::ShardId;
use crate::mailbox::{CopySender, Histograms, Pulse, Report, Snapshot};
use feedback::Feedback;

/// The engine's timeouts are handled no more often than this: each wake-up costs some 15 to
/// 50 us of CPU. Also how soon a full queue is tried again.
const TICK: Duration = Duration::from_millis(5);
/// How often a shard that has something to tell sends its counters.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);
/// Batches taken from the socket in one turn; what is left waits for the next, after this
/// turn's output has left.
const BATCHES_PER_TURN: usize = 16;
/// Batches of feedback taken in one turn.
const FEEDBACK_BATCHES: usize = 4;
/// Handed-over datagrams and facts taken in one turn.
const HANDOFFS_PER_TURN: usize = 1024;
/// Packets from TCP taken in one turn.
const TCP_PACKETS_PER_TURN: usize = 256;
/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 16;
/// When those took this long no more are taken in a turn: an offer costs up to milliseconds, and
/// media waits behind it.
const COMMANDS_TIME: Duration = Duration::from_millis(1);
/// Datagrams that are sent before the engine's output is drained to the end.
const FLUSH_DATAGRAMS: usize = 1024;

/// What one shard is made of, on the way to its thread.
pub(super) struct Parts {
    pub(super) shard: ShardId,
    pub(super) engine: engine::Options,
    pub(super) socket: UdpSocket,
    /// Under eBPF, where the SRTCP of known clients comes in.
    pub(super) feedback: Option<UdpSocket>,
    /// What the sockets are bound to.
    pub(super) bound: SocketAddr,
    /// Addresses of this host.
    pub(super) host: Vec<IpAddr>,
    pub(super) commands: Receiver<Command>,
    pub(super) neighbours: Neighbours,
    /// `None` where ICE-TCP is off.
    pub(super) tcp: Option<Port>,
    pub(super) reports: Sender<Report>,
    /// `None` where nothing is recorded.
    pub(super) copies: Option<CopySender>,
    pub(super) flows: Flows,
    pub(super) steering: Steering,
    pub(super) driver: Driver,
    pub(super) pulse: Pulse,
    /// Closed when the shard should end.
    pub(super) stop: Receiver<Infallible>,
}

/// What a driver does after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another turn at once: there was work, so there may be more.
    Again,
    /// Sleep until something arrives, but no longer than this.
    Sleep(Option<Duration>),
    /// End the thread.
    Stop,
}

/// A shard between its turns.
pub(super) struct Turn {
    shard: ShardId,
    engine: Engine,
    clock: Clock,
    socket: UdpSocket,
    feedback: Option<Feedback>,
    udp_in: UdpIn,
    udp_out: UdpOut,
    commands: Receiver<Command>,
    neighbours: Neighbours,
    tcp: Option<Port>,
    reports: Reports,
    copies: Option<CopySender>,
    flows: Flows,
    steering: Steering,
    driver: Driver,
    pulse: Pulse,
    stop: Receiver<Infallible>,
    /// Before this the engine's timeouts wait.
    next_tick: Instant,
    /// Before this no snapshot is sent.
    next_snapshot: Instant,
    /// Whether anything was counted since the last snapshot.
    untold: bool,
    /// Whether facts wait for room in another shard's ring.
    facts_waiting: bool,
    /// When the kernel got the first datagram of this turn that was not yet followed by a send.
    oldest_arrival: Option<Instant>,
    counts: Counts,
    /// What has been measured, but for the runs: those are where they are sent.
    histograms: Histograms,
    #[cfg(debug_assertions)]
    key_file: KeyFile,
}

/// What the turns count.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Turns in which there was work.
    turns: u64,
    /// How long those took in all, in nanoseconds.
    busy_ns: u64,
    /// Datagrams taken as feedback.
    feedback: u64,
    /// Commands taken.
    commands: u64,
    /// Copies given to the recorder.
    copies: u64,
    /// Copies that found the recorder's queue full.
    copies_dropped: u64,
    /// Remote addresses the kernel's map did not take.
    learn_failed: u64,
}

/// What a turn found to do.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    /// Something was done.
    any: bool,
    /// Something was left for the next turn.
    more: bool,
}

impl Turn {
    pub(super) fn new(parts: Parts) -> Self {
        let mut clock = Clock::new();
        let now = clock.moment();
        Self {
            shard: parts.shard,
            engine: Engine::new(now, clock.since_epoch(), parts.engine),
            clock,
            socket: parts.socket,
            feedback: parts.feedback.map(|socket| Feedback::new(now, socket)),
            udp_in: UdpIn::new(parts.bound),
            udp_out: UdpOut::new(parts.bound, parts.host),
            commands: parts.commands,
            neighbours: parts.neighbours,
            tcp: parts.tcp,
            reports: Reports::new(parts.reports),
            copies: parts.copies,
            flows: parts.flows,
            steering: parts.steering,
            driver: parts.driver,
            pulse: parts.pulse,
            stop: parts.stop,
            next_tick: now,
            next_snapshot: now,
            untold: true,
            facts_waiting: false,
            oldest_arrival: None,
            counts: Counts::default(),
            histograms: Histograms::default(),
            #[cfg(debug_assertions)]
            key_file: KeyFile::from_environment(),
        }
    }

    /// One turn.
    pub(super) fn run(&mut self) -> Next {
        let start = self.clock.tick();
        self.pulse.beat();
        if self.stop.try_recv() == Err(TryRecvError::Disconnected) {
            self.give_out();
            self.tell();
            return Next::Stop;
        }
        let mut work = Work::default();
        self.take_datagrams(&mut work);
        self.take_feedback(&mut work);
        let now = self.clock.moment();
        self.take_handoffs(now, &mut work);
        self.take_tcp(now, &mut work);
        self.take_commands(now, &mut work);
        if now >= self.next_tick && self.engine.wakeup().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
            self.next_tick = now + TICK;
            work.any = true;
        }
        work.any |= self.give_out();
        self.untold |= work.any;
        if self.untold && now >= self.next_snapshot {
            self.tell();
        }
        let end = self.clock.tick();
        if work.any {
            self.counts.turns += 1;
            let length = end.duration_since(start).as_nanos() as u64;
            self.counts.busy_ns += length;
            self.histograms.turn_ns.saturating_record(length);
        }
        if work.any || work.more {
            return Next::Again;
        }
        Next::Sleep(self.wakeup(end).map(|at| at.saturating_duration_since(end)))
    }

    /// The socket to watch for readability, and for writability while
    /// [`Turn::is_blocked`].
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Whether datagrams wait for the kernel to take more.
    pub(super) fn is_blocked(&self) -> bool {
        self.udp_out.is_blocked()
    }

    /// When there is something to do even if nothing arrives.
    fn wakeup(&self, now: Instant) -> Option<Instant> {
        let engine = self.engine.wakeup().map(|at| at.max(self.next_tick));
        let full = self.is_blocked() || self.facts_waiting || self.reports.is_waiting();
        let retry = full.then(|| now + TICK);
        let snapshot = self.untold.then_some(self.next_snapshot);
        let feedback = self.feedback.as_ref().filter(|_| self.engine.has_peers());
        let feedback = feedback.map(Feedback::wakeup);
        let wakeups = [engine, retry, snapshot, feedback];
        wakeups.into_iter().flatten().min()
    }

    fn take_datagrams(&mut self, work: &mut Work) {
        self.oldest_arrival = None;
        for _ in 0..BATCHES_PER_TURN {
            let batch = self.udp_in.receive(Inlet::All, &self.socket);
            work.any |= self.take_batch(batch) > 0;
            work.more = batch.more;
            if !batch.more {
                return;
            }
        }
    }

    /// Reads feedback, when it is time to.
    fn take_feedback(&mut self, work: &mut Work) {
        let now = self.clock.moment();
        let Some(mut feedback) = self.feedback.take_if(|feedback| feedback.is_due(now)) else {
            return;
        };
        // What it makes the shard send was not waited for as media is.
        let oldest = self.oldest_arrival;
        let (mut datagrams, mut more) = (0, true);
        for _ in 0..FEEDBACK_BATCHES {
            let batch = self.udp_in.receive(Inlet::Feedback, &feedback.socket);
            datagrams += self.take_batch(batch);
            more = batch.more;
            if !more {
                break;
            }
        }
        self.oldest_arrival = oldest;
        self.counts.feedback += datagrams as u64;
        work.any |= datagrams > 0;
        work.more |= more;
        if !more {
            feedback.handle_read(now, datagrams);
        }
        self.feedback = Some(feedback);
    }

    /// Gives a batch of datagrams to the engine; how many there were.
    fn take_batch(&mut self, batch: Batch) -> usize {
        self.clock.tick();
        let (engine, clock, oldest) = (&mut self.engine, &mut self.clock, &mut self.oldest_arrival);
        self.udp_in.handle(batch, |received| {
            let (at, waited) = clock.arrival(received.at);
            trace!(from = %received.from, bytes = received.bytes.len(), "datagram");
            oldest.get_or_insert_with(|| clock.before_now(waited));
            engine.handle_datagram(
                at,
                Datagram {
                    from: received.from,
                    to: received.to,
                    bytes: received.bytes,
                    arrival: Arrival::Socket,
                },
            );
        })
    }

    fn take_handoffs(&mut self, now: Instant, work: &mut Work) {
        for _ in 0..HANDOFFS_PER_TURN {
            let Some((from, handoff)) = self.neighbours.take() else {
                return;
            };
            self.engine.handle_handoff(now, from, handoff);
            work.any = true;
        }
        work.more = true;
    }

    fn take_tcp(&mut self, now: Instant, work: &mut Work) {
        let Some(tcp) = &mut self.tcp else {
            return;
        };
        for _ in 0..TCP_PACKETS_PER_TURN {
            let Some(packet) = tcp.take() else {
                return;
            };
            self.engine.handle_datagram(
                now,
                Datagram {
                    from: packet.from,
                    to: packet.to,
                    bytes: &packet.bytes,
                    // The door has found the shard already.
                    arrival: Arrival::HandedOver,
                },
            );
            work.any = true;
        }
        work.more = true;
    }

    /// Takes commands, unless the answers to earlier ones still wait for room.
    fn take_commands(&mut self, now: Instant, work: &mut Work) {
        if !self.reports.retry() {
            return;
        }
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else {
                return;
            };
            self.counts.commands += 1;
            self.engine.handle_command(now, command);
            work.any = true;
            if self.clock.tick().saturating_duration_since(now) >= COMMANDS_TIME {
                break;
            }
        }
        work.more = true;
    }

    /// Does what the engine has decided. Returns whether there was anything.
    fn give_out(&mut self) -> bool {
        let mut any = false;
        loop {
            any |= self.drain();
            if self.udp_out.queued() > 0 {
                self.flush();
            }
            self.udp_out.keep_backlog(self.engine.arena());
            if !self.engine.release() {
                break;
            }
        }
        self.facts_waiting = self.neighbours.knock();
        any
    }

    /// Takes the engine's output until it has none, or its arena is full.
    fn drain(&mut self) -> bool {
        let mut any = false;
        let mut blocked = false;
        while let Some(output) = self.engine.poll_output() {
            any = true;
            match output {
                Output::Transmit(transmit) => match self.tcp_to(transmit.source) {
                    None => self.udp_out.push(transmit),
                    Some(tcp) => {
                        let packet: &[u8] = &transmit.contents;
                        tcp.push(transmit.destination, [packet].into_iter());
                    }
                },
                Output::Run(run) => match &mut self.tcp {
                    Some(tcp) if tcp.is_of(run.source) => {
                        let bytes = &self.engine.arena()[run.bytes];
                        tcp.push(run.destination, bytes.chunks(run.segment));
                    }
                    _ => self.udp_out.push_run(run),
                },
                Output::Event(event) => self.reports.push(event),
                Output::Handoff(shard, handoff) => self.neighbours.give(shard, handoff),
                Output::Learned(remote) => self.learn(remote),
                Output::Forgotten(remote) => self.forget(remote),
                Output::Copied(copied) => self.copy(copied),
                #[cfg(debug_assertions)]
                Output::Keys(client, keys) => self.key_file.push(client, &keys),
            }
            if self.udp_out.queued() >= FLUSH_DATAGRAMS && !blocked {
                self.flush();
                blocked = self.udp_out.is_blocked();
            }
        }
        any
    }

    /// Gives a copy to the recorder.
    fn copy(&mut self, copied: Copied) {
        if self
            .copies
            .as_ref()
            .is_some_and(|copies| copies.try_send(copied))
        {
            self.counts.copies += 1;
        } else {
            self.counts.copies_dropped += 1;
        }
    }

    /// Where to send from this local address, when that is TCP.
    fn tcp_to(&mut self, source: SocketAddr) -> Option<&mut Port> {
        self.tcp.as_mut().filter(|tcp| tcp.is_of(source))
    }

    fn flush(&mut self) {
        if let Some(arrived) = self.oldest_arrival.take() {
            let delay = self.clock.tick().saturating_duration_since(arrived);
            let delay_ns = &mut self.histograms.delay_ns;
            delay_ns.saturating_record(delay.as_nanos() as u64);
        }
        self.udp_out.flush(&self.socket, self.engine.arena());
    }

    fn learn(&mut self, remote: SocketAddr) {
        // The door steers what is on TCP.
        if engine::tcp::is_marked(remote) {
            return;
        }
        if !self.flows.is_live() {
            self.neighbours.tell_all(&Handoff::Learned(remote));
        } else if !self.flows.learn(remote, self.shard) {
            self.counts.learn_failed += 1;
            self.neighbours.tell_all(&Handoff::Learned(remote));
        }
    }

    fn forget(&mut self, remote: SocketAddr) {
        if engine::tcp::is_marked(remote) {
            return;
        }
        self.flows.forget(remote, self.shard);
        if !self.flows.is_live() || self.counts.learn_failed > 0 {
            self.neighbours.tell_all(&Handoff::Forgotten(remote));
        }
    }

    /// Sends a snapshot.
    fn tell(&mut self) {
        self.untold = false;
        self.next_snapshot = self.clock.moment() + SNAPSHOT_EVERY;
        let snapshot = Snapshot {
            engine: self.engine.stats(),
            shard: self.counters(),
            histograms: Histograms {
                run_datagrams: self.udp_out.runs().clone(),
                ..self.histograms.clone()
            },
        };
        self.reports.push_snapshot(self.shard, snapshot);
    }
}

#[cfg(test)]
pub(super) use tests::parts;

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::command::{Event, Permissions};
    use crate::engine::dtls::Identity;
    use crate::engine::stats::Dropped;
    use crate::id::{PeerId, RoomId};
    use crate::mailbox::{self, CommandSender, Waker};
    use crate::shard::steering::{self, SteeringChoice};
    use crate::shard::{neighbours, socket};

    /// The other ends of a shard's queues.
    pub(in crate::shard) struct Ends {
        commands: CommandSender,
        reports: mpsc::Receiver<Report>,
        /// Dropped to stop it.
        stop: Option<crossbeam_channel::Sender<Infallible>>,
    }

    /// Shards that share a port of this address, with room for `room` reports each.
    pub(in crate::shard) fn parts(
        address: &str,
        count: u16,
        choice: SteeringChoice,
        room: usize,
    ) -> Option<Vec<(Parts, Ends)>> {
        let sockets = socket::open(address.parse().unwrap(), count).unwrap();
        let attached = steering::attach(choice, &sockets).ok()?;
        let mut feedback = attached.feedback.into_iter();
        let bound = sockets[0].local_addr().unwrap();
        let wakers = vec![Waker::new(|| {}); usize::from(count)];
        let rings = neighbours::rings(&wakers);
        let numbered = (0..count)
            .map(ShardId::new)
            .zip(sockets.into_iter().zip(rings));
        let each = |(shard, (socket, neighbours))| {
            let (reports_in, reports) = mpsc::channel(room);
            let (stop, stopped) = crossbeam_channel::bounded(0);
            let (commands, queue) = mailbox::commands(shard, Waker::new(|| {}));
            let parts = Parts {
                shard,
                engine: engine::Options {
                    shard,
                    shards: count,
                    candidates: [bound].into(),
                    tcp_candidates: [].into(),
                    identity: Identity::generate(),
                    seed: [7; 32],
                    max_video_slots: 2,
                    max_audio_slots: 2,
                    caps: engine::caps::Caps::NONE,
                    thresholds: Default::default(),
                    keyframes: Default::default(),
                },
                socket,
                feedback: feedback.next(),
                bound,
                host: Vec::new(),
                commands: queue,
                neighbours,
                tcp: None,
                reports: reports_in,
                copies: None,
                flows: attached.flows.clone(),
                steering: attached.steering,
                driver: Driver::Epoll,
                pulse: Pulse::new(shard, Waker::new(|| {})),
                stop: stopped,
            };
            (
                parts,
                Ends {
                    commands,
                    reports,
                    stop: Some(stop),
                },
            )
        };
        Some(numbered.map(each).collect())
    }

    /// A shard without a thread.
    struct Rig {
        turn: Turn,
        ends: Ends,
    }

    fn rigs(address: &str, count: u16, choice: SteeringChoice, room: usize) -> Option<Vec<Rig>> {
        let parts = parts(address, count, choice, room)?.into_iter();
        Some(
            parts
                .map(|(parts, ends)| Rig {
                    turn: Turn::new(parts),
                    ends,
                })
                .collect(),
        )
    }

    fn one(room: usize) -> Rig {
        rigs("127.0.0.1:0", 1, SteeringChoice::None, room)
            .unwrap()
            .remove(0)
    }

    impl Rig {
        /// Turns until the shard would sleep; how long it would.
        fn until_sleep(&mut self) -> Option<Duration> {
            loop {
                match self.turn.run() {
                    Next::Again => {}
                    Next::Sleep(longest) => return longest,
                    Next::Stop => panic!("nobody stopped it"),
                }
            }
        }

        fn join(&self, number: u64) {
            let room = RoomId::parse("room").unwrap();
            self.ends
                .commands
                .try_send(Command::Join {
                    room,
                    peer: PeerId::new(number),
                    permissions: Permissions::ALL,
                })
                .unwrap();
        }

        fn counter(&self, name: &str) -> u64 {
            let counters = self.turn.counters();
            counters
                .iter()
                .find(|(counter, _)| *counter == name)
                .unwrap()
                .1
        }
    }

    fn asks_for_an_offer(report: Option<Report>) -> bool {
        matches!(report, Some(Report::Event(Event::RequestOffer { .. })))
    }

    #[test]
    fn a_shard_with_nothing_to_do_sleeps_without_end() {
        let mut rig = one(64);
        assert_eq!(rig.until_sleep(), None);
        assert!(
            matches!(rig.ends.reports.try_recv(), Ok(Report::Snapshot(..))),
            "the first counters"
        );
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .send_to(b"noise", rig.turn.socket.local_addr().unwrap())
            .unwrap();
        let longest = rig.until_sleep().expect("there are counters to tell");
        assert!(longest <= SNAPSHOT_EVERY);
        assert_eq!(rig.counter("udp_in_datagrams"), 1);
    }

    #[test]
    fn while_reports_find_no_room_commands_wait_and_datagrams_do_not() {
        // The first snapshot takes the only room.
        let mut rig = one(1);
        rig.until_sleep();
        rig.join(1);
        rig.until_sleep();
        rig.join(2);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .send_to(b"media", rig.turn.socket.local_addr().unwrap())
            .unwrap();
        let longest = rig.until_sleep();
        assert!(
            longest.is_some_and(|longest| longest <= TICK),
            "it tries again soon"
        );
        assert_eq!(rig.counter("commands"), 1);
        assert_eq!(rig.counter("udp_in_datagrams"), 1);

        assert!(matches!(
            rig.ends.reports.try_recv(),
            Ok(Report::Snapshot(..))
        ));
        rig.until_sleep();
        assert!(asks_for_an_offer(rig.ends.reports.try_recv().ok()));
        rig.until_sleep();
        assert!(asks_for_an_offer(rig.ends.reports.try_recv().ok()));
        assert_eq!(
            (rig.counter("commands"), rig.counter("events_dropped")),
            (2, 0)
        );
    }

    #[test]
    fn a_stopped_shard_tells_its_last_counters() {
        let mut rig = one(64);
        rig.until_sleep();
        rig.join(1);
        rig.until_sleep();
        rig.ends.stop = None;
        assert_eq!(rig.turn.run(), Next::Stop);
        let reports: Vec<_> = std::iter::from_fn(|| rig.ends.reports.try_recv().ok()).collect();
        let Some(Report::Snapshot(_, last)) = reports.last() else {
            panic!("{reports:?}")
        };
        assert!(last.shard.contains(&("commands", 1)));
        assert_eq!(last.engine.peers, 1);
    }

    #[test]
    fn under_every_steering_a_stun_request_reaches_the_shard_it_names() {
        for choice in [
            SteeringChoice::Ebpf,
            SteeringChoice::Cbpf,
            SteeringChoice::None,
        ] {
            // Without the permission for eBPF `steering` says what is not run.
            let Some(mut rigs) = rigs("[::]:0", 2, choice, 64) else {
                continue;
            };
            let port = rigs[0].turn.socket.local_addr().unwrap().port();
            let requests = 20;
            for ip in ["127.0.0.1", "::1"] {
                for _ in 0..requests {
                    let client = UdpSocket::bind((ip, 0)).unwrap();
                    let request = steering::binding_request("01nobody has this:client");
                    client.send_to(&request, (ip, port)).unwrap();
                }
            }
            for rig in &mut rigs {
                rig.until_sleep();
            }
            let unknown = |rig: &Rig| rig.turn.engine.stats().dropped.count(Dropped::UnknownUfrag);
            let unknown: Vec<u64> = rigs.iter().map(unknown).collect();
            assert_eq!(unknown, [0, 2 * requests], "{choice:?}");
            let handed_over = rigs[0].counter("handoffs_out");
            assert_eq!(handed_over, rigs[1].counter("handoffs_in"));
            assert_eq!(
                handed_over > 0,
                choice == SteeringChoice::None,
                "{choice:?}"
            );
        }
    }
}
