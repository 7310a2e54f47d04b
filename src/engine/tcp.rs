//! Remote addresses on TCP, told apart from the same ones on UDP.

use std::net::{SocketAddr, SocketAddrV6};

/// What the flow label of a TCP remote holds inside the engine. The kernel gives no flow label
/// with what it receives, so no UDP remote looks like one.
const MARK: u32 = 1;

/// The address by which a TCP remote is known inside the engine: a client behind NAT may have the
/// same address and port on UDP, for another connection.
#[must_use]
pub fn marked(remote: SocketAddr) -> SocketAddr {
    let ip = match remote {
        SocketAddr::V4(remote) => remote.ip().to_ipv6_mapped(),
        SocketAddr::V6(remote) => *remote.ip(),
    };
    SocketAddrV6::new(ip, remote.port(), MARK, 0).into()
}

/// Whether a remote address that was learned or forgotten is one on TCP.
#[must_use]
pub fn is_marked(remote: SocketAddr) -> bool {
    matches!(remote, SocketAddr::V6(remote) if remote.flowinfo() == MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_address_on_tcp_is_another_one() {
        for text in ["192.0.2.1:5", "[2001:db8::1]:5"] {
            let remote: SocketAddr = text.parse().unwrap();
            assert_ne!(marked(remote), remote);
            assert_eq!(marked(remote), marked(remote));
            assert!(is_marked(marked(remote)) && !is_marked(remote));
        }
    }
}
