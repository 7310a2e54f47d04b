//! corelay: a thread-per-core WebRTC selective forwarding unit.

pub mod config;
pub mod engine;
pub mod id;
pub mod mailbox;
pub mod shard;
pub mod signal;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tidy;
