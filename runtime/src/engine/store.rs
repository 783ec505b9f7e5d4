//! The checkpoint store: state that is too large for a manifest record, one object for each sink and epoch.
//!
//! An object is durable before the manifest that names it is committed, and is deleted only once a committed manifest no
//! longer does. Objects of runs that died before their commit are swept at the next start.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::error::EngineError;

const TEMPORARY_SUFFIX: &str = ".tmp";

/// A folder of immutable objects.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointStore {
    folder: PathBuf,
}

impl CheckpointStore {
    /// The store in this folder, which is made if missing.
    pub(crate) async fn open(folder: PathBuf) -> Result<Self, EngineError> {
        let store = Self { folder };
        store
            .blocking("create the checkpoint store", |folder| {
                fs::create_dir_all(&folder)?;
                folder.parent().map_or(Ok(()), sync_folder)
            })
            .await?;
        Ok(store)
    }

    /// Stores an object of several parts; durable when it returns.
    pub(crate) async fn put(&self, name: String, parts: Vec<Bytes>) -> Result<(), EngineError> {
        self.blocking("write a checkpoint", move |folder| {
            let temporary = folder.join(format!("{name}{TEMPORARY_SUFFIX}"));
            let mut file = io::BufWriter::new(File::create(&temporary)?);
            for part in &parts {
                file.write_all(&(part.len() as u64).to_be_bytes())?;
                file.write_all(part)?;
            }
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&temporary, folder.join(&name))?;
            sync_folder(&folder)
        })
        .await
    }

    /// The parts of an object, as they were put.
    pub(crate) async fn get(&self, name: &str) -> Result<Vec<Bytes>, EngineError> {
        let name = name.to_owned();
        self.blocking("read a checkpoint", move |folder| split(Bytes::from(fs::read(folder.join(name))?))).await
    }

    /// Deletes objects; those that are gone already are no error.
    pub(crate) async fn delete(&self, names: Vec<String>) -> Result<(), EngineError> {
        self.blocking("delete old checkpoints", move |folder| {
            for name in names {
                match fs::remove_file(folder.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    /// Deletes every object that is not `live`.
    pub(crate) async fn sweep(&self, live: HashSet<String>) -> Result<(), EngineError> {
        self.blocking("sweep old checkpoints", move |folder| {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_type()?.is_file() && !entry.file_name().to_str().is_some_and(|name| live.contains(name)) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let folder = self.folder.clone();
        let shown = folder.display().to_string();
        let done = tokio::task::spawn_blocking(move || work(folder)).await;
        done.unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|source| EngineError::Io { context: format!("could not {what} in {shown}"), source })
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn split(mut object: Bytes) -> io::Result<Vec<Bytes>> {
    let mut parts = Vec::new();
    while !object.is_empty() {
        let length = object.try_get_u64().ok().and_then(|length| usize::try_from(length).ok());
        match length {
            Some(length) if length <= object.len() => parts.push(object.split_to(length)),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the object is cut short")),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn parts_come_back_and_only_live_objects_survive_a_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path().join("state")).await.unwrap();
        let parts = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        store.put("a".into(), parts.clone()).await.unwrap();
        store.put("b".into(), vec![]).await.unwrap();
        assert_eq!(store.get("a").await.unwrap(), parts);
        store.sweep(HashSet::from(["a".to_owned()])).await.unwrap();
        assert_eq!(store.get("a").await.unwrap(), parts);
        assert!(store.get("b").await.is_err());
        store.delete(vec!["a".into(), "b".into()]).await.unwrap();
        assert!(store.get("a").await.is_err());
    }

    #[tokio::test]
    async fn an_object_cut_short_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path().to_owned()).await.unwrap();
        store.put("a".into(), vec![Bytes::from_static(b"some bytes")]).await.unwrap();
        let path = folder.path().join("a");
        let whole = std::fs::read(&path).unwrap();
        for length in 1..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(store.get("a").await.is_err(), "{length} of {} bytes", whole.len());
        }
    }
}
