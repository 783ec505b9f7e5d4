//! `logmill run`: a pipeline in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use logmill_broker::BrokerConfig;
use logmill_connectors::log::Log;
use logmill_pipelines::Pipeline;
use logmill_pipelines::spec::OnError;
use logmill_pipelines::terminal::escape_line;
use tokio::sync::watch;

use super::address::{DEFAULT_DATA_DIR, Said, data_dir_flag, is_same, with_broker};
use super::check::examine;
use super::serve::serve_beside;
use super::signals::stop_on_signal;
use super::{Told, chain, pipeline_file, print_diagnostics, told};
use crate::embedded_log::EmbeddedLog;
use crate::engine::{self, Ending, FreshStart, Outcome, Run, RunError, Takeover};
use crate::metrics::Metrics;
use crate::modules::{self, Modules};
use crate::plan::Plan;
use crate::progress::{self, Progress};
use crate::stderr;

/// Run a pipeline in this process until its input ends or ctrl-C.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The pipeline's file.
    path: PathBuf,
    /// Forget the positions and the state of earlier runs, and start over. What they wrote stays, in topics and elsewhere, so
    /// the same rows will be there again.
    #[arg(long)]
    fresh: bool,
    /// With --fresh: delete all records of the topics that sources are played `through:`, those of other producers included.
    #[arg(long, requires = "fresh")]
    delete_through_records: bool,
    /// While it runs, serve the log to Kafka clients here; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,
    /// Tell those clients to connect to this, if it is not the first address listened on.
    #[arg(long, value_name = "HOST:PORT", requires = "listen")]
    advertise: Option<String>,
    /// Print no progress.
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn execute(arguments: Arguments, said: &Said) -> anyhow::Result<()> {
    // From here on ctrl-C is a request, also while modules are compiled and the log is opened.
    let stop = stop_on_signal()?;
    let data_dir = said.pipeline_data_dir("run", &arguments.path)?;
    // What is declared must fit together before anything is opened or made.
    let (plan, found) = examine(&arguments.path, Some(&modules::cache_of(&data_dir)))?;
    let Some(Plan { pipeline, modules, .. }) = plan else { return Err(told(&found)) };
    if said.named_data_dir("run")?.is_none() {
        refuse_to_repeat(&pipeline.spec.pipeline, Path::new(DEFAULT_DATA_DIR), &data_dir)?;
    }
    if !arguments.quiet {
        print_diagnostics(&found);
        stderr::print_line(&format!("{}: topics and state are kept in {}", pipeline.spec.pipeline, data_dir.display()));
    }
    with_broker(BrokerConfig::new(&data_dir), async |broker| {
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(broker.clone()));
        if arguments.listen.is_empty() {
            return run(&arguments, said, pipeline, modules, log, data_dir, stop).await;
        }
        let (addresses, advertise) = (arguments.listen.clone(), arguments.advertise.clone());
        let server = serve_beside(broker, addresses, advertise, data_dir.clone()).await?;
        let result = run(&arguments, said, pipeline, modules, log, data_dir, stop).await;
        server.shutdown().await;
        result
    })
    .await
}

/// Refuses a run whose data dir holds nothing of the pipeline, where the working directory has one that earlier runs used: it
/// would read and write everything once more.
fn refuse_to_repeat(pipeline: &str, earlier: &Path, data_dir: &Path) -> anyhow::Result<()> {
    if is_same(earlier, data_dir) || engine::has_state(data_dir, pipeline) || !engine::has_state(earlier, pipeline) {
        return Ok(());
    }
    bail!(
        "earlier runs of pipeline `{pipeline}` kept their state in `{}`, in the working directory; this one would keep it beside \
         the pipeline's file, and read everything again\n  hint: go on after the earlier runs with{}; or begin in the new place \
         with{}",
        earlier.display(),
        data_dir_flag(earlier),
        data_dir_flag(data_dir),
    )
}

async fn run(
    arguments: &Arguments,
    said: &Said,
    pipeline: Pipeline,
    modules: Modules,
    log: Arc<dyn Log>,
    data_dir: PathBuf,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new());
    let progress = Progress::start(&pipeline.spec.pipeline, metrics.clone(), arguments.quiet);
    let run = Run {
        pipeline: pipeline.clone(),
        modules,
        log,
        data_dir: data_dir.clone(),
        base_dir: pipeline_file::base_dir(&arguments.path),
        fresh: arguments.fresh.then_some(FreshStart { delete_through_records: arguments.delete_through_records }),
        metrics: metrics.clone(),
        stop,
        on_start: Box::new({
            let (progress, quiet) = (progress.printer(), arguments.quiet);
            move |takeover| {
                if !quiet {
                    announce(takeover, &progress);
                }
            }
        }),
    };
    if arguments.fresh && !arguments.quiet {
        progress.printer().line(match arguments.delete_through_records {
            true => {
                "starting from the beginning: all records of the `through:` topics are deleted; what sinks wrote stays, so \
                 they will hold the same rows again"
            }
            false => "starting from the beginning: what earlier runs wrote stays, so sinks will hold the same rows again",
        });
    }
    let result = run.execute().await;
    progress.finish();
    match result {
        Ok(outcome) => {
            if !arguments.quiet {
                let next = Next::new(arguments, said, &data_dir);
                stderr::print_lines(&summary(&outcome, &metrics, &pipeline, &next));
            }
            Ok(())
        }
        Err(RunError::Invalid(found)) => Err(told(&found)),
        Err(RunError::Engine(error)) => {
            let hint = match error.is_disk_full() {
                true => "\n  hint: nothing that was committed is lost; make room and run the same command again",
                false => "",
            };
            let text = pipeline.redact(&chain(&anyhow::Error::from(error)));
            Err(Told(format!("error: {text}{hint}\n")).into())
        }
    }
}

fn announce(takeover: &Takeover, printer: &progress::Printer) {
    for change in &takeover.accepted_changes {
        printer.line(&format!("edited: {change}"));
    }
    if takeover.epoch_before > 0 {
        let rows = progress::count(takeover.rows_before);
        printer.line(&format!("going on after checkpoint {}: {rows} rows are done", takeover.epoch_before));
    }
}

/// How the commands go on that a run suggests.
struct Next<'a> {
    path: &'a Path,
    /// The flag for the data dir that the next run of the same pipeline needs.
    run_flag: String,
    /// The flag that commands without a pipeline need.
    flag: String,
}

impl<'a> Next<'a> {
    fn new(arguments: &'a Arguments, said: &Said, data_dir: &Path) -> Self {
        // It was just made, if it was not there.
        let said = Said { is_default_there: Path::new(DEFAULT_DATA_DIR).is_dir(), ..said.clone() };
        let run_flag = said.data_dir.as_deref().map(data_dir_flag).unwrap_or_default();
        Self { path: &arguments.path, run_flag, flag: said.flag_for(data_dir) }
    }
}

/// What was done, and what to try next.
fn summary(outcome: &Outcome, metrics: &Metrics, pipeline: &Pipeline, next: &Next<'_>) -> String {
    let Next { path, run_flag, flag } = next;
    let done = metrics.snapshot();
    let name = &pipeline.spec.pipeline;
    let again = escape_line(&format!("logmill run {} --fresh{run_flag}", path.display())).into_owned();
    let flag = escape_line(flag);
    if done.rows_read == 0 && done.rows_taken_in == 0 && outcome.takeover.epoch_before > 0 {
        let rows = progress::count(outcome.takeover.rows_before);
        return format!(
            "{name}: nothing new; all {rows} rows were processed by earlier runs\n  to replay from the beginning: \
             {again}\n"
        );
    }
    let verb = match outcome.ending {
        Ending::Finished => "finished",
        Ending::Stopped => "stopped after a commit; the same command goes on from here",
    };
    let mut text = format!("{name}: {verb}\n{}", progress::totals(&done));
    text.push_str("try next:\n");
    if let (OnError::DeadLetter(topic), 1..) = (&pipeline.spec.on_error, done.dead_letters) {
        text.push_str(&format!("  logmill consume {topic} --format json{flag}    # what was dead-lettered, and why\n"));
    }
    for sink in pipeline.spec.sinks.values() {
        let key = |key: &str| sink.rest.get(key).and_then(|value| value.as_str());
        match (sink.r#type.as_str(), key("topic"), key("url")) {
            ("topic", Some(topic), _) => {
                let topic = escape_line(topic);
                text.push_str(&format!(
                    "  logmill sql 'SELECT * FROM \"{topic}\" LIMIT 5'{flag}\n  logmill consume {topic} --max 5{flag}\n"
                ));
            }
            ("object_store", _, Some(url)) if pipeline.redact(url) == url || !url.contains("://") => {
                let place = if url.contains("://") {
                    url.to_owned()
                } else {
                    let joined = pipeline_file::base_dir(path).join(url);
                    joined.components().collect::<PathBuf>().display().to_string()
                };
                text.push_str(&format!("  logmill sql \"SELECT * FROM '{}' LIMIT 5\"\n", escape_line(&place)));
            }
            _ => {}
        }
    }
    text.push_str(&format!("  logmill topic list{flag}\n"));
    text
}
