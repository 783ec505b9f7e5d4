//! `IN` with a subquery, in three-valued logic.
//!
//! DataFusion turns subqueries into joins, in which `IN` and `EXISTS` look the same, with a mark that is true or false; that
//! `x IN (SELECT …)` may be null is lost. So, before it does, each `IN` gets a key by which its join is recognised. An `IN`
//! whose value is used becomes two joins; the second says whether the value is null:
//!
//! ```text
//!   x NOT IN S, as a condition    rows without a match, for which it is not null either
//!   x IN S, as a value            CASE WHEN <x in S> THEN true WHEN <x in S is null> THEN NULL ELSE false END
//! ```

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Subquery, Volatility, lit, when,
};

/// The column of a subquery that `IN` compares with.
const IN_KEY: &str = "__in_key";
/// The same, where the join says whether `IN` is null.
const IN_KEY_UNKNOWN: &str = "__in_key_unknown";

/// What a join that came of `IN` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InJoin {
    /// Whether there is a match.
    Found,
    /// Whether `IN` is null.
    Unknown,
}

/// What a join says whose key on the subquery's side is this column; `None` if it is not the key of `IN`.
pub(super) fn in_join(key: &Expr) -> Option<InJoin> {
    let Expr::Column(column) = key else { return None };
    match column.name.as_str() {
        IN_KEY => Some(InJoin::Found),
        IN_KEY_UNKNOWN => Some(InJoin::Unknown),
        _ => None,
    }
}

/// Marks every `IN` of a plan's conditions.
pub(super) fn mark(plan: LogicalPlan) -> Result<LogicalPlan> {
    let marked = plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::Filter(mut filter) = plan else { return Ok(Transformed::no(plan)) };
        let conditions = split_conjunction_owned(filter.predicate.clone()).into_iter().map(mark_condition);
        let Some(predicate) = conjunction(conditions.collect::<Result<Vec<_>>>()?) else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        filter.predicate = predicate;
        Ok(Transformed::yes(LogicalPlan::Filter(filter)))
    })?;
    Ok(marked.data)
}

/// A condition that rows must meet, of which null and false are the same.
fn mark_condition(condition: Expr) -> Result<Expr> {
    let condition = match condition {
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(found) => Expr::InSubquery(InSubquery { negated: !found.negated, ..found }),
            inner => Expr::Not(Box::new(inner)),
        },
        condition => condition,
    };
    match condition {
        Expr::InSubquery(found) => Ok(Expr::InSubquery(keyed(&found, IN_KEY, found.negated)?)),
        condition => Ok(condition.transform_up(mark_value)?.data),
    }
}

fn mark_value(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::InSubquery(found) = expr else { return Ok(Transformed::no(expr)) };
    let is_in = Expr::InSubquery(keyed(&found, IN_KEY, false)?);
    let is_unknown = Expr::InSubquery(keyed(&found, IN_KEY_UNKNOWN, false)?);
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    let value = when(is_in, lit(!found.negated)).when(is_unknown, null).otherwise(lit(found.negated))?;
    Ok(Transformed::yes(value))
}

/// `IN` whose sides the optimizer cannot see through, and whose join is known by the name of its key.
fn keyed(found: &InSubquery, name: &str, negated: bool) -> Result<InSubquery> {
    if !found.expr.any_column_refs() {
        return plan_err!("a constant before IN and a subquery is not supported; compare in the subquery, with EXISTS");
    }
    let query = found.subquery.subquery.as_ref().clone();
    let column = Expr::Column(query.schema().columns().swap_remove(0));
    let query = LogicalPlanBuilder::from(query).project([column.alias(name)])?.build()?;
    let subquery = Subquery { subquery: Arc::new(query), ..found.subquery.clone() };
    Ok(InSubquery { expr: Box::new(OPAQUE.call(vec![found.expr.as_ref().clone()])), subquery, negated })
}

/// A function that gives what it is given. What the optimizer concludes from the equality of two columns does not hold
/// for `IN`, where null is not just another value.
static OPAQUE: LazyLock<ScalarUDF> =
    LazyLock::new(|| ScalarUDF::new_from_impl(Opaque { signature: Signature::any(1, Volatility::Immutable) }));

#[derive(Debug, PartialEq, Eq, Hash)]
struct Opaque {
    signature: Signature,
}

impl ScalarUDFImpl for Opaque {
    fn name(&self) -> &'static str {
        "in_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [argument] => Ok(argument.clone()),
            _ => plan_err!("it takes one argument"),
        }
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.pop() {
            Some(argument) => Ok(argument),
            None => plan_err!("it takes one argument"),
        }
    }
}
