//! Files and folders of files as relations.
//!
//! Folders named `carrier=AA` are columns of text; hidden files are none; all files of a folder are of one kind.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::{SessionContext, lit};
use futures::TryStreamExt;
use logmill_connectors::format::{CsvOptions, Format, SAMPLE_RECORDS};
use logmill_connectors::source::Records;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::error::QueryError;
use super::visible::Visible;

/// The endings of files that can be read.
const ENDINGS: [&str; 5] = ["parquet", "ndjson", "jsonl", "json", "csv"];

/// The folder of rows whose partition column is null.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// Whether a name can only be meant as a path.
pub(super) fn is_path(name: &str) -> bool {
    name.contains(['/', '*', '?']) || ending(name).is_some()
}

/// Whether there is a file or folder of the name here.
pub(super) fn exists(name: &str) -> bool {
    std::path::Path::new(name).exists()
}

fn ending(name: &str) -> Option<&'static str> {
    let (_, last) = name.rsplit_once('.')?;
    ENDINGS.into_iter().find(|ending| *ending == last)
}

/// Opens the files that a path names.
pub(super) async fn open(
    context: &SessionContext,
    path: &str,
    sql: &str,
) -> Result<Arc<dyn TableProvider>, QueryError> {
    let wrong = |message: String, hint: Option<String>| QueryError::at_name(sql, path, message, hint);
    let failed = |error: datafusion::error::DataFusionError| {
        QueryError::at_name(sql, path, format!("cannot read `{path}`: {}", error.strip_backtrace()), None)
    };
    let url = ListingTableUrl::parse(path).map_err(failed)?;
    let store = store(&url).map_err(|message| wrong(message, None))?;
    context.register_object_store(url.object_store().as_ref(), store.clone());
    let state = context.state();
    let listed = url.list_all_files(&state, &*store, "").await.map_err(failed)?;
    let mut files: Vec<ObjectMeta> = listed.try_collect().await.map_err(failed)?;
    files.sort_by(|a, b| a.location.cmp(&b.location));
    let Some(ending) = files.iter().find_map(|file| ending(file.location.as_ref())) else {
        return Err(match files.first() {
            None => wrong(format!("there is no file `{path}`"), None),
            Some(file) => {
                let kinds = ENDINGS.join(", ");
                wrong(format!("`{}` cannot be read", file.location), Some(format!("files that can be end in {kinds}")))
            }
        });
    };
    files.retain(|file| file.location.as_ref().ends_with(&format!(".{ending}")));
    let mut folders = partition_columns(&url, &files);
    let format: Arc<dyn FileFormat> = match ending {
        "parquet" => Arc::new(ParquetFormat::default().with_options(state.default_table_options().parquet)),
        "csv" => Arc::new(CsvFormat::default().with_options(state.default_table_options().csv).with_has_header(true)),
        _ => Arc::new(JsonFormat::default().with_options(state.default_table_options().json)),
    };
    files.retain(|file| file.size > 0);
    let schema = match ending {
        _ if files.is_empty() => Arc::new(Schema::empty()),
        "parquet" => {
            format.infer_schema(&state, &(store.clone() as Arc<dyn ObjectStore>), &files).await.map_err(failed)?
        }
        ending => sample(&*store, &files, ending).await?,
    };
    // A column that is in the files as well is taken from there.
    folders.retain(|folder| schema.column_with_name(folder).is_none());
    if files.is_empty() {
        let schema = Arc::new(Schema::empty());
        let rows = vec![vec![RecordBatch::new_empty(schema.clone())]];
        return Ok(Arc::new(MemTable::try_new(schema, rows).map_err(failed)?));
    }
    let columns = folders.iter().map(|folder| (folder.clone(), DataType::Utf8)).collect();
    let options =
        ListingOptions::new(format).with_file_extension(format!(".{ending}")).with_table_partition_cols(columns);
    let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(schema);
    let table = Arc::new(ListingTable::try_new(config).map_err(failed)?);
    with_nulls(context, table, &files, &folders).map_err(failed)
}

/// Where a URL leads to. Buckets are opened by the usual `AWS_…` variables.
fn store(url: &ListingTableUrl) -> Result<Arc<Visible>, String> {
    let inner: Arc<dyn ObjectStore> = match url.scheme() {
        "file" => Arc::new(LocalFileSystem::new()),
        "s3" | "s3a" => {
            let bucket = url.get_url().host_str().unwrap_or_default();
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
            Arc::new(store.map_err(|error| format!("cannot open bucket `{bucket}`: {error}"))?)
        }
        other => return Err(format!("URLs of `{other}:` cannot be read; write a path, or s3://bucket/prefix")),
    };
    Ok(Visible::new(inner))
}

/// The names in folders `name=value` between the path and its first file.
fn partition_columns(url: &ListingTableUrl, files: &[ObjectMeta]) -> Vec<String> {
    let Some(segments) = files.first().and_then(|file| url.strip_prefix(&file.location)) else { return Vec::new() };
    segments.map_while(|segment| segment.split_once('=')).map(|(name, _)| name.to_owned()).collect()
}

/// The folder that stands for null gives null.
fn with_nulls(
    context: &SessionContext,
    table: Arc<ListingTable>,
    files: &[ObjectMeta],
    folders: &[String],
) -> datafusion::error::Result<Arc<dyn TableProvider>> {
    if !files.iter().any(|file| file.location.parts().any(|part| part.as_ref().ends_with(&format!("={NULL_FOLDER}")))) {
        return Ok(table);
    }
    let schema = table.schema();
    let columns = schema.fields().iter().map(|field| {
        let column = datafusion::common::Column::from_name(field.name());
        let column = datafusion::prelude::Expr::Column(column);
        match folders.contains(field.name()) {
            true => datafusion::functions::expr_fn::nullif(column, lit(NULL_FOLDER)).alias(field.name()),
            false => column,
        }
    });
    Ok(context.read_table(table)?.select(columns)?.into_view())
}

/// How much of a file is looked at to infer its columns.
const SAMPLE_BYTES: u64 = 1 << 20;

/// The columns of text files, inferred from the first one just as a pipeline's source infers them.
async fn sample(store: &dyn ObjectStore, files: &[ObjectMeta], ending: &str) -> Result<SchemaRef, QueryError> {
    let Some(file) = files.first() else { return Ok(Arc::new(Schema::empty())) };
    let whole = file.size <= SAMPLE_BYTES;
    let bytes = store.get_range(&file.location, 0..file.size.min(SAMPLE_BYTES)).await;
    let buffer = bytes.map_err(|error| QueryError::Failed(format!("cannot read `{}`: {error}", file.location)))?;
    let (mut values, mut start) = (Vec::new(), 0);
    for line in buffer.split_inclusive(|byte| *byte == b'\n') {
        let end = start + line.len();
        let text = line.trim_ascii_end();
        // The last line of a sample may be cut short.
        if !text.is_empty() && (whole || line.ends_with(b"\n") || values.is_empty()) {
            values.push(Some(start as u32..(start + text.len()) as u32));
        }
        start = end;
        if values.len() > SAMPLE_RECORDS {
            break;
        }
    }
    let (format, header) = match ending {
        "csv" if !values.is_empty() => {
            let range = values.remove(0).unwrap_or_default();
            let header = buffer.get(range.start as usize..range.end as usize).unwrap_or_default();
            let header = String::from_utf8_lossy(header);
            let names = header.split(',').map(|name| name.trim_matches('"').to_owned()).collect::<Vec<_>>();
            (Format::Csv(CsvOptions::default()), Some(names))
        }
        _ => (Format::Json, None),
    };
    let place: Arc<str> = file.location.as_ref().into();
    let empty = values.is_empty();
    let sample = Records { buffer, values, place, partition: -1, ..Records::default() };
    match header {
        // A file of nothing but a header has columns all the same.
        Some(header) if empty => Ok(Arc::new(Schema::new(
            header.iter().map(|name| arrow::datatypes::Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>(),
        ))),
        header => Ok(Arc::new(format.infer(&sample, header.as_deref())?)),
    }
}
