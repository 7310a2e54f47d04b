//! Merges and paces keyframe requests to a publisher.
