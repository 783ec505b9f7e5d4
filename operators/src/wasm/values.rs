//! Columns out of what transforms put out. The bytes are the guest's: whatever they are, there is a column or an error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, ListArray, PrimitiveArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::META_COLUMNS;
use logmill_wasm::Content;
use serde_json::Value;

use super::packed::Headers;
use super::strict::Object;

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
            json(&Arc::new(Schema::new(fields)), &values.collect::<Vec<_>>())
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

/// Columns out of JSON objects; where that fails, the values are halved until the bad ones are alone.
fn json(schema: &SchemaRef, values: &[Option<&[u8]>]) -> Result<Vec<ArrayRef>, ReadError> {
    let object = Object::new(schema.fields());
    let mut bad = Vec::new();
    let mut good = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        match value.map(|value| object.check(value).map(|()| value)) {
            Some(Ok(value)) => good.push(value),
            Some(Err(why)) => bad.push(BadValue { index, reason: format!("{NO_OBJECT}: {why}") }),
            None => bad.push(BadValue { index, reason: NULL.to_owned() }),
        }
    }
    match (bad.is_empty(), good.is_empty()) {
        (false, _) => Err(ReadError::Values(bad)),
        (true, true) => Ok(Vec::new()),
        (true, false) => halved(schema, &good),
    }
}

/// Columns out of JSON objects that fit as far as can be seen: of what texts mean, such as times, Arrow's reader decides.
fn halved(schema: &SchemaRef, values: &[&[u8]]) -> Result<Vec<ArrayRef>, ReadError> {
    let error = match objects(schema, values) {
        Ok(columns) => return Ok(columns),
        Err(error) => error,
    };
    let mut bad = Vec::new();
    let mut ranges = vec![(0, values.len(), error.clone())];
    while let Some((start, count, error)) = ranges.pop() {
        if count == 1 {
            bad.push(BadValue { index: start, reason: format!("{NO_OBJECT}: {error}") });
            continue;
        }
        let half = count / 2;
        for (start, count) in [(start + half, count - half), (start, half)] {
            if let Some(values) = values.get(start..start + count)
                && let Err(error) = objects(schema, values)
            {
                ranges.push((start, count, error));
            }
        }
    }
    match bad.is_empty() {
        true => Err(ReadError::All(format!("what it made is no JSON of its columns: {error}"))),
        false => Err(ReadError::Values(bad)),
    }
}

/// Columns out of one JSON object each.
fn objects(schema: &SchemaRef, values: &[&[u8]]) -> Result<Vec<ArrayRef>, String> {
    // No panic of Arrow's reader is known; as guests may write anything, none shall end the process.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let mut decoder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(values.len() + 1).build_decoder()?;
        let has_json = schema.fields().iter().any(|field| holds_json(field));
        for value in values {
            let before = decoder.len();
            if has_json {
                with_json_text(&mut decoder, schema, value)?
            } else {
                one(&mut decoder, value)?
            }
            if decoder.has_partial_record() || decoder.len() != before + 1 {
                return Err(ArrowError::JsonError("not exactly one object".to_owned()));
            }
        }
        decoder.flush()
    }));
    match read {
        Ok(Ok(Some(rows))) if rows.num_rows() == values.len() => Ok(rows.columns().to_vec()),
        Ok(Ok(_)) => Err("not as many objects as values".to_owned()),
        Ok(Err(ArrowError::JsonError(message))) => Err(message),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it cannot be read".to_owned()),
    }
}

fn one(decoder: &mut Decoder, value: &[u8]) -> Result<(), ArrowError> {
    let read = decoder.decode(value)?;
    let rest = value.get(read..).unwrap_or_default();
    if rest.is_empty() { Ok(()) } else { Err(ArrowError::JsonError("not exactly one object".to_owned())) }
}

/// Reads an object in which columns of type `json` hold any value, by making texts of those.
fn with_json_text(decoder: &mut Decoder, schema: &Schema, value: &[u8]) -> Result<(), ArrowError> {
    let mut value: Value = serde_json::from_slice(value).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    if !value.is_object() {
        return Err(ArrowError::JsonError("not an object".to_owned()));
    }
    to_text(&mut value, schema.fields());
    decoder.serialize(&[value])
}

fn to_text(value: &mut Value, fields: &Fields) {
    let Some(object) = value.as_object_mut() else { return };
    for field in fields {
        if let Some(value) = object.get_mut(field.name()) {
            column_to_text(value, field);
        }
    }
}

fn column_to_text(value: &mut Value, field: &Field) {
    match field.data_type() {
        _ if value.is_null() => {}
        _ if ColumnType::from_field(field) == Ok(ColumnType::Json) => *value = Value::String(value.to_string()),
        DataType::Struct(fields) => to_text(value, fields),
        DataType::List(item) => {
            value.as_array_mut().into_iter().flatten().for_each(|value| column_to_text(value, item))
        }
        _ => {}
    }
}

/// Whether a column holds JSON text, itself or in a part of it.
fn holds_json(field: &Field) -> bool {
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().any(|field| holds_json(field)),
        DataType::List(item) => holds_json(item),
        _ => ColumnType::from_field(field) == Ok(ColumnType::Json),
    }
}
