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
//! is wanted. Of a key that comes twice in a record the first value counts, unless the decoder is `strict`.

use std::collections::{HashMap, HashSet};

use arrow::array::ArrayRef;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use logmill_pipelines::UnknownFields;
use memchr::{memchr_iter, memchr2, memchr3};

use crate::column::{Column, Scratch, UnsupportedColumn};
use crate::cursor::{Cursor, Problem, unescape};

/// The column that `unknown: keep` collects the fields in that the schema doesn't name.
pub const UNKNOWN_COLUMN: &str = "_unknown";

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
#[derive(Debug)]
struct Expected {
    key: Box<[u8]>,
    target: Target,
}

/// Decodes JSON objects.
#[derive(Debug)]
pub struct JsonColumns {
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
    scratch: Scratch,
    /// The field that made the last record wrong, as nothing names it.
    stranger: Option<String>,
    /// Whether text is checked to be UTF-8 record by record, to find the bad one.
    careful: bool,
}

/// A value that is no object of the columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadObject {
    /// Its number among the values.
    pub index: usize,
    /// The column in which it is wrong; `None` if it is as a whole.
    pub column: Option<String>,
    /// The byte at which; `None` for a value that is null.
    pub at: Option<usize>,
    /// The field that nothing names, if it is wrong for that.
    pub unknown: Option<String>,
    /// Why.
    pub problem: String,
}

/// What became of some values.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The columns, of those that are objects of them.
    pub columns: Vec<ArrayRef>,
    /// Those that are not, in order.
    pub errors: Vec<BadObject>,
}

/// A record that is wrong: in which column, at which byte, and why.
struct BadRecord {
    column: Option<usize>,
    at: usize,
    problem: Problem,
}

impl JsonColumns {
    /// A decoder of the `wanted` columns of a schema.
    ///
    /// # Errors
    /// If one is of a type that JSON is not read into.
    pub fn new(schema: &Schema, wanted: &Schema, unknown: UnknownFields) -> Result<Self, UnsupportedColumn> {
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
            scratch: Scratch::default(),
            stranger: None,
            careful: false,
        })
    }

    /// The same, but a column may come only once in an object, and objects within columns have the fields that their types
    /// name and no others.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.scratch.refuses_unknown = true;
        self
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
            return match self.scratch.refuses_unknown {
                true => Err(Problem("it comes twice".into())),
                false => cursor.skip().map(|()| false),
            };
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
                self.stranger = Some(key.trim_matches('"').to_owned());
                Err(Problem(format!("field {key} is not in the schema")))
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

    /// Decodes all the values into the columns, which are empty before.
    fn decode_all<'a>(&mut self, values: impl Iterator<Item = Option<&'a [u8]>>) -> Vec<BadObject> {
        let (mut errors, mut rows) = (Vec::new(), 0);
        for (index, value) in values.enumerate() {
            self.stranger = None;
            let appended = match value {
                Some(value) => self.append(value).map_err(|bad| BadObject {
                    index,
                    column: bad.column.and_then(|column| self.names.get(column).cloned()),
                    at: Some(bad.at),
                    unknown: self.stranger.take(),
                    problem: bad.problem.0,
                }),
                None => Err(BadObject {
                    index,
                    column: None,
                    at: None,
                    unknown: None,
                    problem: "the value is null, which means a deletion that an append-only format cannot express"
                        .into(),
                }),
            };
            match appended {
                Ok(()) => rows += 1,
                Err(bad) => {
                    self.columns.iter_mut().for_each(|column| column.truncate(rows));
                    errors.push(bad);
                }
            }
        }
        errors
    }

    /// Decodes values, each one object. Bad ones are told one by one; the others are not held back by them.
    ///
    /// # Errors
    /// If the columns cannot be put together, which no value is to blame for.
    pub fn decode<'a>(
        &mut self,
        values: impl Iterator<Item = Option<&'a [u8]>> + Clone,
    ) -> Result<Decoded, ArrowError> {
        let mut errors = self.decode_all(values.clone());
        let mut columns: Result<Vec<ArrayRef>, _> = self.columns.iter_mut().map(Column::finish).collect();
        if columns.is_err() {
            // Some text is not UTF-8: the same again, looking at every record for itself.
            self.columns.iter_mut().for_each(|column| column.truncate(0));
            self.careful = true;
            errors = self.decode_all(values);
            self.careful = false;
            columns = self.columns.iter_mut().map(Column::finish).collect();
        }
        Ok(Decoded { columns: columns?, errors })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use logmill_pipelines::ColumnType;
    use proptest::prelude::*;

    use super::*;

    fn strict(columns: &[(&str, &str)]) -> JsonColumns {
        let field = |(name, kind): &(&str, &str)| kind.parse::<ColumnType>().unwrap().to_field(name);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        JsonColumns::new(&schema, &schema, UnknownFields::Error).unwrap().strict()
    }

    /// What is wrong with a text, if anything is.
    fn problem(decoder: &mut JsonColumns, text: &str) -> String {
        let decoded = decoder.decode([Some(text.as_bytes())].into_iter()).unwrap();
        let said = |bad: &BadObject| match &bad.column {
            Some(column) => format!("{column}: {}", bad.problem),
            None => bad.problem.clone(),
        };
        assert_eq!(decoded.columns.iter().map(|column| column.len()).max().unwrap() + decoded.errors.len(), 1);
        decoded.errors.first().map(said).unwrap_or_default()
    }

    #[test]
    fn what_would_be_changed_is_an_error_that_names_column_and_value() {
        for (kind, value, expected) in [
            ("int64", "1", ""),
            ("int64", " null ", ""),
            ("int64", "1.5", "c: expected int64, found 1.5"),
            ("int64", "1e3", "c: expected int64, found 1e3"),
            ("int64", "\"1\"", "c: expected an integer, found \"1\""),
            ("int64", "true", "c: expected an integer, found a boolean"),
            ("int64", "9223372036854775808", "c: expected int64, found 9223372036854775808"),
            ("uint8", "-1", "c: expected uint8, found -1"),
            ("int8", "300", "c: expected int8, found 300"),
            ("float64", "1", ""),
            ("float64", "-1.5e-3", ""),
            ("float64", "\"1.5\"", "c: expected a number, found \"1.5\""),
            ("float64", "1e400", "c: expected float64, found 1e400"),
            ("float64", "-1e308", ""),
            ("float32", "1e39", "c: expected float32, found 1e39"),
            ("boolean", "true", ""),
            ("boolean", "1", "c: expected a boolean, found the number 1"),
            ("string", "\"a\\\"b\"", ""),
            ("string", "5", "c: expected a string, found the number 5"),
            ("string", "{\"a\": 1}", "c: expected a string, found an object"),
            ("decimal(10,2)", "\"1.50\"", ""),
            ("decimal(10,2)", "1.500", ""),
            ("decimal(10,2)", "1.239", "c: expected decimal(10,2), found 1.239"),
            ("decimal(10,2)", "\"1.239\"", "c: expected decimal(10,2), found 1.239"),
            ("decimal(10,2)", "12.39e-1", "c: expected decimal(10,2), found 12.39e-1"),
            ("decimal(10,2)", "1.239e1", ""),
            ("timestamp", "\"2013-01-01T05:00:00Z\"", ""),
            ("timestamp", "1357016400", "c: expected timestamp, found 1357016400"),
            ("json", "[{\"any\": [1, \"}\", null]}]", ""),
            ("list<int32>", "[1, null, 3]", ""),
            ("list<int32>", "[1, 2.5]", "c: expected int32, found 2.5"),
            ("list<int32>", "1", "c: expected a list, found the number 1"),
            ("struct{a: int32}", "{\"a\": 1}", ""),
            ("struct{a: int32}", "{\"a\": \"x\"}", "c: field `a`: expected an integer, found \"x\""),
            ("struct{a: int32}", "{\"more\": 1}", "c: there is no field `more`"),
            ("struct{a: int32}", "{\"a\": 1, \"a\": 2}", "c: field `a`: it comes twice"),
            ("int64", "1, \"c\": 2", "c: it comes twice"),
            ("int64", "1, \"other\": 2", "field \"other\" is not in the schema"),
            ("int64", "1}{\"c\": 2", "expected the end of the record, found an object"),
            ("int64", "", "c: expected an integer, found `}`"),
        ] {
            let found = problem(&mut strict(&[("c", kind)]), &format!("{{\"c\": {value}}}"));
            assert_eq!(found, expected, "{kind} {value}");
        }
        let mut flights = strict(&[("flight", "int32"), ("dep_delay", "float64")]);
        for (text, expected) in
            [(r#" {"dep_del\u0061y": 1, "flight": 2} "#, ""), ("{}", ""), ("[1]", "expected an object, found a list")]
        {
            assert_eq!(problem(&mut flights, text), expected, "{text}");
        }
        let decoded = flights.decode([None, Some(&br#"{"flight": 2, "dep_dealy": 1}"#[..])].into_iter()).unwrap();
        let named: Vec<_> = decoded.errors.iter().map(|bad| (bad.index, bad.at, bad.unknown.as_deref())).collect();
        assert_eq!(named, [(0, None, None), (1, Some(27), Some("dep_dealy"))]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(text in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b'['), Just(b','), Just(b':'), Just(b'\\'), any::<u8>()],
            0..40,
        )) {
            let mut columns = strict(&[("", "int64"), ("a", "json"), ("b", "list<struct{c: string}>")]);
            let (a, b) = ([br#"{"a":"#.as_slice(), &text].concat(), [br#"{"b":[{"c":"#.as_slice(), &text].concat());
            let decoded = columns.decode([Some(text.as_slice()), Some(&a), Some(&b), Some(b"{}")].into_iter()).unwrap();
            prop_assert_eq!(decoded.columns[0].len() + decoded.errors.len(), 4);
        }
    }
}
