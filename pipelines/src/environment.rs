//! What `${VAR}` and `${file:path}` are filled from. Handed in, so that this crate reads nothing by itself.

use std::collections::BTreeMap;

/// Where interpolated values come from. Only the binary reads the real environment.
pub trait Environment {
    /// The value of a variable; `None` if it is not set.
    fn var(&self, name: &str) -> Option<String>;

    /// The content of a file, its last newline removed. A relative path is relative to the pipeline's file.
    ///
    /// # Errors
    /// Why it can't be read, for people, without the path.
    fn read_file(&self, path: &str) -> Result<String, String>;
}

/// An environment in memory: for tests, and for pipelines that must not see the real one.
#[derive(Clone, Debug, Default)]
pub struct MemoryEnvironment {
    /// Variables, by name.
    pub vars: BTreeMap<String, String>,
    /// Files' contents, by path.
    pub files: BTreeMap<String, String>,
}

impl Environment for MemoryEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    fn read_file(&self, path: &str) -> Result<String, String> {
        let text = self.files.get(path).ok_or_else(|| "no such file".to_owned())?;
        Ok(text.strip_suffix('\n').unwrap_or(text).to_owned())
    }
}
