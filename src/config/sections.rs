//! The sections of `config/webrtc.yaml`, with their defaults.

use serde::{Deserialize, Serialize};

use super::value::{
    Announced, Delay, Endpoint, HeaderField, Host, IceUrl, Origin, Secret, Shards, Tcp, Upload,
    Whole,
};
use crate::record::layout::Layout;
use crate::record::order::Layer;
use crate::record::template::Template;

/// A bit rate, in bit/s.
pub type BitsPerSecond = Whole<10_000, 1_000_000_000>;
/// A bit rate, in bit/s; 0 for any.
pub type AnyBitsPerSecond = Whole<0, 1_000_000_000_000>;
/// A rate of packets, per second; 0 for any.
pub type PacketsPerSecond = Whole<0, 1_000_000_000>;
/// A length of time, in milliseconds.
pub type Milliseconds = Whole<0, 60_000>;
/// A length of time, in seconds, up to a week.
pub type Seconds = Whole<0, 604_800>;

/// All of `config/webrtc.yaml`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebrtcFile {
    /// Where signalling listens.
    pub server: Server,
    /// How media reaches this server.
    pub webrtc: Webrtc,
    /// What rooms may hold.
    pub rooms: Rooms,
    /// What is written to disk.
    pub recording: Recording,
    /// Who may do what, and how much.
    pub security: Security,
    /// What the process may use.
    pub performance: Performance,
    /// Where counters are read.
    pub metrics: Metrics,
    /// Where events are posted.
    pub webhooks: Webhooks,
    /// Where calls are written down.
    pub call_log: CallLog,
    /// What is told to whom about what happens.
    pub log: Log,
}

/// Section `server`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address of the page, the WebSocket and `/health`.
    pub host: Host,
    /// Their TCP port.
    pub port: Whole<0, 65_535>,
    /// Pages of which origins may use them.
    pub allowed_origins: Vec<Origin>,
    /// Who may say where requests come from.
    pub trusted_proxies: Vec<String>,
    /// HTTPS instead of HTTP.
    pub tls: Tls,
    /// How long calls go on when the server is asked to end, in seconds.
    pub drain_timeout: Whole<0, 86_400>,
}

/// Section `server.tls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The file of the certificate; empty for HTTP.
    pub cert: String,
    /// The file of its key.
    pub key: String,
    /// How long browsers stay with HTTPS, in seconds.
    pub hsts: Whole<0, 100_000_000>,
}

/// Section `webrtc`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webrtc {
    /// Address and port of all media.
    pub udp: Endpoint,
    /// Address and port of ICE-TCP.
    pub tcp: Tcp,
    /// The address clients are told.
    pub announced_ip: Announced,
    /// STUN and TURN servers given to clients.
    pub ice_servers: Vec<IceServer>,
    /// A TURN server that clients get credentials of their own for.
    pub turn: Turn,
    /// Most a client may send, in bit/s.
    pub max_bitrate: BitsPerSecond,
    /// Most packets a client may send, per second.
    pub max_packets: PacketsPerSecond,
    /// Least a client is asked to send, in bit/s.
    pub min_bitrate: BitsPerSecond,
    /// From where on a client is told that its connection is bad.
    pub warnings: Warnings,
    /// How often a client is asked for a keyframe at most.
    pub keyframe_interval: KeyframeInterval,
    /// Whether clients send several qualities of a picture.
    pub simulcast: bool,
    /// Delay a recording's jitter buffer aims at, in milliseconds.
    pub jitter_buffer_target: Milliseconds,
    /// Delay it never exceeds, in milliseconds.
    pub jitter_buffer_max: Milliseconds,
    /// Whether clients stop sending Opus in silence.
    pub dtx: bool,
    /// Whether Opus carries in-band forward error correction.
    pub fec: bool,
    /// Whether lost packets are asked for again.
    pub nack: bool,
}

/// Section `webrtc.warnings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Warnings {
    /// Per cent of packets lost.
    pub packet_loss: Whole<1, 100>,
    /// Milliseconds.
    pub jitter: Milliseconds,
    /// Milliseconds.
    pub latency: Milliseconds,
}

/// Section `webrtc.keyframe_interval`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyframeInterval {
    /// Of the largest layer of a video, or its only one, in milliseconds.
    pub high: Whole<100, 60_000>,
    /// Of the others, in milliseconds.
    pub low: Whole<100, 60_000>,
}

/// One entry of `webrtc.ice_servers`, as in the browser's `RTCIceServer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// Its addresses.
    pub urls: Vec<IceUrl>,
    /// Its user name, for TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password, for TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// Section `webrtc.turn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Turn {
    /// Its addresses.
    pub urls: Vec<IceUrl>,
    /// The secret it shares with us.
    pub secret: Secret,
    /// How long credentials hold, in seconds.
    pub lifetime: Seconds,
}

/// Section `rooms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rooms {
    /// Rooms at one time.
    pub max_rooms: Whole<1, 1_000_000>,
    /// Participants in one room.
    pub max_participants: Whole<1, 10_000>,
    /// Whether the first join makes a room.
    pub auto_create: bool,
    /// How long an empty room is kept, in seconds.
    pub idle_timeout: Seconds,
    /// How long a participant that lost its WebSocket may take to come back, in seconds.
    pub resume_timeout: Whole<0, 3_600>,
    /// Video m-lines a client is asked to receive on.
    pub max_video_slots: Whole<0, 100>,
    /// Audio m-lines a client is asked to receive on.
    pub max_audio_slots: Whole<0, 100>,
    /// Most that all of a room may send, in bit/s.
    pub max_bitrate: AnyBitsPerSecond,
    /// Most packets that all of a room may send, per second.
    pub max_packets: PacketsPerSecond,
}

/// Section `recording`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recording {
    /// Whether rooms may be recorded.
    pub enabled: bool,
    /// The directory of the recordings.
    pub path: String,
    /// The container.
    pub format: Container,
    /// Which layer of a video in several sizes.
    pub layer: Layer,
    /// Whether frames that clients encrypt end to end are recorded as they are.
    pub opaque: bool,
    /// Video bit rate, in bit/s.
    pub video_bitrate: BitsPerSecond,
    /// Audio bit rate, in bit/s.
    pub audio_bitrate: Whole<6_000, 510_000>,
    /// Whether every room is recorded from its beginning.
    pub auto: bool,
    /// Where in `path` each recording has its directory.
    pub path_template: Template,
    /// Delay that the jitter buffer aims at; `auto` for [`Webrtc::jitter_buffer_target`].
    pub jitter_buffer_target: Delay,
    /// Delay that it never exceeds; `auto` for [`Webrtc::jitter_buffer_max`].
    pub jitter_buffer_max: Delay,
    /// Free space of the disk below which nothing is recorded, in MiB.
    pub min_free_space: Whole<0, 1_000_000_000>,
    /// How long recordings are kept, in days; 0 for ever.
    pub retention: Whole<0, 36_500>,
    /// Whether one file is made of each recording that has ended.
    pub compose: bool,
    /// How the pictures of that file are laid out.
    pub compose_layout: Layout,
    /// Where finished files go, besides S3.
    pub upload_to: Upload,
    /// Whether local media are kept after they were uploaded.
    pub keep_local: bool,
    /// Whether finished files go to S3.
    pub s3_upload: bool,
    /// The bucket.
    pub s3_bucket: String,
    /// Its region.
    pub s3_region: String,
    /// Where the service is, when it is not Amazon's.
    pub s3_endpoint: String,
    /// Who uploads.
    pub s3_access_key_id: Secret,
    /// The secret of that.
    pub s3_secret_access_key: Secret,
}

/// Container of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// Matroska's subset for the web.
    #[default]
    Webm,
    /// MPEG-4 part 14.
    Mp4,
}

/// Section `security`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Whether joining needs a token.
    pub require_auth: bool,
    /// The HTTP header a token may come in.
    pub auth_token_header: HeaderField,
    /// The shared secret of tokens that name no key.
    pub token_secret: Secret,
    /// More keys of tokens.
    pub token_keys: Vec<TokenKey>,
    /// Limits for one client address.
    pub rate_limit: RateLimit,
}

/// One entry of `security.token_keys`: a secret, or a file with a public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// What tokens call it, in `kid` or `iss`.
    pub id: String,
    /// A shared secret, for HS256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file with a public key in PEM, for RS256 or EdDSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// Section `security.rate_limit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// Whether the limits hold.
    pub enabled: bool,
    /// Rooms one address may make.
    pub max_rooms_per_ip: Whole<1, 1_000_000>,
    /// Participants one address may bring.
    pub max_participants_per_ip: Whole<1, 1_000_000>,
    /// WebSockets one address may have open.
    pub max_sockets_per_ip: Whole<1, 1_000_000>,
    /// Joins per second from one address.
    pub joins_per_second_per_ip: Whole<1, 1_000_000>,
}

/// Section `performance`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Performance {
    /// Shards: threads that forward media, each pinned to a core.
    pub worker_threads: Shards,
    /// What a shard waits with.
    pub driver: Driver,
    /// How the kernel picks a shard for a datagram.
    pub steering: Steering,
    /// Most that all clients may send, in bit/s.
    pub max_bitrate: AnyBitsPerSecond,
    /// Most packets that all clients may send, per second.
    pub max_packets: PacketsPerSecond,
    /// Share of one core a room may use, in percent.
    pub max_cpu_per_room: Whole<1, 100>,
    /// Whether a recording is transcoded by hardware where there is some.
    pub hardware_acceleration: bool,
    /// Memory of one room, in MiB.
    pub max_memory_per_room: Whole<1, 1_048_576>,
    /// Memory of the process, in MiB.
    pub max_memory_total: Whole<64, 16_777_216>,
    /// Seconds between two sweeps for what nobody uses.
    pub garbage_collection_interval: Whole<1, 3_600>,
}

/// What a shard waits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// glommio where the kernel allows `io_uring`, else epoll.
    #[default]
    Auto,
    /// `io_uring`, through glommio.
    Glommio,
    /// epoll.
    Epoll,
}

/// How the kernel picks a shard for a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Steering {
    /// The best the kernel allows.
    #[default]
    Auto,
    /// A program that learns flows; needs `CAP_BPF`.
    Ebpf,
    /// A filter on the STUN user name; needs no privilege.
    Cbpf,
    /// By hash; shards hand over what is not theirs.
    None,
}

/// Section `metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address and port of `/metrics`.
    pub address: Tcp,
}

/// Section `log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least that is told, or directives of `tracing_subscriber::EnvFilter`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Where traces of joins are sent, by OTLP over HTTP; empty for nowhere.
    pub otlp: String,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Fields of the journal where systemd reads the log, else lines for people.
    #[default]
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
    /// Fields of the journal.
    Journald,
}

/// Section `webhooks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhooks {
    /// The addresses.
    pub urls: Vec<String>,
    /// What the signatures are made with.
    pub secret: Secret,
    /// Attempts after the first.
    pub retries: Whole<0, 100>,
    /// Events that wait for one address.
    pub queue: Whole<1, 1_000_000>,
}

/// Section `call_log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallLog {
    /// `auto`, `off`, or the database.
    pub url: Secret,
    /// What this server is called there.
    pub server: String,
    /// Days for which a call is kept.
    pub days: Whole<0, 36_500>,
}
