//! What an engine counts, each with its name and what it means.

use crate::engine::stats::Stats;

/// Name, meaning, and where it is.
pub(super) type Entry = (&'static str, &'static str, fn(&Stats) -> u64);

/// What is there now.
pub(super) const GAUGES: [Entry; 7] = [
    ("corelay_rooms", "Rooms with media.", |s| s.rooms),
    ("corelay_peers", "Peers in rooms.", |s| s.peers),
    ("corelay_audio_tracks", "Published audio tracks.", |s| {
        s.audio_tracks
    }),
    ("corelay_video_tracks", "Published video tracks.", |s| {
        s.video_tracks
    }),
    (
        "corelay_subscriptions",
        "Pairs of a peer and a track that it watches.",
        |s| s.subscriptions,
    ),
    (
        "corelay_addresses",
        "Remote addresses known to belong to a peer.",
        |s| s.addresses,
    ),
    (
        "corelay_estimated_bytes_per_second",
        "What the paths to all viewers carry, as estimated.",
        |s| s.estimated_bps / 8,
    ),
];

/// What only grows.
pub(super) const COUNTERS: [Entry; 19] = [
    (
        "corelay_connected",
        "Peers whose ICE and DTLS came up.",
        |s| s.connected,
    ),
    ("corelay_datagrams_received", "Datagrams taken in.", |s| {
        s.datagrams_in
    }),
    ("corelay_bytes_received", "Bytes taken in.", |s| s.bytes_in),
    ("corelay_datagrams_sent", "Datagrams given out.", |s| {
        s.datagrams_out
    }),
    ("corelay_bytes_sent", "Bytes given out.", |s| s.bytes_out),
    (
        "corelay_rtp_received",
        "RTP packets from publishers.",
        |s| s.rtp_in,
    ),
    (
        "corelay_rtp_forwarded",
        "RTP packets to viewers, resends aside.",
        |s| s.forwarded,
    ),
    ("corelay_rtx", "RTP packets sent again (RFC 4588).", |s| {
        s.resent
    }),
    (
        "corelay_rtp_paced",
        "RTP packets that waited for a viewer's pacer.",
        |s| s.paced,
    ),
    (
        "corelay_rtp_padding",
        "RTP packets of padding, sent to probe a path.",
        |s| s.padding,
    ),
    (
        "corelay_data_received",
        "Data channel messages taken in.",
        |s| s.data_in,
    ),
    (
        "corelay_data_sent",
        "Data channel messages given out.",
        |s| s.data_out,
    ),
    (
        "corelay_data_lost",
        "Data channel messages lost to slow readers.",
        |s| s.data_lost,
    ),
    (
        "corelay_data_refused",
        "Data channel messages of those who may not.",
        |s| s.data_refused,
    ),
    (
        "corelay_keyframe_requests",
        "Keyframe requests to publishers.",
        |s| s.keyframe_requests,
    ),
    (
        "corelay_reception_reports",
        "Reception reports of viewers.",
        |s| s.reports,
    ),
    (
        "corelay_guarded",
        "Datagrams the guard stopped: our bug.",
        |s| s.guarded,
    ),
    (
        "corelay_peer_panics",
        "Panics caught around one peer: our bug.",
        |s| s.peer_panics,
    ),
    (
        "corelay_dropped_all",
        "Datagrams and packets dropped, for whatever reason.",
        |s| {
            let reasons = crate::engine::stats::Dropped::ALL;
            reasons.iter().map(|reason| s.dropped.count(*reason)).sum()
        },
    ),
];
