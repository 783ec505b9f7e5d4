//! What came out: rows as sorted lines of JSON, so that two outcomes compare as multisets.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use crate::site::Site;

/// Every file below a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// The files below a folder that belong to the data: not hidden, and in no hidden folder.
pub fn data_files(folder: &Path) -> Vec<PathBuf> {
    let is_data = |path: &PathBuf| !hidden(path.strip_prefix(folder).unwrap());
    files(folder).into_iter().filter(is_data).collect()
}

/// The files below a folder that are hidden or lie in a hidden folder: what is staged, and what was left behind.
pub fn hidden_files(folder: &Path) -> Vec<PathBuf> {
    files(folder).into_iter().filter(|path| hidden(path.strip_prefix(folder).unwrap())).collect()
}

fn hidden(path: &Path) -> bool {
    path.iter().any(|part| part.to_string_lossy().starts_with(['.', '_']))
}

/// The rows of all data files below a folder, Parquet or NDJSON, with the columns of hive partitions.
pub fn rows(folder: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for path in data_files(folder) {
        let partition: Vec<(String, String)> = path
            .strip_prefix(folder)
            .unwrap()
            .iter()
            .filter_map(|part| part.to_str()?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let lines = match path.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => parquet_lines(&path),
            _ => fs::read_to_string(&path).unwrap(),
        };
        for line in lines.lines() {
            rows.push(normal(line, &partition));
        }
    }
    rows.sort_unstable();
    rows
}

/// The committed records of a topic, as sorted lines.
pub fn topic(site: &Site, topic: &str) -> Vec<String> {
    let printed = site.run(&["consume", topic, "--format", "value"]).ok();
    let mut rows: Vec<_> = printed.lines().map(|line| normal(line, &[])).collect();
    rows.sort_unstable();
    rows
}

/// A row as JSON with its keys in order and without nulls.
pub fn normal(line: &str, more: &[(String, String)]) -> String {
    let mut row: Map<String, Value> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    row.retain(|_, value| !value.is_null());
    row.extend(more.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))));
    row.sort_keys();
    Value::Object(row).to_string()
}

fn parquet_lines(path: &Path) -> String {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let mut writer = LineDelimitedWriter::new(Vec::new());
    for batch in reader {
        writer.write(&batch.unwrap()).unwrap();
    }
    writer.finish().unwrap();
    String::from_utf8(writer.into_inner()).unwrap()
}

/// Fails with the first few differences of two sorted lists.
#[track_caller]
pub fn assert_same(what: &str, found: &[String], expected: &[String]) {
    if found == expected {
        return;
    }
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (found.iter().peekable(), expected.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(found), Some(expected)) if found == expected => {
                left.next();
                right.next();
            }
            (Some(found), expected) if expected.is_none_or(|expected| found < expected) => extra.extend(left.next()),
            _ => missing.extend(right.next()),
        }
    }
    panic!(
        "{what}: {} rows instead of {}; {} missing such as {:?}; {} too many such as {:?}",
        found.len(),
        expected.len(),
        missing.len(),
        missing.iter().take(3).collect::<Vec<_>>(),
        extra.len(),
        extra.iter().take(3).collect::<Vec<_>>(),
    );
}
