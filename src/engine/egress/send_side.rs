//! The send side of one peer: every packet it is sent is written, sealed and remembered here.

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::crypto::dtls::SrtpProfile;
use str0m::media::{Mid, Pt};
use str0m::rtp::Ssrc;

use super::clock::{Ntp, StreamClock};
use super::extension::ExtensionIds;
use super::feedback::{Feedback, ReportBlock, Unread};
use super::guard::{Guard, Verdict};
use super::history::{Sent, SentLog, StoredId, TrackHistory};
use super::live::{Live, live};
use super::packet::{
    Batch, MediaPacket, Outlet, SlotDesc, SlotWriter, SsrcTaken, Unwritten, Written,
};
use super::reports::{self, SenderReport};
use super::rtx::{self, NackOutcome, RtxBudget};
use super::seal::RtpOpener;
use crate::engine::bwe::pacer::{Grant, Pacer};
use crate::engine::bwe::twcc::Arrival;
use crate::engine::bwe::{self, Bwe, ClusterId};
use crate::engine::command::Kind;
use crate::engine::dtls::KeyPort;
#[cfg(debug_assertions)]
use crate::engine::export::ExportedKeys;
use crate::engine::prefetch::prefetch;
#[cfg(test)]
use crate::engine::stock;

/// A probe cluster that lacks less than this is made up later: a packet of padding costs as much
/// as any.
const MIN_PADDING: usize = 100;

/// What leaves for one peer besides what str0m sends: media, resends, reports.
#[derive(Debug)]
pub(crate) struct SendSide {
    port: KeyPort,
    live: Option<Live>,
    guard: Guard,
    /// How many of the guard's drops have been told.
    guarded_told: u64,
    /// By index of the peer's slot.
    lanes: Vec<Lane>,
    budget: RtxBudget,
    /// What the budget is a share of.
    bytes_per_s: u64,
    /// Bytes sent since [`Self::counted_from`].
    sent_bytes: u64,
    counted_from: Instant,
    /// What the path to the client carries.
    bwe: Bwe,
    /// Whether a slot carries transport-wide numbers.
    transport_wide: bool,
    pacer: Pacer,
    /// The probe cluster that what leaves now belongs to.
    cluster: Option<ClusterId>,
    /// Resends of the message being answered: reused.
    resends: Vec<Sent>,
    /// Where media goes when a test compares with str0m's own sending.
    #[cfg(test)]
    pub(in crate::engine) stock: Option<Vec<stock::Outgoing>>,
}

/// One slot's streams.
#[derive(Debug)]
struct Lane {
    writer: SlotWriter,
    log: SentLog,
    pt: Pt,
    cname: Box<str>,
    /// From one sender report to the next.
    report_interval: Duration,
    /// When the next is due; the first with the first packet, to join sound and picture at once.
    report_at: Instant,
}

/// A packet of the slot's stream, ready to be written.
#[derive(Debug)]
pub(crate) struct Leaving<'a> {
    pub(crate) pt: Pt,
    pub(crate) rtx_pt: Option<Pt>,
    pub(crate) packet: MediaPacket<'a>,
    /// Where its track keeps it.
    pub(crate) stored: StoredId,
    /// The clock of the slot's timestamps.
    pub(crate) clock: StreamClock,
}

impl SendSide {
    /// A send side whose keys will appear in `port`.
    pub(crate) fn new(now: Instant, port: KeyPort) -> Self {
        Self {
            port,
            live: None,
            guard: Guard::new(),
            guarded_told: 0,
            lanes: Vec::new(),
            budget: RtxBudget::new(now),
            bytes_per_s: 0,
            sent_bytes: 0,
            counted_from: now,
            bwe: estimator(now, false),
            transport_wide: false,
            pacer: Pacer::new(now),
            cluster: None,
            resends: Vec::new(),
            #[cfg(test)]
            stock: stock::outgoing(),
        }
    }

    /// Makes the streams of a slot. `index` is the slot's; an older slot may have had it.
    ///
    /// # Errors
    ///
    /// [`SsrcTaken`] when str0m drew an SSRC that this peer was sent under before.
    pub(crate) fn open_slot(
        &mut self,
        now: Instant,
        index: usize,
        (kind, cname): (Kind, &str),
        desc: &SlotDesc,
    ) -> Result<(), SsrcTaken> {
        if desc.extensions.twcc.is_some() && !self.transport_wide {
            self.transport_wide = true;
            self.bwe = estimator(now, true);
        }
        let lane = Lane {
            writer: SlotWriter::new(desc, &mut self.guard)?,
            log: SentLog::new(now),
            pt: desc.pt,
            cname: cname.into(),
            report_interval: match kind {
                Kind::Audio => reports::AUDIO_REPORT_INTERVAL,
                Kind::Video => reports::VIDEO_REPORT_INTERVAL,
            },
            report_at: now,
        };
        if index == self.lanes.len() {
            self.lanes.reserve_exact(1);
            self.lanes.push(lane);
        } else {
            self.lanes[index] = lane;
        }
        Ok(())
    }

    /// The slot's m-line was negotiated again: its header extensions may be others.
    pub(crate) fn handle_extensions(&mut self, index: usize, mid: Mid, extensions: ExtensionIds) {
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.writer.handle_extensions(mid, extensions);
        }
    }

    /// Whether a datagram of str0m's may be sent.
    pub(crate) fn passes(&mut self, datagram: &[u8]) -> bool {
        #[cfg(test)]
        if self.is_stock() {
            return true;
        }
        self.guard.handle_transmit(datagram) == Verdict::Pass
    }

    /// Begins a turn: how many bytes of video may leave in it, when `waiting` bytes of it wait.
    pub(crate) fn grant(&mut self, now: Instant, waiting: usize) -> usize {
        #[cfg(test)]
        if self.is_stock() {
            return usize::MAX;
        }
        self.start_probe();
        let Grant { bytes, cluster } = self.pacer.grant(now, self.bwe.target(), waiting);
        self.cluster = cluster;
        bytes
    }

    /// Ends a turn: a probe cluster is made up with padding, `left` being what it lacks. Returns
    /// how many packets that took.
    pub(crate) fn pad(&mut self, now: Instant, at: Ntp, left: usize, batch: &mut Batch) -> u64 {
        let Some(live) = self.live.as_mut().filter(|_| self.cluster.is_some()) else {
            return 0;
        };
        let Some(lane) = self.lanes.iter_mut().find(|l| l.writer.can_pad()) else {
            return 0;
        };
        let (mut left, mut packets) = (left, 0);
        while left >= MIN_PADDING {
            let padding = u8::try_from(left).unwrap_or(u8::MAX);
            let Ok(written) = lane
                .writer
                .write_padding(&mut live.outlet, at, padding, batch)
            else {
                break;
            };
            note_sent(&mut self.bwe, &mut self.pacer, now, self.cluster, &written);
            left = left.saturating_sub(written.bytes);
            packets += 1;
        }
        packets
    }

    /// Asks for what the next packets of a slot will be written with.
    pub(crate) fn prefetch(&self, index: usize) {
        if let (Some(lane), Some(live)) = (self.lanes.get(index), &self.live) {
            prefetch(lane);
            lane.log.prefetch(lane.writer.highest());
            self.bwe.prefetch(live.outlet.next_twcc());
        }
    }

    /// Writes one packet behind the others in `batch`. Returns its bytes.
    ///
    /// # Errors
    ///
    /// [`Unwritten`] when its number may not be used; nothing was written then.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        at: Ntp,
        index: usize,
        leaving: &Leaving<'_>,
        batch: &mut Batch,
    ) -> Result<usize, Unwritten> {
        #[cfg(test)]
        if let Some(stock) = &mut self.stock {
            stock.push(stock::Outgoing::new(index, leaving));
            return Ok(leaving.packet.payload.len());
        }
        let Some(live) = live(&mut self.live, &self.port) else {
            return Ok(0);
        };
        let lane = &mut self.lanes[index];
        if lane.pt != leaving.pt {
            lane.writer.handle_codec(leaving.pt, leaving.rtx_pt);
            lane.pt = leaving.pt;
        }
        let packet = &leaving.packet;
        let written = lane
            .writer
            .write_media(&mut live.outlet, at, packet, batch)?;
        let sent = Sent {
            seq: packet.seq,
            stored: leaving.stored,
            timestamp: packet.timestamp,
            patch: packet.patch,
        };
        lane.log.insert(now, &sent);
        self.sent_bytes += written.bytes as u64;
        note_sent(&mut self.bwe, &mut self.pacer, now, self.cluster, &written);
        if lane.report_at <= now {
            lane.report_at = now + lane.report_interval;
            lane.report(at, leaving.clock, &mut live.outlet, batch);
        }
        Ok(written.bytes)
    }

    /// Sends nothing again that left in a slot so far: it would keep a new layer waiting.
    pub(crate) fn forget(&mut self, index: usize) {
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.log.clear();
        }
    }

    /// What opens the client's packets, once there are keys.
    pub(crate) fn opener(&self) -> Option<RtpOpener> {
        Some(RtpOpener::new(&self.port.keys()?.theirs))
    }

    /// Writes an RTCP packet that is no slot's, unless `write` writes nothing.
    pub(crate) fn write_rtcp(&mut self, batch: &mut Batch, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(live) = live(&mut self.live, &self.port) {
            // Refused after 2^31 packets under one key.
            let _ = batch.push_rtcp(&mut live.outlet, write);
        }
    }

    /// Opens and reads a client's SRTCP. `None` before there are keys.
    pub(crate) fn read(
        &mut self,
        datagram: &[u8],
        feedback: &mut Feedback,
    ) -> Option<Result<(), Unread>> {
        let live = live(&mut self.live, &self.port)?;
        Some(live.reader.handle_srtcp(datagram, feedback))
    }

    /// Sends again what the client misses of a slot's stream, as far as that is worth it.
    pub(crate) fn resend(
        &mut self,
        now: Instant,
        at: Ntp,
        index: usize,
        lost: &[u16],
        history: &TrackHistory,
        batch: &mut Batch,
    ) -> NackOutcome {
        let (Some(live), Some(lane)) =
            (live(&mut self.live, &self.port), self.lanes.get_mut(index))
        else {
            return NackOutcome::default();
        };
        let Some(highest) = lane.writer.highest() else {
            return NackOutcome::default();
        };
        let span = now.saturating_duration_since(self.counted_from);
        if span >= rtx::RTX_BURST {
            let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            self.bytes_per_s = self.sent_bytes * 1000 / ms;
            (self.sent_bytes, self.counted_from) = (0, now);
        }
        self.budget.refill(now, self.bytes_per_s);
        self.resends.clear();
        let outcome = rtx::answer(
            now,
            lost,
            rtx::Resendable {
                highest,
                log: &mut lane.log,
                history,
            },
            Some(self.bwe.rtt()),
            &mut self.budget,
            &mut self.resends,
        );
        for sent in &self.resends {
            if let Some(stored) = history.packet(sent.stored) {
                let packet = sent.packet(stored);
                // Only an m-line without RTX refuses: then the packet stays lost.
                if let Ok(written) = lane.writer.write_rtx(&mut live.outlet, at, &packet, batch) {
                    note_sent(&mut self.bwe, &mut self.pacer, now, self.cluster, &written);
                }
            }
        }
        outcome
    }

    /// Takes in how one of our streams fares; `at` is now in our wall clock.
    pub(crate) fn handle_report(&mut self, now: Instant, at: Ntp, block: &ReportBlock) -> Duration {
        let lanes = self.lanes.iter_mut();
        lanes.for_each(|lane| lane.writer.handle_known(block.ssrc));
        if let Some(measured) = reports::round_trip(at, block.last_report, block.delay) {
            self.bwe.on_rtt(measured);
        }
        self.bwe.on_loss_report(now, block.fraction_lost);
        self.bwe.rtt()
    }

    /// Takes in when packets arrived.
    pub(crate) fn handle_arrivals(&mut self, now: Instant, arrivals: &[Arrival]) {
        self.bwe.on_feedback(now, arrivals.iter().copied());
        self.start_probe();
    }

    /// Takes in the client's own estimate.
    pub(crate) fn handle_estimate(&mut self, now: Instant, bits_per_s: u64) {
        self.bwe.on_remb(now, bits_per_s.into());
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.bwe.wakeup().is_some_and(|at| at <= now) {
            self.bwe.on_timeout(now);
            self.start_probe();
        }
    }

    /// When [`SendSide::grant`] must be asked, while `waiting` bytes of video wait.
    pub(crate) fn pacing_wakeup(&self, waiting: usize) -> Option<Instant> {
        #[cfg(test)]
        if self.is_stock() {
            return None;
        }
        self.pacer.wakeup(waiting)
    }

    /// When [`SendSide::handle_timeout`] must be called.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        self.bwe.wakeup()
    }

    /// Gives the pacer the next probe cluster as soon as it is free.
    fn start_probe(&mut self) {
        if self.bwe.poll_refuted() {
            self.pacer.stop();
        }
        if self.pacer.is_free()
            && let Some(cluster) = self.bwe.poll_probe()
        {
            self.pacer.start(cluster);
        }
    }

    /// Takes over what the client could be sent at best: more than the estimate is probed for.
    pub(crate) fn set_wanted(&mut self, wanted: Bitrate) {
        self.bwe.set_wanted(wanted);
    }

    /// What the client reports to have received lately.
    pub(crate) fn delivered(&self) -> Option<bwe::Delivered> {
        self.bwe.delivered()
    }

    /// Whether the path was seen to carry less than is wanted.
    pub(crate) fn is_short(&self) -> bool {
        self.bwe.is_short()
    }

    /// What the path to the client carries, as far as is known.
    pub(crate) fn estimate(&self) -> Bitrate {
        self.bwe.target()
    }

    /// Tells a receiver its time back, so that it knows its round trip.
    pub(crate) fn echo_time(&mut self, of: Ssrc, at: u32, batch: &mut Batch) {
        if let Some(lane) = self.lanes.first() {
            let ssrc = lane.writer.ssrc();
            self.write_rtcp(batch, |buf| reports::write_time_echo(ssrc, of, at, buf));
        }
    }

    /// Ends every stream that was sent (RFC 3550 §6.6).
    pub(crate) fn say_goodbye(&mut self, batch: &mut Batch) {
        let sent = |lane: &&Lane| lane.writer.highest().is_some();
        let ended: Vec<_> = self.lanes.iter().filter(sent).collect();
        let Some(live) = &mut self.live else { return };
        for lanes in ended.chunks(reports::MAX_GOODBYES) {
            let ssrcs: Vec<_> = lanes.iter().map(|lane| lane.writer.ssrc()).collect();
            let write = |buf: &mut Vec<u8>| reports::write_goodbye(&ssrcs, &lanes[0].cname, buf);
            // Refused after 2^31 packets under one key.
            let _ = batch.push_rtcp(&mut live.outlet, write);
        }
    }

    /// Which protection profile the handshake settled on.
    pub(crate) fn profile(&self) -> Option<SrtpProfile> {
        self.port.keys().map(|keys| keys.ours.profile())
    }

    /// The connection's keys, for those who look at packets.
    #[cfg(debug_assertions)]
    pub(crate) fn exported_keys(&self) -> Option<ExportedKeys> {
        self.port.keys().map(|keys| keys.exported.clone())
    }

    /// Which slot a media SSRC is.
    pub(crate) fn slot_of(&self, ssrc: Ssrc) -> Option<usize> {
        let mut lanes = self.lanes.iter();
        lanes.position(|lane| lane.writer.ssrc() == ssrc)
    }

    /// Datagrams of str0m's that the guard stopped since this was last asked.
    pub(crate) fn take_guarded(&mut self) -> u64 {
        let told = std::mem::replace(&mut self.guarded_told, self.guard.dropped());
        self.guarded_told - told
    }
}

impl Lane {
    /// Writes a sender report behind the packets.
    fn report(&self, at: Ntp, clock: StreamClock, outlet: &mut Outlet, batch: &mut Batch) {
        let report = SenderReport {
            ssrc: self.writer.ssrc(),
            at,
            timestamp: clock.timestamp(at),
            totals: self.writer.totals(),
        };
        // Refused after 2^31 reports under one key: 68 years of one a second.
        let write = |buf: &mut Vec<u8>| reports::write_report(&report, &self.cname, buf);
        let _ = batch.push_rtcp(outlet, write);
    }
}

fn estimator(now: Instant, transport_wide: bool) -> Bwe {
    let options = bwe::Options {
        transport_wide,
        ..bwe::Options::default()
    };
    Bwe::new(now, options)
}

/// Tells pacer and estimator that a packet left.
fn note_sent(
    bwe: &mut Bwe,
    pacer: &mut Pacer,
    now: Instant,
    cluster: Option<ClusterId>,
    written: &Written,
) {
    pacer.on_sent(written.bytes, cluster);
    match written.twcc {
        Some(number) => bwe.on_sent(now, number, written.bytes, cluster),
        None => bwe.on_sent_unnumbered(now, written.bytes),
    }
}
