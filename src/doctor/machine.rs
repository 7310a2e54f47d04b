//! The kernel and what it grants.

use std::fs;
use std::process::Command;
use std::time::UNIX_EPOCH;

use super::Finding;
use crate::metrics::process::limit;
use crate::shard::probe;
use crate::signal::unix_time;

/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (5, 10);
/// Files that 10,000 clients need: each has a WebSocket, and some connect by TCP.
const FILES: u64 = 32_768;
/// Locked memory for the rings of io_uring, where the kernel counts it.
const LOCKED_BYTES: u64 = 8 << 20;
/// UDP buffers below which bursts are lost.
const BUFFER_BYTES: usize = 8 << 20;

pub(super) fn examine() -> Vec<Finding> {
    vec![
        kernel(),
        io_uring(),
        ebpf(),
        at_least("open files", "Max open files", FILES, "LimitNOFILE=65536"),
        at_least(
            "locked memory",
            "Max locked memory",
            LOCKED_BYTES,
            "LimitMEMLOCK=64M",
        ),
        udp_buffers(),
        clock(),
    ]
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim().to_owned();
    match version(&release) {
        Some(found) if found >= OLDEST => Finding::good("kernel", release),
        _ => Finding::bad(
            "kernel",
            format!("{release}: 5.10 or later is needed"),
            "update it",
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn io_uring() -> Finding {
    match probe::io_uring() {
        Ok(()) => Finding::good("io_uring", "allowed"),
        Err(error) => Finding::poor(
            "io_uring",
            format!("refused ({error}): shards wait by epoll"),
            "sysctl -w kernel.io_uring_disabled=0; in a container allow io_uring in the seccomp \
             profile",
        ),
    }
}

fn ebpf() -> Finding {
    match probe::ebpf() {
        Ok(()) => Finding::good(
            "eBPF",
            "allowed: the kernel steers datagrams to their shard",
        ),
        Err(error) => Finding::poor(
            "eBPF",
            format!("refused ({error}): a filter steers, and shards hand over what it misses"),
            "run it as the unit does, with CAP_BPF, or setcap cap_bpf+ep on the program",
        ),
    }
}

fn at_least(about: &'static str, name: &str, least: u64, fix: &str) -> Finding {
    // Without a number there is no limit.
    match limit(name) {
        Some(found) if found < least => Finding::poor(
            about,
            format!("at most {found}, {least} are recommended"),
            format!("{fix} in the unit, or `ulimit`"),
        ),
        Some(found) => Finding::good(about, format!("at most {found}")),
        None => Finding::good(about, "no limit"),
    }
}

fn udp_buffers() -> Finding {
    let fix =
        format!("sysctl -w net.core.rmem_max={BUFFER_BYTES} net.core.wmem_max={BUFFER_BYTES}");
    match probe::udp_buffer_bytes() {
        Ok(granted) if granted >= BUFFER_BYTES => {
            Finding::good("UDP buffers", format!("{granted} bytes"))
        }
        Ok(granted) => Finding::poor(
            "UDP buffers",
            format!("the kernel grants {granted} of {BUFFER_BYTES} bytes: bursts may be lost"),
            fix,
        ),
        Err(error) => Finding::bad("UDP buffers", format!("no UDP socket: {error}"), fix),
    }
}

/// Tokens, certificates and TURN credentials all hold for a time.
fn clock() -> Finding {
    let made = std::env::current_exe()
        .and_then(fs::metadata)
        .and_then(|file| file.modified());
    let made = made.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let fix = "timedatectl set-ntp true";
    if made.is_some_and(|made| made.as_secs() > unix_time() + 86_400) {
        return Finding::bad("clock", "it is before this program was made", fix);
    }
    let asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output();
    match asked.map(|answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned()) {
        Ok(answer) if answer == "yes" => Finding::good("clock", "synchronised"),
        Ok(answer) if answer == "no" => Finding::poor("clock", "not synchronised", fix),
        _ => Finding::good(
            "clock",
            "plausible; whether it is synchronised is not known here",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert!(version("5.9.16").unwrap() < OLDEST && version("5.10.0").unwrap() >= OLDEST);
        assert_eq!(version("unknown"), None);
    }
}
