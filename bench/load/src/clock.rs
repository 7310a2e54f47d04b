//! The one place that reads clocks: a monotonic instant and Unix time, taken together.

use std::time::{Duration, Instant, SystemTime};

/// One moment, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// What str0m is told.
    pub(crate) instant: Instant,
    /// What stamps and the kernel's time stamps are in: nanoseconds since the epoch.
    pub(crate) unix_ns: u64,
}

impl Moment {
    /// Now.
    #[expect(
        clippy::disallowed_methods,
        reason = "clients on real sockets live in real time; this is where it is read"
    )]
    pub(crate) fn now() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            instant: Instant::now(),
            unix_ns: unix.unwrap_or_default().as_nanos() as u64,
        }
    }

    /// The instant of a kernel time stamp; one from the future counts as now.
    pub(crate) fn instant_of(&self, unix_ns: u64) -> Instant {
        let ago = Duration::from_nanos(self.unix_ns.saturating_sub(unix_ns));
        self.instant.checked_sub(ago).unwrap_or(self.instant)
    }
}

/// Lets a thread rest that serves nobody.
#[expect(
    clippy::disallowed_methods,
    reason = "the coordinator only watches, the floor only sends; the workers wait in epoll"
)]
pub(crate) fn rest(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_time_stamp_becomes_the_instant_it_stands_for() {
        let now = Moment::now();
        let past = now.instant_of(now.unix_ns - 5_000);
        assert_eq!(now.instant - past, Duration::from_nanos(5_000));
        assert_eq!(now.instant_of(now.unix_ns + 1), now.instant);
    }
}
