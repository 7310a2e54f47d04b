//! The generator against the real server, both as they are started by hand.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A server on ports that the system chose.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(binary())
            .args(["--http", "127.0.0.1:0", "--udp", "127.0.0.1:0"])
            .args(["--shards", "1", "--log", "error"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("`cargo test --workspace` builds the server");
        let said = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut lines = said.lines().map_while(Result::ok);
        let open = lines.find(|line| line.contains("http://localhost:"));
        let open = open.expect("the server greets before it ends");
        let (_, port) = open.rsplit_once(':').expect("it names a port");
        let url = format!("ws://127.0.0.1:{}/ws", port.trim());
        Self { process, url }
    }

    /// Runs the generator against it, and returns its result.
    fn load(&self, arguments: &[&str]) -> Value {
        let pid = self.process.id().to_string();
        let run = Command::new(env!("CARGO_BIN_EXE_corelay-load"))
            .args(["--url", &self.url, "--server-pid", &pid, "--json"])
            .args(["--warmup", "1", "--duration", "1"])
            .args(arguments)
            .output()
            .expect("the generator starts");
        assert!(run.status.success(), "{run:?}");
        serde_json::from_slice(&run.stdout).expect("one object")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's binary, beside the generator's.
fn binary() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_corelay-load"));
    own.with_file_name("corelay")
}

#[test]
fn a_run_says_what_came_and_what_it_cost_and_leaves_nothing_behind() {
    let server = Server::start();
    let result = server.load(&["--publishers", "2", "--subscribers", "3", "--audio"]);
    let number = |key: &str| {
        result[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key}: {result}"))
    };
    assert!(number("delivered") > 100.0, "{result}");
    assert!(number("expected") >= number("delivered"), "{result}");
    assert_eq!(number("strays"), 0.0);
    assert!(number("cpu_ns_per_packet") > 0.0 && number("generator_cpu_pct") > 0.0);
    assert!(number("rss_bytes") > 1e6 && number("packets_per_second") > 0.0);
    assert!(number("longest_gap_ms") > 0.0 && number("delivery_ratio") > 0.0);
    for quantile in ["p50", "p95", "p99", "p999", "max"] {
        assert!(result["delay_us"][quantile].as_f64().unwrap() > 0.0);
    }
    assert_eq!(result["left_behind"], serde_json::json!({}), "{result}");
}

#[test]
fn a_meeting_in_three_qualities_reaches_everyone() {
    let server = Server::start();
    let result = server.load(&[
        "--publishers",
        "3",
        "--subscribers",
        "0",
        "--meeting",
        "--simulcast",
    ]);
    assert!(result["delivered"].as_u64().unwrap() > 30, "{result}");
    assert_eq!(result["strays"], 0);
}

#[test]
fn in_a_room_of_sound_alone_those_who_are_silent_hear_who_speaks() {
    let server = Server::start();
    let result = server.load(&[
        "--publishers",
        "4",
        "--subscribers",
        "0",
        "--meeting",
        "--audio",
        "--no-video",
        "--speakers",
        "2",
    ]);
    assert_eq!(result["joins"], 4, "{result}");
    let delivered = result["delivered"].as_f64().unwrap();
    // 50 packets a second of each speaker: three hear the one, three the other.
    assert!(delivered > 200.0, "{result}");
}
