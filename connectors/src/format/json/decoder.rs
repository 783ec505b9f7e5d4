//! Decodes JSON objects into columns, expecting each record to have the keys of the one before it, in their order.
//!
//! ```text
//!   {"carrier":"UA","flight":1545,"origin":"EWR",…}      order: "carrier": ─▶ column 0
//!    ^^^^^^^^^^ one comparison, then the value goes             "flight":  ─▶ skip
//!               straight into its column                        "origin":  ─▶ column 1
//! ```
//!
//! A key that is not the expected one is looked up, and the order learns it; so records of any order and with any
//! keys missing are decoded by the same code, only slower. Values of columns that nobody wants are stepped over, but
//! held to JSON's grammar. Once every wanted column has its value, the rest of a flat record is only held to being
//! whole (its quotes pair up, and its one closing brace ends it), so that a line that was cut off is an error whatever
//! is wanted. Of a key that comes twice in a record the first value counts.

use std::collections::{HashMap, HashSet};

use arrow::array::ArrayRef;
use arrow::datatypes::Schema;
use logmill_pipelines::UnknownFields;
use memchr::{memchr_iter, memchr2, memchr3};

use super::cursor::{Cursor, Problem, unescape};
use crate::decode::RowError;
use crate::error::ConnectorError;
use crate::format::column::Column;
use crate::format::meta::{DecodedValues, ValueDecoder};
use crate::format::{UNKNOWN_COLUMN, unknown_field};
use crate::source::Records;

/// How many keys the expected order holds at most; further ones are looked up each time.
const MAX_ORDER: usize = 1024;

/// Where a member's value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Column(usize),
    /// A column that nobody wants.
    Skip,
    /// A field that the schema doesn't name.
    Unknown,
}

/// A key that is expected: `"name":`, and where its value goes.
struct Expected {
    key: Box<[u8]>,
    target: Target,
}

/// Decodes JSON objects.
pub(crate) struct JsonDecoder {
    names: Vec<String>,
    columns: Vec<Column>,
    /// The number of the record in which a column last got a value.
    seen: Vec<u64>,
    record: u64,
    by_name: HashMap<Vec<u8>, Target>,
    order: Vec<Expected>,
    unknown: UnknownFields,
    /// The column of unknown fields, if it is wanted.
    kept: Option<usize>,
    kept_text: Vec<u8>,
    scratch: Vec<u8>,
    /// Whether text is checked to be UTF-8 record by record, to find the bad one.
    careful: bool,
}

/// A record that is wrong: in which column, at which byte, and why.
struct BadRecord {
    column: Option<usize>,
    at: usize,
    problem: Problem,
}

impl JsonDecoder {
    /// A decoder of the `wanted` columns of a schema.
    pub(crate) fn new(schema: &Schema, wanted: &Schema, unknown: UnknownFields) -> Result<Self, ConnectorError> {
        let names: Vec<_> = wanted.fields().iter().map(|field| field.name().clone()).collect();
        let kept = names.iter().position(|name| unknown == UnknownFields::Keep && name == UNKNOWN_COLUMN);
        let columns = wanted.fields().iter().map(|field| Column::new(field)).collect::<Result<Vec<_>, _>>()?;
        let mut by_name = HashMap::new();
        let known: HashSet<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let known = known.into_iter().filter(|name| unknown != UnknownFields::Keep || *name != UNKNOWN_COLUMN);
        by_name.extend(known.map(|name| (name.as_bytes().to_vec(), Target::Skip)));
        for (index, name) in names.iter().enumerate().filter(|(index, _)| Some(*index) != kept) {
            by_name.insert(name.as_bytes().to_vec(), Target::Column(index));
        }
        Ok(Self {
            seen: vec![0; columns.len()],
            names,
            columns,
            record: 0,
            by_name,
            order: Vec::new(),
            unknown,
            kept,
            kept_text: Vec::new(),
            scratch: Vec::new(),
            careful: false,
        })
    }

    /// Appends a record to the columns. After an error they may hold a part of it.
    fn append(&mut self, text: &[u8]) -> Result<(), BadRecord> {
        self.record += 1;
        self.kept_text.clear();
        let mut cursor = Cursor::new(text);
        let mut column = None;
        let appended = self.members(&mut cursor, &mut column);
        appended.map_err(|problem| BadRecord { column, at: cursor.at, problem })?;
        if let Some(index) = self.kept
            && !self.kept_text.is_empty()
        {
            self.kept_text.push(b'}');
            let stored = match std::str::from_utf8(&self.kept_text) {
                Err(_) => Err(Problem("is not UTF-8".into())),
                Ok(_) => self.columns.get_mut(index).map_or(Ok(()), |column| column.append_text(&self.kept_text)),
            };
            stored.map_err(|problem| BadRecord { column: self.kept, at: 0, problem })?;
            self.seen.iter_mut().skip(index).take(1).for_each(|seen| *seen = self.record);
        }
        for (column, seen) in self.columns.iter_mut().zip(&self.seen) {
            if *seen != self.record {
                column.append_null();
            }
        }
        Ok(())
    }

    /// Takes the members of one object. `current` is the column that was worked on when an error occurred.
    fn members(&mut self, cursor: &mut Cursor<'_>, current: &mut Option<usize>) -> Result<(), Problem> {
        cursor.space();
        if !cursor.take(b"{") {
            return Err(Problem::expected("an object", cursor.found()));
        }
        cursor.space();
        let mut place = 0;
        // How many wanted columns have no value yet; where unknown fields matter, all of them are looked at.
        let mut missing = if self.unknown == UnknownFields::Ignore { self.columns.len() } else { usize::MAX };
        if !cursor.take(b"}") {
            loop {
                *current = None;
                if missing == 0 && is_whole(cursor.rest()) {
                    return Ok(());
                }
                let start = cursor.at;
                let target = match self.order.get(place) {
                    Some(expected) if cursor.take(&expected.key) => {
                        place += 1;
                        expected.target
                    }
                    _ => self.look_up(cursor, &mut place)?,
                };
                cursor.space();
                match target {
                    Target::Column(index) => {
                        *current = Some(index);
                        missing -= usize::from(self.value(index, cursor)?);
                    }
                    Target::Skip => cursor.skip()?,
                    Target::Unknown => self.unknown_member(start, cursor)?,
                }
                if !cursor.more(b'}')? {
                    break;
                }
            }
        }
        *current = None;
        cursor.space();
        match cursor.rest() {
            [] => Ok(()),
            _ => Err(Problem::expected("the end of the record", cursor.found())),
        }
    }

    /// Takes the value of a column; false if the record gave it one before.
    #[inline]
    fn value(&mut self, index: usize, cursor: &mut Cursor<'_>) -> Result<bool, Problem> {
        let (Some(column), Some(seen)) = (self.columns.get_mut(index), self.seen.get_mut(index)) else {
            return cursor.skip().map(|()| false);
        };
        if *seen == self.record {
            return cursor.skip().map(|()| false);
        }
        *seen = self.record;
        let start = cursor.at;
        column.append_json(cursor, &mut self.scratch)?;
        if self.careful && simdutf8::basic::from_utf8(cursor.since(start)).is_err() {
            return Err(Problem("is not UTF-8".into()));
        }
        Ok(true)
    }

    /// Takes a key that was not expected, and learns it: from now on it is expected at `place`.
    #[cold]
    fn look_up(&mut self, cursor: &mut Cursor<'_>, place: &mut usize) -> Result<Target, Problem> {
        let start = cursor.at;
        let raw = cursor.string()?;
        let (end, escaped) = (cursor.at, raw.escaped);
        cursor.expect(b':')?;
        let target = if escaped {
            let mut key = Vec::new();
            unescape(raw.bytes, &mut key)?;
            self.by_name.get(&key)
        } else {
            self.by_name.get(raw.bytes)
        };
        let target = target.copied().unwrap_or(Target::Unknown);
        let mut key = Vec::with_capacity(end - start + 1);
        key.push(b'"');
        key.extend_from_slice(raw.bytes);
        key.extend_from_slice(b"\":");
        // Keys between here and there are missing in this record, or all come in another order.
        let ahead = self.order.iter().skip(*place).position(|expected| *expected.key == *key);
        match ahead {
            Some(ahead) => *place += ahead + 1,
            None if self.order.len() < MAX_ORDER => {
                self.order.retain(|expected| *expected.key != *key);
                *place = (*place).min(self.order.len());
                self.order.insert(*place, Expected { key: key.into(), target });
                *place += 1;
            }
            None => {}
        }
        Ok(target)
    }

    /// Steps over a member that the schema doesn't name; its key begins at `start`, the cursor is at its value.
    fn unknown_member(&mut self, start: usize, cursor: &mut Cursor<'_>) -> Result<(), Problem> {
        match self.unknown {
            UnknownFields::Error => {
                let key = String::from_utf8_lossy(cursor.since(start));
                let key = key.trim_end().trim_end_matches(':').trim_end();
                Err(Problem(format!("field {key} is not in the schema, and `unknown: error` forbids such")))
            }
            UnknownFields::Ignore => cursor.skip(),
            UnknownFields::Keep => {
                cursor.skip()?;
                if self.kept.is_some() {
                    self.kept_text.push(if self.kept_text.is_empty() { b'{' } else { b',' });
                    self.kept_text.extend_from_slice(cursor.since(start));
                }
                Ok(())
            }
        }
    }

    fn message(&self, bad: &BadRecord) -> String {
        let column = bad.column.and_then(|index| self.names.get(index));
        let column = column.map_or(String::new(), |name| format!("column `{name}`: "));
        format!("{column}{} (byte {} of the record)", bad.problem.0, bad.at)
    }

    /// Decodes all records into the columns, which are empty before.
    fn decode_all(&mut self, records: &Records) -> Vec<RowError> {
        let (mut errors, mut rows) = (Vec::new(), 0);
        for index in 0..records.len() {
            let appended = match records.value(index) {
                Some(value) => self.append(value).map_err(|bad| self.message(&bad)),
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

impl ValueDecoder for JsonDecoder {
    fn decode_values(&mut self, records: &Records) -> Result<DecodedValues, ConnectorError> {
        let mut errors = self.decode_all(records);
        let mut columns: Result<Vec<ArrayRef>, _> = self.columns.iter_mut().map(Column::finish).collect();
        if columns.is_err() {
            // Some text is not UTF-8: the same again, looking at every record for itself.
            self.columns.iter_mut().for_each(|column| column.truncate(0));
            self.careful = true;
            errors = self.decode_all(records);
            self.careful = false;
            columns = self.columns.iter_mut().map(Column::finish).collect();
        }
        let columns = columns.map_err(|error| ConnectorError::Permanent {
            context: format!("cannot make columns of {}", records.place),
            source: error.into(),
        })?;
        Ok(DecodedValues { columns, errors })
    }
}

/// Whether the rest of a record, behind a comma or its opening brace, is plainly the rest of a flat object that was not
/// cut off. Where it is not plain to see, false.
#[inline]
fn is_whole(rest: &[u8]) -> bool {
    let Some((b'}', members)) = rest.trim_ascii_end().split_last() else { return false };
    !members.is_empty()
        && memchr3(b'\\', b'{', b'[', members).is_none()
        && memchr2(b'}', b']', members).is_none()
        && memchr_iter(b'"', members).count().is_multiple_of(2)
}

/// The schema with the column of unknown fields, if those are kept.
pub(crate) fn with_unknown(schema: Schema, unknown: UnknownFields) -> Schema {
    if unknown != UnknownFields::Keep || schema.field_with_name(UNKNOWN_COLUMN).is_ok() {
        return schema;
    }
    let mut fields = schema.fields().to_vec();
    fields.push(unknown_field().into());
    Schema::new(fields)
}
