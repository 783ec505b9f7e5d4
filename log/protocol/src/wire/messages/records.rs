//! Requests that move records, and what goes with them.

use crate::wire::shape::{Message, Shape, array, bytes, int8, int16, int32, int32s, int64, string, structure, uuid};

const PARTITION_PRODUCE_DATA: Shape = Shape::new(&[int32("index"), bytes("records").nullable()]);
const TOPIC_PRODUCE_DATA: Shape = Shape::new(&[
    string("name").until(12),
    uuid("topic_id").since(13),
    array("partition_data", &PARTITION_PRODUCE_DATA),
]);
pub(in crate::wire) const PRODUCE: Message = Message::new(
    3,
    13,
    &Shape::new(&[
        string("transactional_id").nullable(),
        int16("acks"),
        int32("timeout_ms"),
        array("topic_data", &TOPIC_PRODUCE_DATA),
    ]),
)
.flexible_since(9);

const FETCH_PARTITION: Shape = Shape::new(&[
    int32("partition"),
    int32("current_leader_epoch").since(9),
    int64("fetch_offset"),
    int32("last_fetched_epoch").since(12),
    int64("log_start_offset").since(5),
    int32("partition_max_bytes"),
])
.tagged(&[(0, uuid("replica_directory_id").since(17)), (1, int64("high_watermark").since(18))]);
const FETCH_TOPIC: Shape =
    Shape::new(&[string("topic").until(12), uuid("topic_id").since(13), array("partitions", &FETCH_PARTITION)]);
const FORGOTTEN_TOPIC: Shape =
    Shape::new(&[string("topic").since(7).until(12), uuid("topic_id").since(13), int32s("partitions").since(7)]);
const REPLICA_STATE: Shape = Shape::new(&[int32("replica_id").since(15), int64("replica_epoch").since(15)]);
pub(in crate::wire) const FETCH: Message = Message::new(
    4,
    18,
    &Shape::new(&[
        int32("replica_id").until(14),
        int32("max_wait_ms"),
        int32("min_bytes"),
        int32("max_bytes"),
        int8("isolation_level"),
        int32("session_id").since(7),
        int32("session_epoch").since(7),
        array("topics", &FETCH_TOPIC),
        array("forgotten_topics_data", &FORGOTTEN_TOPIC).since(7),
        string("rack_id").since(11),
    ])
    .tagged(&[(0, string("cluster_id").nullable()), (1, structure("replica_state", &REPLICA_STATE).since(15))]),
)
.flexible_since(12);

const LIST_OFFSETS_PARTITION: Shape =
    Shape::new(&[int32("partition_index"), int32("current_leader_epoch").since(4), int64("timestamp")]);
const LIST_OFFSETS_TOPIC: Shape = Shape::new(&[string("name"), array("partitions", &LIST_OFFSETS_PARTITION)]);
pub(in crate::wire) const LIST_OFFSETS: Message = Message::new(
    1,
    10,
    &Shape::new(&[
        int32("replica_id"),
        int8("isolation_level").since(2),
        array("topics", &LIST_OFFSETS_TOPIC),
        int32("timeout_ms").since(10),
    ]),
)
.flexible_since(6);

const OFFSET_FOR_LEADER_PARTITION: Shape =
    Shape::new(&[int32("partition"), int32("current_leader_epoch"), int32("leader_epoch")]);
const OFFSET_FOR_LEADER_TOPIC: Shape =
    Shape::new(&[string("topic"), array("partitions", &OFFSET_FOR_LEADER_PARTITION)]);
pub(in crate::wire) const OFFSET_FOR_LEADER_EPOCH: Message =
    Message::new(2, 4, &Shape::new(&[int32("replica_id").since(3), array("topics", &OFFSET_FOR_LEADER_TOPIC)]))
        .flexible_since(4);

const DELETE_RECORDS_PARTITION: Shape = Shape::new(&[int32("partition_index"), int64("offset")]);
const DELETE_RECORDS_TOPIC: Shape = Shape::new(&[string("name"), array("partitions", &DELETE_RECORDS_PARTITION)]);
pub(in crate::wire) const DELETE_RECORDS: Message =
    Message::new(0, 2, &Shape::new(&[array("topics", &DELETE_RECORDS_TOPIC), int32("timeout_ms")])).flexible_since(2);

pub(in crate::wire) const INIT_PRODUCER_ID: Message = Message::new(
    0,
    5,
    &Shape::new(&[
        string("transactional_id").nullable(),
        int32("transaction_timeout_ms"),
        int64("producer_id").since(3),
        int16("producer_epoch").since(3),
    ]),
)
.flexible_since(2);

const TOPIC_REQUEST: Shape = Shape::new(&[string("name"), int32s("partition_indexes")]);
pub(in crate::wire) const DESCRIBE_PRODUCERS: Message =
    Message::new(0, 0, &Shape::new(&[array("topics", &TOPIC_REQUEST)])).flexible_since(0);
