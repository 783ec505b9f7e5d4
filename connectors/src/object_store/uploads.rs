//! Staging on an object store: multipart uploads that are completed at commit.
//!
//! ```text
//!   create ─▶ journal object ─▶ parts ─▶ prepare: token ─▶ commit: complete ─▶ journal object deleted
//! ```
//!
//! An upload that is neither completed nor aborted is invisible and is paid for. So its id is written to a journal
//! object under `_logmill/` before any part is sent, and `collect` aborts what a dead run has left there. Where the store
//! tells which uploads are open, those that died before they were journaled go too: file names hold the sink's tag.

use std::collections::HashMap;
use std::sync::Arc;

use fail::fail_point;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::claims::{Claim, Claims};
use super::open_file::{Finished, Part};
use super::pending::PendingUploads;
use super::store::{Opened, store_error};
use super::token::StagedFile;
use crate::error::ConnectorError;
use crate::sink::Committed;

/// Parts under way at once for one writer; each file sends its parts one after the other. Large ones count for more.
const PARTS_IN_FLIGHT: usize = 32;

/// A part counts once for each of so many bytes, so that those under way take at most `PARTS_IN_FLIGHT` times as many.
const BYTES_A_PERMIT: usize = 1 << 20;

/// Leftovers removed at once.
const REMOVALS_IN_FLIGHT: usize = 32;

/// An object store that can leave an upload unfinished.
pub trait Store: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Store for T {}

/// A sink's place on an object store.
#[derive(Clone)]
pub(super) struct UploadTarget {
    store: Arc<dyn Store>,
    /// The sink's folder in the bucket: empty, or ending in a slash.
    prefix: String,
    /// The folder of journal objects, from the bucket, ending in a slash.
    journals: String,
    /// Part of the names of this sink's files.
    tag: String,
    pending: Option<Arc<dyn PendingUploads>>,
    claims: Claims,
}

/// What a journal object remembers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    to: String,
    upload: String,
}

impl UploadTarget {
    /// The folder `prefix` of a bucket; `staging` (ending in a slash) below it holds the journal objects.
    pub(super) fn new(opened: Opened, prefix: &str, staging: &str, tag: String) -> Self {
        let Opened { store, pending } = opened;
        let prefix = as_folder(prefix);
        let journals = format!("{prefix}{staging}");
        Self { store, prefix, journals, tag, pending, claims: Claims::default() }
    }

    /// The sink's folder in the bucket: empty, or ending in a slash.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A new writer's uploads.
    pub(super) fn uploads(&self) -> Uploads {
        Uploads { target: self.clone(), open: HashMap::new(), permits: Arc::new(Semaphore::new(PARTS_IN_FLIGHT)) }
    }

    /// Completes an upload, or finds that it was completed before.
    pub(super) async fn commit(
        &self,
        to: &str,
        upload: &str,
        parts: &[String],
        journal: &str,
        bytes: u64,
    ) -> Result<Committed, ConnectorError> {
        let path = parse_path(to)?;
        // An upload of an earlier run may be completed already; asking first spares the store's client its retries.
        let done = !self.claims.holds(upload) && self.size_of(&path).await? == Some(bytes);
        if !done {
            let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
            fail_point!("sink::before_complete");
            if let Err(error) = self.store.complete_multipart(&path, &upload.to_owned(), parts).await {
                match self.size_of(&path).await? {
                    Some(found) if found == bytes => {}
                    Some(found) => {
                        return Err(ConnectorError::Data {
                            place: to.to_owned(),
                            message: format!("already exists with {found} bytes; not overwritten with {bytes} others"),
                        });
                    }
                    None if upload_is_missing(&error) || self.is_not_open(to, upload).await => {
                        self.delete(&parse_path(journal)?).await?;
                        self.claims.release(upload);
                        return Ok(Committed::Lost(format!("neither the upload of {to} nor the object")));
                    }
                    None => return Err(store_error(format!("cannot complete the upload of {to}"), error)),
                }
            }
        }
        fail_point!("sink::after_complete");
        self.delete(&parse_path(journal)?).await?;
        self.claims.release(upload);
        Ok(Committed::Done)
    }

    /// The size of an object, if it is there. Names are never used twice, so one of the right size is the one.
    async fn size_of(&self, path: &Path) -> Result<Option<u64>, ConnectorError> {
        match self.store.head(path).await {
            Ok(found) => Ok(Some(found.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error(format!("cannot look at {path}"), error)),
        }
    }

    /// Whether the store says that there is no such upload; some fail in odd ways when asked to complete it.
    async fn is_not_open(&self, to: &str, id: &str) -> bool {
        let Some(pending) = &self.pending else { return false };
        matches!(pending.list(to).await, Ok(Some(open)) if open.iter().all(|upload| upload.upload != id))
    }

    /// Aborts the journaled uploads that neither a token names nor this process is at work on.
    pub(super) async fn collect(&self, live: &[StagedFile]) -> Result<(), ConnectorError> {
        let folder = parse_path(self.journals.trim_end_matches('/'))?;
        let journals: Vec<_> = self
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|error| store_error(format!("cannot list {folder}"), error))?;
        let removed = stream::iter(journals).map(|object| async move {
            let Some(journal) = self.read_journal(&object.location).await? else { return Ok(()) };
            if self.is_live(live, &journal.upload) {
                return Ok(());
            }
            self.abort(&journal.to, &journal.upload).await?;
            self.delete(&object.location).await
        });
        removed.buffer_unordered(REMOVALS_IN_FLIGHT).try_collect::<()>().await?;
        let Some(pending) = &self.pending else { return Ok(()) };
        let mark = format!("-{}-", self.tag);
        let open = pending.list(&self.prefix).await?.unwrap_or_default().into_iter().filter(|open| {
            let ours = open.to.rsplit('/').next().is_some_and(|name| name.starts_with("part-") && name.contains(&mark));
            ours && !self.is_live(live, &open.upload)
        });
        let aborted =
            stream::iter(open.collect::<Vec<_>>()).map(|open| async move { self.abort(&open.to, &open.upload).await });
        aborted.buffer_unordered(REMOVALS_IN_FLIGHT).try_collect::<()>().await
    }

    /// Whether a token names the upload, or this process is at work on it.
    fn is_live(&self, live: &[StagedFile], id: &str) -> bool {
        let named = |file: &StagedFile| matches!(file, StagedFile::Upload { upload, .. } if upload == id);
        self.claims.holds(id) || live.iter().any(named)
    }

    async fn abort(&self, to: &str, upload: &str) -> Result<(), ConnectorError> {
        tracing::info!(object = to, "aborting an upload that an earlier run left unfinished");
        match self.store.abort_multipart(&parse_path(to)?, &upload.to_owned()).await {
            Err(error) if !upload_is_missing(&error) => {
                Err(store_error(format!("cannot abort the upload of {to}"), error))
            }
            _ => Ok(()),
        }
    }

    async fn read_journal(&self, path: &Path) -> Result<Option<Journal>, ConnectorError> {
        let read = async { self.store.get(path).await?.bytes().await }.await;
        match read {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| ConnectorError::Data {
                place: path.to_string(),
                message: format!("not the journal of an upload, which it should be: {error}"),
            }),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error(format!("cannot read {path}"), error)),
        }
    }

    async fn delete(&self, path: &Path) -> Result<(), ConnectorError> {
        match self.store.delete(path).await {
            Err(error) if !matches!(error, StoreError::NotFound { .. }) => {
                Err(store_error(format!("cannot delete {path}"), error))
            }
            _ => Ok(()),
        }
    }
}

/// The uploads of one writer.
pub(super) struct Uploads {
    target: UploadTarget,
    /// By the file's number: what has the file's parts so far, and ends once they have arrived.
    open: HashMap<u64, UploadTask>,
    permits: Arc<Semaphore>,
}

/// Creates an upload, or sends its next part. Aborted when dropped.
struct UploadTask(JoinHandle<Result<Upload, ConnectorError>>);

struct Upload {
    to: Path,
    id: String,
    journal: Path,
    claim: Claim,
    parts: Vec<String>,
}

impl Uploads {
    /// Begins to send a part, for which the file's parts before need not have arrived. Waits while too many parts are
    /// under way.
    pub(super) async fn send(&mut self, part: Part) -> Result<(), ConnectorError> {
        let permits = part.bytes.len().div_ceil(BYTES_A_PERMIT).clamp(1, PARTS_IN_FLIGHT);
        let permits = self.permits.clone().acquire_many_owned(u32::try_from(permits).unwrap_or(1)).await;
        let permits = permits.map_err(|error| ConnectorError::Permanent {
            context: "cannot upload: the writer is closed".into(),
            source: error.into(),
        })?;
        let (target, before) = (self.target.clone(), self.open.remove(&part.file));
        let file = part.file;
        let task = tokio::spawn(async move {
            let mut upload = match before {
                Some(task) => task.join().await?,
                None => create(&target, &part.name).await?,
            };
            let sent = target.store.put_part(&upload.to, &upload.id, upload.parts.len(), part.bytes.into()).await;
            let sent = sent.map_err(|error| store_error(format!("cannot upload a part of {}", upload.to), error))?;
            upload.parts.push(sent.content_id);
            drop(permits);
            Ok(upload)
        });
        self.open.insert(file, UploadTask(task));
        Ok(())
    }

    /// A file whose parts were all sent: what stays of it, once they have arrived, is the token.
    pub(super) async fn stage(&mut self, finished: &Finished) -> Result<StagedFile, ConnectorError> {
        let Some(task) = self.open.remove(&finished.file) else {
            return Err(ConnectorError::Config(format!("no part of {} was uploaded", finished.name)));
        };
        let upload = task.join().await?;
        let staged = StagedFile::Upload {
            to: upload.to.to_string(),
            upload: upload.id,
            parts: upload.parts,
            journal: upload.journal.to_string(),
            rows: finished.rows,
            bytes: finished.bytes,
            batches: finished.batches.clone(),
        };
        upload.claim.keep();
        Ok(staged)
    }
}

impl UploadTask {
    async fn join(mut self) -> Result<Upload, ConnectorError> {
        (&mut self.0).await.unwrap_or_else(|error| {
            Err(ConnectorError::Permanent { context: "the task of an upload died".into(), source: error.into() })
        })
    }
}

impl Drop for UploadTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn create(target: &UploadTarget, name: &str) -> Result<Upload, ConnectorError> {
    let to = parse_path(&format!("{}{name}", target.prefix))?;
    let file_name = name.rsplit('/').next().unwrap_or(name);
    let journal = parse_path(&format!("{}{file_name}.upload", target.journals))?;
    let id = (target.store.create_multipart(&to).await)
        .map_err(|error| store_error(format!("cannot begin the upload of {to}"), error))?;
    let claim = target.claims.claim(id.clone());
    fail_point!("sink::multipart_created");
    let entry = Journal { to: to.to_string(), upload: id.clone() };
    let entry = serde_json::to_vec(&entry).map_err(|error| ConnectorError::Permanent {
        context: format!("cannot journal the upload of {to}"),
        source: error.into(),
    })?;
    (target.store.put(&journal, entry.into()).await)
        .map_err(|error| store_error(format!("cannot journal the upload of {to}"), error))?;
    Ok(Upload { to, id, journal, claim, parts: Vec::new() })
}

/// A prefix without slashes at its ends as a folder: empty, or ending in a slash.
pub(super) fn as_folder(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
}

fn parse_path(path: &str) -> Result<Path, ConnectorError> {
    Path::parse(path).map_err(|error| ConnectorError::Permanent {
        context: format!("`{path}` is not the name of an object"),
        source: error.into(),
    })
}

/// Whether an upload is not there, rather than out of reach.
fn upload_is_missing(error: &StoreError) -> bool {
    if matches!(error, StoreError::NotFound { .. }) {
        return true;
    }
    // The store in memory has no kind of error for it.
    let text = error.to_string();
    text.contains("NoSuchUpload") || text.contains("MultipartUpload not found")
}
