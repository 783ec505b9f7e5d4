//! What names a destination can hold. Checked before a row is written: a file that cannot get its name can never be
//! committed.

use std::io::ErrorKind;
use std::path::Path;

use object_store::path::Path as ObjectPath;

/// The longest name of a file or folder, in bytes: what the file systems of Linux take.
const NAME_BYTES: usize = 255;

/// The longest path, in bytes: Linux's `PATH_MAX` without the byte that ends it.
const PATH_BYTES: usize = 4095;

/// The longest key of an object, in bytes: what S3 takes.
const KEY_BYTES: usize = 1024;

/// The longest name that the sink gives to a file, in bytes, with the ending it has while it is staged.
pub(super) const FILE_NAME_BYTES: usize = 144;

/// How much of a name is shown.
const SHOWN_CHARS: usize = 60;

/// Whether files can lie in `folder` (empty, or ending in a slash) below a local `root`.
pub(super) fn check_local(root: &Path, folder: &str) -> Result<(), String> {
    let components = || folder.split('/').filter(|component| !component.is_empty());
    if let Some(long) = components().find(|component| component.len() > NAME_BYTES) {
        return Err(too_long("the folder", long, NAME_BYTES));
    }
    let path_bytes = root.as_os_str().len() + 1 + folder.len() + FILE_NAME_BYTES;
    if path_bytes > PATH_BYTES {
        return Err(format!("its files would have paths of {path_bytes} bytes, and {PATH_BYTES} are possible"));
    }
    let mut at = root.to_owned();
    for component in components() {
        // Some file systems take less: they say so when asked for a name.
        if root.join(component).symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::InvalidFilename) {
            return Err(format!("the file system takes no folder `{}`", shown(component)));
        }
        at.push(component);
        if at.metadata().is_ok_and(|found| !found.is_dir()) {
            return Err(format!("{} is a file, and a folder of this name is needed", at.display()));
        }
    }
    Ok(())
}

/// Whether objects can have keys of `prefix` and `folder` (each empty, or ending in a slash).
pub(super) fn check_key(prefix: &str, folder: &str) -> Result<(), String> {
    let key_bytes = prefix.len() + folder.len() + FILE_NAME_BYTES;
    if key_bytes > KEY_BYTES {
        return Err(format!(
            "its objects in `{}` would have keys of {key_bytes} bytes, and {KEY_BYTES} are possible",
            shown(folder)
        ));
    }
    match ObjectPath::parse(format!("{prefix}{folder}")) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("`{}` is no prefix of objects: {error}", shown(folder))),
    }
}

fn too_long(what: &str, name: &str, limit: usize) -> String {
    format!("{what} `{}` would have a name of {} bytes, and {limit} are possible", shown(name), name.len())
}

fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_measured_in_bytes_and_to_the_byte() {
        let root = tempfile::tempdir().unwrap();
        let local = |folder: &str| check_local(root.path(), folder);
        assert_eq!(local(""), Ok(()));
        assert_eq!(local(&format!("a={}/b=2/", "x".repeat(253))), Ok(()));
        let error = local(&format!("a={}/b=2/", "ü".repeat(127))).unwrap_err();
        assert!(error.ends_with("would have a name of 256 bytes, and 255 are possible"), "{error}");
        let deep = format!("a={}/", "x".repeat(250)).repeat(16);
        assert!(local(&deep).unwrap_err().contains("would have paths of"));
        let fits = "x".repeat(KEY_BYTES - FILE_NAME_BYTES - 6);
        assert_eq!(check_key("lake/", &format!("{}/", fits)), Ok(()));
        assert!(check_key("lake/", &format!("{fits}x/")).unwrap_err().contains("keys of 1025 bytes"));
        assert!(check_key("lake//x/", "").unwrap_err().contains("is no prefix of objects"));
    }

    #[test]
    fn a_file_where_a_folder_must_be_is_found() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a=1")).unwrap();
        std::fs::write(root.path().join("a=1/b=2"), "").unwrap();
        assert!(check_local(root.path(), "a=1/b=2/").unwrap_err().ends_with("a folder of this name is needed"));
        assert_eq!(check_local(root.path(), "a=1/b=3/"), Ok(()));
    }
}
