//! `logmill check`: every mistake in pipelines, each at its place.

use std::path::{Path, PathBuf};

use anyhow::Context;
use logmill_connectors::registry::registry;
use logmill_pipelines::Diagnostics;

use super::address::Said;
use super::connect::connect;
use super::{Told, patiently, pipeline_file, print, runtime};
use crate::modules::{self, Modules};
use crate::plan::{self, Plan};
use crate::stderr;

/// Find every mistake in pipelines, without running anything.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files, folders (every *.yaml and *.yml below them), or `-` for stdin.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Look at the data of sources and tables as well, and print the columns that are not declared.
    #[arg(long)]
    connect: bool,
    /// Print the mistakes as JSON, one array a file.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(arguments: &Arguments, said: &Said) -> anyhow::Result<()> {
    let files = pipeline_files(&arguments.paths)?;
    let (mut errors, mut text) = (0, String::new());
    for file in &files {
        let data_dir = said.pipeline_data_dir("check", file)?;
        let (found, inferred) = match arguments.connect {
            true => {
                let connected = runtime()?.block_on(connect(file, &data_dir))?;
                (connected.found, connected.inferred.unwrap_or_default())
            }
            false => (examine(file, modules::cache_dir(&data_dir).as_deref())?.1, String::new()),
        };
        errors += found.errors();
        if arguments.json {
            print(&format!("{}\n", serde_json::to_string(&found)?))?;
        } else if found.is_empty() {
            print(&format!("{}: ok\n{inferred}", file.display()))?;
        } else {
            text.push_str(&found.render(stderr::has_colours()));
            text.push('\n');
        }
    }
    match (errors, arguments.json) {
        (0, _) => {
            stderr::print_as_it_is(&text);
            Ok(())
        }
        (_, true) => Err(Told(String::new()).into()),
        (count, false) => {
            let s = if count == 1 { "" } else { "s" };
            Err(Told(format!("{text}{count} mistake{s}\n")).into())
        }
    }
}

/// The files meant by some paths: files as they are, and every pipeline below folders.
pub(super) fn pipeline_files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => pipelines_below(path, &mut files)?,
            false => files.push(path.clone()),
        }
    }
    if let (true, Some(first)) = (files.is_empty(), paths.first()) {
        anyhow::bail!("there is no *.yaml file in {}", first.display());
    }
    Ok(files)
}

/// A file's plan as far as it can be made without I/O, and all that can be found wrong with it.
///
/// Modules are read, to know the columns that they make; their compiled code is kept in `cache_dir`.
pub(super) fn examine(file: &Path, cache_dir: Option<&Path>) -> anyhow::Result<(Option<Plan>, Diagnostics)> {
    let registry = registry();
    let reading = pipeline_file::read(file, &registry)?;
    let mut found = reading.diagnostics;
    let Some(pipeline) = reading.pipeline else { return Ok((None, found)) };
    let load = || Modules::load(&pipeline.spec, &pipeline_file::base_dir(file), cache_dir);
    let modules = patiently(&format!("compiling the modules of `{}`", file.display()), load);
    match plan::plan(pipeline, &registry, &plan::Schemas::new(), &modules) {
        Ok(plan) => {
            found.extend(plan.warnings.iter().cloned());
            Ok((Some(plan).filter(|_| !found.has_errors()), found))
        }
        Err(more) => {
            found.extend(more.items().iter().cloned());
            Ok((None, found))
        }
    }
}

fn pipelines_below(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let shown = || format!("could not read the folder `{}`", folder.display());
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(shown)? {
        entries.push(entry.with_context(shown)?.path());
    }
    entries.sort();
    for path in entries {
        // Folders that tools fill are nobody's pipelines.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && (name.starts_with('.') || matches!(&*name, "node_modules" | "target")) {
            continue;
        }
        if path.is_dir() {
            pipelines_below(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    Ok(())
}
