//! What the YAML of an object_store sink may say, and the checks that need no I/O.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::datatypes::{DataType, Schema};
use logmill_pipelines::{ByteSize, DurationSpec};
use parquet::arrow::ArrowSchemaConverter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::check_key;
use super::store::open_s3;
use super::uploads::as_folder;
use crate::problem::Problem;

/// Files on an object store or in a local folder, rolled by size and time, optionally in hive partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the files go: `./out`, `file:///data/out` or `s3://bucket/prefix`. A relative path starts at the folder
    /// of the pipeline's file.
    pub url: String,
    /// Columns whose values become folders, `carrier=AA/`, and are left out of the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
    /// When a file is full.
    #[serde(default)]
    pub roll: Roll,
    /// How the files are compressed. Parquet: zstd (the default), snappy, gzip or none. NDJSON and CSV: none (the
    /// default), gzip or zstd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Settings of the object store, such as `endpoint`, `region`, `access_key_id`, `secret_access_key`, `allow_http`
    /// and `virtual_hosted_style_request`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, OptionValue>,
}

/// When files are full: at the first limit that one of the open files reaches, all of them are finished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Roll {
    /// At this age, counted from the first row.
    pub every: DurationSpec,
    /// At about this many bytes as they lie in the file.
    pub bytes: ByteSize,
    /// At this many rows; no limit by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

impl Default for Roll {
    fn default() -> Self {
        Self { every: DurationSpec(Duration::from_secs(60)), bytes: ByteSize(128 << 20), rows: None }
    }
}

/// How files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast, and smaller than snappy.
    Zstd,
    /// Faster still. Parquet only.
    Snappy,
    /// Read everywhere, slow.
    Gzip,
}

/// A setting's value: YAML's numbers and booleans are welcome where the store wants text.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OptionValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
}

impl std::fmt::Debug for OptionValue {
    /// Settings hold credentials, so their values are not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl std::fmt::Display for OptionValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// Where a URL points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Local(PathBuf),
    /// A bucket and a prefix in it, without slashes at its ends.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix, possibly empty.
        prefix: String,
    },
}

/// The folder, without the `.` in the middle that joining relative paths leaves.
fn folder(base_dir: &Path, path: &str) -> PathBuf {
    base_dir.join(path).components().collect()
}

/// URL schemes of stores that are planned.
const PLANNED: [&str; 7] = ["gs", "gcs", "az", "azure", "abfs", "abfss", "adl"];

impl Location {
    /// Reads a URL; relative paths start at `base_dir`. Does no I/O.
    ///
    /// # Errors
    /// Says what is wrong with it, and what would be right.
    pub fn parse(url: &str, base_dir: &Path) -> Result<Self, String> {
        if url.trim().is_empty() {
            return Err("the URL is empty; write ./out, file:///data/out or s3://bucket/prefix".into());
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Ok(Self::Local(folder(base_dir, url)));
        };
        match scheme {
            "file" if rest.is_empty() => Err("the URL names no folder; write file://./out or file:///data/out".into()),
            "file" => Ok(Self::Local(folder(base_dir, rest))),
            "s3" | "s3a" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err("the URL names no bucket; write s3://bucket/prefix".into());
                }
                Ok(Self::S3 { bucket: bucket.into(), prefix: prefix.trim_matches('/').into() })
            }
            scheme if PLANNED.contains(&scheme) => {
                Err(format!("`{scheme}://` is not available yet; use s3:// or a local folder"))
            }
            scheme => Err(format!("`{scheme}://` is not a store; use s3://bucket/prefix, file:// or a path")),
        }
    }
}

impl Config {
    /// Everything wrong with the configuration, given the format and, where known, the columns of the input.
    /// Does no I/O.
    pub fn check(&self, format: &str, schema: Option<&Schema>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |key: &str, message: String| problems.push(Problem::new(key, message));
        match Location::parse(&self.url, Path::new("")) {
            Err(message) => add("url", message),
            Ok(Location::S3 { bucket, prefix }) => {
                if let Err(error) = open_s3(&bucket, &self.options) {
                    add("options", error.to_string());
                }
                if let Err(message) = check_key(&as_folder(&prefix), "") {
                    add("url", message);
                }
            }
            // Settings of a store do no harm here: the URL may come from a variable.
            Ok(Location::Local(_)) => {}
        }
        if self.roll.every.0.is_zero() {
            add("roll.every", "must be longer than nothing".into());
        }
        if self.roll.bytes.0 == 0 {
            add("roll.bytes", "must be more than nothing".into());
        }
        if self.roll.rows == Some(0) {
            add("roll.rows", "must be at least 1".into());
        }
        if self.compression == Some(Compression::Snappy) && format != "parquet" {
            add("compression", format!("snappy is for parquet; {format} takes none, gzip or zstd"));
        }
        for (index, name) in self.partition_by.iter().enumerate() {
            if self.partition_by.iter().take(index).any(|earlier| earlier == name) {
                add(&format!("partition_by.{index}"), format!("`{name}` is named twice"));
            }
        }
        if let Some(schema) = schema {
            if format == "parquet"
                && let Err(error) = ArrowSchemaConverter::new().convert(schema)
            {
                add("input", format!("has a column that Parquet cannot hold, cast it in the query before: {error}"));
            }
            problems.extend(check_partition_columns(&self.partition_by, schema));
        }
        problems
    }
}

fn check_partition_columns(names: &[String], schema: &Schema) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let key = format!("partition_by.{index}");
        match schema.field_with_name(name) {
            Err(_) => problems.push(Problem::no_column(key, name, schema)),
            Ok(field) if !can_partition_by(field.data_type()) => problems.push(Problem::new(
                key,
                format!(
                    "`{name}` is of type {}; partition by a string, an integer, a date or a boolean",
                    field.data_type()
                ),
            )),
            Ok(_) => {}
        }
    }
    if problems.is_empty() && !names.is_empty() && names.len() >= schema.fields().len() {
        problems.push(Problem::new("partition_by", "leaves no column for the files; partition by fewer columns"));
    }
    problems
}

/// Whether values of the type can be folders.
pub(super) fn can_partition_by(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean | DataType::Date32 => true,
        DataType::Dictionary(_, values) => can_partition_by(values),
        other => other.is_integer(),
    }
}
