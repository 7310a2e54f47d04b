//! What of an offer str0m is not given to read.
//!
//! A browser offers up to 40 formats for each m-line, 2,000 lines in a conversation of ten, and
//! str0m 0.25 tries up to 25 alternatives for a line: 3 ms in which the shard forwards nothing.
//! Half of the lines are about formats that we do not have, or ask for feedback that another line
//! makes superfluous.

use std::collections::BTreeMap;

use str0m::format::{Codec, CodecConfig, CodecSpec, PayloadParams};

/// Where payload types begin in an m-line (RFC 8866 §5.14).
pub(super) const FIRST_PT: usize = 3;

/// An offer without what can have no part in the answer:
///
/// * formats of other codecs and profiles than ours, and the RTX for them, unless no other is
///   left;
/// * REMB where transport-wide feedback is offered too, and FIR where PLI is: nobody would use
///   them.
pub(super) fn thinned(sdp: &str, ours: &CodecConfig) -> String {
    let mut text = String::with_capacity(sdp.len());
    let mut section = Vec::new();
    for line in sdp.split_inclusive('\n') {
        if line.starts_with("m=") {
            push_thinned(&mut text, &section, ours);
            section.clear();
        }
        section.push(line);
    }
    push_thinned(&mut text, &section, ours);
    text
}

/// What an m-line's attributes say of one payload type.
#[derive(Debug, Default)]
struct Format<'a> {
    codec: Option<Codec>,
    parameters: &'a str,
    /// What it may be told by RTCP.
    has_transport_cc: bool,
    has_pli: bool,
}

fn push_thinned(text: &mut String, section: &[&str], ours: &CodecConfig) {
    let Some((media, attributes)) = section.split_first() else {
        return;
    };
    if !media.starts_with("m=audio ") && !media.starts_with("m=video ") {
        text.extend(section.iter().copied());
        return;
    }
    let formats = formats(attributes);
    let foreign = foreign(media, &formats, ours);
    push_media(text, media, &foreign);
    for line in attributes {
        let keeps = |(attribute, pt, value): (&str, u8, &str)| {
            let Some(format) = formats.get(&pt).filter(|_| !foreign.contains(&pt)) else {
                return false;
            };
            match (attribute, value) {
                ("rtcp-fb", "goog-remb") => !format.has_transport_cc,
                ("rtcp-fb", "ccm fir") => !format.has_pli,
                _ => true,
            }
        };
        if about_format(line).is_none_or(keeps) {
            text.push_str(line);
        }
    }
}

/// Writes an m-line without these payload types.
fn push_media(text: &mut String, media: &str, foreign: &[u8]) {
    let is_foreign = |field: &str| {
        let pt = field.parse();
        pt.is_ok_and(|pt| foreign.contains(&pt))
    };
    let end = media.trim_end().len();
    for (place, field) in media[..end].split(' ').enumerate() {
        if place < FIRST_PT || !is_foreign(field) {
            text.push_str(if place > 0 { " " } else { "" });
            text.push_str(field);
        }
    }
    text.push_str(&media[end..]);
}

fn formats<'a>(attributes: &[&'a str]) -> BTreeMap<u8, Format<'a>> {
    let mut formats = BTreeMap::<u8, Format<'a>>::new();
    for (attribute, pt, value) in attributes.iter().filter_map(|line| about_format(line)) {
        let format = formats.entry(pt).or_default();
        match (attribute, value) {
            ("rtpmap", _) => format.codec = value.split('/').next().map(Codec::from),
            ("fmtp", _) => format.parameters = value,
            (_, "transport-cc") => format.has_transport_cc = true,
            (_, "nack pli") => format.has_pli = true,
            _ => {}
        }
    }
    formats
}

/// The payload types of an m-line that no answer of ours can have.
fn foreign(media: &str, formats: &BTreeMap<u8, Format<'_>>, ours: &CodecConfig) -> Vec<u8> {
    let is_ours = |format: &Format<'_>| match format.codec {
        // Without a name it is one of the numbers of RFC 3551, for str0m to know.
        None | Some(Codec::Rtx) => true,
        Some(Codec::Red) => media.starts_with("m=audio "),
        Some(codec) => {
            let mut specs = ours.params().iter().map(PayloadParams::spec);
            specs.any(|ours| ours.codec == codec && is_playable(format, &ours))
        }
    };
    let others = formats.iter().filter(|(_, format)| !is_ours(format));
    let mut foreign: Vec<u8> = others.map(|(pt, _)| *pt).collect();
    let repairs = formats.iter().filter(|(_, format)| {
        let of = || parameter(format, "apt")?.parse::<u8>().ok();
        format.codec == Some(Codec::Rtx) && of().is_some_and(|of| foreign.contains(&of))
    });
    let repairs: Vec<u8> = repairs.map(|(pt, _)| *pt).collect();
    foreign.extend(repairs);
    if foreign.len() == formats.len() {
        return Vec::new();
    }
    foreign
}

/// Whether a format of our codec may be ours: its profile is not certainly another.
fn is_playable(format: &Format<'_>, ours: &CodecSpec) -> bool {
    let number = |name| parameter(format, name).map_or(Some(0), |number| number.parse().ok());
    let params = &ours.format;
    match ours.codec {
        Codec::Vp9 => number("profile-id") == Some(params.profile_id.unwrap_or(0)),
        Codec::Av1 => number("profile") == Some(params.profile.unwrap_or(0).into()),
        Codec::H264 => {
            let theirs = parameter(format, "profile-level-id")
                .and_then(|id| u32::from_str_radix(id, 16).ok());
            theirs
                .zip(params.profile_level_id)
                .is_none_or(|(theirs, ours)| h264_family(theirs) == h264_family(ours))
        }
        _ => true,
    }
}

/// H.264 profiles of one family may be the same by their constraints (RFC 6184 §8.1): Baseline,
/// Main and Extended are.
fn h264_family(profile_level_id: u32) -> u32 {
    match profile_level_id >> 16 {
        0x42 | 0x4d | 0x58 => 0x42,
        other => other,
    }
}

fn parameter<'a>(format: &Format<'a>, name: &str) -> Option<&'a str> {
    format.parameters.split(';').find_map(|parameter| {
        let (key, value) = parameter.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

/// Attribute, payload type and value of a line that is about one payload type.
fn about_format(line: &str) -> Option<(&str, u8, &str)> {
    let (attribute, value) = line.strip_prefix("a=")?.split_once(':')?;
    if !matches!(attribute, "rtpmap" | "fmtp" | "rtcp-fb") {
        return None;
    }
    let (pt, value) = value.trim_end().split_once(' ')?;
    Some((attribute, pt.parse().ok()?, value))
}

#[cfg(test)]
mod tests {
    use str0m::RtcConfig;
    use str0m::change::SdpOffer;

    use super::*;
    use crate::engine::connection::with_codecs;
    use crate::sim::clock::origin;

    fn ours() -> CodecConfig {
        with_codecs(RtcConfig::new()).codec_config().clone()
    }

    /// A format, its RTX and its feedback as browsers write them.
    fn video(pt: u8, name: &str, parameters: &str) -> String {
        let rtx = pt + 1;
        format!(
            "a=rtpmap:{pt} {name}/90000\r\na=rtcp-fb:{pt} transport-cc\r\n\
             a=rtcp-fb:{pt} nack\r\na=rtcp-fb:{pt} nack pli\r\na=fmtp:{pt} {parameters}\r\n\
             a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={pt}\r\n"
        )
    }

    fn line(kind: &str, pts: &str) -> String {
        format!("m={kind} 9 UDP/TLS/RTP/SAVPF {pts}\r\na=mid:{kind}\r\n")
    }

    #[test]
    fn formats_that_no_answer_can_have_are_left_out() {
        let kept = [
            video(96, "VP8", "max-fs=12288"),
            video(98, "VP9", "profile-id=0"),
            video(100, "vp9", "profile-id=2"),
            video(102, "H264", "packetization-mode=1;profile-level-id=42e01f"),
            video(104, "H264", "profile-level-id=58e01f"),
            video(45, "AV1", "level-idx=5;profile=0;tier=0"),
        ]
        .concat();
        let left_out = [
            video(35, "VP9", "profile-id=1"),
            video(41, "H264", "packetization-mode=1;profile-level-id=f4001f"),
            video(47, "AV1", "level-idx=5;profile=1;tier=0"),
            video(49, "H265", "level-id=93"),
            video(118, "red", "x=y"),
            "a=rtpmap:120 ulpfec/90000\r\n".into(),
        ]
        .concat();
        let before = "v=0\r\na=group:BUNDLE video\r\n";
        let theirs = line(
            "video",
            "96 97 98 99 100 101 35 36 41 42 102 103 104 105 45 46 47 48 49 50 118 119 120",
        );
        let offer = [before, &theirs, &kept, &left_out].concat();
        let wanted = line("video", "96 97 98 99 100 101 102 103 104 105 45 46");
        assert_eq!(thinned(&offer, &ours()), [before, &wanted, &kept].concat());
    }

    /// The formats of str0m's answer to an offer.
    fn answered(sdp: &str) -> Vec<String> {
        let config = with_codecs(RtcConfig::new().set_rtp_mode(true));
        let mut rtc = config.build(origin());
        let offer = SdpOffer::from_sdp_string(sdp).unwrap();
        let answer = rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
        let is_format = |line: &&str| {
            let about_formats = ["m=", "a=rtpmap:", "a=fmtp:"];
            about_formats.iter().any(|start| line.starts_with(start))
        };
        answer
            .lines()
            .filter(is_format)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_answer_has_the_formats_that_it_would_have_had() {
        let fingerprint = ["AB"; 32].join(":");
        let before = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE video\r\n\
             a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n"
        );
        let h264 = ["42001f", "42e01f", "4d001f", "64001f", "f4001f", "58a01f"];
        let h264 = h264.iter().flat_map(|id| {
            [0, 1].map(|mode| format!("packetization-mode={mode};profile-level-id={id}"))
        });
        let vp9 = (0..4).map(|id| format!("profile-id={id}"));
        let av1 = (0..3).map(|id| format!("level-idx=5;profile={id};tier=0"));
        let formats = h264
            .map(|of| ("H264", of))
            .chain(vp9.map(|of| ("VP9", of)))
            .chain(av1.map(|of| ("AV1", of)))
            .chain(["VP8", "H265", "red", "ulpfec"].map(|name| (name, "x=y".into())));
        let (mut pts, mut about) = (Vec::new(), String::new());
        for (pt, (name, parameters)) in (35..).step_by(2).zip(formats) {
            pts.extend([pt, pt + 1].map(|pt: u8| pt.to_string()));
            about.push_str(&video(pt, name, &parameters));
        }
        let video = line("video", &pts.join(" "));
        let whole = [&before, &video, "a=sendrecv\r\na=rtcp-mux\r\n", &about].concat();
        let thinned = thinned(&whole, &ours());
        assert!(thinned.len() < whole.len() * 3 / 4, "{}", thinned.len());
        assert_eq!(answered(&thinned), answered(&whole));
    }

    #[test]
    fn feedback_that_nobody_would_use_is_left_out() {
        let older = "a=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 ccm fir\r\n";
        let newer = "a=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 nack pli\r\n";
        let head = [line("video", "96"), "a=rtpmap:96 VP8/90000\r\n".into()].concat();
        let both = [&head, older, newer].concat();
        assert_eq!(thinned(&both, &ours()), [&head, newer].concat());
        let only_older = [&head, older].concat();
        assert_eq!(thinned(&only_older, &ours()), only_older);
    }

    #[test]
    fn redundant_sound_stays_and_the_telephones_keys_do_not() {
        let opus = "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
                    a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n";
        let keys = "a=rtpmap:126 telephone-event/8000\r\na=rtpmap:9 G722/8000\r\n";
        let offer = [&line("audio", "111 63 9 126"), opus, keys].concat();
        let wanted = [&line("audio", "111 63"), opus].concat();
        assert_eq!(thinned(&offer, &ours()), wanted);
    }

    #[test]
    fn what_is_not_understood_is_left_for_str0m() {
        for sdp in [
            "",
            "\n",
            "m=",
            "m=video 9 UDP/TLS/RTP/SAVPF",
            "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 H265/90000\r\n",
            "m=audio 9 UDP/TLS/RTP/SAVPF 0 8\na=rtpmap\na=fmtp:x y\na=rtcp-fb:300 nack\n\n",
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=rtpmap:96 H265/90000\r\n",
        ] {
            assert_eq!(thinned(sdp, &ours()), sdp);
        }
    }
}
