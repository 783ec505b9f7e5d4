//! The types that come out of queries: JSON stays JSON, times are microseconds in all years, and nothing comes out that no sink
//! could hold.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StructArray, Time64MicrosecondArray};
use arrow::array::{Date32Array, TimestampMicrosecondArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Schema, SchemaRef};
use logmill_columns::scalar::timestamp;
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::RowBatch;

use crate::conformance::{Case, Event, Said, check, play};
use crate::operator::{OpenContext, StaticTable};
use crate::sql::{Functions, Relation, RelationKind, SqlPlan, plan};

fn schema(columns: &[(&str, &str)]) -> SchemaRef {
    let field = |(name, kind): &(&str, &str)| kind.parse::<ColumnType>().unwrap().to_field(name);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn events_schema() -> SchemaRef {
    schema(&[
        ("id", "int64"),
        ("body", "json"),
        ("other", "json"),
        ("note", "string"),
        ("at", "timestamp"),
        ("local", "timestamp_local"),
        ("day", "date"),
        ("clock", "time"),
        ("items", "list<json>"),
        ("inner", "struct{payload: json, name: string}"),
    ])
}

fn relations() -> Vec<Relation> {
    let stream = |name: &str| Relation {
        name: name.into(),
        schema: events_schema(),
        kind: RelationKind::Stream,
        has_meta: false,
    };
    let codes = Relation {
        name: "codes".into(),
        schema: schema(&[("id", "int64"), ("details", "json")]),
        kind: RelationKind::Table,
        has_meta: false,
    };
    vec![stream("events"), stream("more"), codes]
}

fn planned(sql: &str) -> SqlPlan {
    plan("op", sql, &relations(), &Functions::default()).unwrap_or_else(|errors| panic!("{sql}: {errors:?}"))
}

/// The types of a query's columns, as `explain` prints them.
fn types(sql: &str) -> String {
    let schema = planned(sql).output_schema();
    let kind = |field: &Arc<arrow::datatypes::Field>| ColumnType::from_field(field).unwrap().to_string();
    schema.fields().iter().map(kind).collect::<Vec<_>>().join(" ")
}

/// Three events, at these times.
fn rows(times: [&str; 3]) -> RecordBatch {
    let micros = times.map(|time| timestamp(time.as_bytes()).unwrap());
    let days = micros.map(|micros| i32::try_from(micros.div_euclid(86_400_000_000)).unwrap());
    let schema = events_schema();
    let texts = |texts: [Option<&str>; 3]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
    let json: ArrayRef = texts([Some("{\"a\":1}"), None, Some("[2]")]);
    let arrow::datatypes::DataType::List(item) = schema.field(8).data_type() else { panic!("a list") };
    let items = ListArray::new(item.clone(), OffsetBuffer::from_lengths([2, 0, 1]), json.clone(), None);
    let arrow::datatypes::DataType::Struct(fields) = schema.field(9).data_type() else { panic!("a struct") };
    let inner = StructArray::new(fields.clone(), vec![json.clone(), texts([Some("x"), Some("y"), None])], None);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        json.clone(),
        texts([Some("true"), Some("{}"), None]),
        texts([Some("-1"), Some("12:30:00"), Some("x")]),
        Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("UTC")),
        Arc::new(TimestampMicrosecondArray::from(micros.to_vec())),
        Arc::new(Date32Array::from(days.to_vec())),
        Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999, 1])),
        Arc::new(items),
        Arc::new(inner),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

const NOW: [&str; 3] = ["2024-01-31T05:06:07.89Z", "1970-01-01T00:00:00Z", "2100-12-31T23:59:59Z"];
/// Outside of what nanoseconds hold.
const FAR: [&str; 3] = ["+12345-01-31T05:06:07.89Z", "0044-03-15T12:00:00Z", "-4000-12-31T23:59:59Z"];

fn said(sql: &str, times: [&str; 3]) -> Said {
    let plan = planned(sql);
    let make = || plan.operator();
    let details: ArrayRef = Arc::new(StringArray::from(vec![Some("{\"d\":1}"), None]));
    let codes = schema(&[("id", "int64"), ("details", "json")]);
    let codes_rows =
        RecordBatch::try_new(codes.clone(), vec![Arc::new(Int64Array::from(vec![1, 2])), details]).unwrap();
    let tables = vec![StaticTable { name: "codes".into(), schema: codes, batches: vec![codes_rows] }];
    let tables = if plan.tables().is_empty() { Vec::new() } else { tables };
    let open = OpenContext { tables, ..OpenContext::default() };
    let batches = plan.inputs().iter().enumerate().map(|(port, _)| Event::Batch(port, RowBatch::inserts(rows(times))));
    let case = Case { make: &make, open, events: batches.collect(), ordered: !sql.contains("UNION ALL") };
    check(&case).unwrap();
    play(&case).unwrap()
}

#[test]
fn json_stays_json_where_its_values_are_kept() {
    for (sql, expected) in [
        ("SELECT body FROM events", "json"),
        (
            "SELECT * FROM events",
            "int64 json json string timestamp timestamp_local date time list<json> struct{payload:json,name:string}",
        ),
        ("SELECT e.body AS b FROM (SELECT * FROM events WHERE id > 1) AS e", "json"),
        ("WITH x AS (SELECT body, id FROM events) SELECT body FROM x WHERE id = 1", "json"),
        ("SELECT CASE WHEN id = 1 THEN body WHEN id = 2 THEN other END AS c FROM events", "json"),
        ("SELECT CASE WHEN id = 1 THEN body ELSE NULL END AS c FROM events", "json"),
        ("SELECT COALESCE(body, other) AS c FROM events", "json"),
        ("SELECT COALESCE(NULL, body) AS c, nullif(body, other) AS n FROM events", "json json"),
        ("SELECT body FROM events UNION ALL SELECT other FROM more", "json"),
        ("SELECT body FROM events UNION ALL SELECT NULL FROM more", "json"),
        ("SELECT c.details, e.body FROM events e JOIN codes c ON c.id = e.id", "json json"),
        ("SELECT c.details FROM events e LEFT JOIN codes c ON c.id = e.id", "json"),
        ("SELECT inner['payload'] AS p, inner['name'] AS n, items[1] AS i FROM events", "json string json"),
        ("SELECT unnest(items) AS i FROM events", "json"),
        ("SELECT items, inner FROM events", "list<json> struct{payload:json,name:string}"),
        // Text that is made of it is text.
        ("SELECT CAST(body AS string) AS c FROM events", "string"),
        ("SELECT upper(body) AS c, body || 'x' AS d FROM events", "string string"),
        ("SELECT CASE WHEN id = 1 THEN body ELSE note END AS c FROM events", "string"),
        ("SELECT COALESCE(body, 'none') AS c FROM events", "string"),
        ("SELECT body FROM events UNION ALL SELECT note FROM more", "string"),
        ("SELECT array_append(items, note) AS a FROM events", "list<string>"),
        ("SELECT named_struct('a', body) AS s FROM events", "struct{a:string}"),
    ] {
        assert_eq!(types(sql), expected, "{sql}");
        assert_eq!(said(sql, NOW).rejected, [""; 0], "{sql}");
    }
}

#[test]
fn times_come_out_as_a_schema_declares_them() {
    for (sql, expected) in [
        ("SELECT arrow_cast(at, 'Timestamp(Second, Some(\"UTC\"))') AS t FROM events", "timestamp"),
        ("SELECT arrow_cast(local, 'Timestamp(Millisecond, None)') AS t FROM events", "timestamp_local"),
        ("SELECT arrow_cast(day, 'Date64') AS d FROM events", "date"),
        (
            "SELECT arrow_cast(clock, 'Time32(Second)') AS c, arrow_cast(clock, 'Time64(Nanosecond)') AS n FROM events",
            "time time",
        ),
        ("SELECT CAST('2024-01-31T05:06:07' AS timestamp) AS t FROM events", "timestamp_local"),
        ("SELECT to_timestamp('2024-01-31T05:06:07Z') AS t FROM events", "timestamp_local"),
        ("SELECT arrow_cast(note, 'LargeUtf8') AS s, arrow_cast(note, 'Utf8View') AS v FROM events", "string string"),
        ("SELECT arrow_cast(note, 'Dictionary(Int32, Utf8)') AS s FROM events", "string"),
        ("SELECT arrow_cast(items, 'LargeList(Utf8)') AS l FROM events", "list<string>"),
    ] {
        assert_eq!(types(sql), expected, "{sql}");
        let arrow = planned(sql).output_schema();
        for field in arrow.fields() {
            let kind = ColumnType::from_field(field).unwrap().to_arrow();
            assert_eq!(field.data_type(), &kind, "{sql}: sinks and sources have one Arrow type for each of ours");
        }
        said(sql, NOW);
    }
}

#[test]
fn rows_of_any_year_can_be_computed_with() {
    for (sql, expected) in [
        (
            "SELECT date_trunc('year', at) AS t FROM events",
            ["+12345-01-01T00:00:00Z", "0044-01-01T00:00:00Z", "-4000-01-01T00:00:00Z"],
        ),
        (
            "SELECT date_trunc('month', local) AS t FROM events",
            ["+12345-01-01T00:00:00", "0044-03-01T00:00:00", "-4000-12-01T00:00:00"],
        ),
        (
            "SELECT date_trunc('hour', at) AS t FROM events",
            ["+12345-01-31T05:00:00Z", "0044-03-15T12:00:00Z", "-4000-12-31T23:00:00Z"],
        ),
        ("SELECT to_char(at, '%Y') AS t FROM events", ["+12345", "0044", "-4000"]),
        (
            "SELECT CAST(at AS timestamp) AS t FROM events",
            ["+12345-01-31T05:06:07.890", "0044-03-15T12:00:00", "-4000-12-31T23:59:59"],
        ),
        (
            "SELECT local AT TIME ZONE '+01:00' AS t FROM events",
            ["+12345-01-31T05:06:07.890+01:00", "0044-03-15T12:00:00+01:00", "-4000-12-31T23:59:59+01:00"],
        ),
        ("SELECT CAST(date_part('year', at) AS string) AS t FROM events", ["12345", "44", "-4000"]),
        (
            "SELECT at + INTERVAL '1 day' AS t FROM events",
            ["+12345-02-01T05:06:07.890Z", "0044-03-16T12:00:00Z", "-3999-01-01T23:59:59Z"],
        ),
    ] {
        let said = said(sql, FAR);
        assert_eq!(said.rejected, [""; 0], "{sql}");
        let found: Vec<_> =
            said.rows.into_iter().flatten().map(|row| row.trim_start_matches("0:").to_owned()).collect();
        assert_eq!(found, expected, "{sql}");
    }
    let week = |times| said("SELECT date_trunc('week', at) AS t FROM events", times).rows.concat();
    // 400 years are whole weeks.
    assert_eq!(
        week(["2424-01-31T05:00:00Z", "2824-01-31T05:00:00Z", "2024-01-31T05:00:00Z"]),
        ["2424-01-29T00:00:00Z", "2824-01-29T00:00:00Z", "2024-01-29T00:00:00Z"]
    );
}

#[test]
fn values_that_no_text_can_show_are_rejected_with_their_column() {
    for (sql, rejected) in [
        (
            "SELECT id, TRY_CAST(note AS time) AS t FROM events",
            "column `t`: the time -1 µs after midnight is outside a day",
        ),
        (
            "SELECT id, arrow_cast(id * -1, 'Time64(Microsecond)') AS t FROM events",
            "column `t`: the time -1 µs after midnight is outside a day",
        ),
        (
            "SELECT id, arrow_cast(id + 9223372036854775804, 'Timestamp(Microsecond, None)') AS t FROM events",
            "column `t`: the timestamp 9223372036854775805 µs from 1970 is outside the years -262142 to 262141",
        ),
        (
            "SELECT id, arrow_cast(id + 9223372036854775804, 'Timestamp(Second, None)') AS t FROM events",
            "cannot cast Timestamp(s) value 9223372036854775805",
        ),
        ("SELECT id, arrow_cast(id + 2147483644, 'Date32') AS d FROM events", "outside the years"),
    ] {
        let said = said(sql, NOW);
        let all = said.rows.concat().join("\n");
        assert!(!all.contains("ERROR"), "{sql}: {all}");
        let is_found = said.rejected.iter().any(|row| row.to_lowercase().contains(&rejected.to_lowercase()));
        assert!(is_found, "{sql}: {:?}", said.rejected);
    }
}

#[test]
fn types_that_no_sink_holds_are_refused_with_their_place() {
    for (sql, message) in [
        ("SELECT id, at - at AS d FROM events", "the column `d` is of type duration, which no sink can hold"),
        (
            "SELECT id,\n  INTERVAL '1 day' AS d FROM events",
            "the column `d` is of type interval, which no sink can hold",
        ),
        ("SELECT map([note], [id]) AS m FROM events", "the column `m` is of type map"),
    ] {
        let errors = plan("op", sql, &relations(), &Functions::default()).unwrap_err();
        assert!(errors[0].message.starts_with(message), "{sql}: {errors:?}");
        assert!(errors[0].hint.is_some() && errors[0].column > 1, "{errors:?}");
    }
    // As the hint says.
    assert_eq!(types("SELECT extract(epoch FROM at) - extract(epoch FROM at) AS seconds FROM events"), "float64");
}

#[test]
fn values_of_the_query_itself_are_held_to_the_ranges() {
    let of =
        |day: &str| format!("SELECT e.id, v.day FROM events e JOIN (VALUES (1, {day})) AS v(id, day) ON v.id = e.id");
    planned(&of("DATE '2013-01-01'"));
    let errors = plan("op", &of("arrow_cast(2147483647, 'Date32')"), &relations(), &Functions::default()).unwrap_err();
    assert!(errors.iter().any(|error| error.message.contains("outside the years")), "{errors:?}");
}
