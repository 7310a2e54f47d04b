//! What the system calls alone cost on this machine: one thread that does nothing but send what a
//! server would send, in the same rhythm, to sockets that are read as the clients' are.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use nix::unistd::Pid;

use crate::clock::{Moment, rest};
use crate::plan::{FRAME_PACKETS, Shape};
use crate::socket::{Buffer, Udp};
use crate::worker::{EVENTS, REST, schedstat, wait};

/// What an RTP packet has beside its payload: header, extensions, SRTP tag.
const AROUND: u16 = 44;
/// Messages of one `sendmmsg`.
const MESSAGES: usize = 64;

/// What is sent.
#[derive(Debug, Args)]
pub(crate) struct Floor {
    /// Sockets that all get everything
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Packets a second to each
    #[arg(long, default_value_t = 250, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pps: u32,
    /// RTP payload of a packet, in bytes
    #[arg(long, default_value_t = 1200, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(..=8000))]
    size: u16,
    /// Whether packets leave 8 at a time or evenly spread
    #[arg(long, value_enum, default_value_t)]
    shape: Shape,
    /// Seconds
    #[arg(long, default_value_t = 8, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    duration: u32,
}

impl Floor {
    /// Sends and reads, and says what sending cost.
    ///
    /// # Errors
    ///
    /// Sockets that cannot be opened or written.
    pub(crate) fn run(&self) -> io::Result<String> {
        let sockets: Vec<_> = (0..self.subscribers)
            .map(|_| Udp::bind(Ipv4Addr::LOCALHOST.into()))
            .collect::<Result<_, _>>()?;
        let destinations: Vec<_> = sockets.iter().map(Udp::local).collect();
        let cores = cores();
        let over = AtomicBool::new(false);
        let (packets, cpu_ns) = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                pin(cores.last());
                read(&sockets, &over)
            });
            let sent = scope.spawn(|| {
                pin(cores.first());
                self.send(&destinations)
            });
            let sent = sent.join().expect("a panic of it is ours");
            over.store(true, Ordering::Release);
            reader.join().expect("a panic of it is ours")?;
            sent
        })?;
        Ok(format!(
            "{} packets/s to {} sockets, nothing but system calls: {:.2} us of CPU per packet, \
             {:.1} % of a core",
            packets / u64::from(self.duration),
            self.subscribers,
            cpu_ns as f64 / 1e3 / packets as f64,
            cpu_ns as f64 / 1e7 / f64::from(self.duration),
        ))
    }

    /// How many packets were sent, and the thread's CPU time meanwhile.
    fn send(&self, destinations: &[SocketAddr]) -> io::Result<(u64, u64)> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let together = match self.shape {
            Shape::Frames => FRAME_PACKETS,
            Shape::Paced => 1,
        };
        let segment = self.size + AROUND;
        let run = vec![0x55; usize::from(segment) * together as usize];
        let run = [IoSlice::new(&run)];
        let gso = [ControlMessage::UdpGsoSegments(&segment)];
        let control = if together > 1 { &gso[..] } else { &[] };
        let addresses: Vec<_> = destinations.iter().map(address).collect();
        let runs = [run; MESSAGES];
        let space = (together > 1).then(|| nix::cmsg_space!(u16));
        let mut headers = MultiHeaders::preallocate(MESSAGES, space);
        let every = Duration::from_secs(1) * together / self.pps;
        let end = Moment::now().instant + Duration::from_secs(self.duration.into());
        let (before, mut packets) = (schedstat().0, 0);
        let mut due = Moment::now().instant;
        while due < end {
            rest(due.saturating_duration_since(Moment::now().instant));
            due += every;
            for addresses in addresses.chunks(MESSAGES) {
                let flags = MsgFlags::empty();
                let fd = socket.as_raw_fd();
                let sent = sendmmsg(fd, &mut headers, &runs, addresses, control, flags)?;
                packets += sent.count() as u64 * u64::from(together);
            }
        }
        Ok((packets, schedstat().0 - before))
    }
}

/// Reads what comes, as the clients' threads do.
fn read(sockets: &[Udp], over: &AtomicBool) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (place, socket) in sockets.iter().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
        epoll.add(socket, event)?;
    }
    let (mut events, mut buffer) = ([EpollEvent::empty(); EVENTS], Buffer::new());
    while !over.load(Ordering::Acquire) {
        let count = wait(&epoll, &mut events, EpollTimeout::from(100_u8))?;
        for event in &events[..count] {
            let socket = &sockets[event.data() as usize];
            while socket.receive(&mut buffer)?.is_some() {}
        }
        rest(REST);
    }
    Ok(())
}

fn address(of: &SocketAddr) -> Option<SockaddrIn> {
    match of {
        SocketAddr::V4(v4) => Some(SockaddrIn::from(*v4)),
        SocketAddr::V6(_) => None,
    }
}

/// The cores this process may use.
fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count())
        .filter(|core| allowed.is_set(*core).unwrap_or(false))
        .collect()
}

/// Keeps this thread on a core. Where that is not allowed, it runs where it may.
fn pin(core: Option<&usize>) {
    let mut set = CpuSet::new();
    if core.is_some_and(|core| set.set(*core).is_ok()) {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sockets_get_everything_in_both_shapes() {
        for shape in [Shape::Frames, Shape::Paced] {
            let floor = Floor {
                subscribers: 3,
                pps: 80,
                size: 100,
                shape,
                duration: 1,
            };
            let said = floor.run().unwrap();
            assert!(said.starts_with("240 packets/s to 3 sockets"), "{said}");
        }
    }
}
