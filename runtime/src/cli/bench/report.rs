//! Figures of a benchmark: the best round of each, its rates, and its ratio to a limit.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

/// One measurement.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    name: String,
    bytes: u64,
    rows: u64,
    best: Duration,
    /// Which figure is its limit.
    limit: Option<usize>,
}

/// All figures of a benchmark, and what has to be said about them.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    title: String,
    figures: Vec<Figure>,
    notes: Vec<(&'static str, String)>,
}

impl Report {
    /// A report without figures.
    pub(super) fn new(title: String) -> Self {
        Self { title, ..Self::default() }
    }

    /// Adds what shall be measured, and which figure limits it; returns its number.
    pub(super) fn figure(&mut self, name: &str, bytes: u64, rows: u64, limit: Option<usize>) -> usize {
        self.figures.push(Figure { name: name.to_owned(), bytes, rows, best: Duration::MAX, limit });
        self.figures.len() - 1
    }

    /// A round took so long.
    pub(super) fn took(&mut self, figure: usize, time: Duration) {
        if let Some(figure) = self.figures.get_mut(figure) {
            figure.best = figure.best.min(time);
        }
    }

    /// Says something beside the figures.
    pub(super) fn note(&mut self, name: &'static str, text: String) {
        self.notes.retain(|(other, _)| *other != name);
        self.notes.push((name, text));
    }

    /// How fast a figure is, as a share of its limit.
    fn ratio(&self, figure: &Figure) -> Option<f64> {
        let limit = self.figures.get(figure.limit?)?;
        let rate = |figure: &Figure| figure.bytes as f64 / seconds(figure);
        Some(rate(figure) / rate(limit))
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        let mut text = format!("{}\n\n{:width$}  {:>9}  {:>12}  {:>8}\n", self.title, "", "MB/s", "rows/s", "of limit");
        for figure in &self.figures {
            let ratio = self.ratio(figure).map_or("limit".to_owned(), |ratio| format!("{:.0} %", ratio * 100.0));
            let (bytes, rows) = (figure.bytes as f64 / 1e6 / seconds(figure), figure.rows as f64 / seconds(figure));
            let _ = writeln!(text, "{:width$}  {bytes:>9.1}  {rows:>12.0}  {ratio:>8}", figure.name);
        }
        for (name, note) in &self.notes {
            let _ = write!(text, "\n{name}: {note}");
        }
        text.push_str(if self.notes.is_empty() { "" } else { "\n" });
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let figure = |figure: &Figure| {
            json!({
                "name": figure.name,
                "bytes": figure.bytes,
                "rows": figure.rows,
                "best_seconds": seconds(figure),
                "bytes_per_second": figure.bytes as f64 / seconds(figure),
                "rows_per_second": figure.rows as f64 / seconds(figure),
                "of_limit": self.ratio(figure),
            })
        };
        let notes: serde_json::Map<_, _> =
            self.notes.iter().map(|(name, note)| ((*name).to_owned(), Value::from(note.as_str()))).collect();
        json!({
            "benchmark": self.title,
            "dev_build": cfg!(debug_assertions),
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
            "notes": notes,
        })
    }
}

/// The time of the best round, never zero.
fn seconds(figure: &Figure) -> f64 {
    figure.best.as_secs_f64().max(1e-9)
}
