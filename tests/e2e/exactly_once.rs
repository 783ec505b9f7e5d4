//! Killed at any instant, the outputs are those of a run never killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logmill_tests::data::{FLIGHTS_OF_THE_YEAR, flights_of_the_week, flights_of_the_year};
use logmill_tests::long;
use logmill_tests::outcome::{self, assert_same};
use logmill_tests::s3::S3;
use logmill_tests::site::{Running, Site};

const LIMIT: Duration = Duration::from_secs(300);

/// What a pipeline of these tests differs in.
struct Shape<'a> {
    input: &'a Path,
    /// `rate:` of the source.
    rate: Option<&'a str>,
    /// Keys of the lake beside its input.
    lake: &'a str,
    /// Keys of the topic's sink beside its input.
    topic: &'a str,
    through: bool,
    every: &'a str,
}

fn pipeline(site: &Site, shape: &Shape) {
    let through = if shape.through { "    through: flights\n" } else { "" };
    let rate = shape.rate.map_or(String::new(), |rate| format!("    rate: {rate}\n"));
    let text = format!(
        "pipeline: late\n\
         topics:\n\
        \x20 flights: {{ partitions: 3 }}\n\
        \x20 late: {{ partitions: 2 }}\n\
         sources:\n\
        \x20 flights:\n\
        \x20   type: file\n\
        \x20   path: {}\n\
        \x20   format: json\n{rate}{through}\
        \x20   schema: {{ time_hour: timestamp, carrier: string, flight: int32, origin: string, dep_delay: float64 }}\n\
         operators:\n\
        \x20 late:\n\
        \x20   sql: SELECT time_hour, carrier, flight, origin, dep_delay FROM flights WHERE dep_delay > 15\n\
         sinks:\n\
        \x20 lake: {{ type: object_store, input: late, {} }}\n\
        \x20 out: {{ type: topic, input: late, topic: late, key: flight, format: json{} }}\n\
         commit: {{ every: {} }}\n",
        shape.input.display(),
        shape.lake,
        shape.topic,
        shape.every,
    );
    site.write("pipeline.yaml", text);
}

const PARQUET: &str = "url: ./lake, format: parquet, partition_by: [carrier]";

/// What comes out where nobody interferes; the rows of the lake and those of the topic are the same.
fn undisturbed(input: &Path, minimum: usize) -> Vec<String> {
    let site = Site::new();
    pipeline(&site, &Shape { input, rate: None, lake: PARQUET, topic: "", through: false, every: "1s" });
    site.run(&["run", "pipeline.yaml"]).ok();
    let rows = outcome::rows(&site.path().join("lake"));
    assert_same("the topic", &outcome::topic(&site, "late"), &rows);
    assert!(rows.len() > minimum, "{} rows", rows.len());
    rows
}

fn finish(site: &Site, expected: &[String]) {
    site.run(&["run", "pipeline.yaml"]).ok();
    let lake = site.path().join("lake");
    assert_same("the lake", &outcome::rows(&lake), expected);
    assert_same("the topic", &outcome::topic(site, "late"), expected);
    assert_eq!(outcome::hidden_files(&lake), Vec::<PathBuf>::new(), "staged leftovers");
}

enum Blow {
    Kill,
    Interrupt,
}

/// Waits until a run has said its first word: before that, an interrupt ends it as a kill does.
fn await_start(run: &mut Running) {
    let deadline = Instant::now() + LIMIT;
    while !run.errors().contains("topics and state are kept in") {
        assert!(run.ended().is_none() && Instant::now() < deadline, "{}", run.errors());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn interfere(site: &Site, seed: u64, times: usize, blow: &Blow) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut landed = 0;
    while landed < times {
        let mut run = site.start("run", &["run", "pipeline.yaml"]);
        if matches!(blow, Blow::Interrupt) {
            await_start(&mut run);
        }
        std::thread::sleep(Duration::from_millis(random.u64(150..900)));
        assert!(run.ended().is_none(), "the run ended before blow {landed}: {}", run.errors());
        match blow {
            Blow::Kill => run.kill(),
            Blow::Interrupt => {
                run.interrupt();
                assert_eq!(run.wait(LIMIT), Some(0), "{}", run.errors());
            }
        }
        landed += 1;
    }
}

#[test]
fn killed_thirty_times_over_the_year() {
    let expected = undisturbed(flights_of_the_year(), FLIGHTS_OF_THE_YEAR / 10);
    let site = Site::new();
    let lake = "url: ./lake, format: parquet, partition_by: [carrier], roll: { every: 2s }";
    let input = flights_of_the_year();
    pipeline(&site, &Shape { input, rate: Some("12000/s"), lake, topic: "", through: false, every: "200ms" });
    interfere(&site, 1, 30, &Blow::Kill);
    pipeline(&site, &Shape { input, rate: None, lake, topic: "", through: false, every: "200ms" });
    finish(&site, &expected);
}

#[test]
fn killed_while_played_through_a_topic() {
    let expected = undisturbed(&flights_of_the_week(), 500);
    let site = Site::new();
    let lake = "url: ./lake, format: json, roll: { every: 300ms }";
    let input = &flights_of_the_week();
    pipeline(&site, &Shape { input, rate: Some("1500/s"), lake, topic: "", through: true, every: "100ms" });
    interfere(&site, 2, 8, &Blow::Kill);
    finish(&site, &expected);
}

#[test]
fn interrupted_with_ctrl_c() {
    let expected = undisturbed(&flights_of_the_week(), 500);
    for (seed, roll) in [(3, "{ every: 100ms }"), (4, "{ every: 60s }")] {
        let site = Site::new();
        let lake = format!("url: ./lake, format: parquet, partition_by: [carrier], roll: {roll}");
        let input = &flights_of_the_week();
        pipeline(&site, &Shape { input, rate: Some("1000/s"), lake: &lake, topic: "", through: false, every: "100ms" });
        interfere(&site, seed, 5, &Blow::Interrupt);
        finish(&site, &expected);
    }
}

/// Flights of the year's beginning, as many as asked for.
fn first_flights(site: &Site, count: usize) -> PathBuf {
    let year = std::fs::read_to_string(flights_of_the_year()).unwrap();
    let lines: String = year.lines().take(count).flat_map(|line| [line, "\n"]).collect();
    site.write("first.ndjson", lines)
}

/// Interrupts runs at seeded moments until one comes to its end before, or `most` times.
fn interrupt_until_done(site: &Site, random: &mut fastrand::Rng, most: usize) {
    for _ in 0..most {
        let mut run = site.start("run", &["run", "pipeline.yaml"]);
        await_start(&mut run);
        std::thread::sleep(Duration::from_millis(random.u64(0..700)));
        if let Some(code) = run.ended() {
            assert_eq!(code, Some(0), "{}", run.errors());
            return;
        }
        run.interrupt();
        assert_eq!(run.wait(LIMIT), Some(0), "{}", run.errors());
    }
}

/// Interrupts `rounds` times over a pipeline that is played through a topic and fills small batches of a second one, each time
/// until it is done.
fn check_interrupts(rows: usize, rate: Option<&str>, seed: u64, rounds: usize, most: usize) {
    let inputs = Site::new();
    let input = &first_flights(&inputs, rows);
    let expected = undisturbed(input, rows / 10);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        let site = Site::new();
        let lake = "url: ./lake, format: parquet, roll: { every: 100ms }";
        let topic = ", batch_bytes: 1KiB";
        pipeline(&site, &Shape { input, rate, lake, topic, through: true, every: "100ms" });
        interrupt_until_done(&site, &mut random, most);
        finish(&site, &expected);
        assert_eq!(outcome::topic(&site, "flights").len(), rows, "the topic that the source is played through");
    }
}

#[test]
fn interrupted_at_full_speed_while_played_through_a_topic() {
    match long() {
        true => check_interrupts(FLIGHTS_OF_THE_YEAR, None, 6, 2, 30),
        false => check_interrupts(40_000, None, 6, 1, 8),
    }
}

#[test]
fn interrupted_at_a_steady_pace_while_played_through_a_topic() {
    match long() {
        true => check_interrupts(100_000, Some("20000/s"), 7, 20, 30),
        false => check_interrupts(20_000, Some("20000/s"), 7, 1, 8),
    }
}

#[test]
fn killed_while_writing_to_s3() {
    let expected = undisturbed(&flights_of_the_week(), 500);
    let s3 = S3::start();
    let site = Site::new();
    let lake = s3_lake(&s3, "{ every: 300ms }");
    let input = &flights_of_the_week();
    pipeline(&site, &Shape { input, rate: Some("1000/s"), lake: &lake, topic: "", through: false, every: "150ms" });
    interfere(&site, 5, 8, &Blow::Kill);
    finish_s3(&site, &s3, &expected);
}

fn s3_lake(s3: &S3, roll: &str) -> String {
    format!(
        "url: {}, format: parquet, partition_by: [origin], roll: {roll}, options: {{ endpoint: '{}', region: us-east-1, \
         access_key_id: test, secret_access_key: test, allow_http: true }}",
        s3.url("late"),
        s3.endpoint()
    )
}

fn finish_s3(site: &Site, s3: &S3, expected: &[String]) {
    site.run(&["run", "pipeline.yaml"]).ok();
    let copy = site.path().join("copy");
    s3.download(&copy);
    assert_same("the bucket", &outcome::rows(&copy.join("late")), expected);
    assert_same("the topic", &outcome::topic(site, "late"), expected);
    assert_eq!(s3.open_uploads(), 0, "open uploads");
    assert_eq!(outcome::hidden_files(&copy), Vec::<PathBuf>::new(), "staged leftovers");
}

/// Every named point between two steps of the commit.
pub(crate) const POINTS: [&str; 17] = [
    "engine::before_state",
    "engine::after_state",
    "engine::before_end_transaction",
    "engine::after_end_transaction",
    "engine::before_tokens",
    "engine::after_tokens",
    "broker::before_prepare",
    "broker::after_prepare",
    "broker::between_markers",
    "broker::after_markers",
    "broker::after_complete",
    "sink::before_stage",
    "sink::after_stage",
    "sink::before_commit_rename",
    "sink::after_commit_rename",
    "storage::before_append_write",
    "storage::after_append_write",
];

/// The points of a sink on S3, in the place of those of a local folder.
const S3_POINTS: [&str; 5] = [
    "sink::before_stage",
    "sink::multipart_created",
    "sink::after_stage",
    "sink::before_complete",
    "sink::after_complete",
];

/// Dies at a point at its `nth` passing; the run that follows must make up for it.
pub(crate) fn die_at(site: &mut Site, point: &str, nth: usize) {
    site.set("FAILPOINTS", format!("{point}={nth}*off->panic"));
    let died = site.run(&["run", "pipeline.yaml"]);
    site.unset("FAILPOINTS");
    assert_eq!(died.code, None, "nobody died at {point}: {died:?}");
}

#[test]
fn died_at_each_point_of_the_commit() {
    let expected = undisturbed(&flights_of_the_week(), 500);
    let input = &flights_of_the_week();
    // Rolls smaller than an epoch, about as large, and spanning the death.
    for roll in ["{ rows: 100 }", "{ every: 100ms }", "{ every: 60s }"] {
        let mut site = Site::new();
        let lake = format!("url: ./lake, format: parquet, partition_by: [origin], roll: {roll}");
        pipeline(&site, &Shape { input, rate: Some("20000/s"), lake: &lake, topic: "", through: false, every: "50ms" });
        for point in POINTS {
            let _ = std::fs::remove_dir_all(site.path().join("data"));
            let _ = std::fs::remove_dir_all(site.path().join("lake"));
            die_at(&mut site, point, 1);
            finish(&site, &expected);
        }
    }
}

#[test]
fn died_at_each_point_of_a_commit_to_s3() {
    let expected = undisturbed(&flights_of_the_week(), 500);
    let input = &flights_of_the_week();
    for roll in ["{ rows: 100 }", "{ every: 100ms }", "{ every: 60s }"] {
        for point in S3_POINTS {
            let s3 = S3::start();
            let mut site = Site::new();
            let lake = s3_lake(&s3, roll);
            pipeline(
                &site,
                &Shape { input, rate: Some("20000/s"), lake: &lake, topic: "", through: false, every: "50ms" },
            );
            die_at(&mut site, point, 1);
            finish_s3(&site, &s3, &expected);
        }
    }
}
