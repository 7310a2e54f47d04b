//! SRTP and SRTCP protection in place, with the key schedules kept.
//!
//! Sealing never checks whether an index was used before: [`super::window`] does, in the
//! callers. A [`Sealer`] numbers SRTCP itself, with one counter for all sender SSRCs.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use str0m::crypto::dtls::SrtpProfile;
use zeroize::Zeroize;

use super::keys::{CipherKeys, SessionKeys};

/// GCM authentication tag, in bytes (RFC 7714 §12).
const GCM_TAG_BYTES: usize = 16;

/// HMAC-SHA1-80 authentication tag, in bytes (RFC 3711 §5.2).
const HMAC_TAG_BYTES: usize = 10;

/// The clear part of an SRTCP packet: its first header and sender SSRC (RFC 3711 §3.4).
const RTCP_CLEAR_BYTES: usize = 8;

/// The word with the E flag and the SRTCP index (RFC 3711 §3.4).
const INDEX_BYTES: usize = 4;

/// Says that the packet is encrypted (RFC 3711 §3.4). WebRTC always encrypts (RFC 8827 §6.5).
const E_FLAG: u32 = 1 << 31;

/// SRTP indexes have 48 bits (RFC 3711 §3.3.1).
pub const SRTP_INDEX_END: u64 = 1 << 48;

/// Most bytes that sealing adds to an RTP packet.
pub const MAX_RTP_OVERHEAD_BYTES: usize = GCM_TAG_BYTES;

/// Protects what one side sends.
#[derive(Debug)]
pub struct Sealer {
    srtp: Cipher,
    srtcp: Cipher,
    /// The index of the next SRTCP packet, whatever its sender SSRC.
    srtcp_index: u32,
}

/// All 2^31 SRTCP indexes of these keys are used (RFC 3711 §9.2): the peer must connect anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all SRTCP indexes of these keys are used")]
pub struct IndexesSpent;

impl Sealer {
    /// A sealer for the keys its side writes with.
    #[must_use]
    pub fn new(keys: &SessionKeys) -> Self {
        Self {
            srtp: Cipher::new(keys.profile(), keys.srtp()),
            srtcp: Cipher::new(keys.profile(), keys.srtcp()),
            srtcp_index: 0,
        }
    }

    /// Bytes that sealing adds to an RTP packet.
    #[must_use]
    pub fn rtp_overhead(&self) -> usize {
        self.srtp.tag_len()
    }

    /// Seals the RTP packet in `buf[start..]`, whose header with extensions takes `header_len`
    /// bytes. `index` is roll-over counter and sequence number in one (RFC 3711 §3.3.1).
    ///
    /// The caller answers for using each (SSRC, `index`) once.
    ///
    /// # Panics
    ///
    /// When `index` has more than 48 bits or the header is longer than the packet.
    pub fn seal_rtp(
        &self,
        buf: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) {
        assert!(index < SRTP_INDEX_END, "an SRTP index has 48 bits");
        let (header, payload) = buf[start..].split_at_mut(header_len);
        match &self.srtp {
            Cipher::Gcm(gcm) => {
                let tag = gcm.seal(ssrc, index, header, payload);
                buf.extend_from_slice(tag.as_ref());
            }
            Cipher::Cm(cm) => {
                cm.apply(ssrc, index, payload);
                // RFC 3711 §4.2: the roll-over counter is authenticated, not sent.
                let roc = (index >> 16) as u32;
                let tag = cm.tag(&buf[start..], &roc.to_be_bytes());
                buf.extend_from_slice(&tag.as_ref()[..HMAC_TAG_BYTES]);
            }
        }
    }

    /// Seals the compound RTCP packet in `buf[start..]` and returns the index it was given.
    ///
    /// # Errors
    ///
    /// [`IndexesSpent`] when the keys must not be used any longer.
    ///
    /// # Panics
    ///
    /// When the packet is shorter than an RTCP header with its SSRC.
    pub fn seal_rtcp(&mut self, buf: &mut Vec<u8>, start: usize) -> Result<u32, IndexesSpent> {
        if self.srtcp_index >= E_FLAG {
            return Err(IndexesSpent);
        }
        let index = self.srtcp_index;
        self.srtcp_index += 1;
        let word = (E_FLAG | index).to_be_bytes();
        let (clear, body) = buf[start..].split_at_mut(RTCP_CLEAR_BYTES);
        let ssrc = sender_ssrc(clear);
        match &self.srtcp {
            Cipher::Gcm(gcm) => {
                let tag = gcm.seal(ssrc, index.into(), &rtcp_aad(clear, word), body);
                buf.extend_from_slice(tag.as_ref());
                buf.extend_from_slice(&word);
            }
            Cipher::Cm(cm) => {
                cm.apply(ssrc, index.into(), body);
                buf.extend_from_slice(&word);
                let tag = cm.tag(&buf[start..], &[]);
                buf.extend_from_slice(&tag.as_ref()[..HMAC_TAG_BYTES]);
            }
        }
        Ok(index)
    }
}

/// Opens the SRTCP that the other side sends.
#[derive(Debug)]
pub struct Opener {
    srtcp: Cipher,
}

/// Opens the SRTP that the other side sends.
#[derive(Debug)]
pub struct RtpOpener {
    srtp: Cipher,
}

/// Why a packet was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Sealed {
    /// Shorter than a header and a tag, and SRTCP's index.
    #[error("too short for an SRTP or SRTCP packet")]
    Short,
    /// The E flag is clear; WebRTC never sends RTCP unencrypted (RFC 8827 §6.5).
    #[error("an SRTCP packet that is not encrypted")]
    Unencrypted,
    /// The tag does not fit: not from this peer, or changed on the way.
    #[error("SRTP or SRTCP authentication failed")]
    Forged,
}

/// Who sent an SRTCP packet, and its place in that sender's order. Clear on the wire, so
/// to be trusted only once the packet is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtcpStamp {
    /// The SSRC of the packet's sender.
    pub sender: u32,
    /// The SRTCP index, 31 bits.
    pub index: u32,
}

impl Opener {
    /// An opener for the keys the other side writes with.
    #[must_use]
    pub fn new(keys: &SessionKeys) -> Self {
        Self {
            srtcp: Cipher::new(keys.profile(), keys.srtcp()),
        }
    }

    /// Reads the clear sender and index of an SRTCP packet.
    ///
    /// # Errors
    ///
    /// [`Sealed::Short`] or [`Sealed::Unencrypted`].
    pub fn stamp(&self, packet: &[u8]) -> Result<RtcpStamp, Sealed> {
        let tag_len = self.srtcp.tag_len();
        if packet.len() < RTCP_CLEAR_BYTES + INDEX_BYTES + tag_len {
            return Err(Sealed::Short);
        }
        // The tag stands before the index word in GCM (RFC 7714 §9), after it in AES-CM.
        let at = match self.srtcp {
            Cipher::Gcm(_) => packet.len() - INDEX_BYTES,
            Cipher::Cm(_) => packet.len() - INDEX_BYTES - tag_len,
        };
        let word = be32(&packet[at..]);
        if word & E_FLAG == 0 {
            return Err(Sealed::Unencrypted);
        }
        let sender = sender_ssrc(packet);
        let index = word & !E_FLAG;
        Ok(RtcpStamp { sender, index })
    }

    /// Opens an SRTCP packet in place; returns the compound RTCP packet within it.
    ///
    /// # Errors
    ///
    /// [`Sealed`] says why not; the bytes are then worthless.
    pub fn open_rtcp<'a>(&self, packet: &'a mut [u8]) -> Result<&'a [u8], Sealed> {
        let RtcpStamp { sender, index } = self.stamp(packet)?;
        let word = (E_FLAG | index).to_be_bytes();
        let end = packet.len() - INDEX_BYTES - self.srtcp.tag_len();
        match &self.srtcp {
            Cipher::Gcm(gcm) => {
                let (clear, rest) = packet.split_at_mut(RTCP_CLEAR_BYTES);
                let (body, tail) = rest.split_at_mut(end - RTCP_CLEAR_BYTES);
                let aad = rtcp_aad(clear, word);
                gcm.open(sender, index.into(), &aad, body, &tail[..GCM_TAG_BYTES])?;
            }
            Cipher::Cm(cm) => {
                let (authenticated, tag) = packet.split_at_mut(end + INDEX_BYTES);
                cm.verify(authenticated, &[], tag)?;
                cm.apply(sender, index.into(), &mut packet[RTCP_CLEAR_BYTES..end]);
            }
        }
        Ok(&packet[..end])
    }
}

impl RtpOpener {
    /// An opener for the keys the other side writes with.
    #[must_use]
    pub fn new(keys: &SessionKeys) -> Self {
        Self {
            srtp: Cipher::new(keys.profile(), keys.srtp()),
        }
    }

    /// Bytes of the payload, padding included, of a packet of `len` bytes; `None` when it has not
    /// even a tag.
    #[must_use]
    pub fn payload_len(&self, len: usize, header_len: usize) -> Option<usize> {
        len.checked_sub(header_len + self.srtp.tag_len())
    }

    /// Opens the payload of an RTP packet into `out`, which has [`Self::payload_len`] bytes.
    /// `index` is the receiver's guess (RFC 3711 §3.3.1).
    ///
    /// # Errors
    ///
    /// [`Sealed`] says why not; what is in `out` is then worthless.
    pub fn open_rtp(
        &self,
        packet: &[u8],
        header_len: usize,
        index: u64,
        out: &mut [u8],
    ) -> Result<(), Sealed> {
        let ssrc = be32(packet.get(8..12).ok_or(Sealed::Short)?);
        let end = packet.len().checked_sub(self.srtp.tag_len());
        let end = end.filter(|end| *end == header_len + out.len());
        let end = end.ok_or(Sealed::Short)?;
        let (sealed, tag) = packet.split_at(end);
        let (header, body) = sealed.split_at(header_len);
        match &self.srtp {
            Cipher::Gcm(gcm) => gcm.open_into(ssrc, index, header, (body, tag), out),
            Cipher::Cm(cm) => {
                let roc = (index >> 16) as u32;
                cm.verify(sealed, &roc.to_be_bytes(), tag)?;
                out.copy_from_slice(body);
                cm.apply(ssrc, index, out);
                Ok(())
            }
        }
    }
}

/// One direction's cipher for one of SRTP and SRTCP, ready to run.
enum Cipher {
    Gcm(Gcm),
    Cm(Box<CounterMode>),
}

impl Cipher {
    fn new(profile: SrtpProfile, keys: &CipherKeys) -> Self {
        match profile {
            SrtpProfile::AES128_CM_SHA1_80 => Self::Cm(Box::new(CounterMode::new(keys))),
            _ => Self::Gcm(Gcm::new(keys)),
        }
    }

    fn tag_len(&self) -> usize {
        match self {
            Self::Gcm(_) => GCM_TAG_BYTES,
            Self::Cm(_) => HMAC_TAG_BYTES,
        }
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gcm(_) => "Gcm",
            Self::Cm(_) => "CounterMode",
        })
    }
}

/// AES-GCM as RFC 7714 uses it. aws-lc frees its key schedule zeroed.
struct Gcm {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Gcm {
    fn new(keys: &CipherKeys) -> Self {
        let key = keys.key();
        let algorithm = if key.len() == 32 {
            &AES_256_GCM
        } else {
            &AES_128_GCM
        };
        let key = UnboundKey::new(algorithm, key).expect("the key has its algorithm's length");
        let mut salt = [0; 12];
        salt.copy_from_slice(keys.salt());
        Self {
            key: LessSafeKey::new(key),
            salt,
        }
    }

    fn seal(&self, ssrc: u32, index: u64, aad: &[u8], body: &mut [u8]) -> Tag {
        let nonce = self.nonce(ssrc, index);
        self.key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), body)
            .expect("a packet is far below GCM's limit")
    }

    fn open(
        &self,
        ssrc: u32,
        index: u64,
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Sealed> {
        let nonce = self.nonce(ssrc, index);
        self.key
            .open_in_place_separate_tag(nonce, Aad::from(aad), tag, body)
            .map(drop)
            .map_err(|_| Sealed::Forged)
    }

    fn open_into(
        &self,
        ssrc: u32,
        index: u64,
        aad: &[u8],
        (body, tag): (&[u8], &[u8]),
        out: &mut [u8],
    ) -> Result<(), Sealed> {
        let nonce = self.nonce(ssrc, index);
        self.key
            .open_separate_gather(nonce, Aad::from(aad), body, tag, out)
            .map_err(|_| Sealed::Forged)
    }

    /// RFC 7714 §8.1 and §9.1 in one: SSRC and a 48-bit index, xored with the salt. The
    /// SRTCP index has 31 bits, so that its upper bytes are the zeros the RFC asks for.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut iv = [0; 12];
        iv[4..].copy_from_slice(&index.to_be_bytes());
        iv[2..6].copy_from_slice(&ssrc.to_be_bytes());
        for (byte, salt) in iv.iter_mut().zip(&self.salt) {
            *byte ^= salt;
        }
        Nonce::assume_unique_for_key(iv)
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

/// AES-CM with HMAC-SHA1-80 (RFC 3711 §4.1.1, §4.2). aws-lc zeroes both keys when dropped.
struct CounterMode {
    key: EncryptingKey,
    auth: hmac::Key,
    salt: [u8; 14],
}

impl CounterMode {
    fn new(keys: &CipherKeys) -> Self {
        let key = UnboundCipherKey::new(&AES_128, keys.key()).and_then(EncryptingKey::ctr);
        let mut salt = [0; 14];
        salt.copy_from_slice(keys.salt());
        Self {
            key: key.expect("the key has its algorithm's length"),
            auth: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, keys.auth()),
            salt,
        }
    }

    /// Encrypts or decrypts: xors `body` with the key stream of this packet.
    fn apply(&self, ssrc: u32, index: u64, body: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        for (byte, part) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *byte ^= part;
        }
        for (byte, part) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= part;
        }
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        let done = self.key.less_safe_encrypt(body, context);
        done.map(drop).expect("counter mode takes any length");
    }

    fn tag(&self, packet: &[u8], suffix: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.auth);
        context.update(packet);
        context.update(suffix);
        context.sign()
    }

    fn verify(&self, packet: &[u8], suffix: &[u8], tag: &[u8]) -> Result<(), Sealed> {
        let expected = self.tag(packet, suffix);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..HMAC_TAG_BYTES], tag)
            .map_err(|_| Sealed::Forged)
    }
}

impl Drop for CounterMode {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

/// What GCM authenticates beside the ciphertext of an SRTCP packet (RFC 7714 §9.2).
fn rtcp_aad(clear: &[u8], word: [u8; INDEX_BYTES]) -> [u8; RTCP_CLEAR_BYTES + INDEX_BYTES] {
    let mut aad = [0; RTCP_CLEAR_BYTES + INDEX_BYTES];
    aad[..RTCP_CLEAR_BYTES].copy_from_slice(clear);
    aad[RTCP_CLEAR_BYTES..].copy_from_slice(&word);
    aad
}

fn sender_ssrc(packet: &[u8]) -> u32 {
    be32(&packet[4..])
}

/// The first four bytes as a number; the caller has checked that they are there.
fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{hex, session_keys};
    use super::super::keys::Side;
    use super::*;

    const RTP: &str = "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e697320646976697361\
                       20696e207061727465732074726573";
    const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                        deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

    /// A sealer with the session keys of RFC 7714 §16 and §17 (no key derivation there).
    fn rfc_7714(key_len: u8) -> (Sealer, Opener, RtpOpener) {
        let key: Vec<u8> = (0..key_len).collect();
        let keys = CipherKeys::from_session(&key, &hex("517569642070726f2071756f"));
        let cipher = || Cipher::Gcm(Gcm::new(&keys));
        let sealer = Sealer {
            srtp: cipher(),
            srtcp: cipher(),
            srtcp_index: 0x5d4,
        };
        let (srtp, srtcp) = (cipher(), cipher());
        (sealer, Opener { srtcp }, RtpOpener { srtp })
    }

    fn pair(profile: SrtpProfile) -> (Sealer, Opener, RtpOpener) {
        let keys = session_keys(profile, Side::Server, 1);
        (
            Sealer::new(&keys),
            Opener::new(&keys),
            RtpOpener::new(&keys),
        )
    }

    /// The payload of a packet with a header of 12 bytes.
    fn opened(opener: &RtpOpener, packet: &[u8], index: u64) -> Result<Vec<u8>, Sealed> {
        let len = opener.payload_len(packet.len(), 12).ok_or(Sealed::Short)?;
        let mut out = vec![0; len];
        opener.open_rtp(packet, 12, index, &mut out)?;
        Ok(out)
    }

    #[test]
    fn gcm_rtp_is_that_of_rfc_7714_section_16() {
        let vectors = [
            (
                16,
                "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f4\
                 7a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
            ),
            (
                32,
                "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a\
                 0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
            ),
        ];
        for (key_len, protected) in vectors {
            let (sealer, _, opener) = rfc_7714(key_len);
            let mut packet = hex(RTP);
            sealer.seal_rtp(&mut packet, 0, 12, 0x5501_a0b2, 0xf17b);
            assert_eq!(packet, hex(protected));
            assert_eq!(
                opened(&opener, &packet, 0xf17b),
                Ok(hex(RTP)[12..].to_vec())
            );
        }
    }

    #[test]
    fn gcm_rtcp_is_that_of_rfc_7714_section_17() {
        let vectors = [
            (
                16,
                "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6f\
                 da4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
            ),
            (
                32,
                "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555\
                 be8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
            ),
        ];
        for (key_len, protected) in vectors {
            let (mut sealer, opener, _) = rfc_7714(key_len);
            let mut packet = hex(RTCP);
            assert_eq!(sealer.seal_rtcp(&mut packet, 0), Ok(0x5d4));
            assert_eq!(packet, hex(protected));
            assert_eq!(opener.open_rtcp(&mut packet), Ok(&hex(RTCP)[..]));
        }
    }

    #[test]
    fn counter_mode_key_stream_is_that_of_rfc_3711_appendix_b_2() {
        let key = hex("2B7E151628AED2A6ABF7158809CF4F3C");
        let keys = CipherKeys::from_session(&key, &hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"));
        let mut zeros = [0; 48];
        CounterMode::new(&keys).apply(0, 0, &mut zeros);
        let stream = "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB\
                      41E95B3BB0A2E8DD477901E4FCA894C0";
        assert_eq!(zeros.to_vec(), hex(stream));
    }

    #[test]
    fn every_profile_opens_what_it_seals_beside_other_packets() {
        for profile in SrtpProfile::ALL {
            let (mut sealer, opener, rtp_opener) = pair(*profile);
            let mut buf = vec![0xee; 33];
            buf.extend(hex(RTP));
            sealer.seal_rtp(&mut buf, 33, 12, 0x5501_a0b2, 0x7_f17b);
            let second = buf.len();
            assert_eq!(second - 33 - hex(RTP).len(), sealer.rtp_overhead());
            buf.extend(hex(RTCP));
            assert_eq!(sealer.seal_rtcp(&mut buf, second), Ok(0));
            assert_eq!(opener.open_rtcp(&mut buf[second..]), Ok(&hex(RTCP)[..]));
            let payload = opened(&rtp_opener, &buf[33..second], 0x7_f17b);
            assert_eq!(payload, Ok(hex(RTP)[12..].to_vec()));
            let other_roc = opened(&rtp_opener, &buf[33..second], 0x8_f17b);
            assert_eq!(other_roc, Err(Sealed::Forged));
            assert!(buf[..33].iter().all(|b| *b == 0xee));
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed() {
        for profile in SrtpProfile::ALL {
            let (mut sealer, opener, _) = pair(*profile);
            let mut sealed = hex(RTCP);
            sealer.seal_rtcp(&mut sealed, 0).expect("indexes are left");
            for byte in 0..sealed.len() {
                let mut forged = sealed.clone();
                forged[byte] ^= 0x01;
                assert_eq!(opener.open_rtcp(&mut forged), Err(Sealed::Forged), "{byte}");
            }
            for len in 0..sealed.len() {
                assert!(opener.open_rtcp(&mut sealed[..len].to_vec()).is_err());
            }
        }
    }

    #[test]
    fn an_unencrypted_srtcp_packet_is_refused() {
        let (_, opener, _) = rfc_7714(16);
        // RFC 7714 §17.3: tagged, not encrypted.
        let mut tagged = hex(RTCP);
        tagged.extend(hex("841dd9683dd78ec92ae58790125f62b3000005d4"));
        assert_eq!(opener.open_rtcp(&mut tagged), Err(Sealed::Unencrypted));
    }

    #[test]
    fn the_srtcp_index_ends_before_it_repeats() {
        let (mut sealer, ..) = pair(SrtpProfile::AEAD_AES_128_GCM);
        sealer.srtcp_index = E_FLAG - 1;
        assert_eq!(sealer.seal_rtcp(&mut hex(RTCP), 0), Ok(E_FLAG - 1));
        assert_eq!(sealer.seal_rtcp(&mut hex(RTCP), 0), Err(IndexesSpent));
    }
}
