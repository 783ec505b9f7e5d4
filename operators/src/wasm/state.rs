//! The state of a shard as the engine keeps it.
//!
//! ```text
//!   u8 format, 2 ─ u8 flags ─ u32 version of the guest's state, little-endian ─ the guest's bytes
//! ```
//!
//! Format 1 has no flags.

use bytes::{BufMut, Bytes, BytesMut};

use super::live::GuestState;

/// The state table of every guest.
pub(super) const TABLE: &str = "state";
/// The format that is written.
const FORMAT: u8 = 2;
/// The format without flags, which is still read.
const FORMAT_1: u8 = 1;
const HEADER_BYTES: usize = 6;
const HEADER_1_BYTES: usize = 5;
/// The flag of a shard whose guest knows that its input has ended.
const ENDED: u8 = 1;

/// What is kept of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) state: GuestState,
    /// Whether the guest was told that the input has ended, and no rows came since.
    pub(super) ended: bool,
}

/// Writes what is kept.
pub(super) fn encode(kept: &Kept) -> Bytes {
    let mut data = BytesMut::with_capacity(HEADER_BYTES + kept.state.bytes.len());
    data.put_u8(FORMAT);
    data.put_u8(if kept.ended { ENDED } else { 0 });
    data.put_u32_le(kept.state.version);
    data.put_slice(&kept.state.bytes);
    data.freeze()
}

/// Reads what was kept; the error says what is wrong with it.
pub(super) fn decode(data: &Bytes) -> Result<Kept, String> {
    let kept = |version: [u8; 4], header: usize, ended| {
        let state = GuestState { version: u32::from_le_bytes(version), bytes: data.slice(header..) };
        Ok(Kept { state, ended })
    };
    match data.as_ref() {
        [FORMAT, flags @ (0 | ENDED), a, b, c, d, ..] => kept([*a, *b, *c, *d], HEADER_BYTES, *flags == ENDED),
        [FORMAT_1, a, b, c, d, ..] => kept([*a, *b, *c, *d], HEADER_1_BYTES, false),
        [FORMAT, flags, ..] if *flags > ENDED => {
            Err(format!("it has the flags {flags:#x}, which a newer version of the program may read"))
        }
        [FORMAT | FORMAT_1, ..] => Err("its header is cut off".to_owned()),
        [format, ..] => Err(format!("it has format {format}, which a newer version of the program may read")),
        [] => Err("it is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_formats_on_disk_stay() {
        let state = GuestState { version: 7, bytes: Bytes::from_static(b"ab") };
        let kept = |ended| Kept { state: state.clone(), ended };
        assert_eq!(encode(&kept(false)).as_ref(), [2, 0, 7, 0, 0, 0, b'a', b'b']);
        assert_eq!(encode(&kept(true)).as_ref(), [2, 1, 7, 0, 0, 0, b'a', b'b']);
        assert_eq!(decode(&Bytes::from_static(&[1, 7, 0, 0, 0, b'a', b'b'])).unwrap(), kept(false));
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for (data, expected) in [
            (&b""[..], "empty"),
            (&[1, 0, 0], "cut off"),
            (&[2, 0, 0, 0, 0], "cut off"),
            (&[2, 4, 0, 0, 0, 0], "flags 0x4"),
            (&[9, 0, 0, 0, 0], "format 9"),
        ] {
            let message = decode(&Bytes::copy_from_slice(data)).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn states_come_back(version: u32, bytes: Vec<u8>, ended: bool) {
            let kept = Kept { state: GuestState { version, bytes: bytes.into() }, ended };
            prop_assert_eq!(decode(&encode(&kept)).unwrap(), kept);
        }
    }
}
