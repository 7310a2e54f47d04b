//! Options that ask for what this version does not do: told once at start-up.

use serde::Serialize;
use serde_yaml::Value;

use super::Config;
use super::media::MediaFile;
use super::sections::WebrtcFile;

/// Options that are read and checked but change nothing in this version.
const WITHOUT_EFFECT: [&str; 16] = [
    "webrtc.min_bitrate",
    "webrtc.simulcast",
    "webrtc.dtx",
    "webrtc.fec",
    "webrtc.nack",
    "performance.max_cpu_per_room",
    "performance.hardware_acceleration",
    "performance.max_memory_per_room",
    "performance.garbage_collection_interval",
    "video.codecs",
    "video.resolutions.preferred.width",
    "video.resolutions.preferred.height",
    "video.simulcast",
    "audio.codecs",
    "audio.processing.echo_cancellation",
    "audio.processing.noise_suppression",
];

/// Why some of them cannot have any, for whoever set them.
const REASONS: [(&str, &str); 4] = [
    (
        "performance.max_cpu_per_room",
        "a room lives on one shard, so that it never uses more than one core",
    ),
    (
        "performance.hardware_acceleration",
        "calls are not transcoded, and recordings are composed by the CPU",
    ),
    (
        "performance.max_memory_per_room",
        "memory is not counted by room; what each participant can make the server keep is bounded",
    ),
    (
        "performance.garbage_collection_interval",
        "what nobody uses is freed at once or within a second",
    ),
];

/// Why an option has no effect, where there is a reason.
#[must_use]
pub fn reason(path: &str) -> Option<&'static str> {
    let found = REASONS.iter().find(|(option, _)| *option == path);
    found.map(|(_, reason)| *reason)
}

/// Options without effect that differ from their default: whoever set them expects something.
#[must_use]
pub fn set_without_effect(config: &Config) -> Vec<&'static str> {
    let now = both(&config.file, &config.media);
    let default = both(&WebrtcFile::default(), &MediaFile::default());
    let at = |trees: &[Value; 2], path: &str| trees.iter().find_map(|tree| find(tree, path));
    WITHOUT_EFFECT
        .into_iter()
        .filter(|path| at(&now, path) != at(&default, path))
        .collect()
}

fn both(file: &WebrtcFile, media: &MediaFile) -> [Value; 2] {
    fn tree<T: Serialize>(sections: &T) -> Value {
        serde_yaml::to_value(sections).expect("sections are maps with text keys, lists and scalars")
    }
    [tree(file), tree(media)]
}

fn find(tree: &Value, path: &str) -> Option<Value> {
    path.split('.')
        .try_fold(tree, |value, key| value.get(key))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Whole;

    #[test]
    fn each_option_without_effect_is_an_option() {
        let trees = both(&WebrtcFile::default(), &MediaFile::default());
        for path in WITHOUT_EFFECT {
            let found = trees.iter().any(|tree| find(tree, path).is_some());
            assert!(found, "{path}");
        }
    }

    #[test]
    fn what_a_machine_is_not_held_to_is_said_with_its_reason() {
        let mut config = Config::default();
        let asked = &mut config.file.performance;
        asked.max_cpu_per_room = Whole::new(25);
        asked.max_memory_per_room = Whole::new(100);
        asked.hardware_acceleration = true;
        asked.garbage_collection_interval = Whole::new(30);
        let told = set_without_effect(&config);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told.iter().all(|option| reason(option).is_some()));
    }

    #[test]
    fn only_what_was_changed_is_told() {
        let mut config = Config::default();
        assert!(set_without_effect(&config).is_empty());
        config.file.webrtc.dtx = true;
        config.media.audio.processing.noise_suppression = false;
        assert_eq!(
            set_without_effect(&config),
            ["webrtc.dtx", "audio.processing.noise_suppression"]
        );
    }
}
