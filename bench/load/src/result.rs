//! What a run found. The JSON keys are stable: `bench/README.md` documents them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// The result of one run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What was run: the cell's name, if it has one.
    pub(crate) name: String,
    pub(crate) sfu: String,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) delivery_ratio: f64,
    /// The least among all subscribers.
    pub(crate) worst_delivery_ratio: f64,
    pub(crate) cpu_ns_per_packet: Option<f64>,
    pub(crate) packets_per_second: f64,
    pub(crate) delay_us: Delays,
    pub(crate) rss_bytes: Option<u64>,
    /// Before the first client joined, and after the last had left.
    pub(crate) rss_before_bytes: Option<u64>,
    pub(crate) rss_after_bytes: Option<u64>,
    pub(crate) rss_bytes_per_subscriber: Option<f64>,
    pub(crate) memory: Option<Memory>,
    pub(crate) server_cpu_pct: Option<f64>,
    pub(crate) generator_cpu_pct: f64,
    /// The longest time in which some subscriber got nothing from some source.
    pub(crate) longest_gap_ms: f64,
    pub(crate) resent: u64,
    /// Packets of another room.
    pub(crate) strays: u64,
    pub(crate) joins: u64,
    pub(crate) join_seconds: f64,
    /// Joins that one second of the server's CPU pays for.
    pub(crate) joins_per_cpu_second: Option<f64>,
    /// Why the generator, not the server, was measured; empty when it was not.
    pub(crate) generator_limits: Vec<String>,
    pub(crate) failures: Vec<String>,
    /// From `/api/stats`, while measuring: what was dropped, other counters, what is left when
    /// all have left, and the server's own percentiles.
    pub(crate) dropped: Option<BTreeMap<String, u64>>,
    pub(crate) server: Option<BTreeMap<String, u64>>,
    pub(crate) left_behind: Option<BTreeMap<String, u64>>,
    pub(crate) server_delay_us: Option<BTreeMap<String, u64>>,
    pub(crate) server_turn_us: Option<BTreeMap<String, u64>>,
    /// By second of the measurement.
    pub(crate) timeline: Vec<Sample>,
    /// The delay at each of many quantiles, for the plot.
    pub(crate) delay_curve: Vec<(f64, f64)>,
    pub(crate) plan: Plan,
}

/// The server's own memory where clients come and go, in bytes; of files, such as its program,
/// nothing counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Before the first client joined.
    pub(crate) start: u64,
    /// The most that any second of the measurement ended with.
    pub(crate) peak: u64,
    /// With all clients, at the end of it.
    pub(crate) end: u64,
    /// Twenty seconds after all had left.
    pub(crate) left: u64,
}

/// One-way forwarding delay, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Delays {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// One second.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) packets: u64,
    pub(crate) server_cpu_pct: Option<f64>,
    pub(crate) generator_cpu_pct: f64,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) delay_p50_us: f64,
    pub(crate) delay_p99_us: f64,
    pub(crate) delay_max_us: f64,
}

impl Outcome {
    /// Whether the server did what was asked of it, whatever it cost.
    pub(crate) fn is_sound(&self) -> bool {
        let sends = self.plan.pps > 0 || self.plan.no_video;
        self.failures.is_empty() && self.strays == 0 && (self.expected > 0 || !sends)
    }

    /// The result for a person.
    pub(crate) fn summary(&self) -> String {
        let mut lines = vec![format!(
            "delivered   {} of {} ({:.4} %), {:.0} packets/s; the worst off got {:.2} %",
            self.delivered,
            self.expected,
            100.0 * self.delivery_ratio,
            self.packets_per_second,
            100.0 * self.worst_delivery_ratio,
        )];
        let delay = &self.delay_us;
        lines.push(format!(
            "delay       p50 {:.0} us, p95 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}; \
             longest gap {:.0} ms",
            delay.p50, delay.p95, delay.p99, delay.p999, delay.max, self.longest_gap_ms
        ));
        if let (Some(cpu), Some(pct), Some(rss)) =
            (self.cpu_ns_per_packet, self.server_cpu_pct, self.rss_bytes)
        {
            lines.push(format!(
                "server      {:.0} ns of CPU a packet, {pct:.1} % of a core, {:.1} MB resident",
                cpu,
                rss as f64 / 1e6
            ));
        } else {
            lines.push("server      not measured: give --server-pid".to_owned());
        }
        if let Some(Memory {
            start,
            peak,
            end,
            left,
        }) = self.memory
        {
            let [start, peak, end, left] = [start, peak, end, left].map(|bytes| bytes as f64 / 1e6);
            lines.push(format!(
                "memory      {start:.1} MB of its own before, {peak:.1} at most, {end:.1} at the \
                 end, {left:.1} when all have left"
            ));
        }
        let per_cpu = self.joins_per_cpu_second;
        let per_cpu = per_cpu.map_or_else(String::new, |n| format!(", {n:.0} per CPU second"));
        lines.push(format!(
            "joins       {} in {:.2} s{per_cpu}",
            self.joins, self.join_seconds
        ));
        let figures = |figures: &BTreeMap<String, u64>| {
            let all = figures
                .iter()
                .map(|(name, value)| format!("{name} {value}"));
            all.collect::<Vec<_>>().join(", ")
        };
        for (title, found) in [
            ("in server   receive to send, us:", &self.server_delay_us),
            ("in server   turns, us:", &self.server_turn_us),
            ("dropped    ", &self.dropped),
            ("left behind", &self.left_behind),
        ] {
            if let Some(found) = found {
                let text = if found.is_empty() {
                    "nothing".into()
                } else {
                    figures(found)
                };
                lines.push(format!("{title} {text}"));
            }
        }
        lines.push(format!(
            "generator   {:.1} % of a core",
            self.generator_cpu_pct
        ));
        for limit in &self.generator_limits {
            lines.push(format!(
                "WARNING     the generator was the bottleneck: {limit}"
            ));
        }
        if self.strays > 0 {
            lines.push(format!(
                "DEFECT      {} packets of another room",
                self.strays
            ));
        }
        for failure in self.failures.iter().take(5) {
            lines.push(format!("FAILED      {failure}"));
        }
        lines.join("\n")
    }
}
