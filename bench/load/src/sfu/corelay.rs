//! Signalling with corelay, as `docs/protocol.md` has it: the client always offers.

use serde_json::{Value, json};

use super::{Member, Say, Sfu, Told};

/// One client of corelay.
pub(super) struct Corelay {
    member: Member,
    joined: bool,
    /// Receiving m-lines offered so far, and wanted by the server: sound, pictures.
    offered: Option<(u32, u32)>,
    wanted: (u32, u32),
    /// An offer has no answer yet.
    waiting: bool,
}

impl Corelay {
    pub(super) fn new(member: Member) -> Self {
        Self {
            member,
            joined: false,
            offered: None,
            wanted: (0, 0),
            waiting: false,
        }
    }

    /// Offers when there is something new to offer and no offer is under way.
    fn offer(&mut self, say: &mut Vec<Say>) {
        let nothing = !self.member.publishes && self.wanted == (0, 0);
        if !self.joined || self.waiting || nothing || self.offered == Some(self.wanted) {
            return;
        }
        let (audio, video) = self.wanted;
        self.offered = Some(self.wanted);
        self.waiting = true;
        say.push(Say::Offer { audio, video });
    }

    fn handle_message(&mut self, message: &Value, say: &mut Vec<Say>) {
        match message["type"].as_str() {
            Some("joined") => {
                self.joined = true;
                self.offer(say);
            }
            Some("request-offer") if self.member.watches => {
                let count = |kind: &str| message[kind].as_u64().unwrap_or(0) as u32;
                let (audio, video) = self.wanted;
                self.wanted = (audio.max(count("audio")), video.max(count("video")));
                self.offer(say);
            }
            Some("answer") => {
                self.waiting = false;
                let sdp = message["sdp"].as_str().unwrap_or_default();
                say.push(Say::Answered(sdp.to_owned()));
                self.offer(say);
            }
            Some("error" | "room-closed" | "kicked") => {
                say.push(Say::Failed(message.to_string()));
            }
            _ => {}
        }
    }
}

impl Sfu for Corelay {
    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    fn handle(&mut self, told: Told<'_>, say: &mut Vec<Say>) {
        match told {
            Told::Opened => {
                let room = format!("load-{}", self.member.room);
                let name = format!("load {}", self.member.index);
                let join = json!({"type": "join", "roomId": room, "participantName": name});
                say.push(Say::Text(join.to_string()));
            }
            Told::Text(text) => match serde_json::from_str(text) {
                Ok(message) => self.handle_message(&message, say),
                Err(_) => say.push(Say::Failed(format!("not JSON: {text}"))),
            },
            Told::Offer(sdp) => {
                let offer = json!({"type": "offer", "sdp": sdp});
                say.push(Say::Text(offer.to_string()));
            }
            Told::Leaving => say.push(Say::Text(json!({"type": "leave"}).to_string())),
            Told::Answer(_) | Told::Tick => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sfu: &mut Corelay, told: Told<'_>) -> Vec<Say> {
        let mut say = Vec::new();
        sfu.handle(told, &mut say);
        say
    }

    fn member(publishes: bool) -> Member {
        Member {
            room: 3,
            index: 1,
            publishers: 1,
            publishes,
            watches: !publishes,
            audio: false,
            video: true,
        }
    }

    #[test]
    fn a_publisher_offers_as_soon_as_it_is_in() {
        let mut sfu = Corelay::new(member(true));
        let join = told(&mut sfu, Told::Opened);
        assert!(matches!(&join[..], [Say::Text(text)] if text.contains("load-3")));
        let said = told(&mut sfu, Told::Text(r#"{"type":"joined"}"#));
        assert_eq!(said, [Say::Offer { audio: 0, video: 0 }]);
        let answer = r#"{"type":"answer","sdp":"v=0"}"#;
        assert_eq!(
            told(&mut sfu, Told::Text(answer)),
            [Say::Answered("v=0".into())]
        );
    }

    #[test]
    fn a_subscriber_offers_when_asked_and_again_when_asked_for_more() {
        let mut sfu = Corelay::new(member(false));
        assert_eq!(told(&mut sfu, Told::Text(r#"{"type":"joined"}"#)), []);
        let ask = |n| format!(r#"{{"type":"request-offer","audio":0,"video":{n}}}"#);
        assert_eq!(told(&mut sfu, Told::Text(&ask(0))), []);
        let said = told(&mut sfu, Told::Text(&ask(1)));
        assert_eq!(said, [Say::Offer { audio: 0, video: 1 }]);
        assert_eq!(
            told(&mut sfu, Told::Text(&ask(2))),
            [],
            "one offer at a time"
        );
        let said = told(&mut sfu, Told::Text(r#"{"type":"answer","sdp":""}"#));
        assert_eq!(
            said,
            [
                Say::Answered(String::new()),
                Say::Offer { audio: 0, video: 2 }
            ]
        );
    }
}
