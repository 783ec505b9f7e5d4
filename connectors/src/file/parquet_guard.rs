//! Checks a Parquet file's footer and page headers against the size of the file, before the Parquet reader allocates what it claims.
//!
//! Footers and page headers are structures of Thrift's compact protocol. They are walked here without building anything:
//! each list must have the bytes for as many items as it claims, and pages have a bound.
//!
//! ```text
//!   PAR1 │ page header, page │ page header, page │ …  │ footer │ footer's length, PAR1
//! ```

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The largest footer that is read.
const MAX_FOOTER_BYTES: u64 = 256 << 20;
/// The largest page, decompressed.
const MAX_PAGE_BYTES: i64 = 512 << 20;
/// The most row groups that the format can number.
const MAX_ROW_GROUPS: u64 = i16::MAX as u64;
/// How deep structures may nest.
const MAX_DEPTH: usize = 64;
/// Page headers are read so many bytes at a time, until one is whole.
const HEADER_BYTES: [u64; 3] = [512, 64 << 10, 8 << 20];
/// The end of a file: the length of the footer, and what tells Parquet.
const END_BYTES: u64 = 8;

/// The field of a footer that lists the row groups.
const ROW_GROUPS: i64 = 4;
/// The fields of a page header.
const UNCOMPRESSED_SIZE: i64 = 2;
const COMPRESSED_SIZE: i64 = 3;

/// What is wrong with a file's footer, if its own reader would not say.
pub(super) fn footer_problem(file: &File) -> io::Result<Option<String>> {
    let length = file.metadata()?.len();
    let Some(end) = length.checked_sub(END_BYTES) else { return Ok(None) };
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, end)?;
    let footer = u64::from(u32::from_le_bytes(bytes));
    let Some(start) = end.checked_sub(footer) else { return Ok(None) };
    if footer > MAX_FOOTER_BYTES {
        return Ok(Some(format!("its footer has {footer} bytes, more than {MAX_FOOTER_BYTES}")));
    }
    let mut bytes = vec![0; usize::try_from(footer).unwrap_or(0)];
    file.read_exact_at(&mut bytes, start)?;
    let mut groups = 0;
    let walked = Walk { rest: &bytes }.structure(0, &mut |field, value| {
        if let (ROW_GROUPS, Value::List(size)) = (field, value) {
            groups = size;
        }
    });
    Ok(match walked {
        None => Some("its footer claims more than it holds".into()),
        Some(()) if groups > MAX_ROW_GROUPS => Some(format!("its footer claims {groups} row groups")),
        Some(()) => None,
    })
}

/// What is wrong with the pages of a column in these bytes of a file.
pub(super) fn page_problem(file: &File, bytes: Range<u64>) -> io::Result<Option<String>> {
    let mut at = bytes.start;
    while at < bytes.end {
        let Some((header, uncompressed, compressed)) = page_header(file, at..bytes.end)? else {
            return Ok(Some(format!("there is no page header at byte {at}")));
        };
        let (Ok(size), true) = (u64::try_from(compressed), (0..=MAX_PAGE_BYTES).contains(&uncompressed)) else {
            return Ok(Some(format!(
                "the page at byte {at} claims {compressed} bytes, {uncompressed} decompressed; the most is {MAX_PAGE_BYTES}"
            )));
        };
        // Old writers count the last page short: whether it is whole is for the reader to say.
        at = at.saturating_add(header).saturating_add(size);
    }
    Ok(None)
}

/// The length of a page header, and the sizes that it claims.
fn page_header(file: &File, bytes: Range<u64>) -> io::Result<Option<(u64, i64, i64)>> {
    let room = bytes.end - bytes.start;
    for most in HEADER_BYTES {
        let mut buffer = vec![0; usize::try_from(room.min(most)).unwrap_or(0)];
        file.read_exact_at(&mut buffer, bytes.start)?;
        let (mut uncompressed, mut compressed) = (-1, -1);
        let mut walk = Walk { rest: &buffer };
        let walked = walk.structure(0, &mut |field, value| match (field, value) {
            (UNCOMPRESSED_SIZE, Value::Integer(value)) => uncompressed = value,
            (COMPRESSED_SIZE, Value::Integer(value)) => compressed = value,
            _ => {}
        });
        let left = walk.rest.len();
        if walked.is_some() {
            return Ok(Some(((buffer.len() - left) as u64, uncompressed, compressed)));
        }
        if room <= most {
            break;
        }
    }
    Ok(None)
}

/// A value of a structure, as far as it matters here.
#[derive(Clone, Copy)]
enum Value {
    Integer(i64),
    List(u64),
    Other,
}

/// Walks through bytes of Thrift's compact protocol. `None` where they end or are invalid.
pub(super) struct Walk<'a> {
    /// What is left.
    pub(super) rest: &'a [u8],
}

impl Walk<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub(super) fn skip(&mut self, bytes: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    /// Takes an unsigned integer, seven bits a byte.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Takes a structure and tells its fields.
    fn structure(&mut self, depth: usize, tell: &mut dyn FnMut(i64, Value)) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut field = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            field = match head >> 4 {
                0 => self.integer()?,
                step => field.checked_add(i64::from(step))?,
            };
            // The value of a boolean field is its type.
            let value = if matches!(head & 0xf, 1 | 2) { Value::Other } else { self.value(head & 0xf, depth)? };
            tell(field, value);
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Option<Value> {
        match kind {
            1..=3 => self.skip(1)?,
            4..=6 => return Some(Value::Integer(self.integer()?)),
            7 => self.skip(8)?,
            8 => {
                let length = self.varint()?;
                self.skip(length)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let size = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                self.items(size, &[head & 0xf], depth)?;
                return Some(Value::List(size));
            }
            11 => {
                let size = self.varint()?;
                if size > 0 {
                    let kinds = self.byte()?;
                    self.items(size, &[kinds >> 4, kinds & 0xf], depth)?;
                }
            }
            12 => self.structure(depth + 1, &mut |_, _| {})?,
            _ => return None,
        }
        Some(Value::Other)
    }

    /// Takes items, each of which is values of these kinds and has at least a byte.
    fn items(&mut self, size: u64, kinds: &[u8], depth: usize) -> Option<()> {
        if size > self.rest.len() as u64 || depth > MAX_DEPTH {
            return None;
        }
        for _ in 0..size {
            for kind in kinds {
                self.value(*kind, depth + 1)?;
            }
        }
        Some(())
    }
}
