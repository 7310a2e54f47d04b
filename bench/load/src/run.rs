//! One run: joins the clients, lets load flow, measures, and has everyone leave.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;
use str0m::crypto::from_feature_flags;

use crate::client::Shared;
use crate::clock::{self, Moment};
use crate::plan::{BadPlan, Joins, Plan, SfuKind};
use crate::result::{Delays, Memory, Outcome, Sample};
use crate::server;
use crate::sfu::Member;
use crate::tally::{Source, histogram};
use crate::worker::{Board, Phase, Report, Seat, Worker};

/// Longest that clients may take to come up after the last one was told to join.
const COMING_UP: Duration = Duration::from_secs(60);
/// How long what was sent may still come: RTX asked for after a loss at the end.
const DRAINING: Duration = Duration::from_secs(1);
/// Corelay sends its counters once a second.
const COUNTERS_SETTLE: Duration = Duration::from_millis(2_500);
/// How long after the last has left memory is looked at; corelay gives it back after ten seconds.
const MEMORY_SETTLES: Duration = Duration::from_secs(20);
/// A thread busier than this, in percent, is late for some of what it should do.
const BUSY_PCT: f64 = 85.0;
/// Frames later than this at the 99th percentile, in milliseconds, are not the load asked for.
const LATE_MS: f64 = 10.0;

/// Why a run did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Plan(#[from] BadPlan),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no certificate for the clients: the system has no randomness")]
    Certificate,
    #[error("{0} of {1} clients came up{2}")]
    NotUp(u64, u64, String),
    #[error("a thread of the generator died")]
    Died,
}

/// A run under way.
struct Run {
    plan: Plan,
    board: Arc<Board>,
    seats: Vec<Sender<Seat>>,
    threads: Vec<JoinHandle<io::Result<Report>>>,
    joined: u64,
    seat_count: usize,
    memory: Option<Memory>,
    progress: Progress,
}

/// Runs the plan to its end.
pub(crate) fn run(name: &str, plan: &Plan) -> Result<Outcome, RunError> {
    plan.check()?;
    let mut run = Run::start(plan)?;
    let rss_before = run.rss();
    run.memory = own_memory(plan).map(|start| Memory {
        start,
        ..Memory::default()
    });
    let cpu_before = run.server_cpu();
    let joining = Moment::now().instant;
    run.join_all()?;
    let join_seconds = joining.elapsed().as_secs_f64();
    let join_cpu = run
        .server_cpu()
        .zip(cpu_before)
        .map(|(now, before)| now - before);
    let joins = run.joined;
    run.warm_up();
    let stats_before = run.stats();
    let (timeline, measured) = run.measure();
    let rss = run.rss();
    clock::rest(DRAINING);
    run.settle();
    let stats_after = run.stats();
    let reports = run.leave()?;
    let stats_left = run.stats_when_left();
    run.look_at_memory_left();
    let mut outcome = Outcome {
        name: name.to_owned(),
        sfu: format!("{:?}", plan.sfu).to_lowercase(),
        rss_bytes: rss,
        rss_before_bytes: rss_before,
        rss_after_bytes: run.rss(),
        memory: run.memory.filter(|_| plan.stay.is_some()),
        joins,
        join_seconds,
        timeline,
        plan: plan.clone(),
        ..Outcome::default()
    };
    let per_cpu = |cpu: u64| joins as f64 / (cpu as f64 / 1e9);
    outcome.joins_per_cpu_second = join_cpu.filter(|cpu| *cpu > 0).map(per_cpu);
    outcome.sum_up(&reports, &measured);
    if let (Some(before), Some(after)) = (stats_before, stats_after) {
        outcome.add_stats(&before, &after, stats_left.as_ref());
    }
    run.progress.clear();
    Ok(outcome)
}

/// The server's own memory.
fn own_memory(plan: &Plan) -> Option<u64> {
    plan.server_pid.and_then(|pid| server::own_bytes(pid).ok())
}

/// What the measured time cost.
struct Measured {
    seconds: f64,
    server_cpu_ns: Option<u64>,
    generator_cpu_ns: u64,
}

impl Run {
    fn start(plan: &Plan) -> Result<Self, RunError> {
        let crypto = from_feature_flags();
        let certificate = crypto.dtls_provider.generate_certificate();
        let shared = Arc::new(Shared {
            plan: plan.clone(),
            certificate: certificate.ok_or(RunError::Certificate)?,
            crypto: Arc::new(crypto),
        });
        let tracks = plan.tracks();
        let publishers = plan.rooms * plan.publishers;
        let sources = (0..publishers).flat_map(|_| &tracks);
        let sources: Vec<_> = sources.map(|track| Arc::new(Source::new(track))).collect();
        let sources = Arc::new(sources);
        let board = Arc::new(Board::default());
        let (mut seats, mut threads) = (Vec::new(), Vec::new());
        for number in 0..plan.threads {
            let (sender, receiver) = mpsc::channel();
            let (board, sources) = (Arc::clone(&board), Arc::clone(&sources));
            let worker = Worker::new(Arc::clone(&shared), board, sources, receiver)?;
            let thread = thread::Builder::new().name(format!("clients-{number}"));
            threads.push(thread.spawn(move || worker.run())?);
            seats.push(sender);
        }
        Ok(Self {
            plan: plan.clone(),
            board,
            seats,
            threads,
            joined: 0,
            seat_count: 0,
            memory: None,
            progress: Progress::new(),
        })
    }

    /// Publishers first, so that there is something to watch.
    fn join_all(&mut self) -> Result<(), RunError> {
        let (publishers, per_room) = (self.plan.publishers, self.plan.per_room());
        for places in [0..publishers, publishers..per_room] {
            let began = Moment::now().instant;
            let mut sent = 0;
            for index in places {
                for room in 0..self.plan.rooms {
                    if self.plan.joins == Joins::Paced {
                        let due = f64::from(sent) / f64::from(self.plan.join_rate);
                        let due = began + Duration::from_secs_f64(due);
                        clock::rest(due.saturating_duration_since(Moment::now().instant));
                        self.show("joining");
                    }
                    sent += 1;
                    self.join(room, index)?;
                }
            }
            self.await_all()?;
        }
        Ok(())
    }

    fn join(&mut self, room: u32, index: u32) -> Result<(), RunError> {
        let plan = &self.plan;
        let publishes = index < plan.publishers;
        let tracks = plan.tracks().len() as u32;
        let first = room * plan.publishers * tracks;
        let own = if publishes {
            index * tracks..(index + 1) * tracks
        } else {
            0..0
        };
        let seat = Seat {
            member: Member {
                room,
                index,
                publishers: plan.publishers,
                // A room of sound alone has people who send nothing.
                publishes: publishes && (!plan.no_video || index < plan.speakers()),
                watches: !publishes || plan.meeting,
                audio: plan.audio,
                video: !plan.no_video,
            },
            own: first + own.start..first + own.end,
            room: first..first + plan.publishers * tracks,
        };
        let thread = self.seat_count % self.seats.len();
        self.seat_count += 1;
        self.joined += 1;
        self.seats[thread].send(seat).map_err(|_| RunError::Died)
    }

    /// Waits until everyone who was told to join is connected.
    fn await_all(&mut self) -> Result<(), RunError> {
        let began = Moment::now().instant;
        loop {
            let up = self.board.connected.load(Ordering::Relaxed);
            let failed = self.board.failed.load(Ordering::Relaxed);
            if up >= self.joined {
                return Ok(());
            }
            let dead = self.threads.iter().any(JoinHandle::is_finished);
            if failed > 0 || dead || began.elapsed() > COMING_UP {
                let reports = self.leave()?;
                let why = reports.iter().flat_map(|report| &report.failures).next();
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                return Err(RunError::NotUp(up, self.joined, why));
            }
            self.show("joining");
            clock::rest(Duration::from_millis(2));
        }
    }

    fn warm_up(&mut self) {
        let end = Moment::now().instant + Duration::from_secs(self.plan.warmup.into());
        while Moment::now().instant < end {
            self.show("warming up");
            clock::rest(Duration::from_millis(100));
        }
    }

    fn measure(&mut self) -> (Vec<Sample>, Measured) {
        let began = Moment::now().instant;
        let (server, own) = (self.server_cpu(), own_cpu());
        self.board.begin(Phase::Measuring);
        let (mut timeline, mut last) = (Vec::new(), (began, server, own, self.received()));
        for second in 1..=self.plan.duration {
            let due = began + Duration::from_secs(second.into());
            while Moment::now().instant < due {
                self.show(&format!("measuring {second}/{} s", self.plan.duration));
                let left = due.saturating_duration_since(Moment::now().instant);
                clock::rest(left.min(Duration::from_millis(250)));
            }
            let now = (
                Moment::now().instant,
                self.server_cpu(),
                own_cpu(),
                self.received(),
            );
            let wall_ns = now.0.duration_since(last.0).as_nanos() as f64;
            let pct = |now: u64, before: u64| 100.0 * (now - before) as f64 / wall_ns;
            timeline.push(Sample {
                packets: now.3 - last.3,
                server_cpu_pct: now.1.zip(last.1).map(|(now, before)| pct(now, before)),
                generator_cpu_pct: pct(now.2, last.2),
                rss_bytes: self.rss(),
                ..Sample::default()
            });
            if let (Some(memory), Some(own)) = (&mut self.memory, own_memory(&self.plan)) {
                (memory.peak, memory.end) = (memory.peak.max(own), own);
            }
            last = now;
        }
        self.board.begin(Phase::Draining);
        let measured = Measured {
            seconds: last.0.duration_since(began).as_secs_f64(),
            server_cpu_ns: last.1.zip(server).map(|(now, before)| now - before),
            generator_cpu_ns: last.2 - own,
        };
        (timeline, measured)
    }

    fn leave(&mut self) -> Result<Vec<Report>, RunError> {
        self.board.begin(Phase::Leaving);
        self.seats.clear();
        let mut reports = Vec::new();
        for thread in self.threads.drain(..) {
            reports.push(thread.join().map_err(|_| RunError::Died)??);
        }
        Ok(reports)
    }

    /// Waits until the counters of corelay tell of all that was.
    fn settle(&self) {
        if self.plan.sfu == SfuKind::Corelay {
            clock::rest(COUNTERS_SETTLE);
        }
    }

    /// corelay's counters once nobody is left, or after some patience.
    fn stats_when_left(&self) -> Option<Value> {
        for _ in 0..4 {
            self.settle();
            if self.stats()?["totals"]["engine"]["peers"] == 0 {
                break;
            }
        }
        self.stats()
    }

    /// Where clients come and go: the server gives memory back some time after the last has left.
    fn look_at_memory_left(&mut self) {
        if let (Some(memory), Some(_)) = (&mut self.memory, self.plan.stay) {
            self.progress.clear();
            clock::rest(MEMORY_SETTLES);
            memory.left = own_memory(&self.plan).unwrap_or_default();
        }
    }

    fn stats(&self) -> Option<Value> {
        if self.plan.sfu != SfuKind::Corelay {
            return None;
        }
        server::stats(&self.plan.url, self.plan.token.as_deref()).ok()
    }

    fn server_cpu(&self) -> Option<u64> {
        self.plan
            .server_pid
            .and_then(|pid| server::cpu_ns(pid).ok())
    }

    fn rss(&self) -> Option<u64> {
        self.plan
            .server_pid
            .and_then(|pid| server::rss_bytes(pid).ok())
    }

    fn received(&self) -> u64 {
        self.board.received.load(Ordering::Relaxed)
    }

    fn show(&mut self, what: &str) {
        let (up, joined) = (self.board.connected.load(Ordering::Relaxed), self.joined);
        let received = self.received();
        self.progress.show(what, up, joined, received);
    }
}

fn own_cpu() -> u64 {
    server::cpu_ns(std::process::id()).unwrap_or(0)
}

impl Outcome {
    fn sum_up(&mut self, reports: &[Report], measured: &Measured) {
        let mut delays = histogram();
        let mut lateness = histogram();
        self.worst_delivery_ratio = 1.0;
        let mut clients = 0;
        for report in reports {
            delays
                .add(&report.delays)
                .expect("they have the same bounds");
            lateness
                .add(&report.lateness)
                .expect("they have the same bounds");
            self.resent += report.counts.resent;
            self.strays += report.counts.strays;
            self.failures.extend(report.failures.iter().cloned());
            for client in &report.clients {
                clients += 1;
                self.expected += client.expected;
                self.delivered += client.delivered;
                let ratio = ratio(client.delivered, client.expected);
                self.worst_delivery_ratio = self.worst_delivery_ratio.min(ratio);
                self.longest_gap_ms = self.longest_gap_ms.max(client.gap_ns as f64 / 1e6);
            }
            for (sample, second) in self.timeline.iter_mut().zip(&report.seconds) {
                let us = |ns: u64| ns as f64 / 1e3;
                sample.delay_p50_us = sample.delay_p50_us.max(us(second.p50));
                sample.delay_p99_us = sample.delay_p99_us.max(us(second.p99));
                sample.delay_max_us = sample.delay_max_us.max(us(second.max));
            }
        }
        self.delivery_ratio = ratio(self.delivered, self.expected);
        self.packets_per_second = self.delivered as f64 / measured.seconds;
        let wall_ns = measured.seconds * 1e9;
        self.generator_cpu_pct = 100.0 * measured.generator_cpu_ns as f64 / wall_ns;
        self.server_cpu_pct = measured.server_cpu_ns.map(|ns| 100.0 * ns as f64 / wall_ns);
        let cpu_ns = measured.server_cpu_ns.filter(|_| self.delivered > 0);
        self.cpu_ns_per_packet = cpu_ns.map(|ns| ns as f64 / self.delivered as f64);
        let grown = self.rss_bytes.zip(self.rss_before_bytes);
        let grown = grown.map(|(now, before)| now.saturating_sub(before) as f64);
        self.rss_bytes_per_subscriber = grown.map(|bytes| bytes / f64::from(clients.max(1)));
        let us = |quantile| delays.value_at_quantile(quantile) as f64 / 1e3;
        self.delay_us = Delays {
            p50: us(0.5),
            p95: us(0.95),
            p99: us(0.99),
            p999: us(0.999),
            max: delays.max() as f64 / 1e3,
        };
        let nines = (0..=50).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 10.0));
        self.delay_curve = nines.map(|quantile| (quantile, us(quantile))).collect();
        self.generator_limits = limits(reports, &lateness, wall_ns);
    }

    fn add_stats(&mut self, before: &Value, after: &Value, left: Option<&Value>) {
        self.dropped = Some(server::grown(before, after, "dropped"));
        let mut counters = server::grown(before, after, "engine");
        counters.extend(server::grown(before, after, "shard"));
        self.server = Some(counters);
        self.server_delay_us = server::percentiles(before, after, "delay_us");
        self.server_turn_us = server::percentiles(before, after, "turn_us");
        let gauges = [
            "rooms",
            "peers",
            "audio_tracks",
            "video_tracks",
            "subscriptions",
        ];
        self.left_behind = left.map(|left| {
            let engine = &left["totals"]["engine"];
            let gauges = gauges.iter().chain(&["addresses"]);
            let gauges = gauges.filter_map(|name| Some((name.to_string(), engine[name].as_u64()?)));
            gauges.filter(|(_, count)| *count > 0).collect()
        });
    }
}

/// Signs that the generator could not keep up.
fn limits(reports: &[Report], lateness: &Histogram<u64>, wall_ns: f64) -> Vec<String> {
    let mut limits = Vec::new();
    for (number, report) in reports.iter().enumerate() {
        let busy = 100.0 * report.cpu_ns as f64 / wall_ns;
        if busy > BUSY_PCT {
            limits.push(format!("thread {number} was busy {busy:.0} % of the time"));
        }
        let starved = 100.0 * report.starved_ns as f64 / wall_ns;
        if starved > 100.0 - BUSY_PCT {
            let text = format!("thread {number} waited for a core {starved:.0} % of the time");
            limits.push(text);
        }
    }
    let late_ms = lateness.value_at_quantile(0.99) as f64 / 1e6;
    if late_ms > LATE_MS {
        limits.push(format!(
            "1 % of the frames left {late_ms:.1} ms late or more"
        ));
    }
    let lost: u64 = reports.iter().map(|report| report.counts.lost).sum();
    if lost > 0 {
        limits.push(format!("{lost} datagrams were lost in its own sockets"));
    }
    limits
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        1.0
    } else {
        part as f64 / whole as f64
    }
}

/// The line that shows a run is alive.
struct Progress {
    terminal: bool,
    last: Option<(Instant, u64)>,
}

impl Progress {
    fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            last: None,
        }
    }

    /// Twice a second on a terminal, every five seconds elsewhere.
    fn show(&mut self, what: &str, up: u64, joined: u64, received: u64) {
        let now = Moment::now().instant;
        let every = Duration::from_millis(if self.terminal { 500 } else { 5_000 });
        let (at, before) = *self.last.get_or_insert((now, received));
        if now.duration_since(at) < every {
            return;
        }
        let rate = (received - before) as f64 / now.duration_since(at).as_secs_f64();
        self.last = Some((now, received));
        let (begin, end) = if self.terminal {
            ("\r\x1b[K", "")
        } else {
            ("", "\n")
        };
        let text = format!("{what}: {up} of {joined} clients, {rate:.0} packets/s");
        let mut out = io::stderr().lock();
        let _ = write!(out, "{begin}corelay-load: {text}{end}").and_then(|()| out.flush());
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
