//! The kernel calls std and socket2 lack, behind safe signatures. The only unsafe code.
#![expect(
    unsafe_code,
    reason = "every raw kernel call of the crate lives in this file"
)]

use std::ffi::CStr;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, socklen_t};
use socket2::{SockAddr, SockAddrStorage};

use super::bpf;

/// Messages one `recvmmsg` takes at most; with UDP_GRO each may hold 64 datagrams.
pub(super) const RECEIVE_MESSAGES: usize = 32;
/// Room for one message: the longest UDP payload, or the longest run UDP_GRO makes.
const MESSAGE_BYTES: usize = 65_536;
/// Control bytes of a received message: packet info (40), time stamp (32), GRO size and kernel
/// drop count (24 each), as words so that headers are aligned.
type ReceiveControl = [u64; 32];
/// Control bytes of a sent message: packet info (40) and segment size (24).
type SendControl = [u64; 10];

/// Buffers for one `recvmmsg`, and what it left in them.
pub(super) struct ReceiveBuffers {
    data: Box<[u8]>,
    control: Box<[ReceiveControl]>,
    names: Box<[libc::sockaddr_storage]>,
    /// Lengths and flags of each message as the kernel set them: bytes, control bytes, flags.
    filled: Vec<(usize, usize, c_int)>,
}

impl ReceiveBuffers {
    pub(super) fn new() -> Self {
        // SAFETY: all zero bytes is a value of it.
        let name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        Self {
            data: vec![0; RECEIVE_MESSAGES * MESSAGE_BYTES].into_boxed_slice(),
            control: vec![[0; 32]; RECEIVE_MESSAGES].into_boxed_slice(),
            names: vec![name; RECEIVE_MESSAGES].into_boxed_slice(),
            filled: Vec::with_capacity(RECEIVE_MESSAGES),
        }
    }

    /// Takes what has arrived, without waiting. Returns how many messages there are.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing has arrived; else what `recvmmsg` reports.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.filled.clear();
        // SAFETY: null pointers and zeros are a value of both structs.
        let mut iovecs: [libc::iovec; RECEIVE_MESSAGES] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; RECEIVE_MESSAGES] = unsafe { mem::zeroed() };
        let buffers = self.data.chunks_exact_mut(MESSAGE_BYTES);
        let parts = buffers.zip(&mut self.control).zip(&mut self.names);
        let slots = iovecs.iter_mut().zip(&mut headers);
        for ((iovec, header), ((data, control), name)) in slots.zip(parts) {
            iovec.iov_base = data.as_mut_ptr().cast();
            iovec.iov_len = data.len();
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = socklen::<SockAddrStorage>();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<ReceiveControl>();
        }
        let (fd, at) = (socket.as_raw_fd(), headers.as_mut_ptr());
        let count = RECEIVE_MESSAGES as u32;
        // SAFETY: each header points to buffers of the stated lengths that outlive the call.
        let count =
            check(unsafe { libc::recvmmsg(fd, at, count, libc::MSG_DONTWAIT, ptr::null_mut()) })?;
        for header in &headers[..count as usize] {
            let (control, flags) = (header.msg_hdr.msg_controllen, header.msg_hdr.msg_flags);
            self.filled.push((header.msg_len as usize, control, flags));
        }
        Ok(self.filled.len())
    }

    /// Payload, sender and flags of a message the last [`ReceiveBuffers::receive`] took.
    pub(super) fn message(&self, index: usize) -> (&[u8], Option<SocketAddr>, c_int) {
        let (length, _, flags) = self.filled[index];
        let start = index * MESSAGE_BYTES;
        let mut name = SockAddrStorage::zeroed();
        // SAFETY: both are `sockaddr_storage`, in which the kernel wrote an address of the
        // family it says.
        let from = unsafe {
            *name.view_as() = self.names[index];
            SockAddr::new(name, socklen::<SockAddrStorage>())
        };
        (&self.data[start..start + length], from.as_socket(), flags)
    }

    /// Calls `note` with level, type and the first 20 bytes (zeros where there are fewer) of
    /// each control message of a received message.
    pub(super) fn control(&self, index: usize, mut note: impl FnMut(c_int, c_int, &[u8; 20])) {
        let control = &self.control[index];
        // SAFETY: null pointers and zeros are a value of it.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = self.filled[index].1.min(size_of::<ReceiveControl>());
        // SAFETY: the header names `control`, which the kernel filled up to `msg_controllen`;
        // CMSG_* stay inside it, and each value is read no longer than its header says.
        unsafe {
            let mut next = libc::CMSG_FIRSTHDR(&raw const header);
            while let Some(cmsg) = next.as_ref() {
                let mut value = [0; 20];
                let length = cmsg.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                let length = length.min(value.len());
                ptr::copy_nonoverlapping(libc::CMSG_DATA(next), value.as_mut_ptr(), length);
                note(cmsg.cmsg_level, cmsg.cmsg_type, &value);
                next = libc::CMSG_NXTHDR(&raw const header, next);
            }
        }
    }
}

/// One entry of a `sendmmsg`: a datagram, or a run of them the kernel cuts up again (GSO).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SendEntry {
    /// Where to, in the socket's family.
    pub(super) destination: SocketAddr,
    /// The source address to send from, in the socket's family; else the kernel chooses.
    pub(super) source: Option<IpAddr>,
    /// Length of each datagram but the last, when there are several.
    pub(super) segment: Option<u16>,
    /// How many pieces of memory its bytes lie in.
    pub(super) pieces: usize,
}

/// Kernel structures of a `sendmmsg`, kept so that their memory is reused.
#[derive(Default)]
pub(super) struct SendBuffers {
    names: Vec<SockAddr>,
    controls: Vec<(SendControl, usize)>,
    /// `iovec`s as (address, length).
    iovecs: Vec<[usize; 2]>,
}

impl SendBuffers {
    /// Sends entries without waiting; `pieces` yields the bytes of all of them in order. Returns
    /// how many entries, from the first on, the kernel took.
    ///
    /// # Errors
    ///
    /// Why the first entry was not taken.
    ///
    /// # Panics
    ///
    /// When `pieces` yields fewer than the entries say they have.
    pub(super) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        entries: &[SendEntry],
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        let total = entries.iter().map(|entry| entry.pieces).sum();
        self.iovecs.clear();
        let pieces = pieces.take(total);
        self.iovecs
            .extend(pieces.map(|piece| [piece.as_ptr() as usize, piece.len()]));
        assert_eq!(self.iovecs.len(), total, "every entry has its pieces");
        self.names.clear();
        let names = entries.iter().map(|e| SockAddr::from(e.destination));
        self.names.extend(names);
        self.controls.clear();
        self.controls.extend(entries.iter().map(send_control));
        let mut headers = Vec::with_capacity(entries.len());
        let mut first = 0;
        for (index, entry) in entries.iter().enumerate() {
            // SAFETY: null pointers and zeros are a value of it.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            let name = &self.names[index];
            let (control, control_length) = &mut self.controls[index];
            header.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = name.len();
            header.msg_hdr.msg_iov = self.iovecs[first..].as_mut_ptr().cast();
            header.msg_hdr.msg_iovlen = entry.pieces;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = *control_length;
            headers.push(header);
            first += entry.pieces;
        }
        let (fd, at, count) = (
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as u32,
        );
        // SAFETY: each header points into vectors that are not touched until the call is over,
        // and the iovecs to bytes borrowed for 'a; the kernel only reads them. An iovec is
        // an address and a length, as `[usize; 2]` is.
        let sent = unsafe { libc::sendmmsg(fd, at, count, libc::MSG_DONTWAIT) };
        check(sent).map(|sent| sent as usize)
    }
}

/// The control bytes of one entry and how many of them are used.
fn send_control(entry: &SendEntry) -> (SendControl, usize) {
    let mut control = SendControl::default();
    let mut used = 0;
    let mut put = |level: c_int, kind: c_int, value: &[u8]| {
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; at most one packet info (40 bytes) and
        // one segment size (24) are put, so the header and value fit the 80 bytes.
        unsafe {
            let cmsg: *mut libc::cmsghdr = control.as_mut_ptr().byte_add(used).cast();
            (*cmsg).cmsg_level = level;
            (*cmsg).cmsg_type = kind;
            (*cmsg).cmsg_len = libc::CMSG_LEN(value.len() as u32) as usize;
            ptr::copy_nonoverlapping(value.as_ptr(), libc::CMSG_DATA(cmsg), value.len());
            used += libc::CMSG_SPACE(value.len() as u32) as usize;
        }
    };
    match entry.source {
        Some(IpAddr::V4(ip)) => {
            // in_pktinfo: any interface, this source, no destination.
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&ip.octets());
            put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if let Some(segment) = entry.segment {
        put(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }
    (control, used)
}

/// Sets an integer socket option.
pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    set_raw_option(socket, level, name, &value)
}

/// Steers a reuseport group by a classic BPF program.
pub(super) fn attach_filter(socket: BorrowedFd<'_>, code: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = code.as_ptr().cast_mut();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
    set_raw_option(socket, level, name, &libc::sock_fprog { len, filter })
}

fn set_raw_option<T>(socket: BorrowedFd<'_>, level: c_int, name: c_int, v: &T) -> io::Result<()> {
    let (fd, at) = (socket.as_raw_fd(), ptr::from_ref(v).cast());
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a `T`; the filter one may point to is
    // borrowed by the caller.
    check(unsafe { libc::setsockopt(fd, level, name, at, socklen::<T>()) }).map(drop)
}

/// A kernel map that a program and this process share.
#[derive(Debug)]
pub(super) struct BpfMap {
    fd: OwnedFd,
    key_bytes: usize,
    value_bytes: usize,
}

impl BpfMap {
    /// A map of `entries` pairs; needs CAP_BPF.
    pub(super) fn new(kind: u32, key: usize, value: usize, entries: u32) -> io::Result<Self> {
        let attributes = [words(kind, key as u32), words(value as u32, entries), 0, 0];
        let fd = bpf_fd(bpf::MAP_CREATE, &attributes)?;
        Ok(Self {
            fd,
            key_bytes: key,
            value_bytes: value,
        })
    }

    /// Sets the value of a key.
    pub(super) fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!(value.len(), self.value_bytes);
        self.access(bpf::MAP_UPDATE_ELEM, key, value.as_ptr() as u64)
    }

    /// The value of a key, `VALUE` bytes long.
    pub(super) fn find<const VALUE: usize>(&self, key: &[u8]) -> io::Result<[u8; VALUE]> {
        assert_eq!(VALUE, self.value_bytes);
        let mut value = [0; VALUE];
        self.access(bpf::MAP_LOOKUP_ELEM, key, value.as_mut_ptr() as u64)?;
        Ok(value)
    }

    /// Removes a key.
    pub(super) fn remove(&self, key: &[u8]) -> io::Result<()> {
        self.access(bpf::MAP_DELETE_ELEM, key, 0)
    }

    fn access(&self, command: c_int, key: &[u8], value: u64) -> io::Result<()> {
        assert_eq!(key.len(), self.key_bytes);
        let map = words(self.fd.as_raw_fd() as u32, 0);
        bpf_call(command, &[map, key.as_ptr() as u64, value, 0]).map(drop)
    }
}

impl AsRawFd for BpfMap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Loads an `sk_reuseport` program. On refusal the error carries the verifier's last words.
pub(super) fn load_program(code: &[u64], license: &CStr) -> io::Result<OwnedFd> {
    let count = words(bpf::PROG_TYPE_SK_REUSEPORT, code.len() as u32);
    let (code, license) = (code.as_ptr() as u64, license.as_ptr() as u64);
    let refused = match bpf_fd(bpf::PROG_LOAD, &[count, code, license, 0, 0, 0]) {
        Err(refused) if refused.raw_os_error() != Some(libc::EPERM) => refused,
        answer => return answer,
    };
    let mut log = vec![0_u8; 65_536];
    let (size, at) = (words(1, log.len() as u32), log.as_mut_ptr() as u64);
    let _ = bpf_fd(bpf::PROG_LOAD, &[count, code, license, size, at, 0]);
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let last = String::from_utf8_lossy(&log[end.saturating_sub(300)..end]);
    Err(io::Error::other(format!("{refused}: {last}")))
}

/// Two 32-bit fields of `bpf_attr`, side by side.
fn words(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn bpf_fd(command: c_int, attributes: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: the commands that make something return a new descriptor.
    bpf_call(command, attributes).and_then(|fd| unsafe { owned(fd) })
}

fn bpf_call(command: c_int, attributes: &[u64]) -> io::Result<c_int> {
    let (at, size) = (attributes.as_ptr(), size_of_val(attributes));
    // SAFETY: `attributes` is a prefix of `bpf_attr` of `size` bytes; the addresses in it are of
    // buffers the caller holds, of the sizes the map or the program was made with.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, at, size) } as c_int)
}

const EVENT: libc::epoll_event = libc::epoll_event {
    events: 0,
    u64: u64::MAX,
};

/// Waits for several descriptors at once.
#[derive(Debug)]
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers and makes a new descriptor.
        unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }.map(Self)
    }

    /// From here on waits for `events` (EPOLLIN, EPOLLOUT) of `fd`.
    pub(super) fn watch(&self, fd: BorrowedFd<'_>, events: c_int) -> io::Result<()> {
        let mut event = EVENT;
        (event.events, event.u64) = (events as u32, fd.as_raw_fd() as u64);
        let (epoll, fd, at) = (self.0.as_raw_fd(), fd.as_raw_fd(), &raw mut event);
        // SAFETY: the event lives through the calls; the kernel copies it.
        match check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, at) }) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            answer => return answer.map(drop),
        }
        // SAFETY: as above.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_MOD, fd, at) }).map(drop)
    }

    /// Sleeps until something happens or `timeout` (rounded up to a millisecond) has passed;
    /// without one, for as long as it takes. Returns whether `bell` was among what happened.
    pub(super) fn wait(&self, timeout: Option<Duration>, bell: BorrowedFd<'_>) -> io::Result<bool> {
        let up = |t: Duration| c_int::try_from(t.as_nanos().div_ceil(1_000_000));
        let timeout = timeout.map_or(-1, |t| up(t).unwrap_or(c_int::MAX));
        let mut events = [EVENT; 4];
        let (fd, at) = (self.0.as_raw_fd(), events.as_mut_ptr());
        let count = events.len() as c_int;
        // SAFETY: the kernel writes at most as many events as the array has.
        match check(unsafe { libc::epoll_wait(fd, at, count, timeout) }) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(events
                .iter()
                .any(|event| event.u64 == bell.as_raw_fd() as u64)),
        }
    }
}

/// A counter another thread can raise to end an [`Epoll::wait`].
pub(super) fn event_fd() -> io::Result<std::fs::File> {
    // SAFETY: the call takes no pointers and makes a new descriptor.
    unsafe { owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }.map(Into::into)
}

/// The CPUs this thread may run on.
pub(super) fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: all zero bits is an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the size given, which is the set's.
    check(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) })?;
    // SAFETY: CPU_ISSET reads the set at an index within its size.
    let allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(allowed).collect())
}

/// Keeps the calling thread on one CPU.
pub(super) fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: all zero bits is an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `cpu` is within the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads the size given, which is the set's.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }).map(drop)
}

/// Asks the kernel for an io_uring and gives it back at once.
pub(super) fn probe_io_uring() -> io::Result<()> {
    // `io_uring_params`: zeros ask for the defaults.
    let mut parameters = [0_u32; 30];
    let at = parameters.as_mut_ptr();
    // SAFETY: the kernel reads and writes the 120 bytes of `io_uring_params`, and makes a new
    // descriptor.
    unsafe { owned(libc::syscall(libc::SYS_io_uring_setup, 2, at) as c_int) }.map(drop)
}

/// Lets glommio wait for a socket. It closes its own copy of the descriptor.
pub(super) fn glommio_socket(socket: BorrowedFd<'_>) -> io::Result<glommio::net::UdpSocket> {
    let fd = socket.try_clone_to_owned()?.into_raw_fd();
    // SAFETY: the descriptor was just made and is given away here.
    Ok(unsafe { glommio::net::UdpSocket::from_raw_fd(fd) })
}

/// The addresses of all interfaces that are up.
pub(super) fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `getifaddrs` stores a list it owns, which is freed below and not used after.
    check(unsafe { libc::getifaddrs(&raw mut list) })?;
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: the list's nodes are valid until freed.
    while let Some(interface) = unsafe { next.as_ref() } {
        next = interface.ifa_next;
        if interface.ifa_flags & libc::IFF_UP as u32 == 0 || interface.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: an address is as long as its family says, and only that much is read.
        let (at, length) = match c_int::from(unsafe { (*interface.ifa_addr).sa_family }) {
            libc::AF_INET => (interface.ifa_addr, size_of::<libc::sockaddr_in>()),
            libc::AF_INET6 => (interface.ifa_addr, size_of::<libc::sockaddr_in6>()),
            _ => continue,
        };
        let mut name = SockAddrStorage::zeroed();
        // SAFETY: as above; the storage is as large as any address.
        let address = unsafe {
            ptr::copy_nonoverlapping(at.cast::<u8>(), ptr::from_mut(&mut name).cast(), length);
            SockAddr::new(name, length as socklen_t)
        };
        found.extend(address.as_socket().map(|address| address.ip()));
    }
    // SAFETY: made by `getifaddrs` above.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// Has the C library give free memory of every thread back to the system.
pub(super) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointers, and locks what it looks at.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// # Safety
///
/// `result` must be a new descriptor that nobody else owns, or -1.
unsafe fn owned(result: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for it.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: c_int) -> io::Result<c_int> {
    Some(result)
        .filter(|result| *result >= 0)
        .ok_or_else(io::Error::last_os_error)
}

fn socklen<T>() -> socklen_t {
    size_of::<T>() as socklen_t
}
