//! What this guest does: it counts the messages of each author, and the characters they wrote.
//!
//! The counts are its state: Logmill commits it together with what was read and written, and gives it back after a
//! restart, to a newer build of this module as well. It is kept in shards, and all of a file, or of a partition of a topic,
//! meets in one of them: what must be counted together has to come from one, as records with the same key do.

use std::collections::BTreeMap;
use std::sync::Arc;

use logmill_guest::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use logmill_guest::arrow::datatypes::{DataType, Field, Schema};
use logmill_guest::operator::{Failure, Operator, Outputs, Signature, StatefulOperator};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
struct Count {
    messages: i64,
    characters: i64,
}

#[derive(Default)]
struct Counts {
    by_author: BTreeMap<String, Count>,
}

fn output() -> Schema {
    Schema::new(vec![
        Field::new("author", DataType::Utf8, true),
        Field::new("messages", DataType::Int64, true),
        Field::new("characters", DataType::Int64, true),
    ])
}

impl Operator for Counts {
    type Config = ();

    /// Called when a pipeline is checked, and for each instance.
    fn new(input: &Schema, (): Self::Config) -> Result<(Self, Signature), String> {
        for name in ["author", "text"] {
            let field = input.field_with_name(name).map_err(|_| format!("there is no column `{name}`"))?;
            if field.data_type() != &DataType::Utf8 {
                return Err(format!("the column `{name}` is not of type string"));
            }
        }
        Ok((Counts::default(), Signature::new("counts", output()).reads(["author", "text"])))
    }

    /// Called with batches of rows; puts out a row for each, with the counts up to it.
    fn on_batch(&mut self, batch: RecordBatch, out: &mut Outputs) -> Result<(), Failure> {
        let text = |index: usize| {
            let column = batch.column(index).as_any().downcast_ref::<StringArray>();
            column.cloned().ok_or("the column is not of type string")
        };
        let (authors, texts) = (text(0)?, text(1)?);
        let (mut messages, mut characters) = (Vec::new(), Vec::new());
        for row in 0..batch.num_rows() {
            if authors.is_null(row) {
                return Err(Failure::at(row, "a message without an author"));
            }
            let count = self.by_author.entry(authors.value(row).to_owned()).or_default();
            count.messages += 1;
            count.characters += if texts.is_null(row) { 0 } else { texts.value(row).chars().count() as i64 };
            messages.push(count.messages);
            characters.push(count.characters);
        }
        let columns: Vec<ArrayRef> =
            vec![Arc::new(authors), Arc::new(Int64Array::from(messages)), Arc::new(Int64Array::from(characters))];
        out.push(RecordBatch::try_new(Arc::new(output()), columns).map_err(|error| error.to_string())?);
        Ok(())
    }
}

impl StatefulOperator for Counts {
    /// Raise it when the form of the state changes, and let `restore` read the older ones.
    const VERSION: u32 = 1;

    fn snapshot(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&self.by_author).map_err(|error| error.to_string())
    }

    fn restore(&mut self, version: u32, state: &[u8]) -> Result<(), String> {
        if version != Self::VERSION {
            return Err(format!("state of version {version} is not known"));
        }
        self.by_author = serde_json::from_slice(state).map_err(|error| error.to_string())?;
        Ok(())
    }
}

logmill_guest::stateful_operator!(Counts);
