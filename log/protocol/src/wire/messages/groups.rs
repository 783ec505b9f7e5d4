//! Requests of groups, and what their members tell each other.

use crate::wire::shape::{Message, Shape, array, boolean, bytes, int8, int32, int32s, int64, string, strings};

pub(in crate::wire) const FIND_COORDINATOR: Message = Message::new(
    0,
    6,
    &Shape::new(&[string("key").until(3), int8("key_type").since(1), strings("coordinator_keys").since(4)]),
)
.flexible_since(3);

const JOIN_GROUP_REQUEST_PROTOCOL: Shape = Shape::new(&[string("name"), bytes("metadata")]);
pub(in crate::wire) const JOIN_GROUP: Message = Message::new(
    0,
    9,
    &Shape::new(&[
        string("group_id"),
        int32("session_timeout_ms"),
        int32("rebalance_timeout_ms").since(1),
        string("member_id"),
        string("group_instance_id").since(5).nullable(),
        string("protocol_type"),
        array("protocols", &JOIN_GROUP_REQUEST_PROTOCOL),
        string("reason").since(8).nullable(),
    ]),
)
.flexible_since(6);

const SYNC_GROUP_REQUEST_ASSIGNMENT: Shape = Shape::new(&[string("member_id"), bytes("assignment")]);
pub(in crate::wire) const SYNC_GROUP: Message = Message::new(
    0,
    5,
    &Shape::new(&[
        string("group_id"),
        int32("generation_id"),
        string("member_id"),
        string("group_instance_id").since(3).nullable(),
        string("protocol_type").since(5).nullable(),
        string("protocol_name").since(5).nullable(),
        array("assignments", &SYNC_GROUP_REQUEST_ASSIGNMENT),
    ]),
)
.flexible_since(4);

pub(in crate::wire) const HEARTBEAT: Message = Message::new(
    0,
    4,
    &Shape::new(&[
        string("group_id"),
        int32("generation_id"),
        string("member_id"),
        string("group_instance_id").since(3).nullable(),
    ]),
)
.flexible_since(4);

const MEMBER_IDENTITY: Shape = Shape::new(&[
    string("member_id").since(3),
    string("group_instance_id").since(3).nullable(),
    string("reason").since(5).nullable(),
]);
pub(in crate::wire) const LEAVE_GROUP: Message = Message::new(
    0,
    5,
    &Shape::new(&[string("group_id"), string("member_id").until(2), array("members", &MEMBER_IDENTITY).since(3)]),
)
.flexible_since(4);

const OFFSET_COMMIT_REQUEST_PARTITION: Shape = Shape::new(&[
    int32("partition_index"),
    int64("committed_offset"),
    int32("committed_leader_epoch").since(6),
    string("committed_metadata").nullable(),
]);
const OFFSET_COMMIT_REQUEST_TOPIC: Shape =
    Shape::new(&[string("name"), array("partitions", &OFFSET_COMMIT_REQUEST_PARTITION)]);
pub(in crate::wire) const OFFSET_COMMIT: Message = Message::new(
    2,
    9,
    &Shape::new(&[
        string("group_id"),
        int32("generation_id_or_member_epoch"),
        string("member_id"),
        string("group_instance_id").since(7).nullable(),
        int64("retention_time_ms").until(4),
        array("topics", &OFFSET_COMMIT_REQUEST_TOPIC),
    ]),
)
.flexible_since(8);

const OFFSET_FETCH_REQUEST_TOPIC: Shape = Shape::new(&[string("name").until(7), int32s("partition_indexes").until(7)]);
const OFFSET_FETCH_REQUEST_TOPICS: Shape = Shape::new(&[string("name").since(8), int32s("partition_indexes").since(8)]);
const OFFSET_FETCH_REQUEST_GROUP: Shape = Shape::new(&[
    string("group_id").since(8),
    string("member_id").since(9).nullable(),
    int32("member_epoch").since(9),
    array("topics", &OFFSET_FETCH_REQUEST_TOPICS).since(8).nullable(),
]);
pub(in crate::wire) const OFFSET_FETCH: Message = Message::new(
    1,
    9,
    &Shape::new(&[
        string("group_id").until(7),
        array("topics", &OFFSET_FETCH_REQUEST_TOPIC).until(7).nullable_since(2),
        array("groups", &OFFSET_FETCH_REQUEST_GROUP).since(8),
        boolean("require_stable").since(7),
    ]),
)
.flexible_since(6);

const OFFSET_DELETE_REQUEST_PARTITION: Shape = Shape::new(&[int32("partition_index")]);
const OFFSET_DELETE_REQUEST_TOPIC: Shape =
    Shape::new(&[string("name"), array("partitions", &OFFSET_DELETE_REQUEST_PARTITION)]);
pub(in crate::wire) const OFFSET_DELETE: Message =
    Message::new(0, 0, &Shape::new(&[string("group_id"), array("topics", &OFFSET_DELETE_REQUEST_TOPIC)]));

pub(in crate::wire) const DESCRIBE_GROUPS: Message =
    Message::new(0, 6, &Shape::new(&[strings("groups"), boolean("include_authorized_operations").since(3)]))
        .flexible_since(5);

pub(in crate::wire) const LIST_GROUPS: Message =
    Message::new(0, 5, &Shape::new(&[strings("states_filter").since(4), strings("types_filter").since(5)]))
        .flexible_since(3);

pub(in crate::wire) const DELETE_GROUPS: Message =
    Message::new(0, 2, &Shape::new(&[strings("groups_names")])).flexible_since(2);

const OWNED_PARTITIONS: Shape = Shape::new(&[string("topic").since(1), int32s("partitions").since(1)]);
pub(in crate::wire) const CONSUMER_PROTOCOL_SUBSCRIPTION: Message = Message::new(
    0,
    3,
    &Shape::new(&[
        strings("topics"),
        bytes("user_data").nullable(),
        array("owned_partitions", &OWNED_PARTITIONS).since(1),
        int32("generation_id").since(2),
        string("rack_id").since(3).nullable(),
    ]),
);

const ASSIGNED_PARTITIONS: Shape = Shape::new(&[string("topic"), int32s("partitions")]);
pub(in crate::wire) const CONSUMER_PROTOCOL_ASSIGNMENT: Message = Message::new(
    0,
    3,
    &Shape::new(&[array("assigned_partitions", &ASSIGNED_PARTITIONS), bytes("user_data").nullable()]),
);
