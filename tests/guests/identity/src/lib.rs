//! Gives every batch as it comes: what a guest costs that does nothing.

use logmill_guest::arrow::array::RecordBatch;
use logmill_guest::arrow::datatypes::Schema;
use logmill_guest::operator::{Failure, Operator, Outputs, Signature};

struct Identity;

impl Operator for Identity {
    type Config = ();

    fn new(input: &Schema, (): ()) -> Result<(Self, Signature), String> {
        Ok((Identity, Signature::new("out", input.clone())))
    }

    fn on_batch(&mut self, batch: RecordBatch, out: &mut Outputs) -> Result<(), Failure> {
        out.push(batch);
        Ok(())
    }
}

logmill_guest::operator!(Identity);
