//! A plan as text: for people, and for comparing an edited pipeline with the state of the old one.

use std::fmt::Write;

use arrow::datatypes::Schema;
use datafusion::logical_expr::LogicalPlan;
use logmill_pipelines::ColumnType;

use super::chain::{Chain, Source, Step};
use super::logical::type_name;
use super::plan::Planned;

/// The steps that rows take from each scan to the output.
pub(super) fn explain(plan: &Planned) -> String {
    let mut text = String::new();
    for chain in &plan.chains {
        explain_chain(chain, 0, &mut text);
    }
    let _ = writeln!(text, "output {}", columns(&plan.output_schema));
    text
}

fn explain_chain(chain: &Chain, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    let _ = match &chain.source {
        Source::Relation { name, schema } => writeln!(text, "{indent}read {name} ({})", columns(schema)),
        Source::Rows(rows) => writeln!(text, "{indent}{} rows of the query itself", rows.num_rows()),
    };
    for step in &chain.steps {
        match step {
            Step::Filter(filter) => {
                let _ = writeln!(text, "{indent}  filter {}", filter.text);
            }
            Step::Project(project) => {
                let _ = writeln!(text, "{indent}  project {}", project.text.join(", "));
            }
            Step::Unnest(unnest) => {
                let _ = writeln!(text, "{indent}  unnest {}", unnest.text);
            }
            Step::Join(join) => {
                let _ = writeln!(text, "{indent}  {}, in a hash table of", join.text);
                for nested in &join.build.chains {
                    explain_chain(nested, depth + 2, text);
                }
            }
        }
    }
}

/// Columns with their types, as a pipeline's schema writes them.
fn columns(schema: &Schema) -> String {
    let column = |field: &arrow::datatypes::FieldRef| match ColumnType::from_field(field) {
        Ok(ColumnType::Json) => format!("{}: json", field.name()),
        _ => format!("{}: {}", field.name(), type_name(field.data_type())),
    };
    schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}

/// What is computed, in a text that changes only if the rows may. `functions` are those called that are not DataFusion's,
/// by name and identity.
pub(super) fn fingerprint(plan: &LogicalPlan, output: &Schema, functions: &[(&str, &str)]) -> String {
    let mut text = format!("sql 1\n{}\noutput {}", plan.display_indent_schema(), columns(output));
    for (name, identity) in functions {
        let _ = write!(text, "\nfunction {name} {identity}");
    }
    text
}
