//! Forwarding allocates nothing once every buffer has the size it needs, and a viewer stays small.

#[path = "../bench/room/mod.rs"]
mod room;
#[path = "../bench/viewer.rs"]
mod viewer;

use std::time::{Duration, Instant};

use corelay::engine::egress::clock::WallClock;
use corelay::engine::egress::feedback::FeedbackReader;
use corelay::engine::egress::history::{HistoryId, Sent, SentLog, TrackHistory};
use corelay::engine::egress::packet::{Outlet, SlotWriter};
use corelay::engine::egress::patch::HeadPatch;
use corelay::engine::egress::reports::{SenderReport, write_report};
use corelay::engine::egress::rtx::{Resendable, RtxBudget, answer};
use corelay::engine::ingress::payload::Payload;
use room::{Feedback, Room, Shape, memory_per_viewer};
use str0m::crypto::dtls::SrtpProfile;
use viewer::{Viewer, keep};

/// One viewer of one track, and what its packets come from.
struct Watching {
    now: Instant,
    clock: WallClock,
    viewer: Viewer,
    history: TrackHistory,
    budget: RtxBudget,
    resends: Vec<Sent>,
    payload: Payload,
}

impl Watching {
    fn new(now: Instant, profile: SrtpProfile) -> Self {
        Self {
            now,
            clock: WallClock::new(now, Duration::ZERO),
            viewer: Viewer::new(now, profile),
            history: TrackHistory::new(HistoryId(1)),
            budget: RtxBudget::new(now),
            resends: Vec::new(),
            payload: [0x5a; 1_200].as_slice().into(),
        }
    }

    /// One turn: 8 packets leave, one of them again, and a report.
    fn turn(&mut self, number: u64) {
        self.now += Duration::from_millis(16);
        self.viewer.at = self.clock.at(self.now);
        self.viewer.batch.clear();
        for seq in 8 * number + 1..=8 * number + 8 {
            let sent = Sent {
                seq,
                stored: self.history.push(self.now, keep(&self.payload)),
                timestamp: seq as u32,
                patch: HeadPatch::NONE,
            };
            let stored = self.history.packet(sent.stored).expect("just kept");
            self.viewer.write(&sent.packet(stored));
            self.viewer.log.insert(self.now, &sent);
        }
        self.resend(8 * number + 3);
        let Viewer {
            slot,
            outlet,
            batch,
            at,
            ..
        } = &mut self.viewer;
        let report = SenderReport {
            ssrc: slot.ssrc(),
            at: *at,
            timestamp: 0,
            totals: slot.totals(),
        };
        let write = |buf: &mut Vec<u8>| write_report(&report, "corelay", buf);
        batch.push_rtcp(outlet, write).expect("indexes are left");
    }

    fn resend(&mut self, seq: u64) {
        let Viewer {
            slot,
            outlet,
            log,
            batch,
            at,
        } = &mut self.viewer;
        let resendable = Resendable {
            highest: slot.highest().expect("packets were sent"),
            log,
            history: &self.history,
        };
        self.resends.clear();
        self.budget.refill(self.now, 600_000);
        let (budget, resends) = (&mut self.budget, &mut self.resends);
        answer(self.now, &[seq as u16], resendable, None, budget, resends);
        let again = self.resends[0];
        let stored = self.history.packet(again.stored).expect("still kept");
        let written = slot.write_rtx(outlet, *at, &again.packet(stored), batch);
        written.expect("RTX was negotiated");
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from nothing; the test only adds to it"
)]
fn sending_allocates_nothing_in_steady_state() {
    for profile in SrtpProfile::ALL {
        let mut viewer = Watching::new(Instant::now(), *profile);
        (0..1_000).for_each(|number| viewer.turn(number));
        let counted = allocation_counter::measure(|| {
            (1_000..2_000).for_each(|number| viewer.turn(number));
        });
        assert_eq!(counted.count_total, 0, "{profile}");
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from nothing; the test only adds to it"
)]
fn a_viewer_of_one_track_takes_less_than_60_kb() {
    let mut viewer = Watching::new(Instant::now(), SrtpProfile::AES128_CM_SHA1_80);
    // The history and the batch are shared, one by the track's viewers, one by the shard's.
    let stored = viewer.history.push(viewer.now, keep(&viewer.payload));
    let own = size_of::<SlotWriter>()
        + size_of::<Outlet>()
        + size_of::<SentLog>()
        + size_of::<RtxBudget>()
        + size_of::<FeedbackReader>();
    let grown = allocation_counter::measure(|| {
        for seq in 1..=10_000 {
            let sent = Sent {
                seq,
                stored,
                timestamp: 0,
                patch: HeadPatch::NONE,
            };
            viewer.viewer.log.insert(viewer.now, &sent);
        }
    });
    let bytes = own as i64 + grown.bytes_current;
    assert!(bytes < 60_000, "{bytes} bytes");
}

#[test]
fn a_packet_forwarded_to_one_more_viewer_allocates_nothing() {
    let measure = |viewers| {
        let shape = Shape {
            slots: 1,
            viewers,
            burst: 8,
            interval: Duration::from_millis(2),
        };
        Room::new(shape, || 0).measure(2_000, Feedback::Apart)
    };
    let (few, many) = (measure(1), measure(5));
    assert_eq!((few.received, many.received), (2_000, 2_000));
    assert_eq!((few.forwarded, many.forwarded), (2_000, 10_000));
    // A table may still grow once; keepalives are answered by str0m.
    assert!(few.allocations < 100, "{few:?}");
    let of_viewers = many.allocations.saturating_sub(few.allocations);
    assert!(of_viewers < 20, "{of_viewers}: {few:?}, {many:?}");
}

#[test]
fn what_viewers_report_allocates_little() {
    let shape = Shape {
        slots: 1,
        viewers: 5,
        burst: 8,
        interval: Duration::from_millis(2),
    };
    let figure = Room::new(shape, || 0).measure(2_000, Feedback::Measured);
    // Reading feedback, resending and deciding what each viewer gets allocate nothing; str0m
    // answers the viewers' STUN.
    let (_, allocations) = figure.per(figure.forwarded);
    assert!(allocations < 0.012, "{figure:?}");
}

#[test]
fn a_viewer_of_one_track_takes_less_than_60_kb_in_all() {
    let bytes = memory_per_viewer(1, Duration::from_millis(4));
    assert!(bytes < 60_000.0, "{bytes}");
}
