//! Staging in a local folder: temporary file, fsync, rename, folder fsync.
//!
//! ```text
//!   out/_logmill/<deployment>/late-flights/lake/part-….parquet.staged      written, then synced at prepare
//!        │ rename at commit
//!   out/carrier=AA/part-….parquet                             its folder synced
//! ```
//!
//! The staging folder lies beside the data so that a rename never crosses file systems. Readers of hive-style folders
//! skip names that begin with an underscore, and the ending keeps the files out of everybody else's way.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fail::fail_point;
use parking_lot::Mutex;

use super::claims::{Claim, Claims};
use super::token::StagedFile;
use crate::error::ConnectorError;
use crate::sink::Committed;

/// The ending of staged files.
const STAGED: &str = ".staged";

/// How many folders are remembered as durable; beyond, all are forgotten, and are made durable again.
const DURABLE_FOLDERS: usize = 64 << 10;

/// How often a file is created, where other sinks keep removing the empty staging folder.
const CREATE_ATTEMPTS: u32 = 100;

/// A sink's folder, and where in it files are staged.
#[derive(Clone, Debug)]
pub(super) struct LocalTarget {
    root: PathBuf,
    /// From the root, ending in a slash.
    staging: String,
    claims: Claims,
    /// Folders whose names this process has made durable, up to the root.
    durable: Arc<Mutex<HashSet<PathBuf>>>,
}

/// A file being written.
#[derive(Debug)]
pub(super) struct LocalFile {
    /// `None` once it is synced: it is not written any more.
    file: Option<File>,
    path: PathBuf,
    from: String,
    /// `None` once the file is staged under a token.
    claim: Option<Claim>,
}

impl LocalTarget {
    /// The folder at `root`, staging in `staging` below it (ending in a slash).
    pub(super) fn new(root: PathBuf, staging: String) -> Self {
        Self { root, staging, claims: Claims::default(), durable: Arc::default() }
    }

    /// The sink's folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Begins a file that is to have this name.
    pub(super) fn create(&self, name: &str) -> Result<LocalFile, ConnectorError> {
        let from = format!("{}{name}{STAGED}", self.staging);
        let path = self.root.join(&from);
        let claim = self.claims.claim(from.clone());
        let folder = self.root.join(&self.staging);
        let mut attempts = 1;
        let created = loop {
            create_folders(&folder)?;
            match File::create_new(&path) {
                // Another sink has just removed the folder, which was empty.
                Err(error) if error.kind() == ErrorKind::NotFound && attempts < CREATE_ATTEMPTS => attempts += 1,
                created => break created,
            }
        };
        let file =
            created.map_err(|error| ConnectorError::io(format_args!("cannot create {}", path.display()), error))?;
        Ok(LocalFile { file: Some(file), path, from, claim: Some(claim) })
    }

    /// Makes the names of staged files durable.
    pub(super) fn sync_staging(&self) -> Result<(), ConnectorError> {
        sync_folder(&self.root.join(&self.staging))
    }

    /// Renames a staged file, or finds that it was renamed before.
    pub(super) fn commit(&self, from: &str, to: &str, bytes: u64) -> Result<Committed, ConnectorError> {
        let (source, target) = (self.root.join(from), self.root.join(to));
        let folder = target.parent().unwrap_or(&self.root);
        create_folders(folder)?;
        let found = match fs::symlink_metadata(&target) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(ConnectorError::io(format_args!("cannot look at {}", target.display()), error)),
        };
        fail_point!("sink::before_commit_rename");
        match found {
            // Names are never used twice.
            Some(found) if found.len() != bytes || source.exists() => {
                return Err(ConnectorError::Data {
                    place: target.display().to_string(),
                    message: format!("already exists with {} bytes; not overwritten with {bytes} others", found.len()),
                });
            }
            Some(_) => {}
            None => match fs::rename(&source, &target) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.claims.release(from);
                    return Ok(Committed::Lost(format!("neither {} nor {}", source.display(), target.display())));
                }
                Err(error) => {
                    let context = format_args!("cannot rename {} to {}", source.display(), target.display());
                    return Err(ConnectorError::io(context, error));
                }
            },
        }
        fail_point!("sink::after_commit_rename");
        sync_folder(folder)?;
        self.make_durable(folder)?;
        self.claims.release(from);
        Ok(Committed::Done)
    }

    /// Makes the names of a folder and of those above it durable, up to the root: a run that died may have made them
    /// without.
    fn make_durable(&self, folder: &Path) -> Result<(), ConnectorError> {
        let mut at = folder;
        while at != self.root && !self.durable.lock().contains(at) {
            let Some(parent) = at.parent() else { break };
            sync_folder(parent)?;
            at = parent;
        }
        let mut durable = self.durable.lock();
        if durable.len() >= DURABLE_FOLDERS {
            durable.clear();
        }
        durable.insert(folder.to_owned());
        Ok(())
    }

    /// Deletes staged files that neither a token names nor this process is at work on, and the staging folder if it
    /// has become empty.
    pub(super) fn collect(&self, live: &[StagedFile]) -> Result<(), ConnectorError> {
        let folder = self.root.join(&self.staging);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ConnectorError::io(format_args!("cannot list {}", folder.display()), error)),
        };
        for entry in entries {
            let entry =
                entry.map_err(|error| ConnectorError::io(format_args!("cannot list {}", folder.display()), error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(STAGED)) else { continue };
            let from = format!("{}{name}", self.staging);
            let named = live.iter().any(|file| matches!(file, StagedFile::Local { from: live, .. } if *live == from));
            if named || self.claims.holds(&from) {
                continue;
            }
            tracing::info!(file = %entry.path().display(), "removing what an earlier run left staged");
            remove(&entry.path())?;
        }
        self.remove_empty_staging();
        Ok(())
    }

    /// Other sinks stage beside this one, so only empty folders go; that one is in use is no error.
    fn remove_empty_staging(&self) {
        let mut folder = Path::new(&self.staging);
        while !folder.as_os_str().is_empty() && fs::remove_dir(self.root.join(folder)).is_ok() {
            let Some(parent) = folder.parent() else { break };
            folder = parent;
        }
    }
}

impl LocalFile {
    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ConnectorError> {
        let Some(file) = &mut self.file else {
            return Err(ConnectorError::Config(format!("{} is finished and cannot be written", self.path.display())));
        };
        file.write_all(bytes)
            .map_err(|error| ConnectorError::io(format_args!("cannot write {}", self.path.display()), error))
    }

    /// Makes the content durable and closes the file.
    pub(super) fn sync(&mut self) -> Result<(), ConnectorError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        file.sync_all().map_err(|error| ConnectorError::io(format_args!("cannot sync {}", self.path.display()), error))
    }

    /// Leaves the file to the token that names it, and returns where it lies from the sink's folder.
    pub(super) fn stage(mut self) -> String {
        if let Some(claim) = self.claim.take() {
            claim.keep();
        }
        std::mem::take(&mut self.from)
    }
}

impl Drop for LocalFile {
    /// Removes the file unless it is staged; where that fails, `collect` does it at the next start.
    fn drop(&mut self) {
        if self.claim.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates a folder and those above it that are missing, and makes their names durable.
fn create_folders(folder: &Path) -> Result<(), ConnectorError> {
    let mut missing = Vec::new();
    let mut at = Some(folder);
    while let Some(path) = at {
        if path.as_os_str().is_empty() || path.is_dir() {
            break;
        }
        missing.push(path);
        at = path.parent();
    }
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Ok(()) => {}
            // Another writer was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => {
                return Err(ConnectorError::io(format_args!("cannot create the folder {}", path.display()), error));
            }
        }
        if let Some(parent) = path.parent() {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), ConnectorError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(|error| ConnectorError::io(format_args!("cannot sync the folder {}", folder.display()), error))
}

fn remove(path: &Path) -> Result<(), ConnectorError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(ConnectorError::io(format_args!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
