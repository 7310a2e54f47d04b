//! What a run does: one set of options, from flags and from the cells of a scenario alike.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// A run's options. In YAML they have the flags' names with `_` for `-`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Plan {
    /// The server's WebSocket
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws", value_name = "URL")]
    pub(crate) url: String,
    /// Which server it is
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sfu: SfuKind,
    /// Rooms
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) rooms: u32,
    /// Clients in each room that publish
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) publishers: u32,
    /// Clients in each room that only watch
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) subscribers: u32,
    /// Publishers watch each other too, as in a meeting
    #[arg(long)]
    pub(crate) meeting: bool,
    /// Publishers also send sound: 50 packets a second
    #[arg(long)]
    pub(crate) audio: bool,
    /// Publishers of a room that have something to say; the others are silent [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) speakers: Option<u32>,
    /// Publishers send no picture (with --audio)
    #[arg(long)]
    pub(crate) no_video: bool,
    /// Pictures in three qualities: a full, a quarter and an eighth of the packets
    #[arg(long)]
    pub(crate) simulcast: bool,
    /// Packets a second of one picture; with 0 the publishers are there and send nothing
    #[arg(long, default_value_t = 250, value_name = "N")]
    pub(crate) pps: u32,
    /// RTP payload of a picture's packet, in bytes
    #[arg(long, default_value_t = 1200, value_name = "BYTES")]
    pub(crate) size: usize,
    /// Whether packets leave 8 at a time or evenly spread
    #[arg(long, value_enum, default_value_t)]
    pub(crate) shape: Shape,
    /// Seconds that are measured
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    pub(crate) duration: u32,
    /// Seconds of load before that
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    pub(crate) warmup: u32,
    /// One after another, or all at once
    #[arg(long, value_enum, default_value_t)]
    pub(crate) joins: Joins,
    /// Joins a second when paced
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) join_rate: u32,
    /// Subscribers leave after so long and join again, over and over
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stay: Option<u32>,
    /// The generator's own threads
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) threads: u32,
    /// The server's process, for its CPU time and memory
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Sent to the server as `?token=`
    #[arg(
        long,
        value_name = "TOKEN",
        env = "CORELAY_TOKEN",
        hide_env_values = true
    )]
    #[serde(skip_serializing)]
    pub(crate) token: Option<String>,
    /// Print the result as JSON on the standard output, nothing else
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: bool,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) html: Option<PathBuf>,
}

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SfuKind {
    /// This project's
    #[default]
    Corelay,
    /// Janus, its videoroom plugin
    Janus,
}

/// How a publisher's packets leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// 8 packets at a time, as a frame
    #[default]
    Frames,
    /// Evenly spread: no two packets belong together
    Paced,
}

/// How clients join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Joins {
    /// One after another
    #[default]
    Paced,
    /// All at once
    Storm,
}

/// Packets of one frame.
pub(crate) const FRAME_PACKETS: u32 = 8;
/// Sound packets a second, and their payload: Opus at 40 kbit/s.
const AUDIO_PPS: u32 = 50;
const AUDIO_BYTES: usize = 100;
/// Least payload: the VP8 head, a keyframe's head, the stamp.
pub(crate) const LEAST_BYTES: usize = 64;

impl Default for Plan {
    fn default() -> Self {
        Self {
            url: "ws://127.0.0.1:8080/ws".to_owned(),
            sfu: SfuKind::default(),
            rooms: 1,
            publishers: 1,
            subscribers: 1,
            meeting: false,
            audio: false,
            speakers: None,
            no_video: false,
            simulcast: false,
            pps: 250,
            size: 1200,
            shape: Shape::default(),
            duration: 20,
            warmup: 5,
            joins: Joins::default(),
            join_rate: 50,
            stay: None,
            threads: 1,
            server_pid: None,
            token: None,
            json: false,
            html: None,
        }
    }
}

/// Why a plan cannot be run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct BadPlan(String);

/// One kind of track that every publisher has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrackPlan {
    pub(crate) video: bool,
    /// Frames a second, of sound packets; 0 for what is published and never sent.
    pub(crate) frames_per_s: f64,
    /// Packets of one frame and bytes of one packet, by layer, the smallest layer first.
    pub(crate) layers: Vec<(u32, usize)>,
}

impl Plan {
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), BadPlan> {
        let bad = |text: &str| Err(BadPlan(text.to_owned()));
        if self.rooms == 0 || self.publishers == 0 {
            return bad("--rooms and --publishers must be at least 1");
        }
        if self.no_video && !self.audio {
            return bad("--no-video without --audio leaves nothing to send");
        }
        if self.pps > 20_000 {
            return bad("--pps must be at most 20000");
        }
        if !(LEAST_BYTES..=1200).contains(&self.size) {
            return bad("--size must be 64 to 1200");
        }
        if self.duration == 0 || self.threads == 0 || self.join_rate == 0 {
            return bad("--duration, --threads and --join-rate must be at least 1");
        }
        if self
            .rooms
            .saturating_mul(self.publishers + self.subscribers)
            > 20_000
        {
            return bad("more than 20000 clients: too many sockets for one generator");
        }
        if self.sfu == SfuKind::Janus && (self.meeting || self.simulcast) {
            return bad(
                "--sfu janus knows publishers and subscribers, no --meeting or --simulcast",
            );
        }
        Ok(())
    }

    /// The tracks of one publisher.
    pub(crate) fn tracks(&self) -> Vec<TrackPlan> {
        let mut tracks = Vec::new();
        if self.audio {
            tracks.push(TrackPlan {
                video: false,
                frames_per_s: f64::from(AUDIO_PPS),
                layers: vec![(1, AUDIO_BYTES)],
            });
        }
        if !self.no_video {
            let packets = match self.shape {
                Shape::Frames => FRAME_PACKETS,
                Shape::Paced => 1,
            };
            let layers = match (self.simulcast, self.shape) {
                (false, _) => vec![(packets, self.size)],
                (true, Shape::Frames) => {
                    vec![(1, self.size / 2), (2, self.size), (packets, self.size)]
                }
                (true, Shape::Paced) => {
                    vec![(1, self.size / 16), (1, self.size / 4), (1, self.size)]
                }
            };
            let layers = layers.into_iter();
            tracks.push(TrackPlan {
                video: true,
                frames_per_s: f64::from(self.pps) / f64::from(packets),
                layers: layers
                    .map(|(n, bytes)| (n, bytes.max(LEAST_BYTES)))
                    .collect(),
            });
        }
        tracks
    }

    /// Clients in one room.
    pub(crate) fn per_room(&self) -> u32 {
        self.publishers + self.subscribers
    }

    /// How many of a room's publishers send sound.
    pub(crate) fn speakers(&self) -> u32 {
        self.speakers
            .unwrap_or(self.publishers)
            .min(self.publishers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_eight_packets_and_the_rate_is_that_of_packets() {
        let tracks = Plan::default().tracks();
        assert_eq!(tracks.len(), 1);
        assert_eq!(tracks[0].layers, [(8, 1200)]);
        assert!((tracks[0].frames_per_s - 31.25).abs() < 1e-9);
    }

    #[test]
    fn layers_come_smallest_first() {
        let plan = Plan {
            simulcast: true,
            audio: true,
            ..Plan::default()
        };
        let tracks = plan.tracks();
        assert!(!tracks[0].video);
        assert_eq!(tracks[1].layers, [(1, 600), (2, 1200), (8, 1200)]);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        assert_eq!(Plan::default().check(), Ok(()));
        for plan in [
            Plan {
                rooms: 0,
                ..Plan::default()
            },
            Plan {
                size: 10,
                ..Plan::default()
            },
            Plan {
                no_video: true,
                ..Plan::default()
            },
            Plan {
                sfu: SfuKind::Janus,
                simulcast: true,
                ..Plan::default()
            },
        ] {
            assert!(plan.check().is_err(), "{plan:?}");
        }
    }
}
