//! Plans a query and, where DataFusion refuses, finds the expressions that are to blame.
//!
//! Many of its errors say no place. So an expression that is to blame is found by experiment: replace expressions
//! by NULL, from the first on, until the error is another; the last one replaced is guilty. Its parts are tried the
//! same way, and the search descends as long as exactly one part is guilty. With the guilty one left out, planning
//! goes on to the next error: thus one run tells all that do not depend on each other.

use std::ops::ControlFlow;

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, Spanned, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Span;

use logmill_pipelines::flow::RESERVED_PREFIX;
use logmill_pipelines::nearest;

use super::context::{Relations, relation_name};
use super::error::{Place, SqlError};
use super::output;
use super::parse::{Parsed, lowercase_first, without_kind};
use super::plan::{Relation, quoted};
use super::provenance::Provenance;
use super::wildcard::hide_meta_columns;

/// How many errors one run tells at most; finding one plans the query a few times.
const MAX_ERRORS: usize = 10;

/// How the message of a column that is not there begins.
const UNKNOWN_COLUMN: &str = "unknown column";

/// How a query is planned: with all rules, or only as far as names go.
type Planner = fn(&Query, &Relations) -> Result<LogicalPlan, DataFusionError>;

/// Plans a query that the gate let pass, and finds out where the values of its columns come from.
pub(super) fn plan(
    parsed: &Parsed,
    context: &Relations,
    relations: &[Relation],
) -> Result<(LogicalPlan, Vec<Provenance>), Vec<SqlError>> {
    let plan = plan_with(super::logical::plan, parsed, context, relations)?;
    let mut query = parsed.query.as_ref().clone();
    hide_meta_columns(&mut query, relations);
    // What could be planned can be analyzed once more.
    let provenance = super::logical::provenance(&query, context).unwrap_or_default();
    Ok((plan, provenance))
}

fn plan_with(
    planner: Planner,
    parsed: &Parsed,
    context: &Relations,
    relations: &[Relation],
) -> Result<LogicalPlan, Vec<SqlError>> {
    let mut query = parsed.query.as_ref().clone();
    hide_meta_columns(&mut query, relations);
    let mut errors: Vec<SqlError> = Vec::new();
    while errors.len() < MAX_ERRORS {
        let error = match planner(&query, context) {
            Ok(plan) if errors.is_empty() => {
                let errors = output::check_schema(&parsed.query, plan.schema().as_arrow());
                return if errors.is_empty() { Ok(plan) } else { Err(errors) };
            }
            Ok(_) => break,
            Err(error) => error,
        };
        let guilty = guilty_expressions(&query, &error, &|query| planner(query, context));
        let is_consequence = guilty.iter().any(|found| found.contains_blank);
        if is_consequence && !errors.is_empty() {
            break;
        }
        let place = parsed.tokens.first();
        let (message, hint) = describe(error.find_root());
        if guilty.is_empty() {
            // Without a place, an error may as well be a consequence of those before.
            if errors.is_empty() {
                let union = parsed.tokens.last_keyword(&[Keyword::UNION]).filter(|_| message.contains("UNION"));
                errors.push(union.unwrap_or(place).error(message, hint));
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

/// The unknown columns of a query that the gate refuses: those can be told although the rest is not planned.
pub(super) fn unknown_columns(parsed: &Parsed, context: &Relations, relations: &[Relation]) -> Vec<SqlError> {
    let errors = plan_with(super::logical::resolve, parsed, context, relations).err().unwrap_or_default();
    errors.into_iter().filter(|error| error.message.starts_with(UNKNOWN_COLUMN)).collect()
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

fn guilty_expressions(
    query: &Query,
    error: &DataFusionError,
    plan: &dyn Fn(&Query) -> Result<LogicalPlan, DataFusionError>,
) -> Vec<Guilty> {
    let numbered = number(query);
    let told: Vec<Guilty> = error.iter().filter_map(|error| told_by_diagnostic(error, &numbered)).collect();
    if !told.is_empty() {
        return told;
    }
    let same = |indices: &[usize]| match plan(&blank(query, indices)) {
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
        for outer in if is_blank { self.open.as_slice() } else { &[] } {
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
pub fn describe(error: &DataFusionError) -> (String, Option<String>) {
    match error {
        DataFusionError::SchemaError(schema_error, _) => describe_schema_error(schema_error),
        other => {
            let message = other.message();
            let mut lines = message.lines();
            let first = without_wrapping(lines.next().unwrap_or_default());
            let mut candidates = lines.skip_while(|line| !line.contains("Candidate functions"));
            let hint = candidates.next().and_then(|_| {
                // What a function of a module takes is said by its own message.
                let is_form = |line: &&str| !line.is_empty() && !line.contains("UserDefined");
                let forms: Vec<&str> = candidates.map(str::trim).filter(is_form).take(4).collect();
                (!forms.is_empty()).then(|| format!("it takes {}", forms.join(" or ")))
            });
            (lowercase_first(first), hint)
        }
    }
}

/// A message without the kinds of error that wrap it and what it repeats.
fn without_wrapping(message: &str) -> &str {
    let message = message.rsplit_once(", errors: ").map_or(message, |(_, inner)| inner);
    let message = message.rsplit("Error during planning: ").next().unwrap_or(message);
    let message = without_kind(message.strip_prefix("Internal error: ").unwrap_or(message));
    let message = [" (DataType: ", " No function matches", " You might need to add"]
        .iter()
        .fold(message, |message, rest| message.split(rest).next().filter(|first| !first.is_empty()).unwrap_or(message));
    message.trim_end_matches(['.', ' ', ','])
}

fn describe_schema_error(error: &SchemaError) -> (String, Option<String>) {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => describe_unknown_column(field, valid_fields),
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

fn describe_unknown_column(field: &Column, valid: &[Column]) -> (String, Option<String>) {
    let distinct = |mut names: Vec<String>| {
        names.sort_unstable();
        names.dedup();
        names
    };
    let is_meant = |column: &Column| match (&column.relation, &field.relation) {
        (Some(of), Some(named)) => of.resolved_eq(named),
        (_, named) => named.is_none(),
    };
    if let Some(relation) = field.relation.as_ref().filter(|_| !valid.iter().any(is_meant)) {
        let relation = relation_name(relation);
        let relations = distinct(valid.iter().filter_map(|c| c.relation.as_ref()).map(relation_name).collect());
        let hint = format!("FROM names {}", quoted(relations.iter().map(String::as_str)));
        return (format!("{UNKNOWN_COLUMN} `{}`: nothing is called `{relation}`", field.flat_name()), Some(hint));
    }
    let names = distinct(valid.iter().filter(|column| is_meant(column)).map(|column| column.name.clone()).collect());
    let names = || names.iter().map(String::as_str);
    let visible: Vec<&str> = names().filter(|name| !name.starts_with(RESERVED_PREFIX)).collect();
    let exact_case = names().find(|name| name.eq_ignore_ascii_case(&field.name) && *name != field.name);
    let hint = match (exact_case, nearest(&field.name, names())) {
        (Some(name), _) => Some(format!("names keep their case only in quotes: write \"{name}\"")),
        (None, Some(name)) if name != field.name => Some(format!("did you mean `{name}`?")),
        _ if visible.is_empty() => None,
        _ => Some(format!("there are {}", quoted(visible))),
    };
    (format!("{UNKNOWN_COLUMN} `{}`", field.flat_name()), hint)
}
