//! The one thing we read of what members tell each other: the topics that a consumer subscribes to.
//!
//! `ConsumerProtocolSubscription`: version int16, topics [string], … Later versions only add fields behind.

use crate::wire::{Fields, WireError};

/// The topics of a subscription.
pub(super) fn topics(metadata: &[u8]) -> Result<Vec<String>, WireError> {
    let mut fields = Fields(metadata);
    let version = fields.i16("version")?;
    if version < 0 {
        return Err(WireError::Version(version));
    }
    let count = fields.count("topics")?;
    (0..count).map(|_| fields.string("topic")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_whatever_follows_them() {
        let check = |bytes: &[u8], expected: Result<&[&str], WireError>| {
            let expected = expected.map(|topics| topics.iter().map(|&topic| topic.to_owned()).collect::<Vec<_>>());
            assert_eq!(topics(bytes), expected);
        };
        check(b"\0\0\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff", Ok(&["a", "bc"]));
        check(b"\0\x03\0\0\0\x01\0\x01a\xff\xff\xff\xff\0\0\0\0\0\0\0\x05\0\x01r", Ok(&["a"]));
        check(b"\0\0\0\0\0\0", Ok(&[]));
        check(b"", Err(WireError::Short("version")));
        check(b"\xff\xff\0\0\0\0", Err(WireError::Version(-1)));
        check(b"\0\0\x7f\0\0\0\0", Err(WireError::Short("topics")));
        check(b"\0\0\0\0\0\x01\0\x05a", Err(WireError::Short("topic")));
    }
}
