//! `logmill wasm`: what a module is, and a try at it alone.

mod check;
mod function;
mod lines;
mod run;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use arrow::datatypes::{Schema, SchemaRef};
use logmill_operators::sql::{Relation, RelationKind};
use logmill_operators::wasm::{self, PlanError, WasmPlan, WasmRequest};
use logmill_pipelines::terminal::escape_line;
use logmill_pipelines::{ByteSize, ColumnType, DurationSpec, limit_problems};
use logmill_wasm::{Guest, GuestLog, Level, Limits};
use serde_json::Value;

use super::patiently;
use crate::modules;
use crate::stderr;

/// Look into WebAssembly modules, and try them alone.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Check(check::Arguments),
    Run(run::Arguments),
}

pub(super) fn execute(command: &Command, data_dir: &Path) -> anyhow::Result<()> {
    match command {
        Command::Check(arguments) => check::execute(arguments, data_dir),
        Command::Run(arguments) => run::execute(arguments, data_dir),
    }
}

/// What a module is given besides its input.
#[derive(Debug, clap::Args)]
struct Module {
    /// The module: a component, or a core module.
    #[arg(value_name = "MODULE")]
    path: PathBuf,
    /// What it is configured with, as JSON.
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// How much memory it may use.
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    memory: ByteSize,
    /// How long a call may take.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    deadline: DurationSpec,
}

/// A module that is loaded.
struct Loaded {
    guest: Guest,
    bytes: usize,
    config: Option<Value>,
    limits: Limits,
}

impl Module {
    fn load(&self, data_dir: &Path) -> anyhow::Result<Loaded> {
        let config = self.config.as_deref().map(serde_json::from_str).transpose().context("--config is no JSON")?;
        if let Some((key, problem, _)) = limit_problems(Some(self.memory), Some(self.deadline)).next() {
            bail!("--{key} {problem}");
        }
        let bytes = modules::read(&self.path).map_err(anyhow::Error::msg)?;
        let (shown, cache_dir) = (self.path.display().to_string(), modules::cache_dir(data_dir));
        let compile = || modules::compile(&bytes, &shown, cache_dir.as_deref());
        let guest = patiently(&format!("compiling `{shown}`"), compile).map_err(anyhow::Error::msg)?;
        let limits = Limits { memory_bytes: self.memory.0, deadline: self.deadline.0 };
        Ok(Loaded { guest, bytes: bytes.len(), config, limits })
    }

    /// The name of what the module makes: that of its file.
    fn name(&self) -> String {
        self.path.file_stem().map_or_else(|| "guest".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

impl Loaded {
    /// The plan of the module as an operator that reads these columns.
    fn plan(&self, name: &str, schema: SchemaRef) -> Result<WasmPlan, PlanError> {
        let input = Relation { name: "input".into(), schema, kind: RelationKind::Stream, has_meta: true };
        wasm::plan(WasmRequest {
            operator: name,
            guest: &self.guest,
            input: &input,
            config: self.config.as_ref(),
            limits: self.limits,
            log: log(),
        })
    }
}

impl Module {
    /// An error with its hint, and the module it is about.
    fn told(&self, error: &PlanError) -> anyhow::Error {
        let no_config = wasm::is_about_config(error) && self.config.is_none();
        let hint = error.hint.as_deref().or_else(|| no_config.then_some("give it a configuration with --config"));
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        anyhow!("`{}`: {}{hint}", self.path.display(), error.message)
    }

    /// What went wrong when the module was tried.
    fn failed_trial(&self, how: &str) -> anyhow::Error {
        anyhow!("`{}`: tried on rows that are made up: {how}", self.path.display())
    }
}

/// What a guest logs goes to stderr.
fn log() -> Arc<dyn GuestLog> {
    Arc::new(ToStderr)
}

struct ToStderr;

impl GuestLog for ToStderr {
    fn line(&self, level: Level, message: &str) {
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        stderr::print_line(&format!("guest {level}: {message}"));
    }
}

/// Columns as `--schema` names them: `carrier: string, delay: float64`.
fn parse_schema(text: &str) -> Result<Schema, String> {
    match format!("struct<{text}>").parse::<ColumnType>() {
        Ok(ColumnType::Struct(fields)) => {
            Ok(Schema::new(fields.into_iter().map(|(name, kind)| kind.to_field(&name)).collect::<Vec<_>>()))
        }
        Ok(_) => Err("write columns and their types: `carrier: string, delay: float64`".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Columns as `--schema` names them.
fn shown(schema: &Schema) -> String {
    let column = |field: &arrow::datatypes::FieldRef| match ColumnType::from_field(field) {
        Ok(kind) => format!("{}: {kind}", field.name()),
        Err(_) => format!("{}: {}", field.name(), field.data_type()),
    };
    escape_line(&schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")).into_owned()
}

/// Says on a terminal that it is waited for.
fn invite(what: &str) {
    if std::io::stdin().is_terminal() {
        stderr::print_line(&format!("reading {what} from the keyboard; ctrl-D ends them"));
    }
}

/// The folder's name is of no use in messages about a file given by name.
fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
