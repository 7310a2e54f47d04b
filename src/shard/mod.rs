//! Acts, per core: sockets, threads, time.
