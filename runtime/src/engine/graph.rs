//! One worker's instance of the operators, wired to each other and to the sinks' queues.
//!
//! A batch is pushed in at a feed and runs through to the queues before the next one is taken, so no batch waits between
//! two operators and a barrier finds the graph empty.
//!
//! Whatever comes of a batch has its origin, unless an operator says otherwise: by the origin, a stateful operator knows the
//! shard of its state that a batch belongs to, and that shard is this worker's.

use arrow::datatypes::SchemaRef;
use logmill_operators::error::OperatorError;
use logmill_operators::operator::{Operator, Output, Port, Progress, StateBuffer};
use logmill_pipelines::flow::{CheckpointEpoch, Origin, RowBatch};

use super::error::EngineError;
use super::event::{FeedId, WriterId};
use super::picker::Picker;

/// An operator stops emitting and is resumed later once it has put out this much.
const OUTPUT_BYTES: usize = 8 << 20;

/// Where a batch goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To a port of an operator, by its number in the plan.
    Operator(usize, Port),
    /// To a sink.
    Writer(WriterId),
}

/// Rows that an operator failed on.
pub(crate) struct Rejected {
    /// The operator's number in the plan.
    pub(crate) operator: usize,
    /// The rows as it saw them.
    pub(crate) batch: RowBatch,
    /// What is wrong with them.
    pub(crate) reason: String,
}

/// Takes what leaves the graph.
pub(crate) trait Exit {
    /// Rows for a sink.
    fn deliver(&mut self, writer: WriterId, batch: RowBatch) -> Result<(), EngineError>;

    /// Rows that failed.
    fn reject(&mut self, rejected: Rejected) -> Result<(), EngineError>;
}

/// The operators of one worker.
pub(crate) struct Graph {
    operators: Vec<Node>,
    feeds: Vec<Vec<Route>>,
    /// The columns that each sink takes.
    sinks: Vec<Picker>,
    /// The origin of what comes of no batch.
    home: Origin,
    /// The origin of what is on its way.
    origin: Option<Origin>,
}

/// An opened operator, and the routes of each of its outputs.
pub(crate) type RoutedOperator = (Box<dyn Operator>, Vec<Vec<Route>>);

/// The operators of a worker, the ways between them, and what leaves them for sinks.
pub(crate) struct GraphParts {
    /// Opened operators, each with the routes of its outputs.
    pub(crate) operators: Vec<RoutedOperator>,
    /// The routes of each feed.
    pub(crate) feeds: Vec<Vec<Route>>,
    /// The columns that each sink takes, of those that a batch has; all if absent.
    pub(crate) sinks: Vec<Option<SchemaRef>>,
    /// The origin of what comes of no batch: one whose shard is this worker's.
    pub(crate) home: Origin,
}

struct Node {
    operator: Box<dyn Operator>,
    /// The routes of each output port.
    routes: Vec<Vec<Route>>,
}

#[derive(Default)]
struct Emitted {
    batches: Vec<(Port, RowBatch)>,
    bytes: usize,
    rejected: Vec<(RowBatch, String)>,
}

impl Output for Emitted {
    fn emit(&mut self, port: Port, batch: RowBatch) {
        self.bytes += batch.size_bytes();
        self.batches.push((port, batch));
    }

    fn reject(&mut self, batch: RowBatch, reason: &str) {
        self.rejected.push((batch, reason.to_owned()));
    }

    fn is_full(&self) -> bool {
        self.bytes >= OUTPUT_BYTES
    }
}

impl Graph {
    /// Puts the parts together.
    pub(crate) fn new(parts: GraphParts) -> Self {
        let operators = parts.operators.into_iter().map(|(operator, routes)| Node { operator, routes }).collect();
        let sinks = parts.sinks.into_iter().map(Picker::new).collect();
        Self { operators, feeds: parts.feeds, sinks, home: parts.home, origin: None }
    }

    /// Runs a batch of a feed through.
    pub(crate) fn push(&mut self, feed: FeedId, batch: RowBatch, exit: &mut dyn Exit) -> Result<(), EngineError> {
        let routes = self.feeds.get(feed.0).cloned().unwrap_or_default();
        self.origin.clone_from(&batch.origin);
        self.send(&routes, batch, exit)
    }

    /// Tells every operator that nothing more comes, in topological order.
    pub(crate) fn end(&mut self, exit: &mut dyn Exit) -> Result<(), EngineError> {
        self.origin = Some(self.home.clone());
        for number in 0..self.operators.len() {
            let ports = self.operators.get(number).map_or(0, |node| node.operator.inputs().len());
            for port in 0..ports {
                self.drive(number, exit, |operator, out| operator.on_end(port, out))?;
            }
        }
        Ok(())
    }

    /// What each operator remembers, of the shards that changed since the last time.
    pub(crate) fn snapshot(&mut self, epoch: CheckpointEpoch) -> Result<Vec<(usize, Vec<StateBuffer>)>, EngineError> {
        let mut snapshots = Vec::new();
        for (number, node) in self.operators.iter_mut().enumerate() {
            let buffers = node.operator.snapshot(epoch)?;
            if !buffers.is_empty() {
                snapshots.push((number, buffers));
            }
        }
        Ok(snapshots)
    }

    fn send(&mut self, routes: &[Route], batch: RowBatch, exit: &mut dyn Exit) -> Result<(), EngineError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        for route in routes {
            let batch = batch.clone();
            match *route {
                Route::Writer(writer) => {
                    let picker = self.sinks.get_mut(writer.0).ok_or(EngineError::Defect("the columns of a sink"))?;
                    exit.deliver(writer, picker.pick(batch)?)?;
                }
                Route::Operator(number, port) => {
                    let mut batch = Some(batch);
                    self.drive(number, exit, |operator, out| match batch.take() {
                        Some(batch) => operator.on_batch(port, batch, out),
                        None => Ok(Progress::Done),
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Calls an operator, and resumes it until it is done; what it puts out is sent on in between.
    fn drive(
        &mut self,
        number: usize,
        exit: &mut dyn Exit,
        call: impl FnOnce(&mut dyn Operator, &mut dyn Output) -> Result<Progress, OperatorError>,
    ) -> Result<(), EngineError> {
        let mut out = Emitted::default();
        let Some(node) = self.operators.get_mut(number) else { return Ok(()) };
        let routes = node.routes.clone();
        let mut progress = call(node.operator.as_mut(), &mut out)?;
        loop {
            for (batch, reason) in out.rejected.drain(..) {
                exit.reject(Rejected { operator: number, batch, reason })?;
            }
            out.bytes = 0;
            for (port, mut batch) in std::mem::take(&mut out.batches) {
                batch.origin = batch.origin.or_else(|| self.origin.clone());
                self.send(routes.get(port).map_or(&[], Vec::as_slice), batch, exit)?;
            }
            if progress == Progress::Done {
                return Ok(());
            }
            let Some(node) = self.operators.get_mut(number) else { return Ok(()) };
            progress = node.operator.resume(&mut out)?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{ArrayRef, Int32Array, RecordBatch};
    use logmill_operators::operator::{OpenContext, PortSchema};
    use logmill_pipelines::flow::{SplitId, Watermark};
    use std::sync::Arc;

    fn rows(number: i32) -> RowBatch {
        let column = |n| -> ArrayRef { Arc::new(Int32Array::from(vec![n])) };
        RowBatch::inserts(RecordBatch::try_from_iter([("n", column(number)), ("_offset", column(-number))]).unwrap())
    }

    /// Puts every batch out at both of its ports, and at the end one more; forgets where they came from.
    struct Forgetful {
        ports: Vec<PortSchema>,
        seen: Vec<Option<SplitId>>,
    }

    impl Forgetful {
        fn boxed() -> Box<dyn Operator> {
            let port = |name: &str| PortSchema { name: name.into(), schema: rows(0).rows.schema() };
            Box::new(Self { ports: vec![port("a"), port("a.b")], seen: Vec::new() })
        }
    }

    impl Operator for Forgetful {
        fn inputs(&self) -> &[PortSchema] {
            &self.ports[..1]
        }

        fn outputs(&self) -> &[PortSchema] {
            &self.ports
        }

        fn open(&mut self, _: OpenContext) -> Result<(), OperatorError> {
            Ok(())
        }

        fn on_batch(&mut self, _: Port, batch: RowBatch, out: &mut dyn Output) -> Result<Progress, OperatorError> {
            self.seen.push(batch.origin.map(|origin| origin.split));
            out.emit(0, RowBatch::inserts(batch.rows.clone()));
            out.emit(1, RowBatch::inserts(batch.rows));
            Ok(Progress::Done)
        }

        fn resume(&mut self, _: &mut dyn Output) -> Result<Progress, OperatorError> {
            Ok(Progress::Done)
        }

        fn on_watermark(&mut self, _: Port, _: Watermark, _: &mut dyn Output) -> Result<Progress, OperatorError> {
            Ok(Progress::Done)
        }

        fn on_timer(&mut self, _: i64, _: &mut dyn Output) -> Result<Progress, OperatorError> {
            Ok(Progress::Done)
        }

        fn next_timer(&self) -> Option<i64> {
            None
        }

        fn on_end(&mut self, _: Port, out: &mut dyn Output) -> Result<Progress, OperatorError> {
            out.emit(0, rows(99));
            Ok(Progress::Done)
        }

        /// One shard for each batch seen, named by its split.
        fn snapshot(&mut self, _: CheckpointEpoch) -> Result<Vec<StateBuffer>, OperatorError> {
            let name = |split: &Option<SplitId>| split.as_ref().map_or("none".into(), |split| split.0.clone());
            let buffer = |split| StateBuffer { table: name(split), shard: 0, data: bytes::Bytes::new() };
            Ok(std::mem::take(&mut self.seen).iter().map(buffer).collect())
        }

        fn restore(&mut self, _: Vec<StateBuffer>) -> Result<(), OperatorError> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Left(Vec<(usize, i32, usize, String)>);

    impl Exit for Left {
        fn deliver(&mut self, writer: WriterId, batch: RowBatch) -> Result<(), EngineError> {
            let number = batch.rows.column(0).as_any().downcast_ref::<Int32Array>().unwrap().value(0);
            let split = batch.origin.map_or("none".to_owned(), |origin| origin.split.to_string());
            self.0.push((writer.0, number, batch.rows.num_columns(), split));
            Ok(())
        }

        fn reject(&mut self, _: Rejected) -> Result<(), EngineError> {
            Ok(())
        }
    }

    #[test]
    fn batches_go_by_their_port_and_keep_their_origin() {
        let (first, second) = (WriterId(0), WriterId(1));
        let narrow = rows(0).rows.schema().project(&[0]).unwrap();
        let origin = |split: &str| Origin { source: "s".into(), split: SplitId::new(split), offset: 0 };
        let mut graph = Graph::new(GraphParts {
            // The first operator's further output is read by the second, whose own goes to a sink.
            operators: vec![
                (Forgetful::boxed(), vec![vec![Route::Writer(first)], vec![Route::Operator(1, 0)]]),
                (Forgetful::boxed(), vec![vec![Route::Writer(second)], vec![]]),
            ],
            feeds: vec![vec![Route::Operator(0, 0)]],
            sinks: vec![Some(Arc::new(narrow)), None],
            home: origin("home"),
        });
        let mut left = Left::default();
        graph.push(FeedId(0), RowBatch { origin: Some(origin("7")), ..rows(1) }, &mut left).unwrap();
        let tables = |graph: &mut Graph| {
            let snapshots = graph.snapshot(CheckpointEpoch(1)).unwrap().into_iter();
            let names = |(operator, buffers): (usize, Vec<StateBuffer>)| {
                (operator, buffers.into_iter().map(|buffer| buffer.table.to_string()).collect::<Vec<_>>())
            };
            snapshots.map(names).collect::<Vec<_>>()
        };
        assert_eq!(tables(&mut graph), [(0, vec!["7".to_owned()]), (1, vec!["7".to_owned()])]);
        assert_eq!(tables(&mut graph), []);
        graph.end(&mut left).unwrap();
        let expected = [(0, 1, 1, "7"), (1, 1, 2, "7"), (0, 99, 1, "home"), (1, 99, 2, "home")];
        assert_eq!(
            left.0,
            expected.map(|(writer, number, columns, split)| (writer, number, columns, split.to_owned()))
        );
    }
}
