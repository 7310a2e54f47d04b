//! Feedback from a viewer that means harm, or is broken.
