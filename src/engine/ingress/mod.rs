//! What comes in from publishers: every packet is opened, placed and accounted for here, and not
//! by str0m, whose way takes several times the instructions and two allocations a packet.

pub mod arrivals;
pub mod gaps;
pub mod header;
pub mod payload;
pub(crate) mod receive_side;
pub mod reception;
pub mod report;
