//! Signalling with Janus 1.x, plugin videoroom: publishers offer, subscribers are offered to.

use serde_json::{Value, json};

use super::{Member, Say, Sfu, Told};

/// Rooms are numbers; this one and up are the generator's.
const FIRST_ROOM: u32 = 7000;

/// One client of Janus: a session with one handle.
pub(super) struct Janus {
    member: Member,
    session: Option<u64>,
    handle: Option<u64>,
    /// Names the next request.
    transaction: u64,
}

impl Janus {
    pub(super) fn new(member: Member) -> Self {
        Self {
            member,
            session: None,
            handle: None,
            transaction: 0,
        }
    }

    fn request(&mut self, mut request: Value) -> Say {
        self.transaction += 1;
        request["transaction"] = json!(self.transaction.to_string());
        if let Some(session) = self.session {
            request["session_id"] = json!(session);
        }
        if let Some(handle) = self.handle {
            request["handle_id"] = json!(handle);
        }
        Say::Text(request.to_string())
    }

    fn message(&mut self, body: Value, jsep: Option<Value>) -> Say {
        let mut request = json!({"janus": "message", "body": body});
        if let Some(jsep) = jsep {
            request["jsep"] = jsep;
        }
        self.request(request)
    }

    fn room(&self) -> u32 {
        FIRST_ROOM + self.member.room
    }

    /// Publishers are named by their place, so that subscribers need not ask who there is.
    fn feed(index: u32) -> u32 {
        index + 1
    }

    /// A reply to `create` or `attach`.
    fn handle_success(&mut self, message: &Value, say: &mut Vec<Say>) {
        let Some(id) = message["data"]["id"].as_u64() else {
            if message["plugindata"]["data"]["videoroom"] == "created" {
                self.join(say);
            } else if message["plugindata"]["data"]["error_code"] == 427 {
                // The room exists: another publisher was first.
                self.join(say);
            }
            return;
        };
        if self.session.is_none() {
            self.session = Some(id);
            let attach = json!({"janus": "attach", "plugin": "janus.plugin.videoroom"});
            say.push(self.request(attach));
            return;
        }
        self.handle = Some(id);
        if self.member.publishes {
            let create = json!({
                "request": "create", "room": self.room(), "publishers": 1000, "bitrate": 0,
                "videocodec": "vp8", "audiocodec": "opus", "notify_joining": false,
            });
            say.push(self.message(create, None));
        } else {
            self.join(say);
        }
    }

    fn join(&mut self, say: &mut Vec<Say>) {
        let body = if self.member.publishes {
            json!({
                "request": "join", "ptype": "publisher", "room": self.room(),
                "id": Self::feed(self.member.index),
            })
        } else {
            let streams = (0..self.member.publishers).map(|i| json!({"feed": Self::feed(i)}));
            json!({
                "request": "join", "ptype": "subscriber", "room": self.room(),
                "streams": streams.collect::<Vec<_>>(),
            })
        };
        say.push(self.message(body, None));
    }

    fn handle_event(&mut self, message: &Value, say: &mut Vec<Say>) {
        let data = &message["plugindata"]["data"];
        if let Some(error) = data["error"].as_str() {
            say.push(Say::Failed(error.to_owned()));
            return;
        }
        if data["videoroom"] == "joined" && self.member.publishes {
            say.push(Say::Offer { audio: 0, video: 0 });
        }
        let Some(sdp) = message["jsep"]["sdp"].as_str() else {
            return;
        };
        say.push(match message["jsep"]["type"].as_str() {
            Some("offer") => Say::Offered(sdp.to_owned()),
            _ => Say::Answered(sdp.to_owned()),
        });
    }
}

impl Sfu for Janus {
    fn subprotocol(&self) -> Option<&'static str> {
        Some("janus-protocol")
    }

    fn handle(&mut self, told: Told<'_>, say: &mut Vec<Say>) {
        match told {
            Told::Opened => say.push(self.request(json!({"janus": "create"}))),
            Told::Text(text) => {
                let message: Value = serde_json::from_str(text).unwrap_or_default();
                match message["janus"].as_str() {
                    Some("success") => self.handle_success(&message, say),
                    Some("event") => self.handle_event(&message, say),
                    Some("error") => say.push(Say::Failed(message["error"].to_string())),
                    Some("hangup" | "timeout") => say.push(Say::Failed(message.to_string())),
                    _ => {}
                }
            }
            Told::Offer(sdp) => {
                let (audio, video) = (self.member.audio, self.member.video);
                let body = json!({"request": "configure", "audio": audio, "video": video});
                let jsep = json!({"type": "offer", "sdp": sdp});
                say.push(self.message(body, Some(jsep)));
            }
            Told::Answer(sdp) => {
                let jsep = json!({"type": "answer", "sdp": sdp});
                say.push(self.message(json!({"request": "start"}), Some(jsep)));
            }
            // Sessions end after a minute without a word.
            Told::Tick if self.session.is_some() => {
                say.push(self.request(json!({"janus": "keepalive"})));
            }
            Told::Tick => {}
            Told::Leaving => say.push(self.request(json!({"janus": "destroy"}))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sfu: &mut Janus, text: &str) -> Vec<Say> {
        let mut say = Vec::new();
        sfu.handle(Told::Text(text), &mut say);
        say
    }

    #[test]
    fn a_subscriber_is_offered_to_by_every_feed_and_answers() {
        let mut sfu = Janus::new(Member {
            room: 0,
            index: 2,
            publishers: 2,
            publishes: false,
            watches: true,
            audio: false,
            video: true,
        });
        told(&mut sfu, r#"{"janus":"success","data":{"id":11}}"#);
        let said = told(&mut sfu, r#"{"janus":"success","data":{"id":12}}"#);
        let [Say::Text(join)] = &said[..] else {
            panic!("{said:?}")
        };
        let join: Value = serde_json::from_str(join).unwrap();
        assert_eq!(join["body"]["streams"], json!([{"feed": 1}, {"feed": 2}]));
        assert_eq!(
            (&join["session_id"], &join["handle_id"]),
            (&json!(11), &json!(12))
        );
        let said = told(
            &mut sfu,
            r#"{"janus":"event","plugindata":{"data":{"videoroom":"attached"}},
                "jsep":{"type":"offer","sdp":"v=0"}}"#,
        );
        assert_eq!(said, [Say::Offered("v=0".into())]);
    }
}
