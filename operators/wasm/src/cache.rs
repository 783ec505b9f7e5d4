//! Compiled code between runs of the process: found by what it was compiled from, and run only if it is what was written.
//!
//! ```text
//! dir/<key>   magic, sha256(key, code), code
//! key         sha256(magic, version and settings of the engine, sha256(module))
//! ```
//!
//! Native code is not checked when it is run, so what is found must be what this process's user wrote: the directory and
//! each entry belong to that user and nobody else may write to them, and an entry whose bytes have changed since (a disk that
//! lost some, a crash, a curious hand) is compiled anew.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::Engine;

use crate::artifact::Artifact;

/// What entries begin with; changes with their form.
const MAGIC: &[u8; 8] = b"millwasm";
const DIGEST_BYTES: usize = 32;
/// What all entries may take; those used longest ago go first.
const MAX_CACHE_BYTES: u64 = 1024 * 1024 * 1024;
/// How old a file is that was not finished when nobody can be at it any more.
const ABANDONED: Duration = Duration::from_secs(60 * 60);
/// What files begin with that are not finished.
const UNFINISHED: &str = "unfinished-";
/// Modes in which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// A directory of compiled code.
pub(crate) struct CodeCache {
    dir: PathBuf,
    /// The user as whom this process makes files.
    user: u32,
    max_bytes: u64,
}

/// What an entry is found by.
#[derive(Clone, Copy)]
pub(crate) struct Key([u8; DIGEST_BYTES]);

impl CodeCache {
    /// The cache in a directory, which is made if it is not there. Code need not be kept: a directory that cannot be used, or
    /// that others can write to, costs time and nothing else.
    pub(crate) fn open(dir: &Path) -> Option<CodeCache> {
        match CodeCache::try_open(dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!("compiled guests are not kept, {} cannot be used: {error}", dir.display());
                None
            }
        }
    }

    fn try_open(dir: &Path) -> Result<CodeCache, String> {
        let text = |error: std::io::Error| error.to_string();
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(text)?;
        let dir = dir.canonicalize().map_err(text)?;
        // Whoever a new file belongs to is who this process is, whatever the file system makes of users.
        let (path, file) = unfinished(&dir).map_err(text)?;
        let user = file.metadata().map(|file| file.uid());
        std::fs::remove_file(&path).map_err(text)?;
        let cache = CodeCache { dir, user: user.map_err(text)?, max_bytes: MAX_CACHE_BYTES };
        let found = std::fs::metadata(&cache.dir).map_err(text)?;
        if found.uid() != cache.user {
            return Err("it belongs to another user, whose code would be run".into());
        }
        if found.mode() & OTHERS_WRITE != 0 {
            return Err(
                "other users may write to it, and their code would be run; remove it, or `chmod go-w` it".into()
            );
        }
        Ok(cache)
    }

    /// What was kept for a module, loaded by `load`.
    ///
    /// An entry is an [`Artifact`], as it is byte for byte what [`CodeCache::put`] wrote: its digest is right, and others
    /// cannot write it. The directory and the entry are of this process's user and closed to the rest.
    pub(crate) fn get<C>(&self, key: &Key, load: impl FnOnce(&Artifact) -> wasmtime::Result<C>) -> Option<C> {
        let path = self.path(key);
        let mut file = File::open(&path).ok()?;
        let found = self.read(&mut file, key).and_then(|mut bytes| {
            bytes.drain(..MAGIC.len() + DIGEST_BYTES);
            load(&Artifact::trusted(bytes)).map_err(|error| format!("{error:#}"))
        });
        match found {
            Ok(compiled) => {
                // It was used: others go first. That this fails matters to nobody.
                let _ = file.set_modified(SystemTime::now());
                Some(compiled)
            }
            Err(error) => {
                tracing::warn!("compiled code is not used and made anew, {}: {error}", path.display());
                None
            }
        }
    }

    /// The bytes of an entry, which are those that were written.
    fn read(&self, file: &mut File, key: &Key) -> Result<Vec<u8>, String> {
        let found = file.metadata().map_err(|error| error.to_string())?;
        if found.uid() != self.user || found.mode() & OTHERS_WRITE != 0 {
            return Err("other users may have written it".into());
        }
        if !found.is_file() || found.len() > self.max_bytes {
            return Err("it is no entry".into());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
        file.take(self.max_bytes).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let parts = bytes.split_first_chunk().and_then(|(magic, rest)| Some((magic, rest.split_first_chunk()?)));
        match parts {
            Some((magic, (sum, code))) if magic == MAGIC && *sum == digest(key, code) => Ok(bytes),
            _ => Err("it is damaged".into()),
        }
    }

    /// Keeps what was compiled.
    pub(crate) fn put(&self, key: &Key, artifact: &Artifact) {
        if artifact.code().len() as u64 > self.max_bytes / 2 {
            return;
        }
        if let Err(error) = self.write(key, artifact.code()).and_then(|()| self.trim(key)) {
            tracing::warn!("compiled code is not kept in {}: {error}", self.dir.display());
        }
    }

    /// Nobody sees half an entry; one that a crash leaves incomplete is found out by its digest.
    fn write(&self, key: &Key, code: &[u8]) -> std::io::Result<()> {
        let (path, mut file) = unfinished(&self.dir)?;
        let written = file
            .write_all(MAGIC)
            .and_then(|()| file.write_all(&digest(key, code)))
            .and_then(|()| file.write_all(code))
            .and_then(|()| std::fs::rename(&path, self.path(key)));
        if written.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        written
    }

    /// Removes what was used longest ago until the rest is as small as it must be, but for the entry `newest`.
    fn trim(&self, newest: &Key) -> std::io::Result<()> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            // What another process has just removed is no matter.
            let Ok(found) = entry.metadata() else { continue };
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if name.starts_with(UNFINISHED) && age(&found) > ABANDONED {
                let _ = std::fs::remove_file(entry.path());
            } else if found.is_file() && is_key(name) {
                bytes += found.len();
                entries.push((age(&found), found.len(), entry.path()));
            }
        }
        entries.sort_unstable_by(|a, b| b.cmp(a));
        let newest = self.path(newest);
        for (_, size, path) in entries.into_iter().filter(|(.., path)| *path != newest) {
            if bytes <= self.max_bytes {
                break;
            }
            std::fs::remove_file(path)?;
            bytes -= size;
        }
        Ok(())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(hexadecimal(&key.0))
    }
}

impl Key {
    /// Of what an engine makes of a module.
    pub(crate) fn new(engine: &Engine, module: &[u8]) -> Key {
        let mut all = Digesting(Sha256::new_with_prefix(MAGIC));
        engine.precompile_compatibility_hash().hash(&mut all);
        Key(all.0.chain_update(Sha256::digest(module)).finalize().into())
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_key(name: &str) -> bool {
    name.len() == 2 * DIGEST_BYTES && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Of an entry under a key, so that one under another's name is found out as well.
fn digest(key: &Key, code: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::new_with_prefix(key.0).chain_update(code).finalize().into()
}

/// A new file that only this user may read and write.
fn unfinished(dir: &Path) -> std::io::Result<(PathBuf, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let path = dir.join(format!("{UNFINISHED}{}-{count}-{nanos:x}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    Ok((path, file))
}

fn age(found: &Metadata) -> Duration {
    found.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}

/// Digests whatever is hashed.
struct Digesting(Sha256);

impl Hasher for Digesting {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn get(cache: &CodeCache, key: &Key) -> Option<Vec<u8>> {
        cache.get(key, |artifact| Ok(artifact.code().to_vec()))
    }

    fn put_code(cache: &CodeCache, key: &Key, code: &[u8]) {
        cache.put(key, &Artifact::trusted(code.to_vec()));
    }

    fn key(module: &[u8]) -> Key {
        Key::new(&Engine::default(), module)
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_was_kept_is_found_by_its_module() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path()).unwrap();
        let (a, b) = (key(b"a"), key(b"b"));
        assert_eq!(get(&cache, &a), None);
        put_code(&cache, &a, b"code of a");
        assert_eq!(get(&cache, &a).unwrap(), b"code of a");
        assert_eq!(get(&cache, &b), None);
        std::fs::rename(cache.path(&a), cache.path(&b)).unwrap();
        assert_eq!(get(&cache, &b), None, "an entry under another's name");
    }

    #[test]
    fn damaged_entries_are_not_used_and_are_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path()).unwrap();
        let key = key(b"module");
        put_code(&cache, &key, b"code");
        let whole = std::fs::read(cache.path(&key)).unwrap();
        let with = |bytes: &[u8]| {
            std::fs::write(cache.path(&key), bytes).unwrap();
            get(&cache, &key)
        };
        for length in 0..whole.len() {
            assert_eq!(with(&whole[..length]), None, "{length} bytes of it");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert_eq!(with(&flipped), None, "byte {at} is another");
        }
        assert_eq!(with(&[&whole[..], b"x"].concat()), None, "longer than it was");
        put_code(&cache, &key, b"code");
        assert_eq!(get(&cache, &key).unwrap(), b"code");
    }

    #[test]
    fn nobody_else_can_write_what_is_run() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("made/here"), key(b"module"));
        let cache = CodeCache::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        put_code(&cache, &key, b"code");
        assert_eq!(std::fs::metadata(cache.path(&key)).unwrap().mode() & 0o777, 0o600);
        set_mode(&cache.path(&key), 0o620);
        assert_eq!(get(&cache, &key), None, "an entry that others may write");
        for (mode, usable) in [(0o770, false), (0o707, false), (0o1777, false), (0o755, true), (0o700, true)] {
            set_mode(&path, mode);
            assert_eq!(CodeCache::open(&path).is_some(), usable, "{mode:o}");
        }
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let entry_bytes = (MAGIC.len() + DIGEST_BYTES + 100) as u64;
        let cache = CodeCache { max_bytes: 3 * entry_bytes, ..CodeCache::open(dir.path()).unwrap() };
        let keys: Vec<Key> = (0..4).map(|number| key(&[number])).collect();
        let put = |number: usize| put_code(&cache, &keys[number], &[0; 100]);
        let used_at = |number: usize, second: u64| {
            let file = File::open(cache.path(&keys[number])).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        };
        (0..3).for_each(put);
        [(0, 3), (1, 1), (2, 2)].into_iter().for_each(|(number, second)| used_at(number, second));
        std::fs::write(dir.path().join("something else"), [0; 1000]).unwrap();
        put(3);
        let kept: Vec<bool> = keys.iter().map(|key| get(&cache, key).is_some()).collect();
        assert_eq!(kept, [true, false, true, true]);
        assert!(dir.path().join("something else").exists());
    }
}
