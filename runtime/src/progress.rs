//! Shows a run's progress: one line that is redrawn on a terminal, a line every few seconds elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use logmill_pipelines::terminal::escape_line;

use crate::metrics::{Metrics, Snapshot};
use crate::stderr;

/// How often the line on a terminal is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A running display; ends with `finish`.
pub(crate) struct Progress {
    bar: ProgressBar,
    task: tokio::task::JoinHandle<()>,
}

/// Prints lines without disturbing the display.
pub(crate) struct Printer(ProgressBar);

impl Printer {
    /// Prints a line to stderr.
    pub(crate) fn line(&self, text: &str) {
        match self.0.is_hidden() {
            true => stderr::print_line(text),
            false => self.0.println(escape_line(text)),
        }
    }
}

impl Progress {
    /// Shows what the metrics tell from now on.
    pub(crate) fn start(pipeline: &str, metrics: Arc<Metrics>, quiet: bool) -> Self {
        let terminal = stderr::is_terminal();
        let target = if terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let (shown, name) = (bar.clone(), escape_line(pipeline).into_owned());
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let mut interval = tokio::time::interval(if terminal { REDRAW_INTERVAL } else { LINE_INTERVAL });
            interval.tick().await;
            let mut before = (started, 0);
            loop {
                interval.tick().await;
                let now = metrics.snapshot();
                let rows = now.rows_read.max(now.rows_taken_in);
                let seconds = before.0.elapsed().as_secs_f64().max(0.001);
                let rate = (rows.saturating_sub(before.1) as f64 / seconds) as u64;
                before = (Instant::now(), rows);
                let line = format!("{name}: {}, {} rows/s", state(&now), count(rate));
                match (terminal, quiet) {
                    (_, true) => {}
                    (true, _) => {
                        shown.set_message(line);
                        shown.tick();
                    }
                    (false, _) => stderr::print_line(&line),
                }
            }
        });
        Self { bar, task }
    }

    /// A printer for lines beside the display.
    pub(crate) fn printer(&self) -> Printer {
        Printer(self.bar.clone())
    }

    /// Takes the display away.
    pub(crate) fn finish(self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

/// A count with separators.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

fn state(now: &Snapshot) -> String {
    let read = match now.bytes_to_read {
        0 => format!("read {} rows ({})", count(now.rows_read), HumanBytes(now.bytes_read)),
        all => {
            let bytes = now.bytes_read.max(now.bytes_taken_in).min(all);
            format!("read {} rows ({} of {})", count(now.rows_read), HumanBytes(bytes), HumanBytes(all))
        }
    };
    let rows: u64 = now.sinks.iter().map(|sink| sink.rows).sum();
    let bytes: u64 = now.sinks.iter().map(|sink| sink.bytes).sum();
    let carried: u64 = now.sinks.iter().map(|sink| sink.carried).sum();
    let waiting = match carried {
        0 => String::new(),
        rows => format!(", {} rows wait for their files to be full", count(rows)),
    };
    let lag = match now.rows_taken_in {
        0 => String::new(),
        rows => format!(", lag {} rows", count(rows.saturating_sub(now.rows_read))),
    };
    let dead = match now.dead_letters {
        0 => String::new(),
        letters => format!(", {} dead letters", count(letters)),
    };
    format!("{read}, wrote {} rows ({}){waiting}{lag}{dead}, checkpoint {}", count(rows), HumanBytes(bytes), now.epoch)
}

/// The totals of a run, a line each.
pub(crate) fn totals(done: &Snapshot) -> String {
    let mut text = String::new();
    if done.rows_taken_in > 0 {
        let bytes = HumanBytes(done.bytes_taken_in);
        text.push_str(&format!("  taken in  {:>12} rows, {bytes}\n", count(done.rows_taken_in)));
    }
    text.push_str(&format!("  read      {:>12} rows, {}\n", count(done.rows_read), HumanBytes(done.bytes_read)));
    for sink in &done.sinks {
        text.push_str(&format!(
            "  wrote     {:>12} rows, {} to {}\n",
            count(sink.rows),
            HumanBytes(sink.bytes),
            sink.name
        ));
        if sink.carried > 0 {
            text.push_str(&format!(
                "  saved     {:>12} rows for {}: not visible before their file is full or the input ends\n",
                count(sink.carried),
                sink.name
            ));
        }
    }
    if done.dead_letters > 0 {
        text.push_str(&format!("  rejected  {:>12} records, now dead letters\n", count(done.dead_letters)));
    }
    text.push_str(&format!("  in {} commits, the last of checkpoint {}\n", count(done.commits), done.epoch));
    text
}
