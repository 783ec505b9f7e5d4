//! Finds out the columns of records from a sample of them.
//!
//! Types widen until they hold every value seen: integers to floats, times to strings; what has no common type
//! becomes `json`, and what was always null a string.

use arrow::datatypes::Schema;
use indexmap::IndexMap;
use logmill_columns::scalar::{self, Number};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::META_COLUMNS;
use serde_json::Value;

use super::csv::{self, Dialect};
use super::{UNKNOWN_COLUMN, raw};
use crate::error::ConnectorError;
use crate::source::Records;

/// How many records a sample holds at most.
pub const SAMPLE_RECORDS: usize = 1000;
/// How many bytes a sample holds at most, but for its last record.
pub const SAMPLE_BYTES: usize = crate::source::CHUNK_BYTES;

/// How deep lists and structs nest in an inferred type.
const MAX_NESTING: usize = 16;

/// What is known of a column's type.
#[derive(Clone, Debug, PartialEq)]
enum Guess {
    Null,
    Boolean,
    Integer,
    /// More than an `int64` holds.
    Unsigned,
    Float,
    /// Only `NaN` and the like, which are floats among floats, and text otherwise.
    FloatWord,
    Timestamp,
    Text,
    List(Box<Guess>),
    Object(IndexMap<String, Guess>),
    Json,
}

impl Guess {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if number.is_i64() => Self::Integer,
            Value::Number(number) if number.is_u64() => Self::Unsigned,
            Value::Number(_) => Self::Float,
            Value::String(text) if scalar::is_timestamp(text.as_bytes()) => Self::Timestamp,
            Value::String(text) if scalar::float_word(text.as_bytes()).is_some() => Self::FloatWord,
            Value::String(_) => Self::Text,
            Value::Array(items) => Self::List(Box::new(items.iter().map(Self::of).fold(Self::Null, Self::widen))),
            Value::Object(members) if members.is_empty() => Self::Json,
            Value::Object(members) => {
                Self::Object(members.iter().map(|(name, value)| (name.clone(), Self::of(value))).collect())
            }
        }
    }

    /// Of a field of CSV, where everything is text.
    fn of_text(text: &str) -> Self {
        match Number::read(text.as_bytes()).filter(|number| number.text.len() == text.len()) {
            Some(number) => match number.integer() {
                Some(value) if i64::try_from(value).is_ok() => Self::Integer,
                Some(_) if number.negative => Self::Float,
                Some(_) => Self::Unsigned,
                None => Self::Float,
            },
            None if matches!(text, "true" | "false" | "TRUE" | "FALSE" | "True" | "False") => Self::Boolean,
            None if scalar::is_timestamp(text.as_bytes()) => Self::Timestamp,
            None if scalar::float_word(text.as_bytes()).is_some() => Self::FloatWord,
            None => Self::Text,
        }
    }

    /// The narrowest that holds both.
    fn widen(self, other: Self) -> Self {
        match (self, other) {
            (left, right) if left == right => left,
            (Self::Null, other) | (other, Self::Null) => other,
            (
                Self::Integer | Self::Unsigned | Self::Float | Self::FloatWord,
                Self::Integer | Self::Unsigned | Self::Float,
            )
            | (Self::Integer | Self::Unsigned | Self::Float, Self::FloatWord) => Self::Float,
            (Self::Timestamp | Self::Text | Self::FloatWord, Self::Timestamp | Self::Text | Self::FloatWord) => {
                Self::Text
            }
            (Self::List(left), Self::List(right)) => Self::List(Box::new(left.widen(*right))),
            (Self::Object(mut left), Self::Object(right)) => {
                for (name, guess) in right {
                    merge(&mut left, name, guess);
                }
                Self::Object(left)
            }
            _ => Self::Json,
        }
    }

    /// In CSV whatever has no common type is text.
    fn widen_text(self, other: Self) -> Self {
        match self.widen(other) {
            Self::Json => Self::Text,
            guess => guess,
        }
    }

    /// The type of a column; what nests deeper than types do is `json`.
    fn column_type(self) -> ColumnType {
        self.nested_type(MAX_NESTING)
    }

    fn nested_type(self, levels: usize) -> ColumnType {
        match self {
            Self::Boolean => ColumnType::Boolean,
            Self::Integer => ColumnType::Int64,
            Self::Unsigned => ColumnType::UInt64,
            Self::Float => ColumnType::Float64,
            Self::Timestamp => ColumnType::Timestamp,
            Self::Null | Self::Text | Self::FloatWord => ColumnType::String,
            Self::Json => ColumnType::Json,
            Self::List(_) | Self::Object(_) if levels == 0 => ColumnType::Json,
            Self::List(item) => ColumnType::List(Box::new(item.nested_type(levels - 1))),
            Self::Object(members) => ColumnType::Struct(
                members.into_iter().map(|(name, guess)| (name, guess.nested_type(levels - 1))).collect(),
            ),
        }
    }
}

fn merge(guesses: &mut IndexMap<String, Guess>, name: String, guess: Guess) {
    let known = guesses.entry(name).or_insert(Guess::Null);
    *known = std::mem::replace(known, Guess::Null).widen(guess);
}

/// A schema of guessed columns. Names of hidden columns are left out.
fn schema(guesses: IndexMap<String, Guess>) -> Schema {
    let named =
        guesses.into_iter().filter(|(name, _)| !META_COLUMNS.contains(&name.as_str()) && name != UNKNOWN_COLUMN);
    Schema::new(named.map(|(name, guess)| guess.column_type().to_field(&name)).collect::<Vec<_>>())
}

/// The columns of JSON objects. Records that are none are passed over: decoding will tell them.
///
/// # Errors
/// `Data` if the sample holds no object.
pub(crate) fn json(sample: &Records) -> Result<Schema, ConnectorError> {
    let mut guesses = IndexMap::new();
    let mut objects = 0;
    for index in 0..sample.len().min(SAMPLE_RECORDS) {
        if let Some(Ok(Value::Object(members))) = sample.value(index).map(serde_json::from_slice) {
            objects += 1;
            members.iter().for_each(|(name, value)| merge(&mut guesses, name.clone(), Guess::of(value)));
        }
    }
    if objects == 0 {
        return Err(empty(&sample.place, sample.len()));
    }
    Ok(schema(guesses))
}

/// The columns of CSV whose fields are named `names`; without names they are called `column_1` and so on.
pub(crate) fn csv(sample: &Records, names: Option<&[String]>, dialect: &Dialect) -> Result<Schema, ConnectorError> {
    let mut guesses: Vec<Guess> = vec![Guess::Null; names.map_or(0, <[String]>::len)];
    for index in 0..sample.len().min(SAMPLE_RECORDS) {
        let Some(Ok(fields)) = sample.value(index).map(|value| csv::split(value, dialect)) else { continue };
        if names.is_none() && guesses.len() < fields.len() {
            guesses.resize(fields.len(), Guess::Null);
        }
        for (guess, field) in guesses.iter_mut().zip(fields) {
            let field = field.map_or(Guess::Null, |text| Guess::of_text(&text));
            *guess = std::mem::replace(guess, Guess::Null).widen_text(field);
        }
    }
    if guesses.is_empty() {
        return Err(empty(&sample.place, sample.len()));
    }
    let name = |index: usize| {
        let given = names.and_then(|names| names.get(index));
        given.cloned().unwrap_or_else(|| format!("column_{}", index + 1))
    };
    Ok(schema(guesses.into_iter().enumerate().map(|(index, guess)| (name(index), guess)).collect()))
}

/// The one column of raw values.
pub(crate) fn raw(sample: &Records) -> Schema {
    let text =
        (0..sample.len()).filter_map(|index| sample.value(index)).all(|value| std::str::from_utf8(value).is_ok());
    if text { raw::default_schema() } else { Schema::new(vec![ColumnType::Binary.to_field(raw::COLUMN)]) }
}

/// There is nothing to infer from.
pub(crate) fn empty(place: &str, records: usize) -> ConnectorError {
    let what = match records {
        0 => "there are no records yet".to_owned(),
        1 => "the one record is not of its format".to_owned(),
        records => format!("none of {records} records is of its format"),
    };
    ConnectorError::Data {
        place: place.to_owned(),
        message: format!(
            "cannot infer the columns: {what}; declare them, as in `schema: {{ name: string, at: timestamp }}`"
        ),
    }
}

/// A schema as lines to paste into a pipeline's YAML, each indented by `indent` spaces.
pub fn schema_yaml(schema: &Schema, indent: usize) -> String {
    let mut text = format!("{:indent$}schema:\n", "");
    for field in schema.fields() {
        let name = field.name();
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && !["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&name.to_lowercase().as_str());
        let name = if plain { name.clone() } else { Value::from(name.as_str()).to_string() };
        let kind =
            ColumnType::from_field(field).map_or_else(|_| field.data_type().to_string(), |kind| kind.to_string());
        let kind = if kind.contains(['{', '`', ',']) { Value::from(kind).to_string() } else { kind };
        text.push_str(&format!("{:indent$}  {name}: {kind}\n", ""));
    }
    text
}
