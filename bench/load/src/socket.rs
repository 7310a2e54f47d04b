//! A client's UDP socket: received with the kernel's time stamps, runs joined by UDP_GRO.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrLike as _, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

/// Longest message: a run that UDP_GRO joined.
const MESSAGE_BYTES: usize = 65_536;
/// Receive buffer asked for, in bytes: what arrives while the generator is at something else.
const RECEIVE_BUFFER: usize = 4 << 20;

/// One client's socket.
#[derive(Debug)]
pub(crate) struct Udp {
    socket: UdpSocket,
    local: SocketAddr,
}

/// What receiving needs and nobody else: one for all sockets of a thread.
#[derive(Debug)]
pub(crate) struct Buffer {
    message: Box<[u8]>,
    control: Vec<u8>,
}

/// What the kernel says of one message.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// Its datagrams, which have this many bytes each but for the last.
    pub(crate) bytes: &'a [u8],
    /// Bytes of one datagram.
    pub(crate) segment: usize,
    /// Who sent it.
    pub(crate) from: SocketAddr,
    /// When the kernel got it (its first datagram), Unix time in nanoseconds.
    pub(crate) at_ns: Option<u64>,
    /// Datagrams the kernel has dropped on this socket so far because its buffer was full.
    pub(crate) lost: Option<u32>,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self {
            message: vec![0; MESSAGE_BYTES].into(),
            // Rounded up generously: time stamp, segment size, count of losses.
            control: vec![0; 256],
        }
    }
}

impl Udp {
    /// A socket on any port of this address.
    pub(crate) fn bind(ip: IpAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        // Past the system's limit only with CAP_NET_ADMIN; else as much as it allows.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Takes one message without waiting; `None` when there is none.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut Buffer) -> io::Result<Option<Message<'a>>> {
        let mut slices = [IoSliceMut::new(&mut buffer.message)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        let control = Some(&mut buffer.control[..]);
        let received = match recvmsg::<SockaddrStorage>(fd, &mut slices, control, flags) {
            Ok(received) => received,
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let length = received.bytes;
        let (mut at_ns, mut segment, mut lost) = (None, length, None);
        for note in received.cmsgs()? {
            match note {
                ControlMessageOwned::ScmTimestampns(at) => {
                    at_ns = Some(at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64);
                }
                ControlMessageOwned::UdpGroSegments(bytes) => segment = bytes as usize,
                ControlMessageOwned::RxqOvfl(count) => lost = Some(count),
                _ => {}
            }
        }
        let Some(from) = received.address.as_ref().and_then(address) else {
            return Ok(None);
        };
        Ok(Some(Message {
            bytes: &buffer.message[..length],
            segment: segment.max(1),
            from,
            at_ns,
            lost,
        }))
    }

    /// Sends one datagram. A full buffer or an unreachable port loses it, as a network would.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) -> bool {
        self.socket.send_to(bytes, to).is_ok()
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    storage.family()?;
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some((v4.ip(), v4.port()).into());
    }
    let v6 = storage.as_sockaddr_in6()?;
    Some((v6.ip(), v6.port()).into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_datagram_comes_with_its_sender_and_the_time_the_kernel_got_it() {
        let (one, other) = (localhost(), localhost());
        let before = crate::clock::Moment::now().unix_ns;
        assert!(one.send(b"hello", other.local()));
        let mut buffer = Buffer::new();
        let message = other.receive(&mut buffer).unwrap().unwrap();
        assert_eq!((message.bytes, message.from), (&b"hello"[..], one.local()));
        assert!(message.at_ns.unwrap() >= before);
        assert!(other.receive(&mut buffer).unwrap().is_none());
    }

    fn localhost() -> Udp {
        Udp::bind(Ipv4Addr::LOCALHOST.into()).unwrap()
    }
}
