//! What leaves for one peer.

pub mod guard;
pub mod keys;
pub mod seal;
pub(crate) mod stock;
pub mod window;
