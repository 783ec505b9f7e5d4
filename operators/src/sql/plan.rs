//! The way from a query's text to a plan that workers instantiate: parse, refuse, plan, lower.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::logical_expr::TableSource;
use logmill_pipelines::flow::META_COLUMNS;
use logmill_pipelines::nearest;

use super::chain::{Chain, Source};
use super::context::{RelationSource, Relations};
use super::error::{Place, SqlError};
use super::functions::Functions;
use super::operator::SqlOperator;
use super::parse::{Parsed, parse};
use super::{blame, explain, gate, lower, scope};
use crate::operator::Operator;
use crate::panics::catch;

/// Whether a relation flows or is loaded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    /// It flows: a source or another operator.
    Stream,
    /// It is bounded and loaded whole before the operator opens.
    Table,
}

/// A relation that a query may name.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Its name; `operator.output` for a further output of an operator.
    pub name: Arc<str>,
    /// Its columns.
    pub schema: SchemaRef,
    /// Whether it flows.
    pub kind: RelationKind,
    /// Whether the `META_COLUMNS` may be named as well. They are never part of `SELECT *`.
    pub has_meta: bool,
}

impl Relation {
    /// The columns that `SELECT *` gives, and the meta columns after them.
    pub(crate) fn full_schema(&self) -> SchemaRef {
        let mut fields: Vec<_> = self.schema.fields().iter().cloned().collect();
        fields.extend(self.hidden_columns().map(|name| Arc::new(meta_field(name))));
        Arc::new(Schema::new(fields))
    }

    /// The meta columns that the schema does not name itself.
    pub(super) fn hidden_columns(&self) -> impl Iterator<Item = &'static str> {
        let names = if self.has_meta { &META_COLUMNS[..] } else { &[] };
        names.iter().copied().filter(|name| self.schema.column_with_name(name).is_none())
    }
}

/// The type of a meta column.
pub(crate) fn meta_field(name: &str) -> Field {
    let data_type = match name {
        "_timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "_partition" => DataType::Int32,
        "_offset" => DataType::Int64,
        "_headers" => {
            let key = Field::new("key", DataType::Utf8, false);
            let value = Field::new("value", DataType::Binary, true);
            DataType::List(Arc::new(Field::new("item", DataType::Struct(vec![key, value].into()), true)))
        }
        _ => DataType::Binary,
    };
    Field::new(name, data_type, true)
}

/// The columns of a relation that a query needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlInput {
    /// The relation's name.
    pub relation: Arc<str>,
    /// The columns, meta columns included, in the order of the relation's schema. Never empty, unless the relation
    /// has no columns: a batch must have something to count its rows by.
    pub columns: Vec<String>,
}

/// A planned query. Cheap to clone; each worker takes its own [`SqlPlan::operator`].
#[derive(Clone)]
pub struct SqlPlan {
    inner: Arc<Planned>,
}

/// What the instances of an operator share.
pub(super) struct Planned {
    pub(super) operator: Arc<str>,
    pub(super) inputs: Vec<SqlInput>,
    pub(super) input_schemas: Vec<SchemaRef>,
    pub(super) tables: Vec<SqlInput>,
    pub(super) output_schema: SchemaRef,
    pub(super) chains: Vec<Chain>,
    fingerprint: String,
}

impl std::fmt::Debug for SqlPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlPlan").field("fingerprint", &self.inner.fingerprint).finish()
    }
}

impl SqlPlan {
    /// The columns of the rows it puts out.
    #[must_use]
    pub fn output_schema(&self) -> SchemaRef {
        Arc::clone(&self.inner.output_schema)
    }

    /// The streams it reads, each once, in the order of the operator's input ports.
    #[must_use]
    pub fn inputs(&self) -> &[SqlInput] {
        &self.inner.inputs
    }

    /// The static tables it wants in `OpenContext::tables`, each once.
    #[must_use]
    pub fn tables(&self) -> &[SqlInput] {
        &self.inner.tables
    }

    /// A stable text of what is computed. Two queries of the same fingerprint give the same rows; how a query is
    /// laid out, and columns that it does not read, make no difference.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.inner.fingerprint.clone()
    }

    /// The steps that rows take, for people.
    #[must_use]
    pub fn explain(&self) -> String {
        explain::explain(&self.inner)
    }

    /// A fresh instance for one worker.
    #[must_use]
    pub fn operator(&self) -> Box<dyn Operator> {
        Box::new(SqlOperator::new(Arc::clone(&self.inner)))
    }
}

/// Plans a query over these relations, which may call these functions besides DataFusion's own. `operator` is its name
/// in the pipeline, for messages at run time.
///
/// # Errors
/// Every mistake that can be found independently of the others, in the order of the text.
pub fn plan(
    operator: &str,
    sql: &str,
    relations: &[Relation],
    functions: &Functions,
) -> Result<SqlPlan, Vec<SqlError>> {
    // DataFusion's planner panics on a few odd queries; what somebody types must not take the process down.
    catch(|| plan_text(operator, sql, relations, functions)).unwrap_or_else(|panic| {
        let message = format!("the query planner failed on this query: {panic}");
        Err(vec![Place::START.error(message, Some("write the query another way".to_owned()))])
    })
}

fn plan_text(
    operator: &str,
    sql: &str,
    relations: &[Relation],
    functions: &Functions,
) -> Result<SqlPlan, Vec<SqlError>> {
    let parsed = parse(sql).map_err(|e| vec![e])?;
    let mentions = scope::mentions(&parsed.query);
    let mut errors = unknown_relations(&mentions, relations);
    errors.extend(gate::refuse(&parsed, relations, functions));
    if !errors.is_empty() {
        errors.extend(blame::unknown_columns(&parsed, &planning_context(relations, functions), relations));
        return Err(in_order(errors));
    }
    plan_query(operator, parsed, &mentions, relations, functions).map_err(in_order)
}

fn planning_context(relations: &[Relation], functions: &Functions) -> Relations {
    let sources = relations.iter().map(|relation| {
        let source: Arc<dyn TableSource> = Arc::new(RelationSource::new(relation.full_schema()));
        (Arc::clone(&relation.name), source)
    });
    Relations::new(sources.collect(), functions.clone())
}

fn plan_query(
    operator: &str,
    parsed: Parsed,
    mentions: &[(String, Place)],
    relations: &[Relation],
    functions: &Functions,
) -> Result<SqlPlan, Vec<SqlError>> {
    let first = parsed.tokens.first();
    let (logical, provenance) = blame::plan(&parsed, &planning_context(relations, functions), relations)?;
    let mentioned: Vec<&Relation> = relations.iter().filter(|r| mentions.iter().any(|(n, _)| **n == *r.name)).collect();
    if !mentioned.iter().any(|relation| relation.kind == RelationKind::Stream) {
        return Err(vec![first.error(
            "the query reads no stream, so nothing would make it run",
            Some("name a source or an operator in FROM; static tables are joined to one".to_owned()),
        )]);
    }
    let lowered =
        lower::lower(&logical, &provenance, &mentioned).map_err(|refusal| vec![refusal.at(mentions, first)])?;
    let inputs = wanted(RelationKind::Stream, &mentioned, &lowered.chains);
    let input_schemas = inputs.iter().map(|input| input_schema(input, relations)).collect();
    let fingerprint = explain::fingerprint(&logical, &lowered.output_schema, &functions.called(&parsed.query));
    let planned = Planned {
        operator: operator.into(),
        input_schemas,
        tables: wanted(RelationKind::Table, &mentioned, &lowered.chains),
        inputs,
        output_schema: lowered.output_schema,
        chains: lowered.chains,
        fingerprint,
    };
    Ok(SqlPlan { inner: Arc::new(planned) })
}

fn unknown_relations(mentions: &[(String, Place)], relations: &[Relation]) -> Vec<SqlError> {
    let unknown = mentions.iter().filter(|(name, _)| !relations.iter().any(|r| *r.name == **name));
    let error = |(name, place): &(String, Place)| {
        let names = || relations.iter().map(|r| &*r.name);
        let exact_case = names().find(|known| known.eq_ignore_ascii_case(name));
        let hint = match (exact_case, nearest(name, names())) {
            (Some(known), _) => format!("names keep their case only in quotes: write \"{known}\""),
            (None, Some(known)) => format!("did you mean `{known}`?"),
            (None, None) if relations.is_empty() => "the pipeline has no inputs yet".to_owned(),
            (None, None) => format!("there are {}", quoted(names())),
        };
        place.error(format!("unknown relation `{name}`"), Some(hint))
    };
    unknown.map(error).collect()
}

/// The relations of a kind that are mentioned, each with the columns that its scans need.
fn wanted(kind: RelationKind, mentioned: &[&Relation], chains: &[Chain]) -> Vec<SqlInput> {
    let mut scans = Vec::new();
    for chain in chains {
        collect_scans(chain, &mut scans);
    }
    let of_kind = mentioned.iter().filter(|relation| relation.kind == kind);
    let input = |relation: &&Relation| {
        let schema = relation.full_schema();
        let needed = |name: &str| {
            scans.iter().any(|(scanned, schema)| **scanned == relation.name && schema.column_with_name(name).is_some())
        };
        let names = || schema.fields().iter().map(|field| field.name().clone());
        let mut columns: Vec<String> = names().filter(|name| needed(name)).collect();
        if columns.is_empty() {
            columns.extend(names().next());
        }
        SqlInput { relation: Arc::clone(&relation.name), columns }
    };
    of_kind.map(input).collect()
}

/// Every scan of a relation in a chain and in the static sides of its joins.
fn collect_scans<'a>(chain: &'a Chain, scans: &mut Vec<(&'a Arc<str>, &'a SchemaRef)>) {
    if let Source::Relation { name, schema } = &chain.source {
        scans.push((name, schema));
    }
    for nested in chain.static_chains() {
        collect_scans(nested, scans);
    }
}

fn input_schema(input: &SqlInput, relations: &[Relation]) -> SchemaRef {
    let relation = relations.iter().find(|relation| relation.name == input.relation);
    let schema = relation.map_or_else(|| Arc::new(Schema::empty()), Relation::full_schema);
    let fields = input.columns.iter().filter_map(|name| schema.field_with_name(name).ok().cloned());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Names in backquotes, with commas.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn in_order(mut errors: Vec<SqlError>) -> Vec<SqlError> {
    errors.sort_by(|a, b| (a.line, a.column, &a.message).cmp(&(b.line, b.column, &b.message)));
    errors.dedup();
    errors
}
