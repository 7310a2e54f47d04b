//! What leaves for one peer.

pub mod clock;
pub mod extension;
pub mod feedback;
#[cfg(test)]
pub(in crate::engine) mod fixture;
pub mod guard;
pub mod history;
mod interop;
pub mod keys;
#[cfg(test)]
pub(crate) mod ledger;
mod live;
pub mod packet;
pub mod patch;
pub mod reports;
pub mod rtx;
pub mod seal;
pub(crate) mod send_side;
mod statuses;
pub mod window;
