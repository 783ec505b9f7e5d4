//! The Decoder and Encoder traits: between bytes of records and columns of rows.
//!
//! Synchronous, run on the worker that runs the operators after them. A decoder is made for the columns that are
//! wanted, so that what no query names is never parsed.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::BytesMut;

use crate::error::ConnectorError;
use crate::source::Records;

/// A record that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Its index in the `Records`.
    pub index: usize,
    /// What is wrong with it.
    pub message: String,
}

/// What became of some records.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows of those that could be decoded, in order.
    pub rows: RecordBatch,
    /// Those that could not, in order.
    pub errors: Vec<RowError>,
}

/// Turns records into rows.
pub trait Decoder: Send {
    /// The columns of the rows, meta columns (`_key`, …) included.
    fn schema(&self) -> SchemaRef;

    /// Decodes all the records. Bad ones are told one by one; the others are not held back by them.
    fn decode(&mut self, records: &Records) -> Result<Decoded, ConnectorError>;
}

/// Turns rows into the values of records.
pub trait Encoder: Send {
    /// Appends the value of each row to `buffer` and the range of each to `values`. Row-separating bytes (a newline)
    /// are not part of a value.
    fn encode(
        &mut self,
        rows: &RecordBatch,
        buffer: &mut BytesMut,
        values: &mut Vec<Range<usize>>,
    ) -> Result<(), ConnectorError>;
}
