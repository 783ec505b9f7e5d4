//! How many bytes a row takes, so that rows are multiplied in pieces that fit into memory.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;

/// No row of the columns takes more bytes than this. It may say more than the widest row has, where that has lists.
pub(super) fn widest_row(columns: &[ArrayRef]) -> usize {
    columns.iter().map(|column| widest_value(column.as_ref())).fold(0, usize::saturating_add)
}

fn widest_value(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::Utf8 => widest(array.as_string::<i32>().offsets()),
        DataType::LargeUtf8 => widest(array.as_string::<i64>().offsets()),
        DataType::Binary => widest(array.as_binary::<i32>().offsets()),
        DataType::LargeBinary => widest(array.as_binary::<i64>().offsets()),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            widest(lists.offsets()).saturating_mul(widest_value(lists.values().as_ref()))
        }
        DataType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            widest(lists.offsets()).saturating_mul(widest_value(lists.values().as_ref()))
        }
        DataType::FixedSizeList(_, length) => {
            let values = widest_value(array.as_fixed_size_list().values().as_ref());
            values.saturating_mul(length.unsigned_abs() as usize)
        }
        DataType::Struct(_) => widest_row(array.as_struct().columns()),
        other => other.primitive_width().unwrap_or_else(|| array.get_array_memory_size() / array.len().max(1)),
    }
}

fn widest<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> usize {
    offsets.windows(2).map(|pair| (pair[1] - pair[0]).as_usize()).max().unwrap_or(0) + size_of::<O>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn the_widest_row_is_that_of_the_longest_values() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "four", ""]));
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1); 3]), None, Some(vec![])]);
        let lists: ArrayRef = Arc::new(lists);
        assert_eq!(widest_row(std::slice::from_ref(&numbers)), 8);
        assert_eq!(widest_row(&[numbers, texts.clone()]), 8 + 4 + 4);
        assert_eq!(widest_row(&[texts.slice(2, 1)]), 4);
        assert!((3 * 8..100).contains(&widest_row(&[lists])));
    }
}
