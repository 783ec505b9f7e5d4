//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs.

use kafka_protocol::ResponseError::{self, *};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, alter_configs_request,
    incremental_alter_configs_request,
};
use kafka_protocol::protocol::Message;
use logmill_broker::OFFSETS_TOPIC;
use logmill_broker::server::ServerConfig;

use crate::support::topic;
use crate::{Fixture, error, is, start, text};

const TOPIC: i8 = 2;
const NODE: i8 = 4;

fn describe(resource_type: i8, resource: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect());
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configuration_keys(keys);
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

#[tokio::test]
async fn configs_are_described_with_their_sources_synonyms_and_documentation() {
    let mut fixture = start(ServerConfig { default_partitions: 7, ..ServerConfig::default() }).await;
    fixture.broker.create_topic(topic("t", 1, &[("retention.ms", "5")])).await.unwrap();
    for version in 1..=DescribeConfigsRequest::VERSIONS.max {
        let request = describe(TOPIC, "t", None).with_include_synonyms(true).with_include_documentation(version >= 3);
        let response = fixture.client.call(version, &request).await;
        let configs = &response.results[0].configs;
        let find = |name: &str| configs.iter().find(|config| config.name == *name).unwrap();
        let retention = find("retention.ms");
        assert_eq!((retention.value.as_deref(), retention.config_source, retention.read_only), (Some("5"), 1, false));
        let synonyms: Vec<_> =
            retention.synonyms.iter().map(|s| (s.name.as_str(), s.value.as_deref(), s.source)).collect();
        assert_eq!(synonyms, [("retention.ms", Some("5"), 1), ("log.retention.ms", Some("604800000"), 5)]);
        let cleanup = find("cleanup.policy");
        assert_eq!((cleanup.value.as_deref(), cleanup.config_source), (Some("delete"), 5));
        assert_eq!(cleanup.config_type, if version >= 3 { 7 } else { 0 });
        let has_text = cleanup.documentation.as_deref().is_some_and(|text| text.contains("old records"));
        assert_eq!(has_text, version >= 3);

        let request = describe(TOPIC, "t", Some(&["flush", "nonsense", "segment.bytes"]));
        let response = fixture.client.call(version, &request).await;
        let names: Vec<_> = response.results[0].configs.iter().map(|config| config.name.as_str()).collect();
        assert_eq!(names, ["flush", "segment.bytes"]);
        assert!(response.results[0].configs.iter().all(|config| config.synonyms.is_empty()));

        let response = fixture.client.call(version, &describe(NODE, "1", None)).await;
        let configs = &response.results[0].configs;
        let find = |name: &str| configs.iter().find(|config| config.name == *name).unwrap();
        let partitions = find("num.partitions");
        assert_eq!((partitions.value.as_deref(), partitions.config_source), (Some("7"), 4));
        assert_eq!(find("log.retention.ms").config_source, 5);
        assert!(configs.iter().all(|config| config.read_only));

        let refused = [
            (TOPIC, "x", UnknownTopicOrPartition),
            (TOPIC, "a/b", InvalidTopicException),
            (NODE, "2", InvalidRequest),
            (NODE, "one", InvalidRequest),
            (8, "1", InvalidRequest),
            (99, "1", InvalidRequest),
        ];
        for (kind, name, expected) in refused {
            let response = fixture.client.call(version, &describe(kind, name, None)).await;
            let result = &response.results[0];
            assert_eq!((error(result.error_code), result.resource_type), (Some(expected), kind));
            assert!(!result.error_message.as_deref().unwrap().is_empty());
        }
        let shared = fixture.client.call(version, &describe(NODE, "", None)).await;
        assert_eq!((shared.results[0].error_code, shared.results[0].configs.len()), (0, 0));
    }
}

/// What an incremental change does: (operation, config, value).
type Operation<'a> = (i8, &'a str, Option<&'a str>);

fn change(resource_type: i8, resource: &str, operations: &[Operation<'_>]) -> IncrementalAlterConfigsRequest {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |(operation, name, value): &Operation<'_>| {
        AlterableConfig::default().with_config_operation(*operation).with_name(text(name)).with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configs(operations.iter().map(config).collect());
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn replace(resource_type: i8, resource: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsRequest {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |(name, value): &(&str, Option<&str>)| {
        AlterableConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configs(configs.iter().map(config).collect());
    AlterConfigsRequest::default().with_resources(vec![resource])
}

async fn set_configs(fixture: &Fixture) -> Vec<String> {
    let configs = fixture.broker.topic("t").await.unwrap().unwrap().configs;
    configs.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[tokio::test]
async fn configs_are_changed_one_by_one_or_as_a_whole() {
    let mut fixture = start(ServerConfig::default()).await;
    for version in 0..=1 {
        fixture.broker.create_topic(topic("t", 1, &[("flush", "os"), ("retention.ms", "1")])).await.unwrap();
        let operations: &[Operation<'_>] = &[
            (0, "retention.ms", Some("5")),
            (1, "flush", None),
            (2, "cleanup.policy", Some("delete")),
            (3, "cleanup.policy", Some("compact")),
        ];
        let request = change(TOPIC, "t", &operations[..3]);
        let response = fixture.client.call(version, &request.clone().with_validate_only(true)).await;
        assert_eq!(response.responses[0].error_code, 0);
        assert_eq!(set_configs(&fixture).await, ["flush=os", "retention.ms=1"]);
        let response = fixture.client.call(version, &request).await;
        assert_eq!((response.responses[0].error_code, &response.responses[0].error_message), (0, &None));
        assert_eq!(set_configs(&fixture).await, ["cleanup.policy=delete", "retention.ms=5"]);
        let response = fixture.client.call(version, &change(TOPIC, "t", &operations[3..])).await;
        assert_eq!(response.responses[0].error_code, 0);
        assert_eq!(set_configs(&fixture).await, ["cleanup.policy=delete", "retention.ms=5"]);
        fixture.broker.delete_topic("t").await.unwrap();
    }
    fixture.broker.create_topic(topic("t", 1, &[])).await.unwrap();
    for version in 0..=2 {
        let value = version.to_string();
        let request = replace(TOPIC, "t", &[("flush.ms", Some(&value)), ("segment.ms", Some("9"))]);
        assert_eq!(fixture.client.call(version, &request).await.responses[0].error_code, 0);
        assert_eq!(set_configs(&fixture).await, [format!("flush.ms={value}"), "segment.ms=9".to_owned()]);
        let request = replace(TOPIC, "t", &[("preallocate", Some("false"))]);
        let response = fixture.client.call(version, &request.clone().with_validate_only(true)).await;
        assert_eq!((response.responses[0].error_code, set_configs(&fixture).await.len()), (0, 2));
        assert_eq!(fixture.client.call(version, &request).await.responses[0].error_code, 0);
        assert_eq!(set_configs(&fixture).await, ["preallocate=false"]);
    }
    let fixture = fixture.restart().await;
    assert_eq!(set_configs(&fixture).await, ["preallocate=false"]);
}

/// What cannot be changed: type and name of the resource, the operations, and what comes of them.
type Refused = (i8, &'static str, &'static [Operation<'static>], ResponseError, &'static str);

const REFUSED: &[Refused] = &[
    (
        TOPIC,
        "t",
        &[(0, "retention.ms", Some("x")), (0, "flush", Some("sync"))],
        InvalidConfig,
        "config `retention.ms` is `x`, it must be -1 (no limit) or a number from 0 on",
    ),
    (TOPIC, "t", &[(1, "flsh", None)], InvalidConfig, "there is no config `flsh`, did you mean `flush`?"),
    (
        TOPIC,
        "t",
        &[(2, "cleanup.policy", Some("compact"))],
        InvalidConfig,
        "config `cleanup.policy`: compaction is not supported yet, use `delete`",
    ),
    (
        TOPIC,
        "t",
        &[(3, "cleanup.policy", Some("delete"))],
        InvalidConfig,
        "config `cleanup.policy` is ``, it must be one of: delete",
    ),
    (
        TOPIC,
        "t",
        &[(2, "flush.ms", Some("7"))],
        InvalidConfig,
        "config `flush.ms` is no list: it can be set, not added to or taken from",
    ),
    (
        TOPIC,
        "t",
        &[(0, "unclean.leader.election.enable", Some("true"))],
        InvalidConfig,
        "config `unclean.leader.election.enable`: an unclean leader is not supported yet, use `false`",
    ),
    (
        TOPIC,
        "t",
        &[(0, "flush", Some("os")), (1, "flush", None)],
        InvalidRequest,
        "config `flush` is named more than once",
    ),
    (TOPIC, "t", &[(0, "flush", None)], InvalidRequest, "config `flush` has no value"),
    (TOPIC, "t", &[(9, "flush", None)], InvalidRequest, "config `flush`: there is no operation 9"),
    (TOPIC, "x", &[(1, "flush", None)], UnknownTopicOrPartition, "topic `x` does not exist"),
    (
        TOPIC,
        "a b",
        &[(1, "flush", None)],
        InvalidTopicException,
        "topic name `a b` may only contain ASCII letters, digits, `.`, `_` and `-`",
    ),
    (
        TOPIC,
        OFFSETS_TOPIC,
        &[(0, "retention.ms", Some("1"))],
        InvalidRequest,
        "topic `__consumer_offsets` is the broker's own, its configs cannot be changed",
    ),
    (
        NODE,
        "1",
        &[(0, "num.partitions", Some("3"))],
        InvalidConfig,
        "config `num.partitions` cannot be changed while the node runs: set it in its config and restart it",
    ),
    (
        NODE,
        "",
        &[(0, "num.partition", Some("3"))],
        InvalidConfig,
        "there is no config `num.partition` of a node, did you mean `num.partitions`?",
    ),
    (NODE, "2", &[(0, "x", Some("3"))], InvalidRequest, "there is no node `2` here, this is node 1"),
    (
        8,
        "1",
        &[(0, "root", Some("DEBUG"))],
        InvalidRequest,
        "log levels of a running node are not supported yet, they are set when it starts",
    ),
];

#[tokio::test]
async fn config_changes_that_cannot_be_made_say_why() {
    let mut fixture = start(ServerConfig::default()).await;
    fixture.broker.create_topic(topic("t", 1, &[("flush", "os")])).await.unwrap();
    for (kind, resource, operations, expected, message) in REFUSED {
        for version in 0..=1 {
            let response = fixture.client.call(version, &change(*kind, resource, operations)).await;
            let response = &response.responses[0];
            let outcome = (error(response.error_code), response.error_message.as_deref().unwrap());
            assert_eq!(outcome, (Some(*expected), *message));
            assert_eq!((response.resource_type, response.resource_name.as_str()), (*kind, *resource));
        }
        // What replaces everything is refused for the same reasons, as far as it can say the same.
        if operations.iter().all(|operation| operation.0 == 0) {
            let configs: Vec<_> = operations.iter().map(|(_, name, value)| (*name, *value)).collect();
            for version in 0..=2 {
                let response = fixture.client.call(version, &replace(*kind, resource, &configs)).await;
                let response = &response.responses[0];
                let outcome = (error(response.error_code), response.error_message.as_deref().unwrap());
                assert_eq!(outcome, (Some(*expected), *message));
            }
        }
        assert_eq!(set_configs(&fixture).await, ["flush=os"], "nothing has changed");
    }
    let mut twice = change(TOPIC, "t", &[(0, "flush", Some("sync"))]);
    twice.resources.push(twice.resources[0].clone());
    let response = fixture.client.call(1, &twice).await;
    assert!(response.responses.iter().all(|response| is(response.error_code, InvalidRequest)));
}
