//! Hands each module the part of the configuration that it asks for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::keys::problem;
use super::read::Problem;
use super::sections::{Container, Driver, Steering};
use super::value::{Delay, Origin, Shards, Tcp, Upload, Whole};
use crate::engine::caps::{Cap, Caps};
use crate::engine::dtls::Identity;
use crate::engine::keyframe::Pacing;
use crate::engine::warnings::Thresholds;
use crate::id::ShardId;
use crate::record::Format;
use crate::record::after::{self, Composition};
use crate::record::compose::Wanted;
use crate::record::layout::Layout;
use crate::record::order::Mode;
use crate::record::upload::{S3, Target};
use crate::shard::{DriverChoice, SteeringChoice, TcpChoice};
use crate::signal::directory::RoomOptions;
use crate::signal::ice_servers::{IceServers, Turn};
use crate::signal::proxies::Proxies;
use crate::signal::{addresses, limits};
use crate::{call_log, engine, record, shard, signal, webhook};

/// Shortest secret of webhooks, in bytes: as long as what HMAC-SHA256 makes of it (RFC 2104 §3).
const SECRET_BYTES: usize = 32;

/// Where metrics are served unless it is said.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

impl Config {
    /// What the shards are told.
    #[must_use]
    pub fn shard_options(&self) -> shard::Options {
        let performance = &self.file.performance;
        shard::Options {
            udp: self.file.webrtc.udp.0,
            tcp: match self.file.webrtc.tcp {
                Tcp::Auto => TcpChoice::Auto,
                Tcp::Off => TcpChoice::Off,
                Tcp::At(address) => TcpChoice::At(address),
            },
            shards: match performance.worker_threads {
                Shards::Auto => None,
                Shards::Count(count) => Some(count),
            },
            driver: match performance.driver {
                Driver::Auto => DriverChoice::Auto,
                Driver::Glommio => DriverChoice::Glommio,
                Driver::Epoll => DriverChoice::Epoll,
            },
            steering: match performance.steering {
                Steering::Auto => SteeringChoice::Auto,
                Steering::Ebpf => SteeringChoice::Ebpf,
                Steering::Cbpf => SteeringChoice::Cbpf,
                Steering::None => SteeringChoice::None,
            },
            copies: None,
        }
    }

    /// What the engine of one of `shards` is told. `seed` is secret and this shard's alone.
    #[must_use]
    pub fn engine_options(
        &self,
        shard: ShardId,
        shards: u16,
        candidates: Arc<[SocketAddr]>,
        tcp_candidates: Arc<[SocketAddr]>,
        identity: Identity,
        seed: [u8; 32],
    ) -> engine::Options {
        engine::Options {
            shard,
            shards,
            candidates,
            tcp_candidates,
            identity,
            seed,
            max_video_slots: slots(self.file.rooms.max_video_slots),
            max_audio_slots: slots(self.file.rooms.max_audio_slots),
            caps: self.caps().shared_by(shards),
            thresholds: self.thresholds(),
            keyframes: self.keyframes(),
        }
    }

    /// When clients are told that their connection is bad.
    fn thresholds(&self) -> Thresholds {
        let warnings = &self.file.webrtc.warnings;
        Thresholds {
            loss_percent: warnings.packet_loss.value() as f32,
            jitter_ms: warnings.jitter.value() as f32,
            latency_ms: warnings.latency.value() as f32,
        }
    }

    /// How often publishers are asked for keyframes.
    fn keyframes(&self) -> Pacing {
        let interval = &self.file.webrtc.keyframe_interval;
        Pacing {
            high: milliseconds(interval.high),
            low: milliseconds(interval.low),
        }
    }

    /// How much media all shards together take in.
    fn caps(&self) -> Caps {
        let (webrtc, rooms) = (&self.file.webrtc, &self.file.rooms);
        let server = &self.file.performance;
        let cap = |bits, packets| Cap { bits, packets };
        Caps {
            peer: cap(webrtc.max_bitrate.value(), webrtc.max_packets.value()),
            room: cap(rooms.max_bitrate.value(), rooms.max_packets.value()),
            shard: cap(server.max_bitrate.value(), server.max_packets.value()),
        }
    }

    /// What the signalling thread is told.
    ///
    /// # Errors
    ///
    /// [`Problem`] names the first key or file that cannot be used.
    pub fn signal_options(&self) -> Result<signal::Options, Problem> {
        let rooms = &self.file.rooms;
        let origins = self.file.server.allowed_origins.iter().map(Origin::as_str);
        let rates = &self.file.security.rate_limit;
        let ice_servers = self.file.webrtc.ice_servers.iter().map(|server| {
            serde_json::to_value(server).expect("an ICE server is made of texts and lists")
        });
        Ok(signal::Options {
            access: self.access()?,
            tls: self.tls(),
            allowed_origins: origins.map(str::to_owned).collect(),
            proxies: self.proxies()?,
            listen: self.http(),
            ice_servers: IceServers {
                fixed: ice_servers.collect(),
                turn: self.turn(),
            },
            rooms: RoomOptions {
                max_rooms: count(rooms.max_rooms),
                max_participants: count(rooms.max_participants),
                auto_create: rooms.auto_create,
                idle_timeout: seconds(rooms.idle_timeout),
                per_address: addresses::Options {
                    enabled: rates.enabled,
                    max_rooms: count(rates.max_rooms_per_ip),
                    max_participants: count(rates.max_participants_per_ip),
                    max_sockets: count(rates.max_sockets_per_ip),
                    joins_per_second: rates.joins_per_second_per_ip.value(),
                },
            },
            limits: limits::Options {
                resume_timeout: seconds(rooms.resume_timeout),
                ..limits::Options::default()
            },
            record_all: self.file.recording.auto && self.file.recording.enabled,
            record_mode: Mode {
                layer: self.file.recording.layer,
                is_opaque: self.file.recording.opaque,
            },
            drain_timeout: seconds(self.file.server.drain_timeout),
            max_memory_bytes: self.file.performance.max_memory_total.value() << 20,
            caps: self.caps(),
            ..signal::Options::default()
        })
    }

    /// Where events are posted; `None` when nowhere.
    ///
    /// # Errors
    ///
    /// [`Problem`] names the first key that cannot be used.
    pub fn webhook_options(&self) -> Result<Option<webhook::Options>, Problem> {
        let webhooks = &self.file.webhooks;
        if webhooks.urls.is_empty() {
            return Ok(None);
        }
        let secret = webhooks.secret.reveal();
        if secret.len() < SECRET_BYTES {
            let what = format!(
                "a secret has {SECRET_BYTES} bytes or more, this one {}. \
                 `openssl rand -hex 32` makes one",
                secret.len()
            );
            return Err(problem("webhooks.secret", what));
        }
        let urls = webhooks.urls.iter().map(|url| webhook::parse_url(url));
        let urls = urls.collect::<Result<_, _>>();
        Ok(Some(webhook::Options {
            urls: urls.map_err(|what| problem("webhooks.urls", what))?,
            secret: secret.to_owned(),
            retries: u32::try_from(webhooks.retries.value()).expect("the type allows what fits"),
            queue: count(webhooks.queue),
        }))
    }

    /// Where calls are written down; `None` when nowhere. `auto` is a file in `state`, the
    /// directory that systemd made for us, and nowhere without one.
    ///
    /// # Errors
    ///
    /// [`Problem`] names the key that cannot be used.
    pub fn call_log_options(
        &self,
        state: Option<&str>,
    ) -> Result<Option<call_log::Options>, Problem> {
        let section = &self.file.call_log;
        let url = match (section.url.reveal(), state) {
            ("off", _) | ("auto", None) => return Ok(None),
            ("auto", Some(state)) => format!("sqlite:{state}/calls.sqlite"),
            (url, _) => url.to_owned(),
        };
        let address = call_log::Address::parse(&url);
        Ok(Some(call_log::Options {
            address: address.map_err(|what| problem("call_log.url", what))?,
            server: section.server.clone(),
            days: section.days.value(),
        }))
    }

    /// What the recorder is told; `None` where nothing may be recorded.
    ///
    /// # Errors
    ///
    /// [`Problem`] when the object store cannot be used as it is configured.
    pub fn record_options(&self) -> Result<Option<record::Options>, Problem> {
        let file = &self.file.recording;
        if !file.enabled {
            return Ok(None);
        }
        let retention = Duration::from_secs(file.retention.value() * 86_400);
        let composition = Composition {
            layout: file.compose_layout,
            name: match file.format {
                Container::Webm => "composed.webm",
                Container::Mp4 => "composed.mp4",
            },
            video_bps: file.video_bitrate.value(),
            audio_bps: file.audio_bitrate.value(),
        };
        Ok(Some(record::Options {
            path: file.path.clone().into(),
            template: file.path_template.clone(),
            format: match file.format {
                Container::Webm => Format::Webm,
                Container::Mp4 => Format::Mp4,
            },
            jitter: self.jitter(),
            min_free_bytes: file.min_free_space.value() << 20,
            retention: (!retention.is_zero()).then_some(retention),
            after: after::Options {
                compose: file.compose.then_some(composition),
                target: self.target()?,
                keeps_local: file.keep_local,
            },
        }))
    }

    /// How long a recording waits for missing packets.
    pub(super) fn jitter(&self) -> record::jitter::Options {
        let (file, media_path) = (&self.file.recording, &self.file.webrtc);
        let or = |own, other| match own {
            Delay::Auto => milliseconds(other),
            Delay::Milliseconds(number) => Duration::from_millis(number.into()),
        };
        record::jitter::Options {
            target: or(file.jitter_buffer_target, media_path.jitter_buffer_target),
            max: or(file.jitter_buffer_max, media_path.jitter_buffer_max),
        }
    }

    /// Where recordings are uploaded to.
    fn target(&self) -> Result<Option<Target>, Problem> {
        let file = &self.file.recording;
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let id = text(file.s3_access_key_id.reveal());
        let target = match &file.upload_to {
            Upload::Google(bucket) => Target::gcs(bucket),
            Upload::Azure(container) => Target::azure(container),
            Upload::Nowhere if file.s3_upload => Target::s3(&S3 {
                bucket: file.s3_bucket.clone(),
                region: file.s3_region.clone(),
                endpoint: text(&file.s3_endpoint),
                key: id.zip(text(file.s3_secret_access_key.reveal())),
            }),
            Upload::Nowhere => return Ok(None),
        };
        target.map(Some).map_err(|error| Problem {
            origin: "configuration".to_owned(),
            line: None,
            key: "recording".to_owned(),
            what: format!("recordings cannot be uploaded: {error}"),
        })
    }

    /// What is made of a recording.
    #[must_use]
    pub fn compose_options(&self, layout: Layout, out: PathBuf) -> Wanted {
        Wanted {
            layout,
            out,
            video_bps: self.file.recording.video_bitrate.value(),
            audio_bps: self.file.recording.audio_bitrate.value(),
            is_nice: false,
        }
    }

    /// Who may say where requests come from.
    ///
    /// # Errors
    ///
    /// [`Problem`] names the key that cannot be used.
    pub(super) fn proxies(&self) -> Result<Proxies, Problem> {
        let listed = self.file.server.trusted_proxies.iter();
        Proxies::parse(listed.map(String::as_str))
            .map_err(|what| problem("server.trusted_proxies", what))
    }

    /// Where metrics are served, and whether that is as it comes: then another process that has
    /// the port is no reason not to start.
    #[must_use]
    pub fn metrics(&self) -> Option<(SocketAddr, bool)> {
        match self.file.metrics.address {
            Tcp::Auto => Some((METRICS, true)),
            Tcp::Off => None,
            Tcp::At(address) => Some((address, false)),
        }
    }

    fn turn(&self) -> Option<Turn> {
        let turn = &self.file.webrtc.turn;
        (!turn.urls.is_empty()).then(|| Turn {
            urls: turn
                .urls
                .iter()
                .map(|url| url.as_str().to_owned())
                .collect(),
            secret: turn.secret.reveal().to_owned(),
            lifetime: seconds(turn.lifetime),
        })
    }

    /// Where the page and the WebSocket are.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        let port = self.file.server.port.value();
        let port = u16::try_from(port).expect("the type allows ports only");
        SocketAddr::new(self.file.server.host.0, port)
    }
}

fn count<const MIN: u64, const MAX: u64>(number: Whole<MIN, MAX>) -> usize {
    usize::try_from(number.value()).expect("the type allows what fits")
}

fn seconds<const MIN: u64, const MAX: u64>(number: Whole<MIN, MAX>) -> Duration {
    Duration::from_secs(number.value())
}

fn milliseconds<const MIN: u64, const MAX: u64>(number: Whole<MIN, MAX>) -> Duration {
    Duration::from_millis(number.value())
}

fn slots(number: Whole<0, 100>) -> u8 {
    u8::try_from(number.value()).expect("the type allows at most 100")
}

#[cfg(test)]
mod tests {
    use super::super::read::from_text;
    use super::*;

    #[test]
    fn every_module_is_told_what_the_file_says() {
        let text = "\
server: {host: 127.0.0.1, port: 81}
webrtc:
  udp: 127.0.0.1:82
  ice_servers: [{urls: [\"turn:t.example.org\"], username: u, credential: c}]
rooms: {max_rooms: 3, max_participants: 4, auto_create: false, max_video_slots: 5,
  max_audio_slots: 6}
performance: {worker_threads: 7, driver: epoll, steering: cbpf, max_bitrate: 700}
";
        let config = Config {
            file: from_text("w.yaml", text, &[]).unwrap(),
            ..Config::default()
        };
        let shard = config.shard_options();
        assert_eq!(shard.udp.to_string(), "127.0.0.1:82");
        assert_eq!(shard.shards, Some(7));
        assert_eq!(shard.driver, DriverChoice::Epoll);
        assert_eq!(shard.steering, SteeringChoice::Cbpf);

        let signal = config.signal_options().unwrap();
        assert_eq!(signal.listen.to_string(), "127.0.0.1:81");
        assert_eq!(signal.rooms.max_rooms, 3);
        assert_eq!(signal.rooms.max_participants, 4);
        assert!(!signal.rooms.auto_create);
        let expected = serde_json::json!(
            {"urls": ["turn:t.example.org"], "username": "u", "credential": "c"}
        );
        assert_eq!(signal.ice_servers.fixed, [expected]);
        assert_eq!(signal.ice_servers.turn, None);

        let identity = Identity::generate();
        let engine = config.engine_options(
            ShardId::new(1),
            7,
            Arc::new([shard.udp]),
            [].into(),
            identity,
            [0; 32],
        );
        assert_eq!((engine.max_video_slots, engine.max_audio_slots), (5, 6));
        assert_eq!(engine.caps.peer.bits, 20_000_000);
        assert_eq!((engine.caps.shard.bits, engine.caps.room), (100, Cap::NONE));
    }
}
