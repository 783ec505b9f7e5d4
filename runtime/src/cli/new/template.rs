//! The files of the templates, which are part of the binary.

/// A file: its path within the new folder, and its text with `{{name}}` where the name goes.
pub(super) type File = (&'static str, &'static str);

/// Files of a folder below the repository.
macro_rules! files {
    ($folder:literal, $target:literal: $($path:literal),* $(,)?) => {
        &[$((
            concat!($target, $path),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../", $folder, "/", $path)),
        )),*]
    };
}

/// A guest in AssemblyScript.
pub(super) const ASSEMBLYSCRIPT: &[File] = files!("runtime/templates/wasm/assemblyscript", "":
    "README.md", "assembly/index.ts", "assembly/logmill.ts", "assembly/transform.ts", "assembly/tsconfig.json",
    "gitignore", "package.json", "pipeline.yaml");

/// A guest in JavaScript.
pub(super) const JS: &[File] = files!("runtime/templates/wasm/js", "":
    "README.md", "build.mjs", "gitignore", "package.json", "pipeline.yaml", "transform.js");

/// A guest in Python.
pub(super) const PYTHON: &[File] = files!("runtime/templates/wasm/python", "":
    "README.md", "gitignore", "pipeline.yaml", "requirements.txt", "transform.py");

/// What all pipelines of the templates read.
pub(super) const MESSAGES: &[File] = files!("runtime/templates/wasm", "": "messages.ndjson");

/// The interface of transforms, and what it builds on.
pub(super) const WIT_TRANSFORM: &[File] = files!("operators/wit/transform", "wit/": "transform.wit");
/// The package that the others build on.
pub(super) const WIT_OPERATOR: &[File] = files!("operators/wit/operator", "wit/deps/logmill-operator/": "operator.wit");

/// Where a file of a template goes. Names that would mean something where the template lies are written otherwise there.
pub(super) fn target(path: &str) -> String {
    match path {
        "gitignore" => ".gitignore".to_owned(),
        path => path.strip_suffix(".in").unwrap_or(path).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use super::*;

    fn below(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_string_lossy());
            match path.is_dir() {
                true => below(&path, &format!("{name}/"), found),
                false => found.push(name),
            }
        }
    }

    #[test]
    fn no_file_of_a_template_is_left_out() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let check = |folder: &str, files: &[File]| {
            let mut found = Vec::new();
            below(&root.join(folder), "", &mut found);
            found.sort();
            let mut listed: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
            listed.sort_unstable();
            assert_eq!(listed, found, "{folder}");
        };
        check("runtime/templates/wasm/assemblyscript", ASSEMBLYSCRIPT);
        check("runtime/templates/wasm/js", JS);
        check("runtime/templates/wasm/python", PYTHON);
    }
}
