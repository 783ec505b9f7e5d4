//! Cuts row batches by their partition columns, and names the folders.
//!
//! Grouping is vectorised: the partition columns of a batch become comparable row keys, a counting sort of the row
//! numbers brings equal keys together, one `take` moves the rows, and each partition's rows are a slice of the result.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

/// The folder of rows whose partition column is null.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// Whether the destination can take files of a folder; the text says why not.
pub(super) type CheckFolder = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// Cuts row batches by the values of some columns.
pub(super) struct Partitioner {
    columns: Vec<usize>,
    kept: Vec<usize>,
    schema: SchemaRef,
    file_schema: SchemaRef,
    converter: Option<RowConverter>,
    check: CheckFolder,
    ids: HashMap<Box<[u8]>, u32, Xxh3DefaultBuilder>,
    folders: Vec<Folder>,
}

/// A partition's folder, or why there can be none.
type Folder = Result<String, String>;

/// The rows of one partition, without the partition columns.
pub(super) struct Part {
    /// The partition's number since the last `forget`.
    pub(super) partition: usize,
    /// Its rows.
    pub(super) rows: RecordBatch,
    /// Where in `Cut::order` its rows begin.
    start: usize,
}

/// A batch, cut by partition.
pub(super) struct Cut {
    /// The partitions that the destination takes.
    pub(super) parts: Vec<Part>,
    /// Row numbers of the batch whose partition the destination cannot take, and why.
    pub(super) refused: Vec<(Vec<u32>, String)>,
    /// The row numbers of the batch in the order of the parts; `None` where that is their own order.
    order: Option<UInt32Array>,
}

impl Cut {
    /// The number in the batch of a part's row.
    pub(super) fn row_number(&self, part: &Part, row: usize) -> u32 {
        let at = part.start + row;
        match &self.order {
            Some(order) => order.values().get(at).copied().unwrap_or_default(),
            None => u32::try_from(at).unwrap_or(u32::MAX),
        }
    }
}

impl Partitioner {
    /// Cuts rows of `schema` by the columns named, which it must have.
    pub(super) fn new(schema: &SchemaRef, names: &[String], check: CheckFolder) -> Result<Self, ArrowError> {
        let columns = names.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let kept: Vec<usize> = (0..schema.fields().len()).filter(|index| !columns.contains(index)).collect();
        let file_schema = Arc::new(schema.project(&kept)?);
        let fields = columns.iter().map(|&index| SortField::new(schema.field(index).data_type().clone())).collect();
        let converter = if columns.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        let folders = if columns.is_empty() { vec![Ok(String::new())] } else { Vec::new() };
        let (schema, ids) = (schema.clone(), HashMap::default());
        Ok(Self { columns, kept, schema, file_schema, converter, check, ids, folders })
    }

    /// The columns of the files.
    pub(super) fn file_schema(&self) -> &SchemaRef {
        &self.file_schema
    }

    /// Whether there is but one partition.
    pub(super) fn is_single(&self) -> bool {
        self.converter.is_none()
    }

    /// The folder of a partition, `carrier=AA/origin=JFK/`, or nothing.
    pub(super) fn folder(&self, partition: usize) -> &str {
        self.folders.get(partition).and_then(|folder| folder.as_deref().ok()).unwrap_or_default()
    }

    /// How many partitions were seen since the last `forget`, refused ones included.
    pub(super) fn seen(&self) -> usize {
        self.folders.len()
    }

    /// Forgets the partitions seen, so that a column of many values doesn't grow the table for ever.
    pub(super) fn forget(&mut self) {
        if self.converter.is_some() {
            self.ids.clear();
            self.folders.clear();
        }
    }

    /// Cuts a batch; the parts come in the order in which their partitions were first seen.
    pub(super) fn cut(&mut self, rows: &RecordBatch) -> Result<Cut, ArrowError> {
        let Some(converter) = &mut self.converter else {
            let parts = vec![Part { partition: 0, rows: rows.clone(), start: 0 }];
            return Ok(Cut { parts, refused: Vec::new(), order: None });
        };
        let keys: Vec<ArrayRef> = self.columns.iter().map(|&index| rows.column(index).clone()).collect();
        let converted = converter.convert_columns(&keys)?;
        let mut partition_of_row = Vec::with_capacity(rows.num_rows());
        let mut counts: Vec<u32> = vec![0; self.folders.len()];
        let mut last: Option<(&[u8], u32)> = None;
        for (index, row) in converted.iter().enumerate() {
            let key = row.data();
            let partition = match last {
                Some((same, partition)) if same == key => partition,
                _ => match self.ids.get(key) {
                    Some(&partition) => partition,
                    None => {
                        let partition = u32::try_from(self.folders.len()).unwrap_or(u32::MAX);
                        let folder = folder_name(&self.schema, &self.columns, &keys, index);
                        let folder = folder.map_err(|error| error.to_string());
                        self.folders.push(folder.and_then(|folder| (self.check)(&folder).map(|()| folder)));
                        self.ids.insert(key.into(), partition);
                        counts.push(0);
                        partition
                    }
                },
            };
            last = Some((key, partition));
            partition_of_row.push(partition);
            if let Some(count) = counts.get_mut(partition as usize) {
                *count += 1;
            }
        }
        self.gather(rows, &partition_of_row, &counts)
    }

    fn gather(&self, rows: &RecordBatch, partition_of_row: &[u32], counts: &[u32]) -> Result<Cut, ArrowError> {
        let kept = rows.project(&self.kept)?;
        let occupied = counts.iter().filter(|&&count| count > 0).count();
        let order = (occupied > 1).then(|| sort_rows(partition_of_row, counts));
        let sorted = match &order {
            Some(order) => take_record_batch(&kept, order)?,
            None => kept,
        };
        let mut cut = Cut { parts: Vec::with_capacity(occupied), refused: Vec::new(), order };
        let mut start = 0;
        for (partition, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let part = Part { partition, rows: sorted.slice(start, count as usize), start };
            start += count as usize;
            match self.folders.get(partition) {
                Some(Err(reason)) => {
                    let numbers = (0..count as usize).map(|row| cut.row_number(&part, row)).collect();
                    cut.refused.push((numbers, reason.clone()));
                }
                _ => cut.parts.push(part),
            }
        }
        Ok(cut)
    }
}

/// The row numbers, ordered by partition and within it as they came.
fn sort_rows(partition_of_row: &[u32], counts: &[u32]) -> UInt32Array {
    let mut next = 0;
    let mut starts: Vec<u32> = counts
        .iter()
        .map(|count| {
            let start = next;
            next += count;
            start
        })
        .collect();
    let mut order = vec![0_u32; partition_of_row.len()];
    for (row, &partition) in (0_u32..).zip(partition_of_row) {
        if let Some(start) = starts.get_mut(partition as usize) {
            if let Some(slot) = order.get_mut(*start as usize) {
                *slot = row;
            }
            *start += 1;
        }
    }
    order.into()
}

fn folder_name(schema: &Schema, columns: &[usize], keys: &[ArrayRef], row: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::new();
    let mut folder = String::new();
    for (&column, values) in columns.iter().zip(keys) {
        escape(schema.field(column).name(), &mut folder);
        folder.push('=');
        // A dictionary's null may lie in its values, so the value itself is asked.
        let value = take(values, &UInt32Array::from(vec![u32::try_from(row).unwrap_or(u32::MAX)]), None)?;
        if value.logical_null_count() > 0 {
            folder.push_str(NULL_FOLDER);
        } else {
            let formatter = ArrayFormatter::try_new(&value, &options)?;
            let text = formatter.value(0).try_to_string()?;
            match text.strip_prefix('_') {
                // A text that spells the folder of nulls must not be read back as null.
                Some(rest) if text == NULL_FOLDER => {
                    folder.push_str("%5F");
                    folder.push_str(rest);
                }
                _ => escape(&text, &mut folder),
            }
        }
        folder.push('/');
    }
    Ok(folder)
}

/// Percent-escapes what Hive escapes in partition folders, so that any value is one folder and can be read back.
pub(super) fn escape(text: &str, into: &mut String) {
    for c in text.chars() {
        let special = matches!(
            c,
            '"' | '#'
                | '%'
                | '\''
                | '*'
                | '/'
                | ':'
                | '='
                | '?'
                | '\\'
                | '{'
                | '}'
                | '['
                | ']'
                | '^'
                | '<'
                | '>'
                | '|'
                | '~'
                | '`'
        );
        if special || c.is_ascii_control() {
            let _ = write!(into, "%{:02X}", u32::from(c));
        } else {
            into.push(c);
        }
    }
}
