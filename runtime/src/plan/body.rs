//! What an operator computes, whatever it is written in: the plan, the engine and `explain` see operators through this.

use std::sync::Arc;

use logmill_operators::error::OperatorError;
use logmill_operators::operator::{Operator, PortSchema};
use logmill_operators::sql::{SqlInput, SqlPlan};
use logmill_operators::wasm::WasmPlan;
use logmill_wasm::Limits;

/// What an operator computes.
#[derive(Clone)]
pub enum OperatorBody {
    /// A query.
    Sql(SqlPlan),
    /// A WebAssembly module.
    Wasm(WasmBody),
}

/// A module, and where the pipeline puts it.
#[derive(Clone)]
pub struct WasmBody {
    /// The relation that it reads.
    pub input: String,
    /// What it was found to do with it.
    pub plan: WasmPlan,
    /// What an instance may use.
    pub limits: Limits,
}

/// A relation that an operator reads, and the columns of it that it needs.
#[derive(Clone, Copy, Debug)]
pub struct BodyInput<'a> {
    /// The relation's name.
    pub relation: &'a str,
    /// The columns, meta columns included.
    pub columns: &'a [String],
}

impl OperatorBody {
    /// What its input ports read, in the order of the ports.
    pub fn inputs<'a>(&'a self) -> Vec<BodyInput<'a>> {
        match self {
            Self::Sql(sql) => {
                let input = |input: &'a SqlInput| BodyInput { relation: &input.relation, columns: &input.columns };
                sql.inputs().iter().map(input).collect()
            }
            Self::Wasm(wasm) => vec![BodyInput { relation: &wasm.input, columns: wasm.plan.reads() }],
        }
    }

    /// The relations it puts out, in the order of the output ports. The first goes by the operator's own name.
    pub fn outputs(&self, operator: &str) -> Vec<PortSchema> {
        match self {
            Self::Sql(sql) => vec![PortSchema { name: Arc::from(operator), schema: sql.output_schema() }],
            Self::Wasm(wasm) => wasm.plan.outputs().to_vec(),
        }
    }

    /// The static tables that its instances want when they open.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        let tables = match self {
            Self::Sql(sql) => sql.tables(),
            Self::Wasm(_) => &[],
        };
        tables.iter().map(|input| &*input.relation)
    }

    /// Whether its rows carry meta columns besides those of its outputs, which readers may name.
    pub fn has_meta(&self) -> bool {
        match self {
            Self::Sql(_) => false,
            Self::Wasm(wasm) => wasm.plan.hidden(),
        }
    }

    /// A fresh instance for one worker, not opened yet.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn instance(&self) -> Result<Box<dyn Operator>, OperatorError> {
        match self {
            Self::Sql(sql) => Ok(sql.operator()),
            Self::Wasm(wasm) => wasm.plan.operator(),
        }
    }

    /// Whether it remembers something from batch to batch.
    pub fn is_stateful(&self) -> bool {
        match self {
            Self::Sql(_) => false,
            Self::Wasm(wasm) => wasm.plan.is_stateful(),
        }
    }
}
