//! corelay: a thread-per-core WebRTC selective forwarding unit.

pub mod engine;
pub mod id;
pub mod mailbox;
