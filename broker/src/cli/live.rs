//! The live view of `firn dev`: what is hot, what is settling, what is cold, redrawn in place on a terminal.

use super::screen::Size;
use crate::http::TierPartition;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Topics shown; the rest is summed up in one line.
const ROWS: usize = 12;
/// Cells of the bar that shows where a topic's bytes are: as many as there is room for, between these.
const BAR: RangeInclusive<usize> = 12..=24;
/// Characters of a topic's name: as many as there is room for, between these.
const NAMES: RangeInclusive<usize> = 8..=28;
/// Characters that a name has to have before there is room for anything but sizes.
const ENOUGH: usize = 16;
/// Characters of the sizes, with the space before each.
const SIZES: usize = 3 * 11;
/// Characters of the counts of partitions and records, with the space before each.
const COUNTS: usize = 6 + 11;
/// Space before the bar.
const GAP: usize = 2;

#[derive(Default)]
struct Row {
    partitions: usize,
    records: i64,
    /// On local disk.
    hot_bytes: u64,
    /// Of these, what is not in the object store yet.
    settling_bytes: u64,
    /// In the object store alone.
    cold_bytes: u64,
    held_back_by: Option<String>,
}

/// The lines to draw, each ending in a line break: none wider than the terminal, and one less than it has rows, for the cursor
/// stands below them.
pub fn render(partitions: &[TierPartition], size: Size) -> String {
    let mut topics: BTreeMap<&str, Row> = BTreeMap::new();
    for partition in partitions {
        let row = topics.entry(&partition.topic).or_default();
        row.partitions += 1;
        row.records += partition.high_watermark - partition.log_start;
        let settling = partition.lag_bytes.min(partition.local_bytes);
        row.settling_bytes += settling;
        row.hot_bytes += partition.local_bytes;
        // What is in both places is hot, and counted once.
        row.cold_bytes += partition.remote_bytes.saturating_sub(partition.local_bytes - settling);
        if row.held_back_by.is_none() {
            row.held_back_by.clone_from(&partition.held_back_by);
        }
    }
    let mut by_size: Vec<_> = topics.iter().collect();
    by_size.sort_by_key(|(name, row)| (std::cmp::Reverse(row.hot_bytes + row.cold_bytes), **name));
    let columns = Columns::of(size.columns);
    let most = size.rows.saturating_sub(1);
    let mut lines = vec![columns.head()];
    let mut shown = 0;
    for (name, row) in by_size.iter().take(ROWS) {
        let why = row.held_back_by.as_deref().map(|why| format!("  held back: {why}"));
        let last = shown + 1 == by_size.len();
        if lines.len() + 1 + usize::from(why.is_some()) + usize::from(!last) > most {
            break;
        }
        lines.push(columns.topic(name, row));
        lines.extend(why);
        shown += 1;
    }
    if by_size.is_empty() {
        lines.push("no topics yet: firn topic create NAME".to_owned());
    } else if shown < by_size.len() {
        lines.push(format!("and {} more topics: firn tier status", by_size.len() - shown));
    }
    lines.iter().take(most).map(|line| fit(line, size.columns) + "\n").collect()
}

/// What a line has room for.
struct Columns {
    name: usize,
    counts: bool,
    /// Cells of the bar, if there is one.
    bar: usize,
}

impl Columns {
    fn of(width: usize) -> Columns {
        let counts = width >= ENOUGH + SIZES + COUNTS;
        let taken = if counts { SIZES + COUNTS } else { SIZES };
        let bar = width.saturating_sub(ENOUGH + SIZES + COUNTS + GAP).min(*BAR.end());
        let bar = if bar < *BAR.start() { 0 } else { bar };
        let taken = if bar > 0 { taken + GAP + bar } else { taken };
        Columns { name: width.saturating_sub(taken).clamp(*NAMES.start(), *NAMES.end()), counts, bar }
    }

    fn head(&self) -> String {
        let counts = if self.counts { ["parts", "records"] } else { [""; 2] };
        let sizes = if self.bar > 0 { ["hot ▓", "settling ▒", "cold ░"] } else { ["hot", "settling", "cold"] };
        self.line("topic", counts, sizes, "")
    }

    fn topic(&self, name: &str, row: &Row) -> String {
        let counts = [row.partitions.to_string(), row.records.to_string()];
        let sizes = [row.hot_bytes, row.settling_bytes, row.cold_bytes].map(bytes);
        let bar = bar(row, self.bar);
        self.line(
            &shorten(name, self.name),
            counts.each_ref().map(String::as_str),
            sizes.each_ref().map(String::as_str),
            &bar,
        )
    }

    fn line(&self, name: &str, [parts, records]: [&str; 2], [hot, settling, cold]: [&str; 3], bar: &str) -> String {
        let width = self.name;
        let counts = if self.counts { format!(" {parts:>5} {records:>10}") } else { String::new() };
        let bar = if self.bar > 0 { format!("{:GAP$}{bar}", "") } else { String::new() };
        format!("{name:<width$}{counts} {hot:>10} {settling:>10} {cold:>10}{bar}")
    }
}

/// `line` on one line of so many characters.
fn fit(line: &str, columns: usize) -> String {
    let plain: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shorten(plain.trim_end(), columns)
}

fn bar(row: &Row, cells: usize) -> String {
    let total = (row.hot_bytes + row.cold_bytes).max(1);
    let share = |part: u64| usize::try_from(part * cells as u64 / total).unwrap_or(cells);
    let settling = share(row.settling_bytes);
    let cold = share(row.cold_bytes);
    let hot = share(row.hot_bytes - row.settling_bytes.min(row.hot_bytes));
    let idle = cells.saturating_sub(hot + settling + cold);
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
    name.chars().take(width.saturating_sub(1)).chain(['…']).take(width).collect()
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
        let partitions = [partition("b", 10, 5, 10), partition("a", 1 << 20, 0, 3 << 20), partition("b", 0, 0, 10)];
        let text = render(&partitions, Size { columns: 120, rows: 24 });
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("a "), "{text}");
        // Of three MiB in the object store one is here, too.
        assert!(lines[1].ends_with(&("▓".repeat(8) + &"░".repeat(16))), "{text}");
        assert!(lines[1].contains("1024 KiB        0 B   2048 KiB"), "{text}");
        assert!(lines[2].starts_with("b ") && lines[2].contains(" 20 "), "{text}");
    }

    #[test]
    fn an_ordinary_terminal_shows_all_of_it() {
        let mut flights = partition("a-topic-with-quite-a-long-name", 4 << 20, 2 << 20, 10 << 20);
        flights.high_watermark = 9_999_999_999;
        let text = render(&[flights], Size { columns: 80, rows: 24 });
        let expected = [
            "topic            parts    records      hot ▓ settling ▒     cold ░",
            "a-topic-with-qu…     1 9999999999   4096 KiB   2048 KiB   8192 KiB  ▓▓▒▒░░░░░░░░",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn whatever_there_is_fits_into_the_terminal() {
        let many: Vec<TierPartition> = (0..30)
            .map(|at| TierPartition {
                held_back_by: (at % 3 == 0).then(|| format!("the store said:\n{}", "no ".repeat(100))),
                high_watermark: i64::MAX / 64,
                ..partition(&format!("a-topic-with-quite-a-long-name-{at}"), u64::MAX / 64, 5 << 30, u64::MAX / 64)
            })
            .collect();
        for partitions in [&many[..0], &many[..1], &many[..3], &many[..13], &many] {
            for columns in [1, 20, 40, 80, 106, 120, 300] {
                for rows in [1, 2, 3, 4, 5, 8, 24, 60] {
                    let text = render(partitions, Size { columns, rows });
                    let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
                    assert!(widest <= columns, "{widest} characters on {columns} columns:\n{text}");
                    assert!(text.lines().count() < rows, "{rows} rows:\n{text}");
                    assert!(text.is_empty() || text.ends_with('\n'));
                }
            }
        }
    }

    #[test]
    fn a_narrow_terminal_keeps_the_sizes_and_what_is_wrong() {
        let mut held = partition("flights", 10, 5, 10);
        held.held_back_by = Some("no bucket".to_owned());
        let text = render(&[held], Size { columns: 44, rows: 24 });
        let expected = [
            "topic              hot   settling       cold",
            "flights           10 B        5 B        5 B",
            "  held back: no bucket",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn topics_without_room_are_counted() {
        let partitions: Vec<_> = (0..5).map(|at| partition(&format!("t{at}"), 10, 0, 0)).collect();
        let text = render(&partitions, Size { columns: 80, rows: 5 });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[3], "and 3 more topics: firn tier status");
        assert_eq!(render(&partitions, Size { columns: 80, rows: 7 }).lines().count(), 6, "all of them");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!([bytes(0), bytes(9_999), bytes(10_240), bytes(5 << 30)], ["0 B", "9999 B", "10 KiB", "5120 MiB"]);
    }
}
