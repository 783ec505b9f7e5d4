//! Finds the files that paths and globs name, and says clearly where there are none.

use std::fs;
use std::path::{Path, PathBuf};

use logmill_pipelines::nearest;

use crate::error::ConnectorError;

/// The files that the patterns match, in the order of the patterns and of the names. Paths are relative to `base` where
/// their patterns are, so that they stay the same wherever the pipeline is run from. Where files may still appear, a
/// pattern without a match is no error; nor is a path that `is_known` from before.
pub(super) fn files(
    base: &Path,
    patterns: &[PathBuf],
    may_appear: bool,
    is_known: &dyn Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>, ConnectorError> {
    let mut found = Vec::new();
    for pattern in patterns {
        let resolved = base.join(pattern);
        let text = match pattern.is_absolute() {
            true => pattern.to_string_lossy().into_owned(),
            false => {
                Path::new(&glob::Pattern::escape(&base.to_string_lossy())).join(pattern).to_string_lossy().into_owned()
            }
        };
        if !is_glob(base, pattern) {
            if !is_known(pattern) {
                plain(&resolved)?;
            }
            found.push(pattern.clone());
            continue;
        }
        let paths = glob::glob(&text).map_err(|error| ConnectorError::Config(format!("path `{text}`: {error}")))?;
        let mut matched = Vec::new();
        for path in paths {
            let path = path.map_err(|error| {
                let context = format!("could not list `{}`", error.path().display());
                ConnectorError::io(context, error.into())
            })?;
            if path.is_file() {
                let relative = if pattern.is_absolute() { None } else { path.strip_prefix(base).ok() };
                matched.push(relative.map_or_else(|| path.clone(), Path::to_owned));
            }
        }
        if matched.is_empty() && !may_appear {
            let folder = resolved.parent().filter(|folder| !folder.to_string_lossy().contains(['*', '?', '[']));
            let hint = match folder {
                Some(folder) if !folder.is_dir() => format!("; there is no folder `{}`", folder.display()),
                _ => "; set `follow: true` to wait for files".to_owned(),
            };
            return Err(ConnectorError::Config(format!("no file matches `{}`{hint}", resolved.display())));
        }
        matched.sort();
        found.extend(matched);
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| seen.insert(path.clone()));
    Ok(found)
}

/// Whether a path stands for any number of files. A name with brackets that exists is meant as it is.
pub(super) fn is_glob(base: &Path, pattern: &Path) -> bool {
    pattern.to_string_lossy().contains(['*', '?', '[']) && !base.join(pattern).is_file()
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
