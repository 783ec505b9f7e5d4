//! `logmill wasm check`: what a module is, in a few lines, or why it cannot be used.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use logmill_operators::wasm::{self, Rehearsal, WasmPlan};
use logmill_pipelines::terminal::escape_line;
use logmill_pipelines::{ByteSize, DurationSpec};
use logmill_wasm::Role;

use super::{Loaded, Module, file_name, log, parse_schema, shown};
use crate::cli::print;

/// Say what a module is, what it puts out, and whether it can be used.
///
/// If the columns of its input are known, the module also runs on a few generated rows. It must give the same result when it
/// runs again and when it continues from one of its snapshots; a function that claims to be deterministic must give the same
/// result on every call. The command reports whether the output depends on how rows are split into batches.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    module: Module,
    /// The columns of its input: `carrier: string, delay: float64`.
    #[arg(long, value_name = "COLUMNS", value_parser = parse_schema)]
    schema: Option<Schema>,
}

pub(super) fn execute(arguments: &Arguments, data_dir: &Path) -> anyhow::Result<()> {
    let module = &arguments.module;
    let loaded = module.load(data_dir)?;
    let mut text = format!("{}: {}\n", escape_line(&file_name(&module.path)), role(loaded.guest.role()));
    let _ = writeln!(text, "  digest   sha256:{}", loaded.guest.digest());
    let _ = writeln!(text, "  size     {}", size(loaded.bytes));
    let imports = loaded.guest.imports();
    let imports = if imports.is_empty() { "nothing".to_owned() } else { imports.join(", ") };
    let _ = writeln!(text, "  imports  {}", escape_line(&imports));
    let (memory, deadline) = (ByteSize(loaded.limits.memory_bytes), DurationSpec(loaded.limits.deadline));
    let _ = writeln!(text, "  limits   {memory} of memory, {deadline} a call");
    match loaded.guest.role() {
        Role::Function => functions(&loaded, module, &mut text)?,
        role => outputs(&loaded, role, arguments, &mut text)?,
    }
    print(&text)
}

/// A size for people.
fn size(bytes: usize) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn role(role: Role) -> String {
    match role {
        Role::Operator { stateful, watermarks } => {
            let mut text = "an operator on row batches".to_owned();
            text.push_str(if stateful { ", with state" } else { ", without state" });
            text.push_str(if watermarks { ", that waits for event time" } else { "" });
            text
        }
        Role::Transform { packed: true } => "a transform of records, many at a call".to_owned(),
        Role::Transform { packed: false } => "a transform of records, one at a call".to_owned(),
        Role::Function => "functions for SQL".to_owned(),
    }
}

fn outputs(loaded: &Loaded, role: Role, arguments: &Arguments, text: &mut String) -> anyhow::Result<()> {
    // Lines that are no JSON are records with one text.
    let undeclared = match role {
        Role::Transform { .. } => Schema::new(vec![Field::new("value", DataType::Utf8, true)]),
        _ => Schema::empty(),
    };
    let schema = Arc::new(arguments.schema.clone().unwrap_or(undeclared));
    let plan = match loaded.plan(&arguments.module.name(), schema) {
        Ok(plan) => plan,
        // Without columns many operators can say nothing; that is no mistake of theirs.
        Err(error)
            if arguments.schema.is_none()
                && matches!(role, Role::Operator { .. })
                && !wasm::is_about_config(&error) =>
        {
            let _ = writeln!(
                text,
                "  outputs  depend on the input; name its columns with --schema\n           ({})",
                escape_line(&error.message)
            );
            return Ok(());
        }
        Err(error) => return Err(arguments.module.told(&error)),
    };
    if matches!(role, Role::Operator { .. }) {
        let _ = writeln!(text, "  reads    {}", escape_line(&plan.reads().join(", ")));
    }
    if let Some(version) = plan.state_version() {
        let _ = writeln!(text, "  state    version {version}");
    }
    for output in plan.outputs() {
        let _ = writeln!(text, "  output   {} ({})", escape_line(&output.name), shown(&output.schema));
    }
    if arguments.schema.is_some() || matches!(role, Role::Transform { .. }) {
        tried(&plan, &arguments.module, text)?;
    }
    Ok(())
}

/// Tries the module, and says how it went.
fn tried(plan: &WasmPlan, module: &Module, text: &mut String) -> anyhow::Result<()> {
    let Rehearsal { rows, refused, depends_on_batches } =
        wasm::rehearse(plan).map_err(|how| module.failed_trial(&how))?;
    let snapshots = if plan.is_stateful() { ", and goes on from its snapshots" } else { "" };
    let _ =
        writeln!(text, "  tried    {rows} rows that are made up, {refused} refused: does the same again{snapshots}");
    if let Some(how) = depends_on_batches {
        let _ = writeln!(text, "  batches  what it puts out depends on them: with smaller ones, {}", escape_line(&how));
    }
    Ok(())
}

fn functions(loaded: &Loaded, module: &Module, text: &mut String) -> anyhow::Result<()> {
    let functions = wasm::functions(&loaded.guest, loaded.config.as_ref(), loaded.limits, log());
    for function in functions.map_err(|error| module.told(&error))? {
        let kind = if function.is_deterministic() { "" } else { ", not deterministic: for batch queries only" };
        let returns = Schema::new(vec![function.returns().clone().with_name("")]);
        let returns = shown(&returns);
        let returns = returns.trim_start_matches(": ");
        let (name, arguments) = (escape_line(function.name()), shown(function.arguments()));
        let _ = writeln!(text, "  function {name}({arguments}) -> {returns}{kind}");
        function.rehearse().map_err(|how| module.failed_trial(&format!("`{}`: {how}", function.name())))?;
    }
    Ok(())
}
