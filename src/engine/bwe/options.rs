//! Between what bounds an estimator estimates, and from where it begins.

use str0m::bwe::Bitrate;

/// What an estimator is told once.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The target never goes below this.
    pub min: Bitrate,
    /// The target never goes above this.
    pub max: Bitrate,
    /// The target before anything is known. libwebrtc begins at 300 kbit/s.
    pub start: Bitrate,
    /// Transport-wide feedback was negotiated.
    pub transport_wide: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            min: Bitrate::kbps(50),
            max: Bitrate::mbps(30),
            start: Bitrate::kbps(300),
            transport_wide: true,
        }
    }
}
