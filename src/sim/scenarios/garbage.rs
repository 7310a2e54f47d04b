//! Bad input is counted and harms nobody.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;

use super::room;
use crate::engine::command::{Command, Event, Permissions, Refusal};
use crate::engine::stats::Dropped;
use crate::id::{PeerId, RoomId};
use crate::sim::calls::forged_binding;
use crate::sim::oracle::{self, Law};
use crate::sim::world::World;

fn stranger(port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], port))
}

fn dropped(world: &World) -> u64 {
    let (engine, _) = world.shards().next().unwrap();
    let stats = engine.stats();
    Dropped::ALL
        .iter()
        .map(|reason| stats.dropped.count(*reason))
        .sum()
}

fn addresses(world: &World) -> u64 {
    world
        .shards()
        .map(|(engine, _)| engine.stats().addresses)
        .sum()
}

#[test]
fn random_bytes_are_counted_and_harm_nobody() {
    let mut world = room(120, 2);
    world.run(Duration::from_secs(1));
    let (before, known) = (dropped(&world), addresses(&world));
    let mut rng = Rng::with_seed(120);
    for round in 0..1000 {
        let bytes = (0..rng.usize(0..1500)).map(|_| rng.u8(..)).collect();
        world.inject(stranger(1000 + round % 50), bytes);
        world.run(Duration::from_millis(1));
    }
    world.run(Duration::from_secs(1));
    assert_eq!(dropped(&world) - before, 1000);
    assert_eq!(addresses(&world), known);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn ten_thousand_packets_from_an_unknown_address_are_counted() {
    let mut world = room(121, 2);
    world.run(Duration::from_secs(1));
    let known = addresses(&world);
    for _ in 0..100 {
        for _ in 0..100 {
            let mut rtp = vec![0x33; 1200];
            rtp[..2].copy_from_slice(&[0x80, 96]);
            world.inject(stranger(5000), rtp);
        }
        world.run(Duration::from_millis(10));
    }
    world.run(Duration::from_secs(1));
    let (engine, _) = world.shards().next().unwrap();
    assert_eq!(
        engine.stats().dropped.count(Dropped::UnknownAddress),
        10_000
    );
    assert_eq!(addresses(&world), known);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn stun_with_a_wrong_integrity_teaches_no_address() {
    let mut world = room(122, 2);
    world.run(Duration::from_secs(1));
    let (before, known) = (dropped(&world), addresses(&world));
    let username = world.client(0).stun_username();
    for round in 0..100 {
        world.inject(stranger(6000 + round), forged_binding(username.as_bytes()));
        world.inject(stranger(6000 + round), forged_binding(b"00nobody:knows"));
        world.run(Duration::from_millis(1));
    }
    // Nor may media from such an address pass for the victim's.
    world.inject(stranger(6000), vec![0x80; 500]);
    world.run(Duration::from_secs(1));
    assert_eq!(dropped(&world) - before, 201);
    assert_eq!(addresses(&world), known);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn garbage_from_a_known_address_harms_nobody() {
    let mut world = room(123, 2);
    world.run(Duration::from_secs(1));
    let victim = world.seats[0].as_ref().unwrap().outside;
    let before = dropped(&world);
    let mut rng = Rng::with_seed(123);
    for round in 0..500 {
        let mut bytes: Vec<u8> = (0..rng.usize(30..1400)).map(|_| rng.u8(..)).collect();
        // RTP, RTCP, and bytes of no protocol; DTLS would be an attack on the handshake.
        bytes[0] = [0x80, 0x80, 0xFF, 0x05][round % 4];
        bytes[1] = [96, 200, 0, 0][round % 4];
        world.inject(victim, bytes);
        world.run(Duration::from_millis(2));
    }
    world.run(Duration::from_secs(1));
    assert!(dropped(&world) > before, "what str0m refuses is counted");
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn a_forged_dtls_alert_ends_nobodys_call() {
    let mut world = room(125, 2);
    world.run(Duration::from_secs(1));
    let victim = world.seats[0].as_ref().unwrap().outside;
    // RFC 6347 §4.1: a plaintext record of epoch 0 with a close_notify, then a fatal alert; a
    // ClientHello that leads nowhere; and a record of epoch 1 that no key has sealed.
    let record = |kind: u8, epoch: u8, body: &[u8]| {
        let mut record = vec![kind, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 0, 99];
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    };
    for _ in 0..5 {
        world.inject(victim, record(21, 0, &[1, 0]));
        world.inject(victim, record(21, 0, &[2, 40]));
        world.inject(
            victim,
            record(22, 0, &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
        );
        world.inject(victim, record(21, 1, &[7; 26]));
        world.run(Duration::from_millis(100));
    }
    world.run(Duration::from_secs(2));
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn bad_commands_are_refused_and_harm_nobody() {
    let mut world = room(124, 2);
    world.run(Duration::from_secs(1));
    let ghost = PeerId::new(1);
    let offer = |sdp: &str| Command::Offer {
        peer: ghost,
        sdp: sdp.into(),
        sources: vec![("99".into(), crate::engine::command::Source::Screen)],
    };
    world.command(0, offer("v=0"));
    world.command(0, Command::Leave { peer: ghost });
    let candidate = "candidate:1 1 udp 1 10.0.0.9 9 typ host".to_string();
    let trickle = |candidate: &str| Command::Candidate {
        peer: ghost,
        candidate: candidate.into(),
    };
    world.command(0, trickle(&candidate));
    world.run(Duration::from_millis(100));
    let refusals = |world: &mut World| {
        let mut refusals = Vec::new();
        for event in world.strays.drain(..) {
            if let Event::Refused { peer, refusal } = event {
                assert_eq!(peer, ghost);
                refusals.push(refusal);
            }
        }
        refusals
    };
    assert_eq!(
        refusals(&mut world),
        [Refusal::NotJoined, Refusal::NotJoined]
    );
    let room = RoomId::parse("room").unwrap();
    world.command(
        0,
        Command::Join {
            room,
            peer: ghost,
            permissions: Permissions::ALL,
        },
    );
    for sdp in [
        "",
        "no sdp at all",
        "v=0\r\n",
        "v=0\r\nm=audio 9 X 0\r\n",
        "\0\u{FFFD}",
    ] {
        world.command(0, offer(sdp));
    }
    world.command(0, offer(&"a=x\r\n".repeat(100_000)));
    world.command(0, trickle("no candidate"));
    world.run(Duration::from_millis(100));
    let refused = refusals(&mut world);
    assert_eq!(refused.len(), 7, "{refused:?}");
    assert!(
        refused[..6]
            .iter()
            .all(|refusal| matches!(refusal, Refusal::BadOffer(_)))
    );
    assert_eq!(refused[6], Refusal::BadCandidate);
    world.command(0, Command::Leave { peer: ghost });
    world.run(Duration::from_secs(1));
    world.strays.clear();
    oracle::check(&world, Law::CLEAN);
}
