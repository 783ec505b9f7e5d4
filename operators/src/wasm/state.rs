//! The state of a shard as the engine keeps it.
//!
//! ```text
//!   u8 format, 1 ─ u32 version of the guest's state, little-endian ─ the guest's bytes
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::live::GuestState;

/// The state table of every guest.
pub(super) const TABLE: &str = "state";
/// The only format so far.
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Writes a state.
pub(super) fn encode(state: &GuestState) -> Bytes {
    let mut data = BytesMut::with_capacity(HEADER_BYTES + state.bytes.len());
    data.put_u8(FORMAT);
    data.put_u32_le(state.version);
    data.put_slice(&state.bytes);
    data.freeze()
}

/// Reads a state; the error says what is wrong with it.
pub(super) fn decode(data: &Bytes) -> Result<GuestState, String> {
    match data.as_ref() {
        [FORMAT, a, b, c, d, ..] => {
            Ok(GuestState { version: u32::from_le_bytes([*a, *b, *c, *d]), bytes: data.slice(HEADER_BYTES..) })
        }
        [FORMAT, ..] => Err("its header is cut off".to_owned()),
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
    fn the_format_on_disk_stays() {
        let state = GuestState { version: 7, bytes: Bytes::from_static(b"ab") };
        assert_eq!(encode(&state).as_ref(), [1, 7, 0, 0, 0, b'a', b'b']);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for (data, expected) in [(&b""[..], "empty"), (&[1, 0, 0], "cut off"), (&[9, 0, 0, 0, 0], "format 9")] {
            let message = decode(&Bytes::copy_from_slice(data)).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn states_come_back(version: u32, bytes: Vec<u8>) {
            let state = GuestState { version, bytes: bytes.into() };
            prop_assert_eq!(decode(&encode(&state)).unwrap(), state);
        }
    }
}
