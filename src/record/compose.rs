//! One file of all tracks of a recording, made by ffmpeg from the manifest.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use super::layout::{HEIGHT, Layout, Place, STAGE, Turn, WIDTH, places, turns};
use super::manifest::{Manifest, RecordedFile, RecordedTrack};
use super::recorder::is_file_name;

/// Pictures per second of it.
const FRAME_RATE: usize = 30;

/// Files that one picture is made of. ffmpeg holds all of them open.
const MAX_FILES: usize = 500;

/// What the names of files begin with that are not whole yet; the number of the process follows.
const PART: &str = ".composing-";

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
    /// None of its files is there.
    #[error("{0} and all other files of the recording are not there any more")]
    Missing(String),
    /// They are in an object store, and not here any more.
    #[error("its files were uploaded to {0}: bring them back into its directory first")]
    Elsewhere(String),
    /// What is to be made would take the place of what it is made of.
    #[error("{0} is a part of the recording: give what is made another name")]
    OwnFile(PathBuf),
    /// What was made could not be put where it is wanted.
    #[error("{0}: {1}")]
    Out(PathBuf, io::Error),
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
/// in all. Returns which files of it are not there: they are left out.
///
/// # Errors
///
/// [`ComposeError`].
pub fn compose(
    directory: &Path,
    wanted: &Wanted,
    mut tell: impl FnMut(u64, u64),
) -> Result<Vec<String>, ComposeError> {
    let mut manifest = Manifest::load(directory)
        .map_err(|error| ComposeError::NoRecording(directory.to_owned(), error))?;
    if manifest.opaque {
        return Err(ComposeError::Opaque);
    }
    let missing = take_missing(&mut manifest, directory, &wanted.out)?;
    let total = manifest.duration_ms();
    let part = Part::beside(&wanted.out)?;
    let runs = Runs::new(&manifest, directory, wanted, &part)?;
    runs.run(wanted.is_nice, |ms| tell(ms.min(total), total))?;
    fs::rename(&part.whole, &wanted.out)
        .map_err(|error| ComposeError::Out(wanted.out.clone(), error))?;
    tell(total, total);
    Ok(missing)
}

/// Takes out of a manifest what is not in its directory, and tells what that is.
fn take_missing(
    manifest: &mut Manifest,
    directory: &Path,
    out: &Path,
) -> Result<Vec<String>, ComposeError> {
    let made = out.canonicalize().ok();
    let mut missing = Vec::new();
    let mut is_own = false;
    for track in &mut manifest.tracks {
        track.files.retain(|file| {
            let path = is_file_name(&file.name).then(|| directory.join(&file.name));
            let path = path.and_then(|path| path.canonicalize().ok());
            is_own |= path.is_some() && path == made;
            if path.is_none() {
                missing.push(file.name.clone());
            }
            path.is_some()
        });
    }
    if is_own {
        return Err(ComposeError::OwnFile(out.to_owned()));
    }
    let is_empty = manifest.tracks.iter().all(|track| track.files.is_empty());
    match (missing.first(), &manifest.uploaded_to) {
        (Some(_), Some(place)) if is_empty => Err(ComposeError::Elsewhere(place.clone())),
        (Some(first), None) if is_empty => Err(ComposeError::Missing(first.clone())),
        _ => Ok(missing),
    }
}

/// The files that ffmpeg writes to, gone when this is: a process that is killed, or the ffmpeg that
/// it leaves behind, spoils nothing that is whole.
#[derive(Debug)]
struct Part {
    whole: PathBuf,
    sound: PathBuf,
}

impl Part {
    /// Names of files beside `out`.
    fn beside(out: &Path) -> Result<Self, ComposeError> {
        let ending = out.extension().and_then(|ending| ending.to_str());
        let ending = ending.filter(|ending| matches!(*ending, "webm" | "mp4"));
        let ending = ending.ok_or_else(|| ComposeError::Format(out.to_owned()))?;
        let directory = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        clear_left(directory);
        let named = |ending: &str| directory.join(format!("{PART}{}.{ending}", process::id()));
        Ok(Self {
            whole: named(ending),
            sound: named("mka"),
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Either may not have been made, or is where it is wanted.
        let _ = fs::remove_file(&self.whole);
        let _ = fs::remove_file(&self.sound);
        // An ffmpeg that was left behind may have begun a file only after that was looked for.
        clear_left(self.whole.parent().unwrap_or(Path::new(".")));
    }
}

/// Deletes what processes that are no more have not finished.
fn clear_left(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let number = name
            .strip_prefix(PART)
            .and_then(|rest| rest.split('.').next());
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new("/proc").join(number.to_string()).exists() {
            // Whoever cannot delete it cannot compose here either, and is told so.
            let _ = fs::remove_file(entry.path());
        }
    }
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
    fn new(
        manifest: &Manifest,
        directory: &Path,
        wanted: &Wanted,
        part: &Part,
    ) -> Result<Self, ComposeError> {
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
            let file = part.sound.clone();
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
        all.push(part.whole.display().to_string());
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
    use crate::record::fixture::{Directory, recorded};
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

    /// What ffmpeg is told of a recording in `/r`.
    fn runs(manifest: &Manifest, out: &str) -> Result<Runs, ComposeError> {
        let part = Part::beside(Path::new(out))?;
        Runs::new(manifest, Path::new("/r"), &wanted(out), &part)
    }

    #[test]
    fn every_file_is_in_at_its_time() {
        let manifest = manifest(vec![
            recorded("p", "microphone", 20, 1500),
            recorded("p", "camera", 1040, 1500),
        ]);
        let Runs { sound, all } = runs(&manifest, "o.webm").unwrap();
        let (sound, file) = sound.unwrap();
        let has = |arguments: &[String], text: &str| arguments.iter().any(|a| a.contains(text));
        assert!(has(&sound, "adelay=20:all=1"), "{sound:?}");
        assert!(has(&all, "between(t,1.040,2.540)"), "{all:?}");
        assert!(has(&all, "file:/r/camera-1040.webm"));
        assert!(has(&all, &format!("file:{}", file.display())));
    }

    #[test]
    fn what_cannot_be_composed_is_said() {
        let nothing = runs(&manifest(Vec::new()), "o.webm");
        assert!(matches!(nothing, Err(ComposeError::Nothing)));
        let one = manifest(vec![recorded("p", "screen", 0, 1500)]);
        let format = runs(&one, "o.avi");
        assert!(matches!(format, Err(ComposeError::Format(_))));
        let mut outside = one;
        outside.tracks[0].files[0].name = "../../etc/passwd".to_owned();
        let refused = runs(&outside, "o.webm");
        assert!(matches!(refused, Err(ComposeError::Nothing)));
    }

    #[test]
    fn what_is_not_there_is_told_and_nothing_takes_the_place_of_a_track() {
        let directory = Directory::new("compose-missing");
        let tracks = vec![
            recorded("p", "microphone", 20, 1500),
            recorded("p", "camera", 1040, 1500),
        ];
        let one = manifest(tracks);
        one.save(&directory.0).unwrap();
        let composed = |out: &str| {
            let out = directory.0.join(out);
            compose(&directory.0, &wanted(out.to_str().unwrap()), |_, _| {})
        };
        assert!(matches!(composed("o.webm"), Err(ComposeError::Missing(_))));
        let uploaded = Manifest {
            uploaded_to: Some("s3://b/d".to_owned()),
            ..one.clone()
        };
        uploaded.save(&directory.0).unwrap();
        assert!(matches!(
            composed("o.webm"),
            Err(ComposeError::Elsewhere(_))
        ));
        one.save(&directory.0).unwrap();
        fs::write(directory.0.join("camera-1040.webm"), "").unwrap();
        let out = composed("camera-1040.webm");
        assert!(matches!(out, Err(ComposeError::OwnFile(_))), "{out:?}");
        let mut there = one;
        let missing = take_missing(&mut there, &directory.0, Path::new("o.webm")).unwrap();
        assert_eq!(missing, ["microphone-20.webm"]);
        assert_eq!(
            there.tracks.iter().flat_map(|track| &track.files).count(),
            1
        );
    }

    #[test]
    fn what_a_killed_process_left_half_made_is_deleted_and_what_is_being_made_is_not() {
        let directory = Directory::new("compose-part");
        // No process has such a number (proc(5): pid_max is at most 2^22).
        let left = directory.0.join(".composing-4294967295.webm");
        fs::write(&left, "").unwrap();
        let out = directory.0.join("all.webm");
        let first = Part::beside(&out).unwrap();
        assert!(!left.exists());
        fs::write(&first.whole, "").unwrap();
        let _second = Part::beside(&out.with_file_name("all.mp4")).unwrap();
        assert!(first.whole.exists());
        let whole = first.whole.clone();
        drop(first);
        assert!(!whole.exists());
    }
}
