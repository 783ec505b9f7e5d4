//! Columns out of what transforms put out. The bytes are the guest's: whatever they are, there is a column or an error.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, ListArray, PrimitiveArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use logmill_columns::{BadObject, Decoded, JsonColumns};
use logmill_pipelines::flow::META_COLUMNS;
use logmill_pipelines::{UnknownFields, nearest};
use logmill_wasm::{Content, readable};

use super::packed::Headers;

/// How many hidden columns follow those of an output.
pub(super) const HIDDEN: usize = META_COLUMNS.len();

/// What is said of a value that is no JSON object of its columns.
const NO_OBJECT: &str = "is no JSON object of its columns";
/// What is said of one that is not there.
const NULL: &str = "is null, which means a deletion: rows of columns cannot say that";

/// A value that its output cannot have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadValue {
    /// Its number among the values.
    pub(super) index: usize,
    /// What is wrong with it: `is no UTF-8`.
    pub(super) reason: String,
}

/// Why values make no columns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// Because of these, and no others; at least one.
    Values(Vec<BadValue>),
    /// Because of all of them together.
    All(String),
}

/// What a value takes at the least, in bytes: a null takes as much.
pub(super) fn least_bytes(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => 1 + fields.iter().map(|field| least_bytes(field.data_type())).sum::<usize>(),
        other => 1 + other.primitive_width().unwrap_or(size_of::<i32>()),
    }
}

/// The first `visible` columns of a schema, out of the values of messages.
pub(super) fn read<'a>(
    content: &Content,
    schema: &SchemaRef,
    visible: usize,
    values: impl Iterator<Item = Option<&'a [u8]>>,
) -> Result<Vec<ArrayRef>, ReadError> {
    match content {
        Content::Bytes => Ok(vec![binary(values).map_err(ReadError::All)?]),
        Content::Text => text(&values.collect::<Vec<_>>()).map(|column| vec![column]),
        Content::Json(_) => {
            let fields: Fields = schema.fields().iter().take(visible).cloned().collect();
            json(&Schema::new(fields), &values.collect::<Vec<_>>())
        }
    }
}

fn text(values: &[Option<&[u8]>]) -> Result<ArrayRef, ReadError> {
    let (offsets, bytes, nulls) = concat(values.iter().copied()).map_err(ReadError::All)?;
    match StringArray::try_new(offsets, bytes, nulls) {
        Ok(column) => Ok(Arc::new(column)),
        Err(error) => {
            let bad =
                values.iter().enumerate().filter(|(_, value)| value.is_some_and(|v| std::str::from_utf8(v).is_err()));
            let bad = bad.map(|(index, _)| BadValue { index, reason: "is no UTF-8".to_owned() });
            let bad: Vec<BadValue> = bad.collect();
            if bad.is_empty() { Err(ReadError::All(error.to_string())) } else { Err(ReadError::Values(bad)) }
        }
    }
}

/// A column of bytes.
pub(super) fn binary<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef, String> {
    let (offsets, bytes, nulls) = concat(values)?;
    let column = BinaryArray::try_new(offsets, bytes, nulls).map_err(|error| error.to_string())?;
    Ok(Arc::new(column))
}

type Concatenated = (OffsetBuffer<i32>, Buffer, Option<NullBuffer>);

/// Values one after the other.
fn concat<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<Concatenated, String> {
    let mut offsets = Vec::with_capacity(values.size_hint().0 + 1);
    offsets.push(0);
    let mut bytes = Vec::new();
    let mut valid = Vec::with_capacity(values.size_hint().0);
    for value in values {
        valid.push(value.is_some());
        bytes.extend_from_slice(value.unwrap_or_default());
        offsets.push(i32::try_from(bytes.len()).map_err(|_| "it made more than 2 GiB of one column")?);
    }
    let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
    Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(bytes), nulls))
}

/// The column `_timestamp`.
pub(super) fn timestamps(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// The column `_partition` or `_offset`: those of the rows that messages were made of, in their order.
pub(super) fn numbers<T: ArrowPrimitiveType>(
    of: Option<&PrimitiveArray<T>>,
    rows: impl Iterator<Item = usize>,
) -> ArrayRef {
    let number = |row: usize| of.filter(|of| row < of.len() && of.is_valid(row)).map(|of| of.value(row));
    Arc::new(rows.map(number).collect::<PrimitiveArray<T>>())
}

/// The column `_headers`.
pub(super) fn headers<'a>(messages: impl Iterator<Item = Headers<'a>>) -> Result<ArrayRef, String> {
    let mut ends = vec![0];
    let mut names: Vec<Option<&[u8]>> = Vec::new();
    let mut header_values = Vec::new();
    for headers in messages {
        for (name, value) in headers.iter() {
            names.push(Some(name.as_bytes()));
            header_values.push(value);
        }
        ends.push(i32::try_from(names.len()).map_err(|_| "it made too many headers")?);
    }
    let (offsets, bytes, _) = concat(names.into_iter())?;
    let names = StringArray::try_new(offsets, bytes, None).map_err(|error| error.to_string())?;
    let fields =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)]);
    let pairs = StructArray::try_new(fields, vec![Arc::new(names), binary(header_values.into_iter())?], None);
    let pairs = pairs.map_err(|error| error.to_string())?;
    let item: FieldRef = Arc::new(Field::new("item", pairs.data_type().clone(), true));
    let lists = ListArray::try_new(item, OffsetBuffer::new(ScalarBuffer::from(ends)), Arc::new(pairs), None);
    Ok(Arc::new(lists.map_err(|error| error.to_string())?))
}

/// Columns out of JSON objects.
fn json(schema: &Schema, values: &[Option<&[u8]>]) -> Result<Vec<ArrayRef>, ReadError> {
    let all =
        |error: &dyn std::fmt::Display| ReadError::All(format!("what it made is no JSON of its columns: {error}"));
    let decoder = JsonColumns::new(schema, schema, UnknownFields::Error).map_err(|error| all(&error))?;
    let Decoded { columns, errors } = decoder.strict().decode(values.iter().copied()).map_err(|error| all(&error))?;
    match errors.is_empty() {
        true => Ok(columns),
        false => Err(ReadError::Values(errors.iter().map(|bad| bad_object(schema, bad)).collect())),
    }
}

fn bad_object(schema: &Schema, bad: &BadObject) -> BadValue {
    let reason = match (&bad.unknown, &bad.column) {
        _ if bad.at.is_none() => NULL.to_owned(),
        (Some(field), _) => {
            let near = nearest(field, schema.fields().iter().map(|field| field.name().as_str()));
            let hint = near.map(|near| format!("; did it mean `{near}`?")).unwrap_or_default();
            format!("{NO_OBJECT}: it has a field `{field}`, which is no column{hint}")
        }
        (None, Some(column)) => format!("{NO_OBJECT}: column `{column}`: {}", bad.problem),
        (None, None) => format!("{NO_OBJECT}: {}", bad.problem),
    };
    BadValue { index: bad.index, reason: readable(&reason) }
}
