//! Whole recordings from made-up packets, on the real file system.

use std::fs;
use std::time::{Duration, Instant};

use super::after;
use super::compose;
use super::container::Format;
use super::fixture::{Directory, children, start};
use super::layout::Layout;
use super::manifest::{EndReason, GapReason, Manifest, State};
use super::order::{Mode, Notice, Order, RecordingId};
use super::recorder::Recorder;
use super::template::Template;
use super::{Options, jitter};
use crate::engine::codec::Codec;
use crate::engine::command::{Command, Kind, Source, TrackInfo};
use crate::engine::copies::{Copied, CopiedPacket};
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
        let (source, codec, number) = match kind {
            Kind::Audio => (Source::Microphone, Codec::Opus, 0),
            Kind::Video => (Source::Camera, Codec::Vp8, 1),
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
