//! Reads pipeline files, with variables from the environment.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use logmill_connectors::registry::Registry;
use logmill_pipelines::{Environment, Reading};

/// Variables and files of this process.
pub(super) struct ProcessEnvironment {
    base_dir: PathBuf,
}

impl ProcessEnvironment {
    /// Relative paths in a file start from its own folder.
    pub(super) fn beside(path: &Path) -> Self {
        Self { base_dir: base_dir(path) }
    }
}

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read_file(&self, path: &str) -> Result<String, String> {
        let text = std::fs::read_to_string(self.base_dir.join(path)).map_err(|error| error.to_string())?;
        Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
    }
}

/// The folder that relative paths in a pipeline start from.
pub(super) fn base_dir(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Reads a pipeline; `-` is stdin.
pub(super) fn read(path: &Path, registry: &Registry) -> anyhow::Result<Reading> {
    let (name, text) = if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("could not read stdin")?;
        ("<stdin>".to_owned(), text)
    } else {
        let name = path.display().to_string();
        if path.is_dir() {
            bail!("`{name}` is a folder; name the pipeline's YAML file in it");
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("could not read `{name}`"))?;
        (name, text)
    };
    let environment = ProcessEnvironment::beside(path);
    Ok(logmill_pipelines::read(&name, &text, &registry.catalog(), &environment))
}
