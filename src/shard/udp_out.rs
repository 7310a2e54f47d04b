//! Datagrams to the kernel: runs of equal length joined into GSO entries, entries into batches.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;

use bytes::{Buf as _, Bytes};
use hdrhistogram::Histogram;
use str0m::net::Transmit;

use super::socket::Family;
use super::sys::{SendBuffers, SendEntry};
use crate::engine::Run;
use crate::mailbox::Histograms;

/// Datagrams that wait while the kernel takes no more. When full the oldest is dropped and
/// counted: a late packet is worth less than a fresh one.
pub(super) const BACKLOG_DATAGRAMS: usize = 4096;
/// Entries per `sendmmsg`. More per call gain nothing measurable.
const BATCH_ENTRIES: usize = 64;
/// `UDP_MAX_SEGMENTS` of kernels before 6.9, `linux/udp.h`.
const ENTRY_SEGMENTS: usize = 64;
/// Longest payload of an IPv4 datagram, which an entry is until the device cuts it up.
const ENTRY_BYTES: usize = 65_507;
/// Destinations remembered for refusing an entry. When full all are forgotten, which costs each
/// one more refusal.
const REFUSALS: usize = 4096;
/// Datagrams sent singly after a device refused an entry for want of checksum offload; then
/// another entry is tried, as routes change.
const SINGLES_AFTER_EIO: u32 = 100_000;

/// Datagrams that are to be sent, side by side: one, or a run of them.
struct Queued {
    source: SocketAddr,
    destination: SocketAddr,
    /// Bytes of each datagram but the last, which may be shorter.
    segment: usize,
    payload: Payload,
}

impl Queued {
    fn datagrams(&self) -> usize {
        self.payload.len().div_ceil(self.segment)
    }
}

/// A part of what is queued: its place in the queue, and the bytes of it.
struct Piece {
    place: usize,
    bytes: Range<usize>,
}

/// What one entry takes off the front of the queue.
struct Taken {
    datagrams: usize,
    bytes: usize,
}

/// Where bytes are.
enum Payload {
    /// Here, or in what was kept of an earlier arena.
    Owned(Bytes),
    /// In the engine's arena, until the end of the turn.
    Arena(Range<usize>),
}

impl Payload {
    fn len(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.len(),
            Self::Arena(range) => range.len(),
        }
    }

    fn in_arena(&self) -> Option<&Range<usize>> {
        match self {
            Self::Owned(_) => None,
            Self::Arena(range) => Some(range),
        }
    }

    fn bytes<'a>(&'a self, arena: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Arena(range) => &arena[range.clone()],
        }
    }

    /// Lets go of the first bytes.
    fn advance(&mut self, count: usize) {
        match self {
            Self::Owned(bytes) => bytes.advance(count),
            Self::Arena(range) => range.start += count,
        }
    }
}

/// What the sending side counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Datagrams the kernel took.
    pub(super) datagrams: u64,
    /// Their payload bytes.
    pub(super) bytes: u64,
    /// Entries they left in, single datagrams included.
    pub(super) entries: u64,
    /// Entries of several datagrams.
    pub(super) gso_entries: u64,
    /// Datagrams in those.
    pub(super) gso_segments: u64,
    /// Entries of several datagrams that were refused.
    pub(super) gso_refused: u64,
    /// Datagrams of refused entries, sent again one by one.
    pub(super) resent_singly: u64,
    /// Times the kernel took no more.
    pub(super) blocked: u64,
    /// Datagrams dropped because the backlog was full.
    pub(super) backlog_dropped: u64,
    /// Datagrams the kernel refused, or whose address the socket cannot write: dropped.
    pub(super) refused: u64,
}

/// The sending side of a shard's socket.
pub(super) struct UdpOut {
    family: Family,
    /// Addresses of this host a datagram may be sent from; empty when the socket has only one.
    sources: Vec<IpAddr>,
    /// The one of them that the entry just refused named: if it leaves without, the host has
    /// lost that address, and the kernel chooses from then on.
    suspect: Option<IpAddr>,
    /// What is to be sent, in order.
    queue: VecDeque<Queued>,
    /// How many datagrams that is.
    queued: usize,
    /// How the front of the queue is to be sent, what each entry takes of it, and where that
    /// lies: reused between calls.
    entries: Vec<SendEntry>,
    taken: Vec<Taken>,
    pieces: Vec<Piece>,
    buffers: SendBuffers,
    /// Shortest segment each destination has refused: its route's MTU is smaller.
    refusals: HashMap<SocketAddr, usize>,
    /// Datagrams still to be sent singly since a device refused an entry.
    singles_left: u32,
    /// Whether the kernel took no more at the last flush.
    blocked: bool,
    counts: Counts,
    /// How many datagrams each entry had.
    runs: Histogram<u64>,
}

impl UdpOut {
    /// For a socket bound to `bound` on a host with these addresses.
    pub(super) fn new(bound: SocketAddr, host: Vec<IpAddr>) -> Self {
        Self {
            family: Family::of(bound),
            sources: if bound.ip().is_unspecified() {
                host
            } else {
                Vec::new()
            },
            suspect: None,
            queue: VecDeque::new(),
            queued: 0,
            entries: Vec::with_capacity(BATCH_ENTRIES),
            taken: Vec::with_capacity(BATCH_ENTRIES),
            pieces: Vec::with_capacity(BATCH_ENTRIES),
            buffers: SendBuffers::default(),
            refusals: HashMap::new(),
            singles_left: 0,
            blocked: false,
            counts: Counts::default(),
            runs: Histograms::default().run_datagrams,
        }
    }

    /// Queues a datagram for the next flush.
    pub(super) fn push(&mut self, transmit: Transmit) {
        let Transmit {
            source,
            destination,
            contents,
            ..
        } = transmit;
        let contents = Vec::from(contents);
        self.queue(Queued {
            source,
            destination,
            segment: contents.len(),
            payload: Payload::Owned(contents.into()),
        });
    }

    /// Queues datagrams of the engine's arena for the next flush.
    pub(super) fn push_run(&mut self, run: Run) {
        self.queue(Queued {
            source: run.source,
            destination: run.destination,
            segment: run.segment,
            payload: Payload::Arena(run.bytes),
        });
    }

    fn queue(&mut self, queued: Queued) {
        if queued.segment == 0 || self.family.ip(queued.destination.ip()).is_none() {
            self.counts.refused += 1;
            return;
        }
        self.queued += queued.datagrams();
        self.queue.push_back(queued);
        while self.queued > BACKLOG_DATAGRAMS
            && let Some(oldest) = self.queue.pop_front()
        {
            self.queued -= oldest.datagrams();
            self.counts.backlog_dropped += oldest.datagrams() as u64;
        }
    }

    /// Copies what the kernel did not take out of the arena, which is about to be reused: in one
    /// piece, however many datagrams it is.
    pub(super) fn keep_backlog(&mut self, arena: &[u8]) {
        let ranges = || {
            self.queue
                .iter()
                .filter_map(|queued| queued.payload.in_arena())
        };
        let Some(start) = ranges().map(|range| range.start).min() else {
            return;
        };
        let end = ranges().map(|range| range.end).max().unwrap_or(start);
        let kept = Bytes::copy_from_slice(&arena[start..end]);
        for queued in &mut self.queue {
            if let Payload::Arena(range) = &queued.payload {
                let kept = kept.slice(range.start - start..range.end - start);
                queued.payload = Payload::Owned(kept);
            }
        }
    }

    /// Sends what is queued, until the kernel takes no more.
    pub(super) fn flush(&mut self, socket: &UdpSocket, arena: &[u8]) {
        self.blocked = false;
        while !self.queue.is_empty() {
            self.plan();
            let pieces = self.pieces.iter().map(|Piece { place, bytes }| {
                let payload = self.queue[*place].payload.bytes(arena);
                &payload[bytes.clone()]
            });
            match self.buffers.send(socket.as_fd(), &self.entries, pieces) {
                Ok(entries) => self.note_sent(entries),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.counts.blocked += 1;
                    self.blocked = true;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.note_refused(&error),
            }
        }
    }

    /// Datagrams waiting for a flush.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Whether the last flush ended because the kernel took no more.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many datagrams went in each entry.
    pub(super) fn runs(&self) -> &Histogram<u64> {
        &self.runs
    }

    /// Lays out the front of the queue as entries.
    fn plan(&mut self) {
        self.entries.clear();
        self.taken.clear();
        self.pieces.clear();
        let mut singles_left = self.singles_left;
        let (mut place, mut start) = (0, 0);
        while self.entries.len() < BATCH_ENTRIES
            && let Some(first) = self.queue.get(place)
        {
            let length = first.segment.min(first.payload.len() - start);
            let refused = self.refusals.get(&first.destination);
            let joins = singles_left == 0 && refused.is_none_or(|refused| length < *refused);
            let most = if joins { ENTRY_SEGMENTS } else { 1 };
            let pieces = self.pieces.len();
            let mut taken = Taken {
                datagrams: 0,
                bytes: 0,
            };
            while let Some(next) = self.queue.get(place)
                && next.destination == first.destination
                && next.source == first.source
                && let Some(bytes) = more(next, start, length, most, &taken)
            {
                taken.datagrams += bytes.len().div_ceil(length);
                taken.bytes += bytes.len();
                let is_short = !bytes.len().is_multiple_of(length);
                let end = bytes.end;
                self.pieces.push(Piece { place, bytes });
                start = end;
                if end == next.payload.len() {
                    (place, start) = (place + 1, 0);
                }
                if is_short {
                    break;
                }
            }
            singles_left = singles_left.saturating_sub(1);
            let destination = self.family.address(first.destination);
            self.entries.push(SendEntry {
                destination: destination.expect("checked when it was queued"),
                source: self.source(first),
                segment: u16::try_from(length).ok().filter(|_| taken.datagrams > 1),
                pieces: self.pieces.len() - pieces,
            });
            self.taken.push(taken);
        }
    }

    /// The address to send from, when the engine names one of this host's.
    fn source(&self, transmit: &Queued) -> Option<IpAddr> {
        let ip = transmit.source.ip();
        let usable = ip.is_ipv4() == transmit.destination.is_ipv4()
            && self.sources.contains(&ip)
            && self.suspect != Some(ip);
        self.family.ip(ip).filter(|_| usable)
    }

    /// Takes what the kernel has sent off the queue.
    fn note_sent(&mut self, entries: usize) {
        if let Some(lost) = self.suspect.take() {
            self.sources.retain(|ip| *ip != lost);
        }
        for index in 0..entries {
            let Taken { datagrams, bytes } = self.taken[index];
            self.drop_first(index);
            self.counts.bytes += bytes as u64;
            self.counts.datagrams += datagrams as u64;
            self.counts.entries += 1;
            self.runs.saturating_record(datagrams as u64);
            if datagrams > 1 {
                self.counts.gso_entries += 1;
                self.counts.gso_segments += datagrams as u64;
            }
            self.singles_left = self.singles_left.saturating_sub(1);
        }
    }

    /// Takes an entry, which is now the first, off the queue.
    fn drop_first(&mut self, index: usize) {
        let Taken {
            datagrams,
            mut bytes,
        } = self.taken[index];
        self.queued -= datagrams;
        while let Some(first) = self.queue.front_mut() {
            let length = first.payload.len();
            if length > bytes {
                first.payload.advance(bytes);
                return;
            }
            bytes -= length;
            self.queue.pop_front();
        }
    }

    /// Learns from the refusal of the first entry. Either the next plan differs for it, or its
    /// datagrams are dropped.
    fn note_refused(&mut self, error: &io::Error) {
        let (entry, first) = (&self.entries[0], &self.queue[0]);
        let datagrams = self.taken[0].datagrams as u64;
        match (error.raw_os_error(), entry.segment, entry.source) {
            (Some(libc::EINVAL | libc::EMSGSIZE), Some(segment), _) => {
                if self.refusals.len() == REFUSALS {
                    self.refusals.clear();
                }
                let refused = self.refusals.entry(first.destination).or_insert(usize::MAX);
                *refused = usize::from(segment).min(*refused);
                self.counts.gso_refused += 1;
                self.counts.resent_singly += datagrams;
            }
            (Some(libc::EIO), Some(_), _) => {
                self.singles_left = SINGLES_AFTER_EIO;
                self.counts.gso_refused += 1;
                self.counts.resent_singly += datagrams;
            }
            (Some(libc::EINVAL | libc::ENETUNREACH), _, Some(_)) => {
                self.suspect = Some(first.source.ip());
            }
            _ => {
                self.suspect = None;
                self.counts.refused += datagrams;
                self.drop_first(0);
            }
        }
    }
}

/// The bytes from `start` on that may follow in an entry of datagrams of `length` bytes, of which
/// only the last is shorter.
fn more(
    queued: &Queued,
    start: usize,
    length: usize,
    most: usize,
    taken: &Taken,
) -> Option<Range<usize>> {
    let left = queued.payload.len() - start;
    let first = queued.segment.min(left);
    let (fit, room) = (
        most - taken.datagrams,
        ENTRY_BYTES.saturating_sub(taken.bytes),
    );
    let datagrams = match first.cmp(&length) {
        Ordering::Less => fit.min(1),
        Ordering::Equal => fit.min(room / length),
        Ordering::Greater => 0,
    };
    // The first datagram has an entry however long it is: the kernel says what it thinks of it.
    let datagrams = if taken.datagrams == 0 {
        datagrams.max(1)
    } else {
        datagrams
    };
    let bytes = left.min(datagrams * first);
    (bytes > 0 && (taken.datagrams == 0 || bytes <= room)).then_some(start..start + bytes)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::io::Write;
    use std::process::{Command, Output};
    use std::time::Duration;

    use str0m::net::Protocol;

    use super::*;
    use crate::shard::{socket, sys};

    fn datagram(source: IpAddr, destination: SocketAddr, length: usize, fill: u8) -> Transmit {
        Transmit {
            proto: Protocol::Udp,
            source: SocketAddr::new(source, 1),
            destination,
            contents: vec![fill; length].into(),
        }
    }

    fn listener(ip: &str) -> UdpSocket {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket
    }

    fn open(address: &str) -> UdpSocket {
        socket::open(address.parse().unwrap(), 1).unwrap().remove(0)
    }

    fn next(socket: &UdpSocket) -> (usize, u8, IpAddr) {
        let mut buffer = [0; 65_536];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        (length, buffer[0], from.ip())
    }

    #[test]
    fn equal_datagrams_to_one_destination_share_an_entry() {
        for (bind, ip) in [
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "::1"),
            ("127.0.0.1:0", "127.0.0.1"),
        ] {
            let (socket, a, b) = (open(bind), listener(ip), listener(ip));
            let mut out = UdpOut::new(socket.local_addr().unwrap(), Vec::new());
            let source = ip.parse().unwrap();
            for (listener, length) in [(&a, 900), (&a, 900), (&a, 300), (&a, 900), (&b, 900)] {
                let fill = length as u8;
                out.push(datagram(
                    source,
                    listener.local_addr().unwrap(),
                    length,
                    fill,
                ));
            }
            out.flush(&socket, &[]);
            for length in [900, 900, 300, 900] {
                assert_eq!(next(&a), (length, length as u8, source));
            }
            assert_eq!(next(&b).0, 900);
            let counts = out.counts();
            assert_eq!(
                (counts.datagrams, counts.bytes, counts.entries),
                (5, 3900, 3)
            );
            assert_eq!((counts.gso_entries, counts.gso_segments), (1, 3));
        }
    }

    #[test]
    fn runs_leave_as_they_lie_and_join_what_fits_to_them() {
        let (socket, listener) = (open("127.0.0.1:0"), listener("127.0.0.1"));
        let mut out = UdpOut::new(socket.local_addr().unwrap(), Vec::new());
        let to = listener.local_addr().unwrap();
        let arena: Vec<u8> = (0..200).collect();
        let run = |bytes, segment| Run {
            source: SocketAddr::new(to.ip(), 1),
            destination: to,
            bytes,
            segment,
        };
        // Two runs of equal length join, the second's short end closes the entry; the next does
        // not fit to it, and a longer one not to that.
        for (bytes, segment) in [(0..40, 20), (40..70, 20), (70..75, 5), (80..110, 30)] {
            out.push_run(run(bytes, segment));
        }
        out.push(datagram(to.ip(), to, 30, 7));
        assert_eq!(out.queued(), 7);
        out.flush(&socket, &arena);
        for expected in [
            (20, 0),
            (20, 20),
            (20, 40),
            (10, 60),
            (5, 70),
            (30, 80),
            (30, 7),
        ] {
            let (length, first, _) = next(&listener);
            assert_eq!((length, first), expected);
        }
        let counts = out.counts();
        assert_eq!(
            (counts.entries, counts.datagrams, counts.bytes),
            (3, 7, 135)
        );
        assert_eq!(out.queued(), 0);
    }

    #[test]
    fn entries_keep_to_the_kernels_bounds() {
        let (socket, listener) = (open("127.0.0.1:0"), listener("127.0.0.1"));
        let mut out = UdpOut::new(socket.local_addr().unwrap(), Vec::new());
        let to = listener.local_addr().unwrap();
        for (count, length) in [(ENTRY_SEGMENTS + 1, 10), (3, 30_000)] {
            for _ in 0..count {
                out.push(datagram(to.ip(), to, length, 0));
            }
        }
        out.flush(&socket, &[]);
        let counts = out.counts();
        assert_eq!(
            (counts.entries, counts.gso_entries, counts.gso_segments),
            (4, 2, 66)
        );
        assert_eq!((counts.gso_refused, counts.refused), (0, 0));
    }

    #[test]
    fn a_refused_entry_is_sent_again_singly_and_not_tried_again() {
        let (socket, listener) = (open("[::1]:0"), listener("::1"));
        // A route of 1280 bytes over which the kernel may fragment.
        sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU, 1280).unwrap();
        let (level, name) = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER);
        sys::set_option(socket.as_fd(), level, name, libc::IPV6_PMTUDISC_DONT).unwrap();
        let mut out = UdpOut::new(socket.local_addr().unwrap(), Vec::new());
        let to = listener.local_addr().unwrap();
        for round in 1..=2 {
            for fill in [1, 2, 3] {
                out.push(datagram(to.ip(), to, 1400, fill));
            }
            out.flush(&socket, &[]);
            for fill in [1, 2, 3] {
                assert_eq!(next(&listener), (1400, fill, to.ip()));
            }
            let counts = out.counts();
            assert_eq!(
                (counts.gso_refused, counts.resent_singly),
                (1, 3),
                "round {round}"
            );
        }
        for _ in 0..2 {
            out.push(datagram(to.ip(), to, 1000, 0));
        }
        out.flush(&socket, &[]);
        assert_eq!(
            out.counts().gso_segments,
            2,
            "shorter ones still share an entry"
        );
    }

    #[test]
    fn datagrams_leave_from_the_address_the_engine_names() {
        let socket = open("[::]:0");
        for (ip, source) in [
            ("127.0.0.1", "127.0.0.9"),
            ("::1", "::1"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            let listener = listener(ip);
            let source: IpAddr = source.parse().unwrap();
            let mut out = UdpOut::new(socket.local_addr().unwrap(), vec![source]);
            for fill in [1, 2] {
                out.push(datagram(source, listener.local_addr().unwrap(), 100, fill));
            }
            out.flush(&socket, &[]);
            assert_eq!(next(&listener), (100, 1, source));
            assert_eq!(next(&listener), (100, 2, source));
        }
    }

    #[test]
    fn an_address_the_host_has_lost_is_no_longer_named() {
        let (socket, listener) = (open("[::]:0"), listener("127.0.0.1"));
        let lost: IpAddr = "198.51.100.7".parse().unwrap();
        let mut out = UdpOut::new(socket.local_addr().unwrap(), vec![lost]);
        for fill in [1, 2] {
            out.push(datagram(lost, listener.local_addr().unwrap(), 100, fill));
        }
        out.flush(&socket, &[]);
        assert_eq!(next(&listener), (100, 1, "127.0.0.1".parse().unwrap()));
        assert_eq!(next(&listener), (100, 2, "127.0.0.1".parse().unwrap()));
        assert_eq!(out.counts().refused, 0);
    }

    #[test]
    fn what_cannot_be_sent_is_counted_and_holds_nothing_up() {
        let (socket, listener) = (open("127.0.0.1:0"), listener("127.0.0.1"));
        let mut out = UdpOut::new(socket.local_addr().unwrap(), Vec::new());
        let to = listener.local_addr().unwrap();
        out.push(datagram(to.ip(), "[::1]:9".parse().unwrap(), 100, 0));
        out.push(datagram(to.ip(), to, 65_508, 0));
        out.push(datagram(to.ip(), to, 100, 5));
        out.flush(&socket, &[]);
        assert_eq!(next(&listener).1, 5);
        assert_eq!((out.counts().refused, out.counts().datagrams), (2, 1));
        assert!(!out.is_blocked());
    }

    #[test]
    fn a_full_backlog_drops_the_oldest() {
        let mut out = UdpOut::new("127.0.0.1:0".parse().unwrap(), Vec::new());
        let to = "127.0.0.1:9".parse().unwrap();
        for number in 0..BACKLOG_DATAGRAMS + 2 {
            let length = if number == 2 { 7 } else { 8 };
            out.push(datagram("127.0.0.1".parse().unwrap(), to, length, 0));
        }
        assert_eq!(out.counts().backlog_dropped, 2);
        assert_eq!(out.queued(), BACKLOG_DATAGRAMS);
        assert_eq!(out.queue[0].payload.len(), 7);
    }

    /// Run by the test below, where loopback is slow.
    #[test]
    #[ignore = "needs a network namespace of its own"]
    fn what_the_kernel_takes_later_leaves_later() {
        let (socket, listener) = (open("127.0.0.1:0"), listener("127.0.0.1"));
        let (level, name) = (libc::SOL_SOCKET, libc::SO_SNDBUF);
        sys::set_option(socket.as_fd(), level, name, 20_000).unwrap();
        let mut out = UdpOut::new(socket.local_addr().unwrap(), Vec::new());
        let to = listener.local_addr().unwrap();
        for number in 0..200 {
            out.push(datagram(to.ip(), to, 1200, number));
        }
        out.flush(&socket, &[]);
        assert!(out.is_blocked());
        let waiting = out.queued();
        assert!(waiting > 0 && waiting < 200, "{waiting} wait");
        let epoll = sys::Epoll::new().unwrap();
        epoll.watch(socket.as_fd(), libc::EPOLLOUT).unwrap();
        let mut arrived = 0;
        while out.queued() > 0 {
            epoll
                .wait(Some(Duration::from_secs(10)), listener.as_fd())
                .unwrap();
            let before = out.queued();
            out.flush(&socket, &[]);
            assert!(
                out.queued() < before,
                "writable means that some of it can leave"
            );
            while arrived < out.counts().datagrams {
                assert_eq!(next(&listener), (1200, arrived as u8, to.ip()));
                arrived += 1;
            }
        }
        assert!(!out.is_blocked());
        assert_eq!(arrived, 200);
    }

    #[test]
    fn a_slow_interface_delays_datagrams_and_loses_none() {
        let test = "shard::udp_out::tests::what_the_kernel_takes_later_leaves_later";
        let script = "ip link set lo up && \
             tc qdisc add dev lo root tbf rate 10mbit burst 10kb limit 10mb && echo ready && \
             exec \"$0\" --exact \"$1\" --ignored";
        let command = ["--net", "sh", "-c", script];
        let mut child = Command::new("unshare");
        child
            .args(command)
            .arg(env::current_exe().unwrap())
            .arg(test);
        let ran = child.output();
        let said = |ran: &Output| String::from_utf8_lossy(&ran.stdout).into_owned();
        match ran {
            Ok(ran) if said(&ran).starts_with("ready") => {
                assert!(said(&ran).contains("1 passed"), "{ran:?}");
            }
            refused => {
                let _ = writeln!(io::stderr(), "NOT RUN: a slow interface: {refused:?}");
            }
        }
    }
}
