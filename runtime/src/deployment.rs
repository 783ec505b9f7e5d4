//! The deployment id: distinguishes the pipelines of this data directory from those of others that write to the same destination.
//!
//! It is part of the names of everything that is staged, so losing it costs no more than leftovers that nobody sweeps.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use uuid::Uuid;

const FILE_NAME: &str = "deployment-id";
const TEMPORARY_NAME: &str = "deployment-id.tmp";

/// The id that the data directory keeps. If there is none, it is created, and durable when this returns. The caller holds the
/// directory's lock.
pub(crate) fn deployment_id(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(FILE_NAME);
    match fs::read(&path) {
        Ok(bytes) => match std::str::from_utf8(&bytes).ok().and_then(|text| Uuid::parse_str(text.trim()).ok()) {
            Some(id) => return Ok(id.simple().to_string()),
            None => tracing::warn!(
                "{} is damaged and is made anew; what earlier runs left staged in `_logmill` folders of their \
                 destinations is not swept any more",
                path.display()
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = Uuid::new_v4().simple().to_string();
    fs::create_dir_all(data_dir)?;
    let temporary = data_dir.join(TEMPORARY_NAME);
    let mut file = File::create(&temporary)?;
    file.write_all(format!("{id}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(data_dir)?.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_is_made_once_and_damage_makes_another() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        let id = deployment_id(&first).unwrap();
        assert_eq!(deployment_id(&first).unwrap(), id);
        assert_ne!(deployment_id(&second).unwrap(), id);
        for damage in [&b""[..], b"\xff\xfe", b"not an id"] {
            fs::write(first.join(FILE_NAME), damage).unwrap();
            let new = deployment_id(&first).unwrap();
            assert_ne!(new, id);
            assert_eq!(deployment_id(&first).unwrap(), new);
        }
    }
}
