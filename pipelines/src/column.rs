//! The types a column can have, as `schema:` writes them, and their Arrow types.
//!
//! ```text
//!   boolean  int8..int64  uint8..uint64  float32  float64  decimal(p,s)  string  binary  json
//!   date  time  timestamp  timestamp_local  list<T>  struct{name: T, ...}
//! ```
//!
//! Every column may be null. `timestamp` is an instant, in microseconds, UTC; `timestamp_local` is what a clock on a
//! wall showed, without a zone. `json` is text that holds any JSON value, for what has no fixed shape.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// The longest chain of lists and structs in one type.
const MAX_DEPTH: usize = 32;

/// The metadata key by which Arrow marks a field's extension type, and its value for JSON text.
const EXTENSION: (&str, &str) = ("ARROW:extension:name", "arrow.json");

/// The words of the types that take no argument.
const WORDS: [(&str, ColumnType); 18] = [
    ("boolean", ColumnType::Boolean),
    ("int8", ColumnType::Int8),
    ("int16", ColumnType::Int16),
    ("int32", ColumnType::Int32),
    ("int64", ColumnType::Int64),
    ("uint8", ColumnType::UInt8),
    ("uint16", ColumnType::UInt16),
    ("uint32", ColumnType::UInt32),
    ("uint64", ColumnType::UInt64),
    ("float32", ColumnType::Float32),
    ("float64", ColumnType::Float64),
    ("string", ColumnType::String),
    ("binary", ColumnType::Binary),
    ("json", ColumnType::Json),
    ("date", ColumnType::Date),
    ("time", ColumnType::Time),
    ("timestamp", ColumnType::Timestamp),
    ("timestamp_local", ColumnType::TimestampLocal),
];

/// What people write who come from other systems, and our word for it.
const FOREIGN: [(&str, &str); 20] = [
    ("bool", "boolean"),
    ("tinyint", "int8"),
    ("smallint", "int16"),
    ("int", "int32"),
    ("integer", "int32"),
    ("bigint", "int64"),
    ("long", "int64"),
    ("float", "float32"),
    ("real", "float32"),
    ("double", "float64"),
    ("number", "float64"),
    ("numeric", "decimal(p,s)"),
    ("text", "string"),
    ("str", "string"),
    ("varchar", "string"),
    ("utf8", "string"),
    ("bytes", "binary"),
    ("datetime", "timestamp"),
    ("timestamptz", "timestamp"),
    ("jsonb", "json"),
];

/// The type of one column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// True or false.
    Boolean,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// Unsigned, 8 bits.
    UInt8,
    /// Unsigned, 16 bits.
    UInt16,
    /// Unsigned, 32 bits.
    UInt32,
    /// Unsigned, 64 bits.
    UInt64,
    /// IEEE 754, 32 bits.
    Float32,
    /// IEEE 754, 64 bits.
    Float64,
    /// Exact, with this many digits in all and this many after the point.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: u8,
    },
    /// UTF-8 text.
    String,
    /// Bytes.
    Binary,
    /// Text that holds a JSON value.
    Json,
    /// A day of the calendar.
    Date,
    /// A time of day, in microseconds.
    Time,
    /// An instant, in microseconds, UTC.
    Timestamp,
    /// A date and time without a zone, in microseconds.
    TimestampLocal,
    /// Any number of values of one type.
    List(Box<ColumnType>),
    /// Named values.
    Struct(Vec<(String, ColumnType)>),
}

/// Why a text is no column type, or an Arrow type has none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnTypeError {
    /// A word that names no type.
    #[error("unknown column type `{word}`{}", hint(word))]
    Unknown {
        /// The word.
        word: String,
    },
    /// Something else was expected here.
    #[error("expected {expected} in column type `{text}`")]
    Syntax {
        /// The whole text.
        text: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// A decimal nobody can store.
    #[error("decimal({precision},{scale}) needs a precision of 1 to 38 and a scale of at most the precision")]
    Decimal {
        /// Digits in all.
        precision: u64,
        /// Digits after the point.
        scale: u64,
    },
    /// Lists of structs of lists without end.
    #[error("column types nest at most {MAX_DEPTH} deep")]
    TooDeep,
    /// An Arrow type that no column can have.
    #[error("a column can't have the Arrow type {data_type}")]
    Unsupported {
        /// The Arrow type.
        data_type: DataType,
    },
}

/// The nearest type, in words.
fn hint(word: &str) -> String {
    if let Some((_, ours)) = FOREIGN.iter().find(|(foreign, _)| foreign.eq_ignore_ascii_case(word)) {
        return format!(", write `{ours}`");
    }
    let names = WORDS.iter().map(|(name, _)| *name).chain(["decimal(p,s)", "list<type>", "struct{name: type}"]);
    match crate::nearest::nearest(word, names.clone()) {
        Some(name) => format!(", did you mean `{name}`?"),
        None => format!(": one of {}", names.collect::<Vec<_>>().join(", ")),
    }
}

impl ColumnType {
    /// The Arrow type of a column of this type.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::UInt8 => DataType::UInt8,
            Self::UInt16 => DataType::UInt16,
            Self::UInt32 => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => {
                DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(i8::MAX))
            }
            Self::String | Self::Json => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            Self::TimestampLocal => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::List(item) => DataType::List(Arc::new(item.to_field("item"))),
            Self::Struct(fields) => {
                DataType::Struct(fields.iter().map(|(name, kind)| kind.to_field(name)).collect::<Fields>())
            }
        }
    }

    /// A nullable Arrow field of this type. JSON text is marked with Arrow's extension name `arrow.json`.
    pub fn to_field(&self, name: &str) -> Field {
        let field = Field::new(name, self.to_arrow(), true);
        if *self != Self::Json {
            return field;
        }
        field.with_metadata(HashMap::from([(EXTENSION.0.to_owned(), EXTENSION.1.to_owned())]))
    }

    /// The column type that holds every value of an Arrow type; times finer than a microsecond are cut to it.
    pub fn from_arrow(data_type: &DataType) -> Result<Self, ColumnTypeError> {
        Ok(match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::UInt8 => Self::UInt8,
            DataType::UInt16 => Self::UInt16,
            DataType::UInt32 => Self::UInt32,
            DataType::UInt64 => Self::UInt64,
            DataType::Float16 | DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s)
                if u8::try_from(*s).is_ok_and(|scale| scale <= *p) =>
            {
                Self::Decimal { precision: *p, scale: u8::try_from(*s).unwrap_or(0) }
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Self::String,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Binary
            }
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Timestamp(_, Some(_)) => Self::Timestamp,
            DataType::Timestamp(_, None) => Self::TimestampLocal,
            DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => {
                Self::List(Box::new(Self::from_field(item)?))
            }
            DataType::FixedSizeList(item, _) => Self::List(Box::new(Self::from_field(item)?)),
            DataType::Struct(fields) => Self::Struct(
                fields
                    .iter()
                    .map(|field| Ok((field.name().clone(), Self::from_field(field)?)))
                    .collect::<Result<_, ColumnTypeError>>()?,
            ),
            DataType::Dictionary(_, values) => Self::from_arrow(values)?,
            DataType::RunEndEncoded(_, values) => Self::from_field(values)?,
            other => return Err(ColumnTypeError::Unsupported { data_type: other.clone() }),
        })
    }

    /// As [`Self::from_arrow`], and knows JSON text by its extension name.
    pub fn from_field(field: &Field) -> Result<Self, ColumnTypeError> {
        let is_json = field.metadata().get(EXTENSION.0).is_some_and(|name| name == EXTENSION.1);
        if is_json && matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            return Ok(Self::Json);
        }
        Self::from_arrow(field.data_type())
    }
}

impl fmt::Display for ColumnType {
    /// As `schema:` writes it; readable without quotes in YAML's block style.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::List(item) => write!(f, "list<{item}>"),
            Self::Struct(fields) => {
                f.write_str("struct{")?;
                for (index, (name, kind)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    if name.chars().all(is_word) && !name.is_empty() {
                        write!(f, "{comma}{name}:{kind}")?;
                    } else {
                        write!(f, "{comma}`{}`:{kind}", name.replace('`', "``"))?;
                    }
                }
                f.write_str("}")
            }
            simple => {
                let word = WORDS.iter().find(|(_, kind)| kind == simple).map_or("", |(word, _)| word);
                f.write_str(word)
            }
        }
    }
}

/// May stand in a name that needs no quotes.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Reads a column type from left to right.
struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    fn syntax(&self, expected: &'static str) -> ColumnTypeError {
        ColumnTypeError::Syntax { text: self.text.to_owned(), expected }
    }

    fn eat(&mut self, symbol: char) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(symbol) {
            Some(after) => {
                self.rest = after;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, symbol: char, expected: &'static str) -> Result<(), ColumnTypeError> {
        if self.eat(symbol) { Ok(()) } else { Err(self.syntax(expected)) }
    }

    fn word(&mut self) -> &str {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        self.rest = after;
        word
    }

    fn number(&mut self) -> Result<u64, ColumnTypeError> {
        let parsed = self.word().parse();
        parsed.map_err(|_| self.syntax("a number"))
    }

    fn field_name(&mut self) -> Result<String, ColumnTypeError> {
        if !self.eat('`') {
            return Ok(self.word().to_owned());
        }
        let mut name = String::new();
        loop {
            let end = self.rest.find('`').ok_or_else(|| self.syntax("a closing backtick"))?;
            name.push_str(&self.rest[..end]);
            self.rest = &self.rest[end + 1..];
            if !self.rest.starts_with('`') {
                return Ok(name);
            }
            self.rest = &self.rest[1..];
            name.push('`');
        }
    }

    fn column_type(&mut self, depth: usize) -> Result<ColumnType, ColumnTypeError> {
        if depth > MAX_DEPTH {
            return Err(ColumnTypeError::TooDeep);
        }
        let word = self.word().to_owned();
        match word.as_str() {
            "decimal" => self.decimal(),
            "list" => {
                self.expect('<', "`<`")?;
                let item = self.column_type(depth + 1)?;
                self.expect('>', "`>`")?;
                Ok(ColumnType::List(Box::new(item)))
            }
            "struct" => self.fields(depth),
            other => WORDS.iter().find(|(name, _)| *name == other).map(|(_, kind)| kind.clone()).ok_or_else(|| {
                let word = if other.is_empty() { self.text.trim().to_owned() } else { word.clone() };
                ColumnTypeError::Unknown { word }
            }),
        }
    }

    fn decimal(&mut self) -> Result<ColumnType, ColumnTypeError> {
        self.expect('(', "`(precision,scale)`")?;
        let wide = self.number()?;
        let fraction = if self.eat(',') { self.number()? } else { 0 };
        self.expect(')', "`)`")?;
        match (u8::try_from(wide), u8::try_from(fraction)) {
            (Ok(precision @ 1..=38), Ok(scale)) if scale <= precision => Ok(ColumnType::Decimal { precision, scale }),
            _ => Err(ColumnTypeError::Decimal { precision: wide, scale: fraction }),
        }
    }

    fn fields(&mut self, depth: usize) -> Result<ColumnType, ColumnTypeError> {
        let close = if self.eat('<') {
            '>'
        } else {
            self.expect('{', "`{`")?;
            '}'
        };
        let mut fields: Vec<(String, ColumnType)> = Vec::new();
        loop {
            let name = self.field_name()?;
            if name.is_empty() {
                return Err(self.syntax("a field name"));
            }
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(self.syntax("field names that differ"));
            }
            self.expect(':', "`:` after a field name")?;
            fields.push((name, self.column_type(depth + 1)?));
            if !self.eat(',') {
                self.expect(close, "`,` or the closing bracket")?;
                return Ok(ColumnType::Struct(fields));
            }
        }
    }
}

impl FromStr for ColumnType {
    type Err = ColumnTypeError;

    fn from_str(text: &str) -> Result<Self, ColumnTypeError> {
        let mut reader = Reader { text, rest: text };
        let column_type = reader.column_type(0)?;
        if reader.rest.trim().is_empty() { Ok(column_type) } else { Err(reader.syntax("nothing more")) }
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for ColumnType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ColumnType {
    fn schema_name() -> Cow<'static, str> {
        "ColumnType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = WORDS.iter().map(|(name, _)| *name).collect();
        json_schema!({
            "description": "The type of a column. Every column may be null.",
            "type": "string",
            "format": "column-type",
            "anyOf": [
                { "enum": words },
                { "pattern": "^(decimal|list|struct)", "examples": ["decimal(10,2)", "list<string>"] },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn types_are_read_with_and_without_spaces() {
        for (text, printed) in [
            ("int32", "int32"),
            ("decimal(10, 2)", "decimal(10,2)"),
            ("decimal(5)", "decimal(5,0)"),
            (" list< string > ", "list<string>"),
            ("struct{a: int32, b: list<struct<c: json>>}", "struct{a:int32,b:list<struct{c:json}>}"),
            ("struct{`a b`: date}", "struct{`a b`:date}"),
        ] {
            assert_eq!(text.parse::<ColumnType>().unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn mistakes_are_answered_with_what_to_write() {
        for (text, message) in [
            ("integer", "unknown column type `integer`, write `int32`"),
            ("strnig", "unknown column type `strnig`, did you mean `string`?"),
            ("decimal(10", "expected `)` in column type `decimal(10`"),
            ("decimal(39,2)", "decimal(39,2) needs a precision of 1 to 38 and a scale of at most the precision"),
            ("list<int32", "expected `>` in column type `list<int32`"),
            ("struct{}", "expected a field name in column type `struct{}`"),
            ("int32 int32", "expected nothing more in column type `int32 int32`"),
            ("struct{a:int8,a:int8}", "expected field names that differ in column type `struct{a:int8,a:int8}`"),
        ] {
            assert_eq!(text.parse::<ColumnType>().unwrap_err().to_string(), message, "{text}");
        }
        assert_eq!("list<".repeat(100).parse::<ColumnType>(), Err(ColumnTypeError::TooDeep));
    }

    #[test]
    fn timestamps_of_any_unit_are_read_as_microseconds() {
        let nanos = DataType::Timestamp(TimeUnit::Nanosecond, Some("+02:00".into()));
        assert_eq!(ColumnType::from_arrow(&nanos).unwrap(), ColumnType::Timestamp);
        assert!(ColumnType::from_arrow(&DataType::Duration(TimeUnit::Second)).is_err());
    }

    fn column_types() -> impl Strategy<Value = ColumnType> {
        let leaf = prop_oneof![
            proptest::sample::select(WORDS.iter().map(|(_, kind)| kind.clone()).collect::<Vec<_>>()),
            (1u8..=38, 0u8..=38)
                .prop_map(|(precision, scale)| ColumnType::Decimal { precision, scale: scale.min(precision) }),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let fields = proptest::collection::btree_map("[a-z`. ]{1,6}", inner.clone(), 1..4);
            prop_oneof![
                inner.prop_map(|item| ColumnType::List(Box::new(item))),
                fields.prop_map(|fields| ColumnType::Struct(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn types_survive_printing_and_arrow(column_type in column_types()) {
            prop_assert_eq!(column_type.to_string().parse::<ColumnType>().unwrap(), column_type.clone());
            prop_assert_eq!(ColumnType::from_field(&column_type.to_field("x")).unwrap(), column_type);
        }

        #[test]
        fn any_text_is_answered(text: String) {
            let _ = text.parse::<ColumnType>();
        }
    }
}
