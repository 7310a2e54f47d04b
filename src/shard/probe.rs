//! What this machine allows a shard, tried out: for whoever asks before a start.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use super::{StartError, SteeringChoice, driver, socket, steering, sys};

/// Whether shards may wait by io_uring.
///
/// # Errors
///
/// Why not.
pub fn io_uring() -> io::Result<()> {
    sys::probe_io_uring().and_then(|()| driver::glommio::probe())
}

/// Whether an eBPF program may steer datagrams.
///
/// # Errors
///
/// Why not.
pub fn ebpf() -> Result<(), String> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sockets = socket::open(anywhere, 2).map_err(|error| error.to_string())?;
    steering::attach(SteeringChoice::Ebpf, &sockets).map(drop)
}

/// Whether media could be received there.
///
/// # Errors
///
/// Why not, and what to do.
pub fn udp(address: SocketAddr) -> Result<(), StartError> {
    socket::open(address, 1).map(drop)
}

/// What the kernel grants a UDP socket of what a shard asks for, in bytes.
///
/// # Errors
///
/// Why there is no socket.
pub fn udp_buffer_bytes() -> io::Result<usize> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sockets = socket::open(anywhere, 1).map_err(io::Error::other)?;
    sockets.first().map_or(Ok(0), granted_bytes)
}

fn granted_bytes(socket: &UdpSocket) -> io::Result<usize> {
    let socket = socket2::SockRef::from(socket);
    // The kernel reports twice what it grants, for its own bookkeeping.
    Ok(socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / 2)
}
