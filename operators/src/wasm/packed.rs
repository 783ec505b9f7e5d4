//! Records in one run of bytes, as `wit/transform/PACKED.md` describes them.
//!
//! Writing: rows become messages, one after the other, in one buffer that is used again. Reading: nothing is believed that is
//! not checked, and of an entry no more is kept than where it is, as a guest may give as many as its memory holds.

/// Stands for null where a length is expected.
const NULL: u32 = u32::MAX;
/// Stands for no timestamp.
const NO_TIMESTAMP: i64 = i64::MIN;
/// A message takes this many bytes at the least: timestamp, key, value, number of headers.
const MIN_MESSAGE_BYTES: usize = 20;
/// An entry takes this many bytes at the least: index, kind, and an empty text.
const MIN_ENTRY_BYTES: usize = 9;
/// A header takes this many bytes at the least.
const MIN_HEADER_BYTES: usize = 8;

/// Writes messages.
#[derive(Debug, Default)]
pub(super) struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// Begins anew, with this many messages to come.
    pub(super) fn begin(&mut self, messages: usize) -> Result<(), TooLarge> {
        self.buffer.clear();
        self.count(messages)
    }

    /// A number of things that follow.
    pub(super) fn count(&mut self, count: usize) -> Result<(), TooLarge> {
        let count = u32::try_from(count).map_err(|_| TooLarge)?;
        self.buffer.extend_from_slice(&count.to_le_bytes());
        Ok(())
    }

    pub(super) fn timestamp(&mut self, timestamp_us: Option<i64>) {
        self.buffer.extend_from_slice(&timestamp_us.unwrap_or(NO_TIMESTAMP).to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: Option<&[u8]>) -> Result<(), TooLarge> {
        let Some(bytes) = bytes else {
            self.buffer.extend_from_slice(&NULL.to_le_bytes());
            return Ok(());
        };
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length != NULL).ok_or(TooLarge)?;
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes that `write` appends.
    pub(super) fn written(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), TooLarge> {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        write(&mut self.buffer);
        let length = self.buffer.len().checked_sub(at + 4).and_then(|length| u32::try_from(length).ok());
        let length = length.filter(|length| *length != NULL).ok_or(TooLarge)?;
        if let Some(place) = self.buffer.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }

    /// What was written since `begin`.
    pub(super) fn finish(&self) -> &[u8] {
        &self.buffer
    }
}

/// More than a length of 32 bits can say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// What a guest made of messages: its bytes, which were checked, and where the entries are in them.
#[derive(Debug)]
pub(super) struct Entries<'a> {
    result: &'a [u8],
    found: Vec<Entry>,
}

/// An entry, in few bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The number of the message it comes from.
    message: u32,
    /// What it is for; an error is for none.
    port: Option<u16>,
    /// Where its message or text begins.
    at: usize,
}

impl Entry {
    /// The number of the message that it comes from among those that the guest was given.
    pub(super) fn message(self) -> usize {
        usize::try_from(self.message).unwrap_or(usize::MAX)
    }
}

impl<'a> Entries<'a> {
    fn at(&self, entry: Entry) -> Cursor<'a> {
        Cursor { rest: self.result.get(entry.at..).unwrap_or_default() }
    }

    /// The messages for which there is an error, with its text.
    pub(super) fn failed(&self) -> impl Iterator<Item = (usize, &'a str)> {
        let failed = self.found.iter().filter(|entry| entry.port.is_none());
        failed.filter_map(|entry| Some((entry.message(), self.at(*entry).text().ok()?)))
    }

    /// The entries for an output.
    pub(super) fn of_port(&self, port: usize) -> impl Iterator<Item = Entry> {
        self.found.iter().copied().filter(move |entry| entry.port.is_some_and(|of| usize::from(of) == port))
    }

    /// The message of an entry that is for an output.
    pub(super) fn read(&self, entry: Entry) -> Message<'a> {
        // It was read once, so it can be read again.
        self.at(entry).message().unwrap_or_default()
    }
}

/// A message for an output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) timestamp_us: Option<i64>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
}

/// Headers that were checked and are read again where they are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers<'a> {
    pub(super) count: usize,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// The headers: names and values.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let mut cursor = Cursor { rest: self.bytes };
        (0..self.count).map_while(move |_| Some((cursor.text().ok()?, cursor.bytes().ok()?)))
    }
}

/// Reads a result: `messages` and `ports` say what its entries may name. The error says what is wrong with it.
pub(super) fn read(result: &[u8], messages: usize, ports: usize) -> Result<Entries<'_>, String> {
    let mut cursor = Cursor { rest: result };
    let count = cursor.count(MIN_ENTRY_BYTES)?;
    let mut found = Vec::with_capacity(count);
    let mut last = 0;
    for _ in 0..count {
        let message = cursor.number()?;
        if message >= messages {
            return Err(format!("an entry is of message {message}, but there were {messages}"));
        }
        if message < last {
            return Err("its entries are not in the order of the messages they come from".to_owned());
        }
        last = message;
        let port = match cursor.take::<1>()? {
            [0] => {
                let port = u16::from_le_bytes(cursor.take()?);
                if usize::from(port) >= ports {
                    return Err(format!("an entry is for output number {port}, but there are {ports}"));
                }
                Some(port)
            }
            [1] => None,
            [kind] => return Err(format!("an entry has the unknown kind {kind}")),
        };
        let at = result.len() - cursor.rest.len();
        match port {
            Some(_) => cursor.message().map(|_| ())?,
            None => cursor.text().map(|_| ())?,
        }
        let message = u32::try_from(message).map_err(|_| cut_off())?;
        found.push(Entry { message, port, at });
    }
    if cursor.rest.is_empty() { Ok(Entries { result, found }) } else { Err("bytes follow its last entry".to_owned()) }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<usize, String> {
        Ok(usize::try_from(u32::from_le_bytes(self.take()?)).unwrap_or(usize::MAX))
    }

    /// A number of things, each of which takes some bytes at the least.
    fn count(&mut self, bytes_each: usize) -> Result<usize, String> {
        let count = self.number()?;
        if count <= self.rest.len() / bytes_each { Ok(count) } else { Err(cut_off()) }
    }

    fn bytes(&mut self) -> Result<Option<&'a [u8]>, String> {
        let length = u32::from_le_bytes(self.take()?);
        if length == NULL {
            return Ok(None);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(Some(bytes))
    }

    fn text(&mut self) -> Result<&'a str, String> {
        let bytes = self.bytes()?.ok_or("a text is null")?;
        std::str::from_utf8(bytes).map_err(|_| "a text is no UTF-8".to_owned())
    }

    fn message(&mut self) -> Result<Message<'a>, String> {
        if self.rest.len() < MIN_MESSAGE_BYTES {
            return Err(cut_off());
        }
        let timestamp_us = Some(i64::from_le_bytes(self.take()?)).filter(|time| *time != NO_TIMESTAMP);
        let (key, value) = (self.bytes()?, self.bytes()?);
        let count = self.count(MIN_HEADER_BYTES)?;
        let start = self.rest;
        for _ in 0..count {
            self.text()?;
            self.bytes()?;
        }
        let bytes = start.get(..start.len() - self.rest.len()).unwrap_or_default();
        Ok(Message { timestamp_us, key, value, headers: Headers { count, bytes } })
    }
}

fn cut_off() -> String {
    "it is cut off".to_owned()
}

#[cfg(test)]
mod tests;
