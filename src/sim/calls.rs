//! Arbitrary sequences of the engine's calls, decoded from bytes: one body for property tests and
//! for fuzzing.
//!
//! Two engines, four peers and a few addresses, so that calls meet: an offer for a peer that left,
//! a hand-over of a datagram nobody owns, a datagram before its answer. After the last call
//! everyone leaves, and nothing may be left.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::config::DtlsVersion;
use str0m::format::Codec;

use super::client::{self, Client};
use super::clock;
use super::publish::Publish;
use crate::engine::command::{Command, Event, Permissions, Source};
use crate::engine::{Arrival, Datagram, Engine, Handoff, Options, Output};
use crate::id::{PeerId, RoomId, ShardId};

const PEERS: u64 = 4;
const SHARDS: u16 = 2;
/// Outputs of one turn after which an engine is said never to finish.
const OUTPUTS_PER_TURN: usize = 10_000;

/// Hands out the input byte by byte, and zeros when there are none left.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(64);
        (0..length).map(|_| self.byte()).collect()
    }
}

/// The engines, and what they said that later calls can use.
struct Shards {
    now: Instant,
    engines: Vec<Engine>,
    /// Ufrags from answers, so that STUN can name a peer.
    ufrags: Vec<String>,
    offers: Vec<String>,
}

/// Makes the calls that `input` spells, then has everyone leave.
///
/// # Panics
///
/// When an engine panics, does not finish a turn, or keeps something after everyone left.
pub(crate) fn run(input: &[u8], offers: &[String]) {
    fastrand::seed(1);
    let now = clock::origin();
    let engine = |index| {
        let options = Options {
            shard: ShardId::new(index),
            shards: SHARDS,
            candidates: [server()].into(),
            tcp_candidates: [].into(),
            identity: super::identity::server_identity(DtlsVersion::Dtls12),
            seed: [index as u8; 32],
            max_video_slots: 9,
            max_audio_slots: 3,
            caps: crate::engine::caps::Caps::NONE,
            thresholds: Default::default(),
            keyframes: Default::default(),
        };
        Engine::new(now, clock::SINCE_EPOCH, options)
    };
    let mut shards = Shards {
        now,
        engines: (0..SHARDS).map(engine).collect(),
        ufrags: Vec::new(),
        offers: offers.to_vec(),
    };
    let mut input = Input(input);
    while !input.0.is_empty() {
        shards.call(&mut input);
    }
    shards.end();
}

/// Offers that real clients make, for [`run`].
pub(crate) fn offers() -> Vec<String> {
    let both = Publish {
        also_receives: true,
        ..Publish::camera(Codec::Vp8)
    };
    let naive = [Publish::VOICE, both];
    let publish: [&[Publish]; 3] = [&[], &[Publish::VOICE, Publish::camera(Codec::H264)], &naive];
    let mut offers = Vec::new();
    for publish in publish {
        fastrand::seed(2);
        let now = clock::origin();
        let setup = client::Setup {
            index: 0,
            peer: PeerId::new(0),
            room: RoomId::parse("room").expect("a good name"),
            inside: address(1),
            publish: publish.to_vec(),
            seed: 3,
            dtls: DtlsVersion::Dtls12,
        };
        let mut client = Client::new(now, now, setup);
        let (peer, audio, video) = (PeerId::new(0), 2, 2);
        client.handle_event(now, Event::RequestOffer { peer, audio, video });
        while let Some(output) = client.poll_output() {
            if let client::Output::Command(Command::Offer { sdp, .. }) = output {
                offers.push(sdp);
            }
        }
    }
    offers
}

fn server() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 10_000))
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number % 6], 40_000))
}

impl Shards {
    fn call(&mut self, input: &mut Input<'_>) {
        let (now, shard) = (self.now, input.below(usize::from(SHARDS)));
        match input.below(8) {
            0 => self.now += Duration::from_millis(1 << input.below(16)),
            1 => self.engines[shard].handle_timeout(now),
            2 => {
                let (from, bytes) = (address(input.byte()), self.datagram(input));
                let datagram = Datagram {
                    from,
                    to: server(),
                    bytes: &bytes,
                    arrival: Arrival::Socket,
                };
                self.engines[shard].handle_datagram(now, datagram);
            }
            3 => {
                let handoff = self.handoff(input);
                let from = ShardId::new(1 - shard as u16);
                self.engines[shard].handle_handoff(now, from, handoff);
            }
            _ => {
                let command = self.command(input);
                self.engines[shard].handle_command(now, command);
            }
        }
        self.empty(shard);
    }

    fn command(&self, input: &mut Input<'_>) -> Command {
        let peer = PeerId::new(input.below(PEERS as usize) as u64);
        match input.below(5) {
            0 => Command::Leave { peer },
            1 => Command::Candidate {
                peer,
                candidate: if input.below(2) == 0 {
                    "candidate:1 1 udp 2130706431 10.0.0.2 40000 typ host".into()
                } else {
                    String::from_utf8_lossy(&input.bytes()).into_owned()
                },
            },
            2 | 3 => Command::Offer {
                peer,
                sdp: self.offer(input),
                sources: vec![("0".into(), Source::Screen)],
            },
            _ => {
                let name = ["one", "two"][input.below(2)];
                let room = RoomId::parse(name).expect("a good name");
                Command::Join {
                    room,
                    peer,
                    permissions: Permissions::ALL,
                }
            }
        }
    }

    /// A real offer, as it is or with a few bytes of it changed, or no offer at all.
    fn offer(&self, input: &mut Input<'_>) -> String {
        let Some(offer) = self.offers.get(input.below(self.offers.len() + 1)) else {
            return String::from_utf8_lossy(&input.bytes()).into_owned();
        };
        let mut bytes = offer.clone().into_bytes();
        for _ in 0..input.below(4) {
            let place = usize::from(input.byte()) * 256 + usize::from(input.byte());
            let length = bytes.len();
            bytes[place % length] = input.byte();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A binding request for somebody, or the beginning of some protocol with anything after it.
    fn datagram(&self, input: &mut Input<'_>) -> Vec<u8> {
        let start: &[u8] = match input.below(6) {
            0 => return self.binding(input),
            1 => &[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
            2 => &[0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1],
            3 => &[22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0],
            4 => &[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42],
            _ => &[],
        };
        [start, &input.bytes()].concat()
    }

    fn binding(&self, input: &mut Input<'_>) -> Vec<u8> {
        let place = input.below(self.ufrags.len() + 1);
        let ufrag = self.ufrags.get(place).map_or("00none", String::as_str);
        forged_binding(format!("{ufrag}:them").as_bytes())
    }

    fn handoff(&self, input: &mut Input<'_>) -> Handoff {
        let from = address(input.byte());
        match input.below(3) {
            0 => Handoff::Learned(from),
            1 => Handoff::Forgotten(from),
            _ => Handoff::Datagram {
                from,
                to: server(),
                bytes: self.datagram(input).into(),
            },
        }
    }

    /// Empties an engine as a shard does, passing on what is for the other one.
    fn empty(&mut self, shard: usize) {
        for _ in 0..OUTPUTS_PER_TURN {
            let (from, other) = (ShardId::new(shard as u16), 1 - shard);
            match self.engines[shard].poll_output() {
                None if self.engines[shard].release() => {}
                None => return,
                Some(Output::Event(Event::Answer { sdp, .. })) => {
                    let ufrag = sdp
                        .lines()
                        .find_map(|line| line.strip_prefix("a=ice-ufrag:"));
                    self.ufrags
                        .push(ufrag.expect("an answer has a ufrag").into());
                }
                Some(Output::Handoff(to, handoff)) => {
                    assert_eq!(to.index(), other, "handed over to a shard that is not");
                    self.engines[other].handle_handoff(self.now, from, handoff);
                }
                Some(Output::Learned(address)) => {
                    let told = Handoff::Learned(address);
                    self.engines[other].handle_handoff(self.now, from, told);
                }
                Some(Output::Forgotten(address)) => {
                    let told = Handoff::Forgotten(address);
                    self.engines[other].handle_handoff(self.now, from, told);
                }
                Some(
                    Output::Transmit(_) | Output::Run(_) | Output::Event(_) | Output::Copied(_),
                ) => {}
                #[cfg(debug_assertions)]
                Some(Output::Keys(..)) => {}
            }
        }
        panic!("a turn that does not end");
    }

    fn end(&mut self) {
        for shard in 0..usize::from(SHARDS) {
            for peer in (0..PEERS).map(PeerId::new) {
                self.engines[shard].handle_command(self.now, Command::Leave { peer });
            }
            self.empty(shard);
        }
        self.now += Duration::from_secs(60);
        for shard in 0..usize::from(SHARDS) {
            self.engines[shard].handle_timeout(self.now);
            self.empty(shard);
            let stats = self.engines[shard].stats();
            assert_eq!(stats.peer_panics, 0);
            let left = [
                stats.rooms,
                stats.peers,
                stats.subscriptions,
                stats.addresses,
            ];
            assert_eq!(left, [0; 4], "rooms, peers, subscriptions, addresses");
            assert_eq!(stats.audio_tracks + stats.video_tracks, 0);
            assert_eq!(self.engines[shard].wakeup(), None);
        }
    }
}

/// A STUN binding request (RFC 8489 §5) with this USERNAME and an integrity that is wrong.
pub(crate) fn forged_binding(username: &[u8]) -> Vec<u8> {
    let mut attributes = vec![0x00, 0x06];
    attributes.extend((username.len() as u16).to_be_bytes());
    attributes.extend(username);
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    attributes.extend([0x00, 0x08, 0, 20]);
    attributes.extend([0xAB; 20]);
    let mut message = vec![0x00, 0x01];
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xA4, 0x42]);
    message.extend([7; 12]);
    message.extend(attributes);
    message
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_sequence_of_calls_leaves_anything_behind(input in vec(any::<u8>(), 0..400)) {
            run(&input, &offers());
        }
    }

    #[test]
    fn long_sequences_of_calls_leave_nothing_behind() {
        let offers = offers();
        for seed in 0..8 {
            let mut rng = Rng::with_seed(seed);
            let input: Vec<u8> = (0..4000).map(|_| rng.u8(..)).collect();
            run(&input, &offers);
        }
    }
}
