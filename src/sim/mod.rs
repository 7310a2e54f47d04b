//! Virtual clock, lossy links, headless clients: whole rooms in one deterministic test.
//!
//! A [`world::World`] drives real [`crate::engine::Engine`]s through exactly the calls a shard
//! makes, and [`client::Client`]s, which are full str0m peers with a synthetic
//! [`encoder::Encoder`] each, over [`link::Link`]s that lose and delay. [`oracle`] says what must
//! hold of what arrived.
//!
//! # Determinism
//!
//! Everything random starts at one seed: the world's and the links' own generators, the engine's
//! (`Options::seed`), and str0m's, which draws ids, SSRCs and transaction ids from the thread-local
//! `fastrand` that [`world::World::new`] seeds. Time is virtual. Two things cannot be seeded:
//!
//! * The randomness of the cryptography under DTLS. Keys and nonces do not show in lengths, but
//!   ECDSA signatures vary by a byte or two and handshake timers jitter. So DTLS datagrams have
//!   length zero in a trace, and pass every link unharmed: the handshake never waits for a timer.
//! * The order of str0m's hash maps, hence the order in which streams leave a peer at one instant.
//!   So a world sorts what leaves at one instant by address and SSRC. Transport-wide sequence
//!   numbers are given out before that, so how well feedback about losses compresses still varies
//!   by a few bytes: RTCP has length zero in a trace too.
//!
//! With that, two runs of a seed leave the same [`trace`].

mod account;
mod calls;
mod client;
pub(crate) mod clock;
mod decoder;
mod delivery;
mod encoder;
mod identity;
pub(crate) mod layered;
mod link;
mod oracle;
mod publish;
mod received;
mod scenarios;
mod sender;
mod trace;
mod world;
