//! Whether a message keeps within the limits of its size and its fields. Pure.

use crate::engine::command::Refusal;
use crate::signal::limits;
use crate::signal::problem::{Code, Problem};
use crate::signal::request::{ClientMessage, Join};

/// Checks a message that came as `text_bytes` bytes of JSON.
///
/// # Errors
///
/// `message-too-big`, `bad-message` or `bad-candidate`, with the limit that is passed.
pub fn check(message: &ClientMessage, text_bytes: usize) -> Result<(), Problem> {
    if message
        .sdp()
        .map_or(text_bytes > limits::MAX_MESSAGE_BYTES, |sdp| {
            sdp.len() > limits::MAX_SDP_BYTES
        })
    {
        return Err(too_big());
    }
    match message {
        ClientMessage::Join(join) => check_join(join),
        ClientMessage::Subscribe { track_ids } | ClientMessage::Unsubscribe { track_ids }
            if track_ids.len() > limits::MAX_NAMED_TRACKS =>
        {
            let max = limits::MAX_NAMED_TRACKS;
            refused(format!("\"trackIds\" names at most {max} tracks"))
        }
        ClientMessage::SetLayout { slots } if slots.len() > limits::MAX_NAMED_TRACKS => {
            let max = limits::MAX_NAMED_TRACKS;
            refused(format!("\"slots\" names at most {max} tracks"))
        }
        ClientMessage::Data {
            topic: Some(topic), ..
        } if topic.chars().count() > limits::MAX_TOPIC_CHARS => {
            let max = limits::MAX_TOPIC_CHARS;
            refused(format!("\"topic\" has at most {max} characters"))
        }
        ClientMessage::Offer {
            tracks: Some(tracks),
            ..
        } if tracks.len() > limits::MAX_NAMED_SOURCES => {
            let max = limits::MAX_NAMED_SOURCES;
            refused(format!("\"tracks\" names at most {max} m-lines"))
        }
        ClientMessage::Offer {
            tracks: Some(tracks),
            ..
        } if tracks.keys().any(|mid| mid.len() > limits::MAX_MID_BYTES) => {
            let max = limits::MAX_MID_BYTES;
            refused(format!("an m-line in \"tracks\" has at most {max} bytes"))
        }
        ClientMessage::IceCandidate {
            candidate: Some(candidate),
            ..
        } if candidate.line().len() > limits::MAX_CANDIDATE_BYTES => {
            Err(Problem::from(Refusal::BadCandidate))
        }
        _ => Ok(()),
    }
}

fn check_join(join: &Join) -> Result<(), Problem> {
    let is_longer = |text: &Option<String>, max: usize| {
        let text = text.as_deref().unwrap_or_default();
        text.chars().count() > max
    };
    if is_longer(&join.participant_name, limits::MAX_NAME_CHARS) {
        let max = limits::MAX_NAME_CHARS;
        return refused(format!("\"participantName\" has at most {max} characters"));
    }
    if is_longer(&join.user_id, limits::MAX_IDENTITY_CHARS) {
        let max = limits::MAX_IDENTITY_CHARS;
        return refused(format!("\"userId\" has at most {max} characters"));
    }
    let metadata = join.metadata.as_ref();
    if metadata.is_some_and(|json| json.to_string().len() > limits::MAX_METADATA_BYTES) {
        let max = limits::MAX_METADATA_BYTES;
        return refused(format!("\"metadata\" has at most {max} bytes of JSON"));
    }
    Ok(())
}

fn refused(text: String) -> Result<(), Problem> {
    Err(Problem::new(Code::BadMessage, &text))
}

/// What a client is told whose message is too long.
#[must_use]
pub fn too_big() -> Problem {
    let text = format!(
        "a message has at most {} bytes, a session description {}",
        limits::MAX_MESSAGE_BYTES,
        limits::MAX_SDP_BYTES
    );
    Problem::new(Code::MessageTooBig, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::request;

    fn verdict(json: &str) -> Option<Code> {
        let message = request::parse(json).message.unwrap();
        check(&message, json.len())
            .err()
            .map(|problem| problem.code)
    }

    /// `short` must pass and one more must not.
    fn assert_limit(max: usize, code: Code, json: impl Fn(&str) -> String) {
        assert_eq!(verdict(&json(&"x".repeat(max))), None);
        assert_eq!(verdict(&json(&"x".repeat(max + 1))), Some(code));
    }

    #[test]
    fn each_limit_lets_its_maximum_pass_and_nothing_longer() {
        assert_limit(limits::MAX_NAME_CHARS, Code::BadMessage, |x| {
            let name = x.replace('x', "é");
            format!(r#"{{"type":"join","roomId":"a","participantName":"{name}"}}"#)
        });
        assert_limit(limits::MAX_METADATA_BYTES - 2, Code::BadMessage, |x| {
            format!(r#"{{"type":"join","roomId":"a","metadata":"{x}"}}"#)
        });
        assert_limit(limits::MAX_IDENTITY_CHARS, Code::BadMessage, |x| {
            format!(r#"{{"type":"join","roomId":"a","userId":"{x}"}}"#)
        });
        assert_limit(limits::MAX_NAMED_TRACKS, Code::BadMessage, |x| {
            let tracks = vec![r#""t""#; x.len()].join(",");
            format!(r#"{{"type":"subscribe","trackIds":[{tracks}]}}"#)
        });
        assert_limit(limits::MAX_NAMED_TRACKS, Code::BadMessage, |x| {
            let slot = r#"{"trackId":"t","width":1,"height":1}"#;
            let slots = vec![slot; x.len()].join(",");
            format!(r#"{{"type":"set-layout","slots":[{slots}]}}"#)
        });
        assert_limit(limits::MAX_TOPIC_CHARS, Code::BadMessage, |x| {
            format!(r#"{{"type":"data","payload":1,"topic":"{x}"}}"#)
        });
        assert_limit(limits::MAX_MID_BYTES, Code::BadMessage, |x| {
            format!(r#"{{"type":"offer","sdp":"","tracks":{{"{x}":{{"source":"screen"}}}}}}"#)
        });
        assert_limit(limits::MAX_NAMED_SOURCES, Code::BadMessage, |x| {
            let tracks = (0..x.len()).map(|mid| format!(r#""{mid}":{{"source":"camera"}}"#));
            let tracks = tracks.collect::<Vec<_>>().join(",");
            format!(r#"{{"type":"offer","sdp":"","tracks":{{{tracks}}}}}"#)
        });
        assert_limit(limits::MAX_CANDIDATE_BYTES, Code::BadCandidate, |x| {
            format!(r#"{{"type":"ice-candidate","candidate":{{"candidate":"{x}"}}}}"#)
        });
        assert_limit(limits::MAX_SDP_BYTES, Code::MessageTooBig, |x| {
            format!(r#"{{"type":"offer","sdp":"{x}"}}"#)
        });
        assert_limit(limits::MAX_SDP_BYTES, Code::MessageTooBig, |x| {
            format!(r#"{{"type":"offer","to":"p","sdp":"{x}"}}"#)
        });
        assert_limit(limits::MAX_SDP_BYTES, Code::MessageTooBig, |x| {
            format!(r#"{{"type":"start-screen-share","sdp":"{x}"}}"#)
        });
        let envelope = r#"{"type":"data","payload":""}"#.len();
        assert_limit(
            limits::MAX_MESSAGE_BYTES - envelope,
            Code::MessageTooBig,
            |x| format!(r#"{{"type":"data","payload":"{x}"}}"#),
        );
    }
}
