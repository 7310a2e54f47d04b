//! The virtual clock: every simulation starts at the same instant and no time passes by itself.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Where virtual time starts, for simulations and for tests of whatever is told the time. One
/// instant for the whole process, so that two runs of one seed live at the same time.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from nothing; only differences to this one matter"
)]
pub(crate) fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Unix time at [`origin`].
pub(crate) const SINCE_EPOCH: Duration = Duration::from_secs(1_700_000_000);
