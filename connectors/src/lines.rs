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

    /// Appends the lines of rows, each with its newline.
    pub(crate) fn encode(&mut self, rows: &RecordBatch, into: &mut Vec<u8>) -> Result<(), ConnectorError> {
        if let Some(header) = self.header.take() {
            into.extend_from_slice(header.as_bytes());
            into.push(b'\n');
        }
        self.values.clear();
        self.ranges.clear();
        self.encoder.encode(rows, &mut self.values, &mut self.ranges)?;
        into.reserve(self.values.len() + self.ranges.len());
        for range in &self.ranges {
            into.extend_from_slice(self.values.get(range.clone()).unwrap_or_default());
            into.push(b'\n');
        }
        Ok(())
    }
}
