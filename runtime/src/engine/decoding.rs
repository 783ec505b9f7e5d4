//! Decodes the records of a feed on a worker.
//!
//! A decoder that panics has met a record that it does not expect. It is replaced by a fresh one, and the records are halved
//! until those are alone that it panics on: they fail as records do that cannot be decoded.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use logmill_connectors::decode::{Decoded, Decoder, RowError};
use logmill_connectors::error::ConnectorError;
use logmill_connectors::source::Records;
use logmill_operators::panics::catch;

use super::dead_letter::Provenance;
use super::error::EngineError;

/// Makes a decoder; `None` where the source delivers rows.
pub(crate) type NewDecoder = Box<dyn Fn() -> Result<Option<Box<dyn Decoder>>, ConnectorError> + Send>;

/// What a worker knows of a feed.
pub(crate) struct FeedDecoder {
    /// The source's name, for messages.
    pub(crate) provenance: Provenance,
    /// Turns its records into rows; `None` where it delivers rows.
    decoder: Option<Box<dyn Decoder>>,
    fresh: NewDecoder,
}

impl FeedDecoder {
    /// With the first decoder that `fresh` makes.
    pub(crate) fn new(provenance: Provenance, fresh: NewDecoder) -> Result<Self, EngineError> {
        let decoder = fresh().map_err(|error| EngineError::source(&provenance.source, error))?;
        Ok(Self { provenance, decoder, fresh })
    }

    /// Decodes all the records.
    pub(crate) fn decode(&mut self, records: &Records) -> Result<Decoded, EngineError> {
        match self.attempt(records)? {
            Ok(decoded) => Ok(decoded),
            Err(_) => self.narrow(records),
        }
    }

    /// Decodes records in one go. The inner error is what a panic said.
    fn attempt(&mut self, records: &Records) -> Result<Result<Decoded, String>, EngineError> {
        let failed = |error| EngineError::source(&self.provenance.source, error);
        let Some(decoder) = &mut self.decoder else { return Err(EngineError::Defect("a source of rows")) };
        match catch(|| decoder.decode(records)) {
            Ok(decoded) => decoded.map(Ok).map_err(failed),
            Err(panic) => {
                self.decoder = (self.fresh)().map_err(failed)?;
                Ok(Err(panic))
            }
        }
    }

    fn narrow(&mut self, records: &Records) -> Result<Decoded, EngineError> {
        let (mut pieces, mut errors): (Vec<RecordBatch>, Vec<RowError>) = (Vec::new(), Vec::new());
        let mut ranges: Vec<Range<usize>> = std::iter::once(0..records.len()).collect();
        while let Some(range) = ranges.pop() {
            match self.attempt(&records.slice(range.clone()))? {
                Ok(decoded) => {
                    pieces.push(decoded.rows);
                    let shifted = |error: RowError| RowError { index: error.index + range.start, ..error };
                    errors.extend(decoded.errors.into_iter().map(shifted));
                }
                Err(message) if range.len() <= 1 => errors.push(RowError { index: range.start, message }),
                Err(_) => {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
            }
        }
        let schema = match (pieces.first(), &self.decoder) {
            (Some(piece), _) => piece.schema(),
            (None, Some(decoder)) => decoder.schema(),
            (None, None) => return Err(EngineError::Defect("a source of rows")),
        };
        let rows = concat_batches(&schema, &pieces).map_err(|_| EngineError::Defect("the rows of a decoder"))?;
        Ok(Decoded { rows, errors })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

    use super::*;

    /// Decodes offsets; fails on multiples of 7, and panics on multiples of 10, after which it is of no use.
    struct Touchy {
        broken: bool,
    }

    impl Decoder for Touchy {
        fn schema(&self) -> SchemaRef {
            Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
        }

        fn decode(&mut self, records: &Records) -> Result<Decoded, ConnectorError> {
            assert!(!self.broken, "it is broken");
            self.broken = records.offsets.iter().any(|offset| offset % 10 == 0);
            assert!(!self.broken, "what a number");
            let bad = records.offsets.iter().enumerate().filter(|(_, offset)| *offset % 7 == 0);
            let errors = bad.map(|(index, _)| RowError { index, message: "a seven".to_owned() }).collect();
            let good = records.offsets.iter().copied().filter(|offset| offset % 7 != 0);
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(good));
            Ok(Decoded { rows: RecordBatch::try_new(self.schema(), vec![column]).unwrap(), errors })
        }
    }

    #[test]
    fn records_that_a_decoder_panics_on_are_found() {
        let provenance = Provenance { pipeline: "p".into(), source: "s".into() };
        let fresh: NewDecoder = Box::new(|| Ok(Some(Box::new(Touchy { broken: false }))));
        let mut feed = FeedDecoder::new(provenance, fresh).unwrap();
        for offsets in [1..35, 1..7, 10..11] {
            let values = vec![None; offsets.clone().count()];
            let records = Records { values, offsets: offsets.clone().collect(), ..Records::default() };
            let Decoded { rows, errors } = feed.decode(&records).unwrap_or_else(|_| panic!("it stops"));
            let bad: Vec<(i64, String)> =
                errors.into_iter().map(|error| (records.offsets[error.index], error.message)).collect();
            let reason = |offset: i64| match (offset % 10, offset % 7) {
                (0, _) => Some((offset, "what a number".to_owned())),
                (_, 0) => Some((offset, "a seven".to_owned())),
                _ => None,
            };
            assert_eq!(bad, offsets.clone().filter_map(reason).collect::<Vec<_>>());
            assert_eq!(rows.num_rows() + bad.len(), records.len());
        }
    }
}
