//! Parts its input in two: rows whose column is not null and at least `from` go on; the others are rejects, with a reason.
//!
//! ```text
//! config:   { column: distance, from: 500 }
//! main:     the input's columns
//! rejects:  the input's columns, reason: string
//! ```

use std::sync::Arc;

use logmill_guest::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use logmill_guest::arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef};
use logmill_guest::operator::{self, Failure, Operator, Outputs, Signature};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    column: String,
    from: f64,
}

struct Splitter {
    config: Config,
    rejects: SchemaRef,
}

fn number(column: &ArrayRef, row: usize) -> Option<f64> {
    column.is_valid(row).then(|| match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row) as f64,
        _ => column.as_primitive::<Float64Type>().value(row),
    })
}

impl Operator for Splitter {
    type Config = Config;

    fn new(input: &Schema, config: Config) -> Result<(Self, Signature), String> {
        let found = input.field_with_name(&config.column);
        let field = found.map_err(|_| format!("the input has no column `{}`", config.column))?;
        if !matches!(field.data_type(), DataType::Int32 | DataType::Int64 | DataType::Float64) {
            return Err(format!("`{}` is of type {}, not a number", config.column, field.data_type()));
        }
        let mut fields: Vec<_> = input.fields().iter().cloned().collect();
        fields.push(Field::new("reason", DataType::Utf8, false).into());
        let rejects: SchemaRef = Schema::new(fields).into();
        let signature = Signature::new("main", input.clone()).output("rejects", Arc::clone(&rejects));
        Ok((Splitter { config, rejects }, signature))
    }

    fn on_batch(&mut self, batch: RecordBatch, out: &mut Outputs) -> Result<(), Failure> {
        let Config { column, from } = &self.config;
        let numbers = batch.column_by_name(column).ok_or_else(|| format!("there is no column `{column}`"))?;
        let is_enough = |row: &usize| number(numbers, *row).is_some_and(|number| number >= *from);
        let rows: Vec<usize> = (0..batch.num_rows()).collect();
        // Rows next to each other that go the same way are a batch.
        for run in rows.chunk_by(|row, next| is_enough(row) == is_enough(next)) {
            let part = batch.slice(run[0], run.len());
            if is_enough(&run[0]) {
                out.push(part);
                continue;
            }
            let reason = |row: &usize| match numbers.is_null(*row) {
                true => format!("{column} is null"),
                false => format!("{column} is below {from}"),
            };
            let reasons: ArrayRef = Arc::new(StringArray::from_iter_values(run.iter().map(reason)));
            let columns = part.columns().iter().cloned().chain([reasons]).collect();
            out.push_to("rejects", operator::batch(&self.rejects, columns)?);
        }
        Ok(())
    }
}

logmill_guest::operator!(Splitter);
