//! `logmill new wasm`: a guest that builds with its language's ordinary tools, and a pipeline with tests that runs it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::template::{self, Folder};
use crate::cli::print;

/// Write the beginnings of a WebAssembly guest: a folder that builds, with a pipeline that runs it and tests.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The folder to make; its last part is the guest's name.
    path: PathBuf,
    /// The language.
    #[arg(long, value_enum)]
    lang: Language,
    /// What the guest is.
    #[arg(long, value_enum, default_value_t = Kind::Transform)]
    kind: Kind,
}

/// How a guest in Rust is built.
const RUST_BUILD: &str =
    "rustup target add wasm32-unknown-unknown\n  cargo build --release --target wasm32-unknown-unknown";
/// Names of crates that a guest in Rust depends on, which it cannot have itself.
const TAKEN: [&str; 3] = ["logmill-guest", "serde", "serde_json"];

/// A language of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    /// Compiles to a small module; needs cargo.
    Rust,
    /// Compiles to a small module; needs npm.
    Assemblyscript,
    /// A component with a JavaScript engine in it; needs npm.
    Js,
    /// A component with Python in it; needs pip.
    Python,
}

/// What a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Takes a record and gives any number of records.
    Transform,
    /// Takes and gives batches of columns, and keeps state; Rust only.
    Operator,
    /// Functions for SQL; Rust only.
    Function,
}

pub(super) fn execute(arguments: &Arguments) -> anyhow::Result<()> {
    let path = &arguments.path;
    // Of `.` and `..` the name is that of the folder meant.
    let whole = || path.canonicalize().ok()?.file_name().map(OsStr::to_owned);
    let name = path.file_name().map(OsStr::to_owned).or_else(whole).unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    if !is_name(&name) {
        bail!(
            "`{name}` cannot be the name of a guest; write lower-case letters, digits, `_` and `-`, beginning with a letter"
        );
    }
    if TAKEN.contains(&name.as_str()) {
        bail!("`{name}` is the name of a library that the guest is made with; call it otherwise");
    }
    let (folders, build) = template(arguments.lang, arguments.kind)?;
    if path.exists() && path.read_dir().map_or(true, |mut entries| entries.next().is_some()) {
        bail!("`{}` is there already, and nothing is written over", path.display());
    }
    let mut written = String::new();
    for (file, text) in template::files(&folders) {
        write(&path.join(&file), &fill(text, &name))?;
        // What lies there to be used, not to be read, would only hide the rest.
        if !file.starts_with("vendor/") && !file.starts_with("wit/") {
            written.push_str(&format!("  {}\n", path.join(&file).display()));
        }
    }
    for folder in ["vendor", "wit"].map(|folder| path.join(folder)).iter().filter(|folder| folder.is_dir()) {
        written.push_str(&format!("  {}/\n", folder.display()));
    }
    let folder = path.display();
    print(&format!(
        "{written}build it and run its tests:\n  cd {folder}\n  {}\n  logmill test pipeline.yaml\n",
        fill(build, &name)
    ))
}

/// What a guest's folder is made of, and how it is built.
fn template(lang: Language, kind: Kind) -> anyhow::Result<(Vec<Folder>, &'static str)> {
    let (own, interface, build): (&[Folder], &[Folder], _) = match (lang, kind) {
        (Language::Rust, kind) => {
            let own: &[Folder] = match kind {
                Kind::Transform => &[("templates/rust/transform", ""), ("templates/rust/common", "")],
                Kind::Operator => &[("templates/rust/operator", ""), ("templates/rust/common", "")],
                Kind::Function => &[("templates/rust/function", ""), ("templates/rust/common", "")],
            };
            (own, &template::SDK, RUST_BUILD)
        }
        (_, Kind::Operator | Kind::Function) => {
            bail!(
                "an operator or a function works on columns in Arrow's format; there is a template for it with --lang rust"
            )
        }
        (Language::Assemblyscript, Kind::Transform) => {
            (&[("templates/assemblyscript", "")], &[], "npm install && npm run build")
        }
        (Language::Js, Kind::Transform) => (&[("templates/js", "")], &template::WIT, "npm install && npm run build"),
        (Language::Python, Kind::Transform) => (
            &[("templates/python", "")],
            &template::WIT,
            "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && mkdir -p build\n  \
             .venv/bin/componentize-py -d wit -w transform componentize transform -o build/{{name}}.wasm",
        ),
    };
    Ok(([own, interface, &[("templates/common", "")]].concat(), build))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn arguments(path: PathBuf, lang: Language, kind: Kind) -> Arguments {
        Arguments { path, lang, kind }
    }

    fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files_below(&path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn a_guest_has_its_name_everywhere_and_a_pipeline_with_tests() {
        let dir = tempfile::tempdir().unwrap();
        for (lang, kind) in [
            (Language::Rust, Kind::Transform),
            (Language::Rust, Kind::Operator),
            (Language::Rust, Kind::Function),
            (Language::Assemblyscript, Kind::Transform),
            (Language::Js, Kind::Transform),
            (Language::Python, Kind::Transform),
        ] {
            let path = dir.path().join(format!("{lang:?}-{kind:?}").to_lowercase());
            execute(&arguments(path.clone(), lang, kind)).unwrap();
            let mut files = Vec::new();
            files_below(&path, &mut files);
            for file in &files {
                let text = std::fs::read_to_string(file).unwrap();
                assert!(!text.contains("{{name}}") && !text.contains("{{snake}}"), "{}", file.display());
            }
            for name in ["README.md", "pipeline.yaml", "messages.ndjson", ".gitignore"] {
                assert!(path.join(name).exists(), "{name} of {lang:?} {kind:?}");
            }
            let pipeline = std::fs::read_to_string(path.join("pipeline.yaml")).unwrap();
            assert!(pipeline.contains("tests:"), "{pipeline}");
        }
    }

    #[test]
    fn nothing_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest");
        std::fs::create_dir(&path).unwrap();
        execute(&arguments(path.clone(), Language::Js, Kind::Transform)).unwrap();
        std::fs::write(path.join("transform.js"), "mine").unwrap();
        let error = execute(&arguments(path.clone(), Language::Python, Kind::Transform)).unwrap_err();
        assert!(error.to_string().contains("there already"), "{error}");
        assert_eq!(std::fs::read_to_string(path.join("transform.js")).unwrap(), "mine");
        assert!(!path.join("transform.py").exists());
    }

    #[test]
    fn what_there_is_no_template_for_is_said_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, lang, kind, expected: &str| {
            let path = dir.path().join(name);
            let error = execute(&arguments(path.clone(), lang, kind)).unwrap_err().to_string();
            assert!(error.contains(expected) && !path.exists(), "{error}");
        };
        check("a", Language::Python, Kind::Function, "--lang rust");
        check("Bad Name", Language::Js, Kind::Transform, "lower-case");
        check("serde", Language::Rust, Kind::Transform, "name of a library");
    }
}
