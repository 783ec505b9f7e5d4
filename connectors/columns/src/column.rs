//! Builds one Arrow column from values as they stand in the text of records.
//!
//! Unlike Arrow's own builders these can take back the last rows, which is how a record that turns out to be bad
//! half-way leaves no trace. Text is checked to be UTF-8 once for a whole column, in `finish`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, BooleanBufferBuilder, ListArray, NullBufferBuilder,
    PrimitiveArray, StringArray, StructArray, new_empty_array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::error::ArrowError;
use logmill_pipelines::ColumnType;

use crate::cursor::{Cursor, Problem, RawString, check_strings, unescape};
use crate::scalar::{self, Number};

/// How much of a value a message shows.
const SHOWN_BYTES: usize = 40;

/// A column that no text is read into: its type is none that a schema can declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedColumn(String);

impl fmt::Display for UnsupportedColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnsupportedColumn {}

/// What appending a value works with.
#[derive(Debug, Default)]
pub struct Scratch {
    text: Vec<u8>,
    /// Whether a field of an object that is none of its struct's is an error, or is left out.
    pub refuses_unknown: bool,
}

/// One column while it is built.
#[derive(Debug)]
pub struct Column {
    /// `int32` and so on, for messages.
    kind: ColumnType,
    valid: NullBufferBuilder,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>, u8, i8),
    Text(Bytes),
    Json(Bytes),
    Binary(Bytes),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>),
    TimestampLocal(Vec<i64>),
    List(FieldRef, Vec<i32>, Box<Column>),
    Struct(Fields, Vec<(String, Column)>),
}

/// Values of any length, one after the other.
#[derive(Debug)]
struct Bytes {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Bytes {
    fn new() -> Self {
        Self { ends: vec![0], bytes: Vec::new() }
    }

    /// Ends the value whose bytes were appended.
    #[inline]
    fn end(&mut self) -> Result<(), Problem> {
        let end =
            i32::try_from(self.bytes.len()).map_err(|_| Problem("the records hold more than 2 GiB of text".into()))?;
        self.ends.push(end);
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.bytes.truncate(self.ends.last().map_or(0, |end| usize::try_from(*end).unwrap_or(0)));
    }

    /// Drops the bytes of a value that was not ended.
    fn take_back(&mut self) {
        self.truncate(self.ends.len().saturating_sub(1));
    }

    #[inline]
    fn string(&mut self, raw: &RawString<'_>) -> Result<(), Problem> {
        if raw.escaped {
            unescape(raw.bytes, &mut self.bytes)?;
        } else {
            self.bytes.extend_from_slice(raw.bytes);
        }
        self.end()
    }
}

/// Does the same with the values of every variant that is a vector of numbers.
macro_rules! numbers {
    ($values:expr, $vector:ident => $action:expr, $($others:tt)*) => {
        match $values {
            Values::Int8($vector) => $action,
            Values::Int16($vector) => $action,
            Values::Int32($vector) | Values::Date($vector) => $action,
            Values::Int64($vector) | Values::Time($vector) | Values::Timestamp($vector)
                | Values::TimestampLocal($vector) => $action,
            Values::UInt8($vector) => $action,
            Values::UInt16($vector) => $action,
            Values::UInt32($vector) => $action,
            Values::UInt64($vector) => $action,
            Values::Float32($vector) => $action,
            Values::Float64($vector) => $action,
            Values::Decimal($vector, ..) => $action,
            $($others)*
        }
    };
}

impl Column {
    /// An empty column of the field's type; it must be one that a schema can declare.
    ///
    /// # Errors
    /// If it is not.
    pub fn new(field: &Field) -> Result<Self, UnsupportedColumn> {
        let unsupported = |message: String| UnsupportedColumn(format!("column `{}`: {message}", field.name()));
        let kind = ColumnType::from_field(field).map_err(|error| unsupported(error.to_string()))?;
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::UInt8 => Values::UInt8(Vec::new()),
            DataType::UInt16 => Values::UInt16(Vec::new()),
            DataType::UInt32 => Values::UInt32(Vec::new()),
            DataType::UInt64 => Values::UInt64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal(Vec::new(), *precision, *scale),
            DataType::Utf8 if kind == ColumnType::Json => Values::Json(Bytes::new()),
            DataType::Utf8 => Values::Text(Bytes::new()),
            DataType::Binary => Values::Binary(Bytes::new()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(Vec::new()),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Values::Timestamp(Vec::new()),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Values::TimestampLocal(Vec::new()),
            DataType::List(item) => Values::List(item.clone(), vec![0], Box::new(Self::new(item)?)),
            DataType::Struct(fields) => {
                let columns = fields.iter().map(|field| Ok((field.name().clone(), Self::new(field)?)));
                Values::Struct(fields.clone(), columns.collect::<Result<_, UnsupportedColumn>>()?)
            }
            other => return Err(unsupported(format!("the Arrow type {other} is none that records are read into"))),
        };
        Ok(Self { kind, valid: NullBufferBuilder::new(0), values })
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.valid.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes back all but the first `rows` values.
    pub fn truncate(&mut self, rows: usize) {
        if self.valid.len() > rows {
            self.valid.truncate(rows);
        }
        numbers!(&mut self.values, vector => vector.truncate(rows),
            Values::Boolean(values) => if values.len() > rows { values.truncate(rows) },
            Values::Text(values) | Values::Json(values) | Values::Binary(values) => values.truncate(rows),
            Values::List(_, ends, items) => {
                ends.truncate(rows + 1);
                items.truncate(ends.last().map_or(0, |end| usize::try_from(*end).unwrap_or(0)));
            }
            Values::Struct(_, columns) => columns.iter_mut().for_each(|(_, column)| column.truncate(rows)),
        );
    }

    /// Appends a null.
    pub fn append_null(&mut self) {
        numbers!(&mut self.values, vector => vector.push(Default::default()),
            Values::Boolean(values) => values.append(false),
            Values::Text(values) | Values::Json(values) | Values::Binary(values) => {
                let end = values.ends.last().copied().unwrap_or(0);
                values.ends.push(end);
            }
            Values::List(_, ends, _) => ends.push(ends.last().copied().unwrap_or(0)),
            Values::Struct(_, columns) => columns.iter_mut().for_each(|(_, column)| column.append_null()),
        );
        self.valid.append_null();
    }

    /// Appends the JSON value that the cursor stands on. After an error the column may hold a part of the value:
    /// truncate it.
    #[inline]
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn append_json(&mut self, cursor: &mut Cursor<'_>, scratch: &mut Scratch) -> Result<(), Problem> {
        if cursor.null() {
            self.append_null();
            return Ok(());
        }
        let start = cursor.at;
        match &mut self.values {
            Values::Text(values) => {
                let raw = cursor.string()?;
                values.string(&raw)?;
            }
            Values::Boolean(values) => match cursor.peek() {
                b't' if cursor.take(b"true") => values.append(true),
                b'f' if cursor.take(b"false") => values.append(false),
                _ => return Err(Problem::expected("a boolean", cursor.found())),
            },
            Values::Json(values) => {
                cursor.skip()?;
                check_strings(cursor.since(start))?;
                values.bytes.extend_from_slice(cursor.since(start));
                values.end()?;
            }
            Values::List(_, ends, items) => {
                list(cursor, scratch, items)?;
                ends.push(i32::try_from(items.len()).map_err(|_| Problem("lists of more than 2^31 items".into()))?);
            }
            Values::Struct(_, columns) => object(cursor, scratch, columns)?,
            Values::Decimal(values, precision, scale) => {
                let text = match cursor.peek() {
                    b'"' => cursor.string()?.bytes,
                    _ => cursor.number("a number")?.text,
                };
                values.push(decimal(text, *precision, *scale, &self.kind)?);
            }
            _ if cursor.peek() == b'"' => {
                let raw = cursor.string()?;
                let text = if raw.escaped {
                    scratch.text.clear();
                    unescape(raw.bytes, &mut scratch.text)?;
                    scratch.text.as_slice()
                } else {
                    raw.bytes
                };
                if !self.append_quoted(text) {
                    return Err(self.unfit(text));
                }
            }
            _ => {
                let wanted = self.wanted();
                let number = match cursor.peek() {
                    b'-' | b'0'..=b'9' => cursor.number(wanted)?,
                    _ => return Err(Problem::expected(wanted, cursor.found())),
                };
                if !self.append_number(&number) {
                    let shown = number.text.get(..number.text.len().min(SHOWN_BYTES)).unwrap_or_default();
                    return Err(Problem::expected(&self.kind, String::from_utf8_lossy(shown)));
                }
            }
        }
        self.valid.append_non_null();
        Ok(())
    }

    /// Appends a value from plain text, such as a field of CSV. After an error, truncate.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn append_text(&mut self, text: &[u8]) -> Result<(), Problem> {
        match &mut self.values {
            Values::Text(values) => {
                values.bytes.extend_from_slice(text);
                values.end()?;
            }
            Values::Boolean(values) => match text {
                b"true" | b"TRUE" | b"True" | b"t" | b"T" | b"1" => values.append(true),
                b"false" | b"FALSE" | b"False" | b"f" | b"F" | b"0" => values.append(false),
                _ => return Err(self.unfit(text)),
            },
            Values::Decimal(values, precision, scale) => values.push(decimal(text, *precision, *scale, &self.kind)?),
            Values::Json(_) | Values::List(..) | Values::Struct(..) => {
                let mut cursor = Cursor::new(text);
                cursor.space();
                let appended = self.append_json(&mut cursor, &mut Scratch::default());
                cursor.space();
                return appended.and_then(|()| match cursor.rest() {
                    [] => Ok(()),
                    _ => Err(Problem::expected("the end of the JSON value", cursor.found())),
                });
            }
            _ => {
                let number = Number::read(text).filter(|number| number.text.len() == text.len());
                let appended = number.is_some_and(|number| self.append_number(&number)) || self.append_quoted(text);
                if !appended {
                    return Err(self.unfit(text));
                }
            }
        }
        self.valid.append_non_null();
        Ok(())
    }

    #[cold]
    fn unfit(&self, text: &[u8]) -> Problem {
        let shown = String::from_utf8_lossy(text.get(..text.len().min(SHOWN_BYTES)).unwrap_or_default());
        Problem(format!("expected {}, found \"{}\"", self.wanted(), shown.escape_debug()))
    }

    /// What fits the column, in words.
    fn wanted(&self) -> &'static str {
        match &self.values {
            Values::Boolean(_) => "a boolean",
            Values::Float32(_) | Values::Float64(_) | Values::Decimal(..) => "a number",
            Values::Text(_) | Values::Json(_) => "text",
            Values::Binary(_) => "bytes as hexadecimal digits",
            Values::Date(_) => "a date such as \"2013-01-31\"",
            Values::Time(_) => "a time of day such as \"17:30:00\"",
            Values::Timestamp(_) => "a time such as \"2013-01-31T17:30:00Z\"",
            Values::TimestampLocal(_) => "a time without zone such as \"2013-01-31T17:30:00\"",
            Values::List(..) => "a list",
            Values::Struct(..) => "an object",
            _ => "an integer",
        }
    }

    /// Appends what stands in a string, without marking it valid. False if it does not fit.
    #[inline]
    fn append_quoted(&mut self, text: &[u8]) -> bool {
        match &mut self.values {
            Values::Timestamp(values) => scalar::timestamp(text).map(|value| values.push(value)),
            Values::TimestampLocal(values) => scalar::timestamp_local(text).map(|value| values.push(value)),
            Values::Date(values) => scalar::date(text).map(|value| values.push(value)),
            Values::Time(values) => scalar::time(text).map(|value| values.push(value)),
            Values::Float32(values) => scalar::float_word(text).map(|value| values.push(value as f32)),
            Values::Float64(values) => scalar::float_word(text).map(|value| values.push(value)),
            Values::Binary(values) => match scalar::hex(text, &mut values.bytes) {
                Some(()) => values.end().ok(),
                None => {
                    values.take_back();
                    None
                }
            },
            _ => None,
        }
        .is_some()
    }

    /// Appends a number without marking it valid. False if it does not fit: integers come from integers only, and a
    /// number is no time, for it doesn't say in which unit.
    #[inline]
    fn append_number(&mut self, number: &Number<'_>) -> bool {
        #[inline]
        fn push<T: TryFrom<i64>>(values: &mut Vec<T>, number: &Number<'_>) -> bool {
            number.int64().and_then(|value| T::try_from(value).ok()).map(|value| values.push(value)).is_some()
        }
        match &mut self.values {
            Values::Int8(values) => push(values, number),
            Values::Int16(values) => push(values, number),
            Values::Int32(values) => push(values, number),
            Values::Int64(values) => push(values, number),
            Values::UInt8(values) => push(values, number),
            Values::UInt16(values) => push(values, number),
            Values::UInt32(values) => push(values, number),
            Values::UInt64(values) => {
                let value = number.integer().and_then(|value| u64::try_from(value).ok());
                value.map(|value| values.push(value)).is_some()
            }
            Values::Float32(values) => {
                let value = std::str::from_utf8(number.text).ok().and_then(|text| text.parse::<f32>().ok());
                value.filter(|value| value.is_finite()).map(|value| values.push(value)).is_some()
            }
            Values::Float64(values) => {
                number.float().filter(|value| value.is_finite()).map(|value| values.push(value)).is_some()
            }
            _ => false,
        }
    }

    /// The column so far; it is empty afterwards.
    ///
    /// # Errors
    /// If some text is not UTF-8.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = self.valid.len();
        let nulls = self.valid.finish();
        self.valid = NullBufferBuilder::new(rows);
        fn array<T: ArrowPrimitiveType>(
            values: &mut Vec<T::Native>,
            nulls: Option<arrow::buffer::NullBuffer>,
        ) -> Result<PrimitiveArray<T>, ArrowError> {
            let room = values.len();
            let values = std::mem::replace(values, Vec::with_capacity(room));
            PrimitiveArray::try_new(ScalarBuffer::from(values), nulls)
        }
        fn parts(values: &mut Bytes) -> (OffsetBuffer<i32>, arrow::buffer::Buffer) {
            let room = (values.ends.len(), values.bytes.len());
            let ends = std::mem::replace(&mut values.ends, Vec::with_capacity(room.0));
            values.ends.push(0);
            let bytes = std::mem::replace(&mut values.bytes, Vec::with_capacity(room.1));
            (OffsetBuffer::new(ScalarBuffer::from(ends)), arrow::buffer::Buffer::from_vec(bytes))
        }
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int8(values) => Arc::new(array::<Int8Type>(values, nulls)?),
            Values::Int16(values) => Arc::new(array::<Int16Type>(values, nulls)?),
            Values::Int32(values) => Arc::new(array::<Int32Type>(values, nulls)?),
            Values::Int64(values) => Arc::new(array::<Int64Type>(values, nulls)?),
            Values::UInt8(values) => Arc::new(array::<UInt8Type>(values, nulls)?),
            Values::UInt16(values) => Arc::new(array::<UInt16Type>(values, nulls)?),
            Values::UInt32(values) => Arc::new(array::<UInt32Type>(values, nulls)?),
            Values::UInt64(values) => Arc::new(array::<UInt64Type>(values, nulls)?),
            Values::Float32(values) => Arc::new(array::<Float32Type>(values, nulls)?),
            Values::Float64(values) => Arc::new(array::<Float64Type>(values, nulls)?),
            Values::Date(values) => Arc::new(array::<Date32Type>(values, nulls)?),
            Values::Time(values) => Arc::new(array::<Time64MicrosecondType>(values, nulls)?),
            Values::TimestampLocal(values) => Arc::new(array::<TimestampMicrosecondType>(values, nulls)?),
            Values::Timestamp(values) => {
                Arc::new(array::<TimestampMicrosecondType>(values, nulls)?.with_timezone("UTC"))
            }
            Values::Decimal(values, precision, scale) => {
                Arc::new(array::<Decimal128Type>(values, nulls)?.with_precision_and_scale(*precision, *scale)?)
            }
            Values::Text(values) | Values::Json(values) => {
                let (ends, bytes) = parts(values);
                Arc::new(StringArray::try_new(ends, bytes, nulls)?)
            }
            Values::Binary(values) => {
                let (ends, bytes) = parts(values);
                Arc::new(BinaryArray::try_new(ends, bytes, nulls)?)
            }
            Values::List(item, ends, items) => {
                let ends = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])));
                Arc::new(ListArray::try_new(item.clone(), ends, items.finish()?, nulls)?)
            }
            Values::Struct(fields, columns) => {
                let columns = columns.iter_mut().map(|(_, column)| column.finish()).collect::<Result<Vec<_>, _>>()?;
                match columns.is_empty() && rows == 0 {
                    true => new_empty_array(&DataType::Struct(fields.clone())),
                    false => Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, rows)?),
                }
            }
        })
    }
}

fn decimal(text: &[u8], precision: u8, scale: i8, kind: &ColumnType) -> Result<i128, Problem> {
    scalar::decimal(text, precision, scale).ok_or_else(|| {
        let shown = text.get(..text.len().min(SHOWN_BYTES)).unwrap_or_default();
        Problem::expected(kind, String::from_utf8_lossy(shown))
    })
}

fn list(cursor: &mut Cursor<'_>, scratch: &mut Scratch, items: &mut Column) -> Result<(), Problem> {
    if cursor.peek() != b'[' {
        return Err(Problem::expected("a list", cursor.found()));
    }
    cursor.at += 1;
    cursor.space();
    if cursor.take(b"]") {
        return Ok(());
    }
    loop {
        items.append_json(cursor, scratch)?;
        if !cursor.more(b']')? {
            return Ok(());
        }
    }
}

/// Appends an object to the columns of a struct: of a key that comes twice the first counts, missing ones are null, others
/// are left out.
fn object(cursor: &mut Cursor<'_>, scratch: &mut Scratch, columns: &mut [(String, Column)]) -> Result<(), Problem> {
    if cursor.peek() != b'{' {
        return Err(Problem::expected("an object", cursor.found()));
    }
    let rows = columns.first().map_or(0, |(_, column)| column.len());
    cursor.at += 1;
    cursor.space();
    if !cursor.take(b"}") {
        loop {
            let raw = cursor.string()?;
            let mut unescaped = Vec::new();
            let key = if raw.escaped {
                unescape(raw.bytes, &mut unescaped)?;
                unescaped.as_slice()
            } else {
                raw.bytes
            };
            cursor.expect(b':')?;
            match columns.iter_mut().find(|(name, column)| name.as_bytes() == key && column.len() == rows) {
                Some((name, column)) => column
                    .append_json(cursor, scratch)
                    .map_err(|problem| Problem(format!("field `{name}`: {}", problem.0)))?,
                None if scratch.refuses_unknown => {
                    let shown = String::from_utf8_lossy(key);
                    return Err(Problem(match columns.iter().any(|(name, _)| name.as_bytes() == key) {
                        true => format!("field `{shown}`: it comes twice"),
                        false => format!("there is no field `{shown}`"),
                    }));
                }
                None => cursor.skip()?,
            }
            if !cursor.more(b'}')? {
                break;
            }
        }
    }
    for (_, column) in columns {
        if column.len() == rows {
            column.append_null();
        }
    }
    Ok(())
}
