//! Rows become messages, and messages rows, without a guest between them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::META_COLUMNS;
use logmill_wasm::Content;
use proptest::prelude::*;

use crate::conformance::as_text;
use crate::sql::meta_field;
use crate::wasm::live::Made;
use crate::wasm::messages::Layout;
use crate::wasm::packed::{self, Writer};
use crate::wasm::transform::{Output, take};
use crate::wasm::values;

/// A header as a test writes it.
type Header = (&'static str, Option<&'static [u8]>);

/// Builds a result as guests do.
#[derive(Default)]
struct Results {
    entries: u32,
    bytes: Vec<u8>,
}

impl Results {
    fn bytes(&mut self, bytes: Option<&[u8]>) {
        let length = bytes.map_or(u32::MAX, |bytes| u32::try_from(bytes.len()).unwrap());
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(bytes.unwrap_or_default());
    }

    fn entry(mut self, message: u32, kind: u8) -> Self {
        self.entries += 1;
        self.bytes.extend(message.to_le_bytes());
        self.bytes.push(kind);
        self
    }

    fn message(self, message: u32, port: u16, value: Option<&[u8]>) -> Self {
        self.whole(message, port, i64::MIN, None, value, &[])
    }

    fn whole(
        self,
        message: u32,
        port: u16,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Self {
        let mut this = self.entry(message, 0);
        this.bytes.extend(port.to_le_bytes());
        this.bytes.extend(timestamp.to_le_bytes());
        this.bytes(key);
        this.bytes(value);
        this.bytes.extend(u32::try_from(headers.len()).unwrap().to_le_bytes());
        for (name, value) in headers {
            this.bytes(Some(name.as_bytes()));
            this.bytes(*value);
        }
        this
    }

    fn failed(self, message: u32, reason: &str) -> Self {
        let mut this = self.entry(message, 1);
        this.bytes(Some(reason.as_bytes()));
        this
    }

    fn finish(self) -> Vec<u8> {
        [self.entries.to_le_bytes().to_vec(), self.bytes].concat()
    }
}

fn schema(columns: &[(&str, &str)]) -> SchemaRef {
    let visible = columns.iter().map(|(name, kind)| kind.parse::<ColumnType>().unwrap().to_field(name));
    Arc::new(Schema::new(visible.chain(META_COLUMNS.map(meta_field)).collect::<Vec<_>>()))
}

/// Records of a source: with hidden columns.
fn records(rows: usize) -> RecordBatch {
    let count = i32::try_from(rows).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("value", Arc::new(StringArray::from_iter_values((0..count).map(|n| format!("value {n}"))))),
        ("_partition", Arc::new(Int32Array::from_iter_values((0..count).map(|_| 7)))),
        ("_offset", Arc::new(Int64Array::from_iter_values((0..i64::from(count)).map(|n| 100 + n)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

/// What comes of a result: the visible columns of each row of each port, and what is rejected.
struct Came {
    ports: Vec<RecordBatch>,
    rejected: Vec<(usize, String)>,
}

impl Came {
    fn text(&self, port: usize) -> Vec<String> {
        let rows = &self.ports[port];
        let visible: Vec<usize> = (0..rows.num_columns() - values::HIDDEN).collect();
        as_text(&rows.project(&visible).unwrap(), None)
    }
}

fn taken(result: &[u8], rows: usize, outputs: &[(Content, SchemaRef)]) -> Result<Came, String> {
    let input = records(rows);
    let layout = Layout::new(&input.schema());
    let names = ["first", "second", "third"];
    let described: Vec<Output<'_>> =
        outputs.iter().zip(names).map(|((content, schema), name)| Output { name, content, schema }).collect();
    let mut made = Made::default();
    take(&packed::read(result, rows, outputs.len())?, &input, &layout, &described, &mut made)?;
    made.merge_rejected();
    let of_port = |port: usize| made.rows.iter().find(|(of, _)| *of == port).map(|(_, rows)| rows.clone());
    let ports =
        (0..outputs.len()).map(|port| of_port(port).unwrap_or_else(|| RecordBatch::new_empty(outputs[port].1.clone())));
    let rejected = made.rejected.iter().flat_map(|r| (0..r.rows).map(|n| (r.first + n, r.reason.clone())));
    Ok(Came { ports: ports.collect(), rejected: rejected.collect() })
}

fn json(columns: &[(&str, &str)]) -> (Content, SchemaRef) {
    let described = columns.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
    (Content::Json(described), schema(columns))
}

fn text() -> (Content, SchemaRef) {
    (Content::Text, schema(&[("value", "string")]))
}

fn bytes() -> (Content, SchemaRef) {
    (Content::Bytes, schema(&[("value", "binary")]))
}

#[test]
fn messages_become_typed_columns() {
    let outputs = [json(&[("n", "int32"), ("at", "timestamp"), ("tags", "list<string>")]), text(), bytes()];
    let result = Results::default()
        .message(0, 0, Some(br#" {"n": 5, "at": "2013-01-01T05:00:00Z", "tags": ["a", "b"]} "#))
        .message(0, 1, Some("ä".as_bytes()))
        .message(2, 0, Some(br#"{"n": null}"#))
        .message(2, 2, Some(b"\xff"))
        .message(2, 1, None)
        .message(3, 0, Some(b"{}"));
    let came = taken(&result.finish(), 4, &outputs).unwrap();
    assert_eq!(came.text(0), ["5|2013-01-01T05:00:00Z|[a, b]", "null|null|null", "null|null|null"]);
    assert_eq!(came.text(1), ["ä", "null"]);
    assert_eq!(came.text(2), ["ff"]);
    assert!(came.rejected.is_empty());
}

#[test]
fn hidden_columns_are_the_messages_own_and_their_records_places() {
    let result = Results::default()
        .whole(1, 0, 5, Some(b"k"), Some(b"v"), &[("a", Some(b"1")), ("a", None)])
        .whole(1, 0, i64::MIN, None, Some(b"w"), &[])
        .finish();
    let rows = &taken(&result, 2, &[text()]).unwrap().ports[0];
    assert_eq!(rows.schema(), text().1);
    assert_eq!(
        as_text(rows, None),
        ["v|6b|1970-01-01T00:00:00.000005Z|7|101|[{key: a, value: 31}, {key: a, value: null}]", "w|null|null|7|101|[]"]
    );
}

#[test]
fn a_row_is_rejected_with_all_that_was_made_of_it() {
    let outputs = [json(&[("n", "int8")]), text()];
    let result = Results::default()
        .message(0, 1, Some(b"fine"))
        .message(0, 0, Some(br#"{"n": 1}"#))
        .message(1, 1, Some(b"lost with its other half"))
        .message(1, 0, Some(br#"{"n": 300}"#))
        .failed(2, "it\nsays no\n")
        .failed(3, "")
        .message(4, 0, Some(br#"{"n": 4}{"n": 5}"#))
        .message(5, 1, Some(b"\xff\xfe"))
        .message(6, 0, Some(b"7"))
        .message(7, 0, Some(br#"{"n": 7}"#))
        .message(8, 0, Some(br#"{"n": "#))
        .message(9, 0, Some(br#"{"n": 1.5}"#))
        .message(10, 0, Some(br#"{"m": 1}"#))
        .message(11, 0, None);
    let came = taken(&result.finish(), 12, &outputs).unwrap();
    assert_eq!((came.text(0), came.text(1)), (vec!["1".to_owned(), "7".to_owned()], vec!["fine".to_owned()]));
    let rows: Vec<usize> = came.rejected.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]);
    let reason = |row: usize| came.rejected.iter().find(|(of, _)| *of == row).unwrap().1.clone();
    assert!(reason(1).starts_with("what it made for the output `first` is no JSON object of its columns: "));
    assert_eq!((reason(2).as_str(), reason(3).as_str()), ("it says no", "the guest gives no reason"));
    assert!(reason(4).contains("expected the end of the record, found"), "{}", reason(4));
    assert_eq!(reason(5), "what it made for the output `second` is no UTF-8");
    assert!(reason(9).ends_with("columns: column `n`: expected int8, found 1.5"), "{}", reason(9));
    assert!(reason(10).ends_with("it has a field `m`, which is no column; did it mean `n`?"), "{}", reason(10));
    assert!(reason(11).contains("is null, which means a deletion"), "{}", reason(11));
}

#[test]
fn what_a_guest_says_of_a_row_is_cut() {
    let result = Results::default().failed(0, &"ä".repeat(100_000)).finish();
    let came = taken(&result, 1, &[text()]).unwrap();
    assert_eq!(came.rejected[0].1, format!("{}...", "ä".repeat(2048)));
}

#[test]
fn columns_of_any_json_hold_it_as_text() {
    let outputs = [json(&[("any", "json"), ("in", "struct{any: json}"), ("list", "list<json>")])];
    let result = Results::default()
        .message(0, 0, Some(br#"{"any": {"b": 1, "a": [true, null]}, "in": {"any": 5}, "list": ["x", null, 1.5]}"#))
        .message(1, 0, Some(br#"{"any": null}"#))
        .message(2, 0, Some(b"[1]"))
        .finish();
    let came = taken(&result, 3, &outputs).unwrap();
    assert_eq!(came.text(0), [r#"{"b": 1, "a": [true, null]}|{any: 5}|["x", null, 1.5]"#, "null|null|null"]);
    assert_eq!(came.rejected.len(), 1);
}

/// The messages that rows become, read as guests do: timestamp, key, value, headers.
fn messages_of(rows: &RecordBatch) -> Vec<String> {
    let mut writer = Writer::default();
    Layout::new(&rows.schema()).write(rows, &mut writer).unwrap();
    let mut rest = writer.finish();
    fn number<'a, const N: usize>(rest: &mut &'a [u8]) -> &'a [u8; N] {
        let (head, tail) = rest.split_first_chunk::<N>().unwrap();
        *rest = tail;
        head
    }
    fn text(rest: &mut &[u8]) -> String {
        let length = u32::from_le_bytes(*number::<4>(rest));
        if length == u32::MAX {
            return "null".to_owned();
        }
        let (bytes, tail) = rest.split_at(length as usize);
        *rest = tail;
        String::from_utf8_lossy(bytes).into_owned()
    }
    let count = u32::from_le_bytes(*number::<4>(&mut rest));
    let messages = (0..count).map(|_| {
        let timestamp = i64::from_le_bytes(*number::<8>(&mut rest));
        let (key, value) = (text(&mut rest), text(&mut rest));
        let headers = u32::from_le_bytes(*number::<4>(&mut rest));
        let headers: Vec<String> = (0..headers).map(|_| format!("{}={}", text(&mut rest), text(&mut rest))).collect();
        let timestamp = if timestamp == i64::MIN { "none".to_owned() } else { timestamp.to_string() };
        format!("{timestamp} {key} {value} {}", headers.join(","))
    });
    let messages = messages.collect();
    assert!(rest.is_empty());
    messages
}

#[test]
fn rows_become_messages() {
    let headers = values::headers([packed_headers(&[("h", Some(b"1")), ("i", None)]), packed_headers(&[])].into_iter());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("flight", Arc::new(Int32Array::from(vec![Some(461), None]))),
        ("_key", Arc::new(BinaryArray::from(vec![Some(&b"UA"[..]), None]))),
        ("body", Arc::new(StringArray::from(vec![Some("a \"b\""), None]))),
        ("_timestamp", Arc::new(TimestampMicrosecondArray::from(vec![Some(9), None]).with_timezone("UTC"))),
        ("_headers", headers.unwrap()),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let expected = [r#"9 UA {"flight":461,"body":"a \"b\""} h=1,i=null"#, r#"none null {"flight":null,"body":null} "#];
    assert_eq!(messages_of(&rows), expected);
    assert_eq!(messages_of(&rows.slice(1, 1)), expected[1..]);
    // One column of text or bytes is the value itself.
    let rows = rows.project(&[2, 1]).unwrap();
    assert_eq!(messages_of(&rows), [r#"none UA a "b" "#, "none null null "]);
    assert_eq!(messages_of(&rows.project(&[1]).unwrap()), ["none UA {} ", "none null {} "]);
    let json = ColumnType::Json.to_field("any");
    let fields = Schema::new(vec![json, Field::new("n", DataType::Int32, true)]);
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(r#"{"a": [1]}"#), None]));
    let rows = RecordBatch::try_new(Arc::new(fields), vec![texts, Arc::new(Int32Array::from(vec![1, 2]))]).unwrap();
    assert_eq!(messages_of(&rows), [r#"none null {"any":{"a": [1]},"n":1} "#, r#"none null {"any":null,"n":2} "#]);
}

/// Headers as a guest's result holds them.
fn packed_headers(headers: &[Header]) -> packed::Headers<'static> {
    let bytes: &'static [u8] = Results::default().whole(0, 0, 0, None, None, headers).finish().leak();
    let entries = packed::read(bytes, 1, 1).unwrap();
    let entry = entries.of_port(0).next().unwrap();
    entries.read(entry).headers
}

/// What a guest makes of one row in the property test: good and bad JSON.
fn value() -> impl Strategy<Value = (String, Option<i64>)> {
    prop_oneof![
        8 => any::<i64>().prop_map(|n| (format!("{{\"n\": {n}}}"), Some(n))),
        1 => "[{}\\[\\]a-z\":0-9 ]{0,8}".prop_map(|text| (format!("!{text}"), None)),
    ]
}

proptest! {
    #[test]
    fn exactly_the_rows_with_bad_values_are_rejected(
        made in proptest::collection::vec(proptest::collection::vec(value(), 0..3), 0..60),
    ) {
        let mut results = Results::default();
        let (mut expected, mut bad) = (Vec::new(), Vec::new());
        for (row, values) in made.iter().enumerate() {
            for (text, _) in values {
                results = results.message(u32::try_from(row).unwrap(), 0, Some(text.as_bytes()));
            }
            let numbers: Option<Vec<i64>> = values.iter().map(|(_, number)| *number).collect();
            match numbers {
                Some(numbers) => expected.extend(numbers.iter().map(ToString::to_string)),
                None => bad.push(row),
            }
        }
        let came = taken(&results.finish(), made.len(), &[json(&[("n", "int64")])]).unwrap();
        prop_assert_eq!(came.text(0), expected);
        prop_assert_eq!(came.rejected.into_iter().map(|(row, _)| row).collect::<Vec<_>>(), bad);
    }
}
