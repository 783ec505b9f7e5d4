//! Panics of a query become its error: a function that meets a value it does not expect must not take a node down.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::Stream;
use logmill_operators::panics::catch;

/// Awaits a step of a query; a panic is an error.
pub(super) async fn caught<T>(step: impl Future<Output = Result<T>>) -> Result<T> {
    let mut step = pin!(step);
    std::future::poll_fn(|context| match catch(|| step.as_mut().poll(context)) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(failure(&panic))),
    })
    .await
}

/// The rows of a query; a panic is an error, after which nothing comes.
pub(super) fn caught_rows(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    Box::pin(CaughtRows { schema: rows.schema(), rows: Some(rows) })
}

fn failure(panic: &str) -> DataFusionError {
    exec_datafusion_err!("{panic}")
}

struct CaughtRows {
    schema: SchemaRef,
    rows: Option<SendableRecordBatchStream>,
}

impl Stream for CaughtRows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
        match catch(|| rows.as_mut().poll_next(context)) {
            Ok(poll) => poll,
            Err(panic) => {
                self.rows = None;
                Poll::Ready(Some(Err(failure(&panic))))
            }
        }
    }
}

impl RecordBatchStream for CaughtRows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
