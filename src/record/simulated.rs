//! Whole recordings from made-up packets, on the real file system.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::after;
use super::compose;
use super::container::Format;
use super::fixture::{CHROMIUM_SPS, Directory, children, start};
use super::layout::Layout;
use super::manifest::{EndReason, GapReason, Manifest, State};
use super::order::{Mode, Notice, Order, RecordingId};
use super::recorder::{Recorder, repair};
use super::template::Template;
use super::{Options, jitter};
use crate::engine::codec::Codec;
use crate::engine::command::{Command, Kind, Source, TrackInfo};
use crate::engine::copies::{Copied, CopiedPacket, CopiedReport};
use crate::id::{PeerId, RecordingNumber, RoomId, ShardId, TrackId};
use crate::mailbox::{self, Waker};

const MS: Duration = Duration::from_millis(1);

fn options(directory: &Directory) -> Options {
    Options {
        path: directory.0.clone(),
        template: Template::default(),
        format: Format::Webm,
        jitter: jitter::Options::default(),
        min_free_bytes: 0,
        retention: None,
        after: after::Options::default(),
    }
}

/// A recorder with one recording, and what it asks the shard for.
struct Rig {
    recorder: Recorder,
    asked: crossbeam_channel::Receiver<Command>,
    now: Instant,
}

const NUMBER: RecordingNumber = RecordingNumber::new(7);

impl Rig {
    fn new(options: Options) -> Self {
        Self::recording(options, Mode::default())
    }

    fn recording(options: Options, mode: Mode) -> Self {
        let now = start();
        let (shard, asked) = mailbox::commands(ShardId::new(0), Waker::new(|| {}));
        let mut recorder = Recorder::new(now, options, None);
        recorder.handle_order(
            now,
            Order::Start {
                number: NUMBER,
                id: RecordingId::new(42),
                room: RoomId::parse("daily").unwrap(),
                shard,
                unix_ms: 1_700_000_000_000,
                mode,
            },
        );
        Self {
            recorder,
            asked,
            now,
        }
    }

    /// Sends a packet to the recorder at its own time.
    fn send(&mut self, kind: Kind, seq: u64, timestamp: u32, payload: &[u8]) {
        let codec = match kind {
            Kind::Audio => Codec::Opus,
            Kind::Video => Codec::Vp8,
        };
        self.send_as(codec, seq, timestamp, payload);
    }

    fn send_as(&mut self, codec: Codec, seq: u64, timestamp: u32, payload: &[u8]) {
        let (kind, source, number) = match codec {
            Codec::Opus => (Kind::Audio, Source::Microphone, 0),
            _ => (Kind::Video, Source::Camera, 1),
        };
        let peer = PeerId::new(1);
        let copied = CopiedPacket {
            recording: NUMBER,
            track: TrackInfo {
                id: TrackId { peer, number },
                kind,
                source,
            },
            layer: 0,
            codec,
            arrived: self.now,
            seq,
            timestamp,
            marker: true,
            payload: payload.into(),
        };
        self.recorder
            .handle_copied(self.now, Copied::Packet(copied));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.recorder.handle_timeout(self.now);
    }

    /// Two seconds of sound and pictures; packets for which `lost` holds never come.
    fn two_seconds(&mut self, lost: impl Fn(u64) -> bool) {
        for step in 0..100_u64 {
            let opus = [0xFC, step as u8, 1, 2];
            self.send(Kind::Audio, step, step as u32 * 960, &opus);
            if step % 2 == 0 && !lost(step) {
                let head = if step % 50 == 0 { 0x10 } else { 0x11 };
                let picture = [
                    0x10, head, 0, 0, 0x9D, 1, 0x2A, 0x40, 1, 0xF0, 0, step as u8,
                ];
                self.send(Kind::Video, step / 2, step as u32 * 1800, &picture);
            }
            self.pass(20 * MS);
        }
    }

    fn finish(mut self) -> Manifest {
        let reason = EndReason::Stopped;
        let number = NUMBER;
        self.recorder
            .handle_order(self.now, Order::Stop { number, reason });
        self.pass(1000 * MS);
        loop {
            match self.recorder.poll_notice() {
                Some(Notice::Finished { manifest, .. }) => return *manifest,
                Some(Notice::Ending { .. }) => {}
                other => panic!("it does not finish: {other:?}"),
            }
        }
    }
}

#[test]
fn sound_and_pictures_become_two_whole_files_and_a_manifest() {
    let directory = Directory::new("whole");
    let mut rig = Rig::new(options(&directory));
    rig.two_seconds(|_| false);
    let manifest = rig.finish();
    assert_eq!(manifest.state, State::Finished);
    let path = directory.0.join(&manifest.directory);
    assert_eq!(Manifest::load(&path).unwrap(), manifest);
    let told: Vec<_> = manifest
        .tracks
        .iter()
        .map(|track| (track.source.as_str(), track.files[0].frames))
        .collect();
    assert_eq!(told, [("microphone", 100), ("camera", 50)]);
    for (track, lasts) in manifest.tracks.iter().zip([2000, 2000]) {
        let file = &track.files[0];
        assert_eq!((file.offset_ms, file.duration_ms), (0, lasts));
        let bytes = fs::read(path.join(&file.name)).unwrap();
        assert_eq!(bytes.len() as u64, file.bytes);
        assert!(children(&bytes).len() >= 5);
        assert_eq!((track.gap_count, track.gaps.len()), (0, 0));
    }
}

#[test]
fn lost_packets_are_a_gap_that_ends_with_a_keyframe() {
    let directory = Directory::new("lost");
    let mut rig = Rig::new(options(&directory));
    rig.two_seconds(|step| (20..30).contains(&step));
    let asked: Vec<_> = rig.asked.try_iter().collect();
    assert!(matches!(asked[..], [Command::RenewRecorded { .. }, ..]));
    let manifest = rig.finish();
    let camera = &manifest.tracks[1];
    assert_eq!(camera.files[0].frames, 10 + 25);
    let [gap] = &camera.gaps[..] else {
        panic!("{:?}", camera.gaps);
    };
    assert_eq!((gap.reason, gap.packets), (GapReason::Loss, 5));
    assert!(gap.duration_ms >= 600, "{gap:?}");
}

/// What a recorder that starts finds.
fn known(directory: &Directory) -> Vec<Manifest> {
    let mut recorder = Recorder::new(start(), options(directory), None);
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    recorder.handle_order(start(), Order::List(reply));
    answer.try_recv().unwrap()
}

#[test]
fn what_a_killed_process_leaves_is_found_and_repaired() {
    let directory = Directory::new("killed");
    let mut rig = Rig::new(options(&directory));
    rig.two_seconds(|_| false);
    // Nothing is finished.
    drop(rig);
    // A process that another test starts has the lock as well, until it is another program.
    let mut tries = (0..1000).map(|_| known(&directory));
    let known = tries.find(|known| !known.is_empty()).unwrap_or_default();
    let [manifest] = &known[..] else {
        panic!("{known:?}");
    };
    assert_eq!(manifest.state, State::Interrupted);
    let path = directory.0.join(&manifest.directory);
    for track in &manifest.tracks {
        let file = &track.files[0];
        assert!(file.duration_ms >= 900, "{file:?}");
        children(&fs::read(path.join(&file.name)).unwrap());
    }
}

#[test]
fn a_disk_with_too_little_space_ends_what_is_recorded_with_a_reason() {
    let directory = Directory::new("full");
    let mut rig = Rig::new(Options {
        min_free_bytes: u64::MAX,
        ..options(&directory)
    });
    let number = NUMBER;
    let reason = EndReason::DiskFull;
    assert_eq!(
        rig.recorder.poll_notice(),
        Some(Notice::Ending { number, reason })
    );
    let manifest = rig.finish();
    assert_eq!(manifest.end_reason, Some(EndReason::DiskFull));
}

#[test]
fn recordings_that_are_too_old_are_deleted() {
    let directory = Directory::new("old");
    let mut rig = Rig::new(options(&directory));
    rig.two_seconds(|_| false);
    let path = directory.0.join(rig.finish().directory);
    assert!(path.exists());
    let mut recorder = Recorder::new(
        start(),
        Options {
            retention: Some(Duration::from_secs(86_400)),
            ..options(&directory)
        },
        None,
    );
    recorder.handle_timeout(start());
    assert!(!path.exists());
}

#[test]
fn encrypted_frames_are_kept_as_they_are_and_nobody_makes_a_film_of_them() {
    let directory = Directory::new("opaque");
    let mode = Mode {
        is_opaque: true,
        ..Mode::default()
    };
    let mut rig = Rig::recording(options(&directory), mode);
    // Without a keyframe that anybody could tell.
    for step in 0..50_u64 {
        rig.send(
            Kind::Video,
            step,
            step as u32 * 3600,
            &[0x10, 0xFF, step as u8],
        );
        rig.pass(40 * MS);
    }
    let manifest = rig.finish();
    let path = directory.0.join(&manifest.directory);
    let file = &manifest.tracks[0].files[0];
    assert_eq!((manifest.opaque, file.frames), (true, 50));
    let bytes = fs::read(path.join(&file.name)).unwrap();
    assert!(children(&bytes).len() >= 5);
    let says_so = [0x50, 0x35, 0x84, 0x47, 0xE1, 0x81, 5];
    assert!(bytes.windows(says_so.len()).any(|at| at == says_so));
    let wanted = compose::Wanted {
        layout: Layout::Grid,
        out: path.join("all.webm"),
        video_bps: 1,
        audio_bps: 1,
        is_nice: false,
    };
    let refused = compose::compose(&path, &wanted, |_, _| {});
    assert!(matches!(refused, Err(compose::ComposeError::Opaque)));
}

#[test]
fn who_speaks_is_told_in_the_manifest() {
    let directory = Directory::new("speaks");
    let mut rig = Rig::new(options(&directory));
    let number = NUMBER;
    for peer in [Some(PeerId::new(1)), None, Some(PeerId::new(2))] {
        rig.recorder
            .handle_order(rig.now, Order::Speaks { number, peer });
        rig.two_seconds(|_| false);
    }
    let told: Vec<_> = rig.finish().speakers.iter().map(|s| s.at_ms).collect();
    assert_eq!(told, [0, 4000]);
}

#[test]
fn what_was_begun_just_before_a_kill_is_found() {
    let directory = Directory::new("begun");
    let mut rig = Rig::new(options(&directory));
    for step in 0..70_u64 {
        rig.send(Kind::Audio, step, step as u32 * 960, &[0xFC, 1]);
        rig.pass(20 * MS);
    }
    // Its first picture is not on the disk yet.
    rig.send(Kind::Video, 0, 0, &KEYFRAME);
    rig.pass(300 * MS);
    drop(rig);
    // See above.
    let mut tries = (0..1000).map(|_| known(&directory));
    let known = tries.find(|known| !known.is_empty()).unwrap_or_default();
    let [sound, pictures] = &known[0].tracks[..] else {
        panic!("{known:?}");
    };
    assert!(sound.files[0].frames >= 40, "{sound:?}");
    assert!(pictures.files.is_empty(), "{pictures:?}");
    let path = directory.0.join(&known[0].directory);
    let left = fs::read_dir(path).unwrap();
    let media = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_str().unwrap().ends_with(".webm")
    });
    assert_eq!(media.count(), 1, "a file without a frame is left");
}

/// A VP8 keyframe of 320 x 240.
const KEYFRAME: [u8; 12] = [0x10, 0x10, 0, 0, 0x9D, 1, 0x2A, 0x40, 1, 0xF0, 0, 1];

#[test]
fn a_track_that_changes_its_codec_goes_on_in_another_file() {
    let directory = Directory::new("codec");
    let mut rig = Rig::new(options(&directory));
    let sets = [
        &[0x78, 0, 18][..],
        &CHROMIUM_SPS,
        &[0, 4, 0x68, 0xCE, 0x3C, 0x80],
    ]
    .concat();
    let h264 = [&sets[..], &[0, 3, 0x65, 0x88, 1]].concat();
    rig.send_as(Codec::Vp8, 0, 0, &KEYFRAME);
    rig.pass(300 * MS);
    rig.send_as(Codec::H264, 1, 27_000, &h264);
    rig.pass(300 * MS);
    rig.send_as(Codec::Vp8, 2, 54_000, &KEYFRAME);
    rig.pass(300 * MS);
    let manifest = rig.finish();
    let files = &manifest.tracks[0].files;
    let told = files
        .iter()
        .map(|file| (&*file.codec, file.frames, file.offset_ms));
    let told: Vec<_> = told.collect();
    assert_eq!(told, [("vp8", 1, 0), ("h264", 1, 300), ("vp8", 1, 600)]);
    // What is only one picture lasts as long as one usually does.
    assert!(files.iter().all(|file| file.duration_ms == 33), "{files:?}");
}

#[test]
fn what_cannot_be_begun_leaves_nothing_behind() {
    let directory = Directory::new("unbegun");
    let mut rig = Rig::new(options(&directory));
    rig.two_seconds(|_| false);
    let path = directory.0.join(rig.finish().directory);
    fs::remove_dir_all(&path).unwrap();
    // Where its space is to be kept a directory stands.
    fs::create_dir_all(path.join(".reserve")).unwrap();
    let rig = Rig::new(options(&directory));
    assert_eq!(rig.finish().end_reason, Some(EndReason::WriteFailed));
    assert_eq!(known(&directory), []);
    assert!(!path.join(".lock").exists());
}

#[test]
fn what_cannot_be_repaired_is_named_and_left_as_it_is() {
    let directory = Directory::new("unrepairable");
    let mut rig = Rig::new(options(&directory));
    rig.two_seconds(|_| false);
    let mut manifest = rig.finish();
    let path = directory.0.join(&manifest.directory);
    let [sound, pictures] = [0, 1].map(|n| manifest.tracks[n].files[0].name.clone());
    fs::write(path.join(&sound), b"garbage").unwrap();
    fs::remove_file(path.join(&pictures)).unwrap();
    let failed = repair(&path, &mut manifest).unwrap();
    let kinds: Vec<_> = failed
        .iter()
        .map(|(name, error)| (name, error.kind()))
        .collect();
    let expected = [
        (&sound, io::ErrorKind::InvalidData),
        (&pictures, io::ErrorKind::NotFound),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(fs::read(path.join(&sound)).unwrap(), b"garbage");
    fs::write(path.join("recording.json"), b"{").unwrap();
    let refused = Manifest::load(&path).unwrap_err();
    assert!(refused.to_string().contains("recording.json"), "{refused}");
}

#[test]
fn a_manifest_cannot_lead_the_recorder_elsewhere() {
    let directory = Directory::new("elsewhere");
    let outside = Directory::new("outside");
    let mut rig = Rig::new(options(&directory));
    rig.two_seconds(|_| false);
    let mut manifest = rig.finish();
    let path = directory.0.join(&manifest.directory);
    manifest.directory = outside.0.display().to_string();
    manifest.save(&path).unwrap();
    let retention = Some(Duration::from_secs(86_400));
    let options = Options {
        retention,
        ..options(&directory)
    };
    let mut recorder = Recorder::new(start(), options, None);
    recorder.handle_timeout(start());
    assert!(outside.0.exists() && !path.exists());
}

#[test]
fn a_report_that_is_repeated_says_nothing_new() {
    let directory = Directory::new("repeated");
    let mut rig = Rig::new(options(&directory));
    let track = TrackId {
        peer: PeerId::new(1),
        number: 1,
    };
    // A picture every five seconds, and twice in each second what the last one's clock was.
    for step in 0..60_u32 {
        let (picture, is_due) = (step / 10, step % 10 == 0);
        if is_due {
            rig.send(Kind::Video, picture.into(), picture * 450_000, &KEYFRAME);
        }
        let report = CopiedReport {
            recording: NUMBER,
            track,
            layer: 0,
            arrived: rig.now,
            source_us: i64::from(picture) * 5_000_000,
            timestamp: picture * 450_000,
        };
        rig.recorder.handle_copied(rig.now, Copied::Report(report));
        rig.pass(500 * MS);
    }
    let manifest = rig.finish();
    let [track] = &manifest.tracks[..] else {
        panic!("{manifest:?}");
    };
    assert_eq!((track.gap_count, track.files[0].duration_ms), (0, 26_000));
}
