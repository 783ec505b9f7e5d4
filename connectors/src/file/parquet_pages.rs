//! Reads the pages of a Parquet file, and refuses those whose body claims more values than there can be.
//!
//! Bodies of the delta encodings, and dictionaries, begin with a count for which the Parquet reader allocates memory at once.
//!
//! ```text
//!   page header │ values: 2000 │ …      body │ levels │ block size │ mini-blocks │ values: 281474976710655 │ …
//! ```
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/>

use std::fs::File;
use std::sync::Arc;
use std::vec::IntoIter;

use bytes::Bytes;
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;

use super::parquet_guard::Walk;

/// The most values of a page in a delta encoding, for which the reader takes 8 bytes each.
const MAX_DELTA_VALUES: u64 = 64 << 20;

/// Some row groups of a file.
pub(super) struct CheckedRowGroups {
    file: Arc<File>,
    metadata: Arc<ParquetMetaData>,
    groups: Vec<usize>,
}

impl CheckedRowGroups {
    /// The groups of these numbers, which must be in the metadata.
    pub(super) fn new(file: File, metadata: Arc<ParquetMetaData>, groups: Vec<usize>) -> Self {
        Self { file: Arc::new(file), metadata, groups }
    }
}

impl RowGroups for CheckedRowGroups {
    fn num_rows(&self) -> usize {
        self.row_groups().map(|group| usize::try_from(group.num_rows()).unwrap_or(0)).sum()
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        let (file, metadata) = (Arc::clone(&self.file), Arc::clone(&self.metadata));
        Ok(Box::new(ColumnChunks { file, metadata, column, groups: self.groups.clone().into_iter() }))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.groups.iter().map(|group| self.metadata.row_group(*group)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// The pages of a column, by row group.
struct ColumnChunks {
    file: Arc<File>,
    metadata: Arc<ParquetMetaData>,
    column: usize,
    groups: IntoIter<usize>,
}

impl Iterator for ColumnChunks {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        let group = self.metadata.row_group(self.groups.next()?);
        let column = group.column(self.column);
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let shape = PageShape::of(column.column_descr());
        let pages = SerializedPageReader::new(Arc::clone(&self.file), column, rows, None);
        Some(pages.map(|pages| Box::new(CheckedPages { pages, shape }) as Box<dyn PageReader>))
    }
}

impl PageIterator for ColumnChunks {}

/// The pages of a column chunk, each checked once it is decompressed.
struct CheckedPages {
    pages: SerializedPageReader<File>,
    shape: PageShape,
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(problem) = page.as_ref().and_then(|page| self.shape.problem(page)) {
            return Err(ParquetError::General(problem));
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

/// What the pages of a column are like.
struct PageShape {
    /// The largest repetition and definition levels; 0 if pages have none.
    max_levels: [i16; 2],
    /// The fewest bytes of a value in a dictionary.
    value_bytes: u64,
}

impl PageShape {
    fn of(column: &ColumnDescriptor) -> Self {
        let value_bytes = match column.physical_type() {
            Type::BOOLEAN => 1,
            Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::FIXED_LEN_BYTE_ARRAY => u64::try_from(column.type_length()).unwrap_or(0).max(1),
        };
        Self { max_levels: [column.max_rep_level(), column.max_def_level()], value_bytes }
    }

    /// What is wrong with a page, if reading it could take more memory than its values do.
    fn problem(&self, page: &Page) -> Option<String> {
        let most = u64::from(page.num_values());
        let (body, encoding) = match page {
            Page::DictionaryPage { buf, .. } => {
                let fits = most.saturating_mul(self.value_bytes) <= buf.len() as u64;
                return (!fits).then(|| format!("a dictionary claims {most} values in {} bytes", buf.len()));
            }
            Page::DataPage { buf, encoding, def_level_encoding, rep_level_encoding, .. } => {
                let levels = self.max_levels.into_iter().zip([*rep_level_encoding, *def_level_encoding]);
                (after_levels(buf, levels, most), *encoding)
            }
            Page::DataPageV2 { buf, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let levels = (*def_levels_byte_len as usize).checked_add(*rep_levels_byte_len as usize);
                (levels.and_then(|levels| buf.get(levels..)), *encoding)
            }
        };
        let streams = match encoding {
            Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            // The lengths of shared beginnings, then those of the rest.
            Encoding::DELTA_BYTE_ARRAY => 2,
            _ => return None,
        };
        if body.is_some_and(<[u8]>::is_empty) {
            // There is nothing to claim.
            return None;
        }
        match body.and_then(|body| claimed_values(body, streams)) {
            None => Some(format!("a page of {most} values has a damaged body")),
            Some(claimed) if claimed > most.min(MAX_DELTA_VALUES) => {
                Some(format!("a page of {most} values claims {claimed} in its body; the most is {MAX_DELTA_VALUES}"))
            }
            Some(_) => None,
        }
    }
}

/// The values of a page of format 1, behind its levels.
fn after_levels(buf: &Bytes, levels: impl Iterator<Item = (i16, Encoding)>, values: u64) -> Option<&[u8]> {
    let mut rest: &[u8] = buf;
    for (max, encoding) in levels.filter(|(max, _)| *max > 0) {
        let bytes = match encoding {
            Encoding::RLE => {
                let (length, behind) = rest.split_first_chunk::<4>()?;
                rest = behind;
                u64::from(u32::from_le_bytes(*length))
            }
            // Of old writers: bit-packed, without a length.
            _ => {
                let bits = u64::from(u16::BITS - max.cast_unsigned().leading_zeros());
                values.checked_mul(bits)?.div_ceil(8)
            }
        };
        rest = rest.get(usize::try_from(bytes).ok()?..)?;
    }
    Some(rest)
}

/// The most values that a body claims in its first streams of delta-encoded integers. `None` where one is damaged.
fn claimed_values(body: &[u8], streams: usize) -> Option<u64> {
    let (mut walk, mut most) = (Walk { rest: body }, 0);
    for stream in 0..streams {
        let (block, mini_blocks, values, _) = (walk.varint()?, walk.varint()?, walk.varint()?, walk.varint()?);
        most = most.max(values);
        if stream + 1 < streams && values <= MAX_DELTA_VALUES {
            skip_blocks(&mut walk, block, mini_blocks, values)?;
        }
    }
    Some(most)
}

/// Skips the blocks of so many values, of which the first is not in them.
fn skip_blocks(walk: &mut Walk<'_>, block: u64, mini_blocks: u64, values: u64) -> Option<()> {
    let in_mini_block = block.checked_div(mini_blocks)?;
    let mut left = values.saturating_sub(1);
    while left > 0 {
        walk.varint()?;
        let widths = walk.rest.get(..usize::try_from(mini_blocks).ok()?)?;
        walk.skip(mini_blocks)?;
        for width in widths {
            // Widths of mini-blocks that hold nothing mean nothing.
            if left > 0 {
                walk.skip(u64::from(*width).checked_mul(in_mini_block)? / 8)?;
            }
            left = left.saturating_sub(in_mini_block);
        }
        if in_mini_block == 0 {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXTS: PageShape = PageShape { max_levels: [0, 0], value_bytes: 4 };

    fn page(body: &[u8], encoding: Encoding) -> Page {
        let buf = Bytes::copy_from_slice(body);
        let (def_level_encoding, rep_level_encoding) = (Encoding::RLE, Encoding::RLE);
        Page::DataPage { buf, num_values: 3, encoding, def_level_encoding, rep_level_encoding, statistics: None }
    }

    #[test]
    fn counts_beyond_those_of_the_header_are_refused() {
        // Block size 128, 4 mini-blocks, 3 values, the first of which is 0; then the smallest delta and four widths.
        let stream = |values: &[u8]| [&[0x80, 0x01, 0x04], values, &[0, 0, 0, 0, 0, 0]].concat();
        let (sound, huge) = (stream(&[3]), stream(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]));
        for encoding in [Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_LENGTH_BYTE_ARRAY] {
            assert_eq!(TEXTS.problem(&page(&sound, encoding)), None);
            let problem = TEXTS.problem(&page(&huge, encoding)).unwrap();
            assert!(problem.starts_with("a page of 3 values claims 562949953421311 in its body"), "{problem}");
        }
        let both = |first: &[u8], second: &[u8]| page(&[first, second].concat(), Encoding::DELTA_BYTE_ARRAY);
        assert_eq!(TEXTS.problem(&both(&sound, &sound)), None);
        for page in [both(&huge, &sound), both(&sound, &huge)] {
            assert!(TEXTS.problem(&page).unwrap().contains("claims 562949953421311"));
        }
        assert!(TEXTS.problem(&both(&sound[..6], &[])).unwrap().contains("damaged"));
    }

    #[test]
    fn levels_before_the_values_are_skipped() {
        let levels = PageShape { max_levels: [1, 2], value_bytes: 4 };
        let huge = [0x80, 0x01, 0x04, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        let body = [&[2, 0, 0, 0, 9, 9, 1, 0, 0, 0, 9][..], &huge].concat();
        let problem = levels.problem(&page(&body, Encoding::DELTA_BINARY_PACKED)).unwrap();
        assert!(problem.contains("claims 4294967295"), "{problem}");
        let cut = levels.problem(&page(&[9, 0, 0, 0], Encoding::DELTA_BINARY_PACKED)).unwrap();
        assert!(cut.contains("damaged"), "{cut}");
    }

    #[test]
    fn a_dictionary_has_the_bytes_for_its_values() {
        let dictionary = |num_values| Page::DictionaryPage {
            buf: Bytes::from_static(b"\x01\0\0\0a\x01\0\0\0b"),
            num_values,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        assert_eq!(TEXTS.problem(&dictionary(2)), None);
        assert!(TEXTS.problem(&dictionary(3)).unwrap().contains("claims 3 values in 10 bytes"));
    }
}
