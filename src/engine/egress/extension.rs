//! RTP header extensions of one m-line (RFC 8285), most of them written once and kept as bytes.

use str0m::media::Mid;

use super::clock::Ntp;
use crate::engine::svc::FRAME_NUMBER_AT;

/// Fixed RTP header without contributing sources, in bytes (RFC 3550 §5.1).
const FIXED_BYTES: usize = 12;

/// Profile and length of the extension block, in bytes (RFC 3550 §5.3.1).
const BLOCK_HEAD_BYTES: usize = 4;

/// Longest element of the one-byte form, in bytes, and its highest id (RFC 8285 §4.2).
const ONE_BYTE_MAX: (usize, u8) = (16, 14);

/// Longest element of the two-byte form, in bytes (RFC 8285 §4.3).
const TWO_BYTE_MAX: usize = 255;

/// Fixed header, block head, abs-send-time, transport-wide number, MID of 16 bytes.
const TEMPLATE_BYTES: usize = FIXED_BYTES + BLOCK_HEAD_BYTES + (2 + 3) + (2 + 2) + (2 + 16);

/// Ids under which one m-line carries its header extensions; `None` where it was not negotiated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 8843 §15).
    pub mid: Option<u8>,
    /// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    pub twcc: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`.
    pub abs_send_time: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464).
    pub audio_level: Option<u8>,
    /// `urn:3gpp:video-orientation` (3GPP TS 26.114).
    pub video_orientation: Option<u8>,
    /// The AV1 RTP specification's dependency descriptor.
    pub dependency_descriptor: Option<u8>,
    /// `a=extmap-allow-mixed`: both forms may appear in one stream (RFC 8285 §4.1.2).
    pub mixed: bool,
}

/// What a publisher's packet carried that its viewers need too.
#[derive(Debug, Clone, Copy, Default)]
pub struct PacketExtensions<'a> {
    /// RFC 6464 §3: the voice flag in the top bit, 0 to 127 dB below full scale in the others.
    pub audio_level: Option<u8>,
    /// 3GPP TS 26.114 §7.4.5: camera, flip and rotation.
    pub video_orientation: Option<u8>,
    /// The dependency descriptor's bytes; none when empty.
    pub dependency_descriptor: &'a [u8],
    /// The number of its frame there, in the place of the publisher's.
    pub frame_number: Option<u16>,
}

/// The unchanging part of one stream's headers, in each form it needs.
#[derive(Debug)]
pub(super) struct HeaderTemplates {
    /// The form most packets have.
    usual: Template,
    /// For packets with an element too long for the one-byte form, when forms may be mixed.
    long: Option<Template>,
    omit_mid: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// RFC 8285 §4.2.
    OneByte,
    /// RFC 8285 §4.3.
    TwoByte,
}

#[derive(Debug)]
struct Template {
    form: Form,
    bytes: [u8; TEMPLATE_BYTES],
    /// Its length; the MID is last, so that it can be left out.
    len: usize,
    len_without_mid: usize,
    /// Where the three bytes of abs-send-time go; 0 when it is not negotiated.
    abs_send_time_at: usize,
    /// Where the transport-wide number goes; 0 when it is not negotiated.
    twcc_at: usize,
}

impl HeaderTemplates {
    pub(super) fn new(ssrc: u32, mid: Mid, ids: &ExtensionIds) -> Self {
        // Without leave to mix forms the longest element decides for the whole stream.
        let long = ids.dependency_descriptor.is_some();
        let usual = if ids.highest() > ONE_BYTE_MAX.1 || (long && !ids.mixed) {
            Form::TwoByte
        } else {
            Form::OneByte
        };
        let template = |form| Template::new(form, ssrc, mid, ids);
        Self {
            usual: template(usual),
            long: (long && usual == Form::OneByte).then(|| template(Form::TwoByte)),
            omit_mid: false,
        }
    }

    pub(super) fn omit_mid(&mut self) {
        self.omit_mid = true;
    }

    /// Appends the header to `buf`, with zeros for marker, payload type, sequence number and
    /// timestamp; returns its length.
    pub(super) fn write(
        &self,
        ids: &ExtensionIds,
        packet: &PacketExtensions<'_>,
        at: Ntp,
        twcc: u16,
        buf: &mut Vec<u8>,
    ) -> usize {
        let descriptor = packet.dependency_descriptor;
        let template = match &self.long {
            Some(long) if descriptor.len() > ONE_BYTE_MAX.0 => long,
            _ => &self.usual,
        };
        let start = buf.len();
        template.write(self.omit_mid, at, twcc, buf);
        let form = template.form;
        if let (Some(id), Some(level)) = (ids.audio_level, packet.audio_level) {
            form.push(id, &[level], buf);
        }
        if let (Some(id), Some(orientation)) = (ids.video_orientation, packet.video_orientation) {
            form.push(id, &[orientation], buf);
        }
        if let (Some(id), 1..=TWO_BYTE_MAX) = (ids.dependency_descriptor, descriptor.len()) {
            form.push(id, descriptor, buf);
            let at = buf.len() - descriptor.len() + FRAME_NUMBER_AT;
            if let (Some(number), Some(field)) = (packet.frame_number, buf.get_mut(at..at + 2)) {
                field.copy_from_slice(&number.to_be_bytes());
            }
        }
        finish(start, buf)
    }
}

/// Pads the extension block and writes its length, or takes its head away when it is empty.
/// Returns the header's length.
fn finish(start: usize, buf: &mut Vec<u8>) -> usize {
    let written = buf.len() - start;
    if written == FIXED_BYTES + BLOCK_HEAD_BYTES {
        buf.truncate(start + FIXED_BYTES);
        return FIXED_BYTES;
    }
    // RFC 8285 §4.1: zero bytes pad to 32 bits.
    let header_len = written.next_multiple_of(4);
    buf.extend_from_slice(&[0; 4][..header_len - written]);
    let words = ((header_len - FIXED_BYTES - BLOCK_HEAD_BYTES) / 4) as u16;
    let header = &mut buf[start..];
    // RFC 3550 §5.1: the X bit.
    header[0] |= 0x10;
    header[FIXED_BYTES + 2..FIXED_BYTES + 4].copy_from_slice(&words.to_be_bytes());
    header_len
}

impl ExtensionIds {
    fn highest(&self) -> u8 {
        let ids = [
            self.mid,
            self.twcc,
            self.abs_send_time,
            self.audio_level,
            self.video_orientation,
            self.dependency_descriptor,
        ];
        ids.into_iter().flatten().max().unwrap_or(0)
    }
}

impl Template {
    fn new(form: Form, ssrc: u32, mid: Mid, ids: &ExtensionIds) -> Self {
        let mut bytes = vec![0; FIXED_BYTES + BLOCK_HEAD_BYTES];
        // RFC 3550 §5.1: version 2.
        bytes[0] = 2 << 6;
        bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
        bytes[12..14].copy_from_slice(&form.profile().to_be_bytes());
        let mut element = |id: Option<u8>, value: &[u8]| {
            let Some(id) = id else { return 0 };
            form.push(id, value, &mut bytes);
            bytes.len() - value.len()
        };
        let abs_send_time_at = element(ids.abs_send_time, &[0; 3]);
        let twcc_at = element(ids.twcc, &[0; 2]);
        let len_without_mid = bytes.len();
        form.push_mid(ids.mid, mid, &mut bytes);
        let len = bytes.len();
        bytes.resize(TEMPLATE_BYTES, 0);
        Self {
            form,
            bytes: bytes.try_into().expect("just given this length"),
            len,
            len_without_mid,
            abs_send_time_at,
            twcc_at,
        }
    }

    fn write(&self, omit_mid: bool, at: Ntp, twcc: u16, buf: &mut Vec<u8>) {
        let len = if omit_mid {
            self.len_without_mid
        } else {
            self.len
        };
        let start = buf.len();
        buf.extend_from_slice(&self.bytes[..len]);
        let header = &mut buf[start..];
        if self.abs_send_time_at > 0 {
            let time = &at.abs_send_time().to_be_bytes()[1..];
            header[self.abs_send_time_at..self.abs_send_time_at + 3].copy_from_slice(time);
        }
        if self.twcc_at > 0 {
            header[self.twcc_at..self.twcc_at + 2].copy_from_slice(&twcc.to_be_bytes());
        }
    }
}

impl Form {
    /// RFC 8285 §4.2 and §4.3.
    const fn profile(self) -> u16 {
        match self {
            Self::OneByte => 0xbede,
            Self::TwoByte => 0x1000,
        }
    }

    /// Appends one element. What does not fit the form is left out: only a dependency descriptor
    /// can be that long, and its form was chosen for it.
    fn push(self, id: u8, value: &[u8], buf: &mut Vec<u8>) {
        match self {
            Self::OneByte if value.len() <= ONE_BYTE_MAX.0 => {
                buf.push(id << 4 | (value.len() - 1) as u8);
            }
            Self::TwoByte if value.len() <= TWO_BYTE_MAX => {
                buf.extend_from_slice(&[id, value.len() as u8]);
            }
            Self::OneByte | Self::TwoByte => return,
        }
        buf.extend_from_slice(value);
    }

    fn push_mid(self, id: Option<u8>, mid: Mid, buf: &mut Vec<u8>) {
        if let (Some(id), false) = (id, mid.is_empty()) {
            self.push(id, mid.as_bytes(), buf);
        }
    }
}
