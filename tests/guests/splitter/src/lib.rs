//! Parts its input in two: rows whose column is not null and at least `from` go on; the others are rejects, with a reason.
//!
//! ```text
//! config:   { column: distance, from: 500 }
//! main:     the input's columns
//! rejects:  the input's columns, reason: string
//! ```

use std::sync::Arc;

use logmill_guest::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use logmill_guest::arrow::compute::{cast, filter_record_batch, not};
use logmill_guest::arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
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

impl Operator for Splitter {
    type Config = Config;

    fn new(input: &Schema, config: Config) -> Result<(Self, Signature), String> {
        let found = input.field_with_name(&config.column);
        let field = found.map_err(|_| format!("the input has no column `{}`", config.column))?;
        if !field.data_type().is_numeric() {
            return Err(format!("`{}` is of type {}, not a number", config.column, field.data_type()));
        }
        let mut fields: Vec<_> = input.fields().iter().cloned().collect();
        fields.push(Field::new("reason", DataType::Utf8, false).into());
        let rejects: SchemaRef = Schema::new(fields).into();
        let signature = Signature::new("main", input.clone()).output("rejects", Arc::clone(&rejects));
        Ok((Splitter { config, rejects }, signature))
    }

    fn on_batch(&mut self, batch: RecordBatch, out: &mut Outputs) -> Result<(), Failure> {
        let text = |error: logmill_guest::arrow::error::ArrowError| Failure::from(error.to_string());
        let Config { column, from } = &self.config;
        let numbers = batch.column_by_name(column).ok_or_else(|| format!("there is no column `{column}`"))?;
        let numbers = cast(numbers, &DataType::Float64).map_err(text)?;
        let numbers = numbers.as_primitive::<Float64Type>();
        let keep: BooleanArray =
            numbers.iter().map(|number| Some(number.is_some_and(|number| number >= *from))).collect();
        let main = filter_record_batch(&batch, &keep).map_err(text)?;
        if main.num_rows() > 0 {
            out.push(main);
        }
        let rejected = filter_record_batch(&batch, &not(&keep).map_err(text)?).map_err(text)?;
        if rejected.num_rows() > 0 {
            let at = rejected.schema().index_of(column).map_err(text)?;
            let of = rejected.column(at);
            let reason =
                |row| if of.is_null(row) { format!("{column} is null") } else { format!("{column} is below {from}") };
            let reasons: ArrayRef = Arc::new(StringArray::from_iter_values((0..rejected.num_rows()).map(reason)));
            let columns = rejected.columns().iter().cloned().chain([reasons]).collect();
            out.push_to("rejects", operator::batch(&self.rejects, columns)?);
        }
        Ok(())
    }
}

logmill_guest::operator!(Splitter);
