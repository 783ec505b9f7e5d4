//! A dead letter of an operator is the record as it came in, with its exact place, whatever has become of its row by then.

use std::fmt::Write;
use std::time::Duration;

use logmill_tests::site::Site;
use serde_json::Value;

/// How many records there are; every seventh is not JSON, and every fifth has a text that is no number.
const RECORDS: usize = 2_000;

/// A record as text, with columns that no query reads, in an odd layout.
fn record(number: usize) -> String {
    match (number % 7, number % 5) {
        (0, _) => format!("oops {number}"),
        (_, 0) => format!("{{\"n\":{number},  \"unread\":\"ü {number}\",\"text\":\"x{number}\",\"more\":[1,2]}}"),
        _ => format!("{{\"text\":\"{number}\",\"n\" : {number},\"items\":[1,2,3]}}"),
    }
}

/// Whether the operators fail on it.
fn fails(number: usize) -> bool {
    !number.is_multiple_of(7) && number.is_multiple_of(5) && !number.is_multiple_of(3)
}

fn records() -> String {
    (0..RECORDS).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{}", record(number));
        text
    })
}

/// A filter, a table that is joined, an operator that unnests, and one that casts at last.
fn pipeline(source: &str) -> String {
    format!(
        "pipeline: p\n\
         topics:\n\
        \x20 in: {{ partitions: 1 }}\n\
         sources:\n\
        \x20 rows: {{ {source}, format: json, schema: {{ n: int64, text: string, items: list<int64> }} }}\n\
         tables:\n\
        \x20 parities: {{ type: file, path: parities.ndjson, format: json, schema: {{ rest: int64, name: string }} }}\n\
         operators:\n\
        \x20 some: {{ sql: 'SELECT n, text, items FROM rows WHERE n % 3 <> 0' }}\n\
        \x20 named: {{ sql: 'SELECT s.n, s.text, p.name, s.items FROM some s JOIN parities p ON p.rest = s.n % 2' }}\n\
        \x20 each: {{ sql: 'SELECT n, text, name, unnest(coalesce(items, [0, 0])) AS item FROM named' }}\n\
        \x20 numbers: {{ sql: 'SELECT n, name, item, CAST(text AS int) AS number FROM each' }}\n\
         sinks:\n\
        \x20 out: {{ type: topic, input: numbers, topic: out }}\n\
         on_error: {{ dead_letter: letters }}\n\
         commit: {{ every: 100ms }}\n"
    )
}

fn site(source: &str) -> Site {
    let site = Site::new();
    site.write("pipeline.yaml", pipeline(source));
    site.write("in.ndjson", records());
    site.write("parities.ndjson", "{\"rest\":0,\"name\":\"even\"}\n{\"rest\":1,\"name\":\"odd\"}\n");
    site
}

/// A dead letter: its value, and where its record lay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Letter {
    offset: i64,
    operator: Option<String>,
    place: String,
    value: String,
    key: Option<String>,
}

fn letters(site: &Site) -> Vec<Letter> {
    let printed = site.run(&["consume", "letters", "--format", "json"]).ok();
    let letter = |line: &str| {
        let letter: Value = serde_json::from_str(line).unwrap();
        let header = |name: &str| {
            let headers = letter["headers"].as_array().unwrap();
            let found = headers.iter().find(|header| header["key"] == name);
            found.map(|header| header["value"].as_str().unwrap().to_owned())
        };
        assert!(header("logmill.error").is_some_and(|error| !error.is_empty()), "{line}");
        assert_eq!(header("logmill.source").as_deref(), Some("rows"));
        Letter {
            offset: header("logmill.offset").unwrap().parse().unwrap(),
            operator: header("logmill.operator"),
            place: header("logmill.place").unwrap(),
            value: letter["value"].as_str().unwrap().to_owned(),
            key: letter["key"].as_str().map(str::to_owned),
        }
    };
    let mut letters: Vec<Letter> = printed.lines().map(letter).collect();
    letters.sort_unstable();
    letters
}

/// The letters that there must be; `place` gives the place of a record, by its number and its byte.
fn expected(place: impl Fn(usize, usize) -> (i64, String)) -> Vec<Letter> {
    let mut byte = 0;
    let mut letters = Vec::new();
    for number in 0..RECORDS {
        let value = record(number);
        let (offset, place) = place(number, byte);
        byte += value.len() + 1;
        if number.is_multiple_of(7) || fails(number) {
            let operator = fails(number).then(|| "numbers".to_owned());
            letters.push(Letter { offset, operator, place, value, key: None });
        }
    }
    letters.sort_unstable();
    letters
}

#[track_caller]
fn assert_letters(found: &[Letter], expected: &[Letter]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

fn of_file() -> Vec<Letter> {
    expected(|number, byte| (byte as i64, format!("in.ndjson:{}, byte {byte}", number + 1)))
}

#[test]
fn of_a_file_they_have_the_line() {
    let site = site("type: file, path: in.ndjson");
    site.run(&["run", "pipeline.yaml"]).ok();
    assert_letters(&letters(&site), &of_file());
}

#[test]
fn of_a_topic_they_have_the_offset_and_the_key() {
    let site = site("type: topic, topic: in, until: end");
    site.run(&["topic", "create", "in"]).ok();
    let keyed = (0..RECORDS).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "k{number}|{}", record(number));
        text
    });
    site.write("keyed.txt", keyed);
    site.run(&["produce", "in", "--key-separator", "|", "--file", "keyed.txt"]).ok();
    site.run(&["run", "pipeline.yaml"]).ok();
    let mut expected = expected(|number, _| (number as i64, format!("in-0, offset {number}")));
    for letter in &mut expected {
        letter.key = Some(format!("k{}", letter.offset));
    }
    assert_letters(&letters(&site), &expected);
}

#[test]
fn killed_at_any_instant_they_are_those_of_a_run_never_killed() {
    let site = site("type: file, path: in.ndjson, rate: 1000/s");
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..4 {
        let mut run = site.start("run", &["run", "pipeline.yaml"]);
        std::thread::sleep(Duration::from_millis(random.u64(150..500)));
        run.kill();
    }
    site.run(&["run", "pipeline.yaml"]).ok();
    assert_letters(&letters(&site), &of_file());
}

#[test]
fn without_a_topic_for_them_the_run_stops_with_the_line() {
    let site = site("type: file, path: in.ndjson");
    site.write(
        "pipeline.yaml",
        pipeline("type: file, path: in.ndjson").replace("on_error: { dead_letter: letters }\n", ""),
    );
    site.write("in.ndjson", "{\"n\":1,\"text\":\"1\"}\n{\"n\":2,\"unread\":7,\"text\":\"x\"}\n");
    let expected = ["`numbers`", "source `rows`", "in.ndjson:2, byte 19", "{\"n\":2,\"unread\":7,\"text\":\"x\"}"];
    site.run(&["run", "pipeline.yaml"]).fails_with(&expected);
}
