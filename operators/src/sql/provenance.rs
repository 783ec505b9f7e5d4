//! Which output columns of a query hold the values of input columns as they were, and so keep what was known of them: that
//! they are JSON.
//!
//! A field of Arrow is marked as JSON by metadata, which DataFusion passes on where it should not (through a function of the
//! field) and drops where it should not (in CASE). So the marks are worked out here, from the plan before it is optimised:
//! afterwards `CAST(body AS string)`, which makes text of JSON, is the same as `body`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::logical_plan as df;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use logmill_pipelines::ColumnType;

/// Where the values of a column come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Provenance {
    /// They are those of a column like this one, or null.
    Kept(FieldRef),
    /// All of them are null.
    Null,
    /// They are computed.
    Computed,
}

use Provenance::{Computed, Kept, Null};

impl Provenance {
    /// Of values that come from either.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Null, other) | (other, Null) => other,
            (Kept(one), Kept(other)) if is_alike(&one, &other) => Kept(one),
            _ => Computed,
        }
    }

    /// Of a part of the values.
    fn part(self, part: impl FnOnce(&DataType) -> Option<FieldRef>) -> Self {
        match self {
            Kept(field) => part(field.data_type()).map_or(Computed, Kept),
            other => other,
        }
    }
}

/// Whether two fields are of one type, down to the JSON in it.
fn is_alike(one: &Field, other: &Field) -> bool {
    matches!((ColumnType::from_field(one), ColumnType::from_field(other)), (Ok(one), Ok(other)) if one == other)
}

/// The provenance of a plan's columns.
pub(super) fn columns(plan: &LogicalPlan) -> Vec<Provenance> {
    let computed = || vec![Computed; plan.schema().fields().len()];
    let found = match plan {
        LogicalPlan::TableScan(node) => {
            node.projected_schema.fields().iter().map(|field| Kept(Arc::clone(field))).collect()
        }
        LogicalPlan::Projection(node) => {
            let input = columns(&node.input);
            node.expr.iter().map(|expr| of(expr, node.input.schema(), &input)).collect()
        }
        LogicalPlan::Filter(node) => columns(&node.input),
        LogicalPlan::SubqueryAlias(node) => columns(&node.input),
        LogicalPlan::Subquery(node) => columns(&node.subquery),
        LogicalPlan::Distinct(Distinct::All(input)) => columns(input),
        LogicalPlan::Join(node) => of_join(node),
        LogicalPlan::Union(node) => {
            let inputs = node.inputs.iter().map(|input| columns(input));
            inputs
                .reduce(|all, more| all.into_iter().zip(more).map(|(one, other)| one.or(other)).collect())
                .unwrap_or_default()
        }
        LogicalPlan::Unnest(node) => of_unnest(node),
        _ => computed(),
    };
    // A node that is not as expected has no column that is known to be kept.
    if found.len() == plan.schema().fields().len() { found } else { computed() }
}

fn of_join(node: &df::Join) -> Vec<Provenance> {
    let (left, right) = (columns(&node.left), columns(&node.right));
    match node.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti => left,
        JoinType::RightSemi | JoinType::RightAnti => right,
        JoinType::LeftMark => left.into_iter().chain([Computed]).collect(),
        JoinType::RightMark => right.into_iter().chain([Computed]).collect(),
        _ => left.into_iter().chain(right).collect(),
    }
}

fn of_unnest(node: &df::Unnest) -> Vec<Provenance> {
    let input = columns(&node.input);
    let of_output = |index: &usize| {
        let kept = input.get(*index).cloned().unwrap_or(Computed);
        let mut lists = node.list_type_columns.iter().filter(|(of, _)| of == index);
        match (lists.next(), lists.next(), node.struct_type_columns.contains(index)) {
            (None, _, false) => kept,
            (Some((_, list)), None, _) if list.depth == 1 => kept.part(item),
            _ => Computed,
        }
    };
    node.dependency_indices.iter().map(of_output).collect()
}

fn of(expr: &Expr, schema: &DFSchema, input: &[Provenance]) -> Provenance {
    let of_arg = |expr: &Expr| of(expr, schema, input);
    match expr {
        Expr::Column(column) => {
            schema.maybe_index_of_column(column).and_then(|index| input.get(index).cloned()).unwrap_or(Computed)
        }
        Expr::Alias(alias) => of_arg(&alias.expr),
        Expr::Literal(value, _) if value.is_null() => Null,
        // A cast to the same type says that the value is meant as text.
        Expr::Cast(cast) if of_arg(&cast.expr) == Null => Null,
        Expr::Case(case) => {
            let branches = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            branches.map(|branch| of_arg(branch)).fold(Null, Provenance::or)
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => match (func.name(), args.as_slice()) {
            ("coalesce" | "nvl" | "ifnull", args) => args.iter().map(of_arg).fold(Null, Provenance::or),
            ("nvl2", [_, rest @ ..]) => rest.iter().map(of_arg).fold(Null, Provenance::or),
            ("nullif", [value, _]) => of_arg(value),
            ("get_field", [value, path @ ..]) => {
                path.iter().fold(of_arg(value), |value, name| value.part(|kind| member(kind, name)))
            }
            ("array_element", [list, _]) => of_arg(list).part(item),
            _ => Computed,
        },
        Expr::ScalarSubquery(subquery) => columns(&subquery.subquery).into_iter().next().unwrap_or(Computed),
        _ => Computed,
    }
}

fn item(kind: &DataType) -> Option<FieldRef> {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(Arc::clone(item)),
        _ => None,
    }
}

fn member(kind: &DataType, name: &Expr) -> Option<FieldRef> {
    let (DataType::Struct(fields), Expr::Literal(name, _)) = (kind, name) else { return None };
    let name = name.try_as_str().flatten()?;
    fields.find(name).map(|(_, field)| Arc::clone(field))
}

/// The field of an output column: of this type, null or not, and JSON where its values are known to be.
pub(super) fn output_field(field: &Field, provenance: &Provenance) -> Field {
    let plain = Field::new(field.name(), without_marks(field.data_type()), true);
    let Kept(kept) = provenance else { return plain };
    if without_marks(kept.data_type()) != *plain.data_type() {
        return plain;
    }
    let marked = plain.with_data_type(kept.data_type().clone());
    match ColumnType::from_field(kept) {
        Ok(ColumnType::Json) => ColumnType::Json.to_field(field.name()),
        _ => marked,
    }
}

/// A type whose nested fields carry no metadata.
fn without_marks(kind: &DataType) -> DataType {
    let plain =
        |field: &FieldRef| Arc::new(Field::new(field.name(), without_marks(field.data_type()), field.is_nullable()));
    match kind {
        DataType::List(item) => DataType::List(plain(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        other => other.clone(),
    }
}
