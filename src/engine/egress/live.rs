//! What one connection is protected with, from when its handshake is done.

use super::feedback::FeedbackReader;
use super::packet::Outlet;
use super::seal::{Opener, Sealer};
use crate::engine::dtls::KeyPort;

/// What seals what leaves, and opens the SRTCP that comes.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) outlet: Outlet,
    pub(super) reader: FeedbackReader,
}

/// The keys in use, as soon as the handshake has exported them.
pub(super) fn live<'a>(live: &'a mut Option<Live>, port: &KeyPort) -> Option<&'a mut Live> {
    if live.is_none() {
        let keys = port.keys()?;
        *live = Some(Live {
            outlet: Outlet::new(Sealer::new(&keys.ours)),
            reader: FeedbackReader::new(Opener::new(&keys.theirs)),
        });
    }
    live.as_mut()
}
