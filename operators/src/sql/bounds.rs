//! What functions may make of a row and of a batch: bounded before they allocate.
//!
//! Most functions give about as much as they are given. The others are listed by [`Growth`], with a bound of their result
//! that follows from their arguments. A value above [`VALUE_BYTES`] is an error of its row. Where the values of a batch may
//! take more than [`CALL_BYTES`] together, the function is called for some rows after the other, and fails once they do.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_err, resources_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

/// What one value may take, in bytes.
const VALUE_BYTES: u128 = 64 << 20;
/// What the values of one call may take, in bytes.
const CALL_BYTES: u128 = 256 << 20;
/// What the rows may make that a function is called for at once.
const PART_BYTES: u128 = 64 << 20;
/// What an item of a list, a number or a null, takes at most beside its own bytes.
const ITEM_BYTES: u128 = 48;

/// How the result of a function follows from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// `(value, count)`: the value so often.
    Repeat,
    /// `(text, length, fill)`: so many characters.
    Pad,
    /// `(list, length, fill)`: so many items.
    Resize,
    /// `(text, from, to)`: `to` for each `from`.
    Replace,
    /// `(text, pattern, to)`: `to`, with groups in it, at each place of the text.
    ReplaceMatches,
    /// `(list, delimiter, null)`: the items and what stands between them.
    Join,
    /// `(list, from, to)`: `to` for each item.
    ReplaceItems,
    /// `(start, stop, step)`: the values in between.
    Range,
}

impl Growth {
    /// Of a function by its name; `None` if it gives about as much as it is given.
    pub(super) fn of(function: &str) -> Option<Self> {
        match function {
            "repeat" | "array_repeat" => Some(Self::Repeat),
            "lpad" | "rpad" => Some(Self::Pad),
            "array_resize" => Some(Self::Resize),
            "replace" => Some(Self::Replace),
            "regexp_replace" => Some(Self::ReplaceMatches),
            "array_to_string" => Some(Self::Join),
            "array_replace" | "array_replace_n" | "array_replace_all" => Some(Self::ReplaceItems),
            "range" | "generate_series" => Some(Self::Range),
            _ => None,
        }
    }

    /// Calls a function within the bounds.
    pub(super) fn invoke(self, function: &ScalarUDF, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self == Self::Pad
            && let Some(length) = args.args.get_mut(1)
        {
            // The functions take a negative length for one without an end.
            *length = not_negative(length)?;
        }
        let rows = args.number_rows;
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arguments = args.args.iter().map(Argument::new).collect::<Result<Vec<_>>>()?;
        let (mut total, mut parts) = (0_u128, vec![]);
        let (mut part_start, mut part_bytes) = (0, 0_u128);
        for row in 0..if is_constant { 1 } else { rows } {
            let bytes = self.bound(&arguments, row);
            if bytes > VALUE_BYTES {
                return exec_err!(
                    "`{}` would make a value of up to {bytes} bytes, more than {} MiB",
                    function.name(),
                    VALUE_BYTES >> 20
                );
            }
            if part_bytes + bytes > PART_BYTES {
                parts.push(part_start..row);
                (part_start, part_bytes) = (row, 0);
            }
            (total, part_bytes) = (total + bytes, part_bytes + bytes);
        }
        if is_constant || total <= CALL_BYTES {
            return function.invoke_with_args(args);
        }
        parts.push(part_start..rows);
        in_parts(function, &args, parts)
    }

    /// What a row makes, at most, in bytes.
    fn bound(self, arguments: &[Argument], row: usize) -> u128 {
        let bytes = |index: usize| arguments.get(index).map_or(0, |argument| argument.bytes(row));
        let count = |index: usize| arguments.get(index).map_or(0, |argument| argument.count(row));
        let items = |index: usize| arguments.get(index).map_or(0, |argument| argument.items(row));
        match self {
            Self::Repeat => count(1).saturating_mul(bytes(0) + size_of::<u128>() as u128),
            Self::Pad => count(1).saturating_mul(4),
            Self::Resize => bytes(0) + count(1).saturating_mul(bytes(2) + ITEM_BYTES),
            Self::Replace => bytes(0) + (bytes(0) / bytes(1).max(1) + 1).saturating_mul(bytes(2)),
            Self::ReplaceMatches => {
                let groups = arguments.get(2).map_or(0, |argument| argument.groups(row));
                let places = match arguments.get(3) {
                    Some(flags) if flags.holds(row, b'g') => bytes(0) + 1,
                    _ => 1,
                };
                bytes(0) + places.saturating_mul(bytes(2)) + groups.saturating_mul(bytes(0))
            }
            Self::Join => 8 * bytes(0) + items(0).saturating_mul(ITEM_BYTES + bytes(1) + bytes(2)),
            Self::ReplaceItems => bytes(0) + items(0).saturating_mul(bytes(2) + ITEM_BYTES),
            Self::Range => range_items(arguments, row).saturating_mul(8),
        }
    }
}

/// Whole numbers, with 0 in the place of those below.
fn not_negative(numbers: &ColumnarValue) -> Result<ColumnarValue> {
    let (array, is_constant) = match numbers {
        ColumnarValue::Array(array) => (array.clone(), false),
        ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
    };
    let Some(values) = array.as_primitive_opt::<Int64Type>() else { return Ok(numbers.clone()) };
    let values = values.unary::<_, Int64Type>(|n| n.max(0));
    match is_constant {
        true => ScalarValue::try_from_array(&values, 0).map(ColumnarValue::Scalar),
        false => Ok(ColumnarValue::Array(Arc::new(values))),
    }
}

/// Calls a function for some rows after the other.
fn in_parts(
    function: &ScalarUDF,
    all: &ScalarFunctionArgs,
    parts: Vec<std::ops::Range<usize>>,
) -> Result<ColumnarValue> {
    let (mut made, mut bytes): (Vec<ArrayRef>, u128) = (Vec::new(), 0);
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let slice = |arg: &ColumnarValue| match arg {
            ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(part.start, part.len())),
            scalar => scalar.clone(),
        };
        let args = all.args.iter().map(slice).collect();
        let called = function.invoke_with_args(ScalarFunctionArgs {
            args,
            arg_fields: all.arg_fields.clone(),
            number_rows: part.len(),
            return_field: all.return_field.clone(),
            config_options: all.config_options.clone(),
        })?;
        let array = called.into_array(part.len())?;
        bytes += array.get_array_memory_size() as u128;
        if bytes > CALL_BYTES {
            return resources_err!("`{}` makes more than {} MiB of a batch", function.name(), CALL_BYTES >> 20);
        }
        made.push(array);
    }
    let made: Vec<&dyn Array> = made.iter().map(|array| array.as_ref()).collect();
    Ok(ColumnarValue::Array(concat(&made)?))
}

/// How many values `range` and `generate_series` make for a row, at most.
fn range_items(arguments: &[Argument], row: usize) -> u128 {
    let (start, stop, step) = match arguments {
        [stop] => (None, stop, None),
        [start, stop] => (Some(start), stop, None),
        [start, stop, step, ..] => (Some(start), stop, Some(step)),
        [] => return 0,
    };
    let start = start.map_or(Some(0), |start| start.point(row));
    let (Some(start), Some(stop)) = (start, stop.point(row)) else { return 0 };
    let Some(step) = step.map_or(Some(1), |step| step.step(row)) else { return 0 };
    match step {
        // The function refuses a step of nothing.
        0 => 0,
        step if (stop < start) != (step < 0) && stop != start => 0,
        step => stop.abs_diff(start) / step.unsigned_abs() + 2,
    }
}

/// An argument of a call, one value a row.
struct Argument {
    array: ArrayRef,
    is_constant: bool,
    /// As whole numbers, if it is some.
    numbers: Option<ArrayRef>,
}

impl Argument {
    fn new(value: &ColumnarValue) -> Result<Self> {
        let (array, is_constant) = match value {
            ColumnarValue::Array(array) => (array.clone(), false),
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
        };
        let numbers = array.data_type().is_integer().then(|| cast(&array, &DataType::Int64)).transpose()?;
        Ok(Self { array, is_constant, numbers })
    }

    fn at(&self, row: usize) -> usize {
        if self.is_constant { 0 } else { row }
    }

    fn count(&self, row: usize) -> u128 {
        u128::try_from(self.number(row).unwrap_or(0)).unwrap_or(0)
    }

    fn number(&self, row: usize) -> Option<i128> {
        let numbers = self.numbers.as_ref()?;
        let row = self.at(row);
        numbers.is_valid(row).then(|| i128::from(numbers.as_primitive::<Int64Type>().value(row)))
    }

    fn text(&self, row: usize) -> &[u8] {
        let row = self.at(row);
        match self.array.data_type() {
            DataType::Utf8 => self.array.as_string::<i32>().value(row).as_bytes(),
            DataType::LargeUtf8 => self.array.as_string::<i64>().value(row).as_bytes(),
            DataType::Utf8View => self.array.as_string_view().value(row).as_bytes(),
            DataType::Binary => self.array.as_binary::<i32>().value(row),
            DataType::LargeBinary => self.array.as_binary::<i64>().value(row),
            DataType::BinaryView => self.array.as_binary_view().value(row),
            _ => &[],
        }
    }

    fn bytes(&self, row: usize) -> u128 {
        match self.array.data_type() {
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Struct(_) => {
                let value = self.array.slice(self.at(row), 1).to_data();
                value.get_slice_memory_size().map_or(u128::from(u64::MAX), |bytes| bytes as u128)
            }
            other => other.primitive_width().unwrap_or_else(|| self.text(row).len()) as u128,
        }
    }

    fn items(&self, row: usize) -> u128 {
        let at = self.at(row);
        let items = match self.array.data_type() {
            DataType::List(_) => self.array.as_list::<i32>().value(at),
            DataType::LargeList(_) => self.array.as_list::<i64>().value(at),
            DataType::FixedSizeList(..) => self.array.as_fixed_size_list().value(at),
            _ => return 1,
        };
        // Lists in lists count with what is in them.
        (items.len() as u128).max(items.to_data().get_slice_memory_size().map_or(0, |bytes| bytes as u128 / 4))
    }

    /// How often a replacement names a group of the match.
    fn groups(&self, row: usize) -> u128 {
        self.text(row).iter().filter(|byte| matches!(byte, b'\\' | b'$')).count() as u128
    }

    fn holds(&self, row: usize, byte: u8) -> bool {
        self.text(row).contains(&byte)
    }

    /// A point that a range begins or ends at: a number, or a time in nanoseconds.
    fn point(&self, row: usize) -> Option<i128> {
        const DAY: i128 = 86_400_000_000_000;
        if let Some(number) = self.number(row) {
            return Some(number);
        }
        let at = self.at(row);
        let (unit, as_i64) = match self.array.data_type() {
            DataType::Date32 => (DAY, cast(&self.array.slice(at, 1), &DataType::Int32).ok()?),
            DataType::Date64 => (1_000_000, self.array.slice(at, 1)),
            DataType::Timestamp(TimeUnit::Second, _) => (1_000_000_000, self.array.slice(at, 1)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => (1_000_000, self.array.slice(at, 1)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => (1_000, self.array.slice(at, 1)),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => (1, self.array.slice(at, 1)),
            _ => return None,
        };
        let number = cast(&as_i64, &DataType::Int64).ok()?;
        number.is_valid(0).then(|| i128::from(number.as_primitive::<Int64Type>().value(0)) * unit)
    }

    /// The least that a range goes on by; 1 where parts of an interval go different ways.
    fn step(&self, row: usize) -> Option<i128> {
        if let Some(number) = self.number(row) {
            return Some(number);
        }
        let at = self.at(row);
        let steps = self.array.as_primitive_opt::<IntervalMonthDayNanoType>()?;
        if steps.is_null(at) {
            return None;
        }
        let step = steps.value(at);
        let parts = [
            i128::from(step.months) * 28 * 86_400_000_000_000,
            i128::from(step.days) * 86_400_000_000_000,
            i128::from(step.nanoseconds),
        ];
        let goes_both_ways = parts.iter().any(|part| *part < 0) && parts.iter().any(|part| *part > 0);
        Some(if goes_both_ways { 1 } else { parts.iter().sum() })
    }
}
