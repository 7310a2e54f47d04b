//! What clients report, carried out: resends, keyframes, round trips.

use std::time::{Duration, Instant};

use super::Engine;
use super::arena::Key;
use super::command::{Event, Kind};
use super::egress::feedback::{Item, ReportBlock};
use super::figures::Fares;
use super::peer::Peer;
use super::stats::Dropped;
use super::subscription::clock_rate;
use super::track::Track;

/// A viewer that reports more jitter counts as if it reported this, in microseconds.
const MAX_JITTER_US: u64 = 10_000_000;

impl Engine {
    /// Takes in a client's SRTCP.
    ///
    /// # Errors
    ///
    /// [`Dropped`] when it could not be opened, or was read before.
    pub(super) fn take_rtcp(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        datagram: &[u8],
    ) -> Result<(), Dropped> {
        let mut feedback = std::mem::take(&mut self.feedback);
        let read = self.with_media(key, |peer, _| {
            Ok(peer.send_side.read(datagram, &mut feedback))
        });
        let result = match read.flatten() {
            None => Err(Dropped::NoTrack),
            Some(Err(_)) => Err(Dropped::Malformed),
            Some(Ok(())) => {
                for item in feedback.items() {
                    match item {
                        Item::SenderReport {
                            ssrc,
                            at,
                            timestamp,
                        } => self.take_sender_report(now, key, *ssrc, (*at, *timestamp)),
                        #[cfg(test)]
                        _ if self.is_stock(key) => {}
                        Item::Nack { ssrc, lost } => {
                            self.resend(now, key, *ssrc, feedback.lost(lost));
                        }
                        Item::Pli { ssrc } | Item::Fir { ssrc, .. } => {
                            if let Some((slot, track)) = self.track_in_slot(key, *ssrc)
                                && let Some(layer) = self.layer_in_slot(key, slot)
                            {
                                self.note_freeze(now, key, slot);
                                self.want_keyframe(now, track, layer);
                            }
                        }
                        Item::Report(block) => {
                            self.count_report(key, block);
                            let at = self.wall_clock.at(now);
                            if let Some(peer) = self.peers.get_mut(key) {
                                let rtt = peer.send_side.handle_report(now, at, block);
                                note_report(peer, block, rtt);
                            }
                        }
                        Item::ReceiverTime { ssrc, at } => {
                            let first = self.batch.packets().len();
                            if let Some(peer) = self.peers.get_mut(key) {
                                peer.send_side.echo_time(*ssrc, *at, &mut self.batch);
                            }
                            self.send_batch(key, first);
                        }
                        Item::Twcc { arrivals, .. } => {
                            if let Some(peer) = self.peers.get_mut(key) {
                                peer.send_side
                                    .handle_arrivals(now, feedback.arrivals(arrivals));
                            }
                        }
                        Item::Remb { bits_per_s } => {
                            if let Some(peer) = self.peers.get_mut(key) {
                                peer.send_side.handle_estimate(now, *bits_per_s);
                            }
                        }
                    }
                }
                self.review(now, key);
                self.warn(now, key);
                Ok(())
            }
        };
        self.feedback = feedback;
        result
    }

    /// Counts how a slot fares at its viewer.
    fn count_report(&mut self, key: Key<Peer>, block: &ReportBlock) {
        let Some((peer, slot)) = self
            .peers
            .get(key)
            .and_then(|peer| Some((peer, peer.send_side.slot_of(block.ssrc)?)))
        else {
            return;
        };
        let ticks_per_ms = match peer.slots.get(slot).map(|slot| slot.kind) {
            Some(Kind::Video) => 90,
            _ => 48,
        };
        let jitter_us = u64::from(block.jitter) * 1000 / ticks_per_ms;
        self.stats.reports += 1;
        self.stats.reported_loss_256 += u64::from(block.fraction_lost);
        self.stats.reported_jitter_us += jitter_us.min(MAX_JITTER_US);
    }

    /// Tells a client how its connection is, when that has changed.
    fn warn(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let estimate_kbps = peer.send_side.estimate().as_f64() as f32 / 1e3;
        let thresholds = &self.options.thresholds;
        if let Some((trouble, value, severity)) = peer.warnings.poll(now, thresholds, estimate_kbps)
        {
            let peer = peer.id;
            let value = value.round() as u32;
            self.tell(Event::Warning {
                peer,
                trouble,
                value,
                severity,
            });
        }
    }

    /// Sends again what a client misses of one of its slots.
    fn resend(&mut self, now: Instant, key: Key<Peer>, ssrc: str0m::rtp::Ssrc, lost: &[u16]) {
        let Some((slot, track)) = self.track_in_slot(key, ssrc) else {
            return;
        };
        let at = self.wall_clock.at(now);
        let first = self.batch.packets().len();
        let Self {
            peers,
            tracks,
            batch,
            stats,
            ..
        } = self;
        let (Some(peer), Some(track)) = (peers.get_mut(key), tracks.get(track)) else {
            return;
        };
        let outcome = peer
            .send_side
            .resend(now, at, slot, lost, &track.history, batch);
        stats.resent += u64::from(outcome.resent);
        self.send_batch(key, first);
    }

    /// A viewer asks for a keyframe of what plays: its picture stands still.
    fn note_freeze(&mut self, now: Instant, key: Key<Peer>, slot: usize) {
        let peer = self.peers.get_mut(key);
        if let Some(slot) = peer.and_then(|peer| peer.slots.get_mut(slot)) {
            slot.note_freeze(now);
        }
    }

    /// The layer that plays in a slot, or is to.
    fn layer_in_slot(&self, key: Key<Peer>, slot: usize) -> Option<u8> {
        let slot = self.peers.get(key)?.slots.get(slot)?;
        slot.live().or_else(|| slot.wants_keyframe())
    }

    /// Which slot of a peer an SSRC is, and what plays there.
    fn track_in_slot(&self, key: Key<Peer>, ssrc: str0m::rtp::Ssrc) -> Option<(usize, Key<Track>)> {
        let peer = self.peers.get(key)?;
        let slot = peer.send_side.slot_of(ssrc)?;
        Some((slot, peer.slots.get(slot)?.track()?))
    }
}

/// What a client reports of one of its streams, for what it is told of its connection.
fn note_report(peer: &mut Peer, block: &ReportBlock, rtt: Duration) {
    let slot = peer.send_side.slot_of(block.ssrc);
    if let Some(slot) = slot.and_then(|slot| peer.slots.get_mut(slot)) {
        // Jitter comes in units of the stream's timestamps (RFC 3550 §6.4.1).
        let jitter_ms = block.jitter as f32 * 1e3 / clock_rate(slot.kind) as f32;
        slot.fares = Some(Fares {
            lost_permille: u32::from(block.fraction_lost) * 1000 / 256,
            jitter_us: (jitter_ms * 1e3) as u32,
        });
        peer.warnings
            .handle_report(block.fraction_lost, jitter_ms, rtt);
    }
}
