//! Publishers' clocks told in ours, so that all streams of one source stay in step.
//!
//! A publisher's sender reports tie its RTP timestamps to its own wall clock. Viewers get reports
//! on *our* wall clock, which makes their round-trip arithmetic work (RFC 3550 §6.4.1). One shift
//! per source leads from the one clock to the other: it may be wrong by the network's delay, but
//! it is wrong by the same amount for sound and picture, so lips stay in sync.

use std::time::{Duration, Instant};

/// Seconds from the NTP era (1900) to the Unix epoch (RFC 868).
const NTP_UNIX_SECONDS: u64 = 2_208_988_800;

/// How far a source's clock may drift from its shift before it is measured anew, as a stepped
/// clock would need. Crystals drift below 0.36 s an hour (100 ppm), and drift alone hurts nobody:
/// every stream of the source has the same.
pub const MAX_CLOCK_DRIFT: Duration = Duration::from_secs(1);

/// A point in time as RTCP writes it: 32.32 fixed-point seconds since 1900 (RFC 3550 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ntp(u64);

impl Ntp {
    /// The 64 bits on the wire.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// A point in time given as time since the Unix epoch.
    #[must_use]
    pub fn from_unix(since_epoch: Duration) -> Self {
        Self((NTP_UNIX_SECONDS << 32).wrapping_add(fixed_point(since_epoch)))
    }

    /// Microseconds since the Unix epoch; less than 0 before it, as a publisher's clock may show.
    #[must_use]
    pub fn unix_us(self) -> i64 {
        let us = (u128::from(self.0) * 1_000_000) >> 32;
        us as i64 - NTP_UNIX_SECONDS.cast_signed() * 1_000_000
    }

    /// The 64 bits on the wire.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The middle 32 bits, in which receivers echo a report's time (RFC 3550 §6.4.1, LSR).
    #[must_use]
    pub const fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// 24 bits, 6.18 fixed-point seconds: the abs-send-time header extension
    /// (`http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`).
    #[must_use]
    pub const fn abs_send_time(self) -> u32 {
        (self.0 >> 14) as u32 & 0x00ff_ffff
    }

    /// `self - earlier` in units of 2^-32 s.
    const fn since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    const fn shifted(self, by: i64) -> Self {
        Self(self.0.wrapping_add_signed(by))
    }
}

/// Our wall clock: `Instant`s told as NTP time.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    origin: Instant,
    ntp: Ntp,
}

impl WallClock {
    /// The clock that showed `since_epoch` (Unix time) at `origin`.
    #[must_use]
    pub fn new(origin: Instant, since_epoch: Duration) -> Self {
        Self {
            origin,
            ntp: Ntp::from_unix(since_epoch),
        }
    }

    /// What it shows at `now`.
    #[must_use]
    pub fn at(&self, now: Instant) -> Ntp {
        let forward = now.saturating_duration_since(self.origin);
        let back = self.origin.saturating_duration_since(now);
        let bits = self.ntp.0.wrapping_add(fixed_point(forward));
        Ntp(bits.wrapping_sub(fixed_point(back)))
    }
}

/// One source's clock: everything a peer publishes under one `CNAME`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SourceClock {
    /// Added to the source's time to get ours, in 2^-32 s; `None` before its first report.
    shift: Option<i64>,
}

impl SourceClock {
    /// Takes in the time of a sender report that arrived at `arrival` (our clock) and tells it in
    /// our clock. Call it for every report of every stream of the source.
    pub fn handle_report(&mut self, arrival: Ntp, report: Ntp) -> Ntp {
        let measured = arrival.since(report);
        let drifted = |shift: i64| measured.wrapping_sub(shift).unsigned_abs();
        let shift = match self.shift {
            Some(shift) if drifted(shift) <= fixed_point(MAX_CLOCK_DRIFT) => shift,
            _ => measured,
        };
        self.shift = Some(shift);
        report.shifted(shift)
    }
}

/// Which RTP timestamp one stream has at which time of our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamClock {
    at: Ntp,
    timestamp: u32,
    rate: u32,
}

impl StreamClock {
    /// The stream showed `timestamp` at `at`; `rate` is its ticks per second. From a sender report
    /// by way of [`SourceClock::handle_report`]; while there is none, from a packet's arrival.
    #[must_use]
    pub const fn new(at: Ntp, timestamp: u32, rate: u32) -> Self {
        Self {
            at,
            timestamp,
            rate,
        }
    }

    /// The same clock seen in a slot that adds `offset`, wrapping, to every timestamp.
    #[must_use]
    pub const fn in_slot(self, offset: u32) -> Self {
        Self {
            timestamp: self.timestamp.wrapping_add(offset),
            ..self
        }
    }

    /// How many microseconds `timestamp` of this stream is after `before` of another one of the
    /// same source; negative when it is earlier.
    #[must_use]
    pub fn micros_since(&self, timestamp: u32, other: &Self, before: u32) -> i64 {
        let told = |clock: &Self, timestamp: u32| {
            let ticks = i64::from(timestamp.wrapping_sub(clock.timestamp).cast_signed());
            ticks * 1_000_000 / i64::from(clock.rate)
        };
        let apart = (i128::from(self.at.since(other.at)) * 1_000_000) >> 32;
        (apart as i64)
            .saturating_add(told(self, timestamp))
            .saturating_sub(told(other, before))
    }

    /// The timestamp that belongs to `at`, also where no packet has it.
    #[must_use]
    pub fn timestamp(&self, at: Ntp) -> u32 {
        let ticks = (i128::from(at.since(self.at)) * i128::from(self.rate)) >> 32;
        self.timestamp.wrapping_add(ticks as u32)
    }
}

/// A span in units of 2^-32 s.
fn fixed_point(span: Duration) -> u64 {
    let fraction = (u64::from(span.subsec_nanos()) << 32) / 1_000_000_000;
    (span.as_secs() << 32).wrapping_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::some_instant;
    use super::*;

    fn ntp(seconds: f64) -> Ntp {
        Ntp::from_unix(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn the_wall_clock_runs_both_ways_from_its_origin() {
        let origin = some_instant() + Duration::from_secs(10);
        let clock = WallClock::new(origin, Duration::from_secs(1_000));
        let half = Duration::from_millis(500);
        assert_eq!(clock.at(origin), ntp(1_000.0));
        assert_eq!(clock.at(origin + half), ntp(1_000.5));
        assert_eq!(clock.at(origin - half), ntp(999.5));
    }

    #[test]
    fn the_unix_epoch_is_where_rfc_868_puts_it() {
        assert_eq!(ntp(0.0).bits() >> 32, 2_208_988_800);
        assert_eq!(ntp(0.25).middle(), 0x7e80_4000);
    }

    #[test]
    fn a_publishers_clock_may_show_any_time() {
        let epoch = Ntp::from_unix(Duration::ZERO);
        assert_eq!(
            Ntp::from_unix(Duration::from_millis(2500)).unix_us(),
            2_500_000
        );
        assert_eq!(epoch.shifted(-(5 << 31)).unix_us(), -2_500_000);
        assert_eq!(Ntp::from_bits(0).unix_us(), -2_208_988_800_000_000);
        assert!(Ntp::from_bits(u64::MAX).unix_us() > 0);
    }

    #[test]
    fn abs_send_time_has_six_bits_of_seconds_and_wraps_after_64() {
        assert_eq!(Ntp::from_bits(1 << 32).abs_send_time(), 1 << 18);
        assert_eq!(Ntp::from_bits(65 << 32).abs_send_time(), 1 << 18);
        assert_eq!(Ntp::from_bits(u64::MAX).abs_send_time(), 0x00ff_ffff);
    }

    #[test]
    fn sound_and_picture_keep_the_distance_the_publisher_gave_them() {
        let mut source = SourceClock::default();
        // The publisher's clock is a year ahead; its two reports come 125 and 250 ms late.
        let year = 31_536_000.0;
        let audio = source.handle_report(ntp(5.125), ntp(year + 5.0));
        let video = source.handle_report(ntp(5.5), ntp(year + 5.25));
        assert_eq!(video.since(audio), 1 << 30, "a quarter of a second");

        let audio = StreamClock::new(audio, 1_000, 48_000);
        let video = StreamClock::new(video, u32::MAX - 1_000, 90_000).in_slot(500);
        let later = ntp(7.125);
        assert_eq!(audio.timestamp(later), 1_000 + 2 * 48_000);
        let elapsed = 90_000 * 7 / 4;
        assert_eq!(
            video.timestamp(later),
            (u32::MAX - 500).wrapping_add(elapsed)
        );
    }

    #[test]
    fn jitter_does_not_move_a_source_but_a_stepped_clock_does() {
        let mut source = SourceClock::default();
        assert_eq!(source.handle_report(ntp(10.0), ntp(50.0)), ntp(10.0));
        assert_eq!(source.handle_report(ntp(11.9), ntp(51.0)), ntp(11.0));
        assert_eq!(source.handle_report(ntp(12.0), ntp(99.0)), ntp(12.0));
    }

    #[test]
    fn a_time_before_the_report_has_an_earlier_timestamp() {
        let clock = StreamClock::new(ntp(2.0), 90_000, 90_000);
        assert_eq!(clock.timestamp(ntp(1.5)), 45_000);
    }

    #[test]
    fn timestamps_of_two_streams_are_compared_by_their_clocks() {
        let one = StreamClock::new(ntp(10.0), u32::MAX - 9_000, 90_000);
        let two = StreamClock::new(ntp(8.0), 5_000, 90_000);
        assert_eq!(two.micros_since(5_000, &one, u32::MAX - 9_000), -2_000_000);
        assert_eq!(two.micros_since(194_000, &one, 81_000 - 1), -900_000);
        assert_eq!(one.micros_since(90_000, &one, 0), 1_000_000);
    }
}
