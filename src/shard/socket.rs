//! Opens the shards' sockets: one UDP port for all of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tracing::{info, warn};

use super::{StartError, sys};

/// Buffer asked for in each direction: about 60 ms of 1 Gbit/s.
const BUFFER_BYTES: usize = 8 << 20;
/// Below this the operator is told how to allow more.
const BUFFER_WARNING_BYTES: usize = 2 << 20;

/// How often, and after how long, a port is asked for again that somebody has: 1 s in all.
const RELEASE_TRIES: u32 = 20;
const RELEASE_WAIT: Duration = Duration::from_millis(50);

/// Opens `shards` sockets on one address, in shard order: their place in the reuseport group.
/// A port of 0 becomes the one the kernel gives the first of them.
///
/// # Errors
///
/// [`StartError`] says what is wrong with the address and what to do.
pub(super) fn open(address: SocketAddr, shards: u16) -> Result<Vec<UdpSocket>, StartError> {
    let (first, address) = match open_free(address) {
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && no_ipv6(&error) => {
            info!("this machine has no IPv6: listening on IPv4 only");
            let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            (open_free(v4), v4)
        }
        opened => (opened, address),
    };
    let first = first.map_err(|error| StartError::bind(address, error))?;
    let socket_error = |error| StartError::Socket(address, error);
    warn_of_small_buffers(&first);
    let first = UdpSocket::from(first);
    let bound = first.local_addr().map_err(socket_error)?;
    let others = (1..shards).map(|_| open_beside(&first));
    let others = others.collect::<io::Result<Vec<_>>>();
    let others = others.map_err(|error| StartError::bind(bound, error))?;
    Ok([first].into_iter().chain(others).collect())
}

/// Opens one more socket on the address of another.
pub(super) fn open_beside(other: &UdpSocket) -> io::Result<UdpSocket> {
    let bound = other.local_addr()?;
    let socket = new_socket(bound)?;
    socket.set_reuse_port(true)?;
    socket.bind(&bound.into())?;
    Ok(socket.into())
}

/// As [`open_first`], patient with a server that has just ended: io_uring lets go of its sockets
/// a moment after its process is gone.
#[expect(
    clippy::disallowed_methods,
    reason = "no shard runs yet that this could keep waiting"
)]
fn open_free(address: SocketAddr) -> io::Result<Socket> {
    for _ in 0..RELEASE_TRIES {
        match open_first(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(RELEASE_WAIT),
            opened => return opened,
        }
    }
    open_first(address)
}

/// Binds alone, so that a port another process has is noticed even if that one would share
/// it; the others may join only after.
fn open_first(address: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(address)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    let set = |level, name, value| sys::set_option(socket.as_fd(), level, name, value);
    let bytes = BUFFER_BYTES as i32;
    for (forced, asked) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        // Beyond net.core.[rw]mem_max only with CAP_NET_ADMIN.
        set(libc::SOL_SOCKET, forced, bytes).or_else(|_| set(libc::SOL_SOCKET, asked, bytes))?;
    }
    set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    set(libc::SOL_UDP, libc::UDP_GRO, 1)?;
    // Never fragment, and spare each packet the look at the path's remembered MTU.
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
        set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set(
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        )?;
    } else {
        set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    set(
        libc::IPPROTO_IP,
        libc::IP_MTU_DISCOVER,
        libc::IP_PMTUDISC_PROBE,
    )?;
    Ok(socket)
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn warn_of_small_buffers(socket: &Socket) {
    let (received, sent) = (socket.recv_buffer_size(), socket.send_buffer_size());
    // The kernel reports twice what it grants, for its own bookkeeping.
    let granted = received.unwrap_or(0).min(sent.unwrap_or(0)) / 2;
    if granted < BUFFER_WARNING_BYTES {
        warn!(
            granted_bytes = granted,
            "the UDP buffers are small and bursts may be lost: \
             run `sysctl -w net.core.rmem_max={BUFFER_BYTES} net.core.wmem_max={BUFFER_BYTES}`"
        );
    }
}

/// An IPv4-mapped IPv6 address as the IPv4 address it is; others as they are.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Which addresses a socket can write, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4 only.
    V4,
    /// IPv6, and IPv4 as mapped addresses.
    Dual,
}

impl Family {
    /// Of a socket bound to this address.
    pub(super) fn of(bound: SocketAddr) -> Self {
        if bound.is_ipv4() {
            Self::V4
        } else {
            Self::Dual
        }
    }

    /// The address as such a socket writes it; `None` when it cannot.
    pub(super) fn ip(self, ip: IpAddr) -> Option<IpAddr> {
        match (self, ip) {
            (Self::Dual, IpAddr::V4(v4)) => Some(v4.to_ipv6_mapped().into()),
            (Self::V4, IpAddr::V6(_)) => None,
            _ => Some(ip),
        }
    }

    /// The address as such a socket writes it; `None` when it cannot.
    pub(super) fn address(self, address: SocketAddr) -> Option<SocketAddr> {
        match (self, address) {
            (Self::Dual, SocketAddr::V4(v4)) => {
                Some(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()))
            }
            (Self::V4, SocketAddr::V6(_)) => None,
            _ => Some(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shards_share_the_port_the_first_one_got() {
        for address in ["[::]:0", "127.0.0.1:0", "[::1]:0"] {
            let sockets = open(address.parse().unwrap(), 3).unwrap();
            let ports = sockets
                .iter()
                .map(|socket| socket.local_addr().unwrap().port());
            let ports: Vec<u16> = ports.collect();
            assert_ne!(ports[0], 0);
            assert_eq!(ports, [ports[0]; 3]);
        }
    }

    #[test]
    fn a_port_somebody_has_is_refused_even_if_they_would_share_it() {
        let theirs = open("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = theirs[0].local_addr().unwrap();
        let refused = open(address, 2).unwrap_err();
        assert!(matches!(refused, StartError::PortTaken(taken) if taken == address));
        let anywhere = SocketAddr::new("::".parse().unwrap(), address.port());
        assert!(matches!(
            open(anywhere, 1).unwrap_err(),
            StartError::PortTaken(_)
        ));
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_advice() {
        let refused = open("198.51.100.7:0".parse().unwrap(), 1).unwrap_err();
        assert!(matches!(refused, StartError::NoSuchAddress(_)));
        assert!(refused.to_string().contains("listen on [::]"), "{refused}");
    }

    #[test]
    fn mapped_addresses_are_ipv4_inside_and_ipv6_on_a_dual_stack_socket() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5".parse().unwrap();
        let v4: SocketAddr = "192.0.2.1:5".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:5".parse().unwrap();
        assert_eq!(unmapped(mapped), v4);
        assert_eq!(unmapped(v6), v6);
        assert_eq!(Family::Dual.address(v4), Some(mapped));
        assert_eq!(Family::Dual.address(v6), Some(v6));
        assert_eq!(Family::V4.address(v4), Some(v4));
        assert_eq!(Family::V4.address(v6), None);
    }
}
