//! Keeps str0m from sending SRTP and SRTCP.
//!
//! str0m has the same keys as we do. Were it to send too, two packets could share a nonce, and GCM
//! would give its key away (RFC 7714 §10.1).

use str0m::rtp::Ssrc;

/// What a datagram of str0m's may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// STUN or DTLS: send it.
    Pass,
    /// SRTP or SRTCP: drop it. Our bug: str0m still has a stream to send or to report on.
    Drop,
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
        let verdict = Self::judge(datagram);
        self.dropped += u64::from(verdict != Verdict::Pass);
        verdict
    }

    /// Datagrams dropped so far. Any but zero is our bug.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn judge(datagram: &[u8]) -> Verdict {
        // RFC 7983 §7: 128 to 191 is RTP or RTCP, everything else is none of our business.
        match *datagram {
            [128..=191, ..] => Verdict::Drop,
            _ => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stun_and_dtls_pass() {
        let mut guard = Guard::new();
        for datagram in [&[][..], &[0, 1, 0, 0], &[22, 254, 253], &[63], &[192]] {
            assert_eq!(guard.handle_transmit(datagram), Verdict::Pass);
        }
        assert_eq!(guard.dropped(), 0);
    }

    #[test]
    fn rtp_and_rtcp_are_dropped_and_counted() {
        let mut guard = Guard::new();
        for datagram in [
            &[0x80, 96, 0, 1][..],
            &[0x90, 0xe0, 0, 1],
            &[0x81, 201],
            &[191],
        ] {
            assert_eq!(guard.handle_transmit(datagram), Verdict::Drop);
        }
        assert_eq!(guard.dropped(), 4);
    }

    #[test]
    fn an_ssrc_is_claimed_once() {
        let mut guard = Guard::new();
        let claims = [9, 7, 8, 7].map(|ssrc: u32| guard.claim(ssrc.into()));
        assert_eq!(claims, [true, true, true, false]);
    }
}
