//! Functions that queries have besides DataFusion's own: those that a pipeline, or the command line, brings along.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::logical_expr::{ScalarUDF, Volatility};
use datafusion::sql::sqlparser::ast::{Expr, Function, Query, SelectItem, SetExpr, Statement, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::context::state;
use super::scope::object_name;

/// Functions that the planner itself knows, which are in no registry.
pub(super) const PLANNER_FUNCTIONS: [&str; 4] = ["unnest", "explode", "position", "extract"];

/// Scalar functions by the names that SQL calls them by. Cheap to clone; none by default.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    by_name: Arc<BTreeMap<String, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    udf: Arc<ScalarUDF>,
    identity: Arc<str>,
}

/// Why a function cannot go by its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionNameError {
    /// SQL has it already.
    #[error("SQL has a function `{0}` already; give this one another name")]
    BuiltIn(String),
    /// It is taken.
    #[error("there are two functions `{0}`; give one of them another name")]
    Twice(String),
    /// SQL would not read it as a call.
    #[error(
        "`{0}` cannot be the name of a function in SQL; write lower-case letters, digits and `_`, beginning with a \
         letter, and no keyword"
    )]
    Unfit(String),
}

impl Functions {
    /// Adds a function under its own name. `identity` is a stable text of what it computes, such as the digest of its
    /// module and its configuration: it is part of the fingerprint of every query that calls the function.
    ///
    /// A volatile function can be called in batch queries only: a stream may be processed again after a restart, and
    /// must then come to the same.
    ///
    /// # Errors
    /// The name is taken, or none that SQL could call.
    pub fn insert(&mut self, udf: ScalarUDF, identity: &str) -> Result<(), FunctionNameError> {
        let name = udf.name().to_owned();
        if !is_callable(&name) {
            return Err(FunctionNameError::Unfit(name));
        }
        if is_built_in(&name) {
            return Err(FunctionNameError::BuiltIn(name));
        }
        if self.by_name.contains_key(&name) {
            return Err(FunctionNameError::Twice(name));
        }
        Arc::make_mut(&mut self.by_name).insert(name, Known { udf: Arc::new(udf), identity: identity.into() });
        Ok(())
    }

    /// The function of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        self.by_name.get(name).map(|known| &known.udf)
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The functions, in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<ScalarUDF>> {
        self.by_name.values().map(|known| &known.udf)
    }

    pub(super) fn is_volatile(&self, name: &str) -> Option<bool> {
        self.get(name).map(|udf| udf.signature().volatility == Volatility::Volatile)
    }

    /// The functions that a query calls, each with its identity, in the order of their names.
    pub(super) fn called<'a>(&'a self, query: &Query) -> Vec<(&'a str, &'a str)> {
        let mut calls = Calls(Vec::new());
        let _ = query.visit(&mut calls);
        let known = self.by_name.iter().filter(|(name, _)| calls.0.iter().any(|call| call == *name));
        known.map(|(name, known)| (name.as_str(), &*known.identity)).collect()
    }
}

struct Calls(Vec<String>);

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(Function { name, .. }) = expr {
            self.0.push(object_name(name));
        }
        ControlFlow::Continue(())
    }
}

/// Whether SQL has a function of the name, of whichever kind.
pub(super) fn is_built_in(name: &str) -> bool {
    let state = state();
    state.scalar_functions().contains_key(name)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name)
        || state.higher_order_functions().contains_key(name)
        || PLANNER_FUNCTIONS.contains(&name)
}

/// Whether a call of the name, without quotes, is parsed as a call of a function of this name.
fn is_callable(name: &str) -> bool {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !plain {
        return false;
    }
    let Ok(statements) = Parser::parse_sql(&GenericDialect, &format!("SELECT {name}(a, b) FROM t")) else {
        return false;
    };
    let Some(Statement::Query(query)) = statements.first() else { return false };
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    matches!(
        select.projection.as_slice(),
        [SelectItem::UnnamedExpr(Expr::Function(function))] if object_name(&function.name) == name
    )
}
