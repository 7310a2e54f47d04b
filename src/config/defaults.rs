//! What each section of the configuration says until somebody says otherwise.

use super::sections::{
    CallLog, Container, Driver, KeyframeInterval, Log, LogFormat, Metrics, Performance, RateLimit,
    Recording, Rooms, Server, Steering, Tls, Turn, Warnings, Webhooks, Webrtc,
};
use super::value::{Announced, Delay, Endpoint, Host, Origin, Secret, Shards, Tcp, Upload, Whole};
use crate::record::layout::Layout;
use crate::record::order::Layer;
use crate::record::template::Template;

impl Default for Tls {
    fn default() -> Self {
        Self {
            cert: String::new(),
            key: String::new(),
            hsts: const { Whole::new(0) },
        }
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            secret: Secret::default(),
            lifetime: const { Whole::new(86_400) },
        }
    }
}

impl Default for CallLog {
    fn default() -> Self {
        Self {
            url: Secret::new("auto"),
            server: "corelay".to_owned(),
            days: const { Whole::new(90) },
        }
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            secret: Secret::default(),
            retries: const { Whole::new(8) },
            queue: const { Whole::new(1_000) },
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: Host(std::net::Ipv4Addr::UNSPECIFIED.into()),
            port: const { Whole::new(8080) },
            allowed_origins: vec![Origin::any()],
            trusted_proxies: Vec::new(),
            tls: Tls::default(),
            drain_timeout: const { Whole::new(300) },
        }
    }
}

impl Default for Warnings {
    fn default() -> Self {
        Self {
            packet_loss: const { Whole::new(10) },
            jitter: const { Whole::new(100) },
            latency: const { Whole::new(400) },
        }
    }
}

impl Default for KeyframeInterval {
    fn default() -> Self {
        Self {
            high: const { Whole::new(500) },
            low: const { Whole::new(1_000) },
        }
    }
}

impl Default for Webrtc {
    fn default() -> Self {
        Self {
            udp: Endpoint((std::net::Ipv6Addr::UNSPECIFIED, 10_000).into()),
            tcp: Tcp::Auto,
            announced_ip: Announced::Auto,
            ice_servers: Vec::new(),
            turn: Turn::default(),
            max_bitrate: const { Whole::new(20_000_000) },
            max_packets: const { Whole::new(0) },
            min_bitrate: const { Whole::new(100_000) },
            warnings: Warnings::default(),
            keyframe_interval: KeyframeInterval::default(),
            simulcast: true,
            jitter_buffer_target: const { Whole::new(200) },
            jitter_buffer_max: const { Whole::new(1_000) },
            dtx: false,
            fec: true,
            nack: true,
        }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            max_rooms: const { Whole::new(1_000) },
            max_participants: const { Whole::new(100) },
            auto_create: true,
            idle_timeout: const { Whole::new(3_600) },
            resume_timeout: const { Whole::new(30) },
            max_video_slots: const { Whole::new(9) },
            max_audio_slots: const { Whole::new(3) },
            max_bitrate: const { Whole::new(0) },
            max_packets: const { Whole::new(0) },
        }
    }
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            enabled: false,
            path: "recordings".to_owned(),
            format: Container::Webm,
            layer: Layer::Best,
            opaque: false,
            video_bitrate: const { Whole::new(2_500_000) },
            audio_bitrate: const { Whole::new(128_000) },
            auto: false,
            path_template: Template::default(),
            jitter_buffer_target: Delay::Auto,
            jitter_buffer_max: Delay::Auto,
            min_free_space: const { Whole::new(1_024) },
            retention: const { Whole::new(0) },
            compose: false,
            compose_layout: Layout::Grid,
            upload_to: Upload::Nowhere,
            keep_local: false,
            s3_upload: false,
            s3_bucket: "recordings".to_owned(),
            s3_region: "us-east-1".to_owned(),
            s3_endpoint: String::new(),
            s3_access_key_id: Secret::default(),
            s3_secret_access_key: Secret::default(),
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            enabled: false,
            max_rooms_per_ip: const { Whole::new(10) },
            max_participants_per_ip: const { Whole::new(50) },
            max_sockets_per_ip: const { Whole::new(100) },
            joins_per_second_per_ip: const { Whole::new(10) },
        }
    }
}

impl Default for Performance {
    fn default() -> Self {
        Self {
            worker_threads: Shards::Auto,
            driver: Driver::Auto,
            steering: Steering::Auto,
            max_bitrate: const { Whole::new(0) },
            max_packets: const { Whole::new(0) },
            max_cpu_per_room: const { Whole::new(100) },
            hardware_acceleration: false,
            max_memory_per_room: const { Whole::new(1_024) },
            max_memory_total: const { Whole::new(8_192) },
            garbage_collection_interval: const { Whole::new(60) },
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { address: Tcp::Auto }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
            otlp: String::new(),
        }
    }
}
