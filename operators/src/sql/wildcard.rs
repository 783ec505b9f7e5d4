//! `SELECT *` never includes meta columns: this leaves them out of every wildcard that would. And `rejects.*` is the
//! wildcard of `scored.rejects`, as `rejects.x` is its column.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableFactor, TableWithJoins, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::plan::Relation;
use super::scope::{Scopes, normalize, object_name};

/// Adds `EXCLUDE (_key, …)` to the wildcards over relations that have meta columns.
pub(super) fn hide_meta_columns(query: &mut Query, relations: &[Relation]) {
    let _ = query.visit(&mut Hide { scopes: Scopes::default(), relations });
}

struct Hide<'a> {
    scopes: Scopes,
    relations: &'a [Relation],
}

impl VisitorMut for Hide<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.scopes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.scopes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut hidden = Vec::new();
        let mut dotted = Vec::new();
        for table in &select.from {
            self.collect(table, &mut hidden);
            collect_dotted(table, &mut dotted);
        }
        for item in &mut select.projection {
            match item {
                SelectItem::Wildcard(options) => {
                    // The one stream of a join; of several relations with such columns, none could be named bare.
                    if let [(_, columns)] = hidden.as_slice() {
                        exclude(options, columns);
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    if let Some(whole) = dotted.iter().find(|whole| is_last_of(name, whole)) {
                        *name = whole.clone();
                    }
                    let name = object_name(name);
                    if let Some((_, columns)) = hidden.iter().find(|(qualifier, _)| *qualifier == name) {
                        exclude(options, columns);
                    }
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }
}

impl Hide<'_> {
    /// The relations of a FROM item that have meta columns, by the name they go by.
    fn collect(&self, table: &TableWithJoins, hidden: &mut Vec<(String, Vec<&'static str>)>) {
        for factor in std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)) {
            if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
                self.collect(table_with_joins, hidden);
            }
            let Some((name, _)) = self.scopes.relation(factor) else { continue };
            let Some(relation) = self.relations.iter().find(|relation| *relation.name == *name) else { continue };
            let columns: Vec<_> = relation.hidden_columns().collect();
            let alias = match factor {
                TableFactor::Table { alias: Some(alias), .. } => normalize(&alias.name),
                _ => name,
            };
            if !columns.is_empty() {
                hidden.push((alias, columns));
            }
        }
    }
}

/// The relations of a FROM item that go by a name with a dot.
fn collect_dotted(table: &TableWithJoins, dotted: &mut Vec<ObjectName>) {
    for factor in std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)) {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => collect_dotted(table_with_joins, dotted),
            TableFactor::Table { name, alias: None, args: None, .. } if name.0.len() > 1 => dotted.push(name.clone()),
            _ => {}
        }
    }
}

/// Whether a name of one part is the last part of another.
fn is_last_of(name: &ObjectName, whole: &ObjectName) -> bool {
    let part = |part: Option<&ObjectNamePart>| part.and_then(ObjectNamePart::as_ident).map(normalize);
    name.0.len() == 1 && part(name.0.first()) == part(whole.0.last())
}

fn exclude(options: &mut WildcardAdditionalOptions, columns: &[&str]) {
    let mut names = match options.opt_exclude.take() {
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
        None => Vec::new(),
    };
    let named: Vec<String> = names.iter().map(object_name).collect();
    let new = columns.iter().filter(|column| !named.iter().any(|name| name == *column));
    names.extend(new.map(|column| ObjectName::from(Ident::new(*column))));
    options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
}
