//! What leaves for one peer.
