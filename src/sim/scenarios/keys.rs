//! What is sealed with a client's keys: everything opens, and no index is used twice.

use std::time::Duration;

use proptest::prelude::*;
use str0m::config::DtlsVersion;
use str0m::crypto::dtls::{ProtocolVersion, SrtpProfile};
use str0m::format::Codec;

use super::{CAMERA_AND_VOICE, room};
use crate::engine::command::Source;
use crate::engine::dtls::aes_cm;
use crate::sim::encoder::Rate;
use crate::sim::link::Quality;
use crate::sim::oracle::{self, Law};
use crate::sim::publish::Publish;
use crate::sim::world::{Setup, World};

/// One thing that happens in a room. `who` counts round the clients that are here.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Run { millis: u64 },
    /// A path loses this share from here on, in percent, and swaps some.
    Lose { who: usize, percent: u8 },
    /// New ICE credentials.
    Restart { who: usize },
    /// The NAT gives another address.
    Rebind { who: usize },
    /// The camera stops or starts by the direction of its m-line.
    Camera { who: usize, on: bool },
    /// A screen is published on a new m-line.
    Share { who: usize },
    /// Its m-line is stopped for good.
    Unshare { who: usize },
    /// A slot's m-line is stopped for good; the server asks for another.
    StopSlot { who: usize, which: usize },
    /// Somebody comes.
    Join,
    /// Somebody goes.
    Leave { who: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0_usize..4;
    let step = prop_oneof![
        6 => (20_u64..700).prop_map(|millis| Step::Run { millis }),
        4 => (who.clone(), 0_u8..25).prop_map(|(who, percent)| Step::Lose { who, percent }),
        2 => who.clone().prop_map(|who| Step::Restart { who }),
        1 => who.clone().prop_map(|who| Step::Rebind { who }),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, on)| Step::Camera { who, on }),
        2 => who.clone().prop_map(|who| Step::Share { who }),
        2 => who.clone().prop_map(|who| Step::Unshare { who }),
        2 => (who.clone(), 0_usize..6).prop_map(|(who, which)| Step::StopSlot { who, which }),
        1 => Just(Step::Join),
        1 => who.prop_map(|who| Step::Leave { who }),
    ];
    prop::collection::vec(step, 1..25)
}

fn take(world: &mut World, step: &Step) {
    const SCREEN: Publish = Publish {
        source: Source::Screen,
        ..Publish::camera(Codec::Vp8)
    };
    let here: Vec<usize> = world.present().map(|(index, _)| index).collect();
    let of = |who: usize| here[who % here.len()];
    match *step {
        Step::Run { millis } => world.run(Duration::from_millis(millis)),
        Step::Lose { who, percent } => {
            let quality = Quality {
                reorder: 0.02,
                ..Quality::lossy(f64::from(percent) / 100.0)
            };
            world.set_quality(of(who), quality, quality);
        }
        Step::Restart { who } => world.act(of(who), |client, now| client.restart_ice(now)),
        Step::Rebind { who } => world.rebind(of(who)),
        Step::Camera { who, on } => {
            if world.client(of(who)).has_offered(Source::Camera) {
                world.act(of(who), |client, now| {
                    client.switch(now, Source::Camera, on)
                });
            }
        }
        Step::Share { who } => {
            if !world.client(of(who)).publishes(Source::Screen) {
                world.act(of(who), |client, now| client.publish(now, SCREEN));
            }
        }
        Step::Unshare { who } => {
            world.act(of(who), |client, now| client.unpublish(now, Source::Screen));
        }
        Step::StopSlot { who, which } => {
            let mids: Vec<String> = world.client(of(who)).lines.keys().cloned().collect();
            if let Some(mid) = mids.get(which) {
                world.act(of(who), |client, now| client.stop_receiving(now, mid));
            }
        }
        Step::Join => {
            world.join(0, "room", &CAMERA_AND_VOICE);
        }
        Step::Leave { who } if here.len() > 2 => world.leave(of(who)),
        Step::Leave { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn nothing_sent_to_a_client_reuses_an_index(seed in 0_u64..1000, steps in steps()) {
        let mut world = room(seed, 3);
        world.run(Duration::from_millis(300));
        for step in &steps {
            take(&mut world, step);
            world.run(Duration::from_millis(50));
        }
        world.run(Duration::from_secs(1));
        let found = oracle::accounts(&world);
        prop_assert!(found.is_empty(), "{found:?}");
        let (engine, _) = world.shards().next().expect("there is one");
        let stats = engine.stats();
        prop_assert_eq!((stats.guarded, stats.peer_panics), (0, 0));
    }
}

#[test]
fn a_stream_rolls_over_under_loss_and_repeats_nothing() {
    // Frames of one small packet, 1000 a second: 16 bits of sequence numbers last a minute.
    let fast = Publish {
        rate: Rate {
            frame_interval: Duration::from_millis(1),
            delta_bytes: 120,
            key_bytes: 300,
            percent: [100; 4],
            ..Rate::CAMERA
        },
        ..Publish::camera(Codec::Vp8)
    };
    let mut world = World::new(Setup::seed(110));
    world.join(0, "room", &[fast]);
    let viewer = world.join(0, "room", &[]);
    world.run_until_connected();
    world.set_quality(viewer, Quality::CLEAN, Quality::lossy(0.02));
    world.run(Duration::from_secs(75));
    let seat = world.seats[viewer].as_ref().expect("it stayed");
    let (rtp, rtcp, highest) = seat.account.entries();
    assert!(highest > 1 << 16, "no roll-over at {highest}");
    assert!(rtp > 70_000 && rtcp > 70, "{rtp} RTP, {rtcp} RTCP packets");
    let (engine, _) = world.shards().next().expect("there is one");
    assert!(engine.stats().resent > 500, "{:?}", engine.stats());
    let law = Law {
        longest_gap: Duration::from_millis(500),
        // What is lost again and again is given up.
        missing_video: 50,
        ..Law::CLEAN
    };
    oracle::check(&world, law);
}

#[test]
fn a_call_over_dtls_13_is_a_call() {
    let mut world = call(111, DtlsVersion::Dtls13);
    for index in 0..3 {
        let seat = world.seats[index].as_mut().expect("it is here");
        assert_eq!(seat.client.dtls_version(), Some(ProtocolVersion::DTLS1_3));
    }
}

#[test]
fn a_call_with_aes_cm_is_a_call() {
    aes_cm::choose(true);
    let world = call(112, DtlsVersion::Dtls12);
    aes_cm::choose(false);
    for index in 0..3 {
        let keys = world.client(index).keys.keys().expect("it is connected");
        assert_eq!(keys.theirs.profile(), SrtpProfile::AES128_CM_SHA1_80);
    }
}

/// Three in a room, with loss on the way to them and an ICE restart.
fn call(seed: u64, dtls: DtlsVersion) -> World {
    let mut world = World::new(Setup {
        dtls,
        ..Setup::seed(seed)
    });
    for _ in 0..3 {
        world.join(0, "room", &CAMERA_AND_VOICE);
    }
    world.run_until_connected();
    // The first packet of all cannot be asked for again.
    world.run(Duration::from_secs(1));
    let qualities = [(Quality::lossy(0.02), 5), (Quality::CLEAN, 2)];
    for (down, seconds) in qualities {
        (0..3).for_each(|index| world.set_quality(index, Quality::CLEAN, down));
        world.run(Duration::from_secs(seconds));
    }
    world.act(1, |client, now| client.restart_ice(now));
    world.run(Duration::from_secs(2));
    oracle::everyone_watches_everyone(&world, (3, 9));
    let law = Law {
        longest_gap: Duration::from_millis(500),
        missing_video: 0,
        missing_audio: 100,
    };
    oracle::check(&world, law);
    world
}
