//! Refuses, on the syntax tree, what needs state or an end of input: there every place is exact.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::logical_expr::Volatility;
use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, JoinOperator, LimitClause,
    Query, Select, SetExpr, SetOperator, SetQuantifier, Spanned, TableFactor, TableWithJoins, Visit, Visitor,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};
use logmill_pipelines::nearest;

use super::context::state;
use super::error::{Place, SqlError};
use super::functions::{Functions, is_built_in};
use super::output;
use super::parse::{Parsed, Tokens};
use super::plan::{Relation, RelationKind};
use super::scope::{Scopes, mentions, object_name};

/// Functions of the time of day. They are stable within a batch query, which a stream never ends.
const CLOCK_FUNCTIONS: [&str; 7] =
    ["now", "current_timestamp", "current_date", "current_time", "today", "localtimestamp", "localtime"];

/// What window functions over event time are called in FROM.
const WINDOW_RELATIONS: [&str; 4] = ["tumble", "hop", "session", "cumulate"];

const AGGREGATE_LATER: &str = "filter and derive here, and aggregate what comes out with `logmill sql`";
const SORT_LATER: &str = "rows flow in the order they arrive; sort what comes out with `logmill sql`";

const TAKE_LATER: &str = "take as many as you want from what comes out with `logmill sql` or `logmill consume`";

/// Everything in the query that the operator will not do.
pub(super) fn refuse(parsed: &Parsed, relations: &[Relation], functions: &Functions) -> Vec<SqlError> {
    let mut gate = Gate {
        tokens: &parsed.tokens,
        relations,
        functions,
        scopes: Scopes::default(),
        stream_ctes: HashSet::new(),
        errors: output::check_names(&parsed.query),
    };
    let _ = parsed.query.visit(&mut gate);
    gate.errors
}

struct Gate<'a> {
    tokens: &'a Tokens,
    relations: &'a [Relation],
    functions: &'a Functions,
    scopes: Scopes,
    /// Names of common table expressions that read a stream.
    stream_ctes: HashSet<String>,
    errors: Vec<SqlError>,
}

impl Visitor for Gate<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.enter(query);
        self.check_query(query);
        self.check_body(&query.body);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.scopes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.check_select(select);
        self.check_rare_clauses(select);
        let mut first = None;
        for table in &select.from {
            self.check_joins(table, &mut first);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.check_factor(factor);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => self.check_function(function),
            Expr::Subquery(query) => self.push(
                Place::of(query.span()),
                "a subquery that gives one value needs state, which the sql operator does not keep yet",
                "join the table instead: `… JOIN codes ON codes.id = flights.id`",
            ),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Gate<'_> {
    fn push(&mut self, place: Option<Place>, message: &str, hint: &str) {
        let place = place.unwrap_or_else(|| self.tokens.first());
        self.errors.push(place.error(message, Some(hint.to_owned())));
    }

    fn before(&self, span: Span, keywords: &[Keyword]) -> Option<Place> {
        if span.start.line == 0 {
            return self.tokens.last_keyword(keywords);
        }
        self.tokens.keyword_before(span.start, keywords).or_else(|| Place::of(span))
    }

    fn check_query(&mut self, query: &Query) {
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            let place = Place::of(with.with_token.0.span);
            self.push(place, "WITH RECURSIVE never ends over a stream", "write the steps as operators of their own");
        }
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            if self.reads_stream(&cte.query) {
                self.stream_ctes.insert(super::scope::normalize(&cte.alias.name));
            }
        }
        if let Some(order_by) = &query.order_by {
            let place = self.before(order_by.span(), &[Keyword::ORDER]);
            self.push(place, "ORDER BY needs the end of the stream, which does not come", SORT_LATER);
        }
        if let Some(limit) = &query.limit_clause {
            let keyword = match limit {
                LimitClause::LimitOffset { limit: None, .. } => Keyword::OFFSET,
                _ => Keyword::LIMIT,
            };
            let place = self.before(limit.span(), &[keyword]);
            let name = if keyword == Keyword::LIMIT { "LIMIT" } else { "OFFSET" };
            self.push(
                place,
                &format!("{name} needs a count of all rows, which is state the sql operator does not keep yet"),
                TAKE_LATER,
            );
        }
        if let Some(fetch) = &query.fetch {
            let place = match &fetch.quantity {
                Some(quantity) => self.before(quantity.span(), &[Keyword::FETCH]),
                None => self.tokens.last_keyword(&[Keyword::FETCH]),
            };
            self.push(
                place,
                "FETCH needs a count of all rows, which is state the sql operator does not keep yet",
                TAKE_LATER,
            );
        }
        if !query.pipe_operators.is_empty() || !query.locks.is_empty() || query.for_clause.is_some() {
            let place = Place::of(query.body.span());
            self.push(place, "FOR clauses and `|>` are not supported", "write a plain SELECT");
        }
    }

    fn check_body(&mut self, body: &SetExpr) {
        match body {
            SetExpr::SetOperation { op, set_quantifier, left, right } => {
                self.check_body(left);
                self.check_body(right);
                self.check_set_operation(*op, *set_quantifier, right.span());
            }
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => {}
            SetExpr::Table(_) => {
                let place = self.tokens.last_keyword(&[Keyword::TABLE]);
                self.push(place, "`TABLE x` is not supported", "write `SELECT * FROM x`");
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                let place = Place::of(body.span());
                self.push(
                    place,
                    "only a SELECT query can be an operator",
                    "where rows go is said by the pipeline's sinks",
                );
            }
        }
    }

    fn check_set_operation(&mut self, op: SetOperator, quantifier: SetQuantifier, right: Span) {
        let keywords = [Keyword::UNION, Keyword::INTERSECT, Keyword::EXCEPT, Keyword::MINUS];
        let place = self.before(right, &keywords);
        match (op, quantifier) {
            (SetOperator::Union, SetQuantifier::All | SetQuantifier::AllByName) => {}
            (SetOperator::Union, _) => self.push(
                place,
                "UNION without ALL removes duplicates, for which it needs state the sql operator does not keep yet",
                "write UNION ALL",
            ),
            (op, _) => self.push(
                place,
                &format!("{op} compares whole inputs, for which it needs state the sql operator does not keep yet"),
                "with a static table, write `WHERE id IN (SELECT id FROM codes)` or `NOT IN`",
            ),
        }
    }

    fn check_select(&mut self, select: &Select) {
        let start = select.select_token.0.span.start;
        match &select.distinct {
            None | Some(Distinct::All) => {}
            Some(_) => {
                let place = self.tokens.keyword_after(start, &[Keyword::DISTINCT]);
                self.push(
                    place,
                    "DISTINCT must remember every row, which is state the sql operator does not keep yet",
                    "keep the duplicates here, and remove them from what comes out with `logmill sql`",
                );
            }
        }
        if select.top.is_some() {
            let place = self.tokens.keyword_after(start, &[Keyword::TOP]);
            self.push(
                place,
                "TOP needs a count of all rows, which is state the sql operator does not keep yet",
                TAKE_LATER,
            );
        }
        let grouped = match &select.group_by {
            GroupByExpr::All(_) => true,
            GroupByExpr::Expressions(exprs, modifiers) => !exprs.is_empty() || !modifiers.is_empty(),
        };
        if grouped {
            let place = match &select.group_by {
                GroupByExpr::Expressions(exprs, _) if !exprs.is_empty() => {
                    self.before(select.group_by.span(), &[Keyword::GROUP])
                }
                _ => self.tokens.keyword_after(start, &[Keyword::GROUP]),
            };
            self.push(place, "GROUP BY needs state, which the sql operator does not keep yet", AGGREGATE_LATER);
        }
        if let Some(having) = &select.having {
            let place = self.before(having.span(), &[Keyword::HAVING]);
            self.push(place, "HAVING needs groups, which are state the sql operator does not keep yet", "write WHERE");
        }
        if let Some(qualify) = &select.qualify {
            let place = self.before(qualify.span(), &[Keyword::QUALIFY]);
            self.push(
                place,
                "QUALIFY needs windows, which are state the sql operator does not keep yet",
                "write WHERE",
            );
        }
    }

    fn check_rare_clauses(&mut self, select: &Select) {
        let start = select.select_token.0.span.start;
        let rare = [
            (select.into.is_some(), Keyword::INTO, "SELECT INTO"),
            (!select.sort_by.is_empty(), Keyword::SORT, "SORT BY"),
            (!select.cluster_by.is_empty(), Keyword::CLUSTER, "CLUSTER BY"),
            (!select.distribute_by.is_empty(), Keyword::DISTRIBUTE, "DISTRIBUTE BY"),
            (!select.lateral_views.is_empty(), Keyword::LATERAL, "LATERAL VIEW"),
            (!select.connect_by.is_empty(), Keyword::CONNECT, "CONNECT BY"),
            (!select.named_window.is_empty(), Keyword::WINDOW, "WINDOW"),
            (select.prewhere.is_some(), Keyword::PREWHERE, "PREWHERE"),
        ];
        for (_, keyword, name) in rare.into_iter().filter(|(present, ..)| *present) {
            let place = self.tokens.keyword_after(start, &[keyword]);
            self.push(place, &format!("{name} is not supported"), "an operator is a SELECT with FROM, JOIN and WHERE");
        }
    }

    /// A FROM item may read one stream; what it is joined with must be static.
    fn check_joins(&mut self, table: &TableWithJoins, first: &mut Option<Place>) {
        let joined = table.joins.iter().map(|join| (&join.relation, Some(&join.join_operator)));
        for (factor, operator) in std::iter::once((&table.relation, None)).chain(joined) {
            if let Some(operator) = operator {
                self.check_join_operator(operator, factor.span().start);
            }
            if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
                self.check_joins(table_with_joins, first);
                continue;
            }
            if !self.factor_reads_stream(factor) {
                continue;
            }
            let place = Place::of(factor.span()).unwrap_or_else(|| self.tokens.first());
            match first {
                None => *first = Some(place),
                Some(_) => self.push(
                    Some(place),
                    "joining two streams needs state, which the sql operator does not keep yet",
                    "join the stream with a static table, or put the streams one after the other with UNION ALL",
                ),
            }
        }
    }

    fn check_join_operator(&mut self, operator: &JoinOperator, relation: Location) {
        let unsupported = match operator {
            JoinOperator::FullOuter(_) => Some((
                Keyword::FULL,
                "FULL JOIN must remember which rows found a match, which is state the sql operator does not keep yet",
                "write LEFT JOIN with the stream on the left",
            )),
            JoinOperator::AsOf { .. } => Some((
                Keyword::ASOF,
                "ASOF JOIN needs state, which the sql operator does not keep yet",
                "write JOIN … ON with equal keys",
            )),
            JoinOperator::CrossApply | JoinOperator::OuterApply => {
                Some((Keyword::APPLY, "APPLY is not supported", "write JOIN … ON"))
            }
            _ => None,
        };
        if let Some((keyword, message, hint)) = unsupported {
            let place = self.tokens.keyword_before(relation, &[keyword]);
            self.push(place, message, hint);
        }
    }

    fn factor_reads_stream(&self, factor: &TableFactor) -> bool {
        match factor {
            TableFactor::Derived { subquery, .. } => self.reads_stream(subquery),
            TableFactor::Table { name, args: None, .. } => match self.scopes.relation(factor) {
                Some((name, _)) => self.is_stream(&name),
                None => self.stream_ctes.contains(&object_name(name)),
            },
            _ => false,
        }
    }

    /// Whether a query inside the query reads a stream, itself or through an earlier common table expression.
    fn reads_stream(&self, query: &Query) -> bool {
        mentions(query).iter().any(|(name, _)| self.stream_ctes.contains(name) || self.is_stream(name))
    }

    fn is_stream(&self, name: &str) -> bool {
        self.relations.iter().any(|r| *r.name == *name && r.kind == RelationKind::Stream)
    }

    fn check_factor(&mut self, factor: &TableFactor) {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } => {
                let function = object_name(name);
                let place = Place::of(name.span());
                if WINDOW_RELATIONS.contains(&function.as_str()) {
                    let message = format!(
                        "{}() makes windows, which are state the sql operator does not keep yet",
                        function.to_uppercase()
                    );
                    self.push(place, &message, AGGREGATE_LATER);
                } else {
                    let message = format!("the table function `{function}` is not supported");
                    self.push(place, &message, "name a source, an operator or a static table");
                }
            }
            TableFactor::Table { sample: Some(_), name, .. } => {
                let place = self.tokens.keyword_after(name.span().start, &[Keyword::TABLESAMPLE, Keyword::SAMPLE]);
                self.push(
                    place,
                    "TABLESAMPLE is random, so rows processed again after a restart would be others",
                    "choose rows by a column, such as `WHERE flight % 100 = 0`",
                );
            }
            TableFactor::UNNEST { array_exprs, .. } => self.push(
                array_exprs.first().and_then(|expr| self.before(expr.span(), &[Keyword::UNNEST])),
                "UNNEST in FROM is not supported by the sql operator yet",
                "unnest in the SELECT list: `SELECT id, unnest(items) AS item FROM orders`",
            ),
            TableFactor::Table { .. } | TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => {}
            other => self.push(
                Place::of(other.span()),
                "this kind of FROM item is not supported",
                "name a source, an operator or a static table",
            ),
        }
    }

    fn check_function(&mut self, function: &Function) {
        let name = object_name(&function.name).to_ascii_lowercase();
        let place = Place::of(function.name.span());
        let state = state();
        if name == "unnest" && is_unnest_of_unnest(function) {
            self.push(place, UNNEST_LEVELS, UNNEST_LEVELS_HINT);
        } else if function.over.is_some() {
            let message = format!("the window function `{name}` needs state, which the sql operator does not keep yet");
            self.push(place, &message, AGGREGATE_LATER);
        } else if CLOCK_FUNCTIONS.contains(&name.as_str()) {
            self.push(
                place,
                &format!("`{name}` gives another time when rows are processed again after a restart"),
                "use a time of the row: an event-time column, or `_timestamp`, when its record was written",
            );
        } else if let Some(volatile) = self.functions.is_volatile(&name) {
            if volatile {
                self.push(
                    place,
                    &format!("`{name}` may give another value when rows are processed again after a restart"),
                    "let its module say that it is deterministic, if its result depends on the arguments alone",
                );
            }
        } else if let Some(udf) = state.scalar_functions().get(&name) {
            if udf.signature().volatility == Volatility::Volatile {
                self.push(
                    place,
                    &format!("`{name}` gives another value when rows are processed again after a restart"),
                    "derive the value from columns, such as `md5(_key)` or `_partition` and `_offset`",
                );
            }
        } else if state.aggregate_functions().contains_key(&name) || state.window_functions().contains_key(&name) {
            let message = format!("the aggregate `{name}` needs state, which the sql operator does not keep yet");
            self.push(place, &message, AGGREGATE_LATER);
        } else if !is_built_in(&name) {
            let known = state.scalar_functions().keys().map(String::as_str).chain(self.functions.names());
            let hint = nearest(&name, known).map(|known| format!("did you mean `{known}`?"));
            let place = place.unwrap_or_else(|| self.tokens.first());
            self.errors.push(place.error(format!("unknown function `{name}`"), hint));
        }
    }
}

/// What is said of `unnest(unnest(x))`.
pub(super) const UNNEST_LEVELS: &str = "unnesting two levels at once is not supported by the sql operator yet";
pub(super) const UNNEST_LEVELS_HINT: &str = "unnest one level in a subquery, and the next level in the query around it";

fn is_unnest_of_unnest(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    list.args.iter().any(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(inner))) => {
            object_name(&inner.name).eq_ignore_ascii_case("unnest")
        }
        _ => false,
    })
}
