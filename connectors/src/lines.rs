//! Rows as lines of text: what text files and the terminal have in common.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::BytesMut;

use crate::decode::Encoder;
use crate::error::ConnectorError;

/// Makes what one file's, or one writer's, lines are encoded with.
pub type TextFormat = Arc<dyn Fn(&SchemaRef) -> Result<TextLines, ConnectorError> + Send + Sync>;

/// How rows become lines.
pub struct TextLines {
    /// The first line, such as CSV's header, without its newline.
    pub header: Option<String>,
    /// Makes the value of each row that its line consists of.
    pub encoder: Box<dyn Encoder>,
}

/// Encodes rows as lines, with memory that is reused.
pub(crate) struct LineEncoder {
    encoder: Box<dyn Encoder>,
    values: BytesMut,
    ranges: Vec<Range<usize>>,
    /// The header, until it is written.
    header: Option<String>,
}

impl LineEncoder {
    /// An encoder that begins with the header, if there is one.
    pub(crate) fn new(lines: TextLines) -> Self {
        Self { encoder: lines.encoder, values: BytesMut::new(), ranges: Vec::new(), header: lines.header }
    }

    /// Appends the lines of rows, each with its newline. Where it fails, nothing is appended.
    pub(crate) fn encode(&mut self, rows: &RecordBatch, into: &mut Vec<u8>) -> Result<(), ConnectorError> {
        self.values.clear();
        self.ranges.clear();
        self.encoder.encode(rows, &mut self.values, &mut self.ranges)?;
        if let Some(header) = self.header.take() {
            into.extend_from_slice(header.as_bytes());
            into.push(b'\n');
        }
        into.reserve(self.values.len() + self.ranges.len());
        for range in &self.ranges {
            into.extend_from_slice(self.values.get(range.clone()).unwrap_or_default());
            into.push(b'\n');
        }
        Ok(())
    }

    /// Like `encode`, but leaves out the rows that the format cannot express, and returns their numbers with the reasons,
    /// in ascending order.
    pub(crate) fn encode_or_refuse(
        &mut self,
        rows: &RecordBatch,
        into: &mut Vec<u8>,
    ) -> Result<Vec<(usize, String)>, ConnectorError> {
        encode_or_refuse(rows.num_rows(), |range| {
            self.encode(&rows.slice(range.start, range.len()), into).map(|()| Vec::new())
        })
    }
}

/// Encodes ranges of rows: all of them at once, or, where that fails, halves down to the rows that fail alone. Those are
/// returned with the reason, together with what `encode` refuses itself, in ascending order.
pub(crate) fn encode_or_refuse(
    rows: usize,
    mut encode: impl FnMut(Range<usize>) -> Result<Vec<(usize, String)>, ConnectorError>,
) -> Result<Vec<(usize, String)>, ConnectorError> {
    let mut refused = Vec::new();
    // What is still to be encoded, the first range last.
    let mut left = vec![(0, rows)];
    while let Some((start, end)) = left.pop() {
        match encode(start..end) {
            Ok(more) => refused.extend(more),
            Err(error @ (ConnectorError::Data { .. } | ConnectorError::Permanent { .. })) => match end - start {
                0 => return Err(error),
                1 => refused.push((start, in_full(&error))),
                length => {
                    let middle = start + length / 2;
                    left.push((middle, end));
                    left.push((start, middle));
                }
            },
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// An error with what caused it.
fn in_full(error: &ConnectorError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
