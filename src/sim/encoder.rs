//! A synthetic encoder: frames whose payload descriptors are valid, and whose packets say who made
//! them, so that the oracles can check what arrives where.
//!
//! Every packet is `head, filler, stamp`: the head is what an RTP payload format demands (RFC 7741
//! VP8, RFC 9628 VP9, RFC 6184 H.264, the AV1 RTP specification), the stamp is [`Stamp`].

use std::time::{Duration, Instant};

use fastrand::Rng;
use str0m::format::Codec;

use super::layered::{Layered, Mode};
use crate::engine::command::{Kind, Source};

/// Largest payload of one packet, in bytes, head and stamp included.
const MAX_PAYLOAD: usize = 1100;

/// What one packet says about itself. It ends every payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Who published it: the index of the client in its world.
    pub(crate) publisher: u32,
    /// Which of the publisher's tracks it is of.
    pub(crate) source: Source,
    /// Which of the track's encodings, 0 without simulcast.
    pub(crate) layer: u8,
    /// Encodings are layers of one stream.
    pub(crate) in_one_stream: bool,
    /// Counts the times the track was started.
    pub(crate) epoch: u16,
    /// Counts frames since the track was first started.
    pub(crate) frame: u32,
    /// Place in the frame.
    pub(crate) packet: u8,
    /// Packets of the frame.
    pub(crate) packets: u8,
    /// Whether the frame can be decoded without any other. Every audio frame can.
    pub(crate) keyframe: bool,
    /// Bytes before the filler.
    head: u8,
}

impl Stamp {
    const BYTES: usize = 20;
    const MAGIC: [u8; 2] = [0xC0, 0x7E];

    /// The stamp of a payload that arrived whole; `None` when it is no packet of an encoder.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (body, stamp) = payload.split_at_checked(payload.len().checked_sub(Self::BYTES)?)?;
        if stamp[..2] != Self::MAGIC {
            return None;
        }
        let stamp = Self {
            publisher: u32::from_be_bytes(stamp[2..6].try_into().ok()?),
            source: source_of(stamp[6])?,
            epoch: u16::from_be_bytes([stamp[7], stamp[8]]),
            frame: u32::from_be_bytes(stamp[9..13].try_into().ok()?),
            packet: stamp[13],
            packets: stamp[14],
            keyframe: stamp[15] != 0,
            head: stamp[16],
            layer: stamp[17],
            in_one_stream: stamp[18] != 0,
        };
        let filler = body.get(usize::from(stamp.head)..)?;
        filler
            .iter()
            .all(|byte| *byte == stamp.filler())
            .then_some(stamp)
    }

    fn write(&self, payload: &mut Vec<u8>) {
        payload.extend(Self::MAGIC);
        payload.extend(self.publisher.to_be_bytes());
        payload.push(self.source as u8);
        payload.extend(self.epoch.to_be_bytes());
        payload.extend(self.frame.to_be_bytes());
        payload.extend([
            self.packet,
            self.packets,
            u8::from(self.keyframe),
            self.head,
            self.layer,
            u8::from(self.in_one_stream),
        ]);
        payload.push(0x80);
    }

    /// Which encoding of which track, since when: a stream a decoder can follow without a keyframe.
    pub(crate) fn run(&self) -> (u32, Source, u16, u8) {
        (self.publisher, self.source, self.epoch, self.layer)
    }

    fn filler(&self) -> u8 {
        let mixed = self.publisher ^ self.frame.wrapping_mul(31) ^ (u32::from(self.packet) << 5);
        // Never zero: H.264 forbids 00 00 0x inside a NAL unit.
        (mixed as u8) | 0x40
    }
}

fn source_of(byte: u8) -> Option<Source> {
    [
        Source::Microphone,
        Source::Camera,
        Source::Screen,
        Source::ScreenAudio,
    ]
    .into_iter()
    .find(|source| *source as u8 == byte)
}

/// Whether a source is heard or seen.
pub(crate) fn kind_of(source: Source) -> Kind {
    match source {
        Source::Microphone | Source::ScreenAudio => Kind::Audio,
        Source::Camera | Source::Screen => Kind::Video,
    }
}

/// What VP8's descriptor counts (RFC 7741 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vp8Ids {
    /// 15 bits.
    pub(crate) picture: u16,
    /// TL0PICIDX.
    pub(crate) tl0: u8,
}

impl Vp8Ids {
    /// Reads the descriptor that [`Encoder`] writes: X, I with 15 bits, L and T present.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let [first, second, high, low, tl0, ..] = payload else {
            return None;
        };
        let shape = first & 0x80 != 0 && second & 0xE0 == 0xE0 && high & 0x80 != 0;
        shape.then_some(Self {
            picture: u16::from_be_bytes([high & 0x7F, *low]),
            tl0: *tl0,
        })
    }
}

/// One RTP packet to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    /// RTP payload.
    pub(crate) payload: Vec<u8>,
    /// RTP timestamp.
    pub(crate) time: u32,
    /// Ends a picture.
    pub(crate) marker: bool,
    /// Its dependency descriptor, if it has one.
    pub(crate) descriptor: Option<Vec<u8>>,
}

/// How much an encoder makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Time between frames.
    pub(crate) frame_interval: Duration,
    /// Bytes of a frame that depends on others.
    pub(crate) delta_bytes: usize,
    /// Bytes of a keyframe.
    pub(crate) key_bytes: usize,
    /// How much of [`Self::delta_bytes`] each of four frames in a row has.
    pub(crate) percent: [u16; 4],
    /// Width and height of the pictures.
    pub(crate) size: (u16, u16),
}

impl Rate {
    /// Voice: 50 packets a second.
    pub(crate) const VOICE: Self = Self {
        frame_interval: Duration::from_millis(20),
        delta_bytes: 90,
        key_bytes: 90,
        percent: [100; 4],
        size: (0, 0),
    };
    /// A small camera picture: 15 frames a second, about 300 kbit/s.
    pub(crate) const CAMERA: Self = Self {
        frame_interval: Duration::from_millis(66),
        delta_bytes: 2500,
        key_bytes: 8000,
        percent: [100; 4],
        size: (320, 240),
    };

    /// Pictures of this size, 30 a second, at this many kbit/s; keyframes are five times as big.
    pub(crate) const fn pictures(width: u16, height: u16, kbps: usize) -> Self {
        let delta_bytes = kbps * 1000 / 8 / 30;
        Self {
            frame_interval: Duration::from_micros(33_333),
            delta_bytes,
            key_bytes: 5 * delta_bytes,
            percent: [100; 4],
            size: (width, height),
        }
    }

    /// The same ten times a second, in temporal layers: of four frames one is big; keyframes are
    /// three times as big as the others.
    pub(crate) const fn slow_pictures(width: u16, height: u16, kbps: usize) -> Self {
        let delta_bytes = kbps * 1000 / 8 / 10;
        Self {
            frame_interval: Duration::from_millis(100),
            delta_bytes,
            key_bytes: 3 * delta_bytes,
            percent: [180, 50, 90, 80],
            size: (width, height),
        }
    }
}

/// One track's encoder.
#[derive(Debug)]
pub(crate) struct Encoder {
    codec: Codec,
    publisher: u32,
    source: Source,
    layer: u8,
    rate: Rate,
    epoch: u16,
    frame: u32,
    wants_keyframe: bool,
    next_at: Instant,
    start: Instant,
    time_offset: u32,
    picture: u16,
    tl0: u8,
    /// Three layers in one stream, and how much there is of each.
    layered: Option<(Layered, [Rate; 3])>,
}

impl Encoder {
    /// An encoder whose first frame is due within one frame interval of `now`.
    pub(crate) fn new(
        now: Instant,
        rng: &mut Rng,
        publisher: u32,
        (source, codec, rate): (Source, Codec, Rate),
    ) -> Self {
        Self {
            codec,
            publisher,
            source,
            layer: 0,
            rate,
            epoch: 0,
            frame: 0,
            wants_keyframe: true,
            next_at: now + rate.frame_interval.mul_f64(rng.f64()),
            start: now,
            time_offset: rng.u32(..),
            picture: rng.u16(..) & 0x7FFF,
            tl0: rng.u8(..),
            layered: None,
        }
    }

    /// The same with these layers in its stream.
    pub(crate) fn in_one_stream(self, rng: &mut Rng, mode: Mode, rates: [Rate; 3]) -> Self {
        let layered = Layered::new(mode, rng.u16(..), rates.map(|rate| rate.size));
        Self {
            layered: Some((layered, rates)),
            ..self
        }
    }

    /// An encoder of the same pictures, as another layer of simulcast. It counts on its own.
    pub(crate) fn sibling(&self, rng: &mut Rng, layer: u8, rate: Rate) -> Self {
        let made = (self.source, self.codec, rate);
        Self {
            layer,
            next_at: self.next_at,
            ..Self::new(self.start, rng, self.publisher, made)
        }
    }

    /// Starts the track anew: with a keyframe, at the earliest now.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.epoch += 1;
        self.wants_keyframe = true;
        self.next_at = self.next_at.max(now);
    }

    /// The next frame is a keyframe.
    pub(crate) fn request_keyframe(&mut self) {
        self.wants_keyframe = true;
    }

    /// Whether the next frame is a keyframe.
    pub(crate) fn wants_keyframe(&self) -> bool {
        self.wants_keyframe
    }

    /// When the next frame is due.
    pub(crate) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// The packets of the frame that is due.
    pub(crate) fn poll_frame(&mut self) -> Vec<Packet> {
        let audio = kind_of(self.source) == Kind::Audio;
        let key = audio || std::mem::take(&mut self.wants_keyframe);
        let elapsed = self.next_at - self.start;
        let clock = if audio { 48_000.0 } else { 90_000.0 };
        let time = (elapsed.as_secs_f64() * clock).round() as u64 as u32;
        let time = time.wrapping_add(self.time_offset);
        let mut frame = Vec::new();
        match &self.layered {
            None => self.split(&mut frame, (self.layer, self.rate), key, time),
            Some((_, rates)) => {
                for (layer, rate) in (0..).zip(rates) {
                    self.split(&mut frame, (layer, *rate), key, time);
                }
            }
        }
        if let (Some(last), false) = (frame.last_mut(), audio) {
            last.marker = true;
        }
        if let Some((layered, _)) = &mut self.layered {
            layered.next_picture();
        }
        self.frame += 1;
        self.picture = (self.picture + 1) & 0x7FFF;
        self.tl0 = self.tl0.wrapping_add(1);
        self.next_at += self.rate.frame_interval;
        frame
    }

    /// Splits a frame into packets.
    fn split(&self, out: &mut Vec<Packet>, (layer, rate): (u8, Rate), key: bool, time: u32) {
        let bytes = if key {
            rate.key_bytes
        } else {
            rate.delta_bytes * usize::from(rate.percent[self.frame as usize % 4]) / 100
        };
        let packets = bytes.div_ceil(MAX_PAYLOAD - 40);
        for packet in 0..packets {
            let ends = (packet == 0, packet + 1 == packets);
            let descriptor = self.layered.as_ref();
            let place = (layer, packet, packets);
            out.push(Packet {
                // libwebrtc splits a frame so: sizes differ by at most a byte, small ones first.
                payload: self.payload(key, place, (bytes + packet) / packets),
                time,
                marker: false,
                descriptor: descriptor.map(|(layered, _)| layered.descriptor(layer, key, ends)),
            });
        }
    }

    fn payload(
        &self,
        key: bool,
        (layer, packet, packets): (u8, usize, usize),
        length: usize,
    ) -> Vec<u8> {
        let (first, last) = (packet == 0, packet + 1 == packets);
        let mut payload = match self.codec {
            // As if it were encrypted end to end.
            _ if self.layered.is_some() => vec![0xA7, 0x5C, 0x13],
            Codec::Vp8 => self.vp8_head(key, first),
            Codec::Vp9 => self.vp9_head(key, first, last),
            Codec::H264 => h264_head(key, first, last, length),
            Codec::Av1 => av1_head(key, first, last),
            _ => vec![0xF8],
        };
        let stamp = Stamp {
            publisher: self.publisher,
            source: self.source,
            layer,
            in_one_stream: self.layered.is_some(),
            epoch: self.epoch,
            frame: self.frame,
            packet: packet as u8,
            packets: packets as u8,
            keyframe: key,
            head: payload.len() as u8,
        };
        payload.resize(length - Stamp::BYTES, stamp.filler());
        stamp.write(&mut payload);
        payload
    }

    /// RFC 7741 §4.2 and the frame tag of RFC 6386 §9.1, with all ids, as Chromium sends them.
    fn vp8_head(&self, key: bool, first: bool) -> Vec<u8> {
        let start = if first { 0x10 } else { 0 };
        let [high, low] = (self.picture | 0x8000).to_be_bytes();
        let mut head = vec![0x80 | start, 0xE0, high, low, self.tl0, 0x20];
        if first && key {
            let (width, height) = self.rate.size;
            head.extend([0x10, 0x00, 0x01, 0x9D, 0x01, 0x2A]);
            head.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
        } else if first {
            head.extend([0x11, 0x00, 0x01]);
        }
        head
    }

    /// RFC 9628 §4.2: picture id, one layer, a scalability structure with each keyframe.
    fn vp9_head(&self, key: bool, first: bool, last: bool) -> Vec<u8> {
        let structure = key && first;
        let flags = 0x80
            | if key { 0 } else { 0x40 }
            | if first { 0x08 } else { 0 }
            | if last { 0x04 } else { 0 }
            | if structure { 0x02 } else { 0 };
        let [high, low] = (self.picture | 0x8000).to_be_bytes();
        let mut head = vec![flags, high, low];
        if structure {
            let (width, height) = self.rate.size;
            head.push(0x10);
            head.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
        }
        head
    }
}

/// RFC 6184: a keyframe begins with SPS and PPS in a STAP-A (§5.7.1), which the stamp ends; the
/// picture itself is fragmented in FU-A packets (§5.8), a picture of one packet is one NAL unit.
fn h264_head(key: bool, first: bool, last: bool, length: usize) -> Vec<u8> {
    const SPS: [u8; 5] = [0x67, 0x42, 0xE0, 0x1F, 0x8C];
    let nal = if key { 5 } else { 1 };
    if key && first {
        let mut head = vec![0x78, 0, SPS.len() as u8];
        head.extend(SPS);
        let pps = (length - head.len() - 2) as u16;
        head.extend(pps.to_be_bytes());
        head.push(0x68);
        return head;
    }
    if first && last {
        return vec![0x60 | nal];
    }
    let start = if first { 0x80 } else { 0 };
    let end = if last { 0x40 } else { 0 };
    vec![0x7C, start | end | nal]
}

/// AV1 RTP specification §4.4: aggregation header, a sequence header OBU with each keyframe, one
/// frame OBU fragmented over the packets.
fn av1_head(key: bool, first: bool, last: bool) -> Vec<u8> {
    let continues = (if first { 0 } else { 0x80 }) | (if last { 0 } else { 0x40 });
    if first && key {
        return vec![
            continues | 0x20 | 0x08,
            4,
            0x08,
            0x00,
            0x00,
            0x00,
            0x30,
            0x10,
        ];
    }
    if first {
        return vec![continues | 0x10, 0x30, 0x30];
    }
    vec![continues | 0x10]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock;
    use str0m::rtp::Vp8Descriptor;

    fn encoder(codec: Codec) -> Encoder {
        let mut rng = Rng::with_seed(1);
        let setup = (Source::Camera, codec, Rate::CAMERA);
        Encoder::new(clock::origin(), &mut rng, 3, setup)
    }

    #[test]
    fn a_frame_is_split_into_packets_of_nearly_one_size() {
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
            let frame = encoder(codec).poll_frame();
            let sizes: Vec<_> = frame.iter().map(|p| p.payload.len()).collect();
            assert_eq!(sizes.iter().sum::<usize>(), Rate::CAMERA.key_bytes);
            assert!(sizes.is_sorted() && sizes[sizes.len() - 1] - sizes[0] <= 1);
            assert!(frame.iter().rev().skip(1).all(|p| !p.marker));
            assert!(frame[frame.len() - 1].marker);
        }
    }

    #[test]
    fn a_stamp_survives_and_a_flipped_bit_is_seen() {
        let mut payload = encoder(Codec::Vp9).poll_frame().remove(1).payload;
        let stamp = Stamp::parse(&payload).unwrap();
        assert_eq!((stamp.publisher, stamp.packet), (3, 1));
        assert!(stamp.keyframe);
        payload[500] ^= 1;
        assert_eq!(Stamp::parse(&payload), None);
    }

    #[test]
    fn a_keyframe_comes_first_and_then_when_asked_for() {
        let mut encoder = encoder(Codec::H264);
        let mut keys = Vec::new();
        for frame in 0..5 {
            if frame == 3 {
                encoder.request_keyframe();
            }
            let first = encoder.poll_frame().remove(0);
            keys.push(Stamp::parse(&first.payload).unwrap().keyframe);
        }
        assert_eq!(keys, [true, false, false, true, false]);
    }

    #[test]
    fn str0m_reads_the_vp8_descriptor_we_write() {
        let mut encoder = encoder(Codec::Vp8);
        for frame in 0..3 {
            let first = encoder.poll_frame().remove(0).payload;
            let descriptor = Vp8Descriptor::parse(&first).unwrap();
            assert_eq!(descriptor.starts_keyframe(&first), frame == 0);
            assert!(Vp8Ids::parse(&first).is_some());
        }
    }
}
