//! Offers answered: the client always offers, the server always answers.

use std::time::Instant;

use str0m::change::SdpOffer;
use str0m::media::Mid;
use str0m::{IceCreds, RtcError};

use super::command::{Kind, Refusal};
use super::limits::{OFFER_BYTES, PEER_MEDIA_LINES};
use super::peer::Peer;

/// Where payload types begin in an m-line (RFC 8866 §5.14).
const FIRST_PT: usize = 3;

/// An answered offer.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The answer as it goes to the client.
    pub(crate) sdp: String,
    /// The ufrag it carries.
    pub(crate) ufrag: String,
}

/// Answers an offer. `spare` are the credentials for an ICE restart, should it ask for one.
///
/// # Errors
///
/// The peer goes on as it was before.
pub(crate) fn answer(
    now: Instant,
    peer: &mut Peer,
    sdp: &str,
    spare: impl FnOnce() -> IceCreds,
) -> Result<Answered, Refusal> {
    if sdp.len() > OFFER_BYTES {
        return Err(Refusal::BadOffer(format!(
            "longer than {OFFER_BYTES} bytes"
        )));
    }
    let lines = sdp.lines().filter(|line| line.starts_with("m=")).count();
    if lines > PEER_MEDIA_LINES {
        return Err(Refusal::TooManyMediaLines(lines, PEER_MEDIA_LINES));
    }
    for needed in ["fingerprint", "ice-ufrag", "ice-pwd"] {
        if attribute(sdp, needed).is_none() {
            return Err(Refusal::BadOffer(format!("it has no a={needed}")));
        }
    }
    let remote_ufrag = attribute(sdp, "ice-ufrag").map(str::to_owned);
    let restarts = peer.remote_ufrag.is_some() && peer.remote_ufrag != remote_ufrag;
    let bad_offer = |e: RtcError| Refusal::BadOffer(e.to_string());
    let offer = SdpOffer::from_sdp_string(sdp).map_err(|e| Refusal::BadOffer(e.to_string()))?;
    let lines = media_lines(sdp);
    let mids = lines.iter().map(|(mid, _)| *mid);
    let answer = peer.accept_offer(now, offer, mids).map_err(bad_offer)?;
    for (mid, kind) in lines {
        peer.add_line(mid, kind);
    }
    peer.sync_sources();
    peer.mixes_extensions = sdp.lines().any(|line| line == "a=extmap-allow-mixed");
    peer.offers_data = sdp.lines().any(|line| line.starts_with("m=application "));
    peer.remote_ufrag = remote_ufrag;
    peer.remote_fingerprint = attribute(sdp, "fingerprint").map(str::to_owned);

    let answer = without_candidate_ufrags(&answer.to_sdp_string());
    let mut sdp = in_order_of_offer(sdp, &answer);
    if restarts {
        let ours = spare();
        let drawn = peer.replace_credentials(ours.clone()).map_err(bad_offer)?;
        sdp = sdp
            .replace(&drawn.ufrag, &ours.ufrag)
            .replace(&drawn.pass, &ours.pass);
    }
    let ufrag = attribute(&sdp, "ice-ufrag").unwrap_or_default().to_owned();
    Ok(Answered { sdp, ufrag })
}

/// Whether an offer comes from another connection than the one this peer has: its DTLS
/// certificate is another (RFC 8842 §5.5 would allow that for one connection; no browser does
/// it).
pub(crate) fn is_new_connection(peer: &Peer, sdp: &str) -> bool {
    peer.remote_fingerprint.is_some()
        && attribute(sdp, "fingerprint")
            .is_some_and(|f| Some(f) != peer.remote_fingerprint.as_deref())
}

/// Whether the client has as many receiving m-lines as it was last asked for.
pub(crate) fn is_satisfied(peer: &Peer) -> bool {
    peer.requested.is_none_or(|(audio, video)| {
        peer.receives(Kind::Audio) >= audio && peer.receives(Kind::Video) >= video
    })
}

/// Forgets m-lines that were stopped, so that recycling does not grow the list.
pub(crate) fn forget_gone_lines(peer: &mut Peer) {
    let mut lines = std::mem::take(&mut peer.lines);
    lines.retain(|line| line.track.is_some() || peer.has_line(line.mid));
    peer.lines = lines;
}

/// The audio and video m-lines of an offer. str0m's `MediaAdded` comes too late: when media can
/// flow, not when it was negotiated.
fn media_lines(sdp: &str) -> Vec<(Mid, Kind)> {
    let mut kind = None;
    let mut lines = Vec::new();
    for line in sdp.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            kind = match media.split(' ').next() {
                Some("audio") => Some(Kind::Audio),
                Some("video") => Some(Kind::Video),
                _ => None,
            };
        }
        if let (Some(kind), Some(mid)) = (kind, line.strip_prefix("a=mid:")) {
            lines.push((mid.into(), kind));
        }
    }
    lines
}

/// The value of the first `a=name:value` line.
fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| {
        line.strip_prefix("a=")?
            .strip_prefix(name)?
            .strip_prefix(':')
    })
}

/// Takes the `ufrag` extension out of candidate lines. str0m keeps there what it drew for a
/// restart, and a browser ignores candidates of a ufrag it does not know.
fn without_candidate_ufrags(sdp: &str) -> String {
    let mut text = String::with_capacity(sdp.len());
    for line in sdp.lines() {
        let kept = match line.split_once(" ufrag ") {
            Some((before, _)) if line.starts_with("a=candidate:") => before,
            _ => line,
        };
        text.push_str(kept);
        text.push_str("\r\n");
    }
    text
}

/// Puts the payload types of sound in the order of the offer: a client that offers redundancy
/// (RED) sends it where that comes first, and whether to is its choice. str0m puts it first always.
fn in_order_of_offer(offer: &str, answer: &str) -> String {
    let mut offered = offer.lines().filter(|line| line.starts_with("m="));
    let mut text = String::with_capacity(answer.len());
    for line in answer.lines() {
        let theirs = line.starts_with("m=").then(|| offered.next()).flatten();
        match theirs.filter(|_| line.starts_with("m=audio ")) {
            Some(theirs) => text.push_str(&sorted_like(theirs, line)),
            None => text.push_str(line),
        }
        text.push_str("\r\n");
    }
    text
}

/// An m-line with its payload types in the order that another one has them.
fn sorted_like(theirs: &str, line: &str) -> String {
    let mut fields: Vec<&str> = line.split(' ').collect();
    let place = |pt: &&str| {
        theirs
            .split(' ')
            .skip(FIRST_PT)
            .position(|other| other == *pt)
    };
    if let Some(pts) = fields.get_mut(FIRST_PT..) {
        pts.sort_by_key(|pt| place(pt).unwrap_or(usize::MAX));
    }
    fields.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_wherever_they_stand() {
        let sdp = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:abcd\r\n";
        assert_eq!(attribute(sdp, "ice-ufrag"), Some("abcd"));
        assert_eq!(attribute(sdp, "ice-pwd"), None);
    }

    #[test]
    fn payload_types_of_sound_stay_in_the_order_of_the_offer() {
        let offer = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63 9\r\n";
        let answer = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 97 96\r\na=mid:0\r\n\
                      m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n";
        let ordered = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 97 96\r\na=mid:0\r\n\
                       m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n";
        assert_eq!(in_order_of_offer(offer, answer), ordered);
        let prefers = offer.replace("111 63", "63 111");
        assert_eq!(in_order_of_offer(&prefers, answer), answer);
        assert_eq!(in_order_of_offer("", answer), answer);
    }

    #[test]
    fn candidates_lose_their_ufrag_and_other_lines_stay() {
        let sdp = "a=ice-ufrag:new\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host ufrag old\r\n";
        let clean = "a=ice-ufrag:new\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n";
        assert_eq!(without_candidate_ufrags(sdp), clean);
    }
}
