//! Hands each module the part of the configuration that it asks for.

use std::net::SocketAddr;

use super::Config;
use super::value::Shards;

impl Config {
    /// Where the page and the WebSocket are.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        let port = self.file.server.port.value();
        let port = u16::try_from(port).expect("the type allows ports only");
        SocketAddr::new(self.file.server.host.0, port)
    }

    /// How many shards to run on a machine that offers `cores`.
    #[must_use]
    pub fn shards(&self, cores: u16) -> u16 {
        match self.file.performance.worker_threads {
            Shards::Auto => cores.clamp(1, Shards::MAX),
            Shards::Count(count) => count,
        }
    }
}
