//! Plans a query and, where DataFusion refuses, finds the expressions that are to blame.
//!
//! Many of its errors say no place. So an expression that is to blame is found by experiment: replace expressions
//! by NULL, from the first on, until the error is another; the last one replaced is guilty. Its parts are tried the
//! same way, and the search descends as long as exactly one part is guilty. With the guilty one left out, planning
//! goes on to the next error: thus one run tells all that do not depend on each other.

use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, Spanned, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::context::Relations;
use super::error::{Place, SqlError, nearest};
use super::logical;
use super::output;
use super::parse::{Parsed, lowercase_first};
use super::plan::{Relation, quoted};
use super::wildcard::hide_meta_columns;

/// How many errors one run tells at most; finding one plans the query a few times.
const MAX_ERRORS: usize = 10;

/// Plans a query that the gate let pass.
pub(super) fn plan(parsed: &Parsed, context: &Relations, relations: &[Relation]) -> Result<LogicalPlan, Vec<SqlError>> {
    let mut query = parsed.query.as_ref().clone();
    hide_meta_columns(&mut query, relations);
    let mut errors: Vec<SqlError> = Vec::new();
    while errors.len() < MAX_ERRORS {
        let error = match logical::plan(&query, context) {
            Ok(plan) if errors.is_empty() => {
                let errors = output::check_schema(&parsed.query, plan.schema().as_arrow());
                return if errors.is_empty() { Ok(plan) } else { Err(errors) };
            }
            Ok(_) => break,
            Err(error) => error,
        };
        let guilty = guilty_expressions(&query, &error, context);
        let is_consequence = guilty.iter().any(|found| found.contains_blank);
        if is_consequence && !errors.is_empty() {
            break;
        }
        let place = parsed.tokens.first();
        let (message, hint) = describe(error.find_root());
        if guilty.is_empty() {
            // Without a place, an error may as well be a consequence of those before.
            if errors.is_empty() {
                errors.push(place.error(message, hint));
            }
            break;
        }
        for found in &guilty {
            let (message, hint) = found.error.clone().unwrap_or_else(|| (message.clone(), hint.clone()));
            errors.push(found.place.unwrap_or(place).error(message, hint));
        }
        let mut indices: Vec<usize> = guilty.into_iter().map(|found| found.index).collect();
        indices.sort_unstable();
        query = blank(&query, &indices);
    }
    Err(errors)
}

/// An expression that is to blame.
struct Guilty {
    /// Its number in the order of [`Numbering`].
    index: usize,
    place: Option<Place>,
    /// Whether a part of it is an earlier culprit, already blanked out.
    contains_blank: bool,
    /// What is wrong with it, if it is not the error as a whole.
    error: Option<(String, Option<String>)>,
}

impl Guilty {
    fn new(numbered: &[Numbered], index: usize) -> Option<Self> {
        let found = numbered.get(index)?;
        Some(Self { index, place: Place::of(found.span), contains_blank: found.contains_blank, error: None })
    }
}

fn guilty_expressions(query: &Query, error: &DataFusionError, context: &Relations) -> Vec<Guilty> {
    let numbered = number(query);
    let told: Vec<Guilty> = error.iter().filter_map(|error| told_by_diagnostic(error, &numbered)).collect();
    if !told.is_empty() {
        return told;
    }
    let same = |indices: &[usize]| match logical::plan(&blank(query, indices), context) {
        Ok(_) => false,
        Err(other) => other.find_root().to_string() == error.find_root().to_string(),
    };
    let roots: Vec<usize> = (0..numbered.len()).filter(|i| numbered[*i].parent.is_none()).collect();
    let Some(count) = (1..=roots.len()).find(|count| !same(&roots[..*count])) else { return Vec::new() };
    let (others, guilty) = (&roots[..count - 1], roots[count - 1]);
    let guilty = descend(&numbered, guilty, |index| {
        let mut indices = others.to_vec();
        indices.push(index);
        !same(&indices)
    });
    Guilty::new(&numbered, guilty).into_iter().collect()
}

/// Goes down from a guilty expression as long as exactly one of its parts is guilty.
fn descend(numbered: &[Numbered], mut guilty: usize, is_guilty: impl Fn(usize) -> bool) -> usize {
    loop {
        let parts = (0..numbered.len()).filter(|i| numbered[*i].parent == Some(guilty));
        let mut guilty_parts = parts.filter(|i| is_guilty(*i));
        match (guilty_parts.next(), guilty_parts.next()) {
            (Some(part), None) => guilty = part,
            _ => return guilty,
        }
    }
}

/// The expression at the place that a diagnostic of DataFusion names.
fn told_by_diagnostic(error: &DataFusionError, numbered: &[Numbered]) -> Option<Guilty> {
    let root = error.find_root();
    if !matches!(root, DataFusionError::SchemaError(..)) {
        return None;
    }
    let place = Place::of_diagnostic(error.diagnostic()?.span?)?;
    let index = numbered.iter().position(|found| Place::of(found.span) == Some(place))?;
    let mut guilty = Guilty::new(numbered, index)?;
    guilty.error = Some(describe(root));
    Some(guilty)
}

/// An expression of a query.
struct Numbered {
    span: Span,
    parent: Option<usize>,
    contains_blank: bool,
}

/// Numbers the expressions of a query, each before its parts.
fn number(query: &Query) -> Vec<Numbered> {
    let mut numbering = Numbering::default();
    let _ = query.clone().visit(&mut numbering);
    numbering.found
}

/// Replaces the expressions of these numbers, in ascending order, by NULL.
fn blank(query: &Query, indices: &[usize]) -> Query {
    let mut query = query.clone();
    let _ = query.visit(&mut Numbering { blank: indices.to_vec(), ..Numbering::default() });
    let _ = query.visit(&mut NameBlanks { count: 0 });
    query
}

#[derive(Default)]
struct Numbering {
    found: Vec<Numbered>,
    open: Vec<usize>,
    /// The numbers of those to replace.
    blank: Vec<usize>,
}

impl VisitorMut for Numbering {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let index = self.found.len();
        let is_blank = is_blank(expr);
        for outer in is_blank.then_some(self.open.as_slice()).unwrap_or_default() {
            if let Some(outer) = self.found.get_mut(*outer) {
                outer.contains_blank = true;
            }
        }
        self.found.push(Numbered { span: expr.span(), parent: self.open.last().copied(), contains_blank: is_blank });
        self.open.push(index);
        if self.blank.contains(&index) {
            // Its parts keep their numbers, so that those after it do.
            let parts = number_parts(expr);
            self.found.extend((0..parts).map(|_| Numbered { span: Span::empty(), parent: None, contains_blank: true }));
            *expr = Expr::Value(ValueWithSpan { value: Value::Null, span: Span::empty() });
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.open.pop();
        ControlFlow::Continue(())
    }
}

/// How many expressions an expression contains.
fn number_parts(expr: &Expr) -> usize {
    let mut numbering = Numbering::default();
    let _ = expr.clone().visit(&mut numbering);
    numbering.found.len().saturating_sub(1)
}

fn is_blank(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(ValueWithSpan { value: Value::Null, span }) if *span == Span::empty())
}

/// Gives blanked columns of a SELECT list names of their own, as two columns `NULL` would clash.
struct NameBlanks {
    count: usize,
}

impl VisitorMut for NameBlanks {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && is_blank(expr)
            {
                self.count += 1;
                let alias = Ident::new(format!("blank {}", self.count));
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }
}

/// An error of DataFusion in our words, with a hint.
fn describe(error: &DataFusionError) -> (String, Option<String>) {
    match error {
        DataFusionError::SchemaError(schema_error, _) => describe_schema_error(schema_error),
        other => {
            let message = other.message();
            let mut lines = message.lines();
            let first = lines.next().unwrap_or_default().trim_end_matches(['.', ' ']);
            let hint = lines.find(|line| line.contains("Candidate functions") || line.contains("Did you mean"));
            (
                lowercase_first(first),
                hint.map(|_| "see the function's arguments: cast them with `CAST(… AS …)`".to_owned()),
            )
        }
    }
}

fn describe_schema_error(error: &SchemaError) -> (String, Option<String>) {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let mut names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let exact_case = names.iter().find(|name| name.eq_ignore_ascii_case(&field.name) && **name != field.name);
            let hint = match (exact_case, nearest(&field.name, names.iter().copied())) {
                (Some(name), _) => Some(format!("names keep their case only in quotes: write \"{name}\"")),
                (None, Some(name)) if name != field.name => Some(format!("did you mean `{name}`?")),
                _ if names.is_empty() => None,
                _ => Some(format!("there are {}", quoted(names))),
            };
            (format!("unknown column `{}`", field.flat_name()), hint)
        }
        SchemaError::AmbiguousReference { field } => {
            let hint = format!("say of which relation: `relation.{}`", field.name);
            (format!("the column `{}` is ambiguous", field.name), Some(hint))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            let hint = "give one of them another name with `AS`".to_owned();
            (format!("two columns are called `{name}`"), Some(hint))
        }
    }
}
