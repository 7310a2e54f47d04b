//! One file of all tracks of a recording, made by ffmpeg from the manifest.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::layout::{HEIGHT, Layout, Place, STAGE, Turn, WIDTH, places, turns};
use super::manifest::{Manifest, RecordedFile, RecordedTrack};
use super::recorder::is_file_name;

/// Pictures per second of it.
const FRAME_RATE: usize = 30;

/// Files that one picture is made of. ffmpeg holds all of them open.
const MAX_FILES: usize = 500;

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
    /// The server has never seen what is in it.
    #[error(
        "its participants encrypted it end to end: only who has their key can make a film of it"
    )]
    Opaque,
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
    if manifest.opaque {
        return Err(ComposeError::Opaque);
    }
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
        let picture = graph.pictures(manifest, &videos, wanted.layout);
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

/// ffmpeg's inputs and the filters between them and what comes out.
struct Graph<'a> {
    directory: &'a Path,
    inputs: Vec<String>,
    count: usize,
    filters: Vec<String>,
    /// Pictures that lie over one another so far.
    layers: usize,
}

impl<'a> Graph<'a> {
    fn new(directory: &'a Path) -> Self {
        Self {
            directory,
            inputs: Vec::new(),
            count: 0,
            filters: Vec::new(),
            layers: 0,
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
    fn pictures(
        &mut self,
        manifest: &Manifest,
        videos: &[&RecordedTrack],
        layout: Layout,
    ) -> String {
        let ms = manifest.duration_ms();
        let base = seconds(ms as i64);
        let base = format!("color=c=black:s={WIDTH}x{HEIGHT}:r={FRAME_RATE}:d={base}[p0]");
        self.filters.push(base);
        let has_stage = layout == Layout::Speaker && videos.len() > 1;
        let turns = if has_stage {
            turns(videos, &manifest.speakers, ms)
        } else {
            Vec::new()
        };
        let places = places(videos.len(), layout);
        for (index, (track, place)) in videos.iter().zip(places).enumerate() {
            let turns: Vec<Turn> = turns.iter().filter(|t| t.track == index).copied().collect();
            for file in track.files.iter().filter(|file| is_usable(file)) {
                self.picture(file, place, &turns);
            }
        }
        format!("p{}", self.layers)
    }

    /// Lays one file over what is there: in its place, and large when it is its turn.
    fn picture(&mut self, file: &RecordedFile, place: Place, turns: &[Turn]) {
        let input = self.input(file);
        let (from, to) = (file.offset_ms, file.offset_ms + file.duration_ms as i64);
        let begin = seconds_of(from.max(0));
        let overlap = |turn: &Turn| {
            let (from, to) = (turn.from_ms.max(from), turn.to_ms.min(to));
            (from < to).then(|| during(from, to))
        };
        let large: Vec<String> = turns.iter().filter_map(overlap).collect();
        let mut shown = vec![(place, during(from, to))];
        if !large.is_empty() {
            shown.push((STAGE, large.join("+")));
        }
        let outputs: String = (0..shown.len())
            .map(|n| format!("[v{input}_{n}]"))
            .collect();
        self.filters.push(format!(
            "[{input}:v]setpts=PTS-STARTPTS+{begin}/TB,split={}{outputs}",
            shown.len()
        ));
        for (n, ([left, top, width, height], when)) in shown.iter().enumerate() {
            self.filters.push(format!(
                "[v{input}_{n}]scale={width}:{height}:force_original_aspect_ratio=decrease,\
                 pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,setsar=1[s{input}_{n}]"
            ));
            self.filters.push(format!(
                "[p{}][s{input}_{n}]overlay={left}:{top}:eof_action=pass:enable='{when}'[p{}]",
                self.layers,
                self.layers + 1
            ));
            self.layers += 1;
        }
    }

    /// Mixes every file in at its time; silence stays where nothing was sent. Nothing is stretched:
    /// ffmpeg 5 forgets what it has written when it begins to, and begins again.
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
                "[{input}:a]aresample=48000:async=1:min_hard_comp=0.02:first_pts=0,\
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

/// The time between two others, as ffmpeg tests for it.
fn during(from_ms: i64, to_ms: i64) -> String {
    format!(
        "between(t,{},{})",
        seconds_of(from_ms.max(0)),
        seconds_of(to_ms)
    )
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
    use crate::record::fixture::recorded;
    use crate::record::order::RecordingId;

    fn manifest(tracks: Vec<RecordedTrack>) -> Manifest {
        let id = RecordingId::new(0);
        let mut manifest = Manifest::new(&id, "r", 0, Path::new("r"));
        manifest.tracks = tracks;
        manifest
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
            recorded("p", "microphone", 20, 1500),
            recorded("p", "camera", 1040, 1500),
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
    fn what_cannot_be_composed_is_said() {
        let nothing = Runs::new(&manifest(Vec::new()), Path::new("/r"), &wanted("o.webm"));
        assert!(matches!(nothing, Err(ComposeError::Nothing)));
        let one = manifest(vec![recorded("p", "screen", 0, 1500)]);
        let format = Runs::new(&one, Path::new("/r"), &wanted("o.avi"));
        assert!(matches!(format, Err(ComposeError::Format(_))));
        let mut outside = one;
        outside.tracks[0].files[0].name = "../../etc/passwd".to_owned();
        let refused = Runs::new(&outside, Path::new("/r"), &wanted("o.webm"));
        assert!(matches!(refused, Err(ComposeError::Nothing)));
    }
}
