//! The command line. What stands here outranks the environment, which outranks the files.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Config;
use super::sections::{Driver, LogFormat, Steering};
use super::value::{Endpoint, Host, Shards, Tcp, Whole};
use crate::id::RoomId;
use crate::record::layout::Layout;
use crate::signal::token::{Claims, VideoGrant};

const EXAMPLES: &str = "\
Examples:
  corelay                                      built-in defaults; open http://localhost:8080
  corelay --config config/webrtc.yaml          options from a file
  corelay --http 127.0.0.1:8443 --shards 2     two shards, page only on this machine
  corelay check-config --config my.yaml        what is wrong with my.yaml?
  corelay doctor                               is this machine fit for it?
  corelay token --room r --identity ada        a token for Ada, to join room r

Every option of config/webrtc.yaml and config/media.yaml can be set in the environment too:
rooms.max_participants is CORELAY_ROOMS_MAX_PARTICIPANTS. CORELAY_CONFIG and CORELAY_MEDIA name
the files, RUST_LOG is --log. A flag outranks the environment, the environment a file.

Exit codes: 0 ended as asked, 1 could not start or had to stop, 2 wrong usage or configuration.";

/// A WebRTC selective forwarding unit: rooms in which everyone sees and hears everyone.
#[derive(Debug, Parser)]
#[command(name = "corelay", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct CommandLine {
    /// What to do; `serve` when left out.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// What outranks environment and files.
    #[command(flatten)]
    pub flags: Flags,
}

/// What the program is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// Run the server (this is what happens without a command)
    Serve,
    /// Read the whole configuration, say what is wrong with it or what would run, and end
    CheckConfig,
    /// Look whether machine and configuration are fit, and say what to do where not
    Doctor,
    /// Mint a token for a participant, signed with the first shared secret there is
    Token(TokenRequest),
    /// Print the man page
    #[command(hide = true)]
    Man,
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Finish or compose what was recorded
    Record {
        /// What is done with a recording.
        #[command(subcommand)]
        action: RecordAction,
    },
}

/// What is done with a recording that is there.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum RecordAction {
    /// Finish the files of a recording whose server was killed, so that they can be searched in
    Repair {
        /// The recording's directory, with its recording.json
        #[arg(value_name = "RECORDING")]
        directory: PathBuf,
    },
    /// Make one file of all tracks of a recording, by ffmpeg
    Compose {
        /// The recording's directory, with its recording.json
        #[arg(value_name = "RECORDING")]
        directory: PathBuf,
        /// How the pictures are laid out
        #[arg(long, value_enum, default_value_t)]
        layout: Layout,
        /// The file that is made; its name ends in .webm or .mp4
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// What a token that is to be minted says.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct TokenRequest {
    /// The room it is for
    #[arg(long, value_name = "NAME", value_parser = room)]
    pub room: RoomId,
    /// Who shows it; a room has one participant of an identity at a time
    #[arg(long, value_name = "ID")]
    pub identity: String,
    /// What to call the participant
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How long it holds, in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 360)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=5_256_000))]
    pub minutes: u32,
    /// May not publish anything
    #[arg(long)]
    pub no_publish: bool,
    /// May not watch or hear anyone
    #[arg(long)]
    pub no_subscribe: bool,
    /// The others do not learn of this participant, which may not publish
    #[arg(long)]
    pub hidden: bool,
    /// May use the API: remove and mute participants of the room; make, list and delete rooms
    #[arg(long)]
    pub admin: bool,
}

impl TokenRequest {
    /// The claims of the token, minted at `now` in seconds since 1970.
    #[must_use]
    pub fn claims(&self, now: u64) -> Claims {
        let publish = (self.no_publish || self.hidden).then_some(false);
        Claims {
            sub: Some(self.identity.clone()),
            name: self.name.clone(),
            exp: (now + u64::from(self.minutes) * 60) as f64,
            video: VideoGrant {
                room_join: true,
                room: self.room.to_string(),
                can_publish: publish,
                can_subscribe: self.no_subscribe.then_some(false),
                hidden: self.hidden,
                room_admin: self.admin,
                room_create: self.admin,
                room_list: self.admin,
                room_record: self.admin,
                ..VideoGrant::default()
            },
            ..Claims::default()
        }
    }
}

fn room(name: &str) -> Result<RoomId, String> {
    RoomId::parse(name).map_err(|e| e.to_string())
}

/// The flags of every action.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// Server options, as in config/webrtc.yaml [default: built in]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CORELAY_CONFIG",
        hide_env = true
    )]
    pub config: Option<PathBuf>,
    /// Picture and sound options, as in config/media.yaml [default: built in]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CORELAY_MEDIA",
        hide_env = true
    )]
    pub media: Option<PathBuf>,
    /// Where the page and the WebSocket are [default: 0.0.0.0:8080]
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    pub http: Option<Endpoint>,
    /// Where all media goes
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    #[arg(help = "Where all media goes [default: [::]:10000]")]
    pub udp: Option<Endpoint>,
    /// Where Prometheus reads the counters, or `off` [default: 127.0.0.1:9090]
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    pub metrics: Option<Tcp>,
    /// Media threads, each on its own core: a number or `auto` [default: auto]
    #[arg(long, global = true, value_name = "N")]
    pub shards: Option<Shards>,
    /// What a shard waits with: auto, glommio or epoll [default: auto]
    #[arg(
        long,
        global = true,
        value_name = "HOW",
        value_enum,
        hide_possible_values = true
    )]
    pub driver: Option<Driver>,
    /// How packets find a shard: auto, ebpf, cbpf or none [default: auto]
    #[arg(
        long,
        global = true,
        value_name = "HOW",
        value_enum,
        hide_possible_values = true
    )]
    pub steering: Option<Steering>,
    /// What is logged: error, warn, info, debug or trace [default: info]
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "RUST_LOG",
        hide_env = true
    )]
    pub log: Option<String>,
    /// How it is logged: auto, human, json or journald [default: auto]
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true
    )]
    pub log_format: Option<LogFormat>,
}

impl Flags {
    /// Puts the flags that were given in place of what the files and the environment said.
    pub fn apply(&self, config: &mut Config) {
        let file = &mut config.file;
        if let Some(Endpoint(address)) = self.http {
            file.server.host = Host(address.ip());
            file.server.port = port(address);
        }
        if let Some(endpoint) = self.udp {
            file.webrtc.udp = endpoint;
        }
        if let Some(address) = self.metrics {
            file.metrics.address = address;
        }
        if let Some(level) = &self.log {
            file.log.level.clone_from(level);
        }
        if let Some(format) = self.log_format {
            file.log.format = format;
        }
        if let Some(shards) = self.shards {
            file.performance.worker_threads = shards;
        }
        if let Some(driver) = self.driver {
            file.performance.driver = driver;
        }
        if let Some(steering) = self.steering {
            file.performance.steering = steering;
        }
    }
}

fn port(address: SocketAddr) -> Whole<0, 65_535> {
    Whole::new(u64::from(address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split(' '))
    }

    #[test]
    fn a_flag_stands_before_or_after_the_action() {
        for line in [
            "corelay --http 127.0.0.1:9 --udp [::1]:7 --shards 2 --driver epoll --steering cbpf",
            "corelay serve --http 127.0.0.1:9 --udp [::1]:7 --shards 2 --driver epoll \
             --steering cbpf",
            "corelay --http 127.0.0.1:9 --udp [::1]:7 serve --shards 2 --driver epoll \
             --steering cbpf",
        ] {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut config = Config::default();
            parse(&line).unwrap().flags.apply(&mut config);
            let file = config.file;
            assert_eq!(file.server.host.0.to_string(), "127.0.0.1");
            assert_eq!(file.server.port.value(), 9);
            assert_eq!(file.webrtc.udp.0.to_string(), "[::1]:7");
            assert_eq!(file.performance.worker_threads, Shards::Count(2));
            assert_eq!(file.performance.driver, Driver::Epoll);
            assert_eq!(file.performance.steering, Steering::Cbpf);
        }
    }

    #[test]
    fn an_impossible_flag_is_wrong_usage() {
        for line in [
            "corelay --http 8080",
            "corelay --shards 0",
            "corelay token --room r",
            "corelay token --room a/b --identity ada",
            "corelay --driver kqueue",
            "corelay run",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_help_fits_a_terminal_and_names_every_flag() {
        use clap::CommandFactory as _;
        let help = CommandLine::command().render_help().to_string();
        for flag in [
            "--config",
            "--media",
            "--http",
            "--udp",
            "--metrics",
            "--shards",
        ] {
            assert!(help.contains(flag), "{flag}");
        }
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
