//! What the names in a query stand for: topics of the log, or files.

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::config::Dialect;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Query as SqlQuery, Statement as SqlStatement};
use logmill_operators::sql::bind_arrows;
use logmill_pipelines::flow::META_COLUMNS;
use logmill_pipelines::nearest;

use super::error::{Mistake, QueryError};
use super::topic::TopicTable;
use super::{Query, alias, files};

/// A query and the relations that it names.
pub(super) struct Parsed {
    pub(super) statement: Statement,
    pub(super) names: Vec<TableReference>,
    /// The meta columns that the text names.
    meta: Vec<&'static str>,
}

/// What was found out about the relations.
#[derive(Default)]
pub(super) struct Relations {
    /// Topics, whose meta columns are among their columns.
    pub(super) topics: Vec<String>,
    /// Those meta columns.
    pub(super) meta: Vec<&'static str>,
    /// Topics without a record, whose columns nobody knows.
    empty: Vec<String>,
}

impl Relations {
    /// What may be behind a column that is not there.
    pub(super) fn hint(&self) -> Option<String> {
        let topic = self.empty.first()?;
        Some(format!("topic `{topic}` has no record yet to infer columns from"))
    }
}

/// Parses one query.
pub(super) fn parse(context: &SessionContext, sql: &str) -> Result<Parsed, QueryError> {
    let state = context.state();
    let failed = |error| QueryError::of(&error, sql);
    if sql.trim().trim_end_matches(';').is_empty() {
        return Err(mistake("the query is empty", "write `SELECT … FROM …`"));
    }
    let mut statement = state.sql_to_statement(sql, &Dialect::Generic).map_err(failed)?;
    let Some(query) = query_of(&mut statement) else {
        return Err(mistake(
            "only queries can be run here",
            "write `SELECT …`; topics are made by `logmill topic`, and files are written by pipelines",
        ));
    };
    bind_arrows(query);
    alias::name_files(query);
    let names = state.resolve_table_references(&statement).map_err(failed)?;
    Ok(Parsed { statement, names, meta: META_COLUMNS.into_iter().filter(|column| names_word(sql, column)).collect() })
}

/// The query of a statement, or the one that it explains.
pub(super) fn query_of(statement: &mut Statement) -> Option<&mut SqlQuery> {
    match statement {
        Statement::Explain(explain) => query_of(&mut explain.statement),
        Statement::Statement(sql) => match &mut **sql {
            SqlStatement::Query(query) => Some(query),
            SqlStatement::Explain { statement, .. } => match &mut **statement {
                SqlStatement::Query(query) => Some(query),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn mistake(message: &str, hint: &str) -> QueryError {
    QueryError::Sql(Mistake { message: message.into(), place: None, hint: Some(hint.into()) })
}

/// Whether a text holds a word, not as a part of a longer one.
fn names_word(text: &str, word: &str) -> bool {
    let text = text.to_lowercase();
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(start, found)| {
        let before = text.get(..start).and_then(|before| before.chars().next_back());
        let after = text.get(start + found.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(inside) && !after.is_some_and(inside)
    })
}

/// Opens what the query names, under the names it gives.
pub(super) async fn register(
    context: &SessionContext,
    query: &Query,
    parsed: &Parsed,
    sql: &str,
) -> Result<Relations, QueryError> {
    let mut relations = Relations { meta: parsed.meta.clone(), ..Relations::default() };
    for reference in &parsed.names {
        let name = reference.table();
        let failed = |error| QueryError::of(&error, sql);
        if let Some(schema) = reference.schema() {
            let whole = format!("{schema}.{name}");
            let hint = format!("a name with a dot is written in double quotes: \"{whole}\"");
            return Err(QueryError::at_name(sql, name, format!("there is no relation `{whole}`"), Some(hint)));
        }
        if files::is_path(name) {
            let provider = files::open(context, name, sql).await?;
            context.register_table(reference.clone(), provider).map_err(failed)?;
            continue;
        }
        let topics = match &query.log {
            Some(log) => log.topics().await?,
            None => Vec::new(),
        };
        let topic = topics.iter().find(|topic| topic.name == name);
        if let (Some(topic), Some(log)) = (topic, &query.log) {
            let table = TopicTable::open(log.clone(), query.registry, topic, &parsed.meta).await?;
            if table.is_empty() {
                relations.empty.push(topic.name.clone());
            }
            relations.topics.push(topic.name.clone());
            context.register_table(reference.clone(), Arc::new(table)).map_err(failed)?;
        } else if files::exists(name) {
            let provider = files::open(context, name, sql).await?;
            context.register_table(reference.clone(), provider).map_err(failed)?;
        } else {
            let visible = topics.iter().filter(|topic| !topic.internal).map(|topic| topic.name.as_str());
            return Err(unknown(sql, name, &visible.collect::<Vec<_>>()));
        }
    }
    Ok(relations)
}

fn unknown(sql: &str, name: &str, topics: &[&str]) -> QueryError {
    let hint = match (nearest(name, topics.iter().copied()), topics) {
        // Names that are not all lowercase letters, digits and underscores only exist in quotes.
        (Some(near), _) => format!("did you mean \"{near}\"?"),
        (None, []) => "this log has no topics; a file is named as '…/flights.parquet'".to_owned(),
        (None, topics) => {
            let (named, more) = topics.split_at(topics.len().min(10));
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            format!("the topics are {}{more}", named.join(", "))
        }
    };
    QueryError::at_name(sql, name, format!("there is no topic or file `{name}`"), Some(hint))
}
