//! From the optimised logical plan to chains of steps: one chain for each scan of a stream.
//!
//! Streams meet only in UNION ALL, so a plan over streams is a set of chains that end at the same output. The static
//! side of a join is lowered the same way, and run once over the static tables when the operator opens.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, DataFusionError, JoinType, NullEquality, exec_datafusion_err};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::logical_plan::{self as df, LogicalPlan};
use logmill_columns::out_of_range;

use super::chain::{Chain, Filter, Project, Source, Step, batch};
use super::compile::{Compiled, as_column, columns_read, compile, evaluate, renumber};
use super::context::relation_name;
use super::error::{Place, SqlError};
use super::gate::{UNNEST_LEVELS, UNNEST_LEVELS_HINT};
use super::in_subquery::{InJoin, in_join};
use super::join::{BuildSide, Join, JoinColumn, JoinFilter, JoinKind, SharedTable};
use super::parse::lowercase_first;
use super::plan::{Relation, RelationKind};
use super::provenance::{Provenance, output_field};
use super::unnest::{Unnest, Unnested, is_list};

/// A plan's chains and what comes out of each of them.
pub(super) struct Lowered {
    pub(super) chains: Vec<Chain>,
    pub(super) output_schema: SchemaRef,
}

/// Something that the operator cannot do with a plan.
#[derive(Debug)]
pub(super) struct Refusal {
    message: String,
    hint: Option<String>,
    /// The relation at whose name the refusal is shown.
    relation: Option<Arc<str>>,
}

impl Refusal {
    fn new(message: impl Into<String>, hint: &str) -> Self {
        Self { message: message.into(), hint: Some(hint.to_owned()), relation: None }
    }

    fn about(mut self, chains: &[Chain]) -> Self {
        self.relation = chains.iter().find_map(first_relation);
        self
    }

    /// The error, placed where the query names the relation.
    pub(super) fn at(self, mentions: &[(String, Place)], first: Place) -> SqlError {
        let mention = mentions.iter().rev().find(|(name, _)| self.relation.as_deref() == Some(name));
        mention.map_or(first, |(_, place)| *place).error(self.message, self.hint)
    }
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        let message = error.find_root().message().lines().next().map(lowercase_first).unwrap_or_default();
        Self { message, hint: None, relation: None }
    }
}

fn first_relation(chain: &Chain) -> Option<Arc<str>> {
    match &chain.source {
        Source::Relation { name, .. } => Some(Arc::clone(name)),
        Source::Rows(_) => chain.static_chains().find_map(first_relation),
    }
}

/// Lowers a plan over the relations that it mentions. `provenance` is that of its columns.
pub(super) fn lower(
    plan: &LogicalPlan,
    provenance: &[Provenance],
    relations: &[&Relation],
) -> Result<Lowered, Refusal> {
    let mut lowering = Lowering { relations, build_sides: 0 };
    let mut chains = lowering.lower(plan)?;
    if let Some(fixed) = chains.iter().find(|chain| !lowering.is_stream(chain)) {
        return Err(Refusal::new(
            "a part of the query reads no stream, so nothing would make it run",
            "UNION ALL takes streams; a static table is joined to one",
        )
        .about(std::slice::from_ref(fixed)));
    }
    let fields = plan.schema().fields().iter().enumerate();
    let fields =
        fields.map(|(index, field)| output_field(field, provenance.get(index).unwrap_or(&Provenance::Computed)));
    let output_schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    for chain in &mut chains {
        chain.schema = Arc::clone(&output_schema);
    }
    Ok(Lowered { chains, output_schema })
}

/// How DataFusion names a column that is to be unnested; `)` ends it.
const UNNEST_PREFIX: &str = "__unnest_placeholder(";

struct Lowering<'a> {
    relations: &'a [&'a Relation],
    /// How many static sides there are so far.
    build_sides: usize,
}

impl Lowering<'_> {
    fn is_stream(&self, chain: &Chain) -> bool {
        let Source::Relation { name, .. } = &chain.source else { return false };
        self.relations.iter().any(|relation| relation.name == *name && relation.kind == RelationKind::Stream)
    }

    fn lower(&mut self, plan: &LogicalPlan) -> Result<Vec<Chain>, Refusal> {
        match plan {
            LogicalPlan::Projection(node) => self.projection(node),
            LogicalPlan::Filter(node) => self.filter(node),
            LogicalPlan::Join(node) => self.join(node),
            LogicalPlan::Unnest(node) => self.unnest(node),
            LogicalPlan::TableScan(node) => Ok(vec![scan(node)]),
            LogicalPlan::SubqueryAlias(node) => self.lower(&node.input),
            LogicalPlan::Subquery(node) => self.lower(&node.subquery),
            LogicalPlan::Union(node) => {
                let mut chains = Vec::new();
                for input in &node.inputs {
                    chains.extend(self.lower(input)?);
                }
                Ok(chains)
            }
            LogicalPlan::EmptyRelation(node) => Ok(if node.produce_one_row { vec![one_row()?] } else { Vec::new() }),
            LogicalPlan::Values(node) => Ok(vec![values(node)?]),
            other => Err(Refusal::new(
                format!("{} is not supported by the sql operator yet", node_name(other)),
                "write SELECT with FROM, JOIN and WHERE",
            )),
        }
    }

    fn projection(&mut self, node: &df::Projection) -> Result<Vec<Chain>, Refusal> {
        let mut chains = self.lower(&node.input)?;
        let input = node.input.schema();
        let exprs = node.expr.iter().map(|e| compile(e, input)).collect::<Result<Vec<_>, _>>()?;
        let schema = nullable(node.schema.as_arrow());
        let text: Vec<String> = node.expr.iter().map(column_text).collect();
        for chain in &mut chains {
            push_project(chain, &exprs, &schema, &text)?;
        }
        Ok(chains)
    }

    fn filter(&mut self, node: &df::Filter) -> Result<Vec<Chain>, Refusal> {
        let mut chains = self.lower(&node.input)?;
        let predicate = compile(&node.predicate, node.input.schema())?;
        for chain in &mut chains {
            let filter = Filter {
                predicate: Arc::clone(&predicate),
                keep: None,
                schema: Arc::clone(&chain.schema),
                text: node.predicate.human_display().to_string(),
            };
            chain.steps.push(Step::Filter(filter));
        }
        Ok(chains)
    }

    fn unnest(&mut self, node: &df::Unnest) -> Result<Vec<Chain>, Refusal> {
        let mut chains = self.lower(&node.input)?;
        let input = node.input.schema();
        let mut columns = Vec::new();
        for (index, field) in input.fields().iter().enumerate() {
            let mut as_list = node.list_type_columns.iter().filter(|(of, _)| *of == index).peekable();
            if as_list.peek().is_none() {
                let is_struct = node.struct_type_columns.contains(&index);
                columns.push(if is_struct { Unnested::Fields(index) } else { Unnested::Repeat(index) });
            }
            for (_, list) in as_list {
                if list.depth > 1 || !is_list(field.data_type()) {
                    return Err(Refusal::new(UNNEST_LEVELS, UNNEST_LEVELS_HINT).about(&chains));
                }
                columns.push(Unnested::Items(index));
            }
        }
        let schema = nullable(node.schema.as_arrow());
        let names = node.exec_columns.iter().map(|column| {
            let name = column.name.strip_prefix(UNNEST_PREFIX).and_then(|name| name.strip_suffix(')'));
            name.unwrap_or(&column.name)
        });
        let text = names.collect::<Vec<_>>().join(", ");
        let unnest = Arc::new(Unnest { columns, nulls: node.options.null_handling, schema, text });
        for chain in &mut chains {
            chain.schema = Arc::clone(&unnest.schema);
            chain.steps.push(Step::Unnest(Arc::clone(&unnest)));
        }
        Ok(chains)
    }

    fn join(&mut self, node: &df::Join) -> Result<Vec<Chain>, Refusal> {
        let left = self.lower(&node.left)?;
        let right = self.lower(&node.right)?;
        let has_stream = |chains: &[Chain]| chains.iter().any(|chain| self.is_stream(chain));
        let probe_is_left = match (has_stream(&left), has_stream(&right)) {
            (true, true) => {
                return Err(Refusal::new(
                    "joining two streams needs state, which the sql operator does not keep yet",
                    "join the stream with a static table, or put the streams one after the other with UNION ALL",
                )
                .about(&right));
            }
            (true, false) => true,
            (false, true) => false,
            // Of two static sides, the one that is kept whole is probed with.
            (false, false) => node.join_type != JoinType::Right,
        };
        let (mut probe, build) = if probe_is_left { (left, right) } else { (right, left) };
        let (probe_schema, build_schema) = match probe_is_left {
            true => (node.left.schema(), node.right.schema()),
            false => (node.right.schema(), node.left.schema()),
        };
        let kind = join_kind(node, probe_is_left).map_err(|refusal| refusal.about(&build))?;
        if node.on.is_empty() {
            return Err(Refusal::new(
                "a join without equal keys pairs every row with every row of the table",
                "write `JOIN … ON a.key = b.key`; further conditions may follow with AND",
            )
            .about(&build));
        }
        let of_probe = |(l, r): &(Expr, Expr)| compile(if probe_is_left { l } else { r }, probe_schema);
        let of_build = |(l, r): &(Expr, Expr)| compile(if probe_is_left { r } else { l }, build_schema);
        let in_key = in_key(node, probe_is_left);
        let kind = match (kind, in_key) {
            (JoinKind::Mark, Some((_, InJoin::Unknown))) => JoinKind::MarkUnknown,
            (kind, _) => kind,
        };
        let build = BuildSide {
            id: self.build_sides,
            in_key: in_key.map(|(index, _)| index),
            chains: build,
            keys: node.on.iter().map(of_build).collect::<Result<_, _>>()?,
            schema: nullable(build_schema.as_arrow()),
            nulls_match: node.null_equality == NullEquality::NullEqualsNull,
            shared: SharedTable::default(),
        };
        self.build_sides += 1;
        let sides = Sides { probe_is_left, left: node.left.schema().fields().len() };
        let join = Join {
            kind,
            keys: node.on.iter().map(of_probe).collect::<Result<_, _>>()?,
            filter: node.filter.as_ref().map(|filter| join_filter(filter, node, sides)).transpose()?.map(Arc::new),
            columns: output_columns(node, kind, sides),
            schema: nullable(node.schema.as_arrow()),
            text: join_text(node),
            build: Arc::new(build),
        };
        let join = Arc::new(join);
        for chain in &mut probe {
            chain.schema = Arc::clone(&join.schema);
            chain.steps.push(Step::Join(Arc::clone(&join)));
        }
        Ok(probe)
    }
}

/// Which side of a join is which.
#[derive(Clone, Copy)]
struct Sides {
    probe_is_left: bool,
    /// How many columns the left side has.
    left: usize,
}

impl Sides {
    /// The column of a side that is the n-th of both sides together.
    fn column(self, index: usize) -> JoinColumn {
        match (index < self.left, self.probe_is_left) {
            (true, true) => JoinColumn::Probe(index),
            (true, false) => JoinColumn::Build(index),
            (false, true) => JoinColumn::Build(index - self.left),
            (false, false) => JoinColumn::Probe(index - self.left),
        }
    }
}

fn join_kind(node: &df::Join, probe_is_left: bool) -> Result<JoinKind, Refusal> {
    match (node.join_type, probe_is_left) {
        (JoinType::Inner, _) => Ok(JoinKind::Inner),
        (JoinType::Left, true) | (JoinType::Right, false) => Ok(JoinKind::Outer),
        (JoinType::LeftSemi, true) | (JoinType::RightSemi, false) => Ok(JoinKind::Semi),
        (JoinType::LeftAnti, true) | (JoinType::RightAnti, false) => Ok(JoinKind::Anti),
        (JoinType::LeftMark, true) | (JoinType::RightMark, false) => Ok(JoinKind::Mark),
        _ => Err(Refusal::new(
            "keeping the table's rows that no row of the stream matches needs the end of the stream, which does not come",
            "write JOIN, or LEFT JOIN with the stream on the left",
        )),
    }
}

/// Which key of a join is the one of `IN`, and what the join says.
fn in_key(node: &df::Join, probe_is_left: bool) -> Option<(usize, InJoin)> {
    let keys = node.on.iter().map(|(l, r)| if probe_is_left { r } else { l });
    keys.enumerate().find_map(|(index, key)| Some((index, in_join(key)?)))
}

fn output_columns(node: &df::Join, kind: JoinKind, sides: Sides) -> Vec<JoinColumn> {
    let count = node.schema.fields().len();
    match kind {
        JoinKind::Inner | JoinKind::Outer => (0..count).map(|index| sides.column(index)).collect(),
        JoinKind::Semi | JoinKind::Anti => (0..count).map(JoinColumn::Probe).collect(),
        JoinKind::Mark | JoinKind::MarkUnknown => {
            let probe = (0..count.saturating_sub(1)).map(JoinColumn::Probe);
            probe.chain([JoinColumn::Mark]).collect()
        }
    }
}

fn join_filter(filter: &Expr, node: &df::Join, sides: Sides) -> Result<JoinFilter, Refusal> {
    let both: DFSchema = node.left.schema().join(node.right.schema())?;
    let predicate = compile(filter, &both)?;
    let read = columns_read([&predicate]);
    Ok(JoinFilter {
        predicate: renumber(&predicate, &read)?,
        columns: read.iter().map(|index| sides.column(*index)).collect(),
        schema: project(&nullable(both.as_arrow()), &read),
    })
}

fn join_text(node: &df::Join) -> String {
    let keys = node.on.iter().map(|(l, r)| format!("{} = {}", l.human_display(), r.human_display()));
    let filter = node.filter.iter().map(|filter| filter.human_display().to_string());
    let name = match node.join_type {
        JoinType::Inner => "join",
        JoinType::LeftSemi | JoinType::RightSemi => "keep rows with a match",
        JoinType::LeftAnti | JoinType::RightAnti => "keep rows without a match",
        JoinType::LeftMark | JoinType::RightMark => "mark rows with a match",
        _ => "left join",
    };
    format!("{name} on {}", keys.chain(filter).collect::<Vec<_>>().join(" AND "))
}

/// A computed column, for people: `late = delay > 15`.
fn column_text(expr: &Expr) -> String {
    match expr {
        Expr::Alias(alias) => match alias.expr.as_ref() {
            Expr::Alias(inner) => format!("{} = {}", alias.name, inner.expr.human_display()),
            expr => format!("{} = {}", alias.name, expr.human_display()),
        },
        other => other.human_display().to_string(),
    }
}

/// Appends a projection; what precedes it then makes only the columns that it reads.
fn push_project(chain: &mut Chain, exprs: &[Compiled], schema: &SchemaRef, text: &[String]) -> Result<(), Refusal> {
    let read = columns_read(exprs);
    let narrowed = match chain.steps.last_mut() {
        Some(Step::Filter(filter)) if filter.keep.is_none() => {
            filter.schema = project(&filter.schema, &read);
            filter.keep = Some(read.clone());
            true
        }
        Some(Step::Join(join)) => {
            let columns = read.iter().filter_map(|index| join.columns.get(*index).copied());
            let schema = project(&join.schema, &read);
            *join = Arc::new(Join { columns: columns.collect(), schema, ..join.as_ref().clone() });
            true
        }
        _ => false,
    };
    let exprs = match narrowed {
        true => exprs.iter().map(|expr| renumber(expr, &read)).collect::<Result<Vec<_>, _>>()?,
        false => exprs.to_vec(),
    };
    let width = if narrowed { read.len() } else { chain.schema.fields().len() };
    chain.schema = Arc::clone(schema);
    let is_identity = exprs.len() == width && exprs.iter().enumerate().all(|(i, e)| as_column(e) == Some(i));
    if !is_identity || !narrowed && chain.steps.is_empty() && width == 0 {
        chain.steps.push(Step::Project(Project { exprs, schema: Arc::clone(schema), text: text.to_vec() }));
    }
    Ok(())
}

fn scan(node: &df::TableScan) -> Chain {
    let schema = nullable(node.projected_schema.as_arrow());
    let source = Source::Relation { name: relation_name(&node.table_name).into(), schema: Arc::clone(&schema) };
    Chain { source, steps: Vec::new(), schema }
}

fn one_row() -> Result<Chain, Refusal> {
    let schema: SchemaRef = Arc::new(Schema::empty());
    let rows = batch(&schema, Vec::new(), 1)?;
    Ok(Chain { source: Source::Rows(rows), steps: Vec::new(), schema })
}

fn values(node: &df::Values) -> Result<Chain, Refusal> {
    let schema = nullable(node.schema.as_arrow());
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
        .map_err(DataFusionError::from)?;
    let no_columns = DFSchema::empty();
    let mut rows = Vec::new();
    for row in &node.values {
        let column = |expr: &Expr| evaluate(&compile(expr, &no_columns)?, &nothing);
        let columns: Vec<ArrayRef> = row.iter().map(column).collect::<Result<_, DataFusionError>>()?;
        rows.push(batch(&schema, columns, 1)?);
    }
    let rows = arrow::compute::concat_batches(&schema, &rows).map_err(DataFusionError::from)?;
    if let Some(bad) = out_of_range(&rows).into_iter().next() {
        return Err(exec_datafusion_err!("{}", bad.message).into());
    }
    Ok(Chain { source: Source::Rows(rows), steps: Vec::new(), schema })
}

/// The same columns, any of which may be null, and nothing else: on the way, columns carry no metadata.
fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn project(schema: &SchemaRef, columns: &[usize]) -> SchemaRef {
    let fields = columns.iter().filter_map(|index| schema.fields().get(*index).cloned());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn node_name(plan: &LogicalPlan) -> String {
    let text = plan.display().to_string();
    text.split([':', ' ']).next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn columns_of_both_sides_find_their_side() {
        let sides = Sides { probe_is_left: false, left: 2 };
        assert_eq!(sides.column(1), JoinColumn::Build(1));
        assert_eq!(sides.column(2), JoinColumn::Probe(0));
        let sides = Sides { probe_is_left: true, left: 2 };
        assert_eq!(sides.column(1), JoinColumn::Probe(1));
        assert_eq!(sides.column(2), JoinColumn::Build(0));
    }

    #[test]
    fn schemas_become_nullable() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int32, false)]);
        assert!(nullable(&schema).field(0).is_nullable());
    }
}
