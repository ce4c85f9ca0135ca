//! The live view of `firn dev`: what is hot, what is settling, what is cold, redrawn in place on a terminal.

use crate::http::TierPartition;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Topics shown; the rest is summed up in one line.
const ROWS: usize = 12;
/// Cells of the bar that shows where a topic's bytes are.
const BAR: usize = 24;

#[derive(Default)]
struct Row {
    partitions: usize,
    records: i64,
    hot_bytes: u64,
    settling_bytes: u64,
    cold_bytes: u64,
    lag_ms: u64,
    held_back_by: Option<String>,
}

/// The lines to draw, each ending in a line break.
pub fn render(partitions: &[TierPartition]) -> String {
    let mut topics: BTreeMap<&str, Row> = BTreeMap::new();
    for partition in partitions {
        let row = topics.entry(&partition.topic).or_default();
        row.partitions += 1;
        row.records += partition.high_watermark - partition.log_start;
        row.settling_bytes += partition.lag_bytes.min(partition.local_bytes);
        row.hot_bytes += partition.local_bytes;
        row.cold_bytes += partition.remote_bytes;
        row.lag_ms = row.lag_ms.max(partition.lag_ms);
        if row.held_back_by.is_none() {
            row.held_back_by.clone_from(&partition.held_back_by);
        }
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<28} {:>5} {:>12} {:>10} {:>10} {:>10}  {:<BAR$}",
        "topic", "parts", "records", "hot", "settling", "cold", "hot ▓ settling ▒ cold ░"
    );
    let mut by_size: Vec<_> = topics.iter().collect();
    by_size.sort_by_key(|(name, row)| (std::cmp::Reverse(row.hot_bytes + row.cold_bytes), **name));
    for (name, row) in by_size.iter().take(ROWS) {
        let _ = writeln!(
            out,
            "{:<28} {:>5} {:>12} {:>10} {:>10} {:>10}  {}{}",
            shorten(name, 28),
            row.partitions,
            row.records,
            bytes(row.hot_bytes),
            bytes(row.settling_bytes),
            bytes(row.cold_bytes),
            bar(row),
            row.held_back_by.as_deref().map(|why| format!("  {why}")).unwrap_or_default(),
        );
    }
    if by_size.len() > ROWS {
        let _ = writeln!(out, "and {} more topics: firn tier status", by_size.len() - ROWS);
    }
    if by_size.is_empty() {
        let _ = writeln!(out, "no topics yet: firn topic create NAME");
    }
    out
}

fn bar(row: &Row) -> String {
    let total = (row.hot_bytes + row.cold_bytes).max(1);
    let share = |part: u64| usize::try_from(part * BAR as u64 / total).unwrap_or(BAR);
    let settling = share(row.settling_bytes);
    let cold = share(row.cold_bytes);
    let hot = share(row.hot_bytes - row.settling_bytes.min(row.hot_bytes));
    let idle = BAR.saturating_sub(hot + settling + cold);
    "▓".repeat(hot) + &"▒".repeat(settling) + &"░".repeat(cold) + &" ".repeat(idle)
}

/// A size as people say it, in powers of 1,024.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = count;
    while scaled >= 10 * 1024 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    format!("{scaled} {}", UNITS[unit])
}

fn shorten(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    name.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(topic: &str, local: u64, lag: u64, remote: u64) -> TierPartition {
        TierPartition {
            topic: topic.into(),
            partition: 0,
            log_start: 0,
            local_start: 5,
            tier_end: 8,
            high_watermark: 10,
            lag_bytes: lag,
            lag_ms: 0,
            local_bytes: local,
            remote_bytes: remote,
            objects: 1,
            held_back_by: None,
        }
    }

    #[test]
    fn topics_are_summed_and_the_largest_comes_first() {
        let text = render(&[partition("b", 10, 5, 10), partition("a", 1 << 20, 0, 3 << 20), partition("b", 0, 0, 10)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("a "), "{text}");
        assert!(lines[1].ends_with(&("▓".repeat(6) + &"░".repeat(18))), "{text}");
        assert!(lines[2].starts_with("b ") && lines[2].contains(" 20 "), "{text}");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!([bytes(0), bytes(9_999), bytes(10_240), bytes(5 << 30)], ["0 B", "9999 B", "10 KiB", "5120 MiB"]);
    }
}
