//! The streams an answer announces, and the slots they become.
//!
//! str0m negotiates them and must not send on them: they are lent to it for the time of an offer.

use std::time::Instant;

use str0m::Rtc;
use str0m::media::{Mid, Pt};
use str0m::rtp::{Extension, ExtensionMap, Ssrc};

use super::command::Kind;
use super::egress::extension::ExtensionIds;
use super::egress::packet::{RtxDesc, SlotDesc};
use super::peer::{Line, Peer, media_of};
use super::subscription::Slot;
use super::svc::extension;

/// The streams that an answer announced for one m-line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced {
    mid: Mid,
    ssrc: Ssrc,
    rtx: Option<Ssrc>,
}

impl Peer {
    /// Brings slots and m-lines in step with what was negotiated.
    pub(crate) fn sync_slots(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let receives =
                media_of(&self.rtc, slot.mid).is_some_and(|m| m.direction().is_sending());
            self.slots[index].open = slot.open && receives;
        }
        for line in 0..self.lines.len() {
            let Line { mid, kind, .. } = self.lines[line];
            let Some(media) = media_of(&self.rtc, mid) else {
                continue;
            };
            if !media.direction().is_sending() {
                continue;
            }
            let accepts = media.remote_pts().to_vec();
            let extensions = extension_ids(media.remote_extmap(), self.mixes_extensions);
            let index = match self.slots.iter().position(|slot| slot.mid == mid) {
                Some(index) => {
                    self.send_side.handle_extensions(index, mid, extensions);
                    index
                }
                None => match self.open_slot(now, mid, kind, &accepts, extensions) {
                    Some(index) => index,
                    None => continue,
                },
            };
            self.slots[index].open = true;
            self.slots[index].set_accepts(&accepts);
        }
    }

    /// A slot, and its streams, for an m-line that was just negotiated.
    fn open_slot(
        &mut self,
        now: Instant,
        mid: Mid,
        kind: Kind,
        accepts: &[Pt],
        extensions: ExtensionIds,
    ) -> Option<usize> {
        let announced = self
            .announced
            .iter()
            .find(|announced| announced.mid == mid)?;
        let Announced { ssrc, rtx, .. } = *announced;
        let pt = *accepts.first()?;
        let rtx_pt = self
            .rtc
            .codec_config()
            .find(|params| params.pt() == pt)?
            .resend();
        let rtx_desc = rtx.zip(rtx_pt).map(|(ssrc, pt)| RtxDesc {
            ssrc,
            pt,
            first_seq: u16::try_from(*ssrc & 0x3fff).expect("14 bits"),
        });
        let index = place_for_slot(&self.slots);
        let desc = SlotDesc {
            mid,
            ssrc,
            pt,
            rtx: rtx_desc,
            extensions,
        };
        let cname = self.rtc.media(mid).map_or("", |media| media.cname());
        self.send_side
            .open_slot(now, index, (kind, cname), &desc)
            .ok()?;
        let slot = Slot::new(mid, kind, ssrc, rtx);
        if index == self.slots.len() {
            self.slots.reserve_exact(1);
            self.slots.push(slot);
        } else {
            self.slots[index] = slot;
        }
        Some(index)
    }
}

/// Gives str0m the streams of all slots for the time of an offer, so that its answer announces
/// them again and no others.
pub(super) fn declare(rtc: &mut Rtc, known: &[(Mid, Ssrc, Option<Ssrc>)]) {
    for (mid, ssrc, rtx) in known {
        // A stopped m-line has no streams, and naming it would be a panic.
        if rtc.media(*mid).is_some_and(|media| !media.stopped()) {
            rtc.direct_api().declare_stream_tx(*ssrc, *rtx, *mid, None);
        }
    }
}

/// Takes every sending stream away from str0m before it is polled: it would send reports in
/// their name. Returns what it announced.
pub(super) fn withdraw(rtc: &mut Rtc, mids: &[Mid]) -> Vec<Announced> {
    let announced = announced(rtc, mids);
    for stream in &announced {
        rtc.direct_api().remove_stream_tx(stream.ssrc);
    }
    announced
}

/// The sending streams that str0m has.
pub(super) fn announced(rtc: &mut Rtc, mids: &[Mid]) -> Vec<Announced> {
    let mut api = rtc.direct_api();
    let of_line = |mid: &Mid| {
        let stream = api.stream_tx_by_mid(*mid, None)?;
        Some(Announced {
            mid: *mid,
            ssrc: stream.ssrc(),
            rtx: stream.rtx(),
        })
    };
    mids.iter().filter_map(of_line).collect()
}

/// Under which ids an m-line carries the header extensions we send.
fn extension_ids(map: &ExtensionMap, mixed: bool) -> ExtensionIds {
    let id = |extension| map.id_of(extension);
    ExtensionIds {
        mid: id(Extension::RtpMid),
        twcc: id(Extension::TransportSequenceNumber),
        abs_send_time: id(Extension::AbsoluteSendTime),
        audio_level: id(Extension::AudioLevel),
        video_orientation: id(Extension::VideoOrientation),
        dependency_descriptor: id(extension::extension()),
        mixed,
    }
}

/// Where the next slot goes: where a closed one was, so that renegotiation does not grow the
/// table.
fn place_for_slot(slots: &[Slot]) -> usize {
    let closed = |slot: &Slot| !slot.open && slot.track().is_none();
    slots.iter().position(closed).unwrap_or(slots.len())
}
