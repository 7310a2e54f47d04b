//! Send-side congestion control, a pure state machine.
