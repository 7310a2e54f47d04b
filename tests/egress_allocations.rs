//! Sending allocates nothing once every buffer has the size it needs, and a viewer stays small.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corelay::engine::egress::clock::WallClock;
use corelay::engine::egress::extension::ExtensionIds;
use corelay::engine::egress::feedback::FeedbackReader;
use corelay::engine::egress::guard::Guard;
use corelay::engine::egress::history::{HistoryId, Sent, SentLog, Stored, TrackHistory};
use corelay::engine::egress::keys::{SessionKeys, Side};
use corelay::engine::egress::packet::{Batch, Outlet, RtxDesc, SlotDesc, SlotWriter};
use corelay::engine::egress::patch::HeadPatch;
use corelay::engine::egress::reports::{SenderReport, write_report};
use corelay::engine::egress::rtx::{Resendable, RtxBudget, answer};
use corelay::engine::egress::seal::Sealer;
use str0m::crypto::dtls::{KeyingMaterial, SrtpProfile};

/// One viewer of one track.
struct Viewer {
    now: Instant,
    clock: WallClock,
    slot: SlotWriter,
    outlet: Outlet,
    history: TrackHistory,
    log: SentLog,
    budget: RtxBudget,
    resends: Vec<Sent>,
    batch: Batch,
    payload: Arc<[u8]>,
}

impl Viewer {
    fn new(now: Instant, profile: SrtpProfile) -> Self {
        let material = KeyingMaterial::new(&vec![7; profile.keying_material_len()]);
        let keys = SessionKeys::derive(&material, profile, Side::Server).expect("fits");
        let desc = SlotDesc {
            mid: "0".into(),
            ssrc: 1.into(),
            pt: 96.into(),
            rtx: Some(RtxDesc {
                ssrc: 2.into(),
                pt: 97.into(),
                first_seq: 1,
            }),
            extensions: ExtensionIds {
                mid: Some(4),
                twcc: Some(3),
                abs_send_time: Some(2),
                ..ExtensionIds::default()
            },
        };
        Self {
            now,
            clock: WallClock::new(now, Duration::ZERO),
            slot: SlotWriter::new(&desc, &mut Guard::new()).expect("free SSRCs"),
            outlet: Outlet::new(Sealer::new(&keys)),
            history: TrackHistory::new(HistoryId(1)),
            log: SentLog::new(now),
            budget: RtxBudget::new(now),
            resends: Vec::new(),
            batch: Batch::new(),
            payload: vec![0x5a; 1_200].into(),
        }
    }

    /// One turn: 8 packets leave, one of them again, and a report.
    fn turn(&mut self, number: u64) {
        self.now += Duration::from_millis(16);
        let at = self.clock.at(self.now);
        self.batch.clear();
        for seq in 8 * number + 1..=8 * number + 8 {
            let stored = keep(&self.payload);
            let sent = Sent {
                seq,
                stored: self.history.push(self.now, stored),
                timestamp: seq as u32,
                patch: HeadPatch::NONE,
            };
            let stored = self.history.packet(sent.stored).expect("just kept");
            let packet = sent.packet(stored);
            let (outlet, batch) = (&mut self.outlet, &mut self.batch);
            let written = self.slot.write_media(outlet, at, &packet, batch);
            written.expect("fresh");
            self.log.insert(self.now, &sent);
        }
        self.resend(8 * number + 3);
        let report = SenderReport {
            ssrc: self.slot.ssrc(),
            at,
            timestamp: 0,
            totals: self.slot.totals(),
        };
        let write = |buf: &mut Vec<u8>| write_report(&report, "corelay", buf);
        let pushed = self.batch.push_rtcp(&mut self.outlet, write);
        pushed.expect("indexes are left");
    }

    fn resend(&mut self, seq: u64) {
        let slot = Resendable {
            highest: self.slot.highest().expect("packets were sent"),
            log: &mut self.log,
            history: &self.history,
        };
        self.resends.clear();
        self.budget.refill(self.now, 600_000);
        let (budget, resends) = (&mut self.budget, &mut self.resends);
        answer(self.now, &[seq as u16], slot, None, budget, resends);
        let again = self.resends[0];
        let stored = self.history.packet(again.stored).expect("still kept");
        let at = self.clock.at(self.now);
        let (outlet, batch) = (&mut self.outlet, &mut self.batch);
        let written = self
            .slot
            .write_rtx(outlet, at, &again.packet(stored), batch);
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
        let mut viewer = Viewer::new(Instant::now(), *profile);
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
    let mut viewer = Viewer::new(Instant::now(), SrtpProfile::AES128_CM_SHA1_80);
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
            viewer.log.insert(viewer.now, &sent);
        }
    });
    let bytes = own as i64 + grown.bytes_current;
    assert!(bytes < 60_000, "{bytes} bytes");
}

fn keep(payload: &Arc<[u8]>) -> Stored {
    Stored {
        payload: Arc::clone(payload),
        descriptor: None,
        audio_level: None,
        video_orientation: None,
        marker: false,
    }
}
