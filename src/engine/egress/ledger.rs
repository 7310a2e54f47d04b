//! No (key, SSRC, index) is used twice, whatever is asked of the send side.
//!
//! A ledger stands where a client would: it opens every packet that leaves, by the rules of
//! RFC 3711 §3.3.1 alone, and writes down what it was sealed under. Simulations keep one for each
//! client, the property test here one for a send side alone.

use std::collections::{HashMap, HashSet};

use super::keys::SessionKeys;
use super::seal::{Opener, RtpOpener};

/// Everything that was sealed with one side's keys.
#[derive(Debug)]
pub(crate) struct Ledger {
    opener: Opener,
    rtp_opener: RtpOpener,
    /// Highest index received, by SSRC (RFC 3711 §3.3.1).
    highest: HashMap<u32, u64>,
    /// SSRC and 48-bit index.
    rtp: HashSet<(u32, u64)>,
    /// SSRC and 31-bit index.
    rtcp: HashSet<(u32, u32)>,
}

impl Ledger {
    /// An empty one; `keys` are the sender's.
    pub(crate) fn new(keys: &SessionKeys) -> Self {
        Self {
            opener: Opener::new(keys),
            rtp_opener: RtpOpener::new(keys),
            highest: HashMap::new(),
            rtp: HashSet::new(),
            rtcp: HashSet::new(),
        }
    }

    /// Enters a packet as it left. Gives the index of an RTP packet.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words: it does not open, or its index was used before.
    pub(crate) fn enter(&mut self, sealed: &[u8]) -> Result<Option<u64>, String> {
        if (192..=223).contains(&sealed[1]) {
            let stamp = self.opener.stamp(sealed);
            let stamp = stamp.map_err(|_| "SRTCP without an index")?;
            if self.opener.open_rtcp(&mut sealed.to_vec()).is_err() {
                return Err(format!("SRTCP does not open: {stamp:?}"));
            }
            let fresh = self.rtcp.insert((stamp.sender, stamp.index));
            return if fresh {
                Ok(None)
            } else {
                Err(format!("SRTCP index used twice: {stamp:?}"))
            };
        }
        let be16 = |at: usize| u16::from_be_bytes([sealed[at], sealed[at + 1]]);
        let ssrc = u32::from(be16(8)) << 16 | u32::from(be16(10));
        let mut header_len = 12 + 4 * usize::from(sealed[0] & 0x0f);
        if sealed[0] & 0x10 != 0 {
            header_len += 4 + 4 * usize::from(be16(header_len + 2));
        }
        let wire = be16(2);
        let highest = self.highest.entry(ssrc).or_insert(wire.into());
        let index = guess(*highest, wire);
        *highest = index.max(*highest);
        let what = format!("SSRC {ssrc:#x} index {index}");
        let len = self.rtp_opener.payload_len(sealed.len(), header_len);
        let opened = len.ok_or(()).and_then(|len| {
            let mut payload = vec![0; len];
            let opened = self
                .rtp_opener
                .open_rtp(sealed, header_len, index, &mut payload);
            opened.map_err(|_| ())
        });
        if opened.is_err() {
            return Err(format!("{what} does not open"));
        }
        if !self.rtp.insert((ssrc, index)) {
            return Err(format!("{what} is used twice"));
        }
        Ok(Some(index))
    }

    /// RTP and RTCP packets entered.
    pub(crate) fn entries(&self) -> (usize, usize) {
        (self.rtp.len(), self.rtcp.len())
    }

    /// The highest index of any SSRC.
    pub(crate) fn highest(&self) -> u64 {
        self.highest.values().copied().max().unwrap_or(0)
    }
}

/// The index nearest to the highest one that ends in `wire` (RFC 3711 §3.3.1, appendix A).
fn guess(highest: u64, wire: u16) -> u64 {
    let step = i64::from(wire.wrapping_sub(highest as u16).cast_signed());
    highest.checked_add_signed(step).unwrap_or(wire.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use str0m::crypto::dtls::SrtpProfile;

    use super::*;
    use crate::engine::egress::clock::Ntp;
    use crate::engine::egress::extension::{ExtensionIds, PacketExtensions};
    use crate::engine::egress::fixture::{open_rtp, session_keys};
    use crate::engine::egress::guard::Guard;
    use crate::engine::egress::keys::Side;
    use crate::engine::egress::packet::{
        Batch, MediaPacket, Outlet, RtxDesc, SlotDesc, SlotWriter,
    };
    use crate::engine::egress::patch::HeadPatch;
    use crate::engine::egress::reports::{SenderReport, write_report};
    use crate::engine::egress::seal::Sealer;

    /// One thing that may be asked of a peer's send side. `slot` counts round the slots there are.
    #[derive(Debug, Clone)]
    enum Step {
        /// Sends the number this far from the newest; negative is late or used.
        Media { slot: usize, ahead: i64 },
        /// Sends a run of numbers, to fill windows and roll counters over.
        Run { slot: usize, packets: u16 },
        /// Sends the number this far behind the newest again.
        Resend { slot: usize, behind: u64 },
        /// Sends padding.
        Padding { slot: usize, bytes: u8 },
        /// Sends a sender report.
        Report { slot: usize },
        /// An m-line is added, or tried again on an SSRC that was used.
        Slot { ssrc: u32 },
        /// An m-line ends.
        Stop { slot: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let slot = 0_usize..8;
        let ahead = prop_oneof![
            8 => 1_i64..4,
            4 => -1_100_i64..=0,
            1 => 4_i64..40_000,
            1 => -70_000_i64..-1_000,
        ];
        let step = prop_oneof![
            12 => (slot.clone(), ahead).prop_map(|(slot, ahead)| Step::Media { slot, ahead }),
            1 => (slot.clone(), 1_u16..3_000)
                .prop_map(|(slot, packets)| Step::Run { slot, packets }),
            6 => (slot.clone(), 0_u64..2_000)
                .prop_map(|(slot, behind)| Step::Resend { slot, behind }),
            2 => (slot.clone(), 1_u8..=255).prop_map(|(slot, bytes)| Step::Padding { slot, bytes }),
            2 => slot.clone().prop_map(|slot| Step::Report { slot }),
            2 => (0_u32..10).prop_map(|ssrc| Step::Slot { ssrc }),
            1 => slot.prop_map(|slot| Step::Stop { slot }),
        ];
        prop::collection::vec(step, 1..120)
    }

    /// A peer's send side, and the viewer that keeps the ledger.
    struct Peer {
        guard: Guard,
        outlet: Outlet,
        slots: Vec<SlotWriter>,
        batch: Batch,
        opener: RtpOpener,
        ledger: Ledger,
        twcc: Vec<u16>,
    }

    impl Peer {
        fn new(profile: SrtpProfile) -> Self {
            let keys = session_keys(profile, Side::Server, 9);
            let mut peer = Self {
                guard: Guard::new(),
                outlet: Outlet::new(Sealer::new(&keys)),
                slots: Vec::new(),
                batch: Batch::new(),
                opener: RtpOpener::new(&keys),
                ledger: Ledger::new(&keys),
                twcc: Vec::new(),
            };
            peer.add_slot(0);
            peer
        }

        fn add_slot(&mut self, ssrc: u32) {
            let desc = SlotDesc {
                mid: "0".into(),
                ssrc: ssrc.into(),
                pt: 96.into(),
                rtx: Some(RtxDesc {
                    ssrc: (ssrc + 100).into(),
                    pt: 97.into(),
                    first_seq: 0x7f00,
                }),
                extensions: ExtensionIds {
                    twcc: Some(1),
                    ..ExtensionIds::default()
                },
            };
            if let Ok(slot) = SlotWriter::new(&desc, &mut self.guard) {
                self.slots.push(slot);
            }
        }

        fn take(&mut self, step: &Step) {
            match *step {
                Step::Slot { ssrc } => self.add_slot(ssrc),
                Step::Stop { slot } if self.slots.len() > 1 => {
                    self.slots.swap_remove(slot % self.slots.len());
                }
                Step::Stop { .. } => {}
                Step::Media { slot, ahead } => {
                    let seq = self.newest(slot).saturating_add_signed(ahead);
                    self.media(slot, seq);
                }
                Step::Run { slot, packets } => {
                    for _ in 0..packets {
                        self.media(slot, self.newest(slot) + 1);
                    }
                }
                Step::Resend { slot, behind } => {
                    let seq = self.newest(slot).saturating_sub(behind);
                    let slot = self.slot(slot);
                    let (outlet, batch) = (&mut self.outlet, &mut self.batch);
                    let again = self.slots[slot].write_rtx(outlet, AT, &packet(seq), batch);
                    again.expect("RTX numbers are always fresh");
                }
                Step::Padding { slot, bytes } => {
                    let slot = self.slot(slot);
                    let (outlet, batch) = (&mut self.outlet, &mut self.batch);
                    let padding = self.slots[slot].write_padding(outlet, AT, bytes, batch);
                    padding.expect("RTX numbers are always fresh");
                }
                Step::Report { slot } => {
                    let slot = &self.slots[self.slot(slot)];
                    let report = SenderReport {
                        ssrc: slot.ssrc(),
                        at: AT,
                        timestamp: 0,
                        totals: slot.totals(),
                    };
                    let write = |buf: &mut Vec<u8>| write_report(&report, "c", buf);
                    let pushed = self.batch.push_rtcp(&mut self.outlet, write);
                    pushed.expect("indexes are left");
                }
            }
        }

        fn media(&mut self, slot: usize, seq: u64) {
            let slot = self.slot(slot);
            // Refusing is right when the number was used; what leaves is checked below.
            let (outlet, batch) = (&mut self.outlet, &mut self.batch);
            let _ = self.slots[slot].write_media(outlet, AT, &packet(seq), batch);
        }

        fn slot(&self, slot: usize) -> usize {
            slot % self.slots.len()
        }

        fn newest(&self, slot: usize) -> u64 {
            self.slots[self.slot(slot)].highest().unwrap_or(0)
        }

        /// Opens everything that left and enters it in the ledger.
        fn enter(&mut self) -> Result<(), TestCaseError> {
            let batch = std::mem::take(&mut self.batch);
            for range in batch.packets() {
                let bytes = &batch.bytes()[range.clone()];
                let entered = self.ledger.enter(bytes);
                prop_assert!(entered.is_ok(), "{entered:?}");
                let Ok(Some(index)) = entered else {
                    continue;
                };
                let opened = open_rtp(&self.opener, bytes, (index >> 16) as u32);
                if let Some((_, number)) = opened.expect("it was entered").extensions.first() {
                    self.twcc.push(u16::from_be_bytes([number[0], number[1]]));
                }
            }
            Ok(())
        }
    }

    const AT: Ntp = Ntp::from_bits(1 << 40);

    fn packet(seq: u64) -> MediaPacket<'static> {
        MediaPacket {
            seq,
            timestamp: seq as u32,
            marker: false,
            payload: b"payload",
            patch: HeadPatch::NONE,
            extensions: PacketExtensions::default(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn nothing_is_sealed_twice_under_one_index(
            profile in prop::sample::select(SrtpProfile::ALL),
            steps in steps(),
        ) {
            let mut peer = Peer::new(profile);
            for step in &steps {
                peer.take(step);
            }
            peer.enter()?;
            // Transport-wide numbers leave in order, without a gap, whatever was refused.
            let numbers: Vec<u16> = (0..peer.twcc.len()).map(|number| number as u16).collect();
            prop_assert_eq!(&peer.twcc, &numbers);
        }
    }

    #[test]
    fn the_ledger_notices_a_repeated_index() {
        let keys = session_keys(SrtpProfile::AEAD_AES_128_GCM, Side::Server, 9);
        let mut peer = Peer::new(SrtpProfile::AEAD_AES_128_GCM);
        peer.media(0, 5);
        // A second outlet and a guard that knows nothing: what the send side must never be given.
        let desc = SlotDesc {
            mid: "0".into(),
            ssrc: 0.into(),
            pt: 96.into(),
            rtx: None,
            extensions: ExtensionIds::default(),
        };
        let mut careless = SlotWriter::new(&desc, &mut Guard::new()).expect("an empty guard");
        let mut outlet = Outlet::new(Sealer::new(&keys));
        let again = careless.write_media(&mut outlet, AT, &packet(5), &mut peer.batch);
        assert!(again.is_ok());
        assert!(peer.enter().is_err());
    }

    #[test]
    fn a_long_run_rolls_over_and_repeats_nothing() {
        let mut peer = Peer::new(SrtpProfile::AEAD_AES_256_GCM);
        for _ in 0..3 {
            for _ in 0..50 {
                peer.take(&Step::Run {
                    slot: 0,
                    packets: 1_000,
                });
                peer.take(&Step::Resend { slot: 0, behind: 7 });
            }
            assert!(peer.enter().is_ok());
        }
        assert_eq!(peer.newest(0), 150_000);
        assert_eq!(peer.ledger.entries(), (150_150, 0));
        assert_eq!(peer.ledger.highest(), 150_000);
    }
}
