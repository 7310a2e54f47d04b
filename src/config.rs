//! Parses `config/*.yaml` into each module's own `Options`; nobody imports it.
//!
//! A default stands in the code ([`sections`], [`media`]); a file, then the environment
//! ([`environment`]), then the command line ([`flags`]) may replace it. Whatever cannot be
//! understood stops the start with its place and what is allowed ([`read::Problem`]): an option
//! that is silently ignored is found out at the worst time.

mod defaults;
pub mod environment;
pub mod flags;
mod keys;
pub mod media;
mod options;
pub mod reach;
pub mod read;
pub mod reload;
pub mod sections;
pub mod unsupported;
pub mod value;

use std::path::Path;

use media::MediaFile;
use read::Problem;
use sections::WebrtcFile;

use crate::record::jitter;

/// Variables with our prefix that are no options of the two files.
const OTHER_VARIABLES: [&str; 3] = ["CORELAY_CONFIG", "CORELAY_MEDIA", "CORELAY_TARGET_DIR"];

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// What `config/webrtc.yaml` sets.
    pub file: WebrtcFile,
    /// What `config/media.yaml` sets.
    pub media: MediaFile,
}

impl Config {
    /// Reads the files that are given, then the overrides in `variables`.
    ///
    /// # Errors
    ///
    /// [`Problem`] is the first thing that is wrong.
    pub fn load(
        webrtc: Option<&Path>,
        media: Option<&Path>,
        variables: &[(String, String)],
    ) -> Result<Self, Problem> {
        let webrtc = Source::read(webrtc)?;
        let media = Source::read(media)?;
        let mut config = Self {
            file: read::from_text(&webrtc.origin, &webrtc.text, &["video", "audio"])?,
            media: read::from_text(
                &media.origin,
                &media.text,
                &[
                    "server",
                    "webrtc",
                    "rooms",
                    "recording",
                    "security",
                    "performance",
                    "metrics",
                    "webhooks",
                    "call_log",
                    "log",
                ],
            )?,
        };
        environment::apply(&mut config.file, variables)?;
        environment::apply(&mut config.media, variables)?;
        config.check(&webrtc, &media)?;
        Ok(config)
    }

    /// As [`Config::load`], with what the command line says in place of all else.
    ///
    /// # Errors
    ///
    /// [`Problem`] is the first thing that is wrong.
    pub fn read(flags: &flags::Flags, variables: &[(String, String)]) -> Result<Self, Problem> {
        let mut variables = variables.to_vec();
        if let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") {
            let paths = environment::scalar_paths(&WebrtcFile::default());
            // Behind the environment's own, which are found first.
            variables.extend(environment::credentials(Path::new(&folder), &paths));
        }
        let mut config = Self::load(flags.config.as_deref(), flags.media.as_deref(), &variables)?;
        flags.apply(&mut config);
        Ok(config)
    }

    /// Overrides in `variables` that name no option, each as a sentence.
    #[must_use]
    pub fn unknown_variables(&self, variables: &[(String, String)]) -> Vec<String> {
        let mut paths = environment::scalar_paths(&self.file);
        paths.extend(environment::scalar_paths(&self.media));
        environment::unknown(&paths, &OTHER_VARIABLES, variables)
    }

    /// Where certificate and key are, if HTTPS is wanted.
    fn tls(&self) -> Option<crate::signal::tls::Options> {
        let tls = &self.file.server.tls;
        let is_wanted = !tls.cert.is_empty() || !tls.key.is_empty();
        is_wanted.then(|| crate::signal::tls::Options {
            certificate: tls.cert.clone().into(),
            key: tls.key.clone().into(),
            hsts_seconds: tls.hsts.value(),
        })
    }

    /// What one option alone cannot tell: do they fit together?
    fn check(&self, webrtc: &Source, media: &Source) -> Result<(), Problem> {
        let media_path = &self.file.webrtc;
        if media_path.min_bitrate.value() > media_path.max_bitrate.value() {
            let what = format!(
                "this is {}, more than webrtc.max_bitrate, {}",
                media_path.min_bitrate.value(),
                media_path.max_bitrate.value()
            );
            return Err(webrtc.problem("webrtc.min_bitrate", what));
        }
        if !media_path.turn.urls.is_empty() && media_path.turn.secret.reveal().is_empty() {
            let what = "there is no secret, so the TURN server would take nobody. Set it to \
                        coturn's static-auth-secret";
            return Err(webrtc.problem("webrtc.turn.secret", what.to_owned()));
        }
        let jitter::Options { target, max } = self.jitter();
        if target > max {
            let what = format!(
                "this is {}, more than the jitter_buffer_max, {}",
                target.as_millis(),
                max.as_millis()
            );
            let section = match self.file.recording.jitter_buffer_target {
                value::Delay::Auto => "webrtc",
                value::Delay::Milliseconds(_) => "recording",
            };
            return Err(webrtc.problem(&format!("{section}.jitter_buffer_target"), what));
        }
        if self.media.video.codecs.is_empty() {
            let what = "the list is empty; name at least one of VP8, VP9, H264, AV1".to_owned();
            return Err(media.problem("video.codecs", what));
        }
        if self.media.audio.codecs.is_empty() {
            let what = "the list is empty; name opus".to_owned();
            return Err(media.problem("audio.codecs", what));
        }
        if !(1..=3).contains(&self.media.video.simulcast.len()) {
            let count = self.media.video.simulcast.len();
            let what = format!("the list has {count} qualities; 1 to 3 are possible");
            return Err(media.problem("video.simulcast", what));
        }
        if !self.file.log.otlp.is_empty() && !self.file.log.otlp.starts_with("http") {
            let what = "expected the address of a collector, such as \
                        http://127.0.0.1:4318/v1/traces, or nothing";
            return Err(webrtc.problem("log.otlp", what.to_owned()));
        }
        if let Some(tls) = self.tls()
            && let Err(error) = crate::signal::tls::load(&tls)
        {
            return Err(webrtc.problem("server.tls.cert", error.to_string()));
        }
        let checked = self
            .access()
            .map(drop)
            .and_then(|()| self.proxies().map(drop))
            .and_then(|()| self.webhook_options().map(drop))
            .and_then(|()| self.call_log_options(None).map(drop));
        checked.map_err(|Problem { key, what, .. }| webrtc.problem(&key, what))
    }
}

/// One file's name and text; without a file both say so.
struct Source {
    origin: String,
    text: String,
}

impl Source {
    fn read(path: Option<&Path>) -> Result<Self, Problem> {
        let Some(path) = path else {
            return Ok(Self {
                origin: "configuration".to_owned(),
                text: String::new(),
            });
        };
        let origin = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self { origin, text }),
            Err(error) => Err(Problem {
                origin,
                line: None,
                key: String::new(),
                what: format!("the file cannot be read: {error}"),
            }),
        }
    }

    fn problem(&self, key: &str, what: String) -> Problem {
        Problem {
            origin: self.origin.clone(),
            line: read::line_of(&self.text, key),
            key: key.to_owned(),
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBRTC: &str = include_str!("../config/webrtc.yaml");
    const MEDIA: &str = include_str!("../config/media.yaml");

    #[test]
    fn the_shipped_files_are_the_defaults() {
        let file: WebrtcFile = read::from_text("webrtc.yaml", WEBRTC, &[]).unwrap();
        assert_eq!(file, WebrtcFile::default());
        let media: MediaFile = read::from_text("media.yaml", MEDIA, &[]).unwrap();
        assert_eq!(media, MediaFile::default());
    }

    #[test]
    fn every_option_stands_in_the_shipped_files_with_a_sentence() {
        let told = |text: &str, path: &str| {
            let line = read::line_of(text, path).unwrap_or_else(|| panic!("{path} is missing"));
            let above = text.lines().nth(line - 2).unwrap_or_default().trim_start();
            assert!(
                above.starts_with("# ") && above.ends_with('.'),
                "{path} has no sentence"
            );
        };
        for path in environment::scalar_paths(&WebrtcFile::default()) {
            told(WEBRTC, &path);
        }
        for path in environment::scalar_paths(&MediaFile::default()) {
            told(MEDIA, &path);
        }
        for path in [
            "webrtc.ice_servers",
            "security.token_keys",
            "server.allowed_origins",
            "server.trusted_proxies",
            "webhooks.urls",
            "video.codecs",
            "video.simulcast",
            "audio.codecs",
        ] {
            let text = match path.split('.').next() {
                Some("video" | "audio") => MEDIA,
                _ => WEBRTC,
            };
            told(text, path);
        }
    }

    #[test]
    fn the_configuration_printed_in_the_wild_is_understood() {
        let text = "\
server:
  host: \"0.0.0.0\"
  port: 8080
webrtc:
  ice_servers:
    - urls: [\"stun:stun.example.org:19302\"]
  max_bitrate: 5000000
  simulcast: true
  jitter_buffer_target: 200  # ms
  dtx: true  # Discontinuous Transmission
rooms:
  max_participants: 100
  auto_create: true
  idle_timeout: 3600
recording:
  enabled: true
  path: \"recordings\"
  format: \"webm\"
  s3_upload: true
security:
  require_auth: false
  rate_limit:
    enabled: true
    max_rooms_per_ip: 10
performance:
  worker_threads: 8
  max_cpu_per_room: 25  # percent
  garbage_collection_interval: 60  # seconds
";
        let file: WebrtcFile = read::from_text("webrtc.yaml", text, &[]).unwrap();
        assert_eq!(file.webrtc.ice_servers.len(), 1);
        assert_eq!(file.performance.worker_threads, value::Shards::Count(8));
    }

    #[test]
    fn options_that_contradict_each_other_are_told_with_their_line() {
        let source = Source {
            origin: "w.yaml".to_owned(),
            text: "webrtc:\n  min_bitrate: 90000000\n".to_owned(),
        };
        let media = Source::read(None).unwrap();
        let mut config = Config {
            file: read::from_text(&source.origin, &source.text, &[]).unwrap(),
            media: MediaFile::default(),
        };
        let said = config.check(&source, &media).unwrap_err().to_string();
        assert!(
            said.starts_with("w.yaml:2: webrtc.min_bitrate: this is 90000000"),
            "{said}"
        );
        config = Config::default();
        config.media.video.codecs.clear();
        assert!(config.check(&source, &media).is_err());
        config = Config::default();
        config.media.video.simulcast.clear();
        assert!(config.check(&source, &media).is_err());
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let path = Path::new("/nonexistent/webrtc.yaml");
        let said = Config::load(Some(path), None, &[]).unwrap_err().to_string();
        assert!(
            said.starts_with("/nonexistent/webrtc.yaml: the file cannot be read"),
            "{said}"
        );
    }
}
