//! The server seen from outside: its process in /proc, and what corelay counts at /api/stats.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use serde_json::Value;

use crate::websocket::host_of;

/// Longest that one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// CPU time of all threads of a process, user and system, in nanoseconds.
pub(crate) fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the look.
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let ran = stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        sum += ran.unwrap_or(0);
    }
    Ok(sum)
}

/// Resident memory of a process, in bytes.
pub(crate) fn rss_bytes(pid: u32) -> io::Result<u64> {
    status(pid, "VmRSS:")
}

/// What of it is the process's own, and not of a file such as its program.
pub(crate) fn own_bytes(pid: u32) -> io::Result<u64> {
    status(pid, "RssAnon:")
}

/// A line of proc(5)'s status, in bytes.
fn status(pid: u32, name: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}

/// corelay's counters. Another server has none.
pub(crate) fn stats(url: &str, token: Option<&str>) -> io::Result<Value> {
    let host = host_of(url).map_err(io::Error::other)?;
    let address = host.to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let token = token.map_or_else(String::new, |t| format!("Authorization: Bearer {t}\r\n"));
    // HTTP/1.0: the end of the stream ends the answer, which therefore comes in one piece.
    let request = format!("GET /api/stats HTTP/1.0\r\nHost: {host}\r\n{token}\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.") || !head.contains(" 200 ") {
        let line = head.lines().next().unwrap_or("no answer");
        return Err(io::Error::other(format!("/api/stats: {line}")));
    }
    serde_json::from_str(body).map_err(io::Error::other)
}

/// What grew between two looks at the counters, by section: `dropped`, `engine` or `shard`.
pub(crate) fn grown(before: &Value, after: &Value, section: &str) -> BTreeMap<String, u64> {
    let counters = after["totals"][section].as_object();
    let grown = counters.into_iter().flatten().filter_map(|(name, value)| {
        let earlier = before["totals"][section][name].as_u64().unwrap_or(0);
        let more = value.as_u64()?.saturating_sub(earlier);
        (more > 0).then(|| (name.clone(), more))
    });
    grown.collect()
}

/// Percentiles in microseconds of what one of the shards' histograms gained between two looks.
pub(crate) fn percentiles(
    before: &Value,
    after: &Value,
    name: &str,
) -> Option<BTreeMap<String, u64>> {
    let buckets = |stats: &Value| -> Option<BTreeMap<u64, u64>> {
        let pairs = stats["totals"]["latency"][name]["buckets"].as_array()?;
        let pairs = pairs.iter();
        pairs
            .map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?)))
            .collect()
    };
    let mut gained = buckets(after)?;
    for (value, count) in buckets(before).unwrap_or_default() {
        let gained = gained.entry(value).or_default();
        *gained = gained.saturating_sub(count);
    }
    let total: u64 = gained.values().sum();
    let at = |quantile: f64| {
        let rank = (total as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        let found = gained.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map_or(0, |(value, _)| *value)
    };
    (total > 0).then(|| {
        [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)]
            .map(|(name, quantile)| (name.to_owned(), at(quantile)))
            .into()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_own_process_uses_cpu_and_memory() {
        let own = std::process::id();
        assert!(cpu_ns(own).unwrap() > 0);
        let memory = own_bytes(own).unwrap();
        assert!(memory > 100_000 && memory < rss_bytes(own).unwrap());
    }

    #[test]
    fn counters_are_compared_with_what_they_were() {
        let before = json!({"totals": {"dropped": {"duplicate": 3, "malformed": 1}}});
        let after = json!({"totals": {"dropped": {"duplicate": 5, "malformed": 1}}});
        let grown = grown(&before, &after, "dropped");
        assert_eq!(grown, BTreeMap::from([("duplicate".to_owned(), 2)]));
    }

    #[test]
    fn percentiles_are_of_what_was_gained_only() {
        let stats = |slow: u64, fast: u64| {
            let buckets = json!([[10, fast], [5000, slow]]);
            json!({"totals": {"latency": {"delay_us": {"buckets": buckets}}}})
        };
        let found = percentiles(&stats(50, 0), &stats(50, 100), "delay_us").unwrap();
        assert_eq!((found["p50"], found["p999"]), (10, 10));
        let found = percentiles(&stats(0, 0), &stats(50, 50), "delay_us").unwrap();
        assert_eq!((found["p50"], found["p99"]), (10, 5000));
        assert_eq!(percentiles(&stats(1, 1), &stats(1, 1), "delay_us"), None);
    }
}
