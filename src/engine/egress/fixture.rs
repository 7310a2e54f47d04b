//! What several tests of the send side need.

use std::time::Instant;

use str0m::crypto::dtls::{KeyingMaterial, SrtpProfile};

use super::keys::{SessionKeys, Side};
use super::seal::{RtpOpener, Sealed};

/// Some instant to count from.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from nothing; tests only add to it"
)]
pub(super) fn some_instant() -> Instant {
    Instant::now()
}

/// What a handshake might export; other `salt`s give other keys.
pub(super) fn keying_material(profile: SrtpProfile, salt: u8) -> KeyingMaterial {
    let block: Vec<u8> = (0..profile.keying_material_len())
        .map(|place| (place as u8).wrapping_add(salt))
        .collect();
    KeyingMaterial::new(&block)
}

/// Keys that one side writes with.
pub(in crate::engine) fn session_keys(profile: SrtpProfile, side: Side, salt: u8) -> SessionKeys {
    let keys = SessionKeys::derive(&keying_material(profile, salt), profile, side);
    keys.expect("the block has the profile's length")
}

/// Bytes from hexadecimal digits; white space between them is ignored.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digit = |c: char| c.to_digit(16).expect("a hex digit") as u8;
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(digit)
        .collect();
    digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect()
}

/// An RTP packet as a receiver sees it once opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rtp {
    pub(super) ssrc: u32,
    pub(super) pt: u8,
    pub(super) marker: bool,
    pub(super) seq: u16,
    pub(super) timestamp: u32,
    /// Header extensions: id and value, in the order they were written.
    pub(super) extensions: Vec<(u8, Vec<u8>)>,
    /// Without padding.
    pub(super) payload: Vec<u8>,
    /// Padding bytes.
    pub(super) padding: u8,
}

/// Opens a sealed packet whose roll-over counter is `roc`.
pub(super) fn open_rtp(opener: &RtpOpener, sealed: &[u8], roc: u32) -> Result<Rtp, Sealed> {
    let be16 = |at: usize| u16::from_be_bytes([sealed[at], sealed[at + 1]]);
    let be32 = |at: usize| u32::from(be16(at)) << 16 | u32::from(be16(at + 2));
    assert_eq!(sealed[0] & 0xcf, 0x80, "version 2, no contributing sources");
    let mut extensions = Vec::new();
    let mut header_len = 12;
    if sealed[0] & 0x10 != 0 {
        header_len = 16 + 4 * usize::from(be16(14));
        extensions = elements(be16(12), &sealed[16..header_len]);
    }
    let index = u64::from(roc) << 16 | u64::from(be16(2));
    let len = opener.payload_len(sealed.len(), header_len);
    let mut payload = vec![0; len.ok_or(Sealed::Short)?];
    opener.open_rtp(sealed, header_len, index, &mut payload)?;
    let padding = match payload.last() {
        Some(padding) if sealed[0] & 0x20 != 0 => *padding,
        _ => 0,
    };
    payload.truncate(payload.len() - usize::from(padding));
    Ok(Rtp {
        ssrc: be32(8),
        pt: sealed[1] & 0x7f,
        marker: sealed[1] & 0x80 != 0,
        seq: be16(2),
        timestamp: be32(4),
        extensions,
        payload,
        padding,
    })
}

/// Reads both forms of RFC 8285.
fn elements(profile: u16, mut block: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut elements = Vec::new();
    while let [first, rest @ ..] = block {
        if *first == 0 {
            block = rest;
            continue;
        }
        let (id, len, rest) = match profile {
            0xbede => (first >> 4, usize::from(first & 0x0f) + 1, rest),
            0x1000 => (*first, usize::from(rest[0]), &rest[1..]),
            other => panic!("no extension profile: {other:#x}"),
        };
        elements.push((id, rest[..len].to_vec()));
        block = &rest[len..];
    }
    elements
}
