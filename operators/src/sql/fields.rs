//! Fields of structs: those of a null struct are null, whatever lies in their columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, make_array};
use arrow::buffer::NullBuffer;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

/// A column whose rows are null where `nulls` says so, too.
pub(super) fn masked(column: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<ArrayRef> {
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        None => Ok(Arc::clone(column)),
        Some(_) if column.data_type().is_null() => Ok(Arc::clone(column)),
        Some(nulls) => {
            let nulls = NullBuffer::union(Some(nulls), column.logical_nulls().as_ref());
            Ok(make_array(column.to_data().into_builder().nulls(nulls).build()?))
        }
    }
}

/// Calls `get_field`, which does not look at the nulls of the structs that it goes through.
pub(super) fn get_field(get_field: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let base = args.args.first().cloned();
    let path: Vec<ColumnarValue> = args.args.iter().skip(1).cloned().collect();
    let found = get_field.invoke_with_args(args)?;
    let Some(base) = base else { return Ok(found) };
    let (rows, scalar) = match (&base, &found) {
        (ColumnarValue::Array(base), _) => (base.len(), false),
        (ColumnarValue::Scalar(_), ColumnarValue::Array(found)) => (found.len(), false),
        _ => (1, true),
    };
    let nulls = nulls_on_path(base.into_array(rows)?, &path);
    if nulls.as_ref().is_none_or(|nulls| nulls.null_count() == 0) {
        return Ok(found);
    }
    let column = masked(&found.into_array(rows)?, nulls.as_ref())?;
    match scalar {
        true => ScalarValue::try_from_array(&column, 0).map(ColumnarValue::Scalar),
        false => Ok(ColumnarValue::Array(column)),
    }
}

/// Where one of the structs is null that a path leads through.
fn nulls_on_path(base: ArrayRef, path: &[ColumnarValue]) -> Option<NullBuffer> {
    let (mut at, mut nulls) = (base, None);
    for name in path {
        let Some(fields) = at.as_struct_opt() else { break };
        nulls = NullBuffer::union(nulls.as_ref(), fields.nulls());
        let ColumnarValue::Scalar(name) = name else { break };
        let Some(Some(name)) = name.try_as_str() else { break };
        let Some(field) = fields.column_by_name(name).cloned() else { break };
        at = field;
    }
    nulls
}
