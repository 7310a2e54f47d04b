//! What differs between the configuration that runs and the one that was read again.

use serde::Serialize;
use serde_yaml::Value;

use super::Config;

/// Options, or whole sections, that count as soon as they were read again.
const LIVE: [&str; 17] = [
    "rooms.max_rooms",
    "rooms.max_participants",
    "rooms.auto_create",
    "rooms.idle_timeout",
    "rooms.resume_timeout",
    "rooms.max_bitrate",
    "rooms.max_packets",
    "security",
    "webrtc.ice_servers",
    "webrtc.turn",
    "webrtc.max_bitrate",
    "webrtc.max_packets",
    "log.level",
    "server.drain_timeout",
    "performance.max_memory_total",
    "performance.max_bitrate",
    "performance.max_packets",
];

/// The options that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Those that count from here on.
    pub changed: Vec<String>,
    /// Those that count after a restart.
    pub waiting: Vec<String>,
}

/// Compares two configurations. Values are not told: some are secret.
#[must_use]
pub fn differences(before: &Config, after: &Config) -> Differences {
    let mut paths = Vec::new();
    compare("", &tree(&before.file), &tree(&after.file), &mut paths);
    compare("", &tree(&before.media), &tree(&after.media), &mut paths);
    let is_live = |path: &String| {
        LIVE.iter().any(|live| {
            let rest = path.strip_prefix(live);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let (changed, waiting) = paths.into_iter().partition(is_live);
    Differences { changed, waiting }
}

impl Config {
    /// This configuration, but for what counts after a restart only: that stays as it is in
    /// `running`.
    #[must_use]
    pub fn applied_to(&self, running: &Self) -> Self {
        let mut applied = running.clone();
        let (file, new) = (&mut applied.file, &self.file);
        file.security = new.security.clone();
        file.log.level.clone_from(&new.log.level);
        file.server.drain_timeout = new.server.drain_timeout;
        let (limits, wanted) = (&mut file.performance, &new.performance);
        limits.max_memory_total = wanted.max_memory_total;
        limits.max_bitrate = wanted.max_bitrate;
        limits.max_packets = wanted.max_packets;
        file.webrtc.ice_servers.clone_from(&new.webrtc.ice_servers);
        file.webrtc.turn = new.webrtc.turn.clone();
        file.webrtc.max_bitrate = new.webrtc.max_bitrate;
        file.webrtc.max_packets = new.webrtc.max_packets;
        let slots = (file.rooms.max_video_slots, file.rooms.max_audio_slots);
        file.rooms = new.rooms.clone();
        (file.rooms.max_video_slots, file.rooms.max_audio_slots) = slots;
        applied
    }
}

fn tree<T: Serialize>(sections: &T) -> Value {
    serde_yaml::to_value(sections).expect("sections are maps with text keys, lists and scalars")
}

/// Walks two trees of the same shape and gathers where they differ. Lists are compared whole.
fn compare(path: &str, before: &Value, after: &Value, paths: &mut Vec<String>) {
    let (Value::Mapping(old), Value::Mapping(new)) = (before, after) else {
        if before != after {
            paths.push(path.to_owned());
        }
        return;
    };
    for (key, value) in new {
        let key_text = key.as_str().unwrap_or_default();
        let inner = match path {
            "" => key_text.to_owned(),
            _ => format!("{path}.{key_text}"),
        };
        compare(&inner, old.get(key).unwrap_or(&Value::Null), value, paths);
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::from_text;
    use super::*;

    fn config(text: &str) -> Config {
        Config {
            file: from_text("w.yaml", text, &[]).unwrap(),
            ..Config::default()
        }
    }

    #[test]
    fn what_differs_is_named_by_when_it_counts() {
        let before = config("rooms: {max_rooms: 5}\nsecurity: {token_secret: north}");
        let after = config(
            "rooms: {max_rooms: 6, max_video_slots: 2}\nserver: {port: 81}\n\
             security: {token_secret: south}\nlog: {level: debug}",
        );
        let found = differences(&before, &after);
        let changed = ["rooms.max_rooms", "security.token_secret", "log.level"];
        assert_eq!(found.changed, changed);
        assert_eq!(found.waiting, ["server.port", "rooms.max_video_slots"]);
        assert_eq!(differences(&after, &after), Differences::default());
    }

    #[test]
    fn what_is_applied_is_all_that_counts_at_once() {
        let before = Config::default();
        let after = config(
            "rooms: {max_rooms: 6, max_video_slots: 2, resume_timeout: 1, max_bitrate: 9, \
             max_packets: 9}\nserver: {port: 81, \
             drain_timeout: 9}\nsecurity: {require_auth: false, rate_limit: {enabled: true}}\n\
             webrtc: {ice_servers: [{urls: [\"stun:a.example\"]}], udp: \"127.0.0.1:9\", \
             max_bitrate: 300000, max_packets: 9}\nperformance: {max_memory_total: 64, \
             worker_threads: 2, max_bitrate: 900000, max_packets: 9}\nlog: {level: debug}",
        );
        let applied = after.applied_to(&before);
        let all = differences(&before, &after);
        assert_eq!(differences(&before, &applied).changed, all.changed);
        assert_eq!(differences(&before, &applied).waiting, [""; 0]);
        assert_eq!(differences(&applied, &after).waiting, all.waiting);
    }
}
