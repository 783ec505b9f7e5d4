//! Physical expressions: columns in, a column out; and the narrowing of what they read.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::prep_null_mask_filter;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::context::state;

/// An expression over the columns of a batch, by their numbers.
pub(super) type Compiled = Arc<dyn PhysicalExpr>;

/// Compiles an expression over the columns of a schema.
pub(super) fn compile(expr: &Expr, schema: &DFSchema) -> Result<Compiled> {
    let mut props = ExecutionProps::new();
    props.config_options = Some(Arc::clone(state().config_options()));
    create_physical_expr(expr, schema, &props, &PhysicalPlanningContext::default())
}

/// Evaluates an expression to one value a row.
pub(super) fn evaluate(expr: &Compiled, batch: &RecordBatch) -> Result<ArrayRef> {
    let array = expr.evaluate(batch)?.into_array(batch.num_rows())?;
    // A function that answers with fewer rows would misalign columns: better to fail.
    if array.len() == batch.num_rows() {
        Ok(array)
    } else {
        exec_err!("{expr} gave {} values for {} rows", array.len(), batch.num_rows())
    }
}

/// The rows for which a condition is true, from its values. Null is not true. `None` means that all rows pass.
pub(super) fn passing(predicate: &Compiled, values: &ArrayRef) -> Result<Option<BooleanArray>> {
    let Some(mask) = values.as_any().downcast_ref::<BooleanArray>() else {
        return exec_err!("the condition {predicate} is {}, not a boolean", values.data_type());
    };
    let mask = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
    Ok((mask.true_count() < mask.len()).then_some(mask))
}

/// The numbers of the columns that expressions read, ascending.
pub(super) fn columns_read<'a>(exprs: impl IntoIterator<Item = &'a Compiled>) -> Vec<usize> {
    let columns = exprs.into_iter().flat_map(|expr| collect_columns(expr).into_iter().map(|column| column.index()));
    let mut indices: Vec<usize> = columns.collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

/// Rewrites an expression for a batch that has only the columns `kept`, in this order.
pub(super) fn renumber(expr: &Compiled, kept: &[usize]) -> Result<Compiled> {
    let renumbered = Arc::clone(expr).transform_down(|expr| {
        let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
        match kept.iter().position(|index| *index == column.index()) {
            Some(position) => Ok(Transformed::yes(Arc::new(Column::new(column.name(), position)) as Compiled)),
            None => exec_err!("column {column} is not kept"),
        }
    })?;
    Ok(renumbered.data)
}

/// The number of the column that an expression is, if it is nothing more.
pub(super) fn as_column(expr: &Compiled) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}
