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

/// Cuts row batches by the values of some columns.
pub(super) struct Partitioner {
    columns: Vec<usize>,
    kept: Vec<usize>,
    schema: SchemaRef,
    file_schema: SchemaRef,
    converter: Option<RowConverter>,
    ids: HashMap<Box<[u8]>, u32, Xxh3DefaultBuilder>,
    folders: Vec<String>,
}

/// The rows of one partition, without the partition columns.
pub(super) struct Part {
    /// The partition's number since the last `forget`.
    pub(super) partition: usize,
    /// Its rows.
    pub(super) rows: RecordBatch,
}

impl Partitioner {
    /// Cuts rows of `schema` by the columns named, which it must have.
    pub(super) fn new(schema: &SchemaRef, names: &[String]) -> Result<Self, ArrowError> {
        let columns = names.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let kept: Vec<usize> = (0..schema.fields().len()).filter(|index| !columns.contains(index)).collect();
        let file_schema = Arc::new(schema.project(&kept)?);
        let fields = columns.iter().map(|&index| SortField::new(schema.field(index).data_type().clone())).collect();
        let converter = if columns.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        let folders = if columns.is_empty() { vec![String::new()] } else { Vec::new() };
        Ok(Self { columns, kept, schema: schema.clone(), file_schema, converter, ids: HashMap::default(), folders })
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
        self.folders.get(partition).map_or("", String::as_str)
    }

    /// Forgets the partitions seen, so that a column of many values doesn't grow the table for ever.
    pub(super) fn forget(&mut self) {
        if self.converter.is_some() {
            self.ids.clear();
            self.folders.clear();
        }
    }

    /// Cuts a batch; the parts come in the order in which their partitions were first seen.
    pub(super) fn cut(&mut self, rows: &RecordBatch) -> Result<Vec<Part>, ArrowError> {
        let Some(converter) = &mut self.converter else {
            return Ok(vec![Part { partition: 0, rows: rows.clone() }]);
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
                        self.folders.push(folder_name(&self.schema, &self.columns, &keys, index)?);
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

    fn gather(&self, rows: &RecordBatch, partition_of_row: &[u32], counts: &[u32]) -> Result<Vec<Part>, ArrowError> {
        let kept = rows.project(&self.kept)?;
        let occupied = counts.iter().filter(|&&count| count > 0).count();
        let sorted = if occupied <= 1 { kept } else { take_record_batch(&kept, &sort_rows(partition_of_row, counts))? };
        let mut parts = Vec::with_capacity(occupied);
        let mut start = 0;
        for (partition, &count) in counts.iter().enumerate() {
            if count > 0 {
                let rows = sorted.slice(start, count as usize);
                parts.push(Part { partition, rows });
                start += count as usize;
            }
        }
        Ok(parts)
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
            escape(&formatter.value(0).try_to_string()?, &mut folder);
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
