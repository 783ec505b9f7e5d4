//! Finds what can only fail: calls of constants, such as `CAST('a' AS int)`, and calls that take no column where they are
//! given one, such as `date_trunc(unit, at)`. DataFusion leaves them to fail on every row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result, exec_datafusion_err, plan_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Volatility};

use super::compile::{Compiled, compile, evaluate};
use super::logical::type_name;
use super::narrow::reason;
use crate::panics::catch;

/// Fails if some expression of a plan can only fail.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut failure: Result<()> = Ok(());
    plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        let schema = inputs.first().map_or_else(|| node.schema(), |input| input.schema());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let constant = !matches!(expr, Expr::Alias(_)) && is_constant(expr);
                failure = if constant { check_constant(expr) } else { check_call(expr, schema) };
                Ok(match (&failure, constant) {
                    (Err(_), _) => TreeNodeRecursion::Stop,
                    (Ok(()), true) => TreeNodeRecursion::Jump,
                    (Ok(()), false) => TreeNodeRecursion::Continue,
                })
            })
        })
    })?;
    failure
}

/// Whether an expression has the same value for every row.
fn is_constant(expr: &Expr) -> bool {
    let varies = expr.exists(|part| {
        Ok(match part {
            Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::BinaryExpr(_)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::InList(_)
            | Expr::Between(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::Negative(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_) => false,
            Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Volatile,
            _ => true,
        })
    });
    !varies.unwrap_or(true)
}

fn check_constant(expr: &Expr) -> Result<()> {
    if let Expr::Cast(Cast { expr, field }) = expr
        && let Expr::Literal(value, _) = expr.as_ref()
    {
        return match value.cast_to(field.data_type()) {
            Ok(_) => Ok(()),
            Err(_) => plan_err!("{value:?} is no {}", type_name(field.data_type())),
        };
    }
    // The optimizer has folded what it could.
    if matches!(expr, Expr::Literal(..)) {
        return Ok(());
    }
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    match compile(expr, &DFSchema::empty()) {
        Ok(compiled) => try_evaluate(&compiled, &row).or_else(|error| plan_err!("{}", reason(&error))),
        // What cannot be compiled is told where the plan is lowered.
        Err(_) => Ok(()),
    }
}

/// How many rows of samples a call is tried on.
const SAMPLES: usize = 4;

/// Tries a function on some values of its arguments that are none of them special. If it fails on all of them for the same
/// reason, then it is for the kind of its arguments, and not for their values.
fn check_call(expr: &Expr, schema: &DFSchemaRef) -> Result<()> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return Ok(()) };
    let (mut fields, mut columns, mut sampled) = (Vec::new(), Vec::new(), Vec::new());
    for arg in args {
        if matches!(arg, Expr::Literal(..)) {
            sampled.push(arg.clone());
            continue;
        }
        let Some(samples) = arg.get_type(schema).ok().and_then(|data_type| samples(&data_type)) else { return Ok(()) };
        let name = format!("argument {}", sampled.len());
        fields.push(Field::new(&name, samples.data_type().clone(), true));
        columns.push(samples);
        sampled.push(Expr::Column(datafusion::common::Column::new_unqualified(name)));
    }
    if columns.is_empty() {
        return Ok(());
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let call = Expr::ScalarFunction(ScalarFunction { func: Arc::clone(func), args: sampled });
    let Ok(compiled) = compile(&call, &DFSchema::try_from(rows.schema())?) else { return Ok(()) };
    let failure = |row| try_evaluate(&compiled, &rows.slice(row, 1)).err().map(|error| reason(&error));
    let Some(first) = failure(0) else { return Ok(()) };
    if (1..SAMPLES).all(|row| failure(row).as_ref() == Some(&first)) {
        return plan_err!("`{}` can only fail here: {first}", func.name());
    }
    Ok(())
}

/// Some values of a type; `None` of types whose values say too little.
fn samples(data_type: &DataType) -> Option<ArrayRef> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 0, 2, 12]));
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = StringArray::from(vec!["", "1", "2013-01-01T05:00:00Z", "day"]);
            cast(&texts, data_type).ok()
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let texts = StringArray::from(vec!["", "1", "ff", "text"]);
            cast(&texts, data_type).ok()
        }
        DataType::Boolean => Some(Arc::new(BooleanArray::from(vec![true, false, true, false]))),
        DataType::Date32 => Some(Arc::new(Date32Array::from(vec![1, 0, 15_000, 16_000]))),
        DataType::Timestamp(..) => {
            let times = vec![1, 0, 1_356_998_400_000_000, 1_400_000_000_000_000];
            cast(&TimestampMicrosecondArray::from(times), data_type).ok()
        }
        other if other.is_numeric() => cast(&numbers, other).ok(),
        _ => None,
    }
}

fn try_evaluate(expr: &Compiled, rows: &RecordBatch) -> Result<(), DataFusionError> {
    catch(|| evaluate(expr, rows)).map_err(|panic| exec_datafusion_err!("{panic}"))?.map(drop)
}
