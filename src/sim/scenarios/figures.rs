//! How clients are served, in figures, against what is known of their paths.

use std::time::Duration;

use super::simulcast::{layer, narrow, watched};
use crate::engine::command::{Command, PeerFigures};
use crate::sim::link::Quality;
use crate::sim::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// How a client is served, asked as its signalling asks.
fn measure(world: &mut World, client: usize) -> PeerFigures {
    let peer = world.client(client).peer;
    world.command(0, Command::Measure { peer });
    world.run(SECOND / 10);
    world.measured[&peer].clone()
}

#[test]
fn figures_say_what_a_path_carries_and_what_is_sent_on_it() {
    let lossy = Quality {
        delay: Duration::from_millis(30),
        loss: 0.05,
        ..Quality::CLEAN
    };
    let mut world = watched(690, &[lossy, narrow(1_000_000)]);
    world.set_quality(1, Quality { loss: 0.0, ..lossy }, lossy);
    world.run(SECOND * 20);

    let publisher = measure(&mut world, 0);
    let [camera] = &publisher.publishes[1..] else {
        panic!("{publisher:?}");
    };
    let rids: Vec<_> = camera.layers.iter().map(|l| l.rid.as_deref()).collect();
    assert_eq!(rids, [Some("b"), Some("c"), Some("a")]);
    for (layer, kbps) in camera.layers.iter().zip([150, 500, 1_500]) {
        let share = layer.bps as f64 / (kbps * 1_000) as f64;
        assert!((0.8..1.2).contains(&share), "{layer:?}");
    }
    assert_eq!(camera.watchers, 2);

    let far = measure(&mut world, 1);
    let fares = far.fares.expect("it reports");
    assert!((5..100).contains(&fares.lost_permille), "{fares:?}");
    let rtt = far.rtt.expect("it is known");
    let known = Duration::from_millis(55)..Duration::from_millis(90);
    assert!(known.contains(&rtt), "{rtt:?}");

    let near = measure(&mut world, 2);
    let estimate = near.estimated_bps.expect("it watches");
    assert!((600_000..1_250_000).contains(&estimate), "{estimate}");
    let video = &near.watches[1];
    assert_eq!(video.layer, layer(&world, 2).map(|_| 1));
    assert_eq!(video.size.map(|size| size.width), Some(640));
    assert!((400_000..600_000).contains(&video.sent_bps), "{video:?}");
    assert_eq!(video.freezes.count, 0, "{video:?}");
}

#[test]
fn a_picture_that_stood_still_is_counted() {
    let mut world = watched(691, &[Quality::CLEAN, Quality::CLEAN]);
    world.run(SECOND * 5);
    world.set_quality(1, Quality::CLEAN, narrow(60_000));
    world.run(SECOND * 10);
    world.set_quality(1, Quality::CLEAN, Quality::CLEAN);
    world.run(SECOND * 20);
    let [frozen, other] = [1, 2].map(|viewer| measure(&mut world, viewer).watches[1].freezes);
    assert!(frozen.count >= 1 && frozen.total >= SECOND, "{frozen:?}");
    assert_eq!((other.count, other.total), (0, Duration::ZERO));
}
