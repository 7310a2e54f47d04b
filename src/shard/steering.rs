//! Which shard's socket the kernel gives a datagram to: eBPF, else classic BPF, else its hash.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use tracing::info;

use super::{bpf, socket, sys};
use crate::id::ShardId;

/// Flows the kernel remembers: more than peers fit into a process, which forgets its flows with
/// them. When full the one unused for longest is forgotten, and its datagrams go by hash.
const FLOWS: u32 = 131_072;

/// Which steering an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SteeringChoice {
    /// The best one the process may use.
    #[default]
    Auto,
    /// eBPF, or no start.
    Ebpf,
    /// Classic BPF, or no start.
    Cbpf,
    /// The kernel's hash alone.
    None,
}

/// Which steering is live. Under each of them shards hand over what still goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// By the sender's address once a shard has learned it, else by the STUN ufrag.
    Ebpf,
    /// By the STUN ufrag; everything else by the kernel's hash.
    Cbpf,
    /// By the kernel's hash; the shards hand over to each other.
    Handoff,
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebpf => "eBPF",
            Self::Cbpf => "classic BPF",
            Self::Handoff => "hand-off",
        })
    }
}

/// The flows the kernel knows, shared by all shards. Does nothing unless eBPF is live.
#[derive(Debug, Clone, Default)]
pub(super) struct Flows(Option<Arc<sys::BpfMap>>);

/// What was attached, and why not something better.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) steering: Steering,
    pub(super) flows: Flows,
    /// Under eBPF the shards' second sockets, to which the SRTCP of known clients goes.
    pub(super) feedback: Vec<UdpSocket>,
    /// Why a better one was not possible, when one was tried.
    pub(super) fallback: Option<String>,
}

impl Attached {
    /// Tells an operator that there is a better one.
    pub(super) fn explain(&self) {
        if let Some(reason) = &self.fallback {
            info!(reason, "the best steering is not possible here");
        }
    }
}

/// Attaches a steering program to the group of these sockets, which were bound in shard order.
///
/// # Errors
///
/// Why the one that was asked for is not possible.
pub(super) fn attach(choice: SteeringChoice, sockets: &[UdpSocket]) -> Result<Attached, String> {
    let handoff = |fallback| Attached {
        steering: Steering::Handoff,
        flows: Flows::default(),
        feedback: Vec::new(),
        fallback,
    };
    if choice == SteeringChoice::None {
        return Ok(handoff(None));
    }
    let mut reasons = Vec::new();
    if choice != SteeringChoice::Cbpf {
        match attach_ebpf(sockets) {
            Ok((flows, feedback)) => {
                return Ok(Attached {
                    steering: Steering::Ebpf,
                    flows,
                    feedback,
                    fallback: None,
                });
            }
            Err(error) => reasons.push(format!("eBPF: {error}")),
        }
    }
    // Between one socket there is nothing to choose.
    if choice != SteeringChoice::Ebpf && sockets.len() > 1 {
        match sys::attach_filter(sockets[0].as_fd(), &bpf::cbpf()) {
            Ok(()) => {
                let (steering, flows) = (Steering::Cbpf, Flows::default());
                return Ok(Attached {
                    steering,
                    flows,
                    feedback: Vec::new(),
                    fallback: reasons.pop(),
                });
            }
            Err(error) => reasons.push(format!("classic BPF: {error}")),
        }
    }
    let reasons = reasons.join("; ");
    if choice == SteeringChoice::Ebpf {
        Err(reasons)
    } else {
        Ok(handoff((!reasons.is_empty()).then_some(reasons)))
    }
}

/// Also opens the second sockets, one for each shard.
fn attach_ebpf(sockets: &[UdpSocket]) -> io::Result<(Flows, Vec<UdpSocket>)> {
    let shards = sockets.len() as u16;
    let group = bpf::MAP_TYPE_REUSEPORT_SOCKARRAY;
    let count = 2 * u32::from(shards);
    let by_shard = sys::BpfMap::new(group, size_of::<u32>(), size_of::<u32>(), count)?;
    let second = sockets.iter().map(socket::open_beside);
    let second = second.collect::<io::Result<Vec<_>>>()?;
    for (index, socket) in (0_u32..).zip(sockets.iter().chain(&second)) {
        let fd = socket.as_raw_fd() as u32;
        by_shard.insert(&index.to_ne_bytes(), &fd.to_ne_bytes())?;
    }
    let kind = bpf::MAP_TYPE_LRU_HASH;
    let flows = sys::BpfMap::new(kind, bpf::FLOW_KEY_BYTES, size_of::<u32>(), FLOWS)?;
    let code = bpf::ebpf(flows.as_raw_fd(), by_shard.as_raw_fd(), shards);
    let program = sys::load_program(&code, c"Dual MIT/GPL")?;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF);
    // The kernel keeps the program, and with it both maps, as long as the sockets live.
    sys::set_option(sockets[0].as_fd(), level, name, program.as_raw_fd())?;
    Ok((Flows(Some(Arc::new(flows))), second))
}

impl Flows {
    /// Whether the kernel steers by them; if not, shards must tell each other.
    pub(super) fn is_live(&self) -> bool {
        self.0.is_some()
    }

    /// From here on datagrams of `remote` go to `shard`. Returns whether the kernel took it.
    pub(super) fn learn(&self, remote: SocketAddr, shard: ShardId) -> bool {
        let value = (shard.index() as u32).to_ne_bytes();
        let learned = self
            .0
            .as_ref()
            .map(|map| map.insert(&flow_key(remote), &value));
        learned.is_none_or(|result| result.is_ok())
    }

    /// Datagrams of `remote` no longer go to `shard`, unless another has learned it since.
    pub(super) fn forget(&self, remote: SocketAddr, shard: ShardId) {
        let Some(map) = &self.0 else { return };
        let key = flow_key(remote);
        let own = (shard.index() as u32).to_ne_bytes();
        if map.find(&key).is_ok_and(|owner| owner == own) {
            // It may have been evicted since: then it is gone all the same.
            let _ = map.remove(&key);
        }
    }
}

fn flow_key(remote: SocketAddr) -> [u8; bpf::FLOW_KEY_BYTES] {
    let ip = match remote.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut key = [0; bpf::FLOW_KEY_BYTES];
    key[..16].copy_from_slice(&ip.octets());
    key[16..18].copy_from_slice(&remote.port().to_be_bytes());
    key
}

#[cfg(test)]
pub(super) use tests::binding_request;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::shard::socket;

    const SHARDS: u16 = 4;
    const CLIENTS: u16 = 24;

    /// A STUN binding request (RFC 8489 §5) with a PRIORITY before the USERNAME and a
    /// MESSAGE-INTEGRITY nobody has made.
    pub(in crate::shard) fn binding_request(username: &str) -> Vec<u8> {
        let mut attributes = vec![0, 0x24, 0, 4, 1, 2, 3, 4, 0, 6, 0, username.len() as u8];
        attributes.extend(username.bytes());
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        attributes.extend([0, 8, 0, 20]);
        attributes.extend([9; 20]);
        let mut stun = vec![0, 1, 0, attributes.len() as u8, 0x21, 0x12, 0xA4, 0x42];
        stun.extend([7; 12]);
        stun.extend(attributes);
        stun
    }

    fn username(shard: ShardId) -> String {
        let [a, b] = shard.ufrag_prefix().map(char::from);
        format!("{a}{b}Xyz9:client")
    }

    /// Which socket gets a datagram. A sender on loopback delivers before its call returns.
    fn receiver(sockets: &[UdpSocket], client: &UdpSocket, to: SocketAddr, bytes: &[u8]) -> usize {
        client.send_to(bytes, to).unwrap();
        let mut buffer = [0; 2048];
        let got = sockets.iter().position(|socket| {
            socket
                .recv_from(&mut buffer)
                .is_ok_and(|(n, _)| &buffer[..n] == bytes)
        });
        got.expect("one of the sockets gets it")
    }

    /// Sockets, where to send to reach them by each family, and a maker of clients.
    fn group() -> (Vec<UdpSocket>, [SocketAddr; 2]) {
        let sockets = socket::open("[::]:0".parse().unwrap(), SHARDS).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        (
            sockets,
            [
                SocketAddr::from(([127, 0, 0, 1], port)),
                ("::1".parse::<IpAddr>().unwrap(), port).into(),
            ],
        )
    }

    /// A message with RTCP's packet type (RFC 5761 §4): 200, a sender report.
    const REPORT: &[u8] = &[0x80, 200, 0, 6];

    fn client(to: SocketAddr) -> UdpSocket {
        let socket = UdpSocket::bind((if to.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket
    }

    /// Attaches, or says that this machine does not allow it.
    fn attach_or_say(choice: SteeringChoice, sockets: &[UdpSocket]) -> Option<Attached> {
        match attach(choice, sockets) {
            Ok(attached) => Some(attached),
            Err(reason) if reason.contains("not permitted") => {
                let _ = writeln!(io::stderr(), "NOT RUN: {choice:?} steering: {reason}");
                None
            }
            Err(reason) => panic!("{choice:?}: {reason}"),
        }
    }

    #[test]
    fn stun_requests_reach_the_shard_their_ufrag_names() {
        for choice in [SteeringChoice::Ebpf, SteeringChoice::Cbpf] {
            let (sockets, addresses) = group();
            let Some(_attached) = attach_or_say(choice, &sockets) else {
                continue;
            };
            for to in addresses {
                for number in 0..CLIENTS {
                    let shard = ShardId::new(number % SHARDS);
                    let request = binding_request(&username(shard));
                    let got = receiver(&sockets, &client(to), to, &request);
                    assert_eq!(got, shard.index(), "{choice:?} {to}");
                }
            }
        }
    }

    #[test]
    fn under_every_steering_other_datagrams_reach_some_shard() {
        let stray = binding_request("zzno shard:client");
        let foreign = binding_request("A0no shard:client");
        for choice in [
            SteeringChoice::Ebpf,
            SteeringChoice::Cbpf,
            SteeringChoice::None,
        ] {
            let (sockets, addresses) = group();
            let Some(_attached) = attach_or_say(choice, &sockets) else {
                continue;
            };
            for to in addresses {
                let mut hit = [false; SHARDS as usize];
                for _ in 0..4 * CLIENTS {
                    let client = client(to);
                    for bytes in [&b"x"[..], &[0x80; 200], &stray, &foreign, &stray[..20], &[]] {
                        hit[receiver(&sockets, &client, to, bytes)] = true;
                    }
                }
                assert_eq!(
                    hit, [true; SHARDS as usize],
                    "{choice:?} {to}: spread by hash"
                );
            }
        }
    }

    #[test]
    fn a_learned_flow_keeps_to_its_shard_until_it_is_forgotten() {
        let (sockets, addresses) = group();
        let Some(attached) = attach_or_say(SteeringChoice::Ebpf, &sockets) else {
            return;
        };
        assert_eq!(attached.steering, Steering::Ebpf);
        let (flows, feedback) = (attached.flows, attached.feedback);
        for to in addresses {
            for number in 0..CLIENTS {
                let client = client(to);
                let remote = client.local_addr().unwrap();
                let by_hash = receiver(&sockets, &client, to, b"media");
                assert_eq!(
                    receiver(&sockets, &client, to, REPORT),
                    by_hash,
                    "of a stranger nothing may wait"
                );
                let owner = ShardId::new(number % SHARDS);
                let other = ShardId::new((number + 1) % SHARDS);
                assert!(flows.learn(remote, owner));
                assert_eq!(receiver(&sockets, &client, to, b"media"), owner.index());
                let request = binding_request(&username(other));
                assert_eq!(receiver(&sockets, &client, to, &request), owner.index());
                for bytes in [
                    &[0x80, 96][..],
                    &[0x80, 191],
                    &[0x80, 224],
                    &[22, 200],
                    b"x",
                ] {
                    assert_eq!(receiver(&sockets, &client, to, bytes), owner.index());
                }
                for bytes in [REPORT, &[0x9F, 206, 0, 1], &[0x80, 192], &[0xBF, 223]] {
                    assert_eq!(receiver(&feedback, &client, to, bytes), owner.index());
                }
                flows.forget(remote, other);
                assert_eq!(receiver(&sockets, &client, to, b"media"), owner.index());
                flows.forget(remote, owner);
                assert_eq!(receiver(&sockets, &client, to, b"media"), by_hash);
            }
        }
    }

    #[test]
    fn automatic_steering_finds_one_that_works() {
        let (sockets, _) = group();
        let attached = attach(SteeringChoice::Auto, &sockets).unwrap();
        let best = attached.steering == Steering::Ebpf;
        assert_eq!(best, attached.fallback.is_none(), "a fallback is explained");
        assert_ne!(
            attached.steering,
            Steering::Handoff,
            "classic BPF needs no privilege"
        );
    }
}
