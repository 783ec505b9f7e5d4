//! Produce: batches from the frame into the log, without a copy.
//!
//! ```text
//!   frame ── parse ──▶ places of batches ── check, patch, append ──▶ page cache ── acks=all ──▶ disk
//!                                             in the frame itself       │                        │ one sync for all
//!   the next request begins here ◀──────────────────────────────────────┘      the answer ◀──────┘ who wait
//! ```

mod check;
mod response;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use logmill_protocol::Compression;
use logmill_protocol::wire::{ProducePartition, ProduceRequest, ProduceTopic, TopicRef};
use tokio::time::{Instant, timeout_at};

use crate::blocking;
use crate::broker::{Acknowledged, Acks, Producing};
use crate::error::{BrokerError, Refusal};
use crate::server::api::{Begun, Refused, malformed};
use crate::server::context::{Node, RequestContext};
use crate::server::produce::response::{Failure, PartitionOutcome, TopicOutcome};
use crate::topics::OpenTopic;

/// Appends the request's batches.
pub(in crate::server) async fn begin(context: &RequestContext, version: i16, body: BytesMut) -> Result<Begun, Refused> {
    let request = ProduceRequest::parse(version, &body).map_err(malformed)?;
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let wants_answer = request.acks != 0;
    let node = &context.node;
    let (producing, outcomes) = match admit(node, &request, &body) {
        Ok((producing, acks)) => {
            let topics = request.topics.iter().map(|topic| find(node, topic, &body)).collect();
            let work = Work { producing, acks, version, body, request, topics };
            let (producing, outcomes) = work.run().await.map_err(|_| Refused::Stopping)?;
            (Some(producing), outcomes)
        }
        Err(error) => (None, refuse(&request, &body, &error.into())),
    };
    if !wants_answer {
        return match response::first_failure(&outcomes) {
            None => Ok(Begun::Unanswered),
            // The only way to let such a client know.
            Some(failure) => Err(Refused::Unacknowledged(failure.reason())),
        };
    }
    let node = Arc::clone(node);
    if !outcomes.iter().any(TopicOutcome::waits) {
        return Ok(Begun::Done(response::encode(&node, version, outcomes)?));
    }
    Ok(Begun::Later(Box::pin(async move {
        let outcomes = acknowledge(outcomes, deadline).await;
        // Until here, so that the broker does not close while someone waits.
        drop(producing);
        response::encode(&node, version, outcomes)
    })))
}

/// What concerns the request as a whole.
fn admit(node: &Node, request: &ProduceRequest, body: &[u8]) -> Result<(Producing, Acks), BrokerError> {
    let acks = Acks::parse(request.acks)?;
    if let Some(id) = request.transactional_id(body) {
        tracing::warn!(transactional_id = id, "refusing a transactional producer: transactions are not supported yet");
        return Err(check::transactions());
    }
    Ok((node.broker.producing()?, acks))
}

fn find(node: &Node, topic: &ProduceTopic, body: &[u8]) -> Result<Arc<OpenTopic>, BrokerError> {
    match &topic.topic {
        TopicRef::Id(id) => node.broker.open_topic_by_id(*id),
        name => node.broker.open_topic(name.name(body).unwrap_or_default()),
    }
}

/// The same answer for every partition.
fn refuse(request: &ProduceRequest, body: &[u8], failure: &Failure) -> Vec<TopicOutcome> {
    let refused =
        |partition: &ProducePartition| PartitionOutcome { index: partition.index, result: Err(failure.clone()) };
    let topic = |topic: &ProduceTopic| {
        TopicOutcome::new(&topic.topic, body, request.partitions_of(topic).iter().map(refused).collect())
    };
    request.topics.iter().map(topic).collect()
}

/// A request that appends, on whichever thread.
struct Work {
    producing: Producing,
    acks: Acks,
    version: i16,
    body: BytesMut,
    request: ProduceRequest,
    /// In the order of the request.
    topics: Vec<Result<Arc<OpenTopic>, BrokerError>>,
}

impl Work {
    async fn run(self) -> Result<(Producing, Vec<TopicOutcome>), BrokerError> {
        let (size, takes_long) = (self.body.len(), self.must_recode());
        let append = move || Ok(self.append());
        if takes_long { blocking::decompressing(append).await } else { blocking::unless_small(size, append).await }
    }

    /// Whether records have to be decompressed, or compressed: for their topic's codec, or to know their timestamps.
    fn must_recode(&self) -> bool {
        let must = |topic: &OpenTopic, partition: &ProducePartition| {
            let batch = partition.records.clone().and_then(|place| self.body.get(place)).unwrap_or_default();
            let (config, codec) = (&topic.config, check::codec(batch));
            let recompress = config.compression.is_some() && config.compression != codec;
            recompress || (codec != Some(Compression::None) && config.timestamp_before_max_ms < i64::MAX as u64)
        };
        self.request.topics.iter().zip(&self.topics).any(|(topic, open)| {
            open.as_ref().is_ok_and(|open| self.request.partitions_of(topic).iter().any(|part| must(open, part)))
        })
    }

    fn append(mut self) -> (Producing, Vec<TopicOutcome>) {
        let mut outcomes = Vec::with_capacity(self.topics.len());
        for (topic, open) in self.request.topics.iter().zip(self.topics) {
            let open = open.map_err(Failure::from);
            let parts = self.request.partitions_of(topic);
            let mut partitions = Vec::with_capacity(parts.len());
            for part in parts {
                let batch = part.records.clone().and_then(|place| self.body.get_mut(place)).unwrap_or_default();
                let result = match &open {
                    Ok(open) => append(&self.producing, open, part.index, batch, self.version, self.acks),
                    Err(unknown) => Err(unknown.clone()),
                };
                partitions.push(PartitionOutcome { index: part.index, result });
            }
            outcomes.push(TopicOutcome::new(&topic.topic, &self.body, partitions));
        }
        (self.producing, outcomes)
    }
}

fn append(
    producing: &Producing,
    topic: &OpenTopic,
    index: i32,
    batch: &mut [u8],
    version: i16,
    acks: Acks,
) -> Result<Acknowledged, Failure> {
    // Where first, as Kafka does: what is sent nowhere is not judged.
    let partition = producing.partition(topic, index)?;
    check::check(partition.name(), batch, version)?;
    Ok(producing.append(topic, partition, batch, acks)?)
}

/// Waits until what was appended is durable, or for as long as the client allows.
async fn acknowledge(mut outcomes: Vec<TopicOutcome>, deadline: Instant) -> Vec<TopicOutcome> {
    for PartitionOutcome { result, .. } in outcomes.iter_mut().flat_map(|topic| &mut topic.partitions) {
        let Ok(appended) = result else { continue };
        let failure = match timeout_at(deadline, appended.durable()).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(_) => BrokerError::Refused {
                kind: Refusal::TimedOut,
                message: "the disk did not confirm in time".to_owned(),
                record: None,
            },
        };
        *result = Err(failure.into());
    }
    outcomes
}
