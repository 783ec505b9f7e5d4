//! `logmill test`: the examples that pipelines carry with them, held to what their operators give.

mod diff;
mod rows;
mod trial;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::address::Said;
use super::check::{examine, pipeline_files};
use super::{Told, pipeline_file, print, print_diagnostics};
use crate::modules;
use crate::plan::Plan;
use trial::Stage;

/// Run the `tests:` of pipelines, without sources, sinks or a log.
///
/// Each test gives rows to sources, as JSON would, and says which rows sources or operators put out; a further output of
/// an operator is named `operator.output`. Sources get their rows in the order in which the test names them, then all
/// input ends. Clocks stand still. Static tables are loaded as they are for a run.
///
/// Rows must come in the order expected, as many as expected. An expected row is held to the columns that it names. Floats
/// may differ by a billionth; bytes are hexadecimal digits. What the test does not name under `expect` is not looked at.
///
/// Input may have `_key`, `_timestamp` and `_headers` where the source reads records. A source without a `schema:` has the
/// columns of the test's rows. Records of format raw are given as the text `value`.
///
/// A row that an operator fails on fails the test, with the reason. Where the pipeline has `on_error: { dead_letter: … }`,
/// such rows can be expected under the name of that topic, with `_operator` and `_error` beside their columns.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files, folders (every *.yaml and *.yml below them, but for what tools keep there), or `-` for stdin.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Run only the tests whose names contain this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// How many tests there were.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    left_out: usize,
}

pub(super) async fn execute(arguments: &Arguments, said: &Said) -> anyhow::Result<()> {
    let mut count = Count::default();
    for file in pipeline_files(&arguments.paths)? {
        let cache_dir = modules::cache_dir(&said.pipeline_data_dir("test", &file)?);
        test_file(&file, arguments.filter.as_deref(), cache_dir.as_deref(), &mut count).await?;
    }
    let Count { passed, failed, left_out } = count;
    let mut total = format!("{passed} passed");
    if left_out > 0 {
        let _ = write!(total, ", {left_out} left out");
    }
    match failed {
        0 => print(&format!("{total}\n")),
        failed => Err(Told(format!("{failed} failed, {total}\n")).into()),
    }
}

async fn test_file(
    file: &Path,
    filter: Option<&str>,
    cache_dir: Option<&Path>,
    count: &mut Count,
) -> anyhow::Result<()> {
    let (plan, found) = examine(file, cache_dir)?;
    let shown = file.display();
    let Some(Plan { pipeline, modules, .. }) = plan else {
        count.failed += 1;
        print_diagnostics(&found);
        return print(&format!("{shown}: the pipeline has mistakes, so its tests were not run\n"));
    };
    if pipeline.spec.tests.is_empty() {
        return print(&format!("{shown}: no tests\n"));
    }
    let stage = Stage::load(&pipeline, &modules, pipeline_file::base_dir(file)).await?;
    for test in &pipeline.spec.tests {
        if filter.is_some_and(|text| !test.name.contains(text)) {
            count.left_out += 1;
            continue;
        }
        let problems = stage.run(test);
        let outcome = if problems.is_empty() { "ok" } else { "FAILED" };
        print(&format!("{shown}: {} … {outcome}\n", test.name))?;
        for problem in &problems {
            print(&format!("  {}\n", pipeline.redact(problem).replace('\n', "\n  ")))?;
        }
        match problems.is_empty() {
            true => count.passed += 1,
            false => count.failed += 1,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
