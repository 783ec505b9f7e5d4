//! Topics from making to deleting, records, reads and waiting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logmill_broker::{
    Broker, BrokerConfig, BrokerError, ConfigChange, FetchRequest, Isolation, ManualClock, OFFSETS_TOPIC, OffsetAt,
    Refusal, Repair,
};
use logmill_protocol::{BatchBuilder, BatchOptions, Compression, Offset, Timestamp, TimestampType, batches};
use support::{batch, batch_at, committed, open, topic, tp, uncommitted};

/// Why a producer was refused.
fn kind(error: &BrokerError) -> Option<Refusal> {
    match error {
        BrokerError::Refused { kind, .. } => Some(*kind),
        _ => None,
    }
}

#[tokio::test]
async fn what_was_made_and_written_is_there_after_closing_and_after_dropping() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, report) = open(dir.path()).await;
    assert_eq!(report.unclean_logs, 0);
    broker.create_topic(topic("t", 2, &[("retention.ms", "-1")])).await.unwrap();
    assert_eq!(broker.produce(&tp("t", 1), batch(&["a", "b"])).await.unwrap(), Offset(0));
    broker.close().await.unwrap();
    assert!(matches!(broker.topics().await, Err(BrokerError::Closed)));
    drop(broker);

    let (broker, report) = open(dir.path()).await;
    assert_eq!((report.topics, report.partitions, report.unclean_logs), (3, 4, 0));
    assert_eq!(broker.produce(&tp("t", 1), batch(&["c"])).await.unwrap(), Offset(2));
    drop(broker);

    let (broker, report) = open(dir.path()).await;
    assert!(report.unclean_logs > 0 && report.cut.is_empty(), "{report:?}");
    assert_eq!(uncommitted(&broker, &tp("t", 1)).await, ["a", "b", "c"]);
    assert!(uncommitted(&broker, &tp("t", 0)).await.is_empty());
    let info = broker.topic("t").await.unwrap().unwrap();
    assert_eq!((info.partitions, info.internal), (2, false));
    assert_eq!(info.configs, [("retention.ms".to_owned(), "-1".to_owned())]);
    let names: Vec<_> = broker.topics().await.unwrap().into_iter().map(|t| (t.name, t.internal)).collect();
    let internal = [("__consumer_offsets".to_owned(), true), ("__transaction_state".to_owned(), true)];
    assert_eq!(names, [&internal[..], &[("t".to_owned(), false)]].concat());
}

#[tokio::test]
async fn calls_that_make_no_sense_are_refused_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let error = broker.create_topic(topic("t", 5, &[])).await.unwrap_err();
    assert!(matches!(error, BrokerError::TopicExists(name) if name == "t"));
    let error = broker.create_topic(topic("u", 1, &[("retention.mss", "1")])).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no config `retention.mss`, did you mean `retention.ms`?");
    let error = broker.create_topic(topic("a b", 1, &[])).await.unwrap_err();
    assert!(matches!(error, BrokerError::Invalid(_)), "{error}");
    let error = broker.create_topic(topic("u", 0, &[])).await.unwrap_err();
    assert!(matches!(error, BrokerError::Invalid(_)), "{error}");
    assert!(broker.topic("u").await.unwrap().is_none(), "a refused topic is not made");

    let error = broker.produce(&tp("x", 0), batch(&["a"])).await.unwrap_err();
    assert!(matches!(error, BrokerError::UnknownTopic(name) if name == "x"));
    for partition in [-1, 1] {
        let error = broker.produce(&tp("t", partition), batch(&["a"])).await.unwrap_err();
        assert!(matches!(error, BrokerError::UnknownPartition { partition: p, .. } if p == partition));
    }
    let error = broker.produce(&tp(OFFSETS_TOPIC, 0), batch(&["a"])).await.unwrap_err();
    assert_eq!(kind(&error), Some(Refusal::InvalidTopic), "{error}");
    let session = broker.init_producer("id", 1000).await.unwrap();
    let error = broker.append(&session, &tp(OFFSETS_TOPIC, 0), batch(&["a"])).await.unwrap_err();
    assert_eq!(kind(&error), Some(Refusal::InvalidTopic), "{error}");
    for nothing in [Bytes::new(), Bytes::from_static(b"short")] {
        let error = broker.produce(&tp("t", 0), nothing.clone()).await.unwrap_err();
        assert_eq!(kind(&error), Some(Refusal::InvalidRecord), "{error}");
        let error = broker.append(&session, &tp("t", 0), nothing).await.unwrap_err();
        assert_eq!(kind(&error), Some(Refusal::InvalidRecord), "{error}");
    }
    let mut broken = batch(&["a"]).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let error = broker.produce(&tp("t", 0), broken.into()).await.unwrap_err();
    assert_eq!(kind(&error), Some(Refusal::CorruptMessage), "{error}");
    assert!(matches!(broker.delete_topic(OFFSETS_TOPIC).await, Err(BrokerError::Invalid(_))));

    let request =
        FetchRequest { partition: tp("t", 0), offset: Offset(1), max_bytes: 1, isolation: Isolation::ReadUncommitted };
    let error = broker.fetch(&request).await.unwrap_err();
    assert_eq!(error.to_string(), "offset 1 of t-0 is out of range: the log holds 0 to 0");
}

#[tokio::test]
async fn partitions_grow_and_configs_take_effect() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[("compression.type", "zstd")])).await.unwrap();
    broker.create_partitions("t", 3).await.unwrap();
    assert!(matches!(broker.create_partitions("t", 3).await, Err(BrokerError::Invalid(_))));
    broker.produce(&tp("t", 2), batch(&["a"])).await.unwrap();

    let changes = [
        ConfigChange::Reset("compression.type".to_owned()),
        ConfigChange::Set("message.timestamp.type".to_owned(), "LogAppendTime".to_owned()),
        ConfigChange::Set("max.message.bytes".to_owned(), "200".to_owned()),
    ];
    broker.alter_configs("t", &changes).await.unwrap();
    broker.produce(&tp("t", 2), batch(&["b"])).await.unwrap();
    let error = broker.produce(&tp("t", 2), batch(&[&"x".repeat(300)])).await.unwrap_err();
    assert!(error.to_string().contains("raise max.message.bytes"), "{error}");

    let request =
        FetchRequest { partition: tp("t", 2), offset: Offset(0), max_bytes: 9999, isolation: Isolation::ReadCommitted };
    let fetched = broker.fetch(&request).await.unwrap();
    let headers: Vec<_> = batches(&fetched.batches).map(|b| *b.unwrap().header()).collect();
    let stored: Vec<_> = headers.iter().map(|h| (h.compression().unwrap(), h.timestamp_type())).collect();
    let expected = [(Compression::Zstd, TimestampType::CreateTime), (Compression::None, TimestampType::LogAppendTime)];
    assert_eq!(stored, expected);

    let wrong = [ConfigChange::Set("flush".to_owned(), "os".to_owned()), ConfigChange::Reset("flsh".to_owned())];
    let error = broker.alter_configs("t", &wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no config `flsh`, did you mean `flush`?");
    drop(broker);

    let (broker, _) = open(dir.path()).await;
    let info = broker.topic("t").await.unwrap().unwrap();
    assert_eq!(info.partitions, 3);
    assert_eq!(info.configs.len(), 2, "all changes of a call or none: {:?}", info.configs);
}

#[tokio::test]
async fn a_deleted_topic_is_gone_with_its_offsets_and_its_name_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    broker.produce(&tp("t", 0), batch(&["a"])).await.unwrap();
    broker.commit_offsets("g", &[(tp("t", 0), Offset(1))]).await.unwrap();
    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.wait(&tp("t", 0), Offset(1), Isolation::ReadUncommitted).await }
    });
    tokio::task::yield_now().await;
    broker.delete_topic("t").await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(BrokerError::UnknownTopic(_))));
    assert!(matches!(broker.delete_topic("t").await, Err(BrokerError::UnknownTopic(_))));
    assert!(broker.committed_offsets("g", &[tp("t", 0)]).await.unwrap().is_empty());
    let folders = std::fs::read_dir(dir.path().join("topics")).unwrap().count();
    assert_eq!(folders, 2, "only the internal topics are left");
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    assert!(uncommitted(&broker, &tp("t", 0)).await.is_empty());
    drop(broker);
    let (broker, _) = open(dir.path()).await;
    assert!(broker.committed_offsets("g", &[tp("t", 0)]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_lost_partition_is_offline_and_not_a_fresh_start() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 2, &[])).await.unwrap();
    broker.produce(&tp("t", 0), batch(&["lost"])).await.unwrap();
    broker.produce(&tp("t", 1), batch(&["kept"])).await.unwrap();
    broker.commit_offsets("g", &[(tp("t", 0), Offset(7))]).await.unwrap();
    let id = broker.topic("t").await.unwrap().unwrap().id;
    drop(broker);
    let path = dir.path().join(format!("topics/t-{id}/0"));
    std::fs::remove_dir_all(&path).unwrap();
    for _ in 0..2 {
        let (broker, report) = open(dir.path()).await;
        assert_eq!(report.offline.len(), 1);
        let expected = format!(
            "partition t-0 is offline: partition t-0 is lost: its folder {path} is missing; restore {path} and \
             restart, or have `logmill topic repair t` begin it anew",
            path = path.display()
        );
        let errors = [
            broker.produce(&tp("t", 0), batch(&["x"])).await.unwrap_err(),
            broker.offset(&tp("t", 0), OffsetAt::Earliest).await.unwrap_err(),
        ];
        errors.iter().for_each(|error| assert_eq!(error.to_string(), expected));
        assert_eq!(support::read(&broker, &tp("t", 1), Isolation::ReadCommitted).await, ["kept"]);
        broker.expire().await.unwrap();
        assert_eq!(broker.offline_partitions().await.unwrap(), report.offline, "it does not come back by itself");
    }
    let (broker, _) = open(dir.path()).await;
    let repairs = broker.repair_topic("t").await.unwrap();
    assert_eq!(repairs, [(tp("t", 0), Repair::Recreated(Offset(7))), (tp("t", 1), Repair::Sound)]);
    assert_eq!(broker.produce(&tp("t", 0), batch(&["new"])).await.unwrap(), Offset(7), "no offset is used again");
    broker.close().await.unwrap();
    drop(broker);
    let (broker, report) = open(dir.path()).await;
    assert_eq!((report.offline.len(), report.damage.len()), (0, 0));
    broker.delete_topic("t").await.unwrap();
}

#[tokio::test]
async fn a_topic_with_an_offline_partition_can_be_deleted_and_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let id = broker.topic("t").await.unwrap().unwrap().id;
    drop(broker);
    std::fs::remove_dir_all(dir.path().join(format!("topics/t-{id}"))).unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.alter_configs("t", &[logmill_broker::ConfigChange::Set("retention.ms".into(), "1".into())]).await.unwrap();
    broker.create_partitions("t", 2).await.unwrap();
    broker.produce(&tp("t", 1), batch(&["x"])).await.unwrap();
    assert!(broker.produce(&tp("t", 0), batch(&["x"])).await.is_err());
    broker.delete_topic("t").await.unwrap();
    assert!(broker.topic("t").await.unwrap().is_none());
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    broker.produce(&tp("t", 0), batch(&["x"])).await.unwrap();
}

#[tokio::test]
async fn a_partition_that_could_not_be_opened_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    broker.produce(&tp("t", 0), batch(&["kept"])).await.unwrap();
    let path = dir.path().join(format!("topics/t-{}/0", broker.topic("t").await.unwrap().unwrap().id));
    broker.close().await.unwrap();
    drop(broker);
    let away = path.with_file_name("away");
    std::fs::rename(&path, &away).unwrap();
    let (broker, report) = open(dir.path()).await;
    assert_eq!(report.offline[0].path, path);
    std::fs::rename(&away, &path).unwrap();
    broker.expire().await.unwrap();
    assert_eq!(support::read(&broker, &tp("t", 0), Isolation::ReadCommitted).await, ["kept"]);
}

#[tokio::test]
async fn topics_that_the_metadata_lost_are_served_again() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 2, &[("retention.ms", "5")])).await.unwrap();
    broker.produce(&tp("t", 1), batch(&["kept"])).await.unwrap();
    let first_id = broker.init_producer("id", 60_000).await.unwrap().id;
    broker.close().await.unwrap();
    drop(broker);
    std::fs::remove_dir_all(dir.path().join("metadata")).unwrap();
    let (broker, _) = open(dir.path()).await;
    let info = broker.topic("t").await.unwrap().unwrap();
    assert_eq!((info.partitions, info.configs), (2, vec![("retention.ms".to_owned(), "-1".to_owned())]));
    assert_eq!(support::read(&broker, &tp("t", 1), Isolation::ReadCommitted).await, ["kept"]);
    assert!(broker.topics().await.unwrap().iter().all(|topic| topic.internal == topic.name.starts_with("__")));
    assert_ne!(broker.init_producer("other", 60_000).await.unwrap().id, first_id);
}

#[tokio::test]
async fn a_data_dir_is_opened_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    let error = Broker::open(BrokerConfig::new(dir.path())).await.err().unwrap();
    assert!(matches!(error, BrokerError::DataDirLocked { .. }));
    let message = error.to_string();
    assert!(message.contains(&format!("is in use by process {} (`", std::process::id())), "{message}");
    assert!(message.contains("`), running since 20"), "{message}");
    broker.close().await.unwrap();
    drop(broker);
    open(dir.path()).await;
}

#[tokio::test]
async fn places_are_found_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let t = tp("t", 0);
    broker.produce(&t, batch_at(100, &["a", "b"])).await.unwrap();
    broker.produce(&t, batch_at(200, &["c"])).await.unwrap();
    let session = broker.init_producer("id", 1000).await.unwrap();
    broker.append(&session, &t, batch_at(300, &["d"])).await.unwrap();
    let check = async |at: OffsetAt, expected: i64| {
        assert_eq!(broker.offset(&t, at).await.unwrap(), Offset(expected), "{at:?}");
    };
    check(OffsetAt::Earliest, 0).await;
    check(OffsetAt::Latest(Isolation::ReadUncommitted), 4).await;
    check(OffsetAt::Latest(Isolation::ReadCommitted), 3).await;
    check(OffsetAt::Time(Timestamp(0)), 0).await;
    check(OffsetAt::Time(Timestamp(101)), 1).await;
    check(OffsetAt::Time(Timestamp(102)), 2).await;
    check(OffsetAt::Time(Timestamp(301)), 4).await;
    broker.delete_records(&t, Offset(2)).await.unwrap();
    check(OffsetAt::Earliest, 2).await;
    assert!(matches!(broker.delete_records(&t, Offset(9)).await, Err(BrokerError::OffsetOutOfRange { .. })));
    assert_eq!(committed(&broker, &t).await, ["c"]);
}

#[tokio::test]
async fn who_waits_is_woken_by_what_it_can_see_and_by_closing() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let waiter = |offset, isolation| {
        let broker = broker.clone();
        tokio::spawn(async move { broker.wait(&tp("t", 0), Offset(offset), isolation).await })
    };
    broker.wait(&tp("t", 0), Offset(-1), Isolation::ReadCommitted).await.unwrap();
    let (all, stable) = (waiter(0, Isolation::ReadUncommitted), waiter(0, Isolation::ReadCommitted));
    let session = broker.init_producer("id", 1000).await.unwrap();
    broker.append(&session, &tp("t", 0), batch(&["a"])).await.unwrap();
    all.await.unwrap().unwrap();
    assert!(!stable.is_finished(), "the transaction is open");
    broker.end_transaction(&session, true).await.unwrap();
    stable.await.unwrap().unwrap();
    let late: Vec<_> = (0..1000).map(|_| waiter(2, Isolation::ReadUncommitted)).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    broker.close().await.unwrap();
    for waiter in late {
        assert!(matches!(waiter.await.unwrap(), Err(BrokerError::Closed)));
    }
}

#[tokio::test]
async fn retention_deletes_old_segments_by_the_injected_clock() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let config = BrokerConfig { clock: clock.clone(), ..BrokerConfig::new(dir.path()) };
    let (broker, _) = Broker::open(config).await.unwrap();
    broker.create_topic(topic("t", 1, &[("retention.ms", "1000"), ("segment.bytes", "100")])).await.unwrap();
    broker.produce(&tp("t", 0), batch_at(1_000_000, &["a"])).await.unwrap();
    broker.produce(&tp("t", 0), batch_at(1_000_900, &["b"])).await.unwrap();
    broker.apply_retention().await.unwrap();
    assert_eq!(uncommitted(&broker, &tp("t", 0)).await, ["a", "b"]);
    clock.advance(1_500);
    broker.apply_retention().await.unwrap();
    assert_eq!(uncommitted(&broker, &tp("t", 0)).await, ["b"]);
}

#[tokio::test]
async fn a_batch_with_headers_survives_a_change_of_codec() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[("compression.type", "lz4")])).await.unwrap();
    let mut builder = BatchBuilder::new(BatchOptions { compression: Compression::Gzip, ..BatchOptions::default() });
    builder.append(Timestamp(1), Some(b"k"), Some(b"v"), &[("h", Some(b"1")), ("h", None)]).unwrap();
    let session = broker.init_producer("id", 1000).await.unwrap();
    broker.append(&session, &tp("t", 0), builder.finish().unwrap()).await.unwrap();
    broker.end_transaction(&session, true).await.unwrap();
    assert_eq!(committed(&broker, &tp("t", 0)).await, ["v"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn closing_lets_calls_end_and_whatever_was_acknowledged_is_kept() {
    for is_closed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (broker, _) = open(dir.path()).await;
        broker.create_topic(topic("t", 1, &[("segment.bytes", "2000")])).await.unwrap();
        let produce = |producer: usize| {
            let broker = broker.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0..100 {
                    let value = format!("{producer}-{n}");
                    match broker.produce(&tp("t", 0), batch(&[&value])).await {
                        Ok(offset) => acknowledged.push((offset, value)),
                        Err(error) => {
                            assert!(matches!(error, BrokerError::Closed), "{error}");
                            break;
                        }
                    }
                }
                acknowledged
            })
        };
        let tasks: Vec<_> = (0..8).map(produce).collect();
        broker.wait(&tp("t", 0), Offset(100), Isolation::ReadUncommitted).await.unwrap();
        if is_closed {
            broker.close().await.unwrap();
        }
        let mut acknowledged = Vec::new();
        for task in tasks {
            acknowledged.extend(task.await.unwrap());
        }
        drop(broker);
        let (broker, _) = open(dir.path()).await;
        let kept = uncommitted(&broker, &tp("t", 0)).await;
        assert_eq!(kept.len(), acknowledged.len(), "each call either was acknowledged or wrote nothing");
        for (offset, value) in acknowledged {
            assert_eq!(kept[offset.0 as usize], value);
        }
    }
}
