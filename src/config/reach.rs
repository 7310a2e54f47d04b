//! Where clients can reach the media port: what they are told, and whether that is likely to work.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::value::Announced;

/// Addresses a client is told at most: it sends checks to each. The best come first, the rest is
/// left out.
const MAX_CANDIDATES: usize = 8;

/// The host candidates that every client is told, for media that listens on `bound`.
#[must_use]
pub fn candidates(announced: &Announced, bound: SocketAddr) -> Vec<SocketAddr> {
    let own = || {
        let mut addresses: Vec<IpAddr> = routed_addresses();
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        addresses.extend(interfaces.iter().map(if_addrs::Interface::ip));
        addresses
    };
    candidates_of(announced, bound, own)
}

/// As [`candidates`], with the machine's own addresses given by `own`, the best first.
fn candidates_of(
    announced: &Announced,
    bound: SocketAddr,
    own: impl Fn() -> Vec<IpAddr>,
) -> Vec<SocketAddr> {
    let at_port = |ip: IpAddr| SocketAddr::new(ip, bound.port());
    match announced {
        Announced::Addresses(addresses) => addresses.iter().copied().map(at_port).collect(),
        Announced::Auto if !bound.ip().is_unspecified() => vec![bound],
        Announced::Auto => {
            let mut found: Vec<SocketAddr> = Vec::new();
            for ip in own() {
                let served = ip.is_ipv4() || bound.is_ipv6();
                let useful = reach(ip) != Reach::Machine && !is_link_local(ip);
                if served && useful && !found.contains(&at_port(ip)) {
                    found.push(at_port(ip));
                }
            }
            if found.is_empty() {
                found.push(at_port(Ipv4Addr::LOCALHOST.into()));
            }
            found.truncate(MAX_CANDIDATES);
            found
        }
    }
}

/// The local addresses that the kernel would send from to reach the internet. Nothing is sent.
fn routed_addresses() -> Vec<IpAddr> {
    // Documentation prefixes (RFC 5737, RFC 3849): routed like any address, owned by none.
    let somewhere: [(IpAddr, IpAddr); 2] = [
        (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        ),
        (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    ];
    let local = |(any, remote): (IpAddr, IpAddr)| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((remote, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    somewhere
        .into_iter()
        .filter_map(|way| local(way).ok())
        .collect()
}

/// Who can reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Programs on this machine.
    Machine,
    /// Machines in the same network.
    Network,
    /// The internet, as far as firewalls let it.
    Internet,
}

/// Who can reach the best of `candidates`.
#[must_use]
pub fn widest(candidates: &[SocketAddr]) -> Reach {
    candidates
        .iter()
        .map(|candidate| reach(candidate.ip()))
        .max()
        .unwrap_or(Reach::Machine)
}

fn reach(ip: IpAddr) -> Reach {
    let network = match ip {
        _ if ip.is_loopback() => return Reach::Machine,
        // RFC 6598's shared space of carriers and overlay networks is private as well.
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    if network || is_link_local(ip) {
        return Reach::Network;
    }
    Reach::Internet
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// What an operator should know about the addresses that clients are told; `None` when they can
/// be reached from everywhere.
#[must_use]
pub fn warning(candidates: &[SocketAddr]) -> Option<String> {
    let told: Vec<String> = candidates.iter().map(SocketAddr::to_string).collect();
    let who = match widest(candidates) {
        Reach::Internet => return None,
        Reach::Network => "only clients in the same network reach",
        Reach::Machine => "only browsers on this machine reach",
    };
    Some(format!(
        "clients will be told to send media to {}, which {who}; for others set \
         webrtc.announced_ip (or CORELAY_WEBRTC_ANNOUNCED_IP) to the server's public address",
        told.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn told(announced: &str, bound: &str, own: &[&str]) -> Vec<String> {
        let own = || own.iter().map(|ip| ip.parse().unwrap()).collect();
        let found = candidates_of(&announced.parse().unwrap(), address(bound), own);
        found.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn what_is_announced_is_told_as_it_is() {
        let found = told("203.0.113.9,2001:db8::9", "[::]:7", &["10.0.0.1"]);
        assert_eq!(found, ["203.0.113.9:7", "[2001:db8::9]:7"]);
    }

    #[test]
    fn the_bound_address_is_told_when_it_is_one() {
        let found = told("auto", "127.0.0.1:7", &["10.0.0.1"]);
        assert_eq!(found, ["127.0.0.1:7"]);
    }

    #[test]
    fn each_address_of_the_machine_is_told_once() {
        let own = [
            "10.0.0.1",
            "2001:db8::9",
            "127.0.0.1",
            "10.0.0.1",
            "fe80::1",
            "10.1.0.1",
        ];
        let found = told("auto", "[::]:7", &own);
        assert_eq!(found, ["10.0.0.1:7", "[2001:db8::9]:7", "10.1.0.1:7"]);
        let found = told("auto", "0.0.0.0:7", &own);
        assert_eq!(found, ["10.0.0.1:7", "10.1.0.1:7"]);
    }

    #[test]
    fn a_machine_without_a_network_tells_its_loopback_address() {
        assert_eq!(
            told("auto", "[::]:7", &["127.0.0.1", "::1"]),
            ["127.0.0.1:7"]
        );
    }

    #[test]
    fn an_address_that_strangers_cannot_reach_is_warned_of() {
        for ip in ["10.1.2.3:1", "192.168.0.4:1", "100.64.0.1:1", "[fd00::1]:1"] {
            let said = warning(&[address(ip)]).unwrap();
            assert!(said.contains("the same network"), "{said}");
        }
        let said = warning(&[address("127.0.0.1:1")]).unwrap();
        assert!(said.contains("this machine"), "{said}");
        assert_eq!(
            warning(&[address("10.1.2.3:1"), address("203.0.113.9:1")]),
            None
        );
        assert_eq!(warning(&[address("[2001:db8::1]:1")]), None);
    }
}
