//! Which arguments a guest's function may be called with, other than those of the types that it names: SQL casts them
//! where nothing is lost, or where a value that does not fit fails. For anything else whoever calls says how.

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};

/// How an argument of another type may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coercion {
    /// By any expression: SQL casts it.
    Any,
    /// By a literal that can be had in the other type: `1` for a float, a text for a time.
    Literal,
    /// Not at all.
    None,
}

/// How an argument of type `to` may be given as one of type `from`.
pub(super) fn coercion(from: &DataType, to: &DataType) -> Coercion {
    if is_kept(from, to) {
        Coercion::Any
    } else if is_literal(from, to) {
        Coercion::Literal
    } else {
        Coercion::None
    }
}

/// Whether every value is kept, or fails if it does not fit.
fn is_kept(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Date32, Float16, Float32, Float64, LargeBinary, LargeList, LargeUtf8, List, Struct,
        Timestamp, Utf8, Utf8View,
    };
    match (from, to) {
        _ if from == to || from.is_null() => true,
        _ if from.is_integer() && to.is_integer() => true,
        _ if from.is_integer() && to.is_decimal() => scale(to) >= 0,
        _ if from.is_integer() => from.primitive_width().is_some_and(|bytes| bytes * 8 < mantissa_bits(to)),
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        _ if from.is_decimal() && to.is_decimal() => scale(to) >= scale(from),
        // What is finer than a microsecond is cut, as everywhere.
        (Timestamp(_, from), Timestamp(_, to)) => from.is_some() == to.is_some(),
        (Date32, Timestamp(_, zone)) => zone.is_none(),
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary) => true,
        (BinaryView | LargeBinary | Binary, Binary | LargeBinary | BinaryView) => true,
        (List(from) | LargeList(from), List(to) | LargeList(to)) => is_kept(from.data_type(), to.data_type()),
        (Struct(from), Struct(to)) => {
            let mut pairs = from.iter().zip(to);
            from.len() == to.len() && pairs.all(|(a, b)| a.name() == b.name() && is_kept(a.data_type(), b.data_type()))
        }
        _ => false,
    }
}

/// How many bits of an integer a float keeps, its sign included.
fn mantissa_bits(float: &DataType) -> usize {
    match float {
        DataType::Float64 => 54,
        DataType::Float32 => 25,
        DataType::Float16 => 12,
        _ => 0,
    }
}

fn scale(decimal: &DataType) -> i8 {
    match decimal {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale,
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => *scale,
        _ => 0,
    }
}

/// Whether literals of one type may stand for values of the other: those of numbers are of the widest type there is, and
/// times are written as texts.
fn is_literal(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, LargeUtf8, Timestamp, Utf8, Utf8View};
    match (from, to) {
        (Utf8 | LargeUtf8 | Utf8View, Timestamp(..) | Date32) => true,
        _ => from.is_numeric() && (to.is_floating() || to.is_decimal()),
    }
}

/// A literal as a value of another type; fails if that is another value.
pub(super) fn exactly(literal: &ScalarValue, to: &DataType) -> Result<ScalarValue> {
    let values = cast(&literal.to_array()?, to)?;
    // A float is written in decimal digits: the nearest is what is meant, whichever type it has.
    let is_same = match (literal.data_type(), to) {
        (from, to) if from.is_floating() && to.is_floating() => true,
        (from, to) if is_kept(&from, to) => true,
        (from, _) if from.is_numeric() => cast(&values, &from)
            .is_ok_and(|back| ScalarValue::try_from_array(&back, 0).is_ok_and(|back| back == *literal)),
        _ => true,
    };
    if !is_same {
        return exec_err!("{literal} is no {to}");
    }
    ScalarValue::try_from_array(&values, 0)
}

fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(values, to, &CastOptions { safe: false, ..CastOptions::default() })?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use logmill_pipelines::ColumnType;

    use super::*;

    fn data_type(text: &str) -> DataType {
        text.parse::<ColumnType>().unwrap().to_arrow()
    }

    #[test]
    fn what_keeps_its_value_is_cast_and_the_rest_must_be() {
        use Coercion::{Any, Literal, None};
        for (from, to, expected) in [
            ("int64", "int64", Any),
            ("int64", "int8", Any),
            ("int32", "float64", Any),
            ("uint32", "float64", Any),
            ("int64", "float64", Literal),
            ("uint64", "float64", Literal),
            ("int16", "float32", Any),
            ("int32", "float32", Literal),
            ("float32", "float64", Any),
            ("float64", "float32", Literal),
            ("float64", "int64", None),
            ("float64", "decimal(10,2)", Literal),
            ("decimal(10,2)", "float64", Literal),
            ("decimal(10,2)", "decimal(12,2)", Any),
            ("decimal(10,2)", "decimal(12,3)", Any),
            ("decimal(10,2)", "decimal(12,1)", Literal),
            ("int64", "decimal(10,2)", Any),
            ("timestamp", "timestamp_local", None),
            ("timestamp_local", "timestamp", None),
            ("date", "timestamp_local", Any),
            ("date", "timestamp", None),
            ("string", "timestamp", Literal),
            ("string", "date", Literal),
            ("string", "binary", Any),
            ("string", "int64", None),
            ("boolean", "int64", None),
            ("list<int32>", "list<float64>", Any),
            ("list<int64>", "list<float64>", None),
        ] {
            assert_eq!(coercion(&data_type(from), &data_type(to)), expected, "{from} for {to}");
        }
    }

    #[test]
    fn literals_are_taken_as_what_they_are() {
        let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
        let int = |value| ScalarValue::Int64(Some(value));
        let float = |value| ScalarValue::Float64(Some(value));
        for (literal, to, expected) in [
            (int(5), "float64", Some("5")),
            (int((1 << 53) + 1), "float64", None),
            (int(16_777_217), "float32", None),
            (float(0.1), "float32", Some("0.1")),
            (float(1.25), "decimal(10,2)", Some("1.25")),
            (float(1.255), "decimal(10,2)", None),
            (text("2013-01-01"), "date", Some("2013-01-01")),
            (text("January"), "date", None),
        ] {
            let found = exactly(&literal, &data_type(to)).ok().map(|value| value.to_string());
            assert_eq!(found.as_deref(), expected, "{literal} as {to}");
        }
    }
}
