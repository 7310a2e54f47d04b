//! One recorded track: its packets become frames, its frames files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Options;
use super::container::{self, Container, Format};
use super::depacketise::{Depacketiser, Frame, Part, Setup};
use super::jitter::{self, JitterBuffer, Next};
use super::manifest::{
    Gap, GapReason, MAX_GAPS, RecordedFile, RecordedTrack, codec_name, kind_name, source_name,
};
use super::opus;
use super::timeline::{Report, SourceClock, Tie, Timeline, micros};
use crate::engine::codec::Codec;
use crate::engine::command::TrackInfo;
use crate::engine::copies::{CopiedPacket, CopiedReport};

/// A cluster is written at latest after this time, also when no further frame comes.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// How long the first picture of a file is thought to last while no other has come.
const USUAL_US: u64 = 33_000;

/// Files of one track. A source that makes more is recorded no further: each change of H264's
/// parameters begins one.
const MAX_FILES: usize = 10_000;

/// How far pictures are apart at least, and how far one is moved for that at most.
const MIN_APART_MS: u64 = 10;
const MAX_MOVED_MS: u64 = 100;

/// A track that is being recorded.
#[derive(Debug)]
pub(super) struct Recorded {
    info: TrackInfo,
    started: Instant,
    options: jitter::Options,
    format: Format,
    /// Its frames are encrypted: nobody here can tell what they are.
    is_opaque: bool,
    /// Of which layer and codec the packets are.
    stream: Option<(u8, Codec)>,
    buffer: JitterBuffer,
    depacketiser: Depacketiser,
    timeline: Timeline,
    /// The latest report of each layer, in the time of the recording.
    reports: BTreeMap<u8, Tie>,
    /// The same as it was sent.
    said: BTreeMap<u8, (i64, u32)>,
    file: Option<OpenFile>,
    gap: Option<Gap>,
    /// When the last frame ended, in microseconds of the track.
    end_us: i64,
    /// What the manifest says of it.
    told: RecordedTrack,
    /// Whether that has changed since it was last asked for.
    is_changed: bool,
    /// Whether a file was begun since that was last asked for.
    has_begun: bool,
}

/// The file that is being written, the last of [`RecordedTrack::files`].
#[derive(Debug)]
struct OpenFile {
    container: Container,
    setup: Option<Setup>,
    /// Time of its first frame, in microseconds of the track.
    begin_us: i64,
    last_ms: u64,
    /// How long the last frame is thought to last.
    last_us: u64,
    /// When something was last written that is not on the disk yet.
    unflushed_since: Option<Instant>,
}

impl Recorded {
    pub(super) fn new(
        info: &TrackInfo,
        started: Instant,
        options: &Options,
        is_opaque: bool,
    ) -> Self {
        let Options {
            format,
            jitter: options,
            ..
        } = *options;
        Self {
            info: info.clone(),
            started,
            options,
            format: if is_opaque { Format::Opaque } else { format },
            is_opaque,
            stream: None,
            buffer: JitterBuffer::new(options),
            depacketiser: Depacketiser::new(Codec::Opus, is_opaque),
            timeline: Timeline::new(1),
            reports: BTreeMap::new(),
            said: BTreeMap::new(),
            file: None,
            gap: None,
            end_us: 0,
            told: RecordedTrack {
                track_id: info.id.to_string(),
                participant_id: info.id.peer.to_string(),
                kind: kind_name(info.kind).to_owned(),
                source: source_name(info.source).to_owned(),
                files: Vec::new(),
                gaps: Vec::new(),
                gap_count: 0,
            },
            is_changed: true,
            has_begun: false,
        }
    }

    /// Takes in a packet.
    pub(super) fn handle_packet(
        &mut self,
        packet: CopiedPacket,
        directory: &Path,
    ) -> io::Result<()> {
        let stream = (packet.layer, packet.codec);
        if self.stream != Some(stream) {
            self.drain(directory)?;
            self.begin(stream, directory)?;
        }
        self.buffer.handle_packet(packet);
        Ok(())
    }

    /// Takes in a sender report.
    pub(super) fn handle_report(&mut self, copied: &CopiedReport, source: &mut SourceClock) {
        let said = (copied.source_us, copied.timestamp);
        // Some repeat what they said until they have sent something more.
        if self.said.insert(copied.layer, said) == Some(said) {
            return;
        }
        let report = Report {
            arrived_us: micros(self.started, copied.arrived),
            source_us: copied.source_us,
            timestamp: copied.timestamp,
        };
        let Some(at_us) = source.handle_report(&report) else {
            return;
        };
        let tie = Tie {
            timestamp: report.timestamp,
            arrived_us: report.arrived_us,
            at_us,
        };
        self.reports.insert(copied.layer, tie);
        if self.stream.is_some_and(|(layer, _)| layer == copied.layer) {
            self.tie(tie);
        }
    }

    /// Writes what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, directory: &Path) -> io::Result<()> {
        while let Some(next) = self.buffer.poll(now) {
            self.take(next, directory)?;
        }
        if let Some(file) = &mut self.file
            && file
                .unflushed_since
                .is_some_and(|since| now.saturating_duration_since(since) >= FLUSH_AFTER)
        {
            file.container.flush()?;
            file.unflushed_since = None;
            self.tell();
        }
        Ok(())
    }

    /// Writes what there is, and ends the file.
    pub(super) fn finish(&mut self, directory: &Path) -> io::Result<()> {
        self.drain(directory)?;
        self.stream = None;
        self.end_file(directory)
    }

    /// Whether only a keyframe lets it go on.
    pub(super) fn needs_keyframe(&self) -> bool {
        self.stream.is_some() && self.depacketiser.needs_keyframe()
    }

    /// What the manifest says of it, and whether that has changed since it was last asked for.
    pub(super) fn told(&mut self) -> (&RecordedTrack, bool) {
        let is_changed = std::mem::replace(&mut self.is_changed, false);
        (&self.told, is_changed)
    }

    /// Whether a file was begun since this was last asked.
    pub(super) fn has_begun(&mut self) -> bool {
        std::mem::take(&mut self.has_begun)
    }

    fn begin(&mut self, stream: (u8, Codec), directory: &Path) -> io::Result<()> {
        let before = self.stream.replace(stream);
        let (layer, codec) = stream;
        self.buffer = JitterBuffer::new(self.options);
        self.depacketiser = Depacketiser::new(codec, self.is_opaque);
        if before.is_none_or(|(_, before)| before != codec) {
            self.end_file(directory)?;
        }
        if before.is_none_or(|(_, before)| before.clock_rate() != codec.clock_rate()) {
            self.timeline = self.timeline.with_rate(codec.clock_rate());
        }
        self.timeline.handle_change();
        tracing::trace!(track = %self.info.id, layer, ?codec, "recording a layer");
        Ok(())
    }

    /// Gives out everything that waits.
    fn drain(&mut self, directory: &Path) -> io::Result<()> {
        while let Some(next) = self.buffer.flush() {
            self.take(next, directory)?;
        }
        Ok(())
    }

    fn take(&mut self, next: Next, directory: &Path) -> io::Result<()> {
        let packet = match next {
            Next::Lost(count) => {
                self.depacketiser.handle_gap();
                self.open_gap(count);
                return Ok(());
            }
            Next::Packet(packet) => packet,
        };
        self.depacketiser.handle_part(Part {
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload: &packet.payload,
        });
        while let Some(frame) = self.depacketiser.poll_frame() {
            self.write(&frame, packet.arrived, directory)?;
        }
        Ok(())
    }

    fn write(&mut self, frame: &Frame, arrived: Instant, directory: &Path) -> io::Result<()> {
        let Some((layer, codec)) = self.stream else {
            return Ok(());
        };
        let arrived_us = micros(self.started, arrived);
        let us = self.timeline.handle_frame(frame.timestamp, arrived_us);
        if let Some(tie) = self.reports.get(&layer).copied() {
            self.tie(tie);
        }
        self.close_gap(us);
        let needs_another = frame.setup.as_ref().is_some_and(|setup| {
            let written = self.file.as_ref().and_then(|file| file.setup.as_ref());
            codec == Codec::H264 && written.is_some_and(|written| written != setup)
        });
        if needs_another {
            self.end_file(directory)?;
        }
        if self.file.is_none() && !self.open_file(codec, frame, us, directory)? {
            return Ok(());
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let ms = ((us - file.begin_us).max(0) as u64 + 500) / 1000;
        let is_first = self.told.files.last().is_some_and(|told| told.frames == 0);
        let ms = if is_first {
            0
        } else {
            spaced(ms, file.last_ms, codec)
        };
        let step_us = (ms - file.last_ms) * 1000;
        file.last_us = match codec {
            Codec::Opus => opus::duration_us(&frame.data),
            _ if is_first => USUAL_US,
            _ => step_us.min(1_000_000),
        };
        file.last_ms = ms;
        file.container.write(ms, frame.is_keyframe, &frame.data)?;
        file.unflushed_since.get_or_insert(arrived);
        self.end_us = us + file.last_us as i64;
        if let Some(told) = self.told.files.last_mut() {
            told.frames += 1;
        }
        Ok(())
    }

    /// Begins a file with this frame; `false` when it cannot begin with it.
    fn open_file(
        &mut self,
        codec: Codec,
        frame: &Frame,
        us: i64,
        directory: &Path,
    ) -> io::Result<bool> {
        let is_fit = codec == Codec::Opus || frame.setup.is_some() || self.is_opaque;
        if !is_fit || self.told.files.len() == MAX_FILES {
            return Ok(false);
        }
        let name = format!(
            "{}-{}-{}-{}.{}",
            self.told.participant_id,
            self.told.source,
            self.info.id.number,
            self.told.files.len(),
            self.format.extension(codec)
        );
        let path = directory.join(&name);
        let container = Container::create(&path, self.format, codec, frame.setup.as_ref())?;
        let size = frame.setup.as_ref().map(|setup| setup.size);
        let size = size.unwrap_or_default();
        self.told.files.push(RecordedFile {
            name,
            codec: codec_name(codec).to_owned(),
            offset_ms: 0,
            duration_ms: 0,
            frames: 0,
            bytes: 0,
            width: size.width,
            height: size.height,
        });
        self.has_begun = true;
        self.file = Some(OpenFile {
            container,
            setup: frame.setup.clone(),
            begin_us: us,
            last_ms: 0,
            last_us: 0,
            unflushed_since: None,
        });
        self.tell();
        Ok(true)
    }

    fn end_file(&mut self, directory: &Path) -> io::Result<()> {
        self.tell();
        let (Some(file), Some(told)) = (self.file.take(), self.told.files.last_mut()) else {
            return Ok(());
        };
        let end_ms = file.last_ms + file.last_us.div_ceil(1000);
        match file.container.finish(end_ms) {
            Ok(bytes) => told.bytes = bytes,
            Err(error) => {
                // Without its last piece there may be room for what ends it.
                let path = directory.join(&told.name);
                let repaired = container::repair(&path)?;
                told.duration_ms = repaired.ms;
                told.frames = repaired.frames;
                told.bytes = fs::metadata(&path)?.len();
                tracing::warn!(name = told.name, %error, "a recorded file ends too early");
                if repaired.frames == 0 {
                    fs::remove_file(&path)?;
                    self.told.files.pop();
                }
            }
        }
        Ok(())
    }

    /// Brings what the manifest says of the open file up to date.
    fn tell(&mut self) {
        if let (Some(file), Some(told)) = (&self.file, self.told.files.last_mut()) {
            told.offset_ms = (self.timeline.offset_us() + file.begin_us).div_euclid(1000);
            told.duration_ms = file.last_ms + file.last_us.div_ceil(1000);
            told.bytes = file.container.written();
        }
        self.is_changed = true;
    }

    fn tie(&mut self, tie: Tie) {
        let Some(moved) = self.timeline.handle_report(tie) else {
            return;
        };
        let at_ms = self.recording_ms(self.end_us);
        self.tell_gap(Gap {
            at_ms,
            duration_ms: moved.unsigned_abs() / 1000,
            reason: GapReason::Clock,
            packets: 0,
        });
    }

    fn open_gap(&mut self, packets: u64) {
        let at_ms = self.recording_ms(self.end_us);
        let gap = self.gap.get_or_insert(Gap {
            at_ms,
            duration_ms: 0,
            reason: GapReason::Loss,
            packets: 0,
        });
        gap.packets += packets;
    }

    fn close_gap(&mut self, us: i64) {
        let Some(mut gap) = self.gap.take() else {
            return;
        };
        let until = self.recording_ms(us);
        gap.duration_ms = (until - gap.at_ms).max(0) as u64;
        self.tell_gap(gap);
    }

    fn tell_gap(&mut self, gap: Gap) {
        self.told.gap_count += 1;
        if self.told.gaps.len() < MAX_GAPS {
            self.told.gaps.push(gap);
        }
        self.is_changed = true;
    }

    fn recording_ms(&self, us: i64) -> i64 {
        (us + self.timeline.offset_us()).div_euclid(1000)
    }
}

/// A frame's time, later than that of the one before. Pictures that come in a burst are spread
/// out: programs that take 104 pictures a second for the most would lose some of them otherwise.
fn spaced(ms: u64, before_ms: u64, codec: Codec) -> u64 {
    let apart = before_ms + MIN_APART_MS;
    if codec != Codec::Opus && ms < apart && apart - ms <= MAX_MOVED_MS {
        return apart;
    }
    ms.max(before_ms + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_a_burst_are_spread_out_but_not_far_from_their_time() {
        let mut before = 0;
        let burst = [1, 2, 33, 66, 67, 68, 69, 70].map(|ms| {
            before = spaced(ms, before, Codec::Vp8);
            before
        });
        assert_eq!(burst, [10, 20, 33, 66, 76, 86, 96, 106]);
        assert_eq!(spaced(3, 1, Codec::Opus), 3);
        assert_eq!(spaced(1, 1, Codec::Opus), 2);
    }
}
