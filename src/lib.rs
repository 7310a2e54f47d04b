//! corelay: a thread-per-core WebRTC selective forwarding unit.
//!
//! Each pinned core is a [`shard`]: it owns a UDP socket, the rooms that were placed on it, and
//! every peer in them. A room never spans two shards, so the media path shares nothing.
//!
//! ```text
//!        UDP in (one SO_REUSEPORT socket per pinned core)                     UDP out
//!           │                                                                    ▲
//! shard   udp_in ─► turn (one turn: take in, decide, give out, sleep) ────────► udp_out
//!           │         │  handle_datagram, handle_command, handle_timeout          ▲
//!           │         ▼                                            poll_output    │
//! engine    └──► demux ─► ingress ─► router ─► subscription ─► egress ────────────┘
//!                 whose?   opened,    who wants  rewriter:       one peer's packets
//!                          placed     it?        one unbroken    side by side
//!                                       ▼        stream
//!                           room, track (who, what, which slot plays it)
//!
//! signal  websocket ─► session ─► Command ══ mailbox ══► engine     (one thread)
//!         websocket ◄─ session ◄─ Event   ══ mailbox ══◄ engine
//! ```
//!
//! # The way of a packet
//!
//! 1. [`shard`] receives a batch of datagrams, hands each to its [`engine`], and then asks what
//!    to send: a *turn*. Under eBPF the RTCP of known clients has a socket of its own, which is
//!    read in whatever turn comes and wakes nobody.
//! 2. `engine::intake` gives it to its owner, whom `engine::demux` finds: by address, or by the
//!    ufrag of a STUN request.
//! 3. [`engine::ingress`] opens an RTP packet into memory that an older one had, and finds out
//!    which layer of which m-line it is of.
//! 4. `engine::router` keeps it for resends and queues it with its track.
//! 5. When everything has been taken in, each subscriber is offered all its packets at once, and
//!    then given those that pass, while the memory of the next one is on its way to the caches.
//!    `engine::subscription` lets a packet pass, [`engine::rewriter`] gives it its place in one
//!    unbroken stream, [`engine::egress`] writes and seals it in the shard's arena.
//! 6. `engine::runs` gives out what lies side by side, and [`shard`] sends each run in one entry
//!    of one system call.
//!
//! str0m negotiates, and speaks STUN, DTLS and SCTP; `engine::peer` owns its state machine. All of
//! SRTP and SRTCP is ours: str0m is not even given the keys. What clients report is read by
//! `engine::feedback`; [`engine::bwe`] estimates from it what each viewer's path carries,
//! `engine::allocation` what of all that the viewer watches is sent for it, and `engine::pacing`
//! when it leaves: audio at once, video in bursts of some milliseconds, probes of the path at
//! exactly their rate.
//!
//! # Who decides, who acts, who talks
//!
//! * [`engine`] decides. It is given the time and bytes and returns values: no sockets, no
//!   clock, no threads. The same calls drive it in both drivers and in the simulator.
//! * [`shard`] acts: sockets, threads, time, steering.
//! * [`signal`] talks: HTTP and WebSocket on one thread. It sends
//!   [`Command`](engine::command::Command)s to the shard that owns the room and is told
//!   [`Event`](engine::command::Event)s.
//! * [`webhook`] and [`call_log`] are side jobs: each is told what happens by a bounded queue, and
//!   nobody waits for it.
//! * [`record`] writes rooms to files, on a thread of its own, from copies of their packets.
//! * [`doctor`] looks whether a machine is fit, [`log`] is where the log goes.
//! * [`metrics`] says what shards count in the words of Prometheus.
//! * [`mailbox`] holds the bounded queues between them; [`id`] the names they share.
//! * [`config`] reads the files in `config/` into each module's options; only the binary uses
//!   it.
//!
//! # Slots
//!
//! The client always offers and the server always answers. An m-line on which a client receives
//! is a *slot*: one SSRC and one stream for life. Which track plays in it changes by a message,
//! not by renegotiation; what leaves in it is one unbroken stream with a keyframe first after
//! every change.

mod backoff;
pub mod call_log;
pub mod config;
pub mod doctor;
pub mod engine;
pub mod id;
pub mod log;
pub mod mailbox;
pub mod metrics;
pub mod record;
pub mod shard;
pub mod signal;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tidy;
pub mod webhook;
