//! The `sql` operator: stateless streaming SQL, planned by DataFusion and run by us.
//!
//! ```text
//!   text ──parse──▶ AST ──gate──▶ AST ──SqlToRel, Analyzer, Optimizer──▶ LogicalPlan ──lower──▶ chains ──▶ Operator
//!        places      refuses what      names, types, pushed-down             one a scan of a stream:
//!                    needs state       projections                           filter ▸ project ▸ join ▸ unnest …
//! ```
//!
//! DataFusion's physical plans are not executed: its expressions are, over whole columns, in chains that keep no
//! state and therefore need no checkpoint. Every refusal and every error has its place in the text.

mod arrows;
mod blame;
mod bounds;
mod chain;
mod compile;
mod constants;
mod context;
mod error;
mod evaluation;
mod explain;
mod fields;
mod functions;
mod gate;
mod guard;
mod hash_table;
mod in_subquery;
mod join;
mod logical;
mod lower;
mod narrow;
mod operator;
mod output;
mod parse;
mod plan;
mod provenance;
mod row_size;
mod safeguards;
mod scope;
mod timestamps;
mod unnest;
mod wildcard;

pub use arrows::bind_arrows;
pub use blame::describe;
pub use context::register_functions;
pub use error::SqlError;
pub use functions::{FunctionNameError, Functions};
pub(crate) use plan::meta_field;
pub use plan::{Relation, RelationKind, SqlInput, SqlPlan, plan};
pub use scope::{TableRef, table_refs};
pub use timestamps::in_microseconds;

#[cfg(test)]
mod tests;
