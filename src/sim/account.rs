//! What one client was sent, opened with its own keys and written down.

use crate::engine::dtls::KeyPort;
use crate::engine::egress::ledger::Ledger;

/// Every protected packet that left for one client, whether it arrives or not.
#[derive(Debug)]
pub(crate) struct Account {
    port: KeyPort,
    ledger: Option<Ledger>,
    /// Packets that left before the client had its keys: the server has them a way earlier.
    early: Vec<Vec<u8>>,
    /// What was wrong, in words.
    pub(crate) violations: Vec<String>,
}

impl Account {
    /// Empty. The client's keys will appear in `port`.
    pub(crate) fn new(port: KeyPort) -> Self {
        Self {
            port,
            ledger: None,
            early: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// A datagram leaves for the client.
    pub(super) fn handle_datagram(&mut self, bytes: &[u8]) {
        // RFC 7983 §7.
        if !matches!(bytes.first(), Some(128..=191)) {
            return;
        }
        self.early.push(bytes.to_vec());
        if self.ledger.is_none() {
            let keys = self.port.keys();
            self.ledger = keys.map(|keys| Ledger::new(&keys.theirs));
        }
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let entered = self.early.drain(..).map(|bytes| ledger.enter(&bytes));
        self.violations.extend(entered.filter_map(Result::err));
    }

    /// RTP and RTCP packets, and the highest RTP index.
    pub(crate) fn entries(&self) -> (usize, usize, u64) {
        self.ledger.as_ref().map_or((0, 0, 0), |ledger| {
            let (rtp, rtcp) = ledger.entries();
            (rtp, rtcp, ledger.highest())
        })
    }
}
