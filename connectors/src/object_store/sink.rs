//! The object_store sink as the engine sees it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use logmill_pipelines::{ConnectorKind, Role};

use super::config::{Config, Location};
use super::encode::FileFormat;
use super::files::{Clock, FileSpec, Files, Target, coerce_schema};
use super::local::LocalTarget;
use super::partition::escape;
use super::restage;
use super::store::{Opened, open_s3};
use super::token::StagedFile;
use super::uploads::{Store, UploadTarget, Uploads};
use super::writer::ObjectWriter;
use crate::blocking::blocking;
use crate::error::ConnectorError;
use crate::problem::in_one_line;
use crate::sink::{Accepts, Attempt, Committed, OpenWriter, Restage, Sink, Token, Writer};

/// Tokens committed at the same time: a rename and its syncs, or a request to the store, for each.
const COMMITS_AT_ONCE: usize = 32;

/// The object_store sink, as the catalog lists it.
pub fn kind() -> ConnectorKind {
    ConnectorKind {
        name: "object_store",
        role: Role::Sink,
        summary: "Parquet, NDJSON or CSV files in a local folder or on S3, exactly once",
        schema: || schemars::schema_for!(Config),
        formats: &["parquet", "json", "ndjson", "csv", "raw", "lines"],
        needs_through: false,
    }
}

/// What a sink knows of the pipeline it is in.
#[derive(Clone)]
pub struct SinkContext {
    /// What the data directory runs: its staging is its own.
    pub deployment: String,
    /// The pipeline's name: with the sink's, it tells this sink's staging from that of others at the same URL.
    pub pipeline: String,
    /// The sink's name in the pipeline.
    pub sink: String,
    /// Where relative paths start.
    pub base_dir: PathBuf,
    /// The columns of the rows.
    pub schema: SchemaRef,
    /// Decides when files are old.
    pub clock: Clock,
}

/// The system's monotonic clock.
pub fn system_clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

/// Makes the sink of a configuration. Does no I/O.
///
/// # Errors
/// `Config` with everything that `Config::check` finds.
pub fn sink(config: &Config, format: FileFormat, context: &SinkContext) -> Result<Arc<dyn Sink>, ConnectorError> {
    check(config, &format, context)?;
    let staging = staging(context);
    let place = match Location::parse(&config.url, &context.base_dir).map_err(ConnectorError::Config)? {
        Location::Local(root) => Place::Local(LocalTarget::new(root, staging)),
        Location::S3 { bucket, prefix } => {
            Place::Uploads(UploadTarget::new(open_s3(&bucket, &config.options)?, &prefix, &staging, tag(&staging)))
        }
    };
    Ok(Arc::new(ObjectSink { spec: spec(config, format, context), place }))
}

/// Makes a sink on a store that is open already, in its folder `prefix`; the URL is not looked at.
///
/// # Errors
/// `Config` with everything that `Config::check` finds.
pub fn sink_on(
    store: Arc<dyn Store>,
    prefix: &str,
    config: &Config,
    format: FileFormat,
    context: &SinkContext,
) -> Result<Arc<dyn Sink>, ConnectorError> {
    check(config, &format, context)?;
    let staging = staging(context);
    let place = Place::Uploads(UploadTarget::new(Opened { store, pending: None }, prefix, &staging, tag(&staging)));
    Ok(Arc::new(ObjectSink { spec: spec(config, format, context), place }))
}

struct ObjectSink {
    spec: Arc<FileSpec>,
    place: Place,
}

enum Place {
    Local(LocalTarget),
    Uploads(UploadTarget),
}

impl Place {
    /// Where a writer stages.
    fn targets(&self) -> (Target, Option<Uploads>) {
        match self {
            Self::Local(target) => (Target::Local(target.clone()), None),
            Self::Uploads(target) => (Target::Parts { prefix: target.prefix().to_owned() }, Some(target.uploads())),
        }
    }

    /// What precedes a file's name from the sink's folder in its token.
    fn prefix(&self) -> &str {
        match self {
            Self::Local(_) => "",
            Self::Uploads(target) => target.prefix(),
        }
    }
}

fn check(config: &Config, format: &FileFormat, context: &SinkContext) -> Result<(), ConnectorError> {
    let problems = config.check(format.name(), Some(&context.schema));
    if problems.is_empty() {
        return Ok(());
    }
    Err(ConnectorError::Config(in_one_line(&problems)))
}

fn spec(config: &Config, format: FileFormat, context: &SinkContext) -> Arc<FileSpec> {
    Arc::new(FileSpec {
        format,
        compression: config.compression,
        roll: config.roll.clone(),
        partition_by: config.partition_by.clone(),
        schema: coerce_schema(&context.schema),
        clock: context.clock.clone(),
        tag: tag(&staging(context)),
    })
}

/// A short name of the sink, made of where it stages.
fn tag(staging: &str) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(staging.as_bytes()))
}

/// Where the sink stages, from its folder.
fn staging(context: &SinkContext) -> String {
    let mut folder = String::from("_logmill/");
    for name in [&context.deployment, &context.pipeline, &context.sink] {
        escape(name, &mut folder);
        folder.push('/');
    }
    folder
}

#[async_trait]
impl Sink for ObjectSink {
    fn accepts(&self) -> Accepts {
        Accepts::Append
    }

    async fn open(&self, open: OpenWriter) -> Result<Box<dyn Writer>, ConnectorError> {
        let spec = self.spec.clone();
        let (target, uploads) = self.place.targets();
        Ok(Box::new(ObjectWriter::new(move || Files::open(spec, target, &open), uploads).await?))
    }

    async fn commit(&self, token: &Token) -> Result<Committed, ConnectorError> {
        match (&self.place, StagedFile::read(token)?) {
            (Place::Local(target), StagedFile::Local { from, to, bytes, .. }) => {
                let target = target.clone();
                blocking(move || target.commit(&from, &to, bytes)).await
            }
            (Place::Uploads(target), StagedFile::Upload { to, upload, parts, journal, bytes, .. }) => {
                target.commit(&to, &upload, &parts, &journal, bytes).await
            }
            (_, StagedFile::Local { to, .. } | StagedFile::Upload { to, .. }) => {
                Err(ConnectorError::Config(format!("{to} was staged on another kind of store; was the URL changed?")))
            }
        }
    }

    fn commits_at_once(&self) -> usize {
        COMMITS_AT_ONCE
    }

    async fn restage(&self, restage: Restage) -> Result<Vec<Token>, ConnectorError> {
        let (target, uploads) = self.place.targets();
        restage::restage(self.spec.clone(), target, uploads, self.place.prefix(), restage).await
    }

    async fn collect(&self, live: &[Token], _attempt: &Attempt) -> Result<(), ConnectorError> {
        let live = live.iter().map(StagedFile::read).collect::<Result<Vec<_>, _>>()?;
        match &self.place {
            Place::Local(target) => {
                let target = target.clone();
                blocking(move || target.collect(&live)).await
            }
            Place::Uploads(target) => target.collect(&live).await,
        }
    }
}
