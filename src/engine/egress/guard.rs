//! Keeps str0m from sending under an SSRC that is ours.
//!
//! str0m writes with the same keys as we do. Were it to send RTP, or SRTCP in the name of one of
//! our slots, two packets could share a nonce, and GCM would give its key away (RFC 7714 §10.1).

use str0m::rtp::Ssrc;

/// What a datagram of str0m's may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// STUN, DTLS, or SRTCP of str0m's own SSRC: send it.
    Pass,
    /// RTP: drop it. Our bug: str0m still has a stream to send.
    DropRtp,
    /// SRTCP in the name of one of our slots, or too short to tell: drop it. Our bug too.
    DropRtcp,
}

/// The SSRCs that only we may send under, and how often str0m tried.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Media and RTX SSRCs of every slot the peer ever had, sorted.
    ours: Vec<u32>,
    dropped: u64,
}

impl Guard {
    /// A guard that knows no slot yet: it stops RTP only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims an SSRC for as long as the peer lives, even past its slot: its indexes stay used.
    /// Returns whether it was free.
    #[must_use]
    pub fn claim(&mut self, ssrc: Ssrc) -> bool {
        match self.ours.binary_search(&ssrc) {
            Ok(_) => false,
            Err(place) => {
                self.ours.insert(place, *ssrc);
                true
            }
        }
    }

    /// Judges one datagram that str0m wants sent, and counts it when it must be dropped.
    pub fn handle_transmit(&mut self, datagram: &[u8]) -> Verdict {
        let verdict = self.judge(datagram);
        self.dropped += u64::from(verdict != Verdict::Pass);
        verdict
    }

    /// Datagrams dropped so far. Any but zero is our bug.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn judge(&self, datagram: &[u8]) -> Verdict {
        // RFC 7983 §7: 128 to 191 is RTP or RTCP, everything else is none of our business.
        let [128..=191, kind, ..] = *datagram else {
            return Verdict::Pass;
        };
        // RFC 5761 §4: RTCP packet types 192 to 223; RTP payload types 64 to 95 are not used.
        if !(192..=223).contains(&kind) {
            return Verdict::DropRtp;
        }
        let Some([a, b, c, d]) = datagram.get(4..8) else {
            return Verdict::DropRtcp;
        };
        let sender = u32::from_be_bytes([*a, *b, *c, *d]);
        match self.ours.binary_search(&sender) {
            Ok(_) => Verdict::DropRtcp,
            Err(_) => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtcp(kind: u8, sender: u32) -> Vec<u8> {
        let mut bytes = vec![0x81, kind, 0, 7];
        bytes.extend(sender.to_be_bytes());
        bytes.extend([0; 24]);
        bytes
    }

    #[test]
    fn stun_dtls_and_str0ms_own_rtcp_pass() {
        let mut guard = Guard::new();
        assert!(guard.claim(7.into()));
        for datagram in [
            &[][..],
            &[0, 1, 0, 0],
            &[22, 254, 253],
            &rtcp(201, 8),
            &[128],
        ] {
            assert_eq!(guard.handle_transmit(datagram), Verdict::Pass);
        }
        assert_eq!(guard.dropped(), 0);
    }

    #[test]
    fn rtp_and_rtcp_of_a_slot_are_dropped_and_counted() {
        let mut guard = Guard::new();
        let claims = [9, 7, 8, 7].map(|ssrc: u32| guard.claim(ssrc.into()));
        assert_eq!(claims, [true, true, true, false]);
        assert_eq!(guard.handle_transmit(&[0x80, 96, 0, 1]), Verdict::DropRtp);
        assert_eq!(guard.handle_transmit(&[0x90, 0xe0, 0, 1]), Verdict::DropRtp);
        for kind in [200, 202, 203, 205, 207] {
            assert_eq!(guard.handle_transmit(&rtcp(kind, 7)), Verdict::DropRtcp);
        }
        assert_eq!(guard.handle_transmit(&[0x80, 200, 0]), Verdict::DropRtcp);
        assert_eq!(guard.dropped(), 8);
    }
}
