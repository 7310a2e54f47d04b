//! One table of many results: medians over repeated runs, and one server beside another.

use std::collections::BTreeMap;

use crate::result::Outcome;

/// The columns: a heading, digits after the point, and where the figure comes from.
type Column = (&'static str, usize, fn(&Outcome) -> Option<f64>);

const COLUMNS: [Column; 11] = [
    ("delivered %", 3, |o| Some(100.0 * o.delivery_ratio)),
    ("packets/s", 0, |o| Some(o.packets_per_second)),
    ("us/packet", 2, |o| o.cpu_ns_per_packet.map(|ns| ns / 1e3)),
    ("server %", 1, |o| o.server_cpu_pct),
    ("p50 us", 0, |o| Some(o.delay_us.p50)),
    ("p99 us", 0, |o| Some(o.delay_us.p99)),
    ("p99.9 us", 0, |o| Some(o.delay_us.p999)),
    ("gap ms", 0, |o| Some(o.longest_gap_ms)),
    ("MB", 1, |o| o.rss_bytes.map(|bytes| bytes as f64 / 1e6)),
    ("joins/CPU s", 0, |o| o.joins_per_cpu_second),
    ("generator %", 1, |o| Some(o.generator_cpu_pct)),
];

/// A Markdown table with a line for each run and server, in the order they came.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut groups: Vec<((&str, &str), Vec<&Outcome>)> = Vec::new();
    for outcome in outcomes {
        let key = (outcome.name.as_str(), outcome.sfu.as_str());
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(outcome),
            None => groups.push((key, vec![outcome])),
        }
    }
    groups.sort_by_key(|((name, _), _)| outcomes.iter().position(|outcome| outcome.name == *name));
    let mut costs: BTreeMap<&str, f64> = BTreeMap::new();
    let headings = COLUMNS.map(|(heading, ..)| heading).join(" | ");
    let mut lines = vec![
        format!("| run | server | runs | {headings} | notes |"),
        format!("|---|---|---:|{}---|", "---:|".repeat(COLUMNS.len())),
    ];
    for ((name, sfu), group) in &groups {
        let mut cells = Vec::new();
        for (_, digits, figure) in COLUMNS {
            let found = median(group.iter().filter_map(|outcome| figure(outcome)).collect());
            cells.push(found.map_or("-".to_owned(), |value| format!("{value:.digits$}")));
        }
        let cost = median(group.iter().filter_map(|o| o.cpu_ns_per_packet).collect());
        let mut notes = notes(group);
        if let Some(cost) = cost {
            match costs.get(name) {
                None => {
                    costs.insert(name, cost);
                }
                Some(first) => notes.insert(0, format!("{:.1} x the first", cost / first)),
            }
        }
        let (count, cells, notes) = (group.len(), cells.join(" | "), notes.join("; "));
        lines.push(format!("| {name} | {sfu} | {count} | {cells} | {notes} |"));
    }
    lines.join("\n")
}

fn notes(group: &[&Outcome]) -> Vec<String> {
    let mut notes = Vec::new();
    let limited = group
        .iter()
        .filter(|o| !o.generator_limits.is_empty())
        .count();
    if limited > 0 {
        notes.push(format!("generator was the bottleneck in {limited}"));
    }
    let unsound = group.iter().filter(|outcome| !outcome.is_sound()).count();
    if unsound > 0 {
        notes.push(format!("{unsound} FAILED"));
    }
    for memory in group.iter().filter_map(|outcome| outcome.memory) {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        notes.push(format!(
            "memory {:.1} MB, at most {:.1}, then {:.1}",
            mb(memory.start),
            mb(memory.peak),
            mb(memory.left)
        ));
    }
    let left = group
        .iter()
        .filter_map(|outcome| outcome.left_behind.as_ref());
    let left: u64 = left.flatten().map(|(_, count)| count).sum();
    if left > 0 {
        notes.push(format!("{left} left behind"));
    }
    // That a layer is not the one a viewer is sent is no loss.
    let dropped = group.iter().filter_map(|outcome| outcome.dropped.as_ref());
    let dropped = dropped
        .flatten()
        .filter(|(reason, _)| *reason != "other_layer");
    let dropped: u64 = dropped.map(|(_, count)| count).sum();
    if dropped > 0 {
        notes.push(format!("{dropped} dropped"));
    }
    notes
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, sfu: &str, ns: f64) -> Outcome {
        Outcome {
            name: name.to_owned(),
            sfu: sfu.to_owned(),
            cpu_ns_per_packet: Some(ns),
            expected: 1,
            delivered: 1,
            ..Outcome::default()
        }
    }

    #[test]
    fn repeated_runs_become_their_median_beside_the_first_servers() {
        let outcomes = [
            outcome("1 x 20", "corelay", 1_000.0),
            outcome("1 x 20", "janus", 30_000.0),
            outcome("1 x 20", "corelay", 3_000.0),
            outcome("1 x 20", "janus", 20_000.0),
            outcome("1 x 50", "corelay", 7_000.0),
        ];
        let table = table(&outcomes);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[2].starts_with("| 1 x 20 | corelay | 2 |"));
        assert!(lines[2].contains("| 2.00 |"));
        assert!(lines[3].contains("| 25.00 |") && lines[3].contains("12.5 x the first"));
        assert!(lines[4].starts_with("| 1 x 50 | corelay | 1 |"));
    }

    #[test]
    fn a_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
