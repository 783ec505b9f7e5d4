//! Makes a table of the files that `logmill new` writes, so that none can be forgotten: templates, the Rust SDK, the WIT.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where files come from, below the repository, and what the table calls the folder.
const FOLDERS: [(&str, &str); 3] =
    [("runtime/templates/wasm", "templates"), ("operators/guest/src", "guest/src"), ("operators/wit", "wit")];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..").canonicalize()?;
    let manifest = root.join("operators/guest/Cargo.toml");
    let mut files = vec![("guest/Cargo.toml".to_owned(), manifest.clone())];
    println!("cargo::rerun-if-changed={}", manifest.display());
    for (folder, name) in FOLDERS {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
        walk(&root.join(folder), name, &mut files)?;
    }
    files.sort();
    let mut table = "&[\n".to_owned();
    for (name, path) in files {
        let _ = writeln!(table, "    ({name:?}, include_str!({path:?})),");
    }
    table.push(']');
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("template_files.rs"), table)
}

fn walk(folder: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        match path.is_dir() {
            true => walk(&path, &name, files)?,
            false => files.push((name, path)),
        }
    }
    Ok(())
}
