//! Gives the rows of a Parquet file the types that a pipeline declares, and finds the rows that cannot have them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use logmill_columns::{invalid_values, out_of_range};
use logmill_pipelines::ColumnType;

use crate::error::ConnectorError;
use crate::format::shown_rows;
use crate::source::RejectedRow;

/// Values that do not fit are an error, not null.
const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// A row of a batch that does not fit, with its number in the batch.
pub(super) struct Unfit {
    row: usize,
    message: String,
    value: Bytes,
}

impl Unfit {
    /// The row of a file whose batch begins at `first`.
    pub(super) fn at(self, file: &str, first: u64) -> RejectedRow {
        let row = first.saturating_add(self.row as u64);
        RejectedRow {
            place: format!("{file}, row {}", row.saturating_add(1)),
            offset: i64::try_from(row).unwrap_or(i64::MAX),
            message: self.message,
            value: self.value,
        }
    }
}

/// The rows with the columns and types that are wanted, and those that cannot have them.
pub(super) fn fit(rows: &RecordBatch, wanted: &SchemaRef) -> Result<(RecordBatch, Vec<Unfit>), ConnectorError> {
    // What lies outside of a range is found before a cast could wrap it around.
    let out_of_range = out_of_range(rows).into_iter().map(|bad| (bad.row, bad.message));
    let mut unfit: BTreeMap<usize, String> = out_of_range.collect();
    // All rows at once; where a value among them does not fit, each half, to find which.
    let (mut good, mut pieces) = (Vec::new(), Vec::new());
    let mut ranges = if rows.num_rows() > 0 { vec![(0, rows.num_rows())] } else { Vec::new() };
    while let Some((first, count)) = ranges.pop() {
        match convert(&rows.slice(first, count), wanted) {
            Ok(piece) => {
                good.extend(first..first + count);
                pieces.push(piece);
            }
            Err(message) if count <= 1 => {
                unfit.entry(first).or_insert(message);
            }
            Err(_) => {
                let half = count / 2;
                ranges.extend([(first + half, count - half), (first, half)]);
            }
        }
    }
    let fitted = concat_batches(wanted, &pieces).map_err(batch_error)?;
    for bad in invalid_values(&fitted) {
        if let Some(row) = good.get(bad.row) {
            unfit.entry(*row).or_insert(bad.message);
        }
    }
    if unfit.is_empty() {
        return Ok((fitted, Vec::new()));
    }
    let kept: BooleanArray = good.iter().map(|row| Some(!unfit.contains_key(row))).collect();
    Ok((filter_record_batch(&fitted, &kept).map_err(batch_error)?, shown(rows, unfit)?))
}

fn shown(rows: &RecordBatch, unfit: BTreeMap<usize, String>) -> Result<Vec<Unfit>, ConnectorError> {
    let one = |(row, message)| {
        let value = shown_rows(&rows.slice(row, 1))?.into_iter().next().unwrap_or_default();
        Ok(Unfit { row, message, value })
    };
    unfit.into_iter().map(one).collect()
}

fn batch_error(error: ArrowError) -> ConnectorError {
    ConnectorError::Permanent { context: "cannot put rows together".into(), source: error.into() }
}

/// The rows with the columns and types that are wanted, or what is wrong with one of their values.
fn convert(rows: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch, String> {
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
        Some(column) => convert_column(column, field).map_err(|error| format!("column `{}`: {error}", field.name())),
    };
    let columns = wanted.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(wanted.clone(), columns, &options).map_err(|error| error.to_string())
}

fn convert_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef, String> {
    let wanted = field.data_type();
    let converted = cast_with_options(column, wanted, &STRICT).map_err(|error| error.to_string())?;
    if !may_cut_digits(column.data_type(), wanted) {
        return Ok(converted);
    }
    // Arrow cuts digits without an error. What comes back as it was has lost none.
    let back = cast_with_options(&converted, column.data_type(), &STRICT).map_err(|error| error.to_string())?;
    let is_same = arrow::array::make_comparator(column, &back, arrow::compute::SortOptions::default())
        .map_err(|error| error.to_string())?;
    let shown = |array: &ArrayRef, row| array_value_to_string(array, row).unwrap_or_else(|error| error.to_string());
    // To an integer, -0.0 is 0, wherever in a list or a struct it is.
    let without_negative_zero = |array: &ArrayRef, row| shown(array, row).replace("-0.0", "0.0");
    let differs = |row: &usize| {
        let row = *row;
        is_same(row, row).is_ne() && without_negative_zero(column, row) != without_negative_zero(&back, row)
    };
    match (0..column.len()).find(differs) {
        Some(row) => {
            let wanted = ColumnType::from_field(field).map_or_else(|_| wanted.to_string(), |kind| kind.to_string());
            Err(format!("{} has digits that {wanted} cannot hold", shown(column, row)))
        }
        None => Ok(converted),
    }
}

/// Whether a cast between the types can drop digits of a number: a fraction, or the last digits of a decimal. A cast from a
/// float to a decimal rounds, like every cast to a float: few floats are decimals.
fn may_cut_digits(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Dictionary(_, from), to) => may_cut_digits(from, to),
        (
            DataType::List(from) | DataType::LargeList(from) | DataType::FixedSizeList(from, _),
            DataType::List(to) | DataType::LargeList(to) | DataType::FixedSizeList(to, _),
        ) => may_cut_digits(from.data_type(), to.data_type()),
        (DataType::Struct(from), DataType::Struct(to)) => to.iter().any(|to| {
            let same = from.iter().find(|from| from.name() == to.name());
            same.is_some_and(|from| may_cut_digits(from.data_type(), to.data_type()))
        }),
        (from, to) if from.is_floating() => to.is_integer(),
        (from, to) => from.is_decimal() && (to.is_integer() || to.is_decimal()),
    }
}
