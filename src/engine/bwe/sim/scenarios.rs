//! What the estimator is judged by, each on several seeds, and how it stands beside `goog_cc`.

use super::link::Link;
use super::media::{Media, Source};
use super::oracle::{Controller, GoogCc, Ours};
use super::tcp::Tcp;
use super::{Flow, World};

/// Seeds of the judged runs.
const SEEDS: std::ops::Range<u64> = 1..6;

/// More than any link here carries.
const PLENTY: f64 = 6e6;

#[derive(Debug, Clone, Copy)]
enum Who {
    Ours,
    GoogCc,
}

/// A viewer that starts at `start_bps` and wants what the source has at best.
fn viewer(who: Who, start_bps: f64, source: Source, seed: u64) -> Flow {
    let wanted_bps = source.best_bps();
    let controller: Box<dyn Controller> = match who {
        Who::Ours => Box::new(Ours::new(start_bps, wanted_bps)),
        Who::GoogCc => Box::new(GoogCc::new(start_bps, wanted_bps)),
    };
    Flow::Media(Box::new(Media::new(controller, source, seed)))
}

fn encoder(who: Who, seed: u64) -> Flow {
    viewer(who, 5e5, Source::Encoder(PLENTY), seed)
}

fn layers() -> Source {
    Source::Layers(vec![1.5e5, 5e5, 1.2e6, 2.5e6])
}

fn world(bps: f64, seed: u64, flows: Vec<Flow>) -> World {
    World::new(Link::new(bps, seed), flows)
}

/// 3 Mbit/s for 20 s, 400 kbit/s for 30 s, 3 Mbit/s for 30 s.
fn narrowing(who: Who, seed: u64, source: Source) -> World {
    let mut world = world(3e6, seed, vec![viewer(who, 5e5, source, seed)]);
    world.run(20.0);
    world.link.bps = 4e5;
    world.run(30.0);
    world.link.bps = 3e6;
    world.run(30.0);
    world
}

#[test]
fn a_path_that_narrows_and_widens_is_followed() {
    for seed in SEEDS {
        let world = narrowing(Who::Ours, seed, Source::Encoder(PLENTY));
        assert!(world.mean_target(0, 5.0, 20.0) > 0.85 * 3e6, "seed {seed}");
        let standing_ms = world.standing_queue_ms(24.0, 50.0);
        assert!(standing_ms <= 50.0, "seed {seed}: {standing_ms} ms stand");
        let mean_ms = world.mean_queue_ms(24.0, 50.0);
        assert!(mean_ms <= 50.0, "seed {seed}: {mean_ms} ms on average");
        let low_bps = world.throughput(0, 24.0, 50.0);
        assert!(low_bps >= 0.8 * 4e5, "seed {seed}: {low_bps} when narrow");
        let back_s = world.reached(0, 50.0, 0.85 * 3e6);
        assert!(back_s <= 15.0, "seed {seed}: back after {back_s} s");
        let after_bps = world.mean_target(0, 65.0, 80.0);
        assert!(after_bps >= 0.85 * 3e6, "seed {seed}: {after_bps} after");
    }
}

#[test]
fn layers_that_come_in_steps_are_won_back_by_probing() {
    for seed in SEEDS {
        let world = narrowing(Who::Ours, seed, layers());
        let low_bps = world.mean_target(0, 26.0, 50.0);
        assert!((3e5..4.2e5).contains(&low_bps), "seed {seed}: {low_bps}");
        let back_s = world.reached(0, 50.0, 0.85 * 3e6);
        assert!(back_s <= 15.0, "seed {seed}: back after {back_s} s");
        let high_bps = world.mean_target(0, 65.0, 80.0);
        assert!(high_bps <= 1.2 * 3e6, "seed {seed}: {high_bps} is a dream");
    }
}

#[test]
fn a_deep_queue_is_drained_and_not_taken_for_anothers() {
    for seed in SEEDS {
        let mut world = world(3e6, seed, vec![encoder(Who::Ours, seed)]);
        world.run(20.0);
        world.link.bps = 4e5;
        world.link.max_queue_ms = 2_250.0;
        world.run(20.0);
        let standing_ms = world.standing_queue_ms(32.0, 40.0);
        assert!(standing_ms <= 50.0, "seed {seed}: {standing_ms} ms stand");
    }
}

#[test]
fn two_viewers_share_a_link() {
    for seed in SEEDS {
        let flows = vec![encoder(Who::Ours, seed), encoder(Who::Ours, seed + 100)];
        let mut world = world(2e6, seed, flows);
        world.run(80.0);
        check_share(&world, 20.0, 80.0, seed);
    }
}

#[test]
fn a_viewer_that_comes_later_gets_its_share() {
    for seed in SEEDS {
        let flows = vec![encoder(Who::Ours, seed), encoder(Who::Ours, seed + 100)];
        let mut world = world(2e6, seed, flows);
        world.media(1).starts_us = 20_000_000;
        world.run(100.0);
        check_share(&world, 40.0, 100.0, seed);
    }
}

fn check_share(world: &World, from_s: f64, to_s: f64, seed: u64) {
    let one = world.throughput(0, from_s, to_s);
    let other = world.throughput(1, from_s, to_s);
    let share = one / (one + other);
    assert!((0.4..=0.6).contains(&share), "seed {seed}: share {share}");
    let used = (one + other) / world.link.bps;
    assert!(used >= 0.75, "seed {seed}: {used} used");
}

/// A minute on 2 Mbit/s with this share of packets lost at random.
fn lossy(who: Who, seed: u64, loss: f64) -> World {
    let mut world = world(2e6, seed, vec![encoder(who, seed)]);
    world.link.loss = loss;
    world.run(60.0);
    world
}

#[test]
fn two_per_cent_random_loss_costs_at_most_a_fifth() {
    for seed in SEEDS {
        let clean_bps = lossy(Who::Ours, seed, 0.0).mean_target(0, 15.0, 60.0);
        let lossy_bps = lossy(Who::Ours, seed, 0.02).mean_target(0, 15.0, 60.0);
        let kept = lossy_bps / clean_bps;
        assert!(kept >= 0.8, "seed {seed}: {lossy_bps} of {clean_bps}");
    }
}

#[test]
fn heavy_loss_that_lasts_cuts_the_rate_but_not_to_nothing() {
    for seed in SEEDS {
        let bps = lossy(Who::Ours, seed, 0.3).mean_target(0, 15.0, 60.0);
        assert!((1.5e5..5e5).contains(&bps), "seed {seed}: {bps}");
    }
}

#[test]
fn a_path_that_drops_instead_of_queueing_is_followed() {
    for seed in SEEDS {
        let mut world = world(3e6, seed, vec![encoder(Who::Ours, seed)]);
        world.run(20.0);
        world.link.bps = 4e5;
        world.link.max_queue_ms = 30.0;
        world.run(30.0);
        let target_bps = world.mean_target(0, 25.0, 50.0);
        assert!(
            (2e5..4.8e5).contains(&target_bps),
            "seed {seed}: {target_bps}"
        );
    }
}

#[test]
fn jitter_is_not_taken_for_a_queue() {
    for seed in SEEDS {
        let mut world = world(2e6, seed, vec![encoder(Who::Ours, seed)]);
        world.link.jitter_us = 10_000.0;
        world.run(60.0);
        let bps = world.mean_target(0, 15.0, 60.0);
        assert!(bps >= 0.75 * 2e6, "seed {seed}: {bps}");
    }
}

/// 20 s on 2 Mbit/s, nothing at all for 2 s, 20 s more.
fn blackout(who: Who, seed: u64) -> World {
    let mut world = world(2e6, seed, vec![encoder(who, seed)]);
    world.run(20.0);
    world.link.down = true;
    world.run(2.0);
    world.link.down = false;
    world.run(20.0);
    world
}

#[test]
fn a_blackout_is_recovered_from() {
    for seed in SEEDS {
        let world = blackout(Who::Ours, seed);
        let before_bps = world.mean_target(0, 10.0, 20.0);
        let cut_bps = world.mean_target(0, 21.8, 22.0);
        assert!(cut_bps < 0.6 * before_bps, "seed {seed}: {cut_bps} into it");
        let back_s = world.reached(0, 22.0, 0.8 * before_bps);
        assert!(back_s <= 5.0, "seed {seed}: back after {back_s} s");
        let after_bps = world.mean_target(0, 27.0, 37.0);
        assert!(after_bps >= 0.8 * before_bps, "seed {seed}: {after_bps}");
    }
}

/// Beside a flow that fills the queue until it drops.
fn beside_tcp(who: Who, seed: u64) -> World {
    let tcp = Flow::Tcp(Tcp::new(10_000_000 + seed * 100_000));
    let mut world = world(2e6, seed, vec![encoder(who, seed), tcp]);
    world.run(110.0);
    world
}

#[test]
fn a_flow_that_fills_the_queue_leaves_a_share() {
    for seed in SEEDS {
        let world = beside_tcp(Who::Ours, seed);
        let share = world.throughput(0, 20.0, 110.0) / 2e6;
        assert!((0.15..0.7).contains(&share), "seed {seed}: {share}");
    }
}

#[test]
fn a_fast_link_is_found_within_seconds() {
    for seed in SEEDS {
        for start_bps in [3e5, 5e5] {
            for source in [Source::Encoder(PLENTY), Source::Layers(vec![1.5e5, PLENTY])] {
                let flow = viewer(Who::Ours, start_bps, source, seed);
                let mut world = world(5e6, seed, vec![flow]);
                world.run(10.0);
                let found_s = world.reached(0, 0.0, 0.8 * 5e6);
                assert!(found_s <= 3.0, "seed {seed}: after {found_s} s");
            }
        }
    }
}

#[test]
fn a_viewer_that_wants_more_after_a_while_is_probed_then() {
    for seed in SEEDS {
        let little = Source::Encoder(1.5e5);
        let mut world = world(5e6, seed, vec![viewer(Who::Ours, 3e5, little, seed)]);
        world.run(30.0);
        assert_eq!(world.media(0).padding_bytes, 0, "seed {seed}");
        assert_eq!(world.media(0).wakeups, 0, "seed {seed}");
        world.media(0).controller.set_wanted(PLENTY);
        world.run(10.0);
        let found_s = world.reached(0, 30.0, 0.8 * 5e6);
        assert!(found_s <= 3.0, "seed {seed}: after {found_s} s");
    }
}

#[test]
fn an_idle_viewer_is_never_woken() {
    let mut world = world(5e6, 1, vec![viewer(Who::Ours, 3e5, Source::Nothing, 1)]);
    world.run(60.0);
    assert_eq!(world.media(0).wakeups, 0);
    assert_eq!(world.media(0).controller.due_us(), None);
    assert_eq!(world.delivered[0], 0);
}

#[test]
fn goog_cc_is_matched_where_it_does_well() {
    for seed in SEEDS {
        let both =
            [Who::Ours, Who::GoogCc].map(|who| narrowing(who, seed, Source::Encoder(PLENTY)));
        let [ours, theirs] = both.map(|world| {
            let low_bps = world.throughput(0, 24.0, 50.0);
            (
                low_bps,
                world.mean_queue_ms(24.0, 50.0),
                world.mean_target(0, 65.0, 80.0),
            )
        });
        assert!(
            ours.0 >= 0.85 * theirs.0,
            "seed {seed}: {ours:?} {theirs:?}"
        );
        assert!(
            ours.1 <= theirs.1 + 10.0,
            "seed {seed}: {ours:?} {theirs:?}"
        );
        assert!(ours.2 >= theirs.2, "seed {seed}: {ours:?} {theirs:?}");
        let [ours, theirs] =
            [Who::Ours, Who::GoogCc].map(|who| lossy(who, seed, 0.02).throughput(0, 15.0, 60.0));
        assert!(ours >= 0.9 * theirs, "seed {seed}: {ours} {theirs}");
    }
}

#[test]
fn goog_cc_is_beaten_where_it_fails() {
    for seed in SEEDS {
        let [ours, theirs] = [Who::Ours, Who::GoogCc]
            .map(|who| narrowing(who, seed, Source::Encoder(PLENTY)).reached(0, 50.0, 0.85 * 3e6));
        assert!(
            ours < theirs,
            "seed {seed}: back after {ours} s, {theirs} s"
        );
        let [ours, theirs] =
            [Who::Ours, Who::GoogCc].map(|who| blackout(who, seed).throughput(0, 24.0, 40.0));
        assert!(
            ours > theirs,
            "seed {seed}: {ours} {theirs} after a blackout"
        );
        let [ours, theirs] =
            [Who::Ours, Who::GoogCc].map(|who| beside_tcp(who, seed).throughput(0, 20.0, 110.0));
        assert!(ours > theirs, "seed {seed}: {ours} {theirs} beside TCP");
    }
}
