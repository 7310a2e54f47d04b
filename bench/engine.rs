//! Nanoseconds of single paths of the engine: what comes in, a join, a change in a slot, the
//! share-out of a viewer's bandwidth. Fan-out is `bench/forward.rs`.
//!
//! `cargo bench --bench engine`. Times depend on the machine and its neighbours: trust ratios.

mod rig;

use std::hint::black_box;
use std::time::{Duration, Instant};

use corelay::engine::allocate::{Before, Budget, Demand, Quality, Rung, allocate};
use corelay::engine::command::Source;
use corelay::engine::rewriter::{Incoming, Rewriter};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rig::Rig;

criterion_group!(paths, ingress, join, idle, switch, share_out);
criterion_main!(paths);

/// Packets of a publisher whom nobody watches, in bursts.
fn ingress(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ingress");
    for burst in [1, 8] {
        group.throughput(Throughput::Elements(burst as u64));
        group.bench_function(BenchmarkId::new("burst", burst), |bencher| {
            let mut rig = Rig::new(0);
            bencher.iter_custom(|count| {
                timed(count, |observe| {
                    rig.burst(burst, observe);
                })
            });
        });
    }
}

/// One viewer joins a room with a publisher and comes up: commands, ICE, DTLS.
fn join(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join");
    group.sample_size(10);
    group.bench_function("one video slot", |bencher| {
        bencher.iter_custom(|count| {
            let mut rig = Rig::new(0);
            timed(count, |observe| rig.join(observe))
        });
    });
}

/// A second in which ten viewers are there and nothing is sent.
fn idle(criterion: &mut Criterion) {
    criterion.bench_function("idle/10 viewers, 1 s", |bencher| {
        bencher.iter_custom(|count| {
            let mut rig = Rig::new(10);
            let second = Duration::from_secs(1);
            timed(count, |observe| rig.idle(second, None, observe))
        });
    });
}

/// Another track begins to play in a slot, and eight packets of it pass.
fn switch(criterion: &mut Criterion) {
    let start = now();
    let mut rewriter = Rewriter::new(1.into(), 0, 90_000);
    let mut seq = 1_u64;
    criterion.bench_function("switch", |bencher| {
        bencher.iter(|| {
            rewriter.switch();
            // Another source: its numbers have nothing to do with the last one's.
            seq += 10_000;
            for packet in 0..8 {
                let incoming = Incoming {
                    seq: (seq + packet).into(),
                    timestamp: (seq * 3_000) as u32,
                    vp8: None,
                };
                let _ = black_box(rewriter.rewrite(start, &incoming));
            }
        });
    });
}

/// A viewer of many tracks of three layers each, on a path that carries half of all.
fn share_out(criterion: &mut Criterion) {
    let rungs = [(0, 150_000), (1, 500_000), (2, 2_500_000)];
    let rungs = rungs.map(|(layer, bps)| Rung {
        layer,
        temporal: 0,
        bps,
        size: None,
    });
    let demand = |number: usize| Demand {
        rungs: &rungs,
        source: Source::Camera,
        speaks: number == 1,
        priority: 0,
        view: None,
        quality: Quality::Auto,
        before: Before::New,
    };
    let mut group = criterion.benchmark_group("allocate");
    for tracks in [2, 9, 25, 100, 500] {
        let demands: Vec<_> = (0..tracks).map(demand).collect();
        let budget = Budget {
            bps: tracks as u64 * 1_250_000,
            stays_bps: tracks as u64 * 1_250_000,
            least_bps: tracks as u64 * 1_250_000,
            is_proven: true,
        };
        group.throughput(Throughput::Elements(tracks as u64));
        group.bench_function(BenchmarkId::new("tracks", tracks), |bencher| {
            bencher.iter(|| allocate(budget, black_box(&demands)));
        });
    }
}

/// The time within the engine's calls of `count` turns or joins.
fn timed(count: u64, mut work: impl FnMut(rig::Observer<'_>)) -> Duration {
    let mut spent = Duration::ZERO;
    let mut stopwatch = |turn: &mut dyn FnMut()| {
        let start = now();
        turn();
        spent += start.elapsed();
    };
    for _ in 0..count {
        work(&mut stopwatch);
    }
    spent
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}
