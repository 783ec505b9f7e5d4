//! Pipelines with mistakes, and what is said about them: `testdata/NAME.yaml` with `testdata/NAME.expected` beside it.
//!
//! `LOGMILL_BLESS=1 cargo test -p logmill-pipelines` writes the expected files anew; read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::*;

/// A connector's configuration, as the connectors' crate has them.
#[derive(Deserialize, JsonSchema)]
struct FileConfig {
    /// The files to read: a path or a glob.
    path: String,
    /// Keep reading what is appended.
    #[serde(default)]
    follow: bool,
    /// How many records a second to read at most.
    #[serde(default)]
    rate: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
struct TopicConfig {
    /// The topic.
    topic: TopicName,
}

#[derive(Deserialize, JsonSchema)]
struct LakeConfig {
    /// Where the objects go.
    #[schemars(url)]
    url: String,
    /// The columns whose values name the folders.
    #[serde(default)]
    partition_by: Vec<String>,
    /// When a file is closed.
    #[serde(default)]
    roll: Roll,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Roll {
    every: Option<DurationSpec>,
    bytes: Option<ByteSize>,
}

#[derive(Deserialize, JsonSchema)]
struct CsvOptions {
    /// Texts that mean null.
    #[serde(default)]
    null_values: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

fn catalog() -> Catalog {
    let kind = |name, role, schema, formats: &'static [&'static str]| ConnectorKind {
        name,
        role,
        summary: "Of the tests.",
        schema,
        formats,
        needs_through: name == "http",
    };
    Catalog::new(vec![
        kind("file", Role::Source, || schemars::schema_for!(FileConfig), &["json", "csv", "parquet"]),
        kind("file", Role::Table, || schemars::schema_for!(FileConfig), &["json", "csv", "parquet"]),
        kind("topic", Role::Source, || schemars::schema_for!(TopicConfig), &["json"]),
        kind("http", Role::Source, || schemars::schema_for!(Nothing), &["json"]),
        kind("generate", Role::Source, || schemars::schema_for!(Nothing), &[]),
        kind("topic", Role::Sink, || schemars::schema_for!(TopicConfig), &["json"]),
        kind("object_store", Role::Sink, || schemars::schema_for!(LakeConfig), &["parquet", "json"]),
        kind("blackhole", Role::Sink, || schemars::schema_for!(Nothing), &[]),
    ])
    .with_formats(vec![FormatKind {
        name: "csv",
        summary: "Comma-separated values.",
        schema: || schemars::schema_for!(CsvOptions),
    }])
}

fn environment() -> MemoryEnvironment {
    MemoryEnvironment {
        vars: [("LAKE_URL", "s3://hunter2-bucket"), ("PARTITIONS", "4"), ("WORD", "hunter2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        files: [("secret.txt".to_owned(), "hunter2\n".to_owned())].into(),
    }
}

/// The relations after FROM and JOIN: as much SQL as these tests need.
fn refs(sql: &str) -> Vec<TableRef> {
    let mut found = Vec::new();
    for (line, text) in sql.lines().enumerate() {
        let words: Vec<(usize, &str)> = text
            .split(' ')
            .scan(0, |at, word| {
                let start = *at;
                *at += word.chars().count() + 1;
                Some((start, word))
            })
            .collect();
        for pair in words.windows(2) {
            if matches!(pair[0].1, "FROM" | "JOIN") {
                found.push(TableRef { name: pair[1].1.to_owned(), line: line + 1, column: pair[1].0 + 1 });
            }
        }
    }
    found
}

/// All that is said about a pipeline, its graph included.
fn report(name: &str, text: &str) -> String {
    let reading = read(name, text, &catalog(), &environment());
    let mut all = reading.diagnostics;
    let mut graph = String::new();
    if let Some(pipeline) = &reading.pipeline {
        let sql = |operator: &str| match pipeline.spec.operators.get(operator) {
            Some(OperatorSpec::Sql(sql)) => refs(sql),
            _ => Vec::new(),
        };
        match Graph::build(pipeline, &sql) {
            Ok(built) => {
                let names: Vec<&str> = built.nodes.keys().map(String::as_str).collect();
                graph = format!("order: {}\n", names.join(" "));
                all.extend(built.warnings);
            }
            Err(found) => all.extend(found.items().to_vec()),
        }
    }
    if all.has_errors() { format!("{all}\n") } else { format!("{graph}{all}\n") }
}

#[test]
fn every_mistake_is_reported_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let bless = std::env::var_os("LOGMILL_BLESS").is_some();
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let said = report(name, &std::fs::read_to_string(&path).unwrap());
        assert!(!said.contains("hunter2"), "{name} prints a secret:\n{said}");
        let expected_path = path.with_extension("expected");
        if bless {
            std::fs::write(&expected_path, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if said != expected {
            wrong.push(format!("--- {name} expected\n{expected}\n--- {name} said\n{said}"));
        }
    }
    assert!(count > 20, "testdata is missing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
