//! What the benchmarks that time themselves time with.

use rustix::time::{ClockId, clock_gettime};

/// CPU time this thread has used, in nanoseconds.
pub(crate) fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
