//! Which relations a query names, and which of its names are its own common table expressions.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Query, Spanned, TableFactor, Visit, Visitor};

use super::error::{Place, SqlError};
use super::parse::parse;

/// A relation that a query reads, where it names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRef {
    /// The relation's name: in lowercase, unless it is quoted.
    pub name: String,
    /// The line within the text, from 1.
    pub line: u32,
    /// The column within the line, in characters from 1.
    pub column: u32,
}

/// The relations that a query names in FROM and JOIN, one entry a mention, in the order of the text.
///
/// # Errors
/// The text is not exactly one query.
pub fn table_refs(sql: &str) -> Result<Vec<TableRef>, Vec<SqlError>> {
    let parsed = parse(sql).map_err(|e| vec![e])?;
    let mentions = mentions(&parsed.query).into_iter();
    Ok(mentions.map(|(name, place)| TableRef { name, line: place.line, column: place.column }).collect())
}

/// The mentions of relations in a query, in the order of the text.
pub(super) fn mentions(query: &Query) -> Vec<(String, Place)> {
    let mut collector = Mentions { scopes: Scopes::default(), found: Vec::new() };
    let _ = query.visit(&mut collector);
    collector.found.sort_by_key(|(_, place)| *place);
    collector.found
}

struct Mentions {
    scopes: Scopes,
    found: Vec<(String, Place)>,
}

impl Visitor for Mentions {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.scopes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let Some((name, place)) = self.scopes.relation(factor) {
            self.found.push((name, place));
        }
        ControlFlow::Continue(())
    }
}

/// The names of common table expressions that are visible while a query is visited.
///
/// One is visible in those after it and in the body of its query, not in itself: `WITH late AS (SELECT * FROM late)`
/// reads the relation `late`.
#[derive(Default)]
pub(super) struct Scopes {
    visible: Vec<HashSet<String>>,
    bodies: HashMap<*const Query, HashSet<String>>,
}

impl Scopes {
    /// Called before a query's parts are visited.
    pub(super) fn enter(&mut self, query: &Query) {
        let inherited = self.bodies.remove(&std::ptr::from_ref(query));
        let mut names = inherited.or_else(|| self.visible.last().cloned()).unwrap_or_default();
        let recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            if recursive {
                names.insert(normalize(&cte.alias.name));
            }
            self.bodies.insert(std::ptr::from_ref(&*cte.query), names.clone());
            names.insert(normalize(&cte.alias.name));
        }
        self.visible.push(names);
    }

    /// Called after a query's parts are visited.
    pub(super) fn leave(&mut self) {
        self.visible.pop();
    }

    /// The relation that a table factor names, if it is not a common table expression.
    pub(super) fn relation(&self, factor: &TableFactor) -> Option<(String, Place)> {
        let TableFactor::Table { name, args: None, .. } = factor else { return None };
        let text = object_name(name);
        if self.visible.last().is_some_and(|names| names.contains(&text)) {
            return None;
        }
        Some((text, Place::of(name.span()).unwrap_or(Place::START)))
    }
}

/// A name as SQL means it.
pub(super) fn normalize(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

/// A possibly dotted name as SQL means it.
pub(super) fn object_name(name: &ObjectName) -> String {
    let parts = name.0.iter().map(|part| part.as_ident().map_or_else(|| part.to_string(), normalize));
    parts.collect::<Vec<_>>().join(".")
}
