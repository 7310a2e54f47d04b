//! One viewer's send side, without the engine around it.

use std::time::Instant;

use corelay::engine::egress::clock::Ntp;
use corelay::engine::egress::extension::ExtensionIds;
use corelay::engine::egress::guard::Guard;
use corelay::engine::egress::history::{SentLog, Stored};
use corelay::engine::egress::keys::{SessionKeys, Side};
use corelay::engine::egress::packet::{Batch, MediaPacket, Outlet, RtxDesc, SlotDesc, SlotWriter};
use corelay::engine::egress::seal::Sealer;
use corelay::engine::ingress::payload::Payload;
use str0m::crypto::dtls::{KeyingMaterial, SrtpProfile};

/// A slot of one viewer, what it remembers, and where its packets are written.
pub(crate) struct Viewer {
    pub(crate) slot: SlotWriter,
    pub(crate) outlet: Outlet,
    pub(crate) log: SentLog,
    pub(crate) batch: Batch,
    /// When its next packet leaves.
    pub(crate) at: Ntp,
}

impl Viewer {
    /// `now` only sets where the log's clock begins.
    pub(crate) fn new(now: Instant, profile: SrtpProfile) -> Self {
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
        let mut slot = SlotWriter::new(&desc, &mut Guard::new()).expect("free SSRCs");
        slot.handle_known(desc.ssrc);
        Self {
            slot,
            outlet: Outlet::new(Sealer::new(&keys(profile, Side::Server))),
            log: SentLog::new(now),
            batch: Batch::new(),
            at: Ntp::from_bits(1 << 40),
        }
    }

    /// Writes a packet whose number is fresh.
    pub(crate) fn write(&mut self, packet: &MediaPacket<'_>) {
        let (outlet, batch) = (&mut self.outlet, &mut self.batch);
        let written = self.slot.write_media(outlet, self.at, packet, batch);
        written.expect("a fresh number");
    }
}

/// What one side writes with.
pub(crate) fn keys(profile: SrtpProfile, side: Side) -> SessionKeys {
    let material = KeyingMaterial::new(&vec![7; profile.keying_material_len()]);
    SessionKeys::derive(&material, profile, side).expect("the block has the right length")
}

/// A packet as its track keeps it.
pub(crate) fn keep(payload: &Payload) -> Stored {
    Stored {
        payload: payload.clone(),
        descriptor: None,
        audio_level: None,
        video_orientation: None,
        marker: false,
    }
}
