//! Offers answered: the client always offers, the server always answers.

use std::time::Instant;

use str0m::change::SdpOffer;
use str0m::media::Mid;
use str0m::{IceCreds, RtcError};

use super::command::{Kind, Refusal};
use super::limits::{OFFER_BYTES, PEER_MEDIA_LINES};
use super::peer::Peer;
use super::thinning::{FIRST_PT, thinned};

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
    let read = Reading::of(sdp);
    if read.media.len() > PEER_MEDIA_LINES {
        return Err(Refusal::TooManyMediaLines(
            read.media.len(),
            PEER_MEDIA_LINES,
        ));
    }
    for (needed, found) in [
        ("fingerprint", read.fingerprint),
        ("ice-ufrag", read.ufrag),
        ("ice-pwd", read.password),
    ] {
        if found.is_none() {
            return Err(Refusal::BadOffer(format!("it has no a={needed}")));
        }
    }
    let remote_ufrag = read.ufrag.map(str::to_owned);
    let restarts = peer.remote_ufrag.is_some() && peer.remote_ufrag != remote_ufrag;
    let bad_offer = |e: RtcError| Refusal::BadOffer(e.to_string());
    let thinned = thinned(sdp, peer.rtc.codec_config());
    let offer =
        SdpOffer::from_sdp_string(&thinned).map_err(|e| Refusal::BadOffer(e.to_string()))?;
    let mids = read.lines.iter().map(|(mid, _)| *mid);
    let answer = peer.accept_offer(now, offer, mids).map_err(bad_offer)?;
    for (mid, kind) in read.lines {
        peer.add_line(mid, kind);
    }
    peer.sync_sources();
    peer.mixes_extensions = read.mixes_extensions;
    peer.offers_data = read.media.iter().any(|m| m.starts_with("m=application "));
    peer.remote_ufrag = remote_ufrag;
    peer.remote_fingerprint = read.fingerprint.map(str::to_owned);

    let mut sdp = for_client(&answer.to_sdp_string(), &read.media);
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

/// What of an offer is looked at here, read in one go: an offer of a browser is long.
#[derive(Debug, Default)]
struct Reading<'a> {
    /// Its m-lines, whatever they are of.
    media: Vec<&'a str>,
    /// Those of audio and video. str0m's `MediaAdded` comes too late: when media can flow, not
    /// when it was negotiated.
    lines: Vec<(Mid, Kind)>,
    fingerprint: Option<&'a str>,
    ufrag: Option<&'a str>,
    password: Option<&'a str>,
    mixes_extensions: bool,
}

impl<'a> Reading<'a> {
    /// Of an attribute that is there several times the first counts.
    fn of(sdp: &'a str) -> Self {
        let mut read = Self::default();
        let mut kind = None;
        for line in sdp.lines() {
            if let Some(media) = line.strip_prefix("m=") {
                read.media.push(line);
                kind = match media.split(' ').next() {
                    Some("audio") => Some(Kind::Audio),
                    Some("video") => Some(Kind::Video),
                    _ => None,
                };
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else {
                continue;
            };
            match attribute.split_once(':') {
                Some(("mid", mid)) => read.lines.extend(kind.map(|kind| (mid.into(), kind))),
                Some(("fingerprint", value)) => _ = read.fingerprint.get_or_insert(value),
                Some(("ice-ufrag", value)) => _ = read.ufrag.get_or_insert(value),
                Some(("ice-pwd", value)) => _ = read.password.get_or_insert(value),
                None if attribute == "extmap-allow-mixed" => read.mixes_extensions = true,
                _ => {}
            }
        }
        read
    }
}

/// The value of the first `a=name:value` line.
fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| {
        line.strip_prefix("a=")?
            .strip_prefix(name)?
            .strip_prefix(':')
    })
}

/// Makes of str0m's answer what the client gets, given the m-lines of its offer.
///
/// Candidate lines lose their `ufrag` extension: str0m keeps there what it drew for a restart, and
/// a browser ignores candidates of a ufrag it does not know. The payload types of sound get the
/// order of the offer: a client that offers redundancy (RED) sends it where that comes first, and
/// whether to is its choice. str0m puts it first always.
fn for_client(answer: &str, offered: &[&str]) -> String {
    let mut offered = offered.iter();
    let mut text = String::with_capacity(answer.len());
    for line in answer.lines() {
        if line.starts_with("m=") {
            match offered.next().filter(|_| line.starts_with("m=audio ")) {
                Some(theirs) => text.push_str(&sorted_like(theirs, line)),
                None => text.push_str(line),
            }
        } else if line.starts_with("a=candidate:") {
            let kept = line.split_once(" ufrag ").map_or(line, |(kept, _)| kept);
            text.push_str(kept);
        } else {
            text.push_str(line);
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
    fn an_offer_is_read_up_to_its_last_line() {
        let sdp = "v=0\r\na=extmap-allow-mixed\r\na=fingerprint:sha-256 AB\r\n\
                   m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:one\r\na=mid:a\r\n\
                   m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\n\
                   m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=ice-ufrag:two\r\na=mid:v";
        let read = Reading::of(sdp);
        assert_eq!(read.media.len(), 3);
        assert_eq!(
            read.lines,
            [("a".into(), Kind::Audio), ("v".into(), Kind::Video)]
        );
        assert_eq!(
            (read.fingerprint, read.ufrag, read.password),
            (Some("sha-256 AB"), Some("one"), None)
        );
        assert!(read.mixes_extensions);
        assert!(!Reading::of("a=extmap-allow-mixed:1\r\n").mixes_extensions);
    }

    #[test]
    fn payload_types_of_sound_stay_in_the_order_of_the_offer() {
        let offer = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63 9\r\n";
        let answer = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 97 96\r\na=mid:0\r\n\
                      m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n";
        let ordered = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 97 96\r\na=mid:0\r\n\
                       m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n";
        assert_eq!(for_client(answer, &Reading::of(offer).media), ordered);
        let prefers = offer.replace("111 63", "63 111");
        assert_eq!(for_client(answer, &Reading::of(&prefers).media), answer);
        assert_eq!(for_client(answer, &[]), answer);
    }

    #[test]
    fn candidates_lose_their_ufrag_and_other_lines_stay() {
        let sdp = "a=ice-ufrag:new\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host ufrag old\r\n";
        let clean = "a=ice-ufrag:new\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n";
        assert_eq!(for_client(sdp, &[]), clean);
    }
}
