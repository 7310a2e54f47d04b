//! The same scenario through our send side and through stock str0m: clients are delivered the same.

use std::collections::BTreeMap;
use std::time::Duration;

use str0m::format::Codec;

use super::CAMERA_AND_VOICE;
use crate::engine::command::Source;
use crate::engine::stock;
use crate::sim::link::Quality;
use crate::sim::publish::Publish;
use crate::sim::received::Received;
use crate::sim::world::{Setup, World};

/// One packet, its numbers counted from the first of its stream.
#[derive(Debug, PartialEq, Eq)]
struct Delivered {
    seq: u64,
    time: u32,
    marker: bool,
    /// VP8 picture id and TL0PICIDX, likewise; the payload has none then.
    vp8: Option<(u16, u8)>,
    payload: Vec<u8>,
}

/// By viewer, then by what its streams begin with.
type Story = BTreeMap<(usize, u32, u8), Vec<Delivered>>;

fn stream(received: &[Received]) -> Vec<Delivered> {
    let packets: BTreeMap<u64, &Received> = received.iter().map(|p| (p.seq, p)).collect();
    let Some(first) = packets.values().next().copied() else {
        return Vec::new();
    };
    let deliver = |packet: &Received| {
        let mut payload = packet.payload.to_vec();
        let vp8 = packet.vp8.zip(first.vp8).map(|(ids, begin)| {
            payload[2..5].fill(0);
            let picture = ids.picture.wrapping_sub(begin.picture) & 0x7fff;
            (picture, ids.tl0.wrapping_sub(begin.tl0))
        });
        Delivered {
            seq: packet.seq - first.seq,
            time: packet.time.wrapping_sub(first.time),
            marker: packet.marker,
            vp8,
            payload,
        }
    };
    packets.into_values().map(deliver).collect()
}

/// Plays a scenario with one way to send, and tells what everyone was delivered.
fn story(is_stock: bool, seed: u64, scenario: impl Fn(&mut World)) -> Story {
    stock::choose(is_stock);
    let mut world = World::new(Setup::seed(seed));
    scenario(&mut world);
    stock::choose(false);
    let mut story = Story::new();
    for (index, seat) in world.present() {
        assert_eq!(seat.client.errors, Vec::<String>::new());
        assert_eq!(seat.account.violations, Vec::<String>::new());
        for line in seat.client.lines.values() {
            let Some(first) = line.received.iter().min_by_key(|packet| packet.seq) else {
                continue;
            };
            let stamp = first.stamp.expect("an encoder's packet");
            let key = (index, stamp.publisher, stamp.source as u8);
            let before = story.insert(key, stream(&line.received));
            assert!(before.is_none(), "{key:?} begins two streams");
        }
    }
    let (engine, _) = world.shards().next().expect("there is one");
    let stats = engine.stats();
    assert!(stats.resent == 0 || !is_stock, "{stats:?}");
    story
}

fn assert_same(scenario: impl Fn(&mut World), seed: u64, least: usize) {
    let (ours, stock) = (story(false, seed, &scenario), story(true, seed, &scenario));
    let streams = |story: &Story| story.keys().copied().collect::<Vec<_>>();
    assert_eq!(streams(&ours), streams(&stock));
    for (key, ours) in &ours {
        let stock = &stock[key];
        assert!(ours.len() > least, "{key:?}: {} packets", ours.len());
        let differs = ours.iter().zip(stock).position(|(one, other)| one != other);
        assert_eq!(
            differs,
            None,
            "{key:?}: {:?}",
            differs.map(|at| (&ours[at], &stock[at]))
        );
        // At the end something may still have been on its way, in one and not in the other.
        assert!(ours.len().abs_diff(stock.len()) < 20, "{key:?}");
    }
}

#[test]
fn a_call_with_comings_and_goings_is_delivered_as_by_str0m() {
    let scenario = |world: &mut World| {
        for _ in 0..2 {
            world.join(0, "room", &CAMERA_AND_VOICE);
        }
        world.join(0, "room", &[Publish::VOICE, Publish::camera(Codec::H264)]);
        world.run_until_connected();
        world.run(Duration::from_secs(2));
        world.act(0, |client, now| client.switch(now, Source::Camera, false));
        world.run(Duration::from_secs(1));
        world.act(0, |client, now| client.switch(now, Source::Camera, true));
        world.run(Duration::from_secs(1));
        world.join(0, "room", &[Publish::camera(Codec::Vp9)]);
        world.run(Duration::from_secs(2));
        world.leave(1);
        world.run(Duration::from_secs(1));
        world.act(2, |client, now| client.restart_ice(now));
        world.run(Duration::from_secs(3));
    };
    assert_same(scenario, 120, 40);
}

#[test]
fn what_is_lost_and_sent_again_is_delivered_as_by_str0m() {
    let scenario = |world: &mut World| {
        for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1] {
            world.join(0, "room", &[Publish::camera(codec)]);
        }
        world.run_until_connected();
        world.run(Duration::from_secs(1));
        let bad = Quality {
            reorder: 0.03,
            ..Quality::lossy(0.03)
        };
        (0..3).for_each(|index| world.set_quality(index, Quality::CLEAN, bad));
        world.run(Duration::from_secs(5));
        (0..3).for_each(|index| world.set_quality(index, Quality::CLEAN, Quality::CLEAN));
        world.run(Duration::from_secs(2));
    };
    assert_same(scenario, 121, 200);
}
