//! Figures for people and for scripts, and signs of life in between.

use super::load::Latencies;
use crate::cli::out;
use crate::process::Usage;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;
use tokio::time::Instant;

/// How often progress is shown on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// Begins a terminal's line over.
const OVER: &str = "\r\x1b[K";

/// Record values moved, and how long it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

/// One figure. What does not apply, or is not known, is left out.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Row {
    pub(super) figure: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mib_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p999_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_ms: Option<f64>,
    /// The longest that the machine kept the client's own timer waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pause_max_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_record_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_s_per_gib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rss_bytes: Option<u64>,
}

impl Row {
    pub(super) fn new(figure: impl Into<String>) -> Row {
        Row { figure: figure.into(), ..Row::default() }
    }

    pub(super) fn moved(figure: String, moved: Moved, before: Option<Usage>, after: Option<Usage>) -> Row {
        let mib = moved.bytes as f64 / f64::from(1 << 20);
        let spent = before.zip(after).map(|(before, after)| after.cpu_seconds - before.cpu_seconds);
        Row {
            mib: Some(mib),
            mib_per_s: Some(mib / moved.took.as_secs_f64().max(f64::EPSILON)),
            cpu_s_per_gib: spent.filter(|_| moved.bytes > 0).map(|seconds| seconds * 1024.0 / mib),
            rss_bytes: after.map(|usage| usage.rss_bytes),
            ..Row::new(figure)
        }
    }

    pub(super) fn with(mut self, latencies: &Latencies) -> Row {
        let at = |quantile| Some(latencies.records.value_at_quantile(quantile) as f64 / 1e3);
        (self.p50_ms, self.p99_ms, self.p999_ms) = (at(0.5), at(0.99), at(0.999));
        self.max_ms = Some(latencies.records.max() as f64 / 1e3);
        self.pause_max_ms = Some(latencies.pauses.max() as f64 / 1e3);
        self
    }
}

/// All rows as one JSON array.
pub(super) fn json(rows: &[Row]) -> String {
    serde_json::to_string(rows).expect("rows are numbers and names")
}

/// All rows as a table.
pub(super) fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<36} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>9} {:>8}",
        "", "MiB/s", "p50 ms", "p99 ms", "p99.9", "max ms", "pause ms", "first ms", "CPU s/GiB", "RSS MiB"
    );
    for row in rows {
        let rss = row.rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
        let cells = [
            (row.mib_per_s, 8, 1),
            (row.p50_ms, 8, 2),
            (row.p99_ms, 8, 2),
            (row.p999_ms, 8, 2),
            (row.max_ms, 8, 2),
            (row.pause_max_ms, 9, 2),
            (row.first_record_ms, 8, 1),
            (row.cpu_s_per_gib, 9, 2),
            (rss, 8, 0),
        ];
        let _ = write!(out, "{:<36}", row.figure);
        for (value, width, digits) in cells {
            match value {
                Some(value) => _ = write!(out, " {value:>width$.digits$}"),
                None => _ = write!(out, " {:>width$}", ""),
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out.push_str("MiB are of record values; pause: the longest the machine kept the client's own timer waiting\n");
    out
}

/// What is going on, on standard error: a line per figure, and how far it is on a terminal.
pub(super) struct Progress {
    terminal: bool,
    figure: RefCell<String>,
    drawn: Cell<Option<Instant>>,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), figure: RefCell::default(), drawn: Cell::new(None) }
    }

    pub(super) fn begin(&self, figure: &str) {
        self.done();
        figure.clone_into(&mut self.figure.borrow_mut());
        if self.terminal {
            self.draw("");
        } else {
            out::note(figure);
        }
    }

    pub(super) fn at(&self, bytes: u64, of: u64) {
        if self.terminal && self.drawn.get().is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            self.drawn.set(Some(Instant::now()));
            self.draw(&format!(": {} of {} MiB", bytes >> 20, of >> 20));
        }
    }

    /// Leaves the line to whoever prints next.
    pub(super) fn done(&self) {
        if self.terminal {
            let _ = std::io::stderr().write_all(OVER.as_bytes());
        }
    }

    fn draw(&self, how_far: &str) {
        let _ = write!(std::io::stderr(), "{OVER}{}{how_far}", self.figure.borrow());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu_seconds: f64) -> Option<Usage> {
        Some(Usage { cpu_seconds, rss_bytes: 3 << 20 })
    }

    #[test]
    fn a_row_says_what_a_gibibyte_costs() {
        let moved = Moved { bytes: 512 << 20, took: Duration::from_secs(2) };
        let row = Row::moved("produce".to_owned(), moved, usage(1.0), usage(1.75));
        assert_eq!((row.mib_per_s, row.cpu_s_per_gib), (Some(256.0), Some(1.5)));
        assert_eq!(
            json(&[row]),
            r#"[{"figure":"produce","mib":512.0,"mib_per_s":256.0,"cpu_s_per_gib":1.5,"rss_bytes":3145728}]"#
        );
    }

    #[test]
    fn what_is_not_known_stays_empty() {
        let moved = Moved { bytes: 1 << 20, took: Duration::from_secs(1) };
        let row = Row::moved("consume".to_owned(), moved, None, usage(1.0));
        assert_eq!((row.cpu_s_per_gib, row.rss_bytes), (None, Some(3 << 20)));
        let text = table(&[row, Row::new("before")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "before");
        assert!(lines[1].ends_with("3"), "{text}");
    }
}
