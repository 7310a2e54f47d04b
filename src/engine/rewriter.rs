//! One unbroken stream: sequence, timestamp, VP8 picture id.
