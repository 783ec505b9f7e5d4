//! Runs rows through a chain, and finds those that fail.
//!
//! All rows run at once and fast. If that fails, they run again carefully, which finds the bad rows and keeps the others
//! in one batch. Where even that fails, or where what comes of the rows is too much at once, they are halved.

use std::collections::BTreeMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::physical_expr::expressions::Literal;

use super::chain::{CHUNK_ROWS, Chain, Flow, Outcome, Step, Tables, run};
use super::evaluation::Evaluation;
use super::guard::is_too_much;
use super::parse::{lowercase_first, without_kind};
use crate::panics::catch;

/// For how many runs after bad rows were found, or might have been there, rows run carefully from the start.
const CAREFUL_RUNS: u32 = 32;

/// How rows run through a chain.
#[derive(Debug)]
pub(super) struct Pace {
    /// How many rows a step that multiplies rows hands on at once, at most.
    chunk_rows: usize,
    /// How many runs are careful from the start.
    careful_runs: u32,
}

impl Pace {
    /// How the rows of a chain run. The more its constants take, the fewer of them run at once, as a constant may become
    /// a part of every row.
    pub(super) fn of(chain: &Chain) -> Self {
        let chunk_rows = (CONSTANT_BYTES / constant_bytes(chain).max(1)).clamp(1, CHUNK_ROWS);
        Self { chunk_rows, careful_runs: 0 }
    }

    /// How many rows of the input run at once, of `most`.
    pub(super) fn rows_at_once(&self, most: usize) -> usize {
        if self.chunk_rows < CHUNK_ROWS { most.min(self.chunk_rows) } else { most }
    }
}

/// What the constants of a chain may become, in bytes, if each becomes a part of every row.
const CONSTANT_BYTES: usize = 64 << 20;

/// The bytes of the constants in the expressions of a chain.
fn constant_bytes(chain: &Chain) -> usize {
    let mut bytes: usize = 0;
    let exprs = chain.steps.iter().flat_map(Step::expressions);
    for expr in exprs {
        // Counting does not fail.
        let _ = expr.apply(|part| {
            if let Some(literal) = part.downcast_ref::<Literal>() {
                bytes = bytes.saturating_add(literal.value().size());
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }
    bytes
}

/// What comes of some rows, and those that failed, by their rows in the operator's input, with the reasons. What comes
/// of the rows that failed may be among the rest.
pub(super) struct Narrowed {
    pub(super) flows: Vec<Flow>,
    pub(super) failed: BTreeMap<usize, String>,
}

/// Runs rows through a chain.
pub(super) fn narrow(chain: &Chain, flow: &Flow, tables: &Tables, pace: &mut Pace) -> Narrowed {
    let mut narrowed = Narrowed { flows: Vec::new(), failed: BTreeMap::new() };
    let mut ranges = vec![(0, flow.rows.num_rows())];
    while let Some((offset, rows)) = ranges.pop() {
        match attempt(chain, &flow.slice(offset, rows), tables, pace) {
            Ok(done) => {
                narrowed.flows.extend(done.flows);
                narrowed.failed.extend(done.failed);
            }
            Err(error) if rows <= 1 => drop(narrowed.failed.insert(flow.input_row(offset), reason(&error))),
            Err(_) => {
                let half = rows / 2;
                ranges.push((offset + half, rows - half));
                ranges.push((offset, half));
            }
        }
    }
    narrowed
}

fn attempt(chain: &Chain, flow: &Flow, tables: &Tables, pace: &mut Pace) -> Result<Narrowed> {
    if pace.careful_runs == 0 {
        match run_once(chain, flow, tables, Evaluation::fast(pace.chunk_rows)) {
            Err(error) if !is_too_much(&error) => pace.careful_runs = CAREFUL_RUNS,
            done => return done,
        }
    }
    pace.careful_runs -= 1;
    run_once(chain, flow, tables, Evaluation::careful(pace.chunk_rows))
}

fn run_once(chain: &Chain, flow: &Flow, tables: &Tables, evaluation: Evaluation) -> Result<Narrowed> {
    let mut out = Outcome::bounded();
    let done = catch(|| run(&chain.steps, flow.clone(), tables, &evaluation, &mut out));
    done.map_err(|panic| exec_datafusion_err!("{panic}"))??;
    Ok(Narrowed { flows: out.flows, failed: evaluation.into_failed() })
}

/// An error as the reason why a row was rejected.
pub(super) fn reason(error: &DataFusionError) -> String {
    let message = error.find_root().message();
    let line = without_kind(&message).lines().next().unwrap_or_default();
    lowercase_first(line.trim_end_matches('.'))
}
