//! Talks: HTTP and WebSocket, on one thread.
