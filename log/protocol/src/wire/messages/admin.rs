//! Requests about the node, topics and settings.

use crate::wire::shape::{Message, Shape, array, boolean, int8, int16, int32, int32s, optional, string, strings, uuid};

pub(in crate::wire) const API_VERSIONS: Message = Message::new(
    0,
    4,
    &Shape::new(&[string("client_software_name").since(3), string("client_software_version").since(3)]),
)
.flexible_since(3);

const METADATA_REQUEST_TOPIC: Shape = Shape::new(&[uuid("topic_id").since(10), string("name").nullable_since(10)]);
pub(in crate::wire) const METADATA: Message = Message::new(
    0,
    13,
    &Shape::new(&[
        array("topics", &METADATA_REQUEST_TOPIC).nullable_since(1),
        boolean("allow_auto_topic_creation").since(4),
        boolean("include_cluster_authorized_operations").since(8).until(10),
        boolean("include_topic_authorized_operations").since(8),
    ]),
)
.flexible_since(9);

const CREATABLE_REPLICA_ASSIGNMENT: Shape = Shape::new(&[int32("partition_index"), int32s("broker_ids")]);
const CREATABLE_TOPIC_CONFIG: Shape = Shape::new(&[string("name"), string("value").nullable()]);
const CREATABLE_TOPIC: Shape = Shape::new(&[
    string("name"),
    int32("num_partitions"),
    int16("replication_factor"),
    array("assignments", &CREATABLE_REPLICA_ASSIGNMENT),
    array("configs", &CREATABLE_TOPIC_CONFIG),
]);
pub(in crate::wire) const CREATE_TOPICS: Message = Message::new(
    2,
    7,
    &Shape::new(&[array("topics", &CREATABLE_TOPIC), int32("timeout_ms"), boolean("validate_only")]),
)
.flexible_since(5);

const DELETE_TOPIC_STATE: Shape = Shape::new(&[string("name").since(6).nullable(), uuid("topic_id").since(6)]);
pub(in crate::wire) const DELETE_TOPICS: Message = Message::new(
    1,
    6,
    &Shape::new(&[array("topics", &DELETE_TOPIC_STATE).since(6), strings("topic_names").until(5), int32("timeout_ms")]),
)
.flexible_since(4);

const CREATE_PARTITIONS_ASSIGNMENT: Shape = Shape::new(&[int32s("broker_ids")]);
const CREATE_PARTITIONS_TOPIC: Shape =
    Shape::new(&[string("name"), int32("count"), array("assignments", &CREATE_PARTITIONS_ASSIGNMENT).nullable()]);
pub(in crate::wire) const CREATE_PARTITIONS: Message = Message::new(
    0,
    3,
    &Shape::new(&[array("topics", &CREATE_PARTITIONS_TOPIC), int32("timeout_ms"), boolean("validate_only")]),
)
.flexible_since(2);

const DESCRIBE_CONFIGS_RESOURCE: Shape =
    Shape::new(&[int8("resource_type"), string("resource_name"), strings("configuration_keys").nullable()]);
pub(in crate::wire) const DESCRIBE_CONFIGS: Message = Message::new(
    1,
    4,
    &Shape::new(&[
        array("resources", &DESCRIBE_CONFIGS_RESOURCE),
        boolean("include_synonyms"),
        boolean("include_documentation").since(3),
    ]),
)
.flexible_since(4);

const ALTERABLE_CONFIG: Shape = Shape::new(&[string("name"), string("value").nullable()]);
const ALTER_CONFIGS_RESOURCE: Shape =
    Shape::new(&[int8("resource_type"), string("resource_name"), array("configs", &ALTERABLE_CONFIG)]);
pub(in crate::wire) const ALTER_CONFIGS: Message =
    Message::new(0, 2, &Shape::new(&[array("resources", &ALTER_CONFIGS_RESOURCE), boolean("validate_only")]))
        .flexible_since(2);

const INCREMENTAL_CONFIG: Shape = Shape::new(&[string("name"), int8("config_operation"), string("value").nullable()]);
const INCREMENTAL_RESOURCE: Shape =
    Shape::new(&[int8("resource_type"), string("resource_name"), array("configs", &INCREMENTAL_CONFIG)]);
pub(in crate::wire) const INCREMENTAL_ALTER_CONFIGS: Message =
    Message::new(0, 1, &Shape::new(&[array("resources", &INCREMENTAL_RESOURCE), boolean("validate_only")]))
        .flexible_since(1);

pub(in crate::wire) const DESCRIBE_CLUSTER: Message = Message::new(
    0,
    2,
    &Shape::new(&[
        boolean("include_cluster_authorized_operations"),
        int8("endpoint_type").since(1),
        boolean("include_fenced_brokers").since(2),
    ]),
)
.flexible_since(0);

const TOPIC_REQUEST: Shape = Shape::new(&[string("name")]);
const CURSOR: Shape = Shape::new(&[string("topic_name"), int32("partition_index")]);
pub(in crate::wire) const DESCRIBE_TOPIC_PARTITIONS: Message = Message::new(
    0,
    0,
    &Shape::new(&[array("topics", &TOPIC_REQUEST), int32("response_partition_limit"), optional("cursor", &CURSOR)]),
)
.flexible_since(0);

const DESCRIBABLE_LOG_DIR_TOPIC: Shape = Shape::new(&[string("topic"), int32s("partitions")]);
pub(in crate::wire) const DESCRIBE_LOG_DIRS: Message =
    Message::new(1, 4, &Shape::new(&[array("topics", &DESCRIBABLE_LOG_DIR_TOPIC).nullable()])).flexible_since(2);
