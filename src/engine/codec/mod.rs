//! Facts about one payload: is it a keyframe, which layer is it. No state.
