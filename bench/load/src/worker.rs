//! One thread of clients: it sleeps in epoll until a socket has something or a frame is due, and
//! looks again a little later rather than being woken for each of the datagrams that follow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::client::{Client, Counts, Setup, Shared};
use crate::clock::Moment;
use crate::publisher::Track;
use crate::sfu::Member;
use crate::socket::Buffer;
use crate::tally::{Source, histogram};
use crate::websocket::Signalling;

/// How often timeouts, joins and the like are looked at.
const TICK: Duration = Duration::from_millis(5);
/// From one look at the sockets to the next while they have something. Whoever sends to a thread
/// that waits for the socket pays for waking it, which a server does not do for clients elsewhere.
/// Delays are those of the kernel's time stamps and know nothing of it.
pub(crate) const REST: Duration = Duration::from_millis(1);
/// How often adapters are told that time passes.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a socket stays open after its client said goodbye: closed at once, with something
/// unread, it would be reset, and the goodbye lost.
const FAREWELL: Duration = Duration::from_secs(1);
/// Events taken from epoll at once.
pub(crate) const EVENTS: usize = 256;
/// The timer's place in epoll; clients have theirs doubled, plus one for the WebSocket.
const TIMER: u64 = u64::MAX;

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Clients join; load flows.
    Joining,
    /// What is sent counts.
    Measuring,
    /// What was sent may still come.
    Draining,
    /// Clients leave, and the thread ends.
    Leaving,
}

/// What the coordinator and the threads tell each other.
#[derive(Debug, Default)]
pub(crate) struct Board {
    phase: AtomicU8,
    /// Clients whose DTLS came up, first joins and later ones.
    pub(crate) connected: AtomicU64,
    /// Clients that could not go on.
    pub(crate) failed: AtomicU64,
    /// RTP packets received.
    pub(crate) received: AtomicU64,
}

impl Board {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Joining,
            1 => Phase::Measuring,
            2 => Phase::Draining,
            _ => Phase::Leaving,
        }
    }

    pub(crate) fn begin(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }
}

/// A client to be. Its tracks are made by the thread that has it, again for each visit.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) member: Member,
    /// Its own sources, and the whole room's.
    pub(crate) own: Range<u32>,
    pub(crate) room: Range<u32>,
}

/// What one client got.
#[derive(Debug, Default, Clone)]
pub(crate) struct ClientReport {
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) gap_ns: u64,
}

/// Delays within one second of the measurement, in nanoseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Second {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// What one thread has to say in the end.
pub(crate) struct Report {
    pub(crate) clients: Vec<ClientReport>,
    pub(crate) counts: Counts,
    pub(crate) delays: Histogram<u64>,
    pub(crate) seconds: Vec<Second>,
    /// How late frames left.
    pub(crate) lateness: Histogram<u64>,
    /// CPU time while measuring, and time spent ready but without a core.
    pub(crate) cpu_ns: u64,
    pub(crate) starved_ns: u64,
    pub(crate) failures: Vec<String>,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    board: Arc<Board>,
    sources: Arc<Vec<Arc<Source>>>,
    seats: Receiver<Seat>,
    epoll: Epoll,
    timer: TimerFd,
    /// The timer alone, for a rest that no socket ends.
    resting: Epoll,
    buffer: Buffer,
    clients: Vec<Option<Visit>>,
    /// Frames to come: when, whose, which track.
    due: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    /// Sockets of clients that have left, and since when.
    leaving: Vec<(Instant, Signalling)>,
    phase: Phase,
    second: Option<(Instant, Histogram<u64>)>,
    schedstat: (u64, u64),
    report: Report,
}

/// A client and its seat.
struct Visit {
    client: Client,
    seat: Seat,
    since: Instant,
    /// Whether it was there when the measurement began.
    whole: bool,
    told: bool,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        board: Arc<Board>,
        sources: Arc<Vec<Arc<Source>>>,
        seats: Receiver<Seat>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        let resting = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for epoll in [&epoll, &resting] {
            epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        }
        Ok(Self {
            shared,
            board,
            sources,
            seats,
            epoll,
            timer,
            resting,
            buffer: Buffer::new(),
            clients: Vec::new(),
            due: BinaryHeap::new(),
            leaving: Vec::new(),
            phase: Phase::Joining,
            second: None,
            schedstat: (0, 0),
            report: Report {
                clients: Vec::new(),
                counts: Counts::default(),
                delays: histogram(),
                seconds: Vec::new(),
                lateness: histogram(),
                cpu_ns: 0,
                starved_ns: 0,
                failures: Vec::new(),
            },
        })
    }

    /// Turns until the run is over.
    pub(crate) fn run(mut self) -> io::Result<Report> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let start = Moment::now().instant;
        let (mut next_tick, mut next_keep_alive) = (start, start + KEEP_ALIVE);
        let mut busy = false;
        loop {
            let now = Moment::now();
            self.send_due(now.instant);
            if now.instant >= next_tick {
                next_tick = now.instant + TICK;
                let keep_alive = now.instant >= next_keep_alive;
                if keep_alive {
                    next_keep_alive = now.instant + KEEP_ALIVE;
                }
                if self.tick(now, keep_alive)? == Phase::Leaving && self.leave(now.instant) {
                    return Ok(self.report);
                }
            }
            let first = self.due.peek().map_or(next_tick, |Reverse((at, ..))| *at);
            let due = first.min(next_tick);
            let count = if busy {
                self.arm(due.min(now.instant + REST))?;
                wait(&self.resting, &mut events, EpollTimeout::NONE)?;
                wait(&self.epoll, &mut events, EpollTimeout::ZERO)?
            } else {
                self.arm(due)?;
                wait(&self.epoll, &mut events, EpollTimeout::NONE)?
            };
            let events = &events[..count];
            busy = events.iter().any(|event| event.data() != TIMER);
            let now = Moment::now();
            for event in events {
                self.handle_event(now, event.data())?;
            }
        }
    }

    /// Has epoll wake at this moment.
    fn arm(&self, at: Instant) -> io::Result<()> {
        let ahead = at.saturating_duration_since(Moment::now().instant);
        // Zero would disarm it.
        let ahead = ahead.max(Duration::from_nanos(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(ahead));
        self.timer.set(once, TimerSetTimeFlags::empty())?;
        Ok(())
    }

    fn handle_event(&mut self, now: Moment, data: u64) -> io::Result<()> {
        if data == TIMER {
            // Whether it was read or set anew does not matter.
            let _ = self.timer.wait();
            return Ok(());
        }
        let index = (data / 2) as usize;
        let Some(visit) = self.clients.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        if data % 2 == 1 {
            visit.client.handle_signalling();
            return Ok(());
        }
        let delays = match &mut self.second {
            Some((_, second)) => second,
            None => &mut self.report.delays,
        };
        let came = visit.client.handle_media(now, &mut self.buffer, delays)?;
        self.board.received.fetch_add(came, Ordering::Relaxed);
        Ok(())
    }

    /// Sends every frame whose time has come.
    fn send_due(&mut self, now: Instant) {
        while let Some(Reverse((at, index, track))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let Some(visit) = self.clients[index].as_mut() else {
                continue;
            };
            let measured = self.phase == Phase::Measuring;
            if measured {
                let late = now.duration_since(at).as_nanos() as u64;
                self.report.lateness.saturating_record(late);
            }
            let delays = &mut self.report.delays;
            visit.client.send_frame(track, measured, delays);
            let next = visit.client.tracks[track].due;
            self.due.push(Reverse((next, index, track)));
        }
    }

    /// What need not be looked at more often than every [`TICK`].
    fn tick(&mut self, now: Moment, keep_alive: bool) -> io::Result<Phase> {
        let phase = self.board.phase();
        if phase != self.phase {
            self.enter(phase, now.instant);
        }
        self.roll_second(now.instant);
        self.leaving.retain_mut(|(since, signalling)| {
            let open = signalling.receive().is_ok();
            open && now.instant.duration_since(*since) < FAREWELL
        });
        for index in 0..self.clients.len() {
            self.look_after(index, now.instant, keep_alive);
        }
        loop {
            match self.seats.try_recv() {
                Ok(seat) => self.join(seat, now)?,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(phase),
            }
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        let (cpu, waited) = schedstat();
        match phase {
            Phase::Measuring => {
                self.schedstat = (cpu, waited);
                self.second = Some((now, histogram()));
                let visits = self.clients.iter_mut().flatten();
                visits.for_each(|visit| visit.whole = true);
            }
            Phase::Draining => {
                self.report.cpu_ns = cpu - self.schedstat.0;
                self.report.starved_ns = waited - self.schedstat.1;
            }
            Phase::Joining | Phase::Leaving => {}
        }
        self.phase = phase;
    }

    /// Closes a second of the measurement when it is over.
    fn roll_second(&mut self, now: Instant) {
        let Some((since, second)) = &mut self.second else {
            return;
        };
        let ended = self.phase != Phase::Measuring;
        if now.duration_since(*since) < Duration::from_secs(1) && !ended {
            return;
        }
        if !second.is_empty() {
            self.report.seconds.push(Second {
                p50: second.value_at_quantile(0.5),
                p99: second.value_at_quantile(0.99),
                max: second.max(),
            });
        }
        let added = self.report.delays.add(&*second);
        added.expect("they have the same bounds");
        second.reset();
        *since += Duration::from_secs(1);
        if ended {
            self.second = None;
        }
    }

    /// One client's timeouts, failures and the end of its stay.
    fn look_after(&mut self, index: usize, now: Instant, keep_alive: bool) {
        let Some(visit) = &mut self.clients[index] else {
            return;
        };
        let client = &mut visit.client;
        if client.wakeup <= now {
            client.handle_timeout(now, &mut self.report.delays);
        }
        if keep_alive {
            client.handle_tick();
        }
        if client.connected && !visit.told {
            visit.told = true;
            self.board.connected.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(why) = &client.failed {
            let place = client.member;
            let why = format!("client {} of room {}: {why}", place.index, place.room);
            self.report.failures.push(why);
            self.board.failed.fetch_add(1, Ordering::Relaxed);
            self.retire(index);
            return;
        }
        let stay = self.shared.plan.stay.map(|s| Duration::from_secs(s.into()));
        let over = stay.is_some_and(|stay| now.duration_since(visit.since) >= stay);
        if over && !client.member.publishes && self.phase == Phase::Measuring {
            client.leave();
            let seat = visit.seat.clone();
            if let Some(signalling) = self.retire(index) {
                self.leaving.push((now, signalling));
            }
            if let Err(error) = self.sit_down(index, seat, Moment::now()) {
                self.report.failures.push(error.to_string());
            }
        }
    }

    fn join(&mut self, seat: Seat, now: Moment) -> io::Result<()> {
        self.clients.push(None);
        self.sit_down(self.clients.len() - 1, seat, now)
    }

    /// Opens a client and watches its sockets.
    fn sit_down(&mut self, index: usize, seat: Seat, now: Moment) -> io::Result<()> {
        let tracks = self.tracks(&seat, now.instant);
        let setup = Setup {
            member: seat.member,
            tracks,
            sources: seat.room.clone(),
        };
        let client = match Client::open(&self.shared, setup, now) {
            Ok(client) => client,
            Err(why) => {
                self.report.failures.push(why);
                self.board.failed.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
        };
        let data = 2 * index as u64;
        let readable = EpollFlags::EPOLLIN;
        self.epoll
            .add(&client.udp, EpollEvent::new(readable, data))?;
        let event = EpollEvent::new(readable, data + 1);
        self.epoll.add(&client.signalling, event)?;
        let sending = |(_, track): &(usize, &Track)| track.plan.frames_per_s > 0.0;
        for (number, track) in client.tracks.iter().enumerate().filter(sending) {
            self.due.push(Reverse((track.due, index, number)));
        }
        self.clients[index] = Some(Visit {
            client,
            seat,
            since: now.instant,
            whole: false,
            told: false,
        });
        Ok(())
    }

    /// A publisher's tracks. Frames of different tracks begin at different times, evenly spread.
    fn tracks(&self, seat: &Seat, now: Instant) -> Vec<Track> {
        let plans = self.shared.plan.tracks();
        let speaks = seat.member.index < self.shared.plan.speakers();
        let plans = plans.into_iter().zip(seat.own.clone());
        plans
            .filter(|(plan, _)| plan.video || speaks)
            .map(|(plan, id)| {
                // The golden ratio spreads any number of them.
                let phase = (f64::from(id) * 0.618_033_988_75).fract() / plan.frames_per_s;
                let phase = Duration::try_from_secs_f64(phase).unwrap_or_default();
                let source = Arc::clone(&self.sources[id as usize]);
                Track::new(id, plan, source, now + phase)
            })
            .collect()
    }

    /// Writes down what a client got, and closes it but for its WebSocket.
    fn retire(&mut self, index: usize) -> Option<Signalling> {
        let visit = self.clients[index].take()?;
        let _ = self.epoll.delete(&visit.client.udp);
        let _ = self.epoll.delete(&visit.client.signalling);
        let counts = visit.client.counts;
        let sum = &mut self.report.counts;
        sum.packets += counts.packets;
        sum.resent += counts.resent;
        sum.strays += counts.strays;
        sum.lost += counts.lost;
        sum.sent += counts.sent;
        if visit.client.member.watches {
            let whole = visit.whole && self.phase > Phase::Measuring;
            let report = self.weigh(&visit, whole);
            self.report.clients.push(report);
        }
        Some(visit.client.signalling)
    }

    /// Holds what a client heard against what it should have: of each kind as many sources as
    /// it has m-lines for.
    fn weigh(&self, visit: &Visit, whole: bool) -> ClientReport {
        let mut report = ClientReport::default();
        for video in [false, true] {
            let lines = if video {
                visit.client.lines.1
            } else {
                visit.client.lines.0
            };
            let others = visit.seat.room.clone().zip(&visit.client.heard);
            let mut deliveries: Vec<_> = others
                .filter(|(id, _)| !visit.seat.own.contains(id))
                .map(|(id, heard)| (&self.sources[id as usize], heard))
                .filter(|(source, _)| source.video == video && source.frames() > 0)
                .map(|(source, heard)| (heard.delivery(source, whole), heard.gap_ns()))
                .collect();
            deliveries.sort_by_key(|(delivery, _)| Reverse(delivery.delivered));
            for (delivery, gap_ns) in deliveries.into_iter().take(lines as usize) {
                report.expected += delivery.expected;
                report.delivered += delivery.delivered;
                report.gap_ns = report.gap_ns.max(gap_ns);
            }
        }
        report
    }

    /// Has everyone leave. Returns whether all are gone.
    fn leave(&mut self, now: Instant) -> bool {
        for index in 0..self.clients.len() {
            if let Some(visit) = &mut self.clients[index] {
                visit.client.leave();
            }
            if let Some(signalling) = self.retire(index) {
                self.leaving.push((now, signalling));
            }
        }
        self.leaving.is_empty()
    }
}

/// How many events there are; none when a signal came first.
pub(crate) fn wait(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: EpollTimeout,
) -> io::Result<usize> {
    match epoll.wait(events, timeout) {
        Err(nix::Error::EINTR) => Ok(0),
        count => Ok(count?),
    }
}

/// CPU time of this thread and time it waited for a core, in nanoseconds.
pub(crate) fn schedstat() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut words = text.split(' ').map(|word| word.trim().parse().unwrap_or(0));
    (words.next().unwrap_or(0), words.next().unwrap_or(0))
}
