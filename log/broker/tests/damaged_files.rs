//! Every kind of file of a data dir, damaged in every way, one at a time: the broker opens, everything that is intact is
//! served, lost records are reported, no offset is used again, and the advised repair works.
//!
//! A slice of it runs always; all of it with `LOGMILL_TEST_LONG=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_broker::{
    Broker, BrokerConfig, BrokerError, FetchRequest, Isolation, OffsetAt, Repair, StartReport, TopicPartition,
};
use logmill_protocol::{BatchHeader, BatchLimits, Offset, batches};
use support::{batch_at, topic, tp};

/// One case in so many runs always.
const SLICE: usize = 23;
const PADDING: &str =
    "some hundred bytes of text, so that a few batches fill a segment and a few hundred records its index";

/// What a file suffers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Delete,
    Empty,
    Halve,
    CutOneByte,
    FlipFirst,
    FlipMiddle,
    FlipLast,
    Append,
    Directory,
    Loop,
}

const HARMS: [Harm; 10] = [
    Harm::Delete,
    Harm::Empty,
    Harm::Halve,
    Harm::CutOneByte,
    Harm::FlipFirst,
    Harm::FlipMiddle,
    Harm::FlipLast,
    Harm::Append,
    Harm::Directory,
    Harm::Loop,
];

impl Harm {
    /// Does it. Returns the range of the file's bytes that are not as they were, and whether anything changed.
    fn inflict(self, path: &Path) -> Range<u64> {
        let good = std::fs::read(path).unwrap();
        let len = good.len() as u64;
        let flip = |at: usize| {
            let mut bytes = good.clone();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x10;
            }
            std::fs::write(path, bytes).unwrap();
            at as u64..at as u64 + 1
        };
        let cut = |to: usize| {
            std::fs::write(path, &good[..to]).unwrap();
            to as u64..len
        };
        match self {
            Self::Delete => std::fs::remove_file(path).map(|()| 0..len).unwrap(),
            Self::Empty => cut(0),
            Self::Halve => cut(good.len() / 2),
            Self::CutOneByte => cut(good.len().saturating_sub(1)),
            Self::FlipFirst => flip(0),
            Self::FlipMiddle => flip(good.len() / 2),
            Self::FlipLast => flip(good.len().saturating_sub(1)),
            Self::Append => {
                std::fs::write(path, [&good[..], b"garbage that nobody wrote".repeat(5).as_slice()].concat()).unwrap();
                len..len
            }
            Self::Directory => {
                std::fs::remove_file(path).unwrap();
                std::fs::create_dir(path).map(|()| 0..len).unwrap()
            }
            Self::Loop => {
                std::fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink(path.file_name().unwrap(), path).map(|()| 0..len).unwrap()
            }
        }
    }
}

/// The records of a partition that can be read, by offset.
type Records = BTreeMap<i64, Vec<u8>>;

/// What a broker shows.
#[derive(Debug, PartialEq)]
struct Shown {
    topics: Vec<(String, i32)>,
    records: BTreeMap<(String, i32), Records>,
    ends: BTreeMap<(String, i32), i64>,
    committed: BTreeMap<String, Vec<(TopicPartition, Offset)>>,
}

/// A data dir as a broker left it, and what it showed.
struct Scene {
    _root: tempfile::TempDir,
    left: PathBuf,
    shown: Shown,
    /// Whether the broker was closed.
    is_clean: bool,
}

async fn open(dir: &Path) -> Result<(Broker, StartReport), BrokerError> {
    Broker::open(BrokerConfig::new(dir)).await
}

fn records(batch: &logmill_protocol::BatchView<'_>) -> Vec<(i64, Vec<u8>)> {
    let mut scratch = Vec::new();
    let records = batch.records(&mut scratch, &BatchLimits::STORED).unwrap();
    records.map(|record| record.unwrap()).map(|r| (r.offset.0, r.value.unwrap_or_default().to_vec())).collect()
}

/// Everything that can be read, as a client that verifies what it gets, and passes over what it is refused, finds it.
async fn read_all(broker: &Broker, place: &TopicPartition) -> Result<(Records, i64), BrokerError> {
    let mut next = broker.offset(place, OffsetAt::Earliest).await?;
    let end = broker.offset(place, OffsetAt::Latest(Isolation::ReadUncommitted)).await?;
    let mut found = Records::new();
    while next < end {
        let (partition, isolation) = (place.clone(), Isolation::ReadUncommitted);
        let request = FetchRequest { partition, offset: next, max_bytes: 1, isolation };
        let fetched = match broker.fetch(&request).await {
            Ok(fetched) => fetched,
            Err(BrokerError::Lost { .. }) => {
                next = next.next();
                continue;
            }
            Err(other) => return Err(other),
        };
        for batch in batches(&fetched.batches) {
            let Ok(batch) = batch else { break };
            // A restart may write a marker again.
            if batch.verify_crc().is_ok() && !batch.header().is_control() {
                found.extend(records(&batch));
            }
        }
        assert!(fetched.next_offset > next, "{place} is stuck at {next}");
        next = fetched.next_offset;
    }
    Ok((found, end.0))
}

async fn show(broker: &Broker, groups: &[&str]) -> Shown {
    let mut shown =
        Shown { topics: Vec::new(), records: BTreeMap::new(), ends: BTreeMap::new(), committed: BTreeMap::new() };
    for info in broker.topics().await.unwrap() {
        shown.topics.push((info.name.clone(), info.partitions));
        for partition in 0..info.partitions {
            if let Ok((records, end)) = read_all(broker, &tp(&info.name, partition)).await {
                shown.ends.insert((info.name.clone(), partition), end);
                // What the broker keeps for itself changes when it starts.
                if !info.internal {
                    shown.records.insert((info.name.clone(), partition), records);
                }
            }
        }
    }
    for group in groups {
        let places = [tp("plain", 0), tp("plain", 1), tp("wide", 0)];
        if let Ok(offsets) = broker.committed_offsets(group, &places).await {
            shown.committed.insert((*group).to_owned(), offsets);
        }
    }
    shown
}

const GROUPS: [&str; 2] = ["g", "h"];

async fn scene(is_clean: bool) -> Scene {
    let root = tempfile::tempdir().unwrap();
    let (live, left) = (root.path().join("live"), root.path().join("left"));
    let (broker, _) = open(&live).await.unwrap();
    let small = [("segment.bytes", "1024"), ("index.interval.bytes", "200"), ("retention.ms", "-1")];
    for (name, partitions) in [("plain", 2), ("wide", 1), ("__logmill_manifest_p", 1)] {
        broker.create_topic(topic(name, partitions, &small)).await.unwrap();
    }
    let mut written = 0;
    for round in 0..12 {
        for place in [tp("plain", 0), tp("plain", 1), tp("wide", 0), tp("__logmill_manifest_p", 0)] {
            let values: Vec<String> = (0..3).map(|n| format!("{place} {round} {n} {PADDING}")).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            broker.produce(&place, batch_at(1_000 + written, &values)).await.unwrap();
            written += 3;
        }
        let session = broker.init_producer(&format!("id-{}", round % 2), 60_000).await.unwrap();
        broker.append(&session, &tp("wide", 0), batch_at(1_000 + written, &["in a transaction"])).await.unwrap();
        broker.end_transaction(&session, round % 3 != 0).await.unwrap();
        broker.commit_offsets(GROUPS[round % 2], &[(tp("plain", 0), Offset(written / 8))]).await.unwrap();
    }
    let shown = show(&broker, &GROUPS).await;
    if is_clean {
        broker.close().await.unwrap();
    }
    copy(&live, &left);
    Scene { _root: root, left, shown, is_clean }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// The files in `dir`, relative to it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

/// The topic and the partition that a file belongs to.
fn owner(file: &Path) -> Option<(String, i32)> {
    let mut parts = file.iter().map(|part| part.to_str().unwrap());
    (parts.next() == Some("topics")).then_some(())?;
    let (name, _) = parts.next()?.rsplit_once('-')?;
    Some((name.to_owned(), parts.next()?.parse().ok()?))
}

/// The offsets of the batches that these bytes of a segment belong to.
fn touched(file: &Path, harmed: &Range<u64>) -> Vec<Range<i64>> {
    let bytes = std::fs::read(file).unwrap();
    let (mut at, mut touched) = (0, Vec::new());
    while let Ok(header) = BatchHeader::peek(&bytes[at..]) {
        let end = at + header.total_len();
        if (at as u64) < harmed.end && harmed.start < end as u64 {
            touched.push(header.base_offset.0..header.next_offset().0);
        }
        at = end;
        if at >= bytes.len() {
            break;
        }
    }
    touched
}

fn is_log(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "log")
}

async fn check(scene: &Scene, file: &Path, harm: Harm) {
    let what = format!("{} with {harm:?}, clean: {}", file.display(), scene.is_clean);
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    copy(&scene.left, &dir);
    let harmed = harm.inflict(&dir.join(file));
    let (broker, report) = open(&dir).await.unwrap_or_else(|error| panic!("{what}: {error}: {error:?}"));
    let shown = show(&broker, &GROUPS).await;
    let owner = owner(file);
    let may_be_lost: Vec<Range<i64>> = match is_log(file) {
        true => touched(&scene.left.join(file), &harmed),
        false => Vec::new(),
    };
    check_topics(scene, &shown, owner.as_ref(), &may_be_lost, &what);
    check_told(scene, &report, &shown, owner.as_ref(), &what);
    check_repair(scene, &broker, owner.as_ref(), &shown, &what).await;
    broker.close().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(broker);
    let (broker, report) = open(&dir).await.unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert_eq!((report.offline.len(), report.unclean_logs), (0, 0), "{what}: {report:?}");
    broker.close().await.unwrap();
}

fn check_topics(scene: &Scene, shown: &Shown, owner: Option<&(String, i32)>, may_be_lost: &[Range<i64>], what: &str) {
    assert_eq!(shown.topics, scene.shown.topics, "{what}");
    for (place, all) in &scene.shown.records {
        let found = shown.records.get(place).unwrap_or_else(|| panic!("{what}: {place:?} is not served"));
        for (offset, value) in all {
            let is_touched = owner == Some(place) && may_be_lost.iter().any(|range| range.contains(offset));
            match found.get(offset) {
                Some(read) => assert_eq!(read, value, "{what}: offset {offset} of {place:?}"),
                None => assert!(is_touched, "{what}: intact offset {offset} of {place:?} is lost"),
            }
        }
        // Nothing says how far a log had come that was not closed and lost its end.
        let last_intact = found.keys().next_back().map_or(0, |last| last + 1);
        let end = if scene.is_clean { scene.shown.ends[place] } else { last_intact };
        assert!(shown.ends[place] >= end, "{what}: offsets of {place:?} are used again");
        assert!(found.len() <= all.len(), "{what}: {place:?} has more records than were written");
    }
    for (group, offsets) in &scene.shown.committed {
        let is_harmed = owner.is_some_and(|(topic, _)| topic == "__consumer_offsets");
        assert!(is_harmed || shown.committed.get(group) == Some(offsets), "{what}: group {group} lost offsets");
    }
}

/// Losses that can be known without verifying every record are reported.
fn check_told(scene: &Scene, report: &StartReport, shown: &Shown, owner: Option<&(String, i32)>, what: &str) {
    let Some(place) = owner.filter(|place| scene.shown.records.contains_key(*place)) else { return };
    let (all, found) = (&scene.shown.records[place], &shown.records[place]);
    let is_cut = report.cut.iter().any(|cut| cut.kept_at.exists());
    if shown.ends[place] < scene.shown.ends[place] && found.len() < all.len() {
        // A tail that vanished without a trace was never synced, as far as anything tells.
        assert!(!scene.is_clean, "{what}");
        return;
    }
    // In `wide` a marker may be lost, which is no record.
    if found.len() == all.len() && place.0 != "wide" {
        let lost = |damaged: &&logmill_broker::DamagedPartition| !damaged.damage.is_mended();
        assert_eq!(report.damage.iter().find(lost), None, "{what}: nothing is lost");
    }
    let is_told = report
        .damage
        .iter()
        .any(|damaged| (&damaged.partition.topic, damaged.partition.partition) == (&place.0, place.1));
    // A record of a synced segment is verified by who reads it.
    let whole = |records: &Records| records.keys().copied().collect::<Vec<_>>();
    assert!(is_told || is_cut || whole(found) == whole(all) || what.contains("Flip"), "{what}: {report:?}");
}

async fn check_repair(scene: &Scene, broker: &Broker, owner: Option<&(String, i32)>, before: &Shown, what: &str) {
    for (topic, _) in &scene.shown.topics {
        let repairs =
            broker.repair_topic(topic).await.unwrap_or_else(|error| panic!("{what}: repair {topic}: {error}"));
        let is_other = owner.is_some_and(|(name, _)| name != topic);
        let is_sound = repairs.iter().all(|(_, repair)| *repair == Repair::Sound);
        assert!(is_sound || !is_other, "{what}: {topic} has nothing to repair: {repairs:?}");
    }
    let after = show(broker, &GROUPS).await;
    for (place, records) in &before.records {
        assert_eq!(after.records.get(place), Some(records), "{what}: {place:?} after the repair");
        // Readers that pass over nothing get to the end now, and what is appended is read behind it.
        let place = tp(&place.0, place.1);
        let at = broker.produce(&place, batch_at(9_999_999, &["after"])).await.unwrap();
        assert!(at.0 >= before.ends[&(place.topic.clone(), place.partition)], "{what}");
        let mut next = broker.offset(&place, OffsetAt::Earliest).await.unwrap();
        while next <= at {
            let request = FetchRequest {
                partition: place.clone(),
                offset: next,
                max_bytes: 1,
                isolation: Isolation::ReadUncommitted,
            };
            let fetched =
                broker.fetch(&request).await.unwrap_or_else(|error| panic!("{what}: {place} {next}: {error}"));
            batches(&fetched.batches).for_each(|batch| batch.unwrap().verify_crc().unwrap());
            next = fetched.next_offset;
        }
    }
}

/// Runs the cases of a scene, a slice of them unless all are wanted.
async fn run(is_clean: bool) {
    let all = std::env::var_os("LOGMILL_TEST_LONG").is_some_and(|value| !value.is_empty() && value != "0");
    let scene = Arc::new(scene(is_clean).await);
    let only = std::env::var("LOGMILL_TEST_FILE").unwrap_or_default();
    let cases = files(&scene.left).into_iter().flat_map(|file| HARMS.map(|harm| (file.clone(), harm)));
    let (mut count, mut failed) = (0, Vec::new());
    for (n, (file, harm)) in cases.enumerate() {
        let is_chosen = format!("{} {harm:?}", file.display()).contains(&only);
        if is_chosen && (all || !only.is_empty() || (n + usize::from(is_clean) * 7) % SLICE == 0) {
            let scene = Arc::clone(&scene);
            let case = format!("{} {harm:?}", file.display());
            if tokio::spawn(async move { check(&scene, &file, harm).await }).await.is_err() {
                failed.push(case);
            }
            count += 1;
        }
    }
    assert!(count > 0);
    assert_eq!(failed, Vec::<String>::new(), "of {count} cases");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_damaged_file_of_a_closed_data_dir_costs_only_itself() {
    run(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_damaged_file_of_a_data_dir_that_was_not_closed_costs_only_itself() {
    run(false).await;
}
