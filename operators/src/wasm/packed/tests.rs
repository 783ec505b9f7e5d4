//! Results are read as they were written, and whatever is no result is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

/// An entry as a guest owns it.
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    Message { port: u16, timestamp: Option<i64>, key: Option<Vec<u8>>, value: Option<Vec<u8>>, headers: Vec<Header> },
    Failed(String),
}

type Header = (String, Option<Vec<u8>>);

fn owned() -> impl Strategy<Value = Owned> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9));
    let timestamp = proptest::option::of((i64::MIN + 1)..i64::MAX);
    let headers = proptest::collection::vec((any::<String>(), bytes()), 0..3);
    prop_oneof![
        (0..3u16, timestamp, bytes(), bytes(), headers).prop_map(|(port, timestamp, key, value, headers)| {
            Owned::Message { port, timestamp, key, value, headers }
        }),
        any::<String>().prop_map(Owned::Failed),
    ]
}

/// Writes a result as guests do.
fn result(entries: &[(usize, Owned)]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.begin(entries.len()).unwrap();
    for (message, entry) in entries {
        writer.count(*message).unwrap();
        match entry {
            Owned::Message { port, timestamp, key, value, headers } => {
                writer.buffer.push(0);
                writer.buffer.extend_from_slice(&port.to_le_bytes());
                writer.timestamp(*timestamp);
                writer.bytes(key.as_deref()).unwrap();
                writer.written(|_| {}).unwrap();
                writer.buffer.truncate(writer.buffer.len() - 4);
                writer.bytes(value.as_deref()).unwrap();
                writer.count(headers.len()).unwrap();
                for (name, value) in headers {
                    writer.written(|out| out.extend_from_slice(name.as_bytes())).unwrap();
                    writer.bytes(value.as_deref()).unwrap();
                }
            }
            Owned::Failed(text) => {
                writer.buffer.push(1);
                writer.bytes(Some(text.as_bytes())).unwrap();
            }
        }
    }
    writer.finish().to_vec()
}

/// An entry that was read, in the form that it was written from.
fn owned_again(read: &Entries<'_>, entry: Entry) -> Owned {
    match entry.port {
        None => {
            let text = read.at(entry).text().unwrap();
            assert!(read.failed().any(|failed| failed == (entry.message(), text)));
            Owned::Failed(text.to_owned())
        }
        Some(port) => {
            let message = read.read(entry);
            let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            let headers = message.headers.iter().map(|(name, value)| (name.to_owned(), bytes(value)));
            Owned::Message {
                port,
                timestamp: message.timestamp_us,
                key: bytes(message.key),
                value: bytes(message.value),
                headers: headers.collect(),
            }
        }
    }
}

#[test]
fn an_entry_is_kept_in_about_as_many_bytes_as_it_takes() {
    assert!(size_of::<Entry>() < 2 * MIN_ENTRY_BYTES);
}

#[test]
fn the_bytes_are_those_of_the_description() {
    let mut writer = Writer::default();
    writer.begin(1).unwrap();
    writer.timestamp(None);
    writer.bytes(Some(b"k")).unwrap();
    writer.bytes(None).unwrap();
    writer.count(0).unwrap();
    let expected = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 1, 0, 0, 0, b'k', 255, 255, 255, 255, 0, 0, 0, 0];
    assert_eq!(writer.finish(), expected);
}

#[test]
fn what_makes_no_sense_is_told() {
    let failed = || Owned::Failed("x".to_owned());
    let null = || Owned::Message { port: 2, timestamp: None, key: None, value: None, headers: vec![] };
    let followed = [result(&[]), vec![0]].concat();
    let unknown = [1u32.to_le_bytes().to_vec(), vec![0, 0, 0, 0, 7, 0, 0, 0, 0]].concat();
    for (bytes, expected) in [
        (result(&[(2, failed())]), "an entry is of message 2, but there were 2"),
        (result(&[(1, failed()), (0, failed())]), "not in the order"),
        (result(&[(0, null())]), "an entry is for output number 2, but there are 1"),
        (followed, "bytes follow its last entry"),
        (unknown, "unknown kind 7"),
        (vec![255; 64], "cut off"),
        (vec![], "cut off"),
    ] {
        let message = read(&bytes, 2, 1).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
}

proptest! {
    #[test]
    fn results_come_back(entries in proptest::collection::vec((0..4usize, owned()), 0..6)) {
        let mut entries = entries;
        entries.sort_by_key(|(message, _)| *message);
        let bytes = result(&entries);
        let read = read(&bytes, 4, 3).unwrap();
        let again: Vec<_> =
            read.found.iter().map(|entry| (entry.message(), owned_again(&read, *entry))).collect();
        prop_assert_eq!(&again, &entries);
        for port in 0..3u16 {
            let of_port = read.of_port(port.into()).map(|entry| (entry.message(), owned_again(&read, entry)));
            let is_of_port = |owned: &Owned| matches!(owned, Owned::Message { port: of, .. } if *of == port);
            let expected: Vec<_> = entries.iter().filter(|(_, owned)| is_of_port(owned)).cloned().collect();
            prop_assert_eq!(of_port.collect::<Vec<_>>(), expected);
        }
        for length in 0..bytes.len() {
            super::read(&bytes[..length], 4, 3).unwrap_err();
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        let _ = read(&bytes, 4, 3);
    }
}
