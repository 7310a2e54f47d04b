//! One unbroken stream per slot: sequence, timestamp, VP8 picture id.
//!
//! What plays in a slot changes; the numbers a receiver sees must not show it. Within one source
//! they keep the source's order and gaps (a gap is a lost packet, which the receiver asks for).
//! What is withheld on purpose leaves no gap.

use std::time::{Duration, Instant};

use str0m::rtp::SeqNo;

use super::codec::vp8::PictureId;
use super::codec::{Vp8Descriptor, Vp8Numbers};
use super::stats::Dropped;

/// How far behind its source's newest packet a packet may be, in packets: more than a second of
/// video. An older one is dropped; a longer gap is shortened to this.
pub const REORDER_PACKETS: u64 = 64 * PACKET_WORDS as u64;
/// As [`REORDER_PACKETS`], for VP8 pictures.
pub const REORDER_PICTURES: u64 = 64 * PICTURE_WORDS as u64;
/// Longest time that a switch shows in the timestamp. After a longer pause the stream goes on as
/// if it had lasted this long: 2^31 ticks or more would read as a step back.
pub const MAX_PAUSE: Duration = Duration::from_secs(3600);

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
        }
    }

    /// Ends the live source: the next packet given to [`Self::rewrite`] is the first of another
    /// one, which must begin with a keyframe. Packets of the old source, and packets of the new
    /// one that it must not begin with, are not to be given any more.
    pub fn switch(&mut self) {
        self.source = None;
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
            let picture = extended(id, line.high);
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
                let (step, ahead) = step(now - then, self.clock_rate, self.ahead);
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
        let mut picture = extended(id, line.high);
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

/// Whether timestamp `a` is after `b`, both counted modulo 2^32.
const fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// The number nearest to `near` that has these low bits.
fn extended(id: PictureId, near: u64) -> u64 {
    let circle = 1u64 << id.bits;
    let up = u64::from(id.value).wrapping_sub(near) & (circle - 1);
    if up < circle / 2 {
        near.wrapping_add(up)
    } else {
        near.wrapping_add(up).wrapping_sub(circle)
    }
}
