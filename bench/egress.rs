//! What one 1200 B packet costs to send: nanoseconds of thread CPU and allocations.
//!
//! `cargo bench --bench egress`. Times are the least of several rounds, since the machines are
//! shared; a figure is only worth comparing with others of the same run.

mod viewer;

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use corelay::engine::egress::clock::WallClock;
use corelay::engine::egress::extension::PacketExtensions;
use corelay::engine::egress::feedback::{Feedback, FeedbackReader};
use corelay::engine::egress::history::{HistoryId, Sent, TrackHistory};
use corelay::engine::egress::keys::Side;
use corelay::engine::egress::packet::MediaPacket;
use corelay::engine::egress::patch::HeadPatch;
use corelay::engine::egress::seal::{Opener, Sealer};
use corelay::engine::ingress::payload::Payload;
use str0m::crypto::dtls::SrtpProfile;
use viewer::{Viewer, keep, keys};

/// Payload of the packets, in bytes.
const PAYLOAD_BYTES: usize = 1_200;

/// Packets of one viewer in one turn.
const BURST: u64 = 8;

/// Bursts of one round, and rounds of which the best counts.
const BURSTS: u64 = 20_000;
const ROUNDS: usize = 7;

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn main() {
    println!("ns of thread CPU and allocations per {PAYLOAD_BYTES} B packet, best of {ROUNDS}");
    println!(
        "{:<26}{:>8}{:>12}{:>12}{:>8}",
        "", "seal", "written", "all in", "allocs"
    );
    for profile in SrtpProfile::ALL {
        let seal = seal_alone(*profile);
        let written = written(*profile);
        let (all_in, allocations) = all_in(*profile);
        let name = profile.to_string();
        println!("{name:<26}{seal:>8.0}{written:>12.0}{all_in:>12.0}{allocations:>8.3}");
    }
    println!("seal: encryption in place, nothing else");
    println!("written: header and extensions, payload copied, sealed");
    println!("all in: written, its place in the track's history shared by 10, the viewer's log");
    println!(
        "feedback (11 report blocks, opened and read): {:.0} ns a message",
        feedback()
    );
}

/// The sealing alone.
fn seal_alone(profile: SrtpProfile) -> f64 {
    let sealer = Sealer::new(&keys(profile, Side::Server));
    let mut buf = vec![0; 20 + PAYLOAD_BYTES];
    let mut index = 0;
    best(|| {
        for _ in 0..BURSTS * BURST {
            buf.truncate(20 + PAYLOAD_BYTES);
            sealer.seal_rtp(&mut buf, 0, 20, 1, index);
            index += 1;
        }
        black_box(&buf);
    })
}

/// Packets written into a batch of 8.
fn written(profile: SrtpProfile) -> f64 {
    let mut viewer = Viewer::new(start(), profile);
    let mut seq = 0;
    let payload = vec![0x5a; PAYLOAD_BYTES];
    best(|| {
        for _ in 0..BURSTS {
            viewer.batch.clear();
            for _ in 0..BURST {
                seq += 1;
                let packet = MediaPacket {
                    seq,
                    timestamp: seq as u32,
                    marker: false,
                    payload: &payload,
                    patch: HeadPatch::NONE,
                    extensions: PacketExtensions::default(),
                };
                viewer.write(&packet);
            }
            black_box(viewer.batch.bytes());
        }
    })
}

/// Packets of one track written to 10 viewers, with what resends need.
fn all_in(profile: SrtpProfile) -> (f64, f64) {
    const VIEWERS: u64 = 10;
    let mut viewers: Vec<Viewer> = (0..VIEWERS)
        .map(|_| Viewer::new(start(), profile))
        .collect();
    let mut first = 0;
    let payload = Payload::from(&[0x5a; PAYLOAD_BYTES][..]);
    let mut history = TrackHistory::new(HistoryId(1));
    let mut now = start();
    let clock = WallClock::new(now, Duration::ZERO);
    let mut stored = Vec::new();
    let mut round = || {
        for _ in 0..BURSTS / VIEWERS {
            now += Duration::from_millis(16);
            let at = clock.at(now);
            stored.clear();
            stored.extend((0..BURST).map(|_| history.push(now, keep(&payload))));
            for viewer in &mut viewers {
                viewer.at = at;
                viewer.batch.clear();
                for (seq, id) in (first + 1..).zip(&stored) {
                    let sent = Sent {
                        seq,
                        stored: *id,
                        timestamp: seq as u32,
                        patch: HeadPatch::NONE,
                    };
                    let kept = history.packet(*id).expect("just kept");
                    viewer.write(&sent.packet(kept));
                    viewer.log.insert(now, &sent);
                }
                black_box(viewer.batch.bytes());
            }
            first += BURST;
        }
    };
    let time = best(&mut round);
    let counted = allocation_counter::measure(round);
    (time, counted.count_total as f64 / (BURSTS * BURST) as f64)
}

/// A browser's usual report on 11 streams, opened and read.
fn feedback() -> f64 {
    let keys = keys(SrtpProfile::AEAD_AES_128_GCM, Side::Client);
    let mut sealer = Sealer::new(&keys);
    let mut reader = FeedbackReader::new(Opener::new(&keys));
    let mut feedback = Feedback::new();
    let mut report = vec![0x8b, 201, 0, 67, 0, 0, 0, 1];
    report.resize(272, 0);
    let datagrams: Vec<Vec<u8>> = (0..ROUNDS as u64 * BURSTS)
        .map(|_| {
            let mut datagram = report.clone();
            sealer
                .seal_rtcp(&mut datagram, 0)
                .expect("indexes are left");
            datagram
        })
        .collect();
    let mut left = datagrams.iter();
    let per_packet = best(|| {
        for datagram in left.by_ref().take(BURSTS as usize) {
            let read = reader.handle_srtcp(datagram, &mut feedback);
            read.expect("each is new");
            assert_eq!(feedback.items().len(), 11);
        }
    });
    per_packet * BURST as f64
}

/// The least nanoseconds of thread CPU per packet, of rounds of `BURSTS * BURST` packets.
fn best(mut round: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let before = thread_cpu_ns();
        round();
        let spent = thread_cpu_ns() - before;
        least = least.min(spent as f64 / (BURSTS * BURST) as f64);
    }
    least
}

/// Time this thread was on a CPU, as Linux counts it (Documentation/scheduler/sched-stats.rst).
fn thread_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux with schedstats");
    let first = text.split(' ').next().expect("three numbers");
    first.parse().expect("nanoseconds")
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from nothing; the benchmark only adds to it"
)]
fn start() -> Instant {
    Instant::now()
}
