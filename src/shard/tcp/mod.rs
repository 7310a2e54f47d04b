//! ICE-TCP (RFC 6544): for clients whose network lets no UDP through.
//!
//! One thread of its own, the [`door`], holds all connections, so that TCP never holds up a
//! shard's UDP. Packets pass between it and the shards in bounded queues: a shard takes them as it
//! takes datagrams, and gives out what leaves for a TCP remote instead of writing to its socket.

pub(super) mod door;
mod framing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use tokio::sync::mpsc;

/// Packets from TCP waiting for one shard. When full the newest is dropped and counted.
const ARRIVED_PACKETS: usize = 1024;
/// Runs of packets from all shards waiting for the door. When full the newest is dropped and its
/// packets are counted.
const LEAVING_RUNS: usize = 4096;

/// One packet that came over TCP.
#[derive(Debug)]
pub(super) struct Arrived {
    /// The remote end of the connection.
    pub(super) from: SocketAddr,
    /// The local end.
    pub(super) to: SocketAddr,
    pub(super) bytes: Box<[u8]>,
}

/// Packets that leave over one connection, already framed.
#[derive(Debug)]
struct Leaving {
    remote: SocketAddr,
    bytes: Bytes,
    packets: u32,
}

/// A shard's way to the door.
pub(super) struct Port {
    /// The local port of every connection: what is sent from it leaves over TCP.
    number: u16,
    arrived: Receiver<Arrived>,
    leaving: mpsc::Sender<Leaving>,
    /// The door's figures; only one shard tells them.
    figures: Option<Arc<Figures>>,
    counts: Counts,
}

/// What a port counts.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Packets taken in.
    packets_in: u64,
    /// Packets given to the door.
    packets_out: u64,
    /// Packets dropped because the door's queue was full.
    out_dropped: u64,
}

/// What the door counts.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Connections that are open.
    open: AtomicU64,
    /// Connections accepted since the start.
    accepted: AtomicU64,
    /// Connections refused because there were too many, or closed because they broke a rule:
    /// no STUN request first, a packet too long, silence, nobody who knows them.
    refused: AtomicU64,
    /// Packets dropped because a shard's queue was full.
    in_dropped: AtomicU64,
    /// Packets dropped because their reader was too slow, or gone.
    slow_dropped: AtomicU64,
}

impl Figures {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

impl Port {
    /// Whether what is sent from this local address leaves over TCP.
    pub(super) fn is_of(&self, source: SocketAddr) -> bool {
        source.port() == self.number
    }

    /// The next packet that came.
    pub(super) fn take(&mut self) -> Option<Arrived> {
        let arrived = self.arrived.try_recv().ok()?;
        self.counts.packets_in += 1;
        Some(arrived)
    }

    /// Sends packets to one remote.
    pub(super) fn push<'a>(&mut self, remote: SocketAddr, packets: impl Iterator<Item = &'a [u8]>) {
        let mut stream = Vec::new();
        let framed = packets.filter(|packet| framing::frame(&mut stream, packet));
        let packets = framed.count() as u32;
        let leaving = Leaving {
            remote,
            bytes: stream.into(),
            packets,
        };
        match self.leaving.try_send(leaving) {
            Ok(()) => self.counts.packets_out += u64::from(packets),
            Err(_) => self.counts.out_dropped += u64::from(packets),
        }
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let door = self.figures.as_ref().map(|figures| {
            [
                ("tcp_open", &figures.open),
                ("tcp_accepted", &figures.accepted),
                ("tcp_refused", &figures.refused),
                ("tcp_in_dropped", &figures.in_dropped),
                ("tcp_slow_dropped", &figures.slow_dropped),
            ]
            .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
        });
        let own = [
            ("tcp_in_packets", self.counts.packets_in),
            ("tcp_out_packets", self.counts.packets_out),
            ("tcp_out_dropped", self.counts.out_dropped),
        ];
        own.into_iter().chain(door.into_iter().flatten())
    }
}
