//! One file of all tracks of a recording, made by ffmpeg from the manifest.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, RecordedFile, RecordedTrack};
use super::recorder::is_file_name;

/// Pixels of the picture that is made.
const WIDTH: usize = 1280;
const HEIGHT: usize = 720;

/// Pictures per second of it.
const FRAME_RATE: usize = 30;

/// Files that one picture is made of. ffmpeg holds all of them open.
const MAX_FILES: usize = 500;

/// How the pictures are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// All of one size, side by side.
    #[default]
    Grid,
    /// A shared screen, or else the first camera, large; the others in a column beside it.
    Speaker,
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// How the pictures are laid out.
    pub layout: Layout,
    /// The file that is made: its name ends in `.webm` or `.mp4`.
    pub out: PathBuf,
    /// Of the picture, in bit/s.
    pub video_bps: u64,
    /// Of the sound, in bit/s.
    pub audio_bps: u64,
    /// Whether it leaves the processor to whoever else wants it.
    pub is_nice: bool,
}

/// Why nothing was composed.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// There is no recording there.
    #[error("{0} has no recording that can be read: {1}")]
    NoRecording(PathBuf, io::Error),
    /// The recording has no media.
    #[error("nothing was recorded: there is no sound and no picture in it")]
    Nothing,
    /// There are more files than can be open at one time.
    #[error("the recording has {0} files, at most {MAX_FILES} can be composed")]
    TooMany(usize),
    /// The name of the file does not say what it is to be.
    #[error("{0}: name the file that is made .webm or .mp4")]
    Format(PathBuf),
    /// ffmpeg could not be started.
    #[error("ffmpeg cannot be started: {0}; on Debian `apt install ffmpeg`")]
    Start(io::Error),
    /// ffmpeg failed.
    #[error("ffmpeg failed: {0}")]
    Failed(String),
}

/// Makes one file of the recording in `directory`, and tells how far it is: milliseconds done, and
/// in all.
///
/// # Errors
///
/// [`ComposeError`].
pub fn compose(
    directory: &Path,
    wanted: &Wanted,
    mut tell: impl FnMut(u64, u64),
) -> Result<(), ComposeError> {
    let manifest = Manifest::load(directory)
        .map_err(|error| ComposeError::NoRecording(directory.to_owned(), error))?;
    let total = manifest.duration_ms();
    let runs = Runs::new(&manifest, directory, wanted)?;
    let done = runs.run(wanted.is_nice, |ms| tell(ms.min(total), total));
    if let Some((_, sound)) = &runs.sound {
        // It may not have been made.
        let _ = std::fs::remove_file(sound);
    }
    done?;
    tell(total, total);
    Ok(())
}

/// What ffmpeg is told. Sound is mixed by itself: its mixer loses count of time when it has to wait
/// for pictures.
struct Runs {
    /// The arguments that mix the sound, and the file that it is mixed into.
    sound: Option<(Vec<String>, PathBuf)>,
    /// Those that make the whole.
    all: Vec<String>,
}

impl Runs {
    fn new(manifest: &Manifest, directory: &Path, wanted: &Wanted) -> Result<Self, ComposeError> {
        let codecs = match wanted.out.extension().and_then(|ending| ending.to_str()) {
            Some("webm") => ["libvpx", "libopus", "-deadline realtime -cpu-used 8"],
            Some("mp4") => ["libx264", "aac", "-preset veryfast -movflags +faststart"],
            _ => return Err(ComposeError::Format(wanted.out.clone())),
        };
        let of_kind = |kind: &str| -> Vec<&RecordedTrack> {
            let tracks = manifest.tracks.iter();
            tracks
                .filter(|track| track.kind == kind && track.files.iter().any(is_usable))
                .collect()
        };
        let (videos, sounds) = (of_kind("video"), of_kind("audio"));
        let files = videos.iter().chain(&sounds).flat_map(|track| &track.files);
        let count = files.filter(|file| is_usable(file)).count();
        match count {
            0 => return Err(ComposeError::Nothing),
            1..=MAX_FILES => {}
            _ => return Err(ComposeError::TooMany(count)),
        }
        let mut mix = Graph::new(directory);
        let sound = mix.sounds(&sounds).map(|sound| {
            let file = wanted.out.with_extension("sound.mka");
            let mut arguments = mix.arguments();
            add(&mut arguments, &format!("-map [{sound}] -c:a pcm_s16le"));
            arguments.push(file.display().to_string());
            (arguments, file)
        });
        let mut graph = Graph::new(directory);
        let picture = graph.pictures(manifest.duration_ms(), &videos, wanted.layout);
        let mixed = sound.as_ref().map(|(_, file)| graph.input_file(file));
        let mut all = graph.arguments();
        let (video_bps, audio_bps) = (wanted.video_bps, wanted.audio_bps);
        let pictures = format!("-map [{picture}] -c:v {} -b:v {video_bps}", codecs[0]);
        add(&mut all, &pictures);
        add(&mut all, &format!("-pix_fmt yuv420p {}", codecs[2]));
        if let Some(input) = mixed {
            let sounds = format!("-map {input}:a -c:a {} -b:a {audio_bps}", codecs[1]);
            add(&mut all, &sounds);
        }
        all.push(wanted.out.display().to_string());
        Ok(Self { sound, all })
    }

    fn run(&self, is_nice: bool, tell: impl FnMut(u64)) -> Result<(), ComposeError> {
        if let Some((arguments, _)) = &self.sound {
            run(arguments, is_nice, |_| {})?;
        }
        run(&self.all, is_nice, tell)
    }
}

/// Runs ffmpeg, and tells how many milliseconds are done.
fn run(arguments: &[String], is_nice: bool, mut tell: impl FnMut(u64)) -> Result<(), ComposeError> {
    let mut command = if is_nice {
        let mut nice = Command::new("nice");
        nice.args(["-n", "19", "ffmpeg"]);
        nice
    } else {
        Command::new("ffmpeg")
    };
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(ComposeError::Start)?;
    if let Some(progress) = child.stdout.take() {
        for line in BufReader::new(progress).lines().map_while(Result::ok) {
            let us = line.strip_prefix("out_time_us=");
            if let Some(us) = us.and_then(|us| us.parse::<u64>().ok()) {
                tell(us / 1000);
            }
        }
    }
    let ended = child.wait_with_output().map_err(ComposeError::Start)?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(ComposeError::Failed(said.trim().to_owned()))
}

/// Adds arguments that have no spaces in them.
fn add(arguments: &mut Vec<String>, several: &str) {
    arguments.extend(several.split(' ').map(str::to_owned));
}

fn is_usable(file: &RecordedFile) -> bool {
    file.frames > 0 && is_file_name(&file.name)
}

/// Where a picture is: left, top, width, height.
type Place = [usize; 4];

/// ffmpeg's inputs and the filters between them and what comes out.
struct Graph<'a> {
    directory: &'a Path,
    inputs: Vec<String>,
    count: usize,
    filters: Vec<String>,
}

impl<'a> Graph<'a> {
    fn new(directory: &'a Path) -> Self {
        Self {
            directory,
            inputs: Vec::new(),
            count: 0,
            filters: Vec::new(),
        }
    }

    fn input(&mut self, file: &RecordedFile) -> usize {
        self.input_file(&self.directory.join(&file.name))
    }

    fn input_file(&mut self, path: &Path) -> usize {
        self.inputs.push("-i".to_owned());
        self.inputs.push(format!("file:{}", path.display()));
        self.count += 1;
        self.count - 1
    }

    /// What ffmpeg is told up to the filters.
    fn arguments(self) -> Vec<String> {
        let mut all = Vec::new();
        add(&mut all, "-y -v error -nostats -progress pipe:1");
        all.extend(self.inputs);
        all.extend(["-filter_complex".to_owned(), self.filters.join(";")]);
        all
    }

    /// Lays every file over a black picture, for as long as it lasts.
    fn pictures(&mut self, ms: u64, tracks: &[&RecordedTrack], layout: Layout) -> String {
        let seconds = seconds(ms as i64);
        let base = format!("color=c=black:s={WIDTH}x{HEIGHT}:r={FRAME_RATE}:d={seconds}[p0]");
        self.filters.push(base);
        let places = places(tracks, layout);
        let mut layers = 0;
        for (track, [left, top, width, height]) in tracks.iter().zip(places) {
            for file in track.files.iter().filter(|file| is_usable(file)) {
                let input = self.input(file);
                let from = file.offset_ms.max(0);
                let (begin, end) = (seconds_of(from), seconds_of(from + file.duration_ms as i64));
                self.filters.push(format!(
                    "[{input}:v]setpts=PTS-STARTPTS+{begin}/TB,\
                     scale={width}:{height}:force_original_aspect_ratio=decrease,\
                     pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,setsar=1[v{input}]"
                ));
                self.filters.push(format!(
                    "[p{layers}][v{input}]overlay={left}:{top}:eof_action=pass:\
                     enable='between(t,{begin},{end})'[p{}]",
                    layers + 1
                ));
                layers += 1;
            }
        }
        format!("p{layers}")
    }

    /// Mixes every file in at its time; silence stays where nothing was sent.
    fn sounds(&mut self, tracks: &[&RecordedTrack]) -> Option<String> {
        let mut mixed = String::new();
        let mut count = 0;
        for file in tracks.iter().flat_map(|track| &track.files) {
            if !is_usable(file) {
                continue;
            }
            let input = self.input(file);
            let delay = file.offset_ms.max(0);
            self.filters.push(format!(
                "[{input}:a]aresample=48000:async=1000:first_pts=0,\
                 adelay={delay}:all=1[a{input}]"
            ));
            // Writing to a text cannot fail.
            let _ = write!(mixed, "[a{input}]");
            count += 1;
        }
        if count == 0 {
            return None;
        }
        self.filters.push(format!(
            "{mixed}amix=inputs={count}:duration=longest:normalize=0[sound]"
        ));
        Some("sound".to_owned())
    }
}

/// Where each track is shown.
fn places(tracks: &[&RecordedTrack], layout: Layout) -> Vec<Place> {
    let count = tracks.len();
    let is_column = layout == Layout::Speaker && count > 1;
    if !is_column {
        let across = (1..).find(|n| n * n >= count).unwrap_or(1).max(1);
        let down = count.div_ceil(across).max(1);
        let (width, height) = (even(WIDTH / across), even(HEIGHT / down));
        return (0..count)
            .map(|index| {
                [
                    index % across * width,
                    index / across * height,
                    width,
                    height,
                ]
            })
            .collect();
    }
    let is_screen = |track: &&RecordedTrack| track.source == "screen";
    let main = tracks.iter().position(is_screen).unwrap_or(0);
    let (large, small) = (even(WIDTH * 3 / 4), even(WIDTH / 4));
    let height = even((HEIGHT / (count - 1)).min(HEIGHT / 4));
    let mut row = 0;
    (0..count)
        .map(|index| {
            if index == main {
                return [0, 0, large, HEIGHT];
            }
            row += 1;
            [large, (row - 1) * height, small, height]
        })
        .collect()
}

/// Chroma has half the pixels each way.
fn even(pixels: usize) -> usize {
    (pixels & !1).max(2)
}

fn seconds_of(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn seconds(ms: i64) -> String {
    seconds_of(ms.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::manifest::{RecordedFile, State};

    fn track(kind: &str, source: &str, offset_ms: i64) -> RecordedTrack {
        RecordedTrack {
            track_id: "t".to_owned(),
            participant_id: "p".to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            files: vec![RecordedFile {
                name: format!("{source}-{offset_ms}.webm"),
                codec: "vp8".to_owned(),
                offset_ms,
                duration_ms: 1500,
                frames: 3,
                bytes: 9,
                width: 320,
                height: 240,
            }],
            gaps: Vec::new(),
            gap_count: 0,
        }
    }

    fn manifest(tracks: Vec<RecordedTrack>) -> Manifest {
        Manifest {
            id: "rec_0".to_owned(),
            room: "r".to_owned(),
            state: State::Finished,
            started_at: 0,
            ended_at: None,
            end_reason: None,
            directory: "r".to_owned(),
            participants: Vec::new(),
            tracks,
            composed: None,
            uploaded_to: None,
        }
    }

    fn wanted(out: &str) -> Wanted {
        Wanted {
            layout: Layout::Grid,
            out: out.into(),
            video_bps: 1_000_000,
            audio_bps: 64_000,
            is_nice: false,
        }
    }

    #[test]
    fn every_file_is_in_at_its_time() {
        let manifest = manifest(vec![
            track("audio", "microphone", 20),
            track("video", "camera", 1040),
        ]);
        let Runs { sound, all } = Runs::new(&manifest, Path::new("/r"), &wanted("o.webm")).unwrap();
        let (sound, file) = sound.unwrap();
        let has = |arguments: &[String], text: &str| arguments.iter().any(|a| a.contains(text));
        assert!(has(&sound, "adelay=20:all=1"), "{sound:?}");
        assert!(has(&all, "between(t,1.040,2.540)"), "{all:?}");
        assert!(has(&all, "file:/r/camera-1040.webm"));
        assert!(has(&all, &format!("file:{}", file.display())));
    }

    #[test]
    fn no_two_pictures_of_a_layout_meet() {
        for layout in [Layout::Grid, Layout::Speaker] {
            for count in 1..30 {
                let tracks: Vec<_> = (0..count).map(|n| track("video", "camera", n)).collect();
                let places = places(&tracks.iter().collect::<Vec<_>>(), layout);
                assert_eq!(places.len(), count as usize);
                for (index, [left, top, width, height]) in places.iter().enumerate() {
                    assert!(left + width <= WIDTH && top + height <= HEIGHT);
                    for [l, t, w, h] in &places[index + 1..] {
                        let is_beside = left + width <= *l || l + w <= *left;
                        assert!(is_beside || top + height <= *t || t + h <= *top);
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_composed_is_said() {
        let nothing = Runs::new(&manifest(Vec::new()), Path::new("/r"), &wanted("o.webm"));
        assert!(matches!(nothing, Err(ComposeError::Nothing)));
        let one = manifest(vec![track("video", "screen", 0)]);
        let format = Runs::new(&one, Path::new("/r"), &wanted("o.avi"));
        assert!(matches!(format, Err(ComposeError::Format(_))));
        let mut outside = one;
        outside.tracks[0].files[0].name = "../../etc/passwd".to_owned();
        let refused = Runs::new(&outside, Path::new("/r"), &wanted("o.webm"));
        assert!(matches!(refused, Err(ComposeError::Nothing)));
    }
}
