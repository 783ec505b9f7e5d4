//! Finds the files that paths and globs name, and says clearly where there are none.

use std::fs;
use std::path::{Path, PathBuf};

use logmill_pipelines::nearest;

use crate::error::ConnectorError;

/// The files that the patterns match, in the order of the patterns and of the names. Where files may still appear, a
/// pattern without a match is no error.
pub(super) fn files(patterns: &[PathBuf], may_appear: bool) -> Result<Vec<PathBuf>, ConnectorError> {
    let mut found = Vec::new();
    for pattern in patterns {
        let text = pattern.to_string_lossy();
        if !text.contains(['*', '?', '[']) {
            match plain(pattern) {
                Ok(()) => found.push(pattern.clone()),
                Err(_) if may_appear && !pattern.exists() => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        let paths = glob::glob(&text).map_err(|error| ConnectorError::Config(format!("path `{text}`: {error}")))?;
        let mut matched = Vec::new();
        for path in paths {
            let path = path.map_err(|error| ConnectorError::io(error.path().display().to_string(), error.into()))?;
            if path.is_file() {
                matched.push(path);
            }
        }
        if matched.is_empty() && !may_appear {
            return Err(ConnectorError::Config(format!("no file matches `{text}`")));
        }
        matched.sort();
        found.extend(matched);
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| seen.insert(path.clone()));
    Ok(found)
}

/// Whether there is a file that can be opened.
fn plain(path: &Path) -> Result<(), ConnectorError> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(ConnectorError::Config(format!(
            "`{shown}` is a directory, not a file; name the files in it, such as `{}`",
            path.join("*").display()
        ))),
        Ok(_) => fs::File::open(path)
            .map(drop)
            .map_err(|error| ConnectorError::io(format!("could not open `{shown}`"), error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let hint = neighbour(path).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            Err(ConnectorError::Config(format!("there is no file `{shown}`{hint}")))
        }
        Err(error) => Err(ConnectorError::io(format!("could not open `{shown}`"), error)),
    }
}

/// The nearest name in the folder.
fn neighbour(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let entries = fs::read_dir(path.parent()?).ok()?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    nearest(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}
