//! Sending through stock str0m: the narrow seam behind which the send side lives.

use str0m::Rtc;
use str0m::media::Mid;
use str0m::rtp::{RtpWrite, Ssrc};

use crate::engine::limits::{RTX_AGE, RTX_PACKETS, RTX_RATIO};
use crate::engine::subscription::Forward;
use crate::engine::track::MediaPacket;

/// Readies the stream of a receiving m-line that was just negotiated; `None` when str0m made
/// none for it.
pub(crate) fn open(rtc: &mut Rtc, mid: Mid) -> Option<Ssrc> {
    let mut api = rtc.direct_api();
    let stream = api.stream_tx_by_mid(mid, None)?;
    stream.set_rtx_cache(RTX_PACKETS, RTX_AGE, Some(RTX_RATIO));
    Some(stream.ssrc())
}

/// Queues one packet. It leaves when the peer is drained.
pub(crate) fn write(rtc: &mut Rtc, ssrc: Ssrc, forward: &Forward, packet: &MediaPacket) {
    let mut api = rtc.direct_api();
    let Some(stream) = api.stream_tx(&ssrc) else {
        return;
    };
    let rewritten = &forward.rewritten;
    let mut write = RtpWrite::new(
        forward.pt,
        rewritten.seq,
        rewritten.timestamp,
        packet.arrived,
        packet.payload.clone(),
    )
    .marker(packet.marker)
    .ext_vals(packet.extensions.clone())
    .nackable(true);
    if let (Some(vp8), Some(numbers)) = (packet.facts.vp8, rewritten.vp8) {
        write = write.vp8_patch(vp8.patch(numbers));
    }
    stream.write_rtp(write);
}
