//! Values that no text can show: times outside the calendar, times of day outside a day, decimals with too many digits,
//! JSON columns that hold no JSON.
//!
//! Arrow columns can hold them, formats of text cannot. So they are refused where rows enter: at sources that read
//! columns, after SQL, and behind guests. A column is checked by its smallest and largest value; only where one of those
//! is out of range are the rows looked at one by one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNumericType, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Field, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampSecondType,
};
use logmill_pipelines::ColumnType;

use crate::cursor::{Cursor, check_strings};
use crate::scalar::{DAYS, MICROS, YEARS};

/// A value that cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// The row that it is in.
    pub row: usize,
    /// The column, and what is wrong with the value.
    pub message: String,
}

/// The first value of each row that is outside the range of its type, by row. Takes no time worth mentioning where there is
/// none.
#[must_use]
pub fn out_of_range(rows: &RecordBatch) -> Vec<BadValue> {
    find(rows, &|_| false)
}

/// As [`out_of_range`], of one column.
#[must_use]
pub fn column_out_of_range(field: &Field, column: &ArrayRef) -> Vec<BadValue> {
    let mut found = BTreeMap::new();
    find_in(field, column, &|_| false, &mut found);
    in_order(found)
}

/// As [`out_of_range`], and finds the texts of `json` columns that are no JSON. It is for rows that come from outside.
#[must_use]
pub fn invalid_values(rows: &RecordBatch) -> Vec<BadValue> {
    find(rows, &|field| ColumnType::from_field(field) == Ok(ColumnType::Json))
}

fn find(rows: &RecordBatch, is_json: &dyn Fn(&Field) -> bool) -> Vec<BadValue> {
    let mut found = BTreeMap::new();
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        find_in(field, column, is_json, &mut found);
    }
    in_order(found)
}

/// Adds the bad values of a column to the messages by row, of which the first stays.
fn find_in(field: &Field, column: &ArrayRef, is_json: &dyn Fn(&Field) -> bool, found: &mut BTreeMap<usize, String>) {
    let mut bad = BTreeMap::new();
    check(field, column, is_json, &mut bad);
    for (row, problem) in bad {
        found.entry(row).or_insert_with(|| format!("column `{}`: {problem}", field.name()));
    }
}

fn in_order(found: BTreeMap<usize, String>) -> Vec<BadValue> {
    found.into_iter().map(|(row, message)| BadValue { row, message }).collect()
}

/// Adds the bad values of a column by their rows.
fn check(field: &Field, column: &ArrayRef, is_json: &dyn Fn(&Field) -> bool, bad: &mut BTreeMap<usize, String>) {
    match column.data_type() {
        DataType::Date32 => numbers::<Date32Type>(column, *DAYS.start()..=*DAYS.end(), bad, &|value| {
            outside_calendar("date", i128::from(value), "days")
        }),
        DataType::Date64 => {
            let millis = i64::from(*DAYS.start()) * 86_400_000..=(i64::from(*DAYS.end()) + 1) * 86_400_000 - 1;
            numbers::<Date64Type>(column, millis, bad, &|value| outside_calendar("date", value.into(), "ms"));
        }
        DataType::Timestamp(unit, _) => timestamps(column, *unit, bad),
        DataType::Time32(TimeUnit::Second) => {
            numbers::<Time32SecondType>(column, 0..=86_399, bad, &|value| outside_day(value.into(), "s"));
        }
        DataType::Time32(_) => {
            numbers::<Time32MillisecondType>(column, 0..=86_399_999, bad, &|value| outside_day(value.into(), "ms"));
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let day = 0..=86_399_999_999;
            numbers::<Time64MicrosecondType>(column, day, bad, &|value| outside_day(value, "µs"));
        }
        DataType::Time64(_) => {
            let day = 0..=86_399_999_999_999;
            numbers::<Time64NanosecondType>(column, day, bad, &|value| outside_day(value, "ns"));
        }
        DataType::Decimal128(precision, _) => {
            let most = 10i128.checked_pow(u32::from(*precision)).map_or(i128::MAX, |power| power - 1);
            numbers::<Decimal128Type>(column, -most..=most, bad, &|_| {
                format!("the number has more than {precision} digits")
            });
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if is_json(field) => json(column, bad),
        DataType::Dictionary(_, values) => plain(field, column, values, is_json, bad),
        DataType::RunEndEncoded(_, values) => plain(field, column, values.data_type(), is_json, bad),
        _ => nested(column, is_json, bad),
    }
}

/// Checks a column as if each row held its own value.
fn plain(
    field: &Field,
    column: &ArrayRef,
    values: &DataType,
    is_json: &dyn Fn(&Field) -> bool,
    bad: &mut BTreeMap<usize, String>,
) {
    let is_plain_text = matches!(values, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) && !is_json(field);
    if !is_plain_text && let Ok(column) = cast(column, values) {
        check(field, &column, is_json, bad);
    }
}

fn timestamps(column: &ArrayRef, unit: TimeUnit, bad: &mut BTreeMap<usize, String>) {
    let (start, end) = (*MICROS.start(), *MICROS.end());
    let (range, name) = match unit {
        TimeUnit::Second => (start / 1_000_000..=end / 1_000_000, "s"),
        TimeUnit::Millisecond => (start / 1_000..=end / 1_000, "ms"),
        TimeUnit::Microsecond => (start..=end, "µs"),
        // All of them lie between the years 1677 and 2262.
        TimeUnit::Nanosecond => return,
    };
    let problem = |value: i64| outside_calendar("timestamp", value.into(), name);
    match unit {
        TimeUnit::Second => numbers::<TimestampSecondType>(column, range, bad, &problem),
        TimeUnit::Millisecond => numbers::<TimestampMillisecondType>(column, range, bad, &problem),
        _ => numbers::<TimestampMicrosecondType>(column, range, bad, &problem),
    }
}

fn numbers<T: ArrowNumericType>(
    column: &ArrayRef,
    range: RangeInclusive<T::Native>,
    bad: &mut BTreeMap<usize, String>,
    problem: &dyn Fn(T::Native) -> String,
) {
    let values = column.as_primitive::<T>();
    let fits = |value: T::Native| range.contains(&value);
    if min(values).is_none_or(fits) && max(values).is_none_or(fits) {
        return;
    }
    let outside =
        values.iter().enumerate().filter_map(|(row, value)| Some((row, value.filter(|value| !fits(*value))?)));
    bad.extend(outside.map(|(row, value)| (row, problem(value))));
}

fn outside_calendar(what: &str, value: i128, unit: &str) -> String {
    format!("the {what} {value} {unit} from 1970 is outside the years {} to {}", YEARS.start(), YEARS.end())
}

fn outside_day(value: i64, unit: &str) -> String {
    format!("the time {value} {unit} after midnight is outside a day")
}

fn json(column: &ArrayRef, bad: &mut BTreeMap<usize, String>) {
    let Ok(texts) = cast(column, &DataType::LargeUtf8) else { return };
    for (row, text) in texts.as_string::<i64>().iter().enumerate() {
        if let Some(problem) = text.and_then(|text| json_problem(text.as_bytes())) {
            bad.insert(row, problem);
        }
    }
}

/// Why a text is not one JSON value, if it is not.
fn json_problem(text: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new(text);
    cursor.space();
    let skipped = cursor.skip();
    cursor.space();
    match skipped {
        Err(problem) => Some(format!("not JSON: {}", problem.0)),
        Ok(()) if !cursor.rest().is_empty() => Some(format!("not JSON: {} follows the value", cursor.found())),
        Ok(()) => check_strings(text).err().map(|problem| problem.0),
    }
}

/// Checks what lists and structs hold. A value inside is that of the row, unless the list or struct around it is null.
fn nested(column: &ArrayRef, is_json: &dyn Fn(&Field) -> bool, bad: &mut BTreeMap<usize, String>) {
    match column.data_type() {
        DataType::List(item) => items(item, column.as_list::<i32>(), is_json, bad),
        DataType::LargeList(item) => items(item, column.as_list::<i64>(), is_json, bad),
        DataType::FixedSizeList(item, width) => {
            let lists = column.as_fixed_size_list();
            let width = usize::try_from(*width).unwrap_or(0);
            let start = |row: usize| usize::try_from(lists.value_offset(row)).unwrap_or(usize::MAX);
            let row_items = |row| start(row)..start(row).saturating_add(width);
            lift(item, lists.values(), is_json, column, &row_items, bad);
        }
        DataType::Struct(fields) => {
            for (field, values) in fields.iter().zip(column.as_struct().columns()) {
                lift(field, values, is_json, column, &|row| row..row + 1, bad);
            }
        }
        _ => {}
    }
}

fn items<O: OffsetSizeTrait>(
    item: &Field,
    lists: &GenericListArray<O>,
    is_json: &dyn Fn(&Field) -> bool,
    bad: &mut BTreeMap<usize, String>,
) {
    let offsets = lists.value_offsets();
    let at = |index: usize| offsets.get(index).map_or(0, |offset| offset.as_usize());
    let column: ArrayRef = Arc::new(lists.clone());
    lift(item, lists.values(), is_json, &column, &|row| at(row)..at(row + 1), bad);
}

/// Checks the values inside of a column. `inside` says which of them belong to a row of the column.
fn lift(
    field: &Field,
    values: &ArrayRef,
    is_json: &dyn Fn(&Field) -> bool,
    column: &ArrayRef,
    inside: &dyn Fn(usize) -> std::ops::Range<usize>,
    bad: &mut BTreeMap<usize, String>,
) {
    let mut found = BTreeMap::new();
    check(field, values, is_json, &mut found);
    if found.is_empty() {
        return;
    }
    for row in (0..column.len()).filter(|row| column.is_valid(*row)) {
        if let Some((_, problem)) = found.range(inside(row)).next() {
            bad.entry(row).or_insert_with(|| problem.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use arrow::array::{
        Date32Array, Decimal128Array, ListArray, StringArray, StructArray, Time32SecondArray,
        TimestampMicrosecondArray, TimestampSecondArray,
    };
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use arrow::datatypes::{Fields, Schema};

    use super::*;

    fn problems(field: Field, column: ArrayRef) -> Vec<(usize, String)> {
        let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap();
        invalid_values(&rows).into_iter().map(|bad| (bad.row, bad.message)).collect()
    }

    fn of_column(column: ArrayRef) -> Vec<usize> {
        let field = Field::new("c", column.data_type().clone(), true);
        problems(field, column).into_iter().map(|(row, _)| row).collect()
    }

    #[test]
    fn extremes_are_found_and_nulls_are_not_looked_at() {
        let micros = TimestampMicrosecondArray::new(
            vec![i64::MAX, 0, i64::MIN, *MICROS.start(), *MICROS.end(), i64::MAX].into(),
            Some(NullBuffer::from(vec![true, true, true, true, true, false])),
        );
        assert_eq!(of_column(Arc::new(micros)), [0, 2]);
        assert_eq!(of_column(Arc::new(TimestampSecondArray::from(vec![0, i64::MAX]))), [1]);
        assert_eq!(of_column(Arc::new(Time32SecondArray::from(vec![-1, 0, 86_399, 86_400]))), [0, 3]);
        assert_eq!(
            of_column(Arc::new(Date32Array::from(vec![i32::MIN, *DAYS.start(), *DAYS.end(), i32::MAX]))),
            [0, 3]
        );
        let decimals = Decimal128Array::from(vec![999, -999, 1000, i128::MIN]).with_precision_and_scale(3, 1).unwrap();
        assert_eq!(of_column(Arc::new(decimals)), [2, 3]);
    }

    #[test]
    fn messages_name_the_column_and_the_value() {
        let micros = TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC");
        let field = Field::new("at", micros.data_type().clone(), true);
        let message =
            "column `at`: the timestamp 9223372036854775807 µs from 1970 is outside the years -262142 to 262141";
        assert_eq!(problems(field, Arc::new(micros)), [(0, message.to_owned())]);
        let times = Time32SecondArray::from(vec![-1]);
        let field = Field::new("t", times.data_type().clone(), true);
        let message = "column `t`: the time -1 s after midnight is outside a day";
        assert_eq!(problems(field, Arc::new(times)), [(0, message.to_owned())]);
    }

    #[test]
    fn values_inside_belong_to_their_row_unless_it_is_null() {
        let days: ArrayRef = Arc::new(Date32Array::from(vec![i32::MAX, 0, i32::MAX, 1, i32::MAX]));
        let item = Arc::new(Field::new("item", DataType::Date32, true));
        let lists = ListArray::new(
            item,
            OffsetBuffer::new(vec![0, 1, 2, 3, 4].into()),
            days.clone(),
            Some(NullBuffer::from(vec![true, true, false, true])),
        );
        assert_eq!(of_column(Arc::new(lists)), [0], "the last item is that of no row");
        let fields = Fields::from(vec![Field::new("d", DataType::Date32, true)]);
        let structs = StructArray::new(fields, vec![days], Some(NullBuffer::from(vec![false, true, true, true, true])));
        assert_eq!(of_column(Arc::new(structs)), [2, 4]);
    }

    #[test]
    fn columns_of_json_hold_json() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![
            Some("{\"a\": [1]} "),
            Some("{}{}"),
            Some("nul"),
            None,
            Some("[\"\n\"]"),
            Some("[\"\\q\"]"),
        ]));
        let found = problems(ColumnType::Json.to_field("j"), texts.clone());
        let expected = [
            (1, "column `j`: not JSON: an object follows the value".to_owned()),
            (2, "column `j`: not JSON: expected a value, found null".to_owned()),
            (
                4,
                "column `j`: a string of the JSON text holds the control character `\\n`, which must be escaped"
                    .to_owned(),
            ),
            (5, "column `j`: a string of the JSON text has an unknown escape".to_owned()),
        ];
        assert_eq!(found, expected);
        assert_eq!(of_column(texts), [0; 0]);
    }
}
