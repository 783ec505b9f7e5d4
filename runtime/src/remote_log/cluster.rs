//! The brokers of a cluster: which of them a request must go to, and connections that are kept for the next one.

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::{MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use logmill_connectors::error::LogError;
use logmill_connectors::log::TopicPartition;
use parking_lot::Mutex;

use super::connection::Connection;
use super::error::{CallError, is_passing, of_group};

/// So many connections to one broker are kept for later.
const MAX_IDLE_CONNECTIONS: usize = 8;
/// A connection that was idle for longer may have been closed by the broker: a new one is opened.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// What passes is tried again so often,
const ATTEMPTS: u32 = 60;
/// after so long.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A cluster, reached at some of its brokers.
pub(super) struct Cluster {
    /// `host:port` of the brokers named by the user.
    seeds: Vec<String>,
    idle: Mutex<HashMap<String, Vec<Connection>>>,
    /// The addresses of the partitions' leaders, as far as they were asked for.
    leaders: Mutex<HashMap<TopicPartition, String>>,
    coordinators: Mutex<HashMap<String, String>>,
}

impl Cluster {
    /// A cluster by `host:port`s, separated by commas. Connects when it is first asked something.
    pub(super) fn new(bootstrap: &str) -> Self {
        let seeds = bootstrap.split(',').map(|seed| seed.trim().to_owned()).filter(|seed| !seed.is_empty()).collect();
        Self { seeds, idle: Mutex::default(), leaders: Mutex::default(), coordinators: Mutex::default() }
    }

    /// Asks one broker.
    pub(super) async fn call<R: Request>(
        &self,
        address: &str,
        request: &R,
        wait: Duration,
    ) -> Result<R::Response, CallError> {
        let kept = self.idle.lock().get_mut(address).and_then(Vec::pop);
        let mut connection = match kept.filter(|connection| connection.used.elapsed() < MAX_IDLE) {
            Some(connection) => connection,
            None => Connection::open(address).await?,
        };
        let answer = connection.call(address, request, wait).await?;
        let mut idle = self.idle.lock();
        let kept = idle.entry(address.to_owned()).or_default();
        if kept.len() < MAX_IDLE_CONNECTIONS {
            kept.push(connection);
        }
        Ok(answer)
    }

    /// Asks the first of the named brokers that answers.
    pub(super) async fn call_any<R: Request>(&self, request: &R) -> Result<R::Response, LogError> {
        let mut last = LogError::Invalid("no server is named: say HOST:PORT".to_owned());
        for seed in &self.seeds {
            match self.call(seed, request, Duration::ZERO).await {
                Ok(answer) => return Ok(answer),
                Err(error @ CallError::Io { .. }) => last = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last)
    }

    /// What the cluster says of topics, or of all. Makes none.
    pub(super) async fn metadata(&self, topics: Option<&[&str]>) -> Result<MetadataResponse, LogError> {
        let named = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(topics.map(|topics| topics.iter().map(named).collect()))
            .with_allow_auto_topic_creation(false);
        self.call_any(&request).await
    }

    /// The addresses of all brokers.
    pub(super) async fn brokers(&self) -> Result<Vec<String>, LogError> {
        let found = self.metadata(Some(&[])).await?;
        Ok(found.brokers.iter().map(|broker| address(&broker.host, broker.port)).collect())
    }

    /// The address of the broker that changes topics.
    pub(super) async fn controller(&self) -> Result<String, LogError> {
        let found = self.metadata(Some(&[])).await?;
        let controller = found.brokers.iter().find(|broker| broker.node_id == found.controller_id);
        let broker = controller.or(found.brokers.first());
        let none = || LogError::Invalid("the server names no broker of its cluster".to_owned());
        broker.map(|broker| address(&broker.host, broker.port)).ok_or_else(none)
    }

    /// Asks the leader of a partition, and the next one if it has moved. `code` finds the partition's error in an answer.
    pub(super) async fn call_leader<R: Request>(
        &self,
        place: &TopicPartition,
        request: &R,
        wait: Duration,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, LogError> {
        for _ in 1..ATTEMPTS {
            let leader = self.leader(place).await?;
            let answer = self.call(&leader, request, wait).await;
            match &answer {
                Ok(answer) if !is_passing(code(answer)) => {}
                Err(CallError::NotServed { .. }) => {}
                // A broker that has gone may have left its partitions to another one. What was asked of it may have
                // been done: only the caller knows whether it can be asked again.
                Err(CallError::Io { .. }) => {
                    self.leaders.lock().remove(place);
                }
                Ok(_) => {
                    self.leaders.lock().remove(place);
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
            }
            return Ok(answer?);
        }
        Err(LogError::Invalid(format!("{}-{} has no leader", place.topic, place.partition)))
    }

    async fn leader(&self, place: &TopicPartition) -> Result<String, LogError> {
        let known = self.leaders.lock().get(place).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        for _ in 1..ATTEMPTS {
            let found = self.metadata(Some(&[&place.topic])).await?;
            let topic =
                found.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|n| n.0.as_str() == place.topic));
            let topic = topic.filter(|topic| topic.error_code == 0 || is_passing(topic.error_code));
            let topic = topic.ok_or_else(|| LogError::UnknownTopic(place.topic.clone()))?;
            let partition = topic.partitions.iter().find(|partition| partition.partition_index == place.partition);
            if partition.is_none() && topic.error_code == 0 {
                let TopicPartition { topic, partition } = place.clone();
                return Err(LogError::UnknownPartition { topic, partition });
            }
            let leader = partition.and_then(|p| found.brokers.iter().find(|broker| broker.node_id == p.leader_id));
            if let Some(broker) = leader {
                let leader = address(&broker.host, broker.port);
                self.leaders.lock().insert(place.clone(), leader.clone());
                return Ok(leader);
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
        Err(LogError::Invalid(format!("{}-{} has no leader", place.topic, place.partition)))
    }

    /// Asks the coordinator of a group, and the next one if it has moved.
    pub(super) async fn call_coordinator<R: Request>(
        &self,
        group: &str,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, LogError> {
        for _ in 1..ATTEMPTS {
            let coordinator = self.coordinator(group).await?;
            let answer = self.call(&coordinator, request, Duration::ZERO).await?;
            if !is_passing(code(&answer)) {
                return Ok(answer);
            }
            self.coordinators.lock().remove(group);
            tokio::time::sleep(RETRY_AFTER).await;
        }
        Err(LogError::Invalid(format!("group `{group}` has no coordinator")))
    }

    async fn coordinator(&self, group: &str) -> Result<String, LogError> {
        let known = self.coordinators.lock().get(group).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        for _ in 1..ATTEMPTS {
            let found = self.call_any(&request).await?;
            match found.error_code {
                0 => {
                    let coordinator = address(&found.host, found.port);
                    self.coordinators.lock().insert(group.to_owned(), coordinator.clone());
                    return Ok(coordinator);
                }
                code if is_passing(code) => tokio::time::sleep(RETRY_AFTER).await,
                code => return Err(of_group(code, group)),
            }
        }
        Err(LogError::Invalid(format!("group `{group}` has no coordinator")))
    }
}

fn address(host: &StrBytes, port: i32) -> String {
    match host.contains(':') {
        true => format!("[{}]:{port}", host.as_str()),
        false => format!("{}:{port}", host.as_str()),
    }
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
