//! Static tables: bounded relations, loaded whole before a pipeline starts.

use std::collections::BTreeSet;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use logmill_pipelines::TableSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::error::ConnectorError;
use crate::file::{self, FileSource, Files};
use crate::format::Format;
use crate::source::{ChunkData, Source};

/// A table may have this many bytes in memory; every worker joins with it.
pub const MAX_TABLE_BYTES: usize = 1 << 30;

/// Files that hold a table.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file, or a list of files; `*`, `?`, `[…]` and `**` match. Relative paths start at the folder of the pipeline's
    /// file.
    pub path: file::Paths,
    /// How the files are compressed. By default, the ending of the name tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<file::Compression>,
}

impl From<Config> for file::Config {
    fn from(config: Config) -> Self {
        let Config { path, compression } = config;
        Self { path, compression, follow: false, on_gap: file::OnGap::Stop, rate: None }
    }
}

/// A table in memory.
#[derive(Clone, Debug)]
pub struct LoadedTable {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
    /// A digest of its content.
    pub digest: String,
}

/// Loads a table.
pub async fn load(
    config: Config,
    spec: &TableSpec,
    declared: Option<SchemaRef>,
    base_dir: &Path,
) -> Result<LoadedTable, ConnectorError> {
    let format = Format::of(spec.format.as_ref(), &Format::Json)?;
    let files = Files::new(config.into(), format.clone(), base_dir);
    let header = files.header().await?;
    let schema = match declared {
        Some(schema) => schema,
        None => files.sample(header.as_ref()).await?,
    };
    let source = FileSource::new(files, schema.clone(), header.clone())?;
    let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut decoder = match format {
        Format::Parquet => None,
        _ => Some(format.decoder_of_fields(&schema, &columns, spec.unknown, header.as_deref())?),
    };
    let (mut batches, mut size, mut digest) = (Vec::new(), 0, Xxh3::new());
    for split in source.discover(&BTreeSet::new()).await?.new {
        let mut reader = source.open(&split, None).await?;
        while let Some(chunk) = reader.next().await? {
            let batch = match (chunk.data, &mut decoder) {
                (ChunkData::Rows(batch, rejected), _) => match rejected.into_iter().next() {
                    None => batch.rows,
                    Some(row) => return Err(ConnectorError::Data { place: row.place, message: row.message }),
                },
                (ChunkData::Records(records), Some(decoder)) => {
                    digest.update(&records.buffer);
                    let decoded = decoder.decode(&records)?;
                    if let Some(error) = decoded.errors.first() {
                        let line = records.first_line + error.index as u64;
                        return Err(ConnectorError::Data {
                            place: format!("{}:{line}", records.place),
                            message: error.message.clone(),
                        });
                    }
                    decoded.rows
                }
                (ChunkData::Records(_), None) => continue,
            };
            size += batch.get_array_memory_size();
            if size > MAX_TABLE_BYTES {
                return Err(ConnectorError::Config(format!("the table is larger than {MAX_TABLE_BYTES} bytes")));
            }
            if decoder.is_none() {
                digest.update(format!("{batch:?}").as_bytes());
            }
            batches.push(batch);
        }
    }
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    Ok(LoadedTable { schema, batches, digest: format!("{:016x}", digest.digest()) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use arrow::array::AsArray;

    async fn loaded(folder: &Path, yaml: &str) -> Result<LoadedTable, String> {
        let spec: TableSpec = serde_yaml::from_str(yaml).unwrap();
        let declared = spec.schema.as_ref().and_then(|columns| {
            let format = Format::of(spec.format.as_ref(), &Format::Json).ok()?;
            format.declared_schema(Some(columns), spec.unknown).map(std::sync::Arc::new)
        });
        load(spec.config().unwrap(), &spec, declared, folder).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_table_has_the_columns_of_its_header_and_a_digest_of_its_content() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("airlines.csv");
        std::fs::write(&path, "carrier,name\n9E,\"Endeavor, Inc.\"\nAA,American\n").unwrap();
        let table = loaded(folder.path(), "{type: file, path: airlines.csv, format: csv}").await.unwrap();
        assert_eq!(table.batches[0].column(1).as_string::<i32>().value(0), "Endeavor, Inc.");
        let picked = "{type: file, path: airlines.csv, format: csv, schema: {name: string}}";
        let same = loaded(folder.path(), picked).await.unwrap();
        assert_eq!((same.schema.fields().len(), &same.digest), (1, &table.digest));
        std::fs::write(&path, "carrier,name\nAA,American\n").unwrap();
        assert_ne!(loaded(folder.path(), picked).await.unwrap().digest, table.digest);
    }

    #[tokio::test]
    async fn a_bad_row_of_a_table_is_told_with_its_line() {
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::write(folder.path().join("a.csv"), "n,s\n1,x\n\nthree,y\n").unwrap();
        let error = loaded(folder.path(), "{type: file, path: a.csv, format: csv, schema: {n: int32}}").await;
        assert_eq!(error.unwrap_err(), "a.csv:4: column `n`: expected an integer, found \"three\"");
    }
}
