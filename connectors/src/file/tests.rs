//! The file source against the contract, and what it says of files that are wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, Schema};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::SplitId;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::{Config, FileSource, Files};
use crate::conformance::source::{Content, check_bounded, read};
use crate::error::ConnectorError;
use crate::format::{CsvOptions, Format};
use crate::source::{ChunkData, Source};

fn config(yaml: &str) -> Config {
    serde_yaml::from_str(yaml).unwrap()
}

async fn source(folder: &Path, yaml: &str, format: Format) -> Result<FileSource, ConnectorError> {
    let files = Files::new(config(yaml), format.clone(), folder);
    let header = files.header().await?;
    let schema = files.sample(header.as_ref()).await?;
    FileSource::new(files, schema, header)
}

/// A source whose columns need no sample.
pub(super) async fn raw(folder: &Path, yaml: &str) -> FileSource {
    let schema = Arc::new(Schema::new(vec![ColumnType::String.to_field("value")]));
    FileSource::new(Files::new(config(yaml), Format::Raw, folder), schema, None).unwrap()
}

pub(super) fn texts(content: &Content) -> Vec<String> {
    content
        .records
        .iter()
        .map(|(_, _, value)| String::from_utf8_lossy(value.as_deref().unwrap()).into_owned())
        .collect()
}

fn message(error: &ConnectorError) -> String {
    match error {
        ConnectorError::Permanent { context, source } | ConnectorError::Transient { context, source } => {
            format!("{context}: {source}")
        }
        other => other.to_string(),
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// About three chunks of lines.
fn long_text() -> String {
    (0..60_000).map(|number| format!("{{\"n\":{number},\"text\":\"{}\"}}\n", "x".repeat(number % 90))).collect()
}

#[tokio::test]
async fn lines_are_read_whole_and_resumed_anywhere() {
    let folder = TempDir::new().unwrap();
    let text = long_text();
    fs::write(folder.path().join("a.ndjson"), &text).unwrap();
    fs::write(folder.path().join("b.ndjson.gz"), gzip(text.as_bytes())).unwrap();
    fs::write(folder.path().join("c.ndjson.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    let source = source(folder.path(), "{path: '*.ndjson*'}", Format::Json).await.unwrap();
    let contents = check_bounded(&source).await;
    let names: Vec<_> = contents.iter().map(|(split, _)| split.to_string()).collect();
    assert_eq!(names, ["a.ndjson", "b.ndjson.gz", "c.ndjson.zst"]);
    let lines: Vec<&str> = text.lines().collect();
    for (split, content) in &contents {
        assert_eq!(texts(content), lines, "{split}");
        let mut byte = 0;
        for (index, (offset, line, _)) in content.records.iter().enumerate() {
            assert_eq!((*offset, *line), (byte, index as u64 + 1), "{split}");
            byte += lines[index].len() as i64 + 1;
        }
    }
}

#[tokio::test]
async fn what_is_no_record_is_passed_over_and_counted_as_a_line() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.json"), "\u{feff}{\"a\":1}\r\n\n  \n{\"a\":2}\n{\"a\":3}").unwrap();
    let source = source(folder.path(), "{path: a.json}", Format::Json).await.unwrap();
    let (_, content) = check_bounded(&source).await.remove(0);
    let expected = [(3, 1, "{\"a\":1}"), (16, 4, "{\"a\":2}"), (24, 5, "{\"a\":3}")];
    let expected = expected.map(|(offset, line, text)| (offset, line, Some(text.as_bytes().to_vec())));
    assert_eq!(content.records, expected);
    let raw = raw(folder.path(), "{path: a.json}").await;
    let (_, content) = check_bounded(&raw).await.remove(0);
    assert_eq!(texts(&content), ["{\"a\":1}", "", "  ", "{\"a\":2}", "{\"a\":3}"]);
}

#[tokio::test]
async fn csv_has_a_header_and_quoted_line_ends() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("1.csv"), "b,a\n1,\"two\nlines\"\n2,x\n").unwrap();
    fs::write(folder.path().join("2.csv"), "b,a\n3,y").unwrap();
    let format = Format::Csv(CsvOptions::default());
    let files = source(folder.path(), "{path: '?.csv'}", format.clone()).await.unwrap();
    let contents = check_bounded(&files).await;
    assert_eq!(texts(&contents[0].1), ["1,\"two\nlines\"", "2,x"]);
    let lines: Vec<_> = contents[0].1.records.iter().map(|(_, line, _)| *line).collect();
    assert_eq!(lines, [2, 4]);
    assert_eq!(texts(&contents[1].1), ["3,y"]);

    fs::write(folder.path().join("3.csv"), "a,b\n4,z\n").unwrap();
    let files = source(folder.path(), "{path: '?.csv'}", format).await.unwrap();
    let mut reader = files.open(&SplitId::new("3.csv"), None).await.unwrap();
    let expected = "3.csv:1: the header is `a, b`, but `b, a` was expected: all files of a source have the same columns, \
                    in the same order";
    assert_eq!(message(&reader.next().await.unwrap_err()), expected);
}

#[tokio::test]
async fn parquet_rows_are_read_in_the_types_that_are_wanted() {
    let folder = TempDir::new().unwrap();
    let schema = Arc::new(Schema::new(vec![ColumnType::Int32.to_field("n"), ColumnType::String.to_field("s")]));
    let numbers = Int32Array::from_iter_values(0..25_000);
    let texts = StringArray::from_iter_values((0..25_000).map(|number| format!("row {number}")));
    let rows = RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers), Arc::new(texts)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10_000)).build();
    let file = fs::File::create(folder.path().join("a.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();

    let files = source(folder.path(), "{path: a.parquet}", Format::Parquet).await.unwrap();
    let (split, content) = check_bounded(&files).await.remove(0);
    assert_eq!(content.rows.unwrap(), rows);

    // Other types, columns left out, and one that the file lacks.
    let wanted = Schema::new(vec![ColumnType::Json.to_field("more"), ColumnType::Int64.to_field("n")]);
    let named = Files::new(config("{path: a.parquet}"), Format::Parquet, folder.path());
    let files = FileSource::new(named, Arc::new(wanted), None).unwrap();
    let (positions, content) = read(&files, &split, None).await;
    let read_rows = content.rows.unwrap();
    assert_eq!(read_rows.column(0).null_count(), 25_000);
    assert!(read_rows.column(1).as_primitive::<Int64Type>().values().iter().copied().eq(0..25_000));

    fs::copy(folder.path().join("a.parquet"), folder.path().join("b.parquet")).unwrap();
    fs::OpenOptions::new().append(true).open(folder.path().join("b.parquet")).unwrap().write_all(b"x").unwrap();
    let mut reader = files.open(&SplitId::new("b.parquet"), Some(&positions[0])).await.unwrap();
    assert!(message(&reader.next().await.unwrap_err()).contains("b.parquet"));
}

#[tokio::test]
async fn missing_and_wrong_files_are_told_with_a_hint() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("flights.ndjson"), "{}\n").unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    let shown = folder.path().display();
    for (path, expected) in [
        ("flight.ndjson", format!("there is no file `{shown}/flight.ndjson`; did you mean `flights.ndjson`?")),
        ("data", format!("`{shown}/data` is a directory, not a file; name the files in it, such as `{shown}/data/*`")),
        ("data/*.json", format!("no file matches `{shown}/data/*.json`; set `follow: true` to wait for files")),
        ("date/*.json", format!("no file matches `{shown}/date/*.json`; there is no folder `{shown}/date`")),
    ] {
        let files = raw(folder.path(), &format!("{{path: '{path}'}}")).await;
        let error = files.discover(&BTreeSet::new()).await.unwrap_err();
        assert_eq!(message(&error), expected);
    }
}

#[tokio::test]
async fn a_file_that_was_replaced_or_cut_is_not_read_on() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "one\ntwo\n").unwrap();
    let split = SplitId::new("a");
    for yaml in ["{path: a}", "{path: a, follow: true}"] {
        fs::write(&path, "one\ntwo\n").unwrap();
        let (positions, _) = read(&raw(folder.path(), "{path: a}").await, &split, None).await;
        let files = raw(folder.path(), yaml).await;
        for (text, expected) in [
            ("two\none\nmore\n", "a: the file was replaced by another since it was read; restore it"),
            ("one\n", "a: the file"),
        ] {
            fs::write(&path, text).unwrap();
            let mut reader = files.open(&split, positions.last()).await.unwrap();
            let told = message(&reader.next().await.unwrap_err());
            assert!(told.starts_with(expected), "{told}");
        }
        // What was only appended to is read on.
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let mut reader = files.open(&split, positions.last()).await.unwrap();
        let chunk = reader.next().await.unwrap().unwrap();
        let ChunkData::Records(records) = chunk.data else { panic!("lines are records") };
        assert_eq!((records.value(0), records.first_line), (Some(b"three".as_slice()), 3));
    }
    let (positions, _) = read(&raw(folder.path(), "{path: a}").await, &split, None).await;
    fs::write(&path, "new\n").unwrap();
    let files = raw(folder.path(), "{path: a, follow: true, on_gap: skip}").await;
    assert_eq!(followed(&files, "a", positions.last(), 1, || {}).await, ["new"]);
}

/// The first `count` records of a followed split, with something done after the first chunk.
pub(super) async fn followed(
    files: &FileSource,
    split: &str,
    from: Option<&logmill_pipelines::flow::Position>,
    count: usize,
    after_first: impl FnOnce(),
) -> Vec<String> {
    let mut reader = files.open(&SplitId::new(split), from).await.unwrap();
    let (mut found, mut after_first) = (Vec::new(), Some(after_first));
    while found.len() < count {
        let chunk = tokio::time::timeout(Duration::from_secs(60), reader.next()).await.expect("more comes");
        let ChunkData::Records(records) = chunk.unwrap().unwrap().data else { panic!("lines are records") };
        found.extend(
            (0..records.len()).map(|index| String::from_utf8_lossy(records.value(index).unwrap()).into_owned()),
        );
        if let Some(after_first) = after_first.take() {
            after_first();
        }
    }
    found
}

#[tokio::test]
async fn followed_files_are_read_on_through_appends_rotation_and_truncation() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.log");
    let append = |text: &str| {
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let files = raw(folder.path(), "{path: app.log, follow: true}").await;

    // A line counts once it is whole.
    fs::write(&path, "one\ntw").unwrap();
    assert_eq!(followed(&files, "app.log", None, 3, || append("o\nthree\n")).await, ["one", "two", "three"]);

    fs::write(&path, "one\n").unwrap();
    let rotate = || {
        append("last of the old");
        fs::rename(&path, folder.path().join("app.log.1")).unwrap();
        fs::write(&path, "first of the new\n").unwrap();
    };
    let expected = ["one", "last of the old", "first of the new"];
    assert_eq!(followed(&files, "app.log", None, 3, rotate).await, expected);

    fs::write(&path, "one\ntwo\nthree\n").unwrap();
    let truncate = || fs::write(&path, "new\n").unwrap();
    assert_eq!(followed(&files, "app.log", None, 4, truncate).await, ["one", "two", "three", "new"]);
}

#[tokio::test]
async fn followed_globs_find_files_that_appear() {
    let folder = TempDir::new().unwrap();
    let files = raw(folder.path(), "{path: '*.log', follow: true}").await;
    let nothing = files.discover(&BTreeSet::new()).await.unwrap();
    assert!(nothing.new.is_empty() && !nothing.complete);
    fs::write(folder.path().join("a.log"), "x\n").unwrap();
    assert_eq!(files.discover(&BTreeSet::new()).await.unwrap().new, [SplitId::new("a.log")]);
}

#[tokio::test]
async fn a_rate_hands_lines_over_in_small_chunks() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a"), "x\n".repeat(100)).unwrap();
    let files = raw(folder.path(), "{path: a, rate: 400/s}").await;
    let (positions, content) = read(&files, &SplitId::new("a"), None).await;
    assert_eq!((positions.len(), content.records.len()), (5, 100));
    check_bounded(&files).await;
}

#[tokio::test]
async fn a_line_without_end_is_refused() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a"), [b"one\n".to_vec(), vec![b'x'; 18 << 20]].concat()).unwrap();
    let files = raw(folder.path(), "{path: a}").await;
    let mut reader = files.open(&SplitId::new("a"), None).await.unwrap();
    assert!(reader.next().await.unwrap().is_some());
    let error = message(&reader.next().await.unwrap_err());
    assert_eq!(error, "a:2, byte 4: the record is longer than 16777216 bytes");
}

#[test]
fn what_cannot_be_together_is_refused_without_looking_at_files() {
    for (yaml, format, keys) in [
        ("{path: a.gz, follow: true}", Format::Json, &["follow"][..]),
        ("{path: [], on_gap: skip}", Format::Json, &["path", "on_gap"]),
        ("{path: a.parquet, follow: true, rate: 5/s}", Format::Parquet, &["follow", "rate"]),
        ("{path: a.parquet, compression: zstd}", Format::Parquet, &["compression"]),
        ("{path: a, follow: true, on_gap: skip}", Format::Raw, &[]),
    ] {
        let problems = Files::new(config(yaml), format, Path::new("")).check();
        assert_eq!(problems.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys, "{yaml}");
    }
}
