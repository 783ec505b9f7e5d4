//! The stdout sink: rows for people to look at.
//!
//! Rows are printed when an epoch is prepared, before it is known to be committed. So the guarantee is at-least-once:
//! rows of an epoch that a crash cut off are printed again by the next run.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};
use logmill_pipelines::{ConnectorKind, Role};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::error::ConnectorError;
use crate::lines::{LineEncoder, TextFormat};
use crate::sink::{
    Accepts, Attempt, Committed, OpenWriter, Prepared, RefusedRows, Restage, Sink, Taken, Token, Writer, Written,
    stages_nothing,
};

/// Rows that wait to be printed take at most about this many bytes; beyond, they are printed within the epoch.
const PENDING_BYTES: usize = 1 << 20;

/// Prints rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How rows are laid out.
    #[serde(default)]
    pub style: Style,
}

/// How rows are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// A line a row, in the sink's format.
    #[default]
    Lines,
    /// A table for the rows of each commit.
    Table,
}

/// Where rows are printed to.
pub type Output = Arc<Mutex<dyn Write + Send>>;

/// The stdout sink, as the catalog lists it.
pub fn kind() -> ConnectorKind {
    ConnectorKind {
        name: "stdout",
        role: Role::Sink,
        summary: "prints rows, at least once",
        schema: || schemars::schema_for!(Config),
        formats: &["json", "ndjson", "csv", "raw", "lines"],
        needs_through: false,
    }
}

/// Makes the sink for rows of `schema`: prints to standard output.
pub fn sink(config: &Config, format: TextFormat, schema: SchemaRef) -> Arc<dyn Sink> {
    sink_to(Arc::new(Mutex::new(std::io::stdout())), config, format, schema)
}

/// Makes a sink that prints to `output`.
pub fn sink_to(output: Output, config: &Config, format: TextFormat, schema: SchemaRef) -> Arc<dyn Sink> {
    Arc::new(Stdout { output, style: config.style, format, schema })
}

struct Stdout {
    output: Output,
    style: Style,
    format: TextFormat,
    schema: SchemaRef,
}

#[async_trait]
impl Sink for Stdout {
    fn accepts(&self) -> Accepts {
        Accepts::Append
    }

    async fn open(&self, _open: OpenWriter) -> Result<Box<dyn Writer>, ConnectorError> {
        let lines = match self.style {
            Style::Lines => Some(LineEncoder::new((self.format)(&self.schema)?)),
            Style::Table => None,
        };
        let output = self.output.clone();
        Ok(Box::new(Printer { output, lines, text: Vec::new(), rows: Vec::new(), visible: Written::default() }))
    }

    async fn commit(&self, _token: &Token) -> Result<Committed, ConnectorError> {
        Err(stages_nothing("stdout"))
    }

    fn commits_at_once(&self) -> usize {
        1
    }

    async fn restage(&self, _restage: Restage) -> Result<Vec<Token>, ConnectorError> {
        Err(stages_nothing("stdout"))
    }

    async fn collect(&self, _live: &[Token], _attempt: &Attempt) -> Result<(), ConnectorError> {
        Ok(())
    }
}

struct Printer {
    output: Output,
    /// `None` for tables.
    lines: Option<LineEncoder>,
    /// Lines to print.
    text: Vec<u8>,
    /// Rows of the table to print.
    rows: Vec<RecordBatch>,
    /// What was printed, or is to be, since the last barrier.
    visible: Written,
}

impl Printer {
    async fn print(&mut self) -> Result<(), ConnectorError> {
        if !self.rows.is_empty() {
            let table = pretty_format_batches(&self.rows).map_err(|error| ConnectorError::Permanent {
                context: "cannot lay out rows as a table".into(),
                source: error.into(),
            })?;
            self.text.extend_from_slice(format!("{table}\n").as_bytes());
            self.rows.clear();
        }
        if self.text.is_empty() {
            return Ok(());
        }
        let (text, output) = (std::mem::take(&mut self.text), self.output.clone());
        self.visible.bytes += text.len() as u64;
        // A pipe whose reader is slow blocks.
        blocking(move || {
            let mut output = output.lock();
            let printed = output.write_all(&text).and_then(|()| output.flush());
            printed.map_err(|error| ConnectorError::io("cannot write to standard output", error))
        })
        .await
    }
}

#[async_trait]
impl Writer for Printer {
    async fn write(&mut self, batch: RowBatch) -> Result<Taken, ConnectorError> {
        let mut taken = Taken::default();
        match &mut self.lines {
            Some(lines) => {
                for (row, reason) in lines.encode_or_refuse(&batch.rows, &mut self.text)? {
                    let rows = RowBatch::inserts(batch.rows.slice(row, 1));
                    let rows = RowBatch { origin: batch.origin.clone(), ..rows };
                    taken.refused.push(RefusedRows { rows, reason });
                }
            }
            None if batch.num_rows() > 0 => self.rows.push(batch.rows.clone()),
            None => {}
        }
        self.visible.rows += (batch.num_rows() - taken.refused.len()) as u64;
        let waiting = self.text.len() + self.rows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        if waiting > PENDING_BYTES {
            self.print().await?;
        }
        Ok(taken)
    }

    async fn prepare(&mut self, _epoch: CheckpointEpoch, _last: bool) -> Result<Prepared, ConnectorError> {
        self.print().await?;
        Ok(Prepared { visible: std::mem::take(&mut self.visible), ..Prepared::default() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::ops::Range;

    use bytes::BytesMut;

    use super::*;
    use crate::conformance::sink::{batch, schema};
    use crate::decode::Encoder;
    use crate::lines::TextLines;

    /// The number of rows, for each row.
    struct Counts;

    impl Encoder for Counts {
        fn encode(
            &mut self,
            rows: &RecordBatch,
            buffer: &mut BytesMut,
            values: &mut Vec<Range<usize>>,
        ) -> Result<(), ConnectorError> {
            for _ in 0..rows.num_rows() {
                let start = buffer.len();
                buffer.extend_from_slice(rows.num_rows().to_string().as_bytes());
                values.push(start..buffer.len());
            }
            Ok(())
        }
    }

    async fn print(style: Style) -> String {
        let output = Arc::new(Mutex::new(Vec::new()));
        let format: TextFormat = Arc::new(|_| Ok(TextLines { header: Some("n".into()), encoder: Box::new(Counts) }));
        let sink = sink_to(output.clone(), &Config { style }, format, schema());
        let open =
            OpenWriter { shard: 0, attempt: Attempt("a".into()), epoch: CheckpointEpoch(1), carried: Vec::new() };
        let mut writer = sink.open(open).await.unwrap();
        writer.write(RowBatch::inserts(batch(&[(1, None), (2, Some("x".into()))]).unwrap())).await.unwrap();
        assert!(output.lock().is_empty(), "rows are printed when the epoch ends");
        assert_eq!(writer.prepare(CheckpointEpoch(1), false).await.unwrap().visible.rows, 2);
        writer.write(RowBatch::inserts(batch(&[(3, None)]).unwrap())).await.unwrap();
        assert_eq!(writer.prepare(CheckpointEpoch(2), true).await.unwrap().visible.rows, 1);
        let printed = output.lock().clone();
        String::from_utf8(printed).unwrap()
    }

    #[tokio::test]
    async fn lines_follow_one_header() {
        assert_eq!(print(Style::Lines).await, "n\n2\n2\n1\n");
    }

    #[tokio::test]
    async fn each_commit_prints_a_table() {
        let expected = "\
+----+-------+
| id | group |
+----+-------+
| 1  |       |
| 2  | x     |
+----+-------+
+----+-------+
| id | group |
+----+-------+
| 3  |       |
+----+-------+
";
        assert_eq!(print(Style::Table).await, expected);
    }
}
