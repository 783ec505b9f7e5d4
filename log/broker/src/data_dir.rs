//! The data dir: who may use it, which format it has, and writing a small file so that a crash leaves old or new.
//!
//! ```text
//! <data>/meta.json                             format, the version that wrote it, and the cluster's id
//! <data>/leader-epoch.json                     the epoch this node leads in, and whether it stopped cleanly
//! <data>/lock                                  held while a broker is open; names its holder
//! <data>/metadata/                             the command log and its snapshot
//! <data>/topics/<topic>-<id>/<partition>/      one partition's log
//! ```

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use logmill_storage::damaged_file_name;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::error::{BrokerError, Result};
use crate::metadata::TopicId;
use crate::node_epoch::NodeEpoch;

/// The format this version writes, and the newest it reads.
const FORMAT: u32 = 1;
/// Longest part of a file name that a topic's name may take, so that its id fits behind it.
pub(crate) const MAX_NAME_IN_DIR: usize = 200;

/// An open data dir. The lock is released when the last clone of its `Arc` is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    cluster_id: String,
    epoch: NodeEpoch,
    _lock: File,
}

#[derive(Clone, Serialize, Deserialize)]
struct Meta {
    format: u32,
    written_by: String,
    /// Which cluster's data this is; data dirs made before there was such an id get one when they are opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    /// Of the fields above, so that a flipped bit is not taken for another format or cluster. Older versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32c: Option<u32>,
}

impl Meta {
    fn crc(&self) -> u32 {
        let Self { format, written_by, cluster_id, .. } = self;
        crc_fast::crc32_iscsi(format!("{format} {written_by} {}", cluster_id.as_deref().unwrap_or_default()).as_bytes())
    }
}

const META: &str = "meta.json";
/// Why a file is set aside whose fields were changed.
const NO_MATCH: &str = "it does not match its CRC";

impl DataDir {
    /// Makes the data dir if it is missing, locks it, and checks its format. `holder` says who we are.
    pub(crate) fn open(path: &Path, holder: &str) -> Result<Self> {
        create_dir(path).map_err(|e| BrokerError::io(format!("create data dir {}", path.display()), e))?;
        let lock = lock(path, holder)?;
        let epoch = NodeEpoch::read(path);
        let mut dir = Self { path: path.to_owned(), cluster_id: String::new(), epoch, _lock: lock };
        for folder in [dir.topics(), dir.metadata()] {
            if !folder.is_dir() && folder.symlink_metadata().is_ok() {
                set_aside(&folder, "it is no folder")?;
            }
            fs::create_dir_all(&folder).map_err(|e| BrokerError::io(format!("create {}", folder.display()), e))?;
        }
        let meta = match dir.read_meta()? {
            Some(meta) if meta.cluster_id.is_some() && meta.crc32c.is_some() && dir.has_copy() => meta,
            // A full disk must not keep what is on it from being served.
            Some(meta) if meta.cluster_id.is_some() => dir.write_meta(Some(meta.clone())).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot write down a second time what the data dir is");
                meta
            }),
            found => dir.write_meta(found)?,
        };
        dir.cluster_id = meta.cluster_id.unwrap_or_default();
        Ok(dir)
    }

    /// The id of the cluster that this data belongs to: 22 characters, as Kafka writes its own.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The leader epoch of this node.
    pub(crate) fn epoch(&self) -> &NodeEpoch {
        &self.epoch
    }

    pub(crate) fn metadata(&self) -> PathBuf {
        self.path.join("metadata")
    }

    pub(crate) fn topics(&self) -> PathBuf {
        self.path.join("topics")
    }

    /// Where a topic's partitions lie. The id alone identifies it; the name is for people.
    pub(crate) fn topic(&self, name: &str, id: &TopicId) -> PathBuf {
        let name = name.get(..name.len().min(MAX_NAME_IN_DIR)).unwrap_or_default();
        self.topics().join(format!("{name}-{}", id.0))
    }

    /// Removes a deleted topic's files: renamed first, so that a crash leaves nothing that looks like a topic. The caller
    /// syncs the topics' folder.
    pub(crate) fn remove_topic(&self, name: &str, id: &TopicId) -> Result<()> {
        let live = self.topic(name, id);
        let doomed = live.with_file_name(format!("{}.deleted", id.0));
        match fs::rename(&live, &doomed) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(BrokerError::io(format!("rename {}", live.display()), error));
            }
            _ => {}
        }
        // Whatever stands in the folder's place.
        let removed = if doomed.is_file() { fs::remove_file(&doomed) } else { fs::remove_dir_all(&doomed) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(BrokerError::io(format!("remove {}", doomed.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// What the data dir says of itself, if it is not new. Of the file and its copy, one that is sound is enough.
    ///
    /// A newer version may compute the CRC of other fields. So a file that names a newer format counts as damaged only if the
    /// other one is sound.
    fn read_meta(&self) -> Result<Option<Meta>> {
        let mut newer: Option<(PathBuf, Meta)> = None;
        for path in self.meta_files() {
            let reason = match fs::read(&path) {
                Ok(bytes) => match serde_json::from_slice::<Meta>(&bytes) {
                    Ok(meta) if meta.crc32c.is_some_and(|crc| crc != meta.crc()) => {
                        if meta.format > FORMAT {
                            newer.get_or_insert((path, meta));
                            continue;
                        }
                        NO_MATCH.to_owned()
                    }
                    Ok(meta) if meta.format <= FORMAT => {
                        if let Some((damaged, _)) = newer {
                            set_aside(&damaged, NO_MATCH)?;
                        }
                        return Ok(Some(meta));
                    }
                    Ok(meta) => return Err(self.newer(meta)),
                    Err(error) => error.to_string(),
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) if path.is_file() => return Err(BrokerError::io(format!("read {}", path.display()), error)),
                Err(error) => error.to_string(),
            };
            set_aside(&path, &reason)?;
        }
        if let Some((_, meta)) = newer {
            return Err(self.newer(meta));
        }
        if self.holds_data()? {
            tracing::error!(
                data_dir = %self.path.display(),
                "what says which cluster this data is of is missing; the data dir gets a new cluster id"
            );
        }
        Ok(None)
    }

    fn newer(&self, meta: Meta) -> BrokerError {
        let (found, written_by) = (meta.format, meta.written_by);
        BrokerError::NewerFormat { path: self.path.clone(), found, supported: FORMAT, written_by }
    }

    /// The file, and its copy.
    fn meta_files(&self) -> [PathBuf; 2] {
        [self.path.join(META), self.metadata().join(META)]
    }

    fn has_copy(&self) -> bool {
        self.meta_files().iter().all(|path| path.is_file())
    }

    /// Whether there is anything but empty folders.
    fn holds_data(&self) -> Result<bool> {
        for folder in [self.topics(), self.metadata()] {
            let mut entries =
                fs::read_dir(&folder).map_err(|e| BrokerError::io(format!("list {}", folder.display()), e))?;
            if entries.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes format and cluster id, twice. The sync covers the folders, too.
    fn write_meta(&self, found: Option<Meta>) -> Result<Meta> {
        let new = || Meta {
            format: FORMAT,
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: None,
            crc32c: None,
        };
        let mut meta = found.unwrap_or_else(new);
        meta.cluster_id.get_or_insert_with(new_cluster_id);
        meta.crc32c = Some(meta.crc());
        let json = serde_json::to_vec_pretty(&meta)
            .map_err(|error| BrokerError::corrupt("meta.json cannot be encoded", error))?;
        for path in self.meta_files() {
            if !path.is_file() && path.symlink_metadata().is_ok() {
                set_aside(&path, "it is no file")?;
            }
        }
        write_durably(&self.metadata(), META, &json)?;
        write_durably(&self.path, META, &json)?;
        Ok(meta)
    }
}

/// A random id in Kafka's form: URL-safe base64 of 16 bytes. Like Kafka's, it does not begin with a dash, so that it can
/// stand in a command line.
fn new_cluster_id() -> String {
    loop {
        let id = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
        if !id.starts_with('-') {
            return id;
        }
    }
}

fn lock(path: &Path, holder: &str) -> Result<File> {
    let lock_path = path.join("lock");
    let io = |error| BrokerError::io(format!("lock {}", lock_path.display()), error);
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&lock_path);
    let mut file = match open() {
        // A lock file cannot be anything else: nobody holds this.
        Err(_) if lock_path.symlink_metadata().is_ok() && !lock_path.is_file() => {
            set_aside(&lock_path, "it is no file")?;
            open().map_err(io)?
        }
        opened => opened.map_err(io)?,
    };
    if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(io(error.into()));
        }
        let mut holder = String::new();
        // Who holds it helps; that it is held is enough.
        let _ = file.take(4096).read_to_string(&mut holder);
        let holder = match holder.trim() {
            "" => "another process".to_owned(),
            named => named.to_owned(),
        };
        return Err(BrokerError::DataDirLocked { path: path.to_owned(), holder });
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
    if let Err(error) = written {
        // That it is held is enough; a full disk must not keep what is on it from being served.
        tracing::warn!(lock = %lock_path.display(), %error, "cannot note who holds the lock");
    }
    Ok(file)
}

/// Who this process is: its id, command line and start, for the message that another process shows.
pub(crate) fn this_process(started: &str) -> String {
    let command: Vec<_> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    format!("process {} (`{}`), running since {started}", std::process::id(), command.join(" "))
}

/// Makes a folder and those above it, durably: what is acknowledged must not go with a folder that the disk has not heard
/// of.
fn create_dir(path: &Path) -> std::io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_dir(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    File::open(parent)?.sync_all()
}

/// Writes a file so that after a crash either the old or the new content is there.
pub(crate) fn write_durably(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.tmp"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|error| BrokerError::io(format!("write {}", path.display()), error))?;
    sync_dir(dir)
}

/// Moves what makes no sense at `path` out of the way, where it is kept.
pub(crate) fn set_aside(path: &Path, reason: &str) -> Result<()> {
    let kept_at = damaged_file_name(path);
    fs::rename(path, &kept_at).map_err(|e| BrokerError::io(format!("rename {}", path.display()), e))?;
    tracing::error!(file = %path.display(), kept_at = %kept_at.display(), reason, "damaged, set aside");
    Ok(())
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| BrokerError::io(format!("sync {}", dir.display()), error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_user_is_told_who_holds_the_data_dir() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), "process 7 (`logmill run x.yaml`), running since noon").unwrap();
        let error = DataDir::open(dir.path(), "another").unwrap_err().to_string();
        let expected = format!(
            "data dir {} is in use by process 7 (`logmill run x.yaml`), running since noon; stop it or choose another \
             --data-dir",
            dir.path().display()
        );
        assert_eq!(error, expected);
        drop(first);
        DataDir::open(dir.path(), "x").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("lock")).unwrap(), "x", "nothing of the first holder is left");
    }

    #[test]
    fn a_newer_format_is_refused_with_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), "x").unwrap());
        fs::write(dir.path().join("meta.json"), r#"{"format": 9, "written_by": "3.1.0", "more": true}"#).unwrap();
        let error = DataDir::open(dir.path(), "x").unwrap_err().to_string();
        let expected = format!(
            "data dir {} has format 9, written by logmill 3.1.0, and this logmill {} reads up to format 1; use logmill \
             3.1.0 or newer",
            dir.path().display(),
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(error, expected);
        // Its CRC may be of fields that this version does not know.
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), "test").unwrap());
        for file in ["meta.json", "metadata/meta.json"] {
            fs::write(dir.path().join(file), r#"{"format": 9, "written_by": "3.1.0", "crc32c": 7}"#).unwrap();
        }
        assert!(matches!(DataDir::open(dir.path(), "test"), Err(BrokerError::NewerFormat { found: 9, .. })));
    }

    #[test]
    fn the_cluster_id_stays_and_older_data_dirs_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let open = || DataDir::open(dir.path(), "x").unwrap().cluster_id().to_owned();
        let id = open();
        assert_eq!((id.len(), open()), (22, id.clone()));
        fs::write(dir.path().join("meta.json"), r#"{"format": 1, "written_by": "0.1.0"}"#).unwrap();
        let given = open();
        assert_ne!(given, id);
        assert_eq!((given.len(), open()), (22, given.clone()));
        let meta = fs::read_to_string(dir.path().join("meta.json")).unwrap();
        assert!(meta.contains(r#""written_by": "0.1.0""#), "who wrote the format is kept: {meta}");
    }

    #[test]
    fn a_data_dir_says_twice_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path(), "x").unwrap();
        fs::create_dir(data.topic("t", &TopicId::random())).unwrap();
        let (id, files) = (data.cluster_id().to_owned(), data.meta_files());
        drop(data);
        let good = fs::read(&files[0]).unwrap();
        for file in &files {
            for len in 0..good.len() {
                fs::write(file, &good[..len]).unwrap();
                assert_eq!(DataDir::open(dir.path(), "x").unwrap().cluster_id(), id, "cut to {len}");
            }
            for at in 0..good.len() {
                let mut flipped = good.clone();
                flipped[at] ^= 1;
                fs::write(file, &flipped).unwrap();
                assert_eq!(DataDir::open(dir.path(), "x").unwrap().cluster_id(), id, "a bit at {at}");
                fs::write(file, &good).unwrap();
            }
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
            assert_eq!(DataDir::open(dir.path(), "x").unwrap().cluster_id(), id);
            fs::remove_file(file).unwrap();
            assert_eq!(DataDir::open(dir.path(), "x").unwrap().cluster_id(), id);
            assert_eq!(fs::read(file).unwrap(), good, "what is missing is written again");
        }
    }

    #[test]
    fn what_is_no_lock_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lock")).unwrap();
        drop(DataDir::open(dir.path(), "x").unwrap());
        assert!(dir.path().join("lock.damaged-1").is_dir());
    }

    #[test]
    fn removing_a_topic_may_be_repeated_after_a_crash_between_its_steps() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path(), "x").unwrap();
        let id = TopicId::random();
        let live = data.topic("flights", &id);
        fs::create_dir_all(live.join("0")).unwrap();
        fs::rename(&live, live.with_file_name(format!("{}.deleted", id.0))).unwrap();
        data.remove_topic("flights", &id).unwrap();
        assert_eq!(fs::read_dir(data.topics()).unwrap().count(), 0);
        data.remove_topic("flights", &id).unwrap();
        fs::write(&live, b"not a folder").unwrap();
        data.remove_topic("flights", &id).unwrap();
        assert_eq!(fs::read_dir(data.topics()).unwrap().count(), 0);
    }
}
