//! `logmill run`: a pipeline in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_broker::BrokerConfig;
use logmill_connectors::log::Log;
use logmill_pipelines::Pipeline;
use logmill_pipelines::spec::OnError;
use tokio::sync::watch;

use super::address::with_broker;
use super::check::examine;
use super::serve::serve_beside;
use super::signals::stop_on_signal;
use super::{Told, chain, pipeline_file, told};
use crate::embedded_log::EmbeddedLog;
use crate::engine::{Ending, Outcome, Run, RunError, Takeover};
use crate::metrics::Metrics;
use crate::modules::{self, Modules};
use crate::plan::Plan;
use crate::progress::{self, Progress};

/// Run a pipeline in this process until its input ends or ctrl-C.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The pipeline's file.
    path: PathBuf,
    /// Forget what earlier runs have read, and begin anew. What they wrote stays.
    #[arg(long)]
    fresh: bool,
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

pub(super) async fn execute(arguments: Arguments, data_dir: PathBuf) -> anyhow::Result<()> {
    // What is declared must fit together before anything is opened or made.
    let (plan, found) = examine(&arguments.path, Some(&modules::cache_of(&data_dir)))?;
    let Some(Plan { pipeline, modules, .. }) = plan else { return Err(told(&found)) };
    if !arguments.quiet {
        eprint!("{}", found.render(super::colours()));
    }
    let stop = stop_on_signal()?;
    with_broker(BrokerConfig::new(&data_dir), async |broker| {
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(broker.clone()));
        if arguments.listen.is_empty() {
            return run(&arguments, pipeline, modules, log, data_dir, stop).await;
        }
        let (addresses, advertise) = (arguments.listen.clone(), arguments.advertise.clone());
        let server = serve_beside(broker, addresses, advertise, data_dir.clone()).await?;
        let result = run(&arguments, pipeline, modules, log, data_dir, stop).await;
        server.shutdown().await;
        result
    })
    .await
}

async fn run(
    arguments: &Arguments,
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
        fresh: arguments.fresh,
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
        progress
            .printer()
            .line("starting anew: what earlier runs wrote stays where it is, so the same rows will be there again");
    }
    let result = run.execute().await;
    progress.finish();
    match result {
        Ok(outcome) => {
            if !arguments.quiet {
                eprint!("{}", summary(&outcome, &metrics, &pipeline, &arguments.path));
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

/// What was done, and what to try next.
fn summary(outcome: &Outcome, metrics: &Metrics, pipeline: &Pipeline, path: &Path) -> String {
    let done = metrics.snapshot();
    let name = &pipeline.spec.pipeline;
    let again = format!("logmill run {} --fresh", path.display());
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
        text.push_str(&format!("  logmill consume {topic} --format json    # what was put aside, and why\n"));
    }
    for sink in pipeline.spec.sinks.values() {
        let key = |key: &str| sink.rest.get(key).and_then(|value| value.as_str());
        match (sink.r#type.as_str(), key("topic"), key("url")) {
            ("topic", Some(topic), _) => {
                text.push_str(&format!(
                    "  logmill sql 'SELECT * FROM \"{topic}\" LIMIT 5'\n  logmill consume {topic} --max 5\n"
                ));
            }
            ("object_store", _, Some(url)) if pipeline.redact(url) == url || !url.contains("://") => {
                let place = if url.contains("://") {
                    url.to_owned()
                } else {
                    let joined = pipeline_file::base_dir(path).join(url);
                    joined.components().collect::<PathBuf>().display().to_string()
                };
                text.push_str(&format!("  logmill sql \"SELECT * FROM '{place}' LIMIT 5\"\n"));
            }
            _ => {}
        }
    }
    text.push_str("  logmill topic list\n");
    text
}
