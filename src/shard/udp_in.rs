//! Datagrams from the kernel: taken in batches, cut where UDP_GRO joined them.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use libc::c_int;

use super::{socket, sys};

/// One received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// Who sent it; IPv4-mapped addresses are given as IPv4.
    pub(super) from: SocketAddr,
    /// The local address it was sent to, likewise.
    pub(super) to: SocketAddr,
    /// Its payload.
    pub(super) bytes: &'a [u8],
    /// When the kernel got it, since the epoch.
    pub(super) at: Option<Duration>,
}

/// What the receiving side counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Datagrams taken in.
    pub(super) datagrams: u64,
    /// Their payload bytes.
    pub(super) bytes: u64,
    /// Messages they came in; fewer than datagrams when UDP_GRO joined some.
    pub(super) messages: u64,
    /// Messages without a sender, or cut short: dropped.
    pub(super) unusable: u64,
    /// Errors the socket reported instead of a message.
    pub(super) errors: u64,
    /// Datagrams the kernel lost because the socket's buffer was full.
    pub(super) lost: u64,
}

/// Which of a shard's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inlet {
    /// The one everything may come to.
    All,
    /// The one for SRTCP of known clients, where there is one.
    Feedback,
}

/// The receiving side of a shard's sockets.
pub(super) struct UdpIn {
    buffers: sys::ReceiveBuffers,
    /// The address the sockets are bound to.
    bound: SocketAddr,
    /// The kernel's counts of lost datagrams, which wrap, at the last look; by [`Inlet`].
    lost_seen: [u32; 2],
    counts: Counts,
}

/// What one call to the kernel brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    inlet: Inlet,
    messages: usize,
    /// Whether more may be waiting in the socket.
    pub(super) more: bool,
}

/// What the kernel says beside a message.
#[derive(Debug, Default)]
struct Notes {
    to: Option<IpAddr>,
    segment: Option<usize>,
    at: Option<Duration>,
    lost: Option<u32>,
}

impl UdpIn {
    pub(super) fn new(bound: SocketAddr) -> Self {
        Self {
            buffers: sys::ReceiveBuffers::new(),
            bound,
            lost_seen: [0; 2],
            counts: Counts::default(),
        }
    }

    /// Takes one batch from a socket, without waiting, in place of the last one.
    pub(super) fn receive(&mut self, inlet: Inlet, socket: &UdpSocket) -> Batch {
        let messages = match self.buffers.receive(socket.as_fd()) {
            Ok(messages) => messages,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Batch {
                    inlet,
                    messages: 0,
                    more: false,
                };
            }
            // Also an error of an earlier send, reported once: datagrams may wait behind it.
            Err(_) => {
                self.counts.errors += 1;
                return Batch {
                    inlet,
                    messages: 0,
                    more: true,
                };
            }
        };
        self.counts.messages += messages as u64;
        Batch {
            inlet,
            messages,
            more: messages == sys::RECEIVE_MESSAGES,
        }
    }

    /// Gives each datagram of the batch to `handle`, and returns how many there were.
    pub(super) fn handle(&mut self, batch: Batch, mut handle: impl FnMut(Received<'_>)) -> usize {
        let before = self.counts.datagrams;
        for index in 0..batch.messages {
            self.cut(batch.inlet, index, &mut handle);
        }
        (self.counts.datagrams - before) as usize
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Gives the datagrams of one message to `handle`.
    fn cut(&mut self, inlet: Inlet, index: usize, handle: &mut impl FnMut(Received<'_>)) {
        let mut notes = Notes::default();
        self.buffers
            .control(index, |level, kind, value| notes.take(level, kind, value));
        if let Some(lost) = notes.lost {
            let seen = &mut self.lost_seen[inlet as usize];
            self.counts.lost += u64::from(lost.wrapping_sub(*seen));
            *seen = lost;
        }
        let (bytes, from, flags) = self.buffers.message(index);
        let Some(from) = from.filter(|_| flags & libc::MSG_TRUNC == 0) else {
            self.counts.unusable += 1;
            return;
        };
        let to = notes.to.unwrap_or(self.bound.ip());
        let to = socket::unmapped(SocketAddr::new(to, self.bound.port()));
        let from = socket::unmapped(from);
        let at = notes.at;
        let segment = notes.segment.filter(|segment| *segment > 0);
        let mut rest = bytes;
        // At least once: an empty datagram is one too.
        loop {
            let (bytes, after) = rest.split_at(segment.unwrap_or(rest.len()).min(rest.len()));
            self.counts.datagrams += 1;
            self.counts.bytes += bytes.len() as u64;
            handle(Received {
                from,
                to,
                bytes,
                at,
            });
            rest = after;
            if rest.is_empty() {
                return;
            }
        }
    }
}

impl Notes {
    /// Takes in one control message.
    fn take(&mut self, level: c_int, kind: c_int, value: &[u8; 20]) {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| value[at + i]));
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => self.segment = Some(word(0) as usize),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => self.lost = Some(word(0)),
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                let long =
                    |at: usize| u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| value[at + i]));
                let nanoseconds = u32::try_from(long(8)).unwrap_or(0);
                self.at = Some(Duration::new(long(0), nanoseconds));
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // in_pktinfo: interface, local address, destination in the header.
                self.to = Some([8, 9, 10, 11].map(|i| value[i]).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&value[..16]);
                self.to = Some(octets.into());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use str0m::net::{Protocol, Transmit};

    use super::*;
    use crate::shard::udp_out::UdpOut;

    fn open(address: &str) -> UdpSocket {
        socket::open(address.parse().unwrap(), 1).unwrap().remove(0)
    }

    /// Everything that has arrived: sender, destination and payload.
    fn all(input: &mut UdpIn, socket: &UdpSocket) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut got = Vec::new();
        loop {
            let batch = input.receive(Inlet::All, socket);
            let count = input.handle(batch, |received| {
                assert!(received.at.is_some(), "the kernel stamps every datagram");
                got.push((received.from, received.to, received.bytes.to_vec()));
            });
            if count == 0 {
                return got;
            }
        }
    }

    #[test]
    fn a_joined_run_is_cut_into_its_datagrams() {
        for (bind, ip) in [
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "::1"),
            ("127.0.0.1:0", "127.0.0.1"),
        ] {
            let (server, client) = (
                open(bind),
                open(&SocketAddr::new(ip.parse().unwrap(), 0).to_string()),
            );
            let bound = server.local_addr().unwrap();
            let to = SocketAddr::new(ip.parse().unwrap(), bound.port());
            let from = client.local_addr().unwrap();
            let mut output = UdpOut::new(from, Vec::new());
            let payloads: Vec<Vec<u8>> = vec![vec![1; 700], vec![2; 700], vec![3; 700], vec![4; 5]];
            for contents in payloads.clone() {
                let contents = contents.into();
                let transmit = Transmit {
                    proto: Protocol::Udp,
                    source: from,
                    destination: to,
                    contents,
                };
                output.push(transmit);
            }
            output.flush(&client, &[]);

            let mut input = UdpIn::new(bound);
            let got = all(&mut input, &server);
            let expected: Vec<_> = payloads
                .into_iter()
                .map(|bytes| (from, to, bytes))
                .collect();
            assert_eq!(got, expected, "{bind} {ip}");
            let counts = input.counts();
            assert_eq!(
                (counts.messages, counts.datagrams, counts.bytes),
                (1, 4, 2105)
            );
        }
    }

    #[test]
    fn an_empty_datagram_is_one_too() {
        let server = open("[::]:0");
        let bound = server.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], bound.port()));
        client.send_to(&[], to).unwrap();
        client.send_to(&[1, 2], to).unwrap();
        let from = client.local_addr().unwrap();
        let got = all(&mut UdpIn::new(bound), &server);
        assert_eq!(got, [(from, to, vec![]), (from, to, vec![1, 2])]);
    }

    #[test]
    fn a_batch_is_bounded_and_says_that_more_waits() {
        let server = open("127.0.0.1:0");
        let bound = server.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..=sys::RECEIVE_MESSAGES {
            // Growing lengths cannot be joined.
            client.send_to(&vec![0; number + 1], bound).unwrap();
        }
        let mut input = UdpIn::new(bound);
        let batch = input.receive(Inlet::All, &server);
        assert!(batch.more);
        assert_eq!(input.handle(batch, |_| {}), sys::RECEIVE_MESSAGES);
        let batch = input.receive(Inlet::All, &server);
        assert!(!batch.more);
        assert_eq!(input.handle(batch, |_| {}), 1);
    }

    #[test]
    fn what_the_kernel_loses_is_counted() {
        let server = open("127.0.0.1:0");
        sys::set_option(server.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 0).unwrap();
        let bound = server.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut input = UdpIn::new(bound);
        let sent = 100;
        (0..sent).for_each(|_| assert!(client.send_to(&[0; 1000], bound).is_ok()));
        let first = all(&mut input, &server).len();
        // The count comes with the next datagram.
        client.send_to(&[0; 1000], bound).unwrap();
        let second = all(&mut input, &server).len();
        assert_eq!(second, 1);
        assert_eq!(input.counts().lost, (sent - first) as u64);
    }
}
