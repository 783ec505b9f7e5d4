//! What DataFusion is told about the world: functions, options, relations, and the optimizer rules that we use.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, TableReference, plan_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::functions::Functions;
use super::safeguards::Safeguards;
use super::timestamps;

/// The functions and options of every query; built once, as it takes milliseconds.
static STATE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut config = SessionConfig::new();
    let parser = &mut config.options_mut().sql_parser;
    parser.collect_spans = true;
    parser.map_string_types_to_utf8view = false;
    let mut state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    // Registering in a fresh session cannot fail; if it ever did, the functions would be unknown to every query.
    let _ = datafusion_functions_json::register_all(&mut state);
    timestamps::register(&mut state);
    let _ = state.register_function_rewrite(Arc::new(Safeguards));
    state
});

/// Rules that make plans which a stream cannot follow, or that need whole relations at hand.
const DROPPED_RULES: [&str; 6] = [
    "single_distinct_aggregation_to_group_by",
    "push_down_limit",
    "eliminate_limit",
    "unions_to_filter",
    "extract_leaf_expressions",
    "push_down_leaf_projections",
];

/// Gives a session the functions that the `sql` operator has, so that batch queries may use the same.
pub fn register_functions(ctx: &SessionContext, functions: &Functions) {
    let state = ctx.state_ref();
    // As above: names that exist are replaced, nothing else can go wrong.
    let _ = datafusion_functions_json::register_all(&mut *state.write());
    timestamps::register(&mut state.write());
    let _ = state.write().register_function_rewrite(Arc::new(Safeguards));
    functions.iter().for_each(|udf| ctx.register_udf(udf.as_ref().clone()));
}

/// The session of all queries.
pub(super) fn state() -> &'static SessionState {
    &STATE
}

/// DataFusion's optimizer without the rules that do not suit streams.
pub(super) fn optimizer() -> Optimizer {
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> =
        Optimizer::new().rules.into_iter().filter(|rule| !DROPPED_RULES.contains(&rule.name())).collect();
    Optimizer::with_rules(rules)
}

/// The name of a relation as we know it: that of an operator's further output has a dot in it.
pub(super) fn relation_name(name: &TableReference) -> String {
    match name {
        TableReference::Bare { table } => table.to_string(),
        TableReference::Partial { schema, table } => format!("{schema}.{table}"),
        TableReference::Full { catalog, schema, table } => format!("{catalog}.{schema}.{table}"),
    }
}

/// A relation as the planner sees it: columns, and no constraints from which it might conclude too much.
#[derive(Debug)]
pub(super) struct RelationSource {
    schema: SchemaRef,
}

impl RelationSource {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// The relations of one query, and the functions that it may call.
pub(super) struct Relations {
    sources: Vec<(Arc<str>, Arc<dyn TableSource>)>,
    functions: Functions,
}

impl Relations {
    pub(super) fn new(sources: Vec<(Arc<str>, Arc<dyn TableSource>)>, functions: Functions) -> Self {
        Self { sources, functions }
    }
}

impl ContextProvider for Relations {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let wanted = relation_name(&name);
        match self.sources.iter().find(|(known, _)| **known == *wanted) {
            Some((_, source)) => Ok(Arc::clone(source)),
            None => plan_err!("unknown relation `{name}`"),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        STATE.expr_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.get(name).or_else(|| STATE.scalar_functions().get(name)).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        STATE.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        STATE.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        STATE.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        STATE.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        STATE.scalar_functions().keys().cloned().chain(self.functions.names().map(str::to_owned)).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        STATE.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        STATE.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        STATE.window_functions().keys().cloned().collect()
    }
}
