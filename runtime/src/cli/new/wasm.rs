//! `logmill new wasm`: a guest that builds with its language's ordinary tools, and a pipeline with tests that runs it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::template::{self, File};
use crate::cli::print;

/// Write the beginnings of a WebAssembly guest: a folder that builds, with a pipeline that runs it and tests.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder to make; its last part is the guest's name.
    path: PathBuf,
    /// The language.
    #[arg(long, value_enum)]
    lang: Language,
    /// What the guest is.
    #[arg(long, value_enum, default_value_t = Kind::Transform)]
    kind: Kind,
}

/// A language of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    /// A core module; Logmill makes the component.
    Rust,
    /// A small core module.
    Assemblyscript,
    /// A component with a JavaScript engine in it.
    Js,
    /// A component with Python in it.
    Python,
}

/// What a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Takes a record and gives any number of records.
    Transform,
    /// Takes and gives whole batches of columns, and may keep state.
    Operator,
    /// Functions for SQL.
    Function,
}

/// What a template consists of, and how its guest is built.
struct Template {
    files: Vec<&'static [File]>,
    build: &'static str,
}

pub(super) fn execute(arguments: &Arguments) -> anyhow::Result<()> {
    let path = &arguments.path;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_name(&name) {
        bail!(
            "`{name}` cannot be the name of a guest; write lower-case letters, digits, `_` and `-`, beginning with a letter"
        );
    }
    let template = template(arguments.lang, arguments.kind)?;
    if path.exists() && path.read_dir().map_or(true, |mut entries| entries.next().is_some()) {
        bail!("`{}` is there already; nothing is written over", path.display());
    }
    let mut written = String::new();
    for (file, text) in template.files.iter().copied().flatten() {
        let file = fill(&template::target(file), &name);
        write(&path.join(&file), &fill(text, &name))?;
        written.push_str(&format!("  {}\n", path.join(&file).display()));
    }
    print(&format!(
        "{written}build it and run its tests:\n  cd {}\n  {}\n  logmill test pipeline.yaml\n",
        path.display(),
        fill(template.build, &name)
    ))
}

fn template(lang: Language, kind: Kind) -> anyhow::Result<Template> {
    let interface = [template::WIT_TRANSFORM, template::WIT_OPERATOR];
    let (files, build): (Vec<&'static [File]>, _) = match (lang, kind) {
        (Language::Assemblyscript, Kind::Transform) => (vec![template::ASSEMBLYSCRIPT], "npm install && npm run build"),
        (Language::Js, Kind::Transform) => ([&[template::JS], &interface[..]].concat(), "npm install && npm run build"),
        (Language::Python, Kind::Transform) => (
            [&[template::PYTHON], &interface[..]].concat(),
            "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && mkdir -p build &&\n  \
             .venv/bin/componentize-py -d wit -w transform componentize --stub-wasi transform -o build/{{name}}.wasm",
        ),
        (Language::Rust, _) => bail!("no rust"),
        (_, Kind::Operator | Kind::Function) => {
            bail!(
                "operators and functions work on columns in Arrow's format, for which there is a template in Rust only"
            )
        }
    };
    Ok(Template { files: [&files[..], &[template::MESSAGES]].concat(), build })
}

/// Whether a name can be that of a pipeline, of a crate and of a package.
fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
        && name.len() <= 64
}

/// A text of a template with the name in it; `{{snake}}` is the name as an identifier.
fn fill(text: &str, name: &str) -> String {
    text.replace("{{name}}", name).replace("{{snake}}", &name.replace('-', "_"))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = || format!("could not write `{}`", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(shown)?;
    }
    std::fs::write(path, text).with_context(shown)
}
