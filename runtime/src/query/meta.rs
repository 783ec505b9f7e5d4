//! `SELECT *` never includes meta columns: this leaves them out of every wildcard that would.
//!
//! A topic only has the meta columns that the query names somewhere, so that most queries need nothing of this.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableFactor, TableWithJoins, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::relations::{Relations, query_of};

/// Adds `EXCLUDE (_key, …)` to the wildcards over topics.
pub(super) fn hide(statement: &mut Statement, relations: &Relations) {
    if relations.meta.is_empty() || relations.topics.is_empty() {
        return;
    }
    if let Some(query) = query_of(statement) {
        let _ = query.visit(&mut Hide { relations, own: Vec::new() });
    }
}

struct Hide<'a> {
    relations: &'a Relations,
    /// Names of common table expressions, which hide topics of the same name.
    own: Vec<String>,
}

impl VisitorMut for Hide<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.own.extend(tables.map(|table| normalize(&table.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut topics = Vec::new();
        for table in &select.from {
            self.collect(table, &mut topics);
        }
        for item in &mut select.projection {
            match item {
                // Of several relations with such columns, none could be named bare.
                SelectItem::Wildcard(options) if topics.len() == 1 => exclude(options, &self.relations.meta),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                    if bare(name).is_some_and(|name| topics.contains(&name)) =>
                {
                    exclude(options, &self.relations.meta);
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }
}

impl Hide<'_> {
    /// The topics of a FROM item, by the names they go by.
    fn collect(&self, table: &TableWithJoins, topics: &mut Vec<String>) {
        for factor in std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)) {
            match factor {
                TableFactor::NestedJoin { table_with_joins, .. } => self.collect(table_with_joins, topics),
                TableFactor::Table { name, alias, .. } => {
                    let Some(name) = bare(name) else { continue };
                    if self.relations.topics.contains(&name) && !self.own.contains(&name) {
                        topics.push(alias.as_ref().map_or(name, |alias| normalize(&alias.name)));
                    }
                }
                _ => {}
            }
        }
    }
}

/// A name of one part.
fn bare(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Some(normalize(name)),
        _ => None,
    }
}

fn normalize(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

fn exclude(options: &mut WildcardAdditionalOptions, columns: &[&str]) {
    let mut names = match options.opt_exclude.take() {
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
        None => Vec::new(),
    };
    let mut named: Vec<String> = names.iter().filter_map(bare).collect();
    if let Some(except) = &options.opt_except {
        named.extend(std::iter::once(&except.first_element).chain(&except.additional_elements).map(normalize));
    }
    let new = columns.iter().filter(|column| !named.iter().any(|name| name == *column));
    names.extend(new.map(|column| ObjectName::from(Ident::new(*column))));
    options.opt_exclude = (!names.is_empty()).then_some(ExcludeSelectItem::Multiple(names));
}
