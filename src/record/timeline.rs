//! RTP timestamps told as time in a recording, so that all tracks of a participant stay in step.
//! Pure.
//!
//! A track's own clock runs by its timestamps, and drifts: a sound card's quartz may be off by
//! some 100 ppm, which is a third of a second in an hour. The sender reports of a participant tie
//! the clocks of all its tracks to one other clock, its own. So a track's place on that clock is
//! found by its first report, and its drift from there is taken back little by little, less than
//! anybody hears. What stood still, as a sound card does that was not read in time, counts fewer
//! samples than time has passed, all at once: it is moved at once, too. The participant's clock is
//! tied to ours by when its reports arrive.

use std::time::Instant;

/// What drift is taken back at most: 5 ms in a second.
const MAX_SLEW_PER_MILLE: i64 = 5;

/// How far a participant's clock is led towards ours between two reports: 1 ms in a second. It
/// is the same for all of its tracks.
const MAX_SHIFT_SLEW_PER_MILLE: i64 = 1;

/// Sound that is off by more than this stood still, it did not drift: it is moved at once.
const STALL_US: i64 = 30_000;

/// The rate of all pictures' timestamps, which tell time (RFC 3551 §5); those of sound count
/// samples.
const PICTURE_RATE: i64 = 90_000;

/// A participant's clock that is off by more than this was set, not drifting.
const STEP_US: i64 = 1_000_000;

/// How many reports in a row must be off by that much before the one after them is believed.
const STEP_MISFITS: u8 = 3;

/// Timestamps that go this much further, or less far, than the time in which they arrived are no
/// clock's: the source paused and its timestamps with it, or it began to count anew. A report with
/// such a timestamp is of before that, or nonsense.
const PAUSE_US: i64 = 5_000_000;

/// A sender report's pair of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// When it arrived, in microseconds of the recording.
    pub arrived_us: i64,
    /// The participant's clock then.
    pub source_us: i64,
    /// The RTP timestamp that belongs to it.
    pub timestamp: u32,
}

/// One participant's clock, in the time of the recording.
#[derive(Debug, Clone, Copy, Default)]
pub struct SourceClock {
    /// Added to the participant's time, and when that was last looked at.
    shift: Option<(i64, i64)>,
    /// Reports in a row that do not fit that at all.
    misfits: u8,
}

impl SourceClock {
    /// Takes in a report of any of the participant's tracks, and tells its time in that of the
    /// recording; `None` when it fits none of those before it.
    pub fn handle_report(&mut self, report: &Report) -> Option<i64> {
        let measured = report.arrived_us - report.source_us;
        let shift = match self.shift {
            Some((shift, at)) if (measured - shift).abs() < STEP_US => {
                self.misfits = 0;
                let elapsed = (report.arrived_us - at).max(0);
                let most = elapsed * MAX_SHIFT_SLEW_PER_MILLE / 1000;
                shift + (measured - shift).clamp(-most, most)
            }
            // One may have come late by so much, or its clock was set: the next ones tell.
            Some(_) if self.misfits < STEP_MISFITS => {
                self.misfits += 1;
                return None;
            }
            _ => {
                self.misfits = 0;
                measured
            }
        };
        self.shift = Some((shift, report.arrived_us));
        Some(report.source_us + shift)
    }
}

/// A sender report in the time of the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tie {
    /// An RTP timestamp.
    pub timestamp: u32,
    /// When the report arrived.
    pub arrived_us: i64,
    /// What belongs to the timestamp, as told by [`SourceClock::handle_report`].
    pub at_us: i64,
}

/// One track's time.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// RTP timestamp units per second.
    rate: i64,
    /// Where a stretch of the track's own clock begins; `None` before the first frame and after
    /// the track went over to other timestamps.
    anchor: Option<Anchor>,
    /// Time of the last frame, and when it arrived.
    last: Option<(i64, i64)>,
    /// The drift that is still to be taken back.
    owed_us: i64,
    /// When that was last done.
    slewed_us: i64,
    /// Whether a report has told where the track is.
    is_tied: bool,
    /// Added to the times of all frames to get the time of the recording.
    offset_us: i64,
}

/// A timestamp and the time that belongs to it.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    /// Timestamps continued past 32 bits.
    ticks: i64,
    timestamp: u32,
    us: i64,
}

impl Timeline {
    /// The time of a track with so many timestamp units a second.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        Self {
            rate: i64::from(rate.max(1)),
            anchor: None,
            last: None,
            owed_us: 0,
            slewed_us: 0,
            is_tied: false,
            offset_us: 0,
        }
    }

    /// The same, going on with timestamps of another rate.
    #[must_use]
    pub fn with_rate(&self, rate: u32) -> Self {
        Self {
            rate: i64::from(rate.max(1)),
            anchor: None,
            ..self.clone()
        }
    }

    /// The time of a frame since the track's first one, in microseconds, always later than the
    /// one before. `arrived_us` is in the time of the recording.
    pub fn handle_frame(&mut self, timestamp: u32, arrived_us: i64) -> i64 {
        if self.is_apart(timestamp, arrived_us) {
            self.handle_change();
        }
        let us = match self.anchor {
            None => self.begin(timestamp, arrived_us),
            Some(_) => self.us(timestamp),
        };
        self.slew(us);
        let us = self.us(timestamp);
        let us = self.last.map_or(us, |(last, _)| us.max(last + 1));
        self.last = Some((us, arrived_us));
        self.keep_near(timestamp);
        us
    }

    /// Takes in what a report says. Returns by how much the track was moved at once, if it was.
    pub fn handle_report(&mut self, tie: Tie) -> Option<i64> {
        self.anchor?;
        if self.is_apart(tie.timestamp, tie.arrived_us) {
            return None;
        }
        let off = tie.at_us - (self.us(tie.timestamp) + self.offset_us);
        if !self.is_tied {
            self.is_tied = true;
            self.offset_us += off;
            return None;
        }
        let is_picture = self.rate == PICTURE_RATE;
        if off.abs() < if is_picture { STEP_US } else { STALL_US } {
            self.owed_us = off;
            return None;
        }
        self.owed_us = 0;
        self.shift(off);
        Some(off)
    }

    /// What comes has other timestamps: another layer, or a new stream.
    pub fn handle_change(&mut self) {
        self.anchor = None;
        self.owed_us = 0;
    }

    /// When the track's first frame was, in the time of the recording.
    #[must_use]
    pub fn offset_us(&self) -> i64 {
        self.offset_us
    }

    /// Whether a timestamp and when it arrived are not of the clock that the last frame was of.
    fn is_apart(&self, timestamp: u32, arrived_us: i64) -> bool {
        let (Some(_), Some((last, arrived))) = (self.anchor, self.last) else {
            return false;
        };
        let apart = (self.us(timestamp) - last) - (arrived_us - arrived);
        apart.abs() > PAUSE_US
    }

    fn begin(&mut self, timestamp: u32, arrived_us: i64) -> i64 {
        let us = match self.last {
            None => {
                self.offset_us = arrived_us;
                0
            }
            Some((last, arrived)) => last + (arrived_us - arrived).max(1),
        };
        self.anchor = Some(Anchor {
            ticks: 0,
            timestamp,
            us,
        });
        us
    }

    /// The time of a timestamp that is within half a turn of the last one.
    fn us(&self, timestamp: u32) -> i64 {
        let Some(anchor) = self.anchor else {
            return 0;
        };
        let ahead = i64::from(timestamp.wrapping_sub(anchor.timestamp).cast_signed());
        anchor.us + (anchor.ticks + ahead) * 1_000_000 / self.rate
    }

    /// Takes back a part of the drift, by how much time has passed.
    fn slew(&mut self, us: i64) {
        let elapsed = (us - self.slewed_us).max(0);
        let most = elapsed * MAX_SLEW_PER_MILLE / 1000;
        if most == 0 {
            return;
        }
        self.slewed_us = us;
        let step = self.owed_us.clamp(-most, most);
        self.owed_us -= step;
        self.shift(step);
    }

    fn shift(&mut self, by_us: i64) {
        if let Some(anchor) = &mut self.anchor {
            anchor.us += by_us;
        }
    }

    /// Lets the anchor follow, so that timestamps may wrap around any number of times.
    fn keep_near(&mut self, timestamp: u32) {
        if let Some(anchor) = &mut self.anchor {
            let ahead = timestamp.wrapping_sub(anchor.timestamp).cast_signed();
            anchor.ticks += i64::from(ahead);
            anchor.timestamp = timestamp;
        }
    }
}

/// Microseconds from `start` to `at`, negative when it is before.
#[must_use]
pub fn micros(start: Instant, at: Instant) -> i64 {
    let forward = at.saturating_duration_since(start).as_micros() as i64;
    let back = start.saturating_duration_since(at).as_micros() as i64;
    forward - back
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A track whose clock runs by `ppm` too fast against its participant's.
    struct Sender {
        rate: f64,
        ppm: f64,
        first: u32,
    }

    impl Sender {
        /// The timestamp at `us` of the participant's clock.
        fn timestamp(&self, us: i64) -> u32 {
            let ticks = us as f64 / 1e6 * self.rate * (1.0 + self.ppm / 1e6);
            self.first.wrapping_add(ticks as i64 as u32)
        }
    }

    /// An hour of sound and pictures; the greatest distance in microseconds between what was
    /// captured at one moment, after the first seconds.
    fn worst_after_an_hour(audio_ppm: f64, video_ppm: f64, source_ppm: f64) -> i64 {
        let senders = [
            Sender {
                rate: 48_000.0,
                ppm: audio_ppm,
                first: 4_294_000_000,
            },
            Sender {
                rate: 90_000.0,
                ppm: video_ppm,
                first: 77,
            },
        ];
        let mut source = SourceClock::default();
        let mut lines = [Timeline::new(48_000), Timeline::new(90_000)];
        let mut random = 1_u64;
        let mut jitter = move || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as i64 % 30_000
        };
        let mut worst = 0;
        let mut at = [0; 2];
        for ms in (0..3_600_000_i64).step_by(20) {
            let captured = ms * 1000;
            // Our clock, which the participant's leaves behind.
            let ours = (captured as f64 * (1.0 - source_ppm / 1e6)) as i64;
            for (index, (sender, line)) in senders.iter().zip(&mut lines).enumerate() {
                let delay = 40_000 + jitter() + if index == 1 { 60_000 } else { 0 };
                let timestamp = sender.timestamp(captured);
                at[index] = line.handle_frame(timestamp, ours + delay) + line.offset_us();
                // Video tells its clock every second, sound every five.
                let every = if index == 1 { 1000 } else { 5000 };
                if ms % every == 500 {
                    let report = Report {
                        arrived_us: ours + 40_000 + jitter(),
                        source_us: 1_700_000_000_000_000 + captured,
                        timestamp,
                    };
                    let tie = Tie {
                        timestamp,
                        arrived_us: report.arrived_us,
                        at_us: source.handle_report(&report).unwrap(),
                    };
                    assert_eq!(line.handle_report(tie), None);
                }
            }
            if ms > 10_000 {
                worst = worst.max((at[0] - at[1]).abs());
            }
        }
        worst
    }

    #[test]
    fn sound_and_pictures_stay_in_step_for_an_hour_of_drift() {
        for (audio, video, source) in [
            (0.0, 0.0, 0.0),
            (100.0, -50.0, 0.0),
            (-200.0, 100.0, 100.0),
            (300.0, 0.0, -200.0),
        ] {
            let worst = worst_after_an_hour(audio, video, source);
            assert!(worst <= 20_000, "{audio} {video} {source}: {worst} us");
        }
    }

    #[test]
    fn a_late_report_moves_nothing_and_a_clock_that_was_set_is_believed_in_the_end() {
        let mut source = SourceClock::default();
        let mut told = |arrived_us, source_us| {
            source.handle_report(&Report {
                arrived_us,
                source_us,
                timestamp: 0,
            })
        };
        assert_eq!(told(1_000_000, 0), Some(1_000_000));
        assert_eq!(told(4_000_000, 1_000_000), None, "it is two seconds late");
        assert_eq!(told(4_000_000, 3_000_000), Some(4_000_000));
        let set = [5, 6, 7, 8].map(|second| told(second * 1_000_000, (second + 99) * 1_000_000));
        assert_eq!(set, [None, None, None, Some(8_000_000)]);
    }

    #[test]
    fn silence_leaves_a_gap_as_long_as_it_was() {
        let mut line = Timeline::new(48_000);
        assert_eq!(line.handle_frame(960, 5_000), 0);
        assert_eq!(line.handle_frame(1920, 25_000), 20_000);
        assert_eq!(line.handle_frame(1920 + 48_000, 1_025_000), 1_020_000);
        assert_eq!(line.offset_us(), 5_000);
    }

    #[test]
    fn another_layer_goes_on_where_the_one_before_was() {
        let mut line = Timeline::new(90_000);
        line.handle_frame(0, 0);
        line.handle_frame(3_000, 33_000);
        line.handle_change();
        assert_eq!(line.handle_frame(999_999, 67_000), 33_333 + 34_000);
        assert_eq!(line.handle_frame(999_999 + 3_000, 100_000), 67_333 + 33_333);
    }

    /// A report that arrives at `arrived_us` and is of `at_us`.
    fn tie(timestamp: u32, arrived_us: i64, at_us: i64) -> Tie {
        Tie {
            timestamp,
            arrived_us,
            at_us,
        }
    }

    #[test]
    fn a_source_that_stood_still_is_moved_by_as_long_at_its_next_report() {
        let mut line = Timeline::new(48_000);
        line.handle_frame(0, 0);
        line.handle_report(tie(0, 0, 0));
        // 120 ms of samples were never taken.
        line.handle_frame(48_000, 1_120_000);
        let moved = line.handle_report(tie(48_000, 1_120_000, 1_120_000));
        assert_eq!(moved, Some(120_000));
        assert_eq!(line.handle_frame(48_960, 1_140_000), 1_140_000);
    }

    #[test]
    fn a_track_that_is_moved_far_is_moved_at_once_and_time_never_runs_back() {
        let mut line = Timeline::new(48_000);
        line.handle_frame(0, 0);
        line.handle_report(tie(0, 0, 0));
        let moved = line.handle_report(tie(48_000, 1_000_000, 6_000_000));
        assert_eq!(moved, Some(5_000_000));
        assert_eq!(line.handle_frame(48_000, 1_000_000), 6_000_000);
        let moved = line.handle_report(tie(96_000, 2_000_000, 2_000_000));
        assert!(moved.is_some());
        assert_eq!(line.handle_frame(96_000, 2_000_000), 6_000_001);
    }

    #[test]
    fn a_pause_that_timestamps_do_not_tell_lasts_as_long_as_nothing_came() {
        let mut line = Timeline::new(48_000);
        line.handle_frame(0, 0);
        let before = tie(0, 0, 0);
        line.handle_report(before);
        // Two minutes without a sample taken; the timestamps go on where they were.
        assert_eq!(line.handle_frame(960, 120_000_000), 120_000_000);
        assert_eq!(line.handle_report(before), None, "it is of before");
        assert_eq!(line.handle_frame(1920, 120_020_000), 120_020_000);
    }

    #[test]
    fn timestamps_that_jump_are_no_time_that_passed() {
        for jumped in [3_000_000_000, 1_000_000_000, 4_294_000_000] {
            let mut line = Timeline::new(90_000);
            line.handle_frame(0, 0);
            assert_eq!(line.handle_frame(jumped, 33_000), 33_000);
            assert_eq!(line.handle_frame(jumped + 2970, 66_000), 66_000);
        }
    }

    #[test]
    fn absurd_reports_leave_a_track_where_it_arrives() {
        let mut source = SourceClock::default();
        let mut line = Timeline::new(90_000);
        let mut random = 1_u64;
        for second in 0..600_i64 {
            let arrived_us = second * 1_000_000;
            let us = line.handle_frame(second as u32 * 90_000, arrived_us) + line.offset_us();
            assert!((us - arrived_us).abs() < PAUSE_US, "{us} at {arrived_us}");
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let report = Report {
                arrived_us,
                source_us: (random >> 8) as i64,
                timestamp: (random >> 32) as u32,
            };
            if let Some(at_us) = source.handle_report(&report) {
                line.handle_report(tie(report.timestamp, arrived_us, at_us));
            }
        }
    }
}
