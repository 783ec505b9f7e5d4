//! Transforms, called as the engine does: packed records in, packed results out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logmill_guest::testing::{Entry, Record, Transforming};
use logmill_guest::{Message, Out, Port, Transform};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    limit: i64,
}

#[derive(Deserialize)]
struct Order<'a> {
    id: i64,
    #[serde(borrow)]
    item: &'a str,
}

logmill_guest::record! {
    struct Line<'a> {
        id: i64,
        item: &'a str,
        r#type: Option<String>,
        prices: Vec<f64>,
        at: i64 as "timestamp",
    }
}

struct Orders(Config);

impl Transform for Orders {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.limit < 0 { Err("`limit` is negative".to_owned()) } else { Ok(Orders(config)) }
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::of::<Line<'_>>("lines"), Port::text("texts"), Port::bytes("blobs")]
    }

    fn transform(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result<(), String> {
        let order: Order<'_> = message.json()?;
        for _ in 0..order.id.min(3) {
            out.json(&Line { id: order.id, item: order.item, r#type: None, prices: vec![], at: 0 })?;
        }
        if order.id > self.0.limit {
            return Err(format!("order {} is above {}", order.id, self.0.limit));
        }
        out.emit_to("texts")?.key(Some(b"other")).timestamp_us(Some(7)).header("more", None).text(order.item);
        out.emit_to("blobs")?.null();
        Ok(())
    }
}

fn record(value: &str) -> Record {
    let headers = vec![("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None), ("a".to_owned(), Some(vec![]))];
    Record { key: Some(b"k".to_vec()), headers, timestamp_us: Some(-1), ..Record::of(value) }
}

#[test]
fn columns_follow_the_struct() {
    let columns = <Line<'_> as logmill_guest::Record>::columns();
    let columns: Vec<_> = columns.iter().map(|(name, data_type)| (name.as_str(), data_type.as_str())).collect();
    let expected =
        [("id", "int64"), ("item", "string"), ("type", "string"), ("prices", "list<float64>"), ("at", "timestamp")];
    assert_eq!(columns, expected);
}

#[test]
fn records_keep_key_headers_and_time_unless_others_are_given() {
    let orders = Transforming::<Orders>::new(r#"{"limit": 5}"#).unwrap();
    let entries = orders.transform(&[record(r#"{"id": 1, "item": "tea"}"#)]).unwrap();
    let line =
        Record { value: Some(br#"{"id":1,"item":"tea","type":null,"prices":[],"at":0}"#.to_vec()), ..record("") };
    let mut text = Record { key: Some(b"other".to_vec()), timestamp_us: Some(7), ..record("tea") };
    text.headers.push(("more".to_owned(), None));
    let blob = Record { value: None, ..record("") };
    let expected = [("lines", line), ("texts", text), ("blobs", blob)];
    let expected = expected.map(|(output, record)| Entry { index: 0, what: Ok((output.to_owned(), record)) });
    assert_eq!(entries, expected);
}

#[test]
fn a_record_that_fails_puts_nothing_out_and_harms_no_other() {
    let orders = Transforming::<Orders>::new(r#"{"limit": 5}"#).unwrap();
    let values = [r#"{"id": 0, "item": "a"}"#, r#"{"id": 9, "item": "b"}"#, "{", r#"{"id": 2, "item": "c"}"#];
    let entries = orders.transform(&values.map(Record::of)).unwrap();
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.index, entry.what.as_ref().map(|(output, _)| output.as_str()).map_err(String::as_str)))
        .collect();
    let parse_error = "EOF while parsing an object at line 1 column 1";
    let expected = [
        (0, Ok("texts")),
        (0, Ok("blobs")),
        (1, Err("order 9 is above 5")),
        (2, Err(parse_error)),
        (3, Ok("lines")),
        (3, Ok("lines")),
        (3, Ok("texts")),
        (3, Ok("blobs")),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_configuration_that_does_not_fit_is_said() {
    let check = |config, expected| assert_eq!(Transforming::<Orders>::new(config).unwrap_err(), expected);
    check(r#"{"limit": -1}"#, "`limit` is negative");
    check("{}", "config: missing field `limit` at line 1 column 2");
    check("null", "config: invalid type: null, expected struct Config at line 1 column 4");
}

#[test]
fn headers_can_be_asked_for_by_name() {
    struct Last;

    impl Transform for Last {
        type Config = ();

        fn new((): ()) -> Result<Self, String> {
            Ok(Last)
        }

        fn outputs(&self) -> Vec<Port> {
            vec![Port::bytes("out")]
        }

        fn transform(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result<(), String> {
            assert_eq!(message.headers().count(), 3);
            assert_eq!((message.header("b"), message.header("c")), (None, None));
            out.emit().bytes(message.header("a").unwrap());
            Ok(())
        }
    }

    let entries = Transforming::<Last>::new("null").unwrap().transform(&[record("x")]).unwrap();
    assert_eq!(entries[0].what.as_ref().unwrap().1.value, Some(vec![]));
}

logmill_guest::transform!(
    fn doubled(order: Order<'_>) -> Vec<Doubled> {
        vec![Doubled { id: order.id }, Doubled { id: order.id * 2 }]
    }
);

logmill_guest::record! {
    #[derive(Debug, PartialEq)]
    struct Doubled { id: i64 }
}

#[test]
fn a_function_that_is_exported_can_be_called() {
    assert_eq!(doubled(Order { id: 4, item: "" }), [Doubled { id: 4 }, Doubled { id: 8 }]);
}
