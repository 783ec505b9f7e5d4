//! How many files this process may have open: each segment needs one, so that is what bounds partitions.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Part of the limit, in percent, that partitions may take: the rest is for connections and what else there is.
const PARTITIONS_PERCENT: u64 = 75;

/// Raises the limit to what the system allows. The usual limit of 1024 is for programs that use `select`.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files");
    }
}

/// How many partitions the limit leaves room for, and the limit; `None` for any number.
pub(crate) fn partitions_at_most() -> Option<(u64, u64)> {
    let limit = getrlimit(Resource::Nofile).current?;
    Some((limit / 100 * PARTITIONS_PERCENT, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_can_be() {
        raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        let room = partitions_at_most();
        assert_eq!(room.map(|(_, limit)| limit), limit.current);
        assert!(room.is_none_or(|(partitions, limit)| partitions > 0 && partitions < limit));
    }
}
