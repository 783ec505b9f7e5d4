//! The names of the files in a partition's folder, as Kafka writes them, so that its tools find their way.
//!
//! ```text
//! 00000000000000000042.log          record batches from base offset 42
//! 00000000000000000042.index        sparse offset index
//! 00000000000000000042.timeindex    sparse time index
//! 00000000000000000042.txnindex     aborted transactions whose marker is in the segment
//! 00000000000000000099.snapshot     producer state just before offset 99
//! leader-epoch-checkpoint           first offset of each leader epoch
//! recovery-point-offset-checkpoint  everything below it is synced and needs no check
//! log-start-offset-checkpoint       first offset that may be read
//! aborted-txn-checkpoint            how many entries each .txnindex has
//! 00000000000000000042.log.cut-17   what recovery cut off the segment at position 17
//! 00000000000000000042.log.damaged-1   a segment as it was found, whose intact batches are in segments of their own
//! ```

use std::path::{Path, PathBuf};

use logmill_protocol::Offset;

pub(crate) const LOG: &str = "log";
pub(crate) const INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
pub(crate) const TXN_INDEX: &str = "txnindex";
pub(crate) const SNAPSHOT: &str = "snapshot";
pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const RECOVERY_POINT: &str = "recovery-point-offset-checkpoint";
pub(crate) const LOG_START: &str = "log-start-offset-checkpoint";
pub(crate) const ABORTED: &str = "aborted-txn-checkpoint";
/// Suffix of a file that is being written and takes its final name by a rename.
pub(crate) const TEMP_SUFFIX: &str = ".tmp";

/// Path of the file of `kind` at `offset`, e.g. `00000000000000000042.log`.
pub(crate) fn file(dir: &Path, offset: Offset, kind: &str) -> PathBuf {
    dir.join(format!("{:020}.{kind}", offset.0))
}

/// The offset in a name of exactly the form that [`file`] writes, if it is one of `kind`.
pub(crate) fn parse(name: &str, kind: &str) -> Option<Offset> {
    let digits = name.strip_suffix(kind)?.strip_suffix('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Offset)
}

/// Where the bytes cut off `log` at `position` are kept: the first free name, earlier cuts are never overwritten.
pub(crate) fn cut(log: &Path, position: u64) -> PathBuf {
    let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut path = log.with_file_name(format!("{name}.cut-{position}"));
    let mut number = 1;
    while path.exists() {
        number += 1;
        path = log.with_file_name(format!("{name}.cut-{position}.{number}"));
    }
    path
}

/// Where a damaged file is kept: the first free name, earlier ones are never overwritten.
pub fn damaged(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut number = 1;
    loop {
        let kept_at = path.with_file_name(format!("{name}.damaged-{number}"));
        if kept_at.symlink_metadata().is_err() {
            return kept_at;
        }
        number += 1;
    }
}

/// The base offset in the name of a damaged segment, as [`damaged`] makes it.
pub(crate) fn parse_damaged(name: &str) -> Option<Offset> {
    let (log, number) = name.split_once(".damaged-")?;
    number.parse::<u64>().ok()?;
    parse(log, LOG)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_refused() {
        let path = file(Path::new("p"), Offset(42), LOG);
        assert_eq!(path, Path::new("p/00000000000000000042.log"));
        let check = |name: &str, kind: &str, expected: Option<i64>| assert_eq!(parse(name, kind), expected.map(Offset));
        check("00000000000000000042.log", LOG, Some(42));
        check("00000000000000000042.log", INDEX, None);
        check("00000000000000000042.timeindex", INDEX, None);
        check("42.log", LOG, None);
        check("0000000000000000004x.log", LOG, None);
        check("99999999999999999999.log", LOG, None);
        check("00000000000000000042.log.cut-17", LOG, None);
    }
}
