//! Holds JSON objects to the columns they are to become: integers come from integers that fit, times from texts, and a field
//! is a column, once. What Arrow's reader would round, leave out or make null is an error here; the grammar is left to it.

use arrow::datatypes::{DataType, Field, Fields};
use logmill_pipelines::{ColumnType, nearest};

/// How much of a value is shown, in bytes.
const SHOWN_BYTES: usize = 40;

/// What a value may be.
#[derive(Debug)]
pub(super) struct Shape {
    /// The type in the words of a pipeline.
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Boolean,
    /// From the least to the largest.
    Integer(i128, i128),
    /// Finite, up to this.
    Float(f64),
    /// A number, or a text that holds one, with at most so many digits after the point.
    Decimal(i64),
    Text,
    /// Anything.
    Json,
    List(Box<Shape>),
    Object(Object),
}

/// What an object may have.
#[derive(Debug)]
pub(super) struct Object {
    fields: Vec<(String, Shape)>,
}

impl Object {
    /// Objects that become these columns.
    pub(super) fn new(columns: &Fields) -> Self {
        Self { fields: columns.iter().map(|field| (field.name().clone(), Shape::new(field))).collect() }
    }

    /// Checks a text; the error says where it does not fit.
    pub(super) fn check(&self, text: &[u8]) -> Result<(), String> {
        let mut cursor = Cursor { text, at: 0 };
        cursor.object(self, "column")?;
        if cursor.next() == 0 && cursor.at >= text.len() { Ok(()) } else { Err("not exactly one object".to_owned()) }
    }
}

impl Shape {
    fn new(field: &Field) -> Self {
        let column_type = ColumnType::from_field(field);
        let name = column_type.as_ref().map_or_else(|_| field.data_type().to_string(), ToString::to_string);
        let kind = match field.data_type() {
            _ if column_type == Ok(ColumnType::Json) => Kind::Json,
            DataType::Boolean => Kind::Boolean,
            DataType::Int8 => Kind::Integer(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => Kind::Integer(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => Kind::Integer(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => Kind::Integer(i64::MIN.into(), i64::MAX.into()),
            DataType::UInt8 => Kind::Integer(0, u8::MAX.into()),
            DataType::UInt16 => Kind::Integer(0, u16::MAX.into()),
            DataType::UInt32 => Kind::Integer(0, u32::MAX.into()),
            DataType::UInt64 => Kind::Integer(0, u64::MAX.into()),
            DataType::Float32 => Kind::Float(f32::MAX.into()),
            other if other.is_floating() => Kind::Float(f64::MAX),
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Kind::Decimal((*scale).into()),
            DataType::List(item) => Kind::List(Box::new(Self::new(item))),
            DataType::Struct(fields) => Kind::Object(Object::new(fields)),
            _ => Kind::Text,
        };
        Self { name, kind }
    }
}

/// Where we are in a text.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is no white space, 0 at the end.
    fn next(&mut self) -> u8 {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.text.get(self.at).copied().unwrap_or(0)
    }

    /// Takes a byte if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.next() == byte;
        self.at += usize::from(found);
        found
    }

    /// Takes the bytes from here on that are alike.
    fn run(&mut self, is_part: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !is_part(*byte)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// Takes a number or a word.
    fn word(&mut self) -> &'a [u8] {
        self.next();
        self.run(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-'))
    }

    /// Takes a string that comes next, its quotes included.
    fn string(&mut self) -> Option<&'a [u8]> {
        if self.next() != b'"' {
            return None;
        }
        let start = self.at;
        self.at += 1;
        loop {
            self.run(|byte| byte != b'"' && byte != b'\\');
            let end = *self.text.get(self.at)?;
            self.at += if end == b'"' { 1 } else { 2 };
            if end == b'"' {
                return self.text.get(start..self.at);
            }
        }
    }

    /// Takes any value.
    fn skip(&mut self) {
        let mut depth = 0usize;
        loop {
            match self.next() {
                0 if self.at >= self.text.len() => return,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                b'"' => self.at = self.string().map_or(self.text.len(), |_| self.at),
                _ if self.word().is_empty() => self.at += 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// What comes next, as it is told.
    fn found(&mut self) -> String {
        let start = self.at;
        match self.next() {
            0 if self.at >= self.text.len() => "its end".to_owned(),
            b'{' => "an object".to_owned(),
            b'[' => "a list".to_owned(),
            _ => {
                self.skip();
                let value = self.text.get(start..self.at).unwrap_or_default().trim_ascii();
                let more = if value.len() > SHOWN_BYTES { "…" } else { "" };
                let value = value.get(..value.len().min(SHOWN_BYTES)).unwrap_or_default();
                format!("{}{more}", String::from_utf8_lossy(value))
            }
        }
    }

    fn expected<T>(&mut self, what: &str) -> Result<T, String> {
        Err(format!("expected {what}, found {}", self.found()))
    }

    fn value(&mut self, shape: &Shape) -> Result<(), String> {
        let start = self.at;
        let fits = match (&shape.kind, self.next()) {
            (Kind::Json, _) => {
                self.skip();
                true
            }
            (_, b'n') => self.word() == b"null",
            (Kind::Object(object), b'{') => return self.object(object, "field"),
            (Kind::List(item), b'[') => return self.list(item),
            (Kind::Text, b'"') => self.string().is_some(),
            (Kind::Decimal(scale), b'"') => {
                let text = self.string().and_then(|text| text.strip_prefix(b"\"")?.strip_suffix(b"\""));
                text.is_some_and(|text| decimals(text).is_some_and(|digits| digits <= *scale))
            }
            (Kind::Boolean, b't' | b'f') => matches!(self.word(), b"true" | b"false"),
            (Kind::Float(most), b'-' | b'0'..=b'9') => is_within(self.word(), *most),
            (Kind::Decimal(scale), b'-' | b'0'..=b'9') => decimals(self.word()).is_some_and(|digits| digits <= *scale),
            (Kind::Integer(least, largest), b'-' | b'0'..=b'9') => {
                let number = std::str::from_utf8(self.word()).ok().and_then(|digits| digits.parse::<i128>().ok());
                number.is_some_and(|number| (*least..=*largest).contains(&number))
            }
            _ => false,
        };
        if fits {
            return Ok(());
        }
        self.at = start;
        self.expected(&shape.name)
    }

    fn list(&mut self, item: &Shape) -> Result<(), String> {
        self.at += 1;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(item)?;
            if !self.take(b',') {
                return if self.take(b']') { Ok(()) } else { self.expected("`,` or `]`") };
            }
        }
    }

    /// Takes an object; `what` is what its members are called.
    fn object(&mut self, object: &Object, what: &str) -> Result<(), String> {
        if !self.take(b'{') {
            return self.expected("an object");
        }
        if self.take(b'}') {
            return Ok(());
        }
        let mut seen = vec![false; object.fields.len()];
        let mut expected = 0;
        loop {
            let Some(name) = self.string() else { return self.expected("a name") };
            let index = object.find(name, expected)?;
            if let Some((name, shape)) = object.fields.get(index) {
                if seen.get_mut(index).is_some_and(|seen| std::mem::replace(seen, true)) {
                    return Err(format!("{what} `{name}`: it comes twice"));
                }
                if !self.take(b':') {
                    return self.expected("`:`");
                }
                self.value(shape).map_err(|why| format!("{what} `{name}`: {why}"))?;
            }
            expected = index + 1;
            if !self.take(b',') {
                return if self.take(b'}') { Ok(()) } else { self.expected("`,` or `}`") };
            }
        }
    }
}

impl Object {
    /// The field of a name in quotes; it is likely to be the one that is expected.
    fn find(&self, quoted: &[u8], expected: usize) -> Result<usize, String> {
        let raw = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        if self.fields.get(expected).is_some_and(|(name, _)| name.as_bytes() == raw) {
            return Ok(expected);
        }
        let name = match raw.contains(&b'\\') {
            true => serde_json::from_slice(quoted).map_err(|error| format!("a name cannot be read: {error}"))?,
            false => String::from_utf8_lossy(raw).into_owned(),
        };
        self.fields.iter().position(|(known, _)| *known == name).ok_or_else(|| {
            let shown = name.get(..name.floor_char_boundary(SHOWN_BYTES)).unwrap_or_default();
            let near = nearest(&name, self.fields.iter().map(|(known, _)| known.as_str()));
            let hint = near.map(|near| format!("; did it mean `{near}`?")).unwrap_or_default();
            format!("it has a field `{shown}`, which is no column{hint}")
        })
    }
}

/// Whether a number is at most this, and none of its digits before the point become infinity. Only one with an exponent, or
/// with very many digits, can be too large.
fn is_within(number: &[u8], most: f64) -> bool {
    let may_exceed = number.len() > 30 || number.iter().any(|byte| matches!(byte, b'e' | b'E'));
    let parse = || std::str::from_utf8(number).ok()?.parse::<f64>().ok();
    !number.is_empty() && (!may_exceed || parse().is_some_and(|number| number.abs() <= most))
}

/// How many digits a number has after the point, but for zeros at its end; negative for hundreds and thousands.
fn decimals(number: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(number).ok()?;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let fraction = mantissa.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = i64::try_from(fraction.trim_end_matches('0').len()).ok()?;
    digits.checked_sub(exponent.parse().ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn object(columns: &[(&str, &str)]) -> Object {
        let field = |(name, kind): &(&str, &str)| kind.parse::<ColumnType>().unwrap().to_field(name);
        Object::new(&columns.iter().map(field).collect())
    }

    #[test]
    fn what_would_be_changed_is_an_error_that_names_field_and_value() {
        for (kind, value, expected) in [
            ("int64", "1", ""),
            ("int64", " null ", ""),
            ("int64", "1.5", "column `c`: expected int64, found 1.5"),
            ("int64", "1e3", "column `c`: expected int64, found 1e3"),
            ("int64", "\"1\"", "column `c`: expected int64, found \"1\""),
            ("int64", "true", "column `c`: expected int64, found true"),
            ("int64", "9223372036854775808", "column `c`: expected int64, found 9223372036854775808"),
            ("uint8", "-1", "column `c`: expected uint8, found -1"),
            ("int8", "300", "column `c`: expected int8, found 300"),
            ("float64", "1", ""),
            ("float64", "-1.5e-3", ""),
            ("float64", "\"1.5\"", "column `c`: expected float64, found \"1.5\""),
            ("boolean", "true", ""),
            ("boolean", "1", "column `c`: expected boolean, found 1"),
            ("string", "\"a\\\"b\"", ""),
            ("string", "5", "column `c`: expected string, found 5"),
            ("string", "{\"a\": 1}", "column `c`: expected string, found an object"),
            ("decimal(10,2)", "\"1.50\"", ""),
            ("decimal(10,2)", "1.50", ""),
            ("decimal(10,2)", "1.239", "column `c`: expected decimal(10,2), found 1.239"),
            ("decimal(10,2)", "\"1.239\"", "column `c`: expected decimal(10,2), found \"1.239\""),
            ("decimal(10,2)", "12.39e-1", "column `c`: expected decimal(10,2), found 12.39e-1"),
            ("decimal(10,2)", "1.239e1", ""),
            ("float64", "1e400", "column `c`: expected float64, found 1e400"),
            ("float64", "-1e308", ""),
            ("float32", "1e39", "column `c`: expected float32, found 1e39"),
            ("timestamp", "\"2013-01-01T05:00:00Z\"", ""),
            ("timestamp", "1357016400", "column `c`: expected timestamp, found 1357016400"),
            ("json", "[{\"any\": [1, \"}\", null]}]", ""),
            ("list<int32>", "[1, null, 3]", ""),
            ("list<int32>", "[1, 2.5]", "column `c`: expected int32, found 2.5"),
            ("list<int32>", "1", "column `c`: expected list<int32>, found 1"),
            ("struct{a: int32}", "{\"a\": 1}", ""),
            ("struct{a: int32}", "{\"a\": \"x\"}", "column `c`: field `a`: expected int32, found \"x\""),
            ("struct{a: int32}", "{\"more\": 1}", "column `c`: it has a field `more`, which is no column"),
            ("int64", "1, \"c\": 2", "column `c`: it comes twice"),
            ("int64", "1, \"other\": 2", "it has a field `other`, which is no column"),
            ("int64", "1}{\"c\": 2", "not exactly one object"),
            ("int64", "", "column `c`: expected int64, found }"),
        ] {
            let found = object(&[("c", kind)]).check(format!("{{\"c\": {value}}}").as_bytes());
            assert_eq!(found.err().unwrap_or_default(), expected, "{kind} {value}");
        }
        let flights = object(&[("flight", "int32"), ("dep_delay", "float64")]);
        assert_eq!(flights.check(br#" {"dep_del\u0061y": 1, "flight": 2} "#), Ok(()));
        let misspelt = flights.check(br#"{"flight": 2, "dep_dealy": 1}"#).unwrap_err();
        assert_eq!(misspelt, "it has a field `dep_dealy`, which is no column; did it mean `dep_delay`?");
        assert_eq!(flights.check(b"[1]").unwrap_err(), "expected an object, found a list");
        assert_eq!(flights.check(b"{}"), Ok(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(text in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b'['), Just(b','), Just(b':'), Just(b'\\'), any::<u8>()],
            0..40,
        )) {
            let shape = object(&[("", "int64"), ("a", "json"), ("b", "list<struct{c: string}>")]);
            let _ = shape.check(&text);
            let _ = shape.check(&[br#"{"a":"#.as_slice(), &text].concat());
            let _ = shape.check(&[br#"{"b":[{"c":"#.as_slice(), &text].concat());
        }
    }
}
