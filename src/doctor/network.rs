//! Ports and the address that clients are told.

use std::net::TcpListener;

use super::Finding;
use crate::config::Config;
use crate::config::reach::{self, Reach};
use crate::shard::probe;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let udp = config.file.webrtc.udp.0;
    let media = match probe::udp(udp) {
        Ok(()) => Finding::good("UDP port", format!("{udp} is free")),
        Err(error) => Finding::bad("UDP port", error.to_string(), "see there"),
    };
    let http = config.http();
    let page = match TcpListener::bind(http) {
        Ok(_) => Finding::good("HTTP port", format!("{http} is free")),
        Err(error) => Finding::bad(
            "HTTP port",
            format!("{http}: {error}"),
            format!(
                "stop who has it (`ss -ltnp 'sport = :{}'`), or --http",
                http.port()
            ),
        ),
    };
    vec![media, page, announced(config)]
}

fn announced(config: &Config) -> Finding {
    let about = "announced address";
    let candidates = reach::candidates(&config.file.webrtc.announced_ip, config.file.webrtc.udp.0);
    let told: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    let told = format!("clients are told {}", told.join(", "));
    let fix = "set webrtc.announced_ip to the address under which clients reach this machine";
    match reach::widest(&candidates) {
        Reach::Internet => Finding::good(about, told),
        Reach::Network => Finding::poor(
            about,
            format!("{told}: only this network reaches that"),
            fix,
        ),
        Reach::Machine => Finding::poor(
            about,
            format!("{told}: only this machine reaches that"),
            fix,
        ),
    }
}
