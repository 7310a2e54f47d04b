//! What the process uses, by Prometheus' usual names, from `/proc/self`.

use std::fs;

use super::Family;

/// What the kernel says of this process; what it does not say is left out.
#[must_use]
pub fn families() -> Vec<Family> {
    let mut families = Vec::new();
    if let Some(bytes) = resident_bytes() {
        families.push(Family::gauge(
            "process_resident_memory_bytes",
            "Resident memory in bytes.",
            bytes as f64,
        ));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        families.push(Family::gauge(
            "process_open_fds",
            "Open file descriptors.",
            open.count() as f64,
        ));
    }
    if let Some(most) = limit("Max open files") {
        families.push(Family::gauge(
            "process_max_fds",
            "Most file descriptors that may be open.",
            most as f64,
        ));
    }
    families
}

/// Resident memory of the process, in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().split(' ').next()?.parse().ok()?;
    Some(kib * 1024)
}

/// A soft limit of the process, by its name in `/proc/self/limits`. `None` when there is none.
#[must_use]
pub fn limit(name: &str) -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_what_it_uses() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(limit("Max open files").unwrap() > 8);
        assert_eq!(families().len(), 3);
    }
}
