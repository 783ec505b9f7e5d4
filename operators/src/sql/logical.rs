//! From the syntax tree to DataFusion's optimised logical plan, with the wildcard and output rules of streams.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::OptimizerContext;
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{Query, Statement};

use logmill_pipelines::ColumnType;

use super::context::{Relations, optimizer, state};
use super::provenance::{self, Provenance};
use super::timestamps::in_microseconds;
use super::{constants, in_subquery};
use crate::panics::catch;

/// Plans a query: names, types, then the optimizer's rules. `now()` is never folded, there being no query start. The
/// planner panics on a few odd queries, and on constants that a function does not expect: what somebody types must not
/// take the process down.
pub(super) fn plan(query: &Query, context: &Relations) -> Result<LogicalPlan> {
    catch(|| plan_uncaught(query, context)).unwrap_or_else(|panic| plan_err!("{panic}"))
}

fn plan_uncaught(query: &Query, context: &Relations) -> Result<LogicalPlan> {
    let options = state().config_options();
    let plan = with_output_types(analyze(query, context)?)?;
    let config = OptimizerContext::new_with_config_options(Arc::new(options.as_ref().clone()))
        .without_query_execution_start_time();
    let plan = optimizer().optimize(in_subquery::mark(plan)?, &config, |_, _| ())?;
    constants::check(&plan)?;
    Ok(plan)
}

/// Resolves the names and types of a query.
fn analyze(query: &Query, context: &Relations) -> Result<LogicalPlan> {
    let plan = in_microseconds(resolve(query, context)?)?;
    state().analyzer().execute_and_check(plan, state().config_options(), |_, _| ())
}

/// Where the values of a query's columns come from.
pub(super) fn provenance(query: &Query, context: &Relations) -> Result<Vec<Provenance>> {
    Ok(provenance::columns(&analyze(query, context)?))
}

/// Resolves the names of a query, and no more.
pub(super) fn resolve(query: &Query, context: &Relations) -> Result<LogicalPlan> {
    let options = ParserOptions::from(&state().config_options().sql_parser);
    SqlToRel::new_with_options(context, options).sql_statement_to_plan(Statement::Query(Box::new(query.clone())))
}

/// Brings the output's columns to the types that flow between operators.
fn with_output_types(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut exprs = Vec::new();
    let mut changed = false;
    for (qualifier, field) in plan.schema().iter() {
        let column = Expr::Column((qualifier, field).into());
        match flowing_type(field.data_type()) {
            Some(data_type) => {
                changed = true;
                let target = Arc::new(Field::new(field.name(), data_type, field.is_nullable()));
                exprs.push(Expr::Cast(Cast::new_from_field(Box::new(column), target)).alias(field.name()));
            }
            None => exprs.push(column),
        }
    }
    if changed { LogicalPlanBuilder::from(plan).project(exprs)?.build() } else { Ok(plan) }
}

/// The type that a column gets at the output, if it is another. What flows between operators has the types that a schema can
/// declare: other widths, units and encodings are artefacts of functions and casts, and sinks would write them as something
/// that no source reads back. A timestamp keeps its zone.
fn flowing_type(data_type: &DataType) -> Option<DataType> {
    let nested = |field: &FieldRef| -> Option<FieldRef> {
        flowing_type(field.data_type()).map(|t| Arc::new(field.as_ref().clone().with_data_type(t)))
    };
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, _) => None,
        DataType::Timestamp(_, zone) => Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
        DataType::List(item) => nested(item).map(DataType::List),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) => {
            Some(DataType::List(nested(item).unwrap_or_else(|| Arc::clone(item))))
        }
        DataType::Struct(fields) => {
            let inner: Vec<_> = fields.iter().map(nested).collect();
            let changed = inner.iter().any(Option::is_some);
            let merged = fields.iter().zip(inner).map(|(old, new)| new.unwrap_or_else(|| Arc::clone(old)));
            changed.then(|| DataType::Struct(merged.collect()))
        }
        DataType::Dictionary(_, values) => Some(flowing_type(values).unwrap_or_else(|| values.as_ref().clone())),
        // What has no type of ours is refused, and so is what has none at all.
        DataType::Null => None,
        other => ColumnType::from_arrow(other).ok().map(|kind| kind.to_arrow()).filter(|kind| kind != other),
    }
}

/// A type as people write it in a pipeline's schema.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamp".to_owned(),
        DataType::Timestamp(_, None) => "timestamp_local".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Duration(_) => "duration".to_owned(),
        DataType::Interval(_) => "interval".to_owned(),
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| format!("{}: {}", f.name(), type_name(f.data_type())));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}
