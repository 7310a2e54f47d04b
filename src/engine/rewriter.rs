//! One unbroken stream per slot: sequence, timestamp, VP8 picture id.
//!
//! What plays in a slot changes; the numbers a receiver sees must not show it. Within one source
//! they keep the source's order and gaps (a gap is a lost packet, which the receiver asks for).
//! What is withheld on purpose leaves no gap.

use std::time::{Duration, Instant};

use str0m::rtp::SeqNo;

use super::codec::vp8::PictureId;
use super::codec::{Vp8Descriptor, Vp8Numbers};
use super::egress::clock::StreamClock;
use super::stats::Dropped;
use super::timestamp::is_after;

/// How far behind its source's newest packet a packet may be, in packets: more than a second of
/// video. An older one is dropped; a longer gap is shortened to this.
pub const REORDER_PACKETS: u64 = 64 * PACKET_WORDS as u64;
/// As [`REORDER_PACKETS`], for VP8 pictures.
pub const REORDER_PICTURES: u64 = 64 * PICTURE_WORDS as u64;
/// Longest time that a switch shows in the timestamp. After a longer pause the stream goes on as
/// if it had lasted this long: 2^31 ticks or more would read as a step back.
pub const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// How far two layers' clocks may be from what their packets' arrivals say. A keyframe that a
/// publisher paces, or sends again, comes later than the pictures before it did.
pub const MAX_SKEW: Duration = Duration::from_secs(1);

const PACKET_WORDS: usize = 16;
const PICTURE_WORDS: usize = 2;

/// The outgoing numbers of one slot.
#[derive(Debug)]
pub struct Rewriter {
    /// Timestamp ticks per second.
    clock_rate: u32,
    /// Highest sequence number sent, or the one before the first.
    sent: u64,
    /// Highest VP8 picture id sent, counted without wrapping.
    sent_picture: u64,
    /// Highest TL0PICIDX sent.
    sent_tl0: u8,
    /// Newest timestamp sent; before the first packet, the one to begin with.
    timestamp: u32,
    /// When [`Self::timestamp`] was first sent.
    timestamp_at: Option<Instant>,
    /// By how many ticks the switches so far put timestamps ahead of the clock, because two
    /// pictures cannot share one. The next switch takes it back.
    ahead: u32,
    /// What plays; `None` until the first packet after a switch.
    source: Option<Source>,
    /// How the next source joins the last one, when they show the same scene.
    joint: Option<Joint>,
}

/// Two layers of one track, whose pictures are of the same scene.
#[derive(Debug, Clone, Copy)]
struct Joint {
    /// The clock of the layer that ended, as the slot shows it.
    from: StreamClock,
    /// The clock of the layer that begins.
    to: StreamClock,
}

/// One packet of the source that plays.
#[derive(Debug, Clone, Copy)]
pub struct Incoming {
    /// Extended sequence number of the source.
    pub seq: SeqNo,
    /// RTP timestamp of the source.
    pub timestamp: u32,
    /// The payload's descriptor, when it is VP8.
    pub vp8: Option<Vp8Descriptor>,
}

/// What the packet is to carry when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// Extended sequence number of the slot.
    pub seq: SeqNo,
    /// RTP timestamp of the slot.
    pub timestamp: u32,
    /// For [`Vp8Descriptor::patch`], when the packet came with a descriptor.
    pub vp8: Option<Vp8Numbers>,
}

/// How the live source's numbers map to the slot's.
#[derive(Debug)]
struct Source {
    packets: Line<PACKET_WORDS>,
    /// Packets taken in: a second copy must not use a number again.
    seen: Window<PACKET_WORDS>,
    /// Added, wrapping, to an incoming timestamp.
    timestamp_offset: u32,
    /// Pictures; `None` while no picture id was seen.
    pictures: Option<Line<PICTURE_WORDS>>,
    /// Added, wrapping, to an incoming TL0PICIDX; `None` while none was seen.
    tl0_offset: Option<u8>,
}

impl Rewriter {
    /// A slot that has sent nothing. `first_seq` is the sequence number it begins with; drawn at
    /// random (RFC 3550 §5.1), but from 1 to 2^15, so that the receiver's roll-over counter can
    /// only be 0 even if the first packets are lost (RFC 3711 §3.3.1). `clock_rate` is in ticks
    /// per second.
    ///
    /// # Panics
    ///
    /// When `first_seq` is not in that range or `clock_rate` is 0.
    #[must_use]
    pub fn new(first_seq: SeqNo, first_timestamp: u32, clock_rate: u32) -> Self {
        assert!(
            (1..=1 << 15).contains(&*first_seq),
            "the roll-over counter must begin at 0"
        );
        assert!(clock_rate > 0, "a clock ticks");
        Self {
            clock_rate,
            sent: *first_seq - 1,
            sent_picture: 0,
            sent_tl0: 0,
            timestamp: first_timestamp,
            timestamp_at: None,
            ahead: 0,
            source: None,
            joint: None,
        }
    }

    /// Ends the live source: the next packet given to [`Self::rewrite`] is the first of another
    /// one, which must begin with a keyframe. Packets of the old source, and packets of the new
    /// one that it must not begin with, are not to be given any more.
    pub fn switch(&mut self) {
        self.source = None;
        self.joint = None;
    }

    /// As [`Self::switch`], to another layer of the same track: the timestamp steps by what passed
    /// between the two pictures where they were taken, as these clocks say, and not by when they
    /// came. `from` is the clock of the layer that ends, `to` of the one that begins, both from
    /// sender reports or, before those, from first packets; where they contradict arrivals by more
    /// than [`MAX_SKEW`], those count.
    pub fn switch_layer(&mut self, from: StreamClock, to: StreamClock) {
        let offset = self.timestamp_offset();
        self.source = None;
        // A switch that follows another before any packet goes on from the first.
        let from = match (offset, self.joint) {
            (Some(offset), _) => Some(from.in_slot(offset)),
            (None, Some(joint)) => Some(joint.from),
            (None, None) => None,
        };
        self.joint = from.map(|from| Joint { from, to });
    }

    /// Gives the packet its outgoing numbers; it must then be sent.
    ///
    /// # Errors
    ///
    /// [`Dropped::PredatesSwitch`] when it is older than the source's first packet,
    /// [`Dropped::Duplicate`] when it was rewritten or skipped before, [`Dropped::TooLate`] when
    /// it is more than [`REORDER_PACKETS`] behind.
    pub fn rewrite(&mut self, now: Instant, incoming: &Incoming) -> Result<Outgoing, Dropped> {
        if self.source.is_none() {
            self.source = Some(self.begin(now, incoming));
        }
        let source = self.source.as_mut().expect("begun above");
        let is_newest = source.take(*incoming.seq)?;

        let seq = source.packets.number(*incoming.seq);
        self.sent = self.sent.max(seq);
        let timestamp = incoming.timestamp.wrapping_add(source.timestamp_offset);
        if self.timestamp_at.is_none() || is_after(timestamp, self.timestamp) {
            self.timestamp = timestamp;
            self.timestamp_at = Some(now);
        }
        let vp8 = incoming.vp8.map(|vp8| Vp8Numbers {
            picture_id: vp8.picture_id.map(|id| self.picture(id, is_newest)),
            tl0_pic_idx: vp8.tl0_pic_idx.map(|index| self.tl0(index)),
        });
        Ok(Outgoing {
            seq: seq.into(),
            timestamp,
            vp8,
        })
    }

    /// Takes note of a packet that is withheld on purpose: a temporal layer not wanted, padding,
    /// an empty payload. Later packets and VP8 pictures close up. A picture is withheld whole or
    /// not at all.
    ///
    /// When packets after it have left already its number cannot be taken back: then it is
    /// returned, and a packet with these numbers and an empty payload must be sent, or the
    /// receiver would ask in vain for what it takes as lost.
    pub fn skip(&mut self, incoming: &Incoming) -> Option<Outgoing> {
        let source = self.source.as_mut()?;
        source.take(*incoming.seq).ok()?;

        if let (Some(vp8), Some(line)) = (incoming.vp8, &mut source.pictures)
            && let Some(id) = vp8.picture_id
        {
            let picture = id.nearest(line.high);
            line.advance(picture);
            line.close(picture, self.sent_picture);
        }
        if source.packets.close(*incoming.seq, self.sent) {
            return None;
        }
        let seq = source.packets.number(*incoming.seq);
        let timestamp = incoming.timestamp.wrapping_add(source.timestamp_offset);
        Some(Outgoing {
            seq: seq.into(),
            timestamp,
            vp8: None,
        })
    }

    /// What is added, wrapping, to the live source's timestamps: it turns the publisher's sender
    /// reports into the slot's. `None` before the first packet after a switch.
    #[must_use]
    pub fn timestamp_offset(&self) -> Option<u32> {
        self.source.as_ref().map(|source| source.timestamp_offset)
    }

    /// A new source, placed so that `first` follows what was sent.
    fn begin(&mut self, now: Instant, first: &Incoming) -> Source {
        let timestamp = match self.timestamp_at {
            Some(then) => {
                let arrived = now.saturating_duration_since(then);
                let elapsed = self
                    .joint
                    .take()
                    .and_then(|joint| joint.elapsed(arrived, first.timestamp, self.timestamp))
                    .unwrap_or(arrived);
                let (step, ahead) = step(elapsed, self.clock_rate, self.ahead);
                self.ahead = ahead;
                self.timestamp.wrapping_add(step)
            }
            None => self.timestamp,
        };
        Source {
            packets: Line::new(*first.seq, self.sent + 1),
            seen: Window::default(),
            timestamp_offset: timestamp.wrapping_sub(first.timestamp),
            pictures: None,
            tl0_offset: None,
        }
    }

    /// The outgoing picture id, in 15 bits.
    fn picture(&mut self, id: PictureId, is_newest: bool) -> u16 {
        let source = self.source.as_mut().expect("called with a source");
        let after_sent = self.sent_picture + 1;
        let line = source
            .pictures
            .get_or_insert_with(|| Line::new(u64::from(id.value), after_sent));
        let mut picture = id.nearest(line.high);
        if is_newest && line.place(picture).is_none() {
            // A newer packet cannot belong to a picture this old: the encoder counts afresh.
            picture = u64::from(id.value);
            *line = Line::new(picture, after_sent);
        }
        line.advance(picture);
        line.reopen(picture, self.sent_picture);
        let number = line.number(picture);
        self.sent_picture = self.sent_picture.max(number);
        (number & 0x7FFF) as u16
    }

    /// The outgoing TL0PICIDX. Pictures of temporal layer 0 are never withheld, so it needs no
    /// closing up.
    fn tl0(&mut self, index: u8) -> u8 {
        let source = self.source.as_mut().expect("called with a source");
        let after_sent = self.sent_tl0.wrapping_add(1);
        let offset = *source
            .tl0_offset
            .get_or_insert_with(|| after_sent.wrapping_sub(index));
        let number = index.wrapping_add(offset);
        if number.wrapping_sub(self.sent_tl0) < 0x80 {
            self.sent_tl0 = number;
        }
        number
    }
}

impl Joint {
    /// What passed between the last picture and the first, if it can be true.
    fn elapsed(&self, arrived: Duration, first: u32, last: u32) -> Option<Duration> {
        let taken = self.to.micros_since(first, &self.from, last).max(0);
        let taken = Duration::from_micros(taken.unsigned_abs());
        (taken.abs_diff(arrived) <= MAX_SKEW).then_some(taken)
    }
}

impl Source {
    /// Takes in a packet: `Ok(true)` when it is the newest, `Ok(false)` when it comes late.
    fn take(&mut self, seq: u64) -> Result<bool, Dropped> {
        if distance(seq, self.packets.first) < 0 {
            return Err(Dropped::PredatesSwitch);
        }
        let behind = distance(self.packets.high, seq);
        if behind < 0 {
            self.seen.clear(self.packets.high, behind.unsigned_abs());
            self.packets.advance(seq);
            self.seen.set(seq, true);
            return Ok(true);
        }
        if behind.unsigned_abs() >= REORDER_PACKETS {
            return Err(Dropped::TooLate);
        }
        if self.seen.has(seq) {
            return Err(Dropped::Duplicate);
        }
        self.seen.set(seq, true);
        Ok(false)
    }
}

/// How one run of incoming numbers maps to outgoing ones: in order, gaps kept, closed ones left
/// out. Incoming numbers may wrap around `u64`, outgoing ones begin small and never do.
#[derive(Debug)]
struct Line<const WORDS: usize> {
    /// The first incoming number of the run.
    first: u64,
    /// The highest incoming number so far.
    high: u64,
    /// The outgoing number of `high + 1`.
    next: u64,
    /// Incoming numbers that have no outgoing one.
    closed: Window<WORDS>,
}

impl<const WORDS: usize> Line<WORDS> {
    /// A run in which `first` will become `next`.
    fn new(first: u64, next: u64) -> Self {
        Self {
            first,
            high: first.wrapping_sub(1),
            next,
            closed: Window::default(),
        }
    }

    /// How far `at` is behind the highest number; `None` when it predates the run or is forgotten.
    /// Numbers ahead are 0 behind.
    fn place(&self, at: u64) -> Option<u64> {
        let behind = distance(self.high, at).max(0).unsigned_abs();
        (distance(at, self.first) >= 0 && behind < Window::<WORDS>::SPAN).then_some(behind)
    }

    /// Makes `to` the highest number if it is higher. A gap longer than the window becomes as
    /// long as the window: what would fill it is too late anyway.
    fn advance(&mut self, to: u64) {
        let ahead = distance(to, self.high);
        if ahead > 0 {
            let ahead = ahead.unsigned_abs();
            self.closed.clear(self.high, ahead);
            self.high = to;
            self.next += ahead.min(Window::<WORDS>::SPAN);
        }
    }

    /// The outgoing number of `at`; of a closed one, that of the number before it.
    fn number(&self, at: u64) -> u64 {
        let behind = distance(self.high, at).max(0).unsigned_abs();
        let open = behind - self.closed.count(at, behind);
        self.next.saturating_sub(1 + open)
    }

    /// Leaves `at` out, unless its number or a later one is among those `sent`. Whether it is out.
    fn close(&mut self, at: u64, sent: u64) -> bool {
        if self.place(at).is_none() {
            return false;
        }
        if !self.closed.has(at) && self.number(at) > sent {
            self.closed.set(at, true);
            self.next -= 1;
        }
        self.closed.has(at)
    }

    /// Takes `at` in again if it was left out and nothing later is among those `sent`.
    fn reopen(&mut self, at: u64, sent: u64) {
        if self.place(at).is_some() && self.closed.has(at) && self.number(at) >= sent {
            self.closed.set(at, false);
            self.next += 1;
        }
    }
}

/// One bit for each of the last `64 * WORDS` numbers, at the number modulo that.
#[derive(Debug)]
struct Window<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        const { assert!(WORDS.is_power_of_two(), "numbers wrap around u64") };
        Self([0; WORDS])
    }
}

impl<const WORDS: usize> Window<WORDS> {
    const SPAN: u64 = 64 * WORDS as u64;

    fn set(&mut self, at: u64, bit: bool) {
        let (word, mask) = (Self::word(at), 1 << (at % 64));
        if bit {
            self.0[word] |= mask;
        } else {
            self.0[word] &= !mask;
        }
    }

    fn has(&self, at: u64) -> bool {
        self.0[Self::word(at)] & 1 << (at % 64) != 0
    }

    /// Clears the `len` bits after `after`.
    fn clear(&mut self, after: u64, len: u64) {
        for (word, mask) in Self::masks(after, len) {
            self.0[word] &= !mask;
        }
    }

    /// How many of the `len` bits after `after` are set.
    fn count(&self, after: u64, len: u64) -> u64 {
        Self::masks(after, len)
            .map(|(word, mask)| u64::from((self.0[word] & mask).count_ones()))
            .sum()
    }

    /// The words that hold the `len` bits after `after`, each with a mask of those bits; at most
    /// the whole window once.
    fn masks(after: u64, len: u64) -> impl Iterator<Item = (usize, u64)> {
        let mut at = after.wrapping_add(1);
        let mut left = len.min(Self::SPAN);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let taken = left.min(64 - at % 64);
            let item = (Self::word(at), u64::MAX >> (64 - taken) << (at % 64));
            at = at.wrapping_add(taken);
            left -= taken;
            Some(item)
        })
    }

    const fn word(at: u64) -> usize {
        (at / 64 % WORDS as u64) as usize
    }
}

/// By how many ticks the timestamp steps over a switch, and how far ahead of the clock it is
/// then. The step is at least 20 ms: about one picture, or one Opus packet.
fn step(elapsed: Duration, clock_rate: u32, ahead: u32) -> (u32, u32) {
    let ticks = elapsed.min(MAX_PAUSE).as_micros() * u128::from(clock_rate) / 1_000_000;
    let ticks = u32::try_from(ticks)
        .unwrap_or(i32::MAX as u32)
        .min(i32::MAX as u32);
    let step = ticks.saturating_sub(ahead).max(clock_rate / 50);
    (step, (ahead + step).saturating_sub(ticks))
}

/// How far `a` is after `b`, both counted modulo 2^64.
const fn distance(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const CLOCK: u32 = 90_000;
    const TICK: u32 = CLOCK / 50;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What a source sends, and what happens to it on its way to the rewriter.
    #[derive(Debug, Clone)]
    struct Script {
        seq: u64,
        timestamp: u32,
        picture_id: u16,
        /// 7, 15, or 0 when the source is not VP8.
        bits: u8,
        tl0: u8,
        /// How long after the packet before the first one arrives.
        pause: Duration,
        pictures: Vec<Picture>,
    }

    #[derive(Debug, Clone)]
    struct Picture {
        /// In temporal layer 2, and withheld.
        skipped: bool,
        packets: Vec<Packet>,
        /// A packet without payload follows the picture; it is withheld.
        padding_after: bool,
    }

    #[derive(Debug, Clone)]
    struct Packet {
        lost: bool,
        /// It is overtaken by this many packets.
        delay: usize,
        /// A copy arrives after this many packets.
        copy_after: Option<usize>,
    }

    /// One packet as it was sent.
    #[derive(Debug, Clone, Copy)]
    struct Sent {
        incoming: Incoming,
        picture: Option<usize>,
        tl0: u8,
        skipped: bool,
    }

    fn payload(bits: u8, picture_id: u16, tl0: u8, tid: u8) -> Vec<u8> {
        let [high, low] = picture_id.to_be_bytes();
        match bits {
            7 => vec![0x90, 0xE0, low & 0x7F, tl0, tid << 6, 0x00],
            _ => vec![0x90, 0xE0, 0x80 | high, low, tl0, tid << 6, 0x00],
        }
    }

    impl Script {
        /// The packets in the order they arrive.
        fn arrivals(&self) -> Vec<Sent> {
            let mut arrivals = Vec::new();
            let mut tl0 = self.tl0;
            let mut index = 0;
            for (number, picture) in self.pictures.iter().enumerate() {
                let is_first = number == 0;
                let skipped = picture.skipped && !is_first;
                if !skipped && !is_first {
                    tl0 = tl0.wrapping_add(1);
                }
                let timestamp = self.timestamp.wrapping_add(3000 * number as u32);
                let id = self.picture_id.wrapping_add(number as u16);
                let tid = if skipped { 2 } else { 0 };
                let vp8 = Vp8Descriptor::parse(&payload(self.bits, id, tl0, tid));
                let padding = Packet {
                    lost: false,
                    delay: 2,
                    copy_after: None,
                };
                let packets = picture.packets.iter().map(|p| (p, true));
                let padding = picture.padding_after.then_some((&padding, false));
                for (packet, has_payload) in packets.chain(padding) {
                    let is_vp8 = has_payload && self.bits > 0;
                    let sent = Sent {
                        incoming: Incoming {
                            seq: self.seq.wrapping_add(index as u64).into(),
                            timestamp,
                            vp8: vp8.filter(|_| is_vp8),
                        },
                        picture: is_vp8.then_some(number),
                        tl0,
                        skipped: skipped || !has_payload,
                    };
                    if index == 0 {
                        arrivals.push((0, sent));
                    } else if !packet.lost {
                        arrivals.push((index + packet.delay, sent));
                    }
                    if !packet.lost
                        && let Some(after) = packet.copy_after
                    {
                        arrivals.push((index + packet.delay + 1 + after, sent));
                    }
                    index += 1;
                }
            }
            arrivals.sort_by_key(|&(at, _)| at);
            arrivals.into_iter().map(|(_, sent)| sent).collect()
        }
    }

    /// What must be true of everything one slot sent, kept as plain maps.
    #[derive(Default)]
    struct Receiver {
        numbers: BTreeSet<u64>,
        highest_picture: Option<u16>,
        highest_tl0: Option<u8>,
        /// Newest timestamp and when it arrived.
        newest: Option<(u32, Instant)>,
    }

    /// The same for the source that plays; source numbers count from its first packet.
    #[derive(Default)]
    struct Playing {
        /// Source number to slot number, for everything sent.
        sent: BTreeMap<u64, u64>,
        /// Source numbers that were withheld and need not be sent.
        closed: BTreeSet<u64>,
        pictures: BTreeMap<usize, u16>,
        closed_pictures: BTreeSet<usize>,
        tl0_offset: Option<u8>,
    }

    impl Playing {
        /// Slot numbers differ by what the source sent in between, less what was withheld.
        fn check(&self) {
            for ((&a, &out_a), (&b, &out_b)) in self.sent.iter().zip(self.sent.iter().skip(1)) {
                let closed = self.closed.range(a..b).count() as u64;
                assert_eq!(out_b - out_a, b - a - closed, "between packets {a} and {b}");
            }
            let pictures = self.pictures.iter().zip(self.pictures.iter().skip(1));
            for ((&a, &out_a), (&b, &out_b)) in pictures {
                let closed = self.closed_pictures.range(a..b).count();
                let step = out_b.wrapping_sub(out_a) & 0x7FFF;
                assert_eq!(
                    usize::from(step),
                    b - a - closed,
                    "between pictures {a} and {b}"
                );
            }
        }
    }

    impl Receiver {
        /// Plays one source into the slot and checks what comes out.
        fn play(&mut self, rewriter: &mut Rewriter, now: &mut Instant, script: &Script) {
            let mut playing = Playing::default();
            let mut fed = BTreeSet::new();
            for sent in script.arrivals() {
                let number = sent.incoming.seq.wrapping_sub(script.seq);
                let is_new = fed.insert(number);
                if sent.skipped {
                    let filler = rewriter.skip(&sent.incoming);
                    let overtaken = playing.sent.keys().any(|&n| n > number);
                    assert_eq!(filler.is_some(), is_new && overtaken, "skip of {number}");
                    match filler {
                        Some(out) => self.take(&mut playing, number, &out),
                        None if !overtaken => drop(playing.closed.insert(number)),
                        None => {}
                    }
                    if let Some(picture) = sent.picture
                        && playing.pictures.keys().all(|&p| p < picture)
                    {
                        playing.closed_pictures.insert(picture);
                    }
                } else {
                    let result = rewriter.rewrite(*now, &sent.incoming);
                    if !is_new {
                        assert_eq!(result, Err(Dropped::Duplicate));
                        continue;
                    }
                    let out = result.expect("it is new and not late");
                    self.check_time(*now, playing.sent.is_empty(), out.timestamp);
                    let offset = rewriter.timestamp_offset().expect("a source plays");
                    assert_eq!(out.timestamp, sent.incoming.timestamp.wrapping_add(offset));
                    self.check_vp8(&mut playing, &sent, &out);
                    self.take(&mut playing, number, &out);
                }
                *now += ms(number % 7);
            }
            playing.check();
        }

        fn take(&mut self, playing: &mut Playing, number: u64, out: &Outgoing) {
            if playing.sent.is_empty()
                && let Some(last) = self.numbers.last()
            {
                assert_eq!(
                    *out.seq,
                    last + 1,
                    "a source begins where the last one ended"
                );
            }
            assert!(self.numbers.insert(*out.seq), "{} was used twice", out.seq);
            playing.sent.insert(number, *out.seq);
        }

        fn check_time(&mut self, now: Instant, is_first: bool, timestamp: u32) {
            if let Some((newest, at)) = self.newest {
                let step = timestamp.wrapping_sub(newest);
                if is_first {
                    let elapsed = (now - at).as_millis() as u32 * (CLOCK / 1000);
                    assert!(
                        (TICK..=elapsed.max(TICK)).contains(&step),
                        "{step} in {elapsed}"
                    );
                }
                if step == 0 || step > u32::MAX / 2 {
                    return;
                }
            }
            self.newest = Some((timestamp, now));
        }

        fn check_vp8(&mut self, playing: &mut Playing, sent: &Sent, out: &Outgoing) {
            let Some(picture) = sent.picture else {
                return assert_eq!(out.vp8, None);
            };
            let numbers = out.vp8.expect("VP8 has numbers");
            let (id, tl0) = (numbers.picture_id.unwrap(), numbers.tl0_pic_idx.unwrap());
            if playing.pictures.is_empty() {
                if let Some(last) = self.highest_picture {
                    assert_eq!(id, (last + 1) & 0x7FFF);
                }
                if let Some(last) = self.highest_tl0 {
                    assert_eq!(tl0, last.wrapping_add(1));
                }
            }
            let known = *playing.pictures.entry(picture).or_insert(id);
            assert_eq!(known, id, "one picture, one id");
            if playing.pictures.last_key_value() == Some((&picture, &id)) {
                self.highest_picture = Some(id);
                self.highest_tl0 = Some(tl0);
            }
            let offset = tl0.wrapping_sub(sent.tl0);
            assert_eq!(*playing.tl0_offset.get_or_insert(offset), offset);
        }
    }

    fn packet() -> impl Strategy<Value = Packet> {
        let delay = prop_oneof![4 => Just(0), 1 => 1..40_usize];
        let copy = prop_oneof![6 => Just(None), 1 => (0..40_usize).prop_map(Some)];
        (prop::bool::weighted(0.1), delay, copy).prop_map(|(lost, delay, copy_after)| Packet {
            lost,
            delay,
            copy_after,
        })
    }

    fn picture() -> impl Strategy<Value = Picture> {
        let packets = prop::collection::vec(packet(), 1..5);
        let bools = (prop::bool::weighted(0.4), prop::bool::weighted(0.2));
        (packets, bools).prop_map(|(packets, (skipped, padding_after))| Picture {
            skipped,
            packets,
            padding_after,
        })
    }

    /// Any number, but often one that is about to wrap around.
    fn near_wrap(bits: u32) -> impl Strategy<Value = u64> {
        let mask = u64::MAX >> (64 - bits);
        prop_oneof![any::<u64>(), 0..50_u64, (0..50_u64).prop_map(|n| !n)]
            .prop_map(move |n| n & mask)
    }

    fn script(bits: impl Strategy<Value = u8>, pictures: usize) -> impl Strategy<Value = Script> {
        let numbers = (near_wrap(64), near_wrap(32), near_wrap(15), near_wrap(8));
        let pictures = prop::collection::vec(picture(), 1..pictures);
        let pause = prop_oneof![0..100_u64, 0..100_000_u64];
        (numbers, bits, pause, pictures).prop_map(
            |((seq, timestamp, picture_id, tl0), bits, pause, pictures)| Script {
                seq,
                timestamp: timestamp as u32,
                picture_id: picture_id as u16,
                bits,
                tl0: tl0 as u8,
                pause: ms(pause),
                pictures,
            },
        )
    }

    fn play_all(first_seq: u64, first_timestamp: u32, scripts: &[Script]) {
        let mut now = origin();
        let mut rewriter = Rewriter::new(first_seq.into(), first_timestamp, CLOCK);
        let mut receiver = Receiver::default();
        for script in scripts {
            now += script.pause;
            rewriter.switch();
            receiver.play(&mut rewriter, &mut now, script);
        }
        assert_eq!(receiver.numbers.first(), Some(&first_seq));
    }

    proptest! {
        #[test]
        fn a_receiver_sees_one_stream_whatever_plays(
            first_seq in 1..=1_u64 << 15,
            first_timestamp in near_wrap(32),
            scripts in prop::collection::vec(
                script(prop_oneof![Just(15), Just(7), Just(0)], 12), 1..8),
        ) {
            play_all(first_seq, first_timestamp as u32, &scripts);
        }

        #[test]
        fn a_hundred_switches_leave_no_trace(
            scripts in prop::collection::vec(script(Just(15), 3), 100),
        ) {
            play_all(1 << 15, u32::MAX, &scripts);
        }

        #[test]
        fn a_long_source_wraps_around_unnoticed(script in script(Just(7), 400)) {
            play_all(1 << 15, 0, &[script]);
        }

        #[test]
        fn no_input_makes_it_panic_or_use_a_number_twice(
            first_seq in 1..=1_u64 << 15,
            inputs in prop::collection::vec(
                (0..12_u8, near_wrap(64), near_wrap(32), near_wrap(15), any::<u8>()), 0..200),
        ) {
            let mut rewriter = Rewriter::new(first_seq.into(), 0, CLOCK);
            let mut now = origin();
            let mut used = BTreeSet::new();
            let mut last = 0_u64;
            for (choice, seq, timestamp, picture_id, tl0) in inputs {
                let bits = [0, 7, 15][usize::from(tl0) % 3];
                // Mostly a step from the packet before, to either side.
                let step = last.wrapping_add(seq % 3000).wrapping_sub(1000);
                last = if choice % 5 == 0 { seq } else { step };
                let vp8 = Vp8Descriptor::parse(&payload(bits, picture_id as u16, tl0, 0));
                let seq = last.into();
                let incoming = Incoming { seq, timestamp: timestamp as u32, vp8 };
                match choice {
                    0 => rewriter.switch(),
                    1..4 => {
                        let filler = rewriter.skip(&incoming);
                        prop_assert!(filler.is_none_or(|out| used.insert(out.seq)));
                    }
                    _ => {
                        let out = rewriter.rewrite(now, &incoming);
                        prop_assert!(out.is_err() || used.insert(out.unwrap().seq));
                    }
                }
                now += ms(timestamp);
            }
        }
    }

    fn plain(seq: u64) -> Incoming {
        Incoming {
            seq: seq.into(),
            timestamp: seq as u32 * 3000,
            vp8: None,
        }
    }

    fn vp8(seq: u64, picture_id: u16) -> Incoming {
        Incoming {
            vp8: Vp8Descriptor::parse(&payload(15, picture_id, 0, 0)),
            ..plain(seq)
        }
    }

    fn picture_id(out: Outgoing) -> u16 {
        out.vp8.unwrap().picture_id.unwrap()
    }

    #[test]
    fn what_comes_before_the_first_packet_of_a_source_is_dropped() {
        let mut rewriter = Rewriter::new(7.into(), 0, CLOCK);
        let now = origin();
        assert_eq!(rewriter.skip(&plain(99)), None, "nothing plays yet");
        assert_eq!(*rewriter.rewrite(now, &plain(100)).unwrap().seq, 7);
        assert_eq!(
            rewriter.rewrite(now, &plain(99)),
            Err(Dropped::PredatesSwitch)
        );
        rewriter.switch();
        assert_eq!(rewriter.timestamp_offset(), None);
        assert_eq!(*rewriter.rewrite(now, &plain(50)).unwrap().seq, 8);
        assert_eq!(
            rewriter.rewrite(now, &plain(49)),
            Err(Dropped::PredatesSwitch)
        );
    }

    #[test]
    fn a_packet_that_is_too_late_is_dropped_and_the_last_in_time_is_not() {
        let mut rewriter = Rewriter::new(1.into(), 0, CLOCK);
        let now = origin();
        rewriter.rewrite(now, &plain(0)).unwrap();
        let newest = *rewriter.rewrite(now, &plain(REORDER_PACKETS)).unwrap().seq;
        assert_eq!(newest, 1 + REORDER_PACKETS);
        let newest = *rewriter
            .rewrite(now, &plain(REORDER_PACKETS + 1))
            .unwrap()
            .seq;
        assert_eq!(
            *rewriter.rewrite(now, &plain(2)).unwrap().seq,
            newest + 1 - REORDER_PACKETS
        );
        assert_eq!(rewriter.rewrite(now, &plain(1)), Err(Dropped::TooLate));
    }

    #[test]
    fn a_gap_longer_than_what_may_come_late_is_shortened() {
        let mut rewriter = Rewriter::new(1.into(), 0, CLOCK);
        let now = origin();
        rewriter.rewrite(now, &plain(0)).unwrap();
        let after = rewriter.rewrite(now, &plain(40_000)).unwrap();
        assert_eq!(*after.seq, 1 + REORDER_PACKETS);
        assert_eq!(
            *rewriter.rewrite(now, &plain(39_000)).unwrap().seq,
            1 + REORDER_PACKETS - 1000
        );
    }

    #[test]
    fn lost_packets_at_the_end_of_a_source_leave_no_gap() {
        let mut rewriter = Rewriter::new(1.into(), 0, CLOCK);
        let now = origin();
        rewriter.rewrite(now, &plain(10)).unwrap();
        assert_eq!(rewriter.skip(&plain(13)), None);
        rewriter.switch();
        assert_eq!(*rewriter.rewrite(now, &plain(90)).unwrap().seq, 2);
    }

    #[test]
    fn a_picture_that_is_withheld_only_in_part_keeps_its_id() {
        let mut rewriter = Rewriter::new(1.into(), 0, CLOCK);
        let now = origin();
        assert_eq!(picture_id(rewriter.rewrite(now, &vp8(0, 5)).unwrap()), 1);
        assert_eq!(rewriter.skip(&vp8(1, 6)), None);
        assert_eq!(picture_id(rewriter.rewrite(now, &vp8(2, 6)).unwrap()), 2);
        assert_eq!(rewriter.skip(&vp8(3, 6)), None);
        assert_eq!(picture_id(rewriter.rewrite(now, &vp8(4, 7)).unwrap()), 3);
    }

    #[test]
    fn an_encoder_that_counts_pictures_afresh_does_not_step_back() {
        let mut rewriter = Rewriter::new(1.into(), 0, CLOCK);
        let now = origin();
        assert_eq!(picture_id(rewriter.rewrite(now, &vp8(0, 9000)).unwrap()), 1);
        assert_eq!(picture_id(rewriter.rewrite(now, &vp8(1, 0)).unwrap()), 2);
        assert_eq!(picture_id(rewriter.rewrite(now, &vp8(2, 1)).unwrap()), 3);
    }

    #[test]
    fn a_pause_shows_in_the_timestamp_up_to_an_hour() {
        for (pause, ticks) in [
            (ms(0), TICK),
            (ms(19), TICK),
            (ms(500), 45_000),
            (MAX_PAUSE, 3600 * CLOCK),
            (MAX_PAUSE * 24, 3600 * CLOCK),
        ] {
            let mut rewriter = Rewriter::new(1.into(), u32::MAX, CLOCK);
            let now = origin();
            assert_eq!(
                rewriter.rewrite(now, &plain(0)).unwrap().timestamp,
                u32::MAX
            );
            rewriter.switch();
            let out = rewriter.rewrite(now + pause, &plain(777)).unwrap();
            assert_eq!(out.timestamp, ticks - 1, "after {pause:?}");
        }
    }

    #[test]
    fn switches_close_together_do_not_put_the_stream_ahead_for_good() {
        let mut rewriter = Rewriter::new(1.into(), 0, CLOCK);
        let start = origin();
        let mut elapsed = 0;
        for round in 0..100 {
            elapsed += if round % 2 == 0 { 1 } else { 65 };
            rewriter.switch();
            let out = rewriter
                .rewrite(start + ms(elapsed), &plain(round))
                .unwrap();
            let clock = (elapsed as u32 - 1) * (CLOCK / 1000);
            assert!(
                (clock..=clock + TICK).contains(&out.timestamp),
                "round {round}"
            );
        }
    }

    /// The clock of a layer whose timestamp was `timestamp` at `at` milliseconds.
    fn clock(at: u64, timestamp: u32) -> StreamClock {
        use crate::engine::egress::clock::Ntp;
        StreamClock::new(Ntp::from_unix(ms(at)), timestamp, CLOCK)
    }

    fn at(timestamp: u32) -> Incoming {
        Incoming {
            timestamp,
            ..plain(0)
        }
    }

    #[test]
    fn layers_of_one_track_join_by_when_their_pictures_were_taken() {
        // One layer began at 1000, the other at 500,000, both at 0 ms. The first's last picture
        // was taken at 100 ms.
        let (one, two) = (clock(0, 1000), clock(0, 500_000));
        let taken = |ms: u32| 500_000 + ms * 90;
        // The keyframe was taken then, in ms, and came so long after the picture before.
        let table = [
            (133, 33, 33 * 90),
            (133, 250, 33 * 90),
            // Of the same picture, or one before: a step forward all the same.
            (100, 40, TICK),
            (67, 90, TICK),
            // Not to be believed.
            (133, 1200, 1200 * 90),
            (5000, 33, 33 * 90),
        ];
        for (key, arrived, step) in table {
            let (mut rewriter, now) = (Rewriter::new(1.into(), 7, CLOCK), origin());
            let before = rewriter.rewrite(now, &at(1000 + 9000)).unwrap();
            rewriter.switch_layer(one, two);
            let after = rewriter
                .rewrite(now + ms(arrived), &at(taken(key)))
                .unwrap();
            assert_eq!(after.timestamp - before.timestamp, step, "{key} {arrived}");
        }
    }

    #[test]
    fn a_hundred_layer_switches_lose_no_time_however_late_keyframes_come() {
        let (mut rewriter, start) = (Rewriter::new(1.into(), 0, CLOCK), origin());
        let clocks = [clock(0, 1000), clock(0, 500_000)];
        let starts = [1000_u32, 500_000];
        let mut live = 0;
        rewriter.rewrite(start, &at(1000)).unwrap();
        for round in 1..=100_u32 {
            rewriter.switch_layer(clocks[live], clocks[1 - live]);
            live = 1 - live;
            let taken = round * 400;
            let late = u64::from(round * 37 % 200);
            let now = start + ms(u64::from(taken) + late);
            let out = rewriter.rewrite(now, &at(starts[live] + taken * 90));
            assert_eq!(out.unwrap().timestamp, taken * 90, "round {round}");
        }
    }

    #[test]
    fn a_layer_that_never_sent_joins_as_the_one_before_it() {
        let (mut rewriter, now) = (Rewriter::new(1.into(), 0, CLOCK), origin());
        rewriter.rewrite(now, &at(1000)).unwrap();
        rewriter.switch_layer(clock(0, 1000), clock(0, 500_000));
        rewriter.switch_layer(clock(0, 500_000), clock(0, 70_000));
        let out = rewriter.rewrite(now + ms(90), &at(70_000 + 4500)).unwrap();
        assert_eq!(out.timestamp, 4500);
    }
}
