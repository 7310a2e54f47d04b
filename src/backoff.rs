//! How long to wait before what failed is tried again.

use std::time::Duration;

/// Pauses that double with each failure in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// After the first failure.
    pub(crate) first: Duration,
    /// The longest.
    pub(crate) longest: Duration,
}

impl Backoff {
    /// How long to wait after so many failures and one more.
    #[must_use]
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures);
        self.first.saturating_mul(factor).min(self.longest)
    }
}
