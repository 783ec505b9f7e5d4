//! How many files this process may have open, and who may have how many of them: each segment needs one, so that is what
//! bounds partitions, and each connection another.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Part of the limit, in percent, that segments may take.
const SEGMENTS_PERCENT: u64 = 75;
/// Part of the limit, in percent, that is kept for files that are open for a moment, and for the rest of the process; no
/// more than [`MAX_RESERVE`].
const RESERVE_PERCENT: u64 = 10;
const MAX_RESERVE: u64 = 512;

/// Raises the limit to what the system allows. The usual limit of 1024 is for programs that use `select`.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files");
    }
    if let Some((segments, _)) = segments_at_most() {
        logmill_storage::limit_open_segments(segments);
    }
}

/// How many segments the limit leaves room for, and the limit; `None` for any number. Each partition has one at least.
pub(crate) fn segments_at_most() -> Option<(u64, u64)> {
    let limit = getrlimit(Resource::Nofile).current?;
    Some((limit / 100 * SEGMENTS_PERCENT, limit))
}

/// How many connections the limit leaves room for; `None` for any number.
pub(crate) fn connections_at_most() -> Option<usize> {
    let (segments, limit) = segments_at_most()?;
    let reserve = (limit / 100 * RESERVE_PERCENT).min(MAX_RESERVE);
    usize::try_from((limit - segments - reserve).max(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_can_be_and_is_shared_out() {
        raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        let room = segments_at_most();
        assert_eq!(room.map(|(_, limit)| limit), limit.current);
        assert!(room.is_none_or(|(segments, limit)| segments > 0 && segments < limit));
        let connections = connections_at_most().map(|connections| connections as u64);
        assert!(room.zip(connections).is_none_or(|((segments, limit), connections)| segments + connections < limit));
    }
}
