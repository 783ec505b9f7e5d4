//! The blackhole sink: takes rows and drops them. For benchmarks, and to see that a pipeline runs.

use std::sync::Arc;

use async_trait::async_trait;
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};
use logmill_pipelines::{ConnectorKind, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;
use crate::sink::{
    Accepts, Attempt, Committed, OpenWriter, Prepared, Restage, Sink, Taken, Token, Writer, Written, stages_nothing,
};

/// Drops rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// The blackhole sink, as the catalog lists it.
pub fn kind() -> ConnectorKind {
    ConnectorKind {
        name: "blackhole",
        role: Role::Sink,
        summary: "drops every row; for benchmarks",
        schema: || schemars::schema_for!(Config),
        formats: &[],
        needs_through: false,
    }
}

/// Makes the sink.
pub fn sink() -> Arc<dyn Sink> {
    Arc::new(Blackhole)
}

struct Blackhole;

#[async_trait]
impl Sink for Blackhole {
    fn accepts(&self) -> Accepts {
        Accepts::Changelog
    }

    async fn open(&self, _open: OpenWriter) -> Result<Box<dyn Writer>, ConnectorError> {
        Ok(Box::new(Counter::default()))
    }

    async fn commit(&self, _token: &Token) -> Result<Committed, ConnectorError> {
        Err(stages_nothing("blackhole"))
    }

    fn commits_at_once(&self) -> usize {
        1
    }

    async fn restage(&self, _restage: Restage) -> Result<Vec<Token>, ConnectorError> {
        Err(stages_nothing("blackhole"))
    }

    async fn collect(&self, _live: &[Token], _attempt: &Attempt) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// Counts what it drops.
#[derive(Default)]
struct Counter(Written);

#[async_trait]
impl Writer for Counter {
    async fn write(&mut self, batch: RowBatch) -> Result<Taken, ConnectorError> {
        self.0.rows += batch.num_rows() as u64;
        self.0.bytes += batch.size_bytes() as u64;
        Ok(Taken::default())
    }

    async fn prepare(&mut self, _epoch: CheckpointEpoch, _last: bool) -> Result<Prepared, ConnectorError> {
        Ok(Prepared { visible: std::mem::take(&mut self.0), ..Prepared::default() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[tokio::test]
    async fn rows_are_counted_and_gone() {
        let open =
            OpenWriter { shard: 0, attempt: Attempt("a".into()), epoch: CheckpointEpoch(1), carried: Vec::new() };
        let mut writer = sink().open(open).await.unwrap();
        let rows = crate::conformance::sink::batch(&[(1, None), (2, None)]).unwrap();
        writer.write(RowBatch::inserts(rows.clone())).await.unwrap();
        writer.write(RowBatch::inserts(rows)).await.unwrap();
        let prepared = writer.prepare(CheckpointEpoch(1), true).await.unwrap();
        assert_eq!(prepared.visible.rows, 4);
        assert!(prepared.tokens.is_empty() && prepared.carried.is_none());
    }
}
