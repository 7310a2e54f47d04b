//! Which m-lines of a client's offers carry its screen, when it says so without naming them.

use std::collections::BTreeMap;

use crate::engine::command::{Kind, Source};
use crate::signal::limits;

/// What one client's offers have sent so far.
#[derive(Debug, Default)]
pub struct ScreenShare {
    /// Whether m-lines that begin to send are a screen.
    starting: bool,
    /// The m-lines of the latest offer.
    offered: BTreeMap<String, Sending>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Nothing,
    Media(Kind),
}

impl ScreenShare {
    /// From here on an m-line that begins to send is a screen, up to and with the first offer
    /// that has one.
    pub fn start(&mut self) {
        self.starting = true;
    }

    /// From here on an m-line that begins to send is what its kind says.
    pub fn stop(&mut self) {
        self.starting = false;
    }

    /// Takes in an offer, and says which of its m-lines begin to send a screen.
    pub fn handle_offer(&mut self, sdp: &str) -> Vec<(String, Source)> {
        let offered = media_lines(sdp);
        let before = std::mem::replace(&mut self.offered, offered);
        if !self.starting {
            return Vec::new();
        }
        let screens: Vec<_> = self
            .offered
            .iter()
            .filter(|(mid, sending)| before.get(*mid) != Some(sending))
            .filter_map(|(mid, sending)| match sending {
                Sending::Nothing => None,
                Sending::Media(Kind::Audio) => Some((mid.clone(), Source::ScreenAudio)),
                Sending::Media(Kind::Video) => Some((mid.clone(), Source::Screen)),
            })
            .collect();
        self.starting = screens.is_empty();
        screens
    }

    /// Whether the latest offer has this m-line.
    #[must_use]
    pub fn has_offered(&self, mid: &str) -> bool {
        self.offered.contains_key(mid)
    }
}

/// The audio and video m-lines of an offer, by `a=mid` (RFC 8843 §8). Lenient: what this does
/// not understand, the engine refuses.
fn media_lines(sdp: &str) -> BTreeMap<String, Sending> {
    let mut lines = BTreeMap::new();
    for section in sdp.split("\nm=").skip(1).take(limits::MAX_NAMED_SOURCES) {
        let kind = match section.split(' ').next() {
            Some("audio") => Kind::Audio,
            Some("video") => Kind::Video,
            _ => continue,
        };
        let mut mid = None;
        let mut sending = Sending::Media(kind);
        for line in section.lines() {
            match line.trim_end() {
                "a=recvonly" | "a=inactive" => sending = Sending::Nothing,
                line => mid = mid.or_else(|| line.strip_prefix("a=mid:")),
            }
        }
        if let Some(mid) = mid.filter(|mid| mid.len() <= limits::MAX_MID_BYTES) {
            lines.insert(mid.to_owned(), sending);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(lines: &[(&str, &str, &str)]) -> String {
        let mut sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n".to_owned();
        for (kind, mid, direction) in lines {
            sdp += &format!("m={kind} 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:{mid}\r\na={direction}\r\n");
        }
        sdp
    }

    #[test]
    fn what_begins_to_send_after_the_start_is_the_screen() {
        let mut share = ScreenShare::default();
        let camera = [("audio", "0", "sendrecv"), ("video", "1", "sendonly")];
        assert_eq!(share.handle_offer(&offer(&camera)), []);
        share.start();
        let with_screen = [
            ("audio", "0", "sendrecv"),
            ("video", "1", "sendonly"),
            ("video", "2", "recvonly"),
            ("video", "3", "sendonly"),
            ("audio", "4", "sendonly"),
        ];
        let screen = [
            ("3".to_owned(), Source::Screen),
            ("4".to_owned(), Source::ScreenAudio),
        ];
        assert_eq!(share.handle_offer(&offer(&with_screen)), screen);
        assert_eq!(share.handle_offer(&offer(&with_screen)), []);
    }

    #[test]
    fn an_m_line_that_was_idle_can_begin_to_send_a_screen() {
        let mut share = ScreenShare::default();
        share.handle_offer(&offer(&[("video", "0", "inactive")]));
        share.start();
        assert_eq!(
            share.handle_offer(&offer(&[("video", "0", "inactive")])),
            []
        );
        assert_eq!(
            share.handle_offer(&offer(&[("video", "0", "sendonly")])),
            [("0".to_owned(), Source::Screen)]
        );
    }

    #[test]
    fn after_the_stop_a_new_track_is_no_screen() {
        let mut share = ScreenShare::default();
        share.start();
        share.stop();
        assert_eq!(
            share.handle_offer(&offer(&[("video", "0", "sendonly")])),
            []
        );
        assert!(share.has_offered("0"));
    }

    #[test]
    fn text_that_is_no_session_description_offers_nothing() {
        let mut share = ScreenShare::default();
        share.start();
        for text in ["", "m=video", "\nm=video 9\na=mid", "\nm=", "\u{0}\nm=é"] {
            assert_eq!(share.handle_offer(text), []);
        }
    }
}
