//! What the YAML of a file source may say.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Files of this machine.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file, or a list of files; `*`, `?`, `[…]` and `**` match. Relative paths start at the folder of the pipeline's
    /// file.
    pub path: Paths,
    /// How the files are compressed. By default, the ending of the name tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Go on reading what is appended, and files that appear.
    #[serde(default)]
    pub follow: bool,
    /// What to do when a followed file was replaced by another while the pipeline did not run.
    #[serde(default)]
    pub on_gap: OnGap,
    /// Read no faster than this, such as `500/s`, in rows; all files together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// What to do when the file at a position is not the one that was read up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// Stop the pipeline: the rest of the old file was not read.
    #[default]
    Stop,
    /// Read the new file from its beginning.
    Skip,
}

/// One path or several.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// One.
    One(String),
    /// Several, read in their order.
    Many(Vec<String>),
}

impl Paths {
    /// The patterns as they are written.
    pub fn patterns(&self) -> Vec<PathBuf> {
        match self {
            Self::One(path) => vec![path.into()],
            Self::Many(paths) => paths.iter().map(PathBuf::from).collect(),
        }
    }
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// What the ending of a name tells.
    pub(super) fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "gzip") => Self::Gzip,
            Some("zst" | "zstd") => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Rows a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub NonZeroU64);

impl Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/s", self.0))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.strip_suffix("/s").and_then(|number| number.trim().parse().ok());
        number.map(Self).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a rate such as 500/s")))
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[1-9][0-9]* */s$",
            "errorMessage": "expected rows a second, such as 500/s"
        })
    }
}
