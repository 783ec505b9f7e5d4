//! CSV after RFC 4180: one record a line, fields quoted where they hold the delimiter, a quote or a line end.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::Schema;
use bytes::{BufMut, BytesMut};
use logmill_columns::{Column, Problem};
use logmill_pipelines::UnknownFields;
use memchr::{memchr, memchr2};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::csv_encode;
use super::meta::{DecodedValues, ValueDecoder};
use crate::decode::RowError;
use crate::error::ConnectorError;
use crate::source::Records;

/// How CSV is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvOptions {
    /// What stands between fields: one ASCII character.
    pub delimiter: char,
    /// What fields are quoted with: one ASCII character.
    pub quote: char,
    /// Whether the first line of a file names the columns. Without it they are those of `schema`, in order. Records of
    /// a topic never have such a line.
    pub header: bool,
    /// Unquoted fields that mean null. The first one is what null is written as.
    pub null_values: Vec<String>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: ',', quote: '"', header: true, null_values: vec![String::new()] }
    }
}

/// Checked options.
#[derive(Clone, Debug)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) quote: u8,
    pub(crate) nulls: Vec<Vec<u8>>,
}

impl CsvOptions {
    /// The options, if they can be.
    pub(crate) fn dialect(&self) -> Result<Dialect, String> {
        let byte = |key: &str, symbol: char| match u8::try_from(symbol) {
            Ok(byte) if byte.is_ascii() && byte != b'\n' && byte != b'\r' => Ok(byte),
            _ => Err(format!("`{key}` must be one ASCII character and no line end")),
        };
        let (delimiter, quote) = (byte("delimiter", self.delimiter)?, byte("quote", self.quote)?);
        if delimiter == quote {
            return Err("`delimiter` and `quote` must differ".into());
        }
        let nulls: Vec<Vec<u8>> = self.null_values.iter().map(|text| text.as_bytes().to_vec()).collect();
        if nulls.iter().flatten().any(|byte| [delimiter, quote, b'\n', b'\r'].contains(byte)) {
            return Err(
                "`null_values` hold no delimiter, quote or line end: fields with those are quoted, and what is \
                        quoted is not null"
                    .into(),
            );
        }
        Ok(Dialect { delimiter, quote, nulls })
    }

    /// The line that names the columns, without its line end.
    ///
    /// # Errors
    /// `Config` if the options cannot be.
    pub fn header_line(&self, schema: &Schema) -> Result<String, ConnectorError> {
        let dialect = self.dialect().map_err(ConnectorError::Config)?;
        let mut line = BytesMut::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                line.put_u8(dialect.delimiter);
            }
            csv_encode::put(field.name().as_bytes(), &dialect, &mut line);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

/// One field of a record.
struct Field<'a> {
    text: &'a [u8],
    quoted: bool,
}

/// The fields of one record, from left to right.
struct Fields<'a> {
    rest: Option<&'a [u8]>,
    dialect: &'a Dialect,
}

impl<'a> Fields<'a> {
    fn new(record: &'a [u8], dialect: &'a Dialect) -> Self {
        Self { rest: Some(record.strip_suffix(b"\r").unwrap_or(record)), dialect }
    }

    /// The next field. What is quoted with doubled quotes inside is put together in `scratch`.
    fn next<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Option<Result<Field<'s>, Problem>>
    where
        'a: 's,
    {
        let rest = self.rest?;
        if rest.first() != Some(&self.dialect.quote) {
            let end = memchr(self.dialect.delimiter, rest);
            self.rest = end.and_then(|end| rest.get(end + 1..));
            return Some(Ok(Field { text: rest.get(..end.unwrap_or(rest.len())).unwrap_or_default(), quoted: false }));
        }
        scratch.clear();
        let mut at = 1;
        loop {
            let tail = rest.get(at..).unwrap_or_default();
            let Some(end) = memchr(self.dialect.quote, tail) else {
                return Some(Err(Problem("a quoted field is not closed".into())));
            };
            let after = at + end + 1;
            match rest.get(after) {
                Some(byte) if *byte == self.dialect.quote => {
                    scratch.extend_from_slice(rest.get(at..after).unwrap_or_default());
                    at = after + 1;
                }
                None => self.rest = None,
                Some(byte) if *byte == self.dialect.delimiter => self.rest = rest.get(after + 1..),
                Some(_) => return Some(Err(Problem("text follows a closing quote; double the quotes inside".into()))),
            }
            if rest.get(after) != Some(&self.dialect.quote) {
                if scratch.is_empty() {
                    return Some(Ok(Field { text: rest.get(at..after - 1).unwrap_or_default(), quoted: true }));
                }
                scratch.extend_from_slice(rest.get(at..after - 1).unwrap_or_default());
                return Some(Ok(Field { text: scratch, quoted: true }));
            }
        }
    }
}

/// The texts of a record's fields, `None` where one means null.
pub(crate) fn split(record: &[u8], dialect: &Dialect) -> Result<Vec<Option<String>>, String> {
    let (mut fields, mut texts, mut scratch) = (Fields::new(record, dialect), Vec::new(), Vec::new());
    while let Some(field) = fields.next(&mut scratch) {
        let field = field.map_err(|problem| problem.0)?;
        let null = !field.quoted && dialect.nulls.iter().any(|null| null == field.text);
        let text = std::str::from_utf8(field.text).map_err(|_| "a field is not UTF-8".to_owned())?;
        texts.push((!null).then(|| text.to_owned()));
    }
    Ok(texts)
}

/// The column names of a header line.
pub(crate) fn header(line: &[u8], dialect: &Dialect) -> Result<Vec<String>, String> {
    let names: Vec<String> = split(line, dialect)?.into_iter().map(Option::unwrap_or_default).collect();
    if let Some(place) = names.iter().position(String::is_empty) {
        return Err(format!("the header has no name for column {}; set `header: false` if it is none", place + 1));
    }
    for (place, name) in names.iter().enumerate() {
        if names.iter().take(place).any(|earlier| earlier == name) {
            return Err(format!("the header names `{name}` twice"));
        }
    }
    Ok(names)
}

/// Where the record that begins at `text` ends: the index of its line end, and how many lines it covers.
pub(crate) fn record_end(text: &[u8], quote: u8) -> Option<(usize, u64)> {
    let (mut at, mut quoted, mut lines) = (0, false, 1);
    while let Some(found) = memchr2(b'\n', quote, text.get(at..)?) {
        let place = at + found;
        match (text.get(place) == Some(&quote), quoted) {
            (true, _) => quoted = !quoted,
            (false, true) => lines += 1,
            (false, false) => return Some((place, lines)),
        }
        at = place + 1;
    }
    None
}

/// Decodes records of CSV.
pub(crate) struct CsvDecoder {
    dialect: Dialect,
    /// For each field of a record the wanted column it goes to, and its name.
    fields: Vec<(String, Option<usize>)>,
    columns: Vec<Column>,
    /// Wanted columns that records don't have.
    missing: Vec<usize>,
    scratch: Vec<u8>,
}

impl CsvDecoder {
    /// A decoder of the `wanted` columns of records whose fields are `order`.
    pub(crate) fn new(
        schema: &Schema,
        wanted: &Schema,
        order: &[String],
        dialect: Dialect,
        unknown: UnknownFields,
    ) -> Result<Self, ConnectorError> {
        if let Some(name) = order.iter().find(|name| schema.field_with_name(name).is_err())
            && unknown == UnknownFields::Error
        {
            let message = format!("field `{name}` is not in the schema, and `unknown: error` forbids such");
            return Err(ConnectorError::Config(message));
        }
        let place: HashMap<&str, usize> =
            wanted.fields().iter().enumerate().map(|(index, field)| (field.name().as_str(), index)).collect();
        let columns = wanted.fields().iter().map(|field| Column::new(field)).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(super::unsupported)?;
        let fields: Vec<_> = order.iter().map(|name| (name.clone(), place.get(name.as_str()).copied())).collect();
        let missing = (0..columns.len()).filter(|index| fields.iter().all(|(_, to)| *to != Some(*index))).collect();
        Ok(Self { dialect, fields, columns, missing, scratch: Vec::new() })
    }

    fn append(&mut self, record: &[u8], careful: bool) -> Result<(), String> {
        let mut fields = Fields::new(record, &self.dialect);
        let mut count = 0;
        while let Some(field) = fields.next(&mut self.scratch) {
            let field = field.map_err(|problem| format!("field {}: {}", count + 1, problem.0))?;
            let target = self.fields.get(count);
            count += 1;
            let Some((name, Some(index))) = target else { continue };
            let Some(column) = self.columns.get_mut(*index) else { continue };
            if !field.quoted && self.dialect.nulls.iter().any(|null| null == field.text) {
                column.append_null();
                continue;
            }
            let appended = match careful && std::str::from_utf8(field.text).is_err() {
                true => Err(Problem("is not UTF-8".into())),
                false => column.append_text(field.text),
            };
            appended.map_err(|problem| format!("column `{name}`: {}", problem.0))?;
        }
        if count != self.fields.len() {
            let expected = self.fields.len();
            return Err(format!(
                "the record has {count} field{}, expected {expected}",
                if count == 1 { "" } else { "s" }
            ));
        }
        for index in &self.missing {
            if let Some(column) = self.columns.get_mut(*index) {
                column.append_null();
            }
        }
        Ok(())
    }

    fn decode_all(&mut self, records: &Records, careful: bool) -> Vec<RowError> {
        let (mut errors, mut rows) = (Vec::new(), 0);
        for index in 0..records.len() {
            let appended = match records.value(index) {
                Some(value) => self.append(value, careful),
                None => {
                    Err("the value is null, which means a deletion that an append-only format cannot express".into())
                }
            };
            match appended {
                Ok(()) => rows += 1,
                Err(message) => {
                    self.columns.iter_mut().for_each(|column| column.truncate(rows));
                    errors.push(RowError { index, message });
                }
            }
        }
        errors
    }
}

impl ValueDecoder for CsvDecoder {
    fn decode_values(&mut self, records: &Records) -> Result<DecodedValues, ConnectorError> {
        let mut errors = self.decode_all(records, false);
        let mut columns: Result<Vec<ArrayRef>, _> = self.columns.iter_mut().map(Column::finish).collect();
        if columns.is_err() {
            // Some text is not UTF-8: the same again, looking at every field for itself.
            self.columns.iter_mut().for_each(|column| column.truncate(0));
            errors = self.decode_all(records, true);
            columns = self.columns.iter_mut().map(Column::finish).collect();
        }
        let columns = columns.map_err(|error| ConnectorError::Permanent {
            context: format!("cannot make columns of {}", records.place),
            source: error.into(),
        })?;
        Ok(DecodedValues { columns, errors })
    }
}
