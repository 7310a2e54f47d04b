//! Virtual clock, lossy links, headless clients: whole rooms in one deterministic test.
