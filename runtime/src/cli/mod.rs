//! The command line: one file a command.

mod address;
mod bench;
mod check;
mod connect;
mod consume;
mod explain;
mod group;
mod new;
mod pipeline_file;
mod produce;
mod run;
mod serve;
mod signals;
mod sql;
mod test;
mod topic;
mod wasm;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use logmill_connectors::registry::registry;
use logmill_pipelines::Diagnostics;
use logmill_pipelines::terminal::{escape, escape_line};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use self::address::{Said, with_log};
use crate::{guest_log, modules, stderr};

/// A Kafka-compatible log and the engine that runs pipelines on it.
#[derive(Debug, Parser)]
#[command(name = "logmill", version, about, max_term_width = 110)]
pub struct Cli {
    /// The folder of the log and of the pipelines' state [env: LOGMILL_DATA_DIR] [default: logmill-data, beside the
    /// pipeline's file; in the working directory for commands that take no pipeline].
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Work on the log of this server instead of a data dir; several are separated by commas [env: LOGMILL_BOOTSTRAP].
    #[arg(long, global = true, value_name = "HOST:PORT", conflicts_with = "data_dir")]
    bootstrap: Option<String>,
    /// Say more; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline in this process until its input ends or ctrl-C.
    Run(run::Arguments),
    /// Serve topics and groups to Kafka clients, until ctrl-C or SIGTERM.
    Serve(serve::Arguments),
    /// Find every mistake in pipelines, without running anything.
    Check(check::Arguments),
    Test(test::Arguments),
    /// Show a pipeline's plan, with the columns that flow.
    Explain(explain::Arguments),
    /// Print the JSON Schema of pipelines, for editors.
    Schema,
    /// Create, list, describe, alter or delete topics.
    #[command(subcommand)]
    Topic(topic::Command),
    /// List, describe or delete consumer groups, or set their offsets.
    #[command(subcommand)]
    Group(group::Command),
    /// Write lines of a file or of stdin to a topic.
    Produce(produce::Arguments),
    /// Print the records of a topic.
    Consume(consume::Arguments),
    /// Answer a query over topics and files.
    Sql(sql::Arguments),
    /// Look into WebAssembly modules, and try them alone.
    #[command(subcommand)]
    Wasm(wasm::Command),
    /// Write the beginnings of a guest.
    #[command(subcommand)]
    New(new::Command),
    /// Compile a module of stdin to stdout: what the program starts itself for, so that no module stops it.
    #[command(name = "compile-module", hide = true)]
    CompileModule,
    /// Measure this machine: what Logmill does beside what the disk and the libraries could do.
    Bench(bench::Arguments),
}

/// How long a command may be silent about what it waits for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something was wrong, and it was told in full already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

/// Runs a command and tells what went wrong.
pub fn main(cli: Cli) -> ExitCode {
    if matches!(cli.command, Command::CompileModule) {
        let done = logmill_wasm::compile_child(&mut std::io::stdin(), &mut std::io::stdout());
        return if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    modules::compile_by("compile-module");
    let level = match cli.verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOGMILL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(stderr::has_colours());
    log.with_writer(std::io::stderr).without_time().fmt_fields(log_fields()).init();
    let result = execute(cli);
    // What guests said comes before what became of it.
    guest_log::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(Told(text)) = error.downcast_ref() {
                stderr::print_as_it_is(text);
            } else {
                stderr::print_lines(&format!("error: {}", chain(&error)));
            }
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    let said = Said::new(cli.data_dir, cli.bootstrap);
    match cli.command {
        Command::Schema => {
            let schema = logmill_pipelines::json_schema(&registry().catalog());
            print(&format!("{}\n", serde_json::to_string_pretty(&schema)?))
        }
        Command::Check(arguments) => check::execute(&arguments, &said),
        Command::Test(arguments) => runtime()?.block_on(test::execute(&arguments, &said)),
        Command::Explain(arguments) => explain::execute(&arguments, &said),
        Command::Run(arguments) => runtime()?.block_on(run::execute(arguments, &said)),
        Command::Serve(arguments) => runtime()?.block_on(serve::execute(arguments, &said)),
        Command::Topic(command) => runtime()?.block_on(topic::execute(command, &said.address()?)),
        Command::Group(command) => runtime()?.block_on(group::execute(command, &said.address()?)),
        Command::Produce(arguments) => runtime()?.block_on(produce::execute(arguments, &said.address()?)),
        Command::Consume(arguments) => runtime()?.block_on(consume::execute(arguments, &said.address()?)),
        Command::Sql(arguments) => runtime()?.block_on(sql::execute(arguments, said.address_if_any()?.as_ref())),
        Command::Wasm(command) => wasm::execute(&command, &said.own_data_dir("wasm")?),
        Command::New(command) => new::execute(&command),
        Command::CompileModule => Ok(()),
        Command::Bench(arguments) => runtime()?.block_on(bench::execute(arguments, &said)),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start")
}

/// Prints to stdout; a reader that has gone away is an error that ends the command in silence. Programs get the text as it is, a
/// terminal without what would do something to it.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let text = if stdout.is_terminal() { escape(text) } else { text.into() };
    Ok(stdout.write_all(text.as_bytes())?)
}

/// How the fields of an event are written to the log: each stays in its line, whatever is in it.
fn log_fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    let write = |writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn std::fmt::Debug| match field.name()
    {
        "message" => write!(writer, "{}", escape_line(&format!("{value:?}"))),
        name => write!(writer, "{name}={}", escape_line(&format!("{value:?}"))),
    };
    debug_fn(write).delimited(" ")
}

/// Prints diagnostics to stderr.
fn print_diagnostics(diagnostics: &Diagnostics) {
    if !diagnostics.is_empty() {
        stderr::print_as_it_is(&format!("{}\n", diagnostics.render(stderr::has_colours()).trim_end()));
    }
}

fn told(diagnostics: &Diagnostics) -> anyhow::Error {
    Told(format!("{}\n", diagnostics.render(stderr::has_colours()))).into()
}

/// Does what may take long, and says so on stderr if it does.
fn patiently<T>(what: &str, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, waited) = mpsc::channel::<()>();
        scope.spawn(move || {
            if waited.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                stderr::print_line(&format!("{what}, this once…"));
            }
        });
        let result = work();
        drop(done);
        result
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| Some(cause.downcast_ref::<std::io::Error>()?.kind());
    error.chain().any(|cause| kind(cause) == Some(std::io::ErrorKind::BrokenPipe))
}

/// An error with its causes, each that says something new on a line of its own. Further lines of a cause are indented: a
/// name with a line break in it does not begin a line.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().replace('\n', "\n    ");
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}\n  because: {cause}");
        }
    }
    text
}

/// Sets up the failpoints named by `FAILPOINTS`: a point that panics ends the process at once, as a kill would.
#[cfg(feature = "failpoints")]
pub fn failpoints() -> fail::FailScenario<'static> {
    std::panic::set_hook(Box::new(|panic| {
        stderr::print_lines(&panic.to_string());
        std::process::abort();
    }));
    fail::FailScenario::setup()
}
