//! What leaves for one peer.

pub mod clock;
pub mod extension;
#[cfg(test)]
mod fixture;
pub mod guard;
pub mod keys;
pub mod packet;
pub mod seal;
pub(crate) mod stock;
pub mod window;
