//! Columns as the bytes of keys and headers.

use arrow::array::{Array, AsArray, BinaryArray, ListArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// A column's values as the bytes of keys and headers: text as UTF-8, numbers in decimal, binary as it is.
pub(super) enum Text {
    Utf8(StringArray),
    Binary(BinaryArray),
}

impl Text {
    pub(super) fn new(rows: &RecordBatch, column: usize) -> Result<Self, ArrowError> {
        let column = rows.column(column);
        Ok(match column.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Binary(cast(column, &DataType::Binary)?.as_binary::<i32>().clone())
            }
            _ => Self::Utf8(cast(column, &DataType::Utf8)?.as_string::<i32>().clone()),
        })
    }

    pub(super) fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Utf8(values) => values.is_valid(row).then(|| values.value(row).as_bytes()),
            Self::Binary(values) => values.is_valid(row).then(|| values.value(row)),
        }
    }
}

/// Which columns become headers.
pub(super) enum HeaderColumns {
    /// One that holds all of them.
    All(usize),
    /// One for each, with the header's name.
    Each(Vec<(String, usize)>),
}

/// The headers of some rows.
pub(super) enum RowHeaders<'a> {
    All(Box<ListedHeaders>),
    Each(Vec<(&'a str, Text)>),
}

/// Headers as a column has them: the lists of the rows, and the parts of all headers.
pub(super) struct ListedHeaders {
    lists: ListArray,
    names: StringArray,
    values: BinaryArray,
}

impl HeaderColumns {
    /// The headers of these rows.
    pub(super) fn read(&self, rows: &RecordBatch) -> Result<RowHeaders<'_>, ArrowError> {
        match self {
            Self::Each(columns) => {
                let columns = columns.iter().map(|(name, column)| Ok((name.as_str(), Text::new(rows, *column)?)));
                columns.collect::<Result<_, ArrowError>>().map(RowHeaders::Each)
            }
            Self::All(column) => {
                let unfit = || ArrowError::SchemaError("headers are a list of structs of `key` and `value`".into());
                let lists = rows.column(*column).as_list_opt::<i32>().ok_or_else(unfit)?.clone();
                let structs = lists.values().as_struct_opt().ok_or_else(unfit)?;
                let part = |name: &str, to| cast(structs.column_by_name(name).ok_or_else(unfit)?, to);
                let names = part("key", &DataType::Utf8)?.as_string::<i32>().clone();
                let values = part("value", &DataType::Binary)?.as_binary::<i32>().clone();
                Ok(RowHeaders::All(Box::new(ListedHeaders { lists, names, values })))
            }
        }
    }
}

impl RowHeaders<'_> {
    /// Adds the headers of a row, in their order.
    pub(super) fn of_row<'a>(&'a self, row: usize, headers: &mut Vec<(&'a str, Option<&'a [u8]>)>) {
        match self {
            Self::Each(columns) => headers.extend(columns.iter().map(|(name, values)| (*name, values.get(row)))),
            Self::All(listed) => listed.of_row(row, headers),
        }
    }
}

impl ListedHeaders {
    fn of_row<'a>(&'a self, row: usize, headers: &mut Vec<(&'a str, Option<&'a [u8]>)>) {
        if self.lists.is_null(row) {
            return;
        }
        let offsets = self.lists.value_offsets();
        let start = offsets.get(row).map_or(0, |at| *at as usize);
        let end = offsets.get(row + 1).map_or(start, |at| *at as usize);
        let value = |at: usize| self.values.is_valid(at).then(|| self.values.value(at));
        // A header needs a name: what has none is none.
        let named = (start..end).filter(|at| self.names.is_valid(*at));
        headers.extend(named.map(|at| (self.names.value(at), value(at))));
    }
}

/// Whether a column of this type can hold headers.
pub(super) fn holds_headers(kind: &DataType) -> bool {
    let DataType::List(item) = kind else { return false };
    let DataType::Struct(fields) = item.data_type() else { return false };
    let kind = |name: &str| fields.find(name).map(|(_, field)| field.data_type());
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_bytes = |kind: &DataType| matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    kind("key").is_some_and(is_text) && kind("value").is_some_and(|kind| is_bytes(kind) || is_text(kind))
}
