//! Where sources begin: at a first start, at a fresh one, and in partitions that nobody knew.

use super::*;

/// A source that ends, played through `played`, into a topic.
const PLAYED: &str = "pipeline: p\n\
    sources:\n\
    \x20 a: { type: file, path: in.ndjson, format: json, schema: { n: int64 }, through: played }\n\
    sinks:\n\
    \x20 out: { type: topic, input: a, topic: out, format: json }\n";

fn sorted(mut values: Vec<usize>) -> Vec<usize> {
    values.sort_unstable();
    values
}

/// The deaths of a fresh start, each with whether the log says by then that there is a new incarnation.
fn deaths() -> Vec<(Death, bool)> {
    vec![
        #[cfg(feature = "failpoints")]
        (Death::At("engine::before_new_incarnation"), false),
        #[cfg(feature = "failpoints")]
        (Death::At("engine::after_new_incarnation"), true),
        (Death::AtStart, true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_start_leaves_topics_alone_and_reads_what_is_played_from_then_on() {
    for (death, is_new) in deaths() {
        let site = Site::new();
        site.rows_file(None);
        site.topic("played", 100..103).await;
        site.run(PLAYED, false).await.unwrap();
        assert_eq!(site.values("out").await, times(1), "{death:?}");
        site.produce("played", 0, 200..202).await;
        site.die(PLAYED, true, death).await;
        // What others append after the new incarnation is committed belongs to it.
        site.produce("played", 0, 300..302).await;
        site.run(PLAYED, false).await.unwrap();
        let others: Vec<usize> = [100..103, 200..202, 300..302].into_iter().flatten().collect();
        let expected = match is_new {
            true => [times(2), (300..302).collect()].concat(),
            false => [times(1), (200..202).chain(300..302).collect()].concat(),
        };
        assert_eq!(site.values("out").await, sorted(expected), "{death:?}");
        let played = [times(if is_new { 2 } else { 1 }), others].concat();
        assert_eq!(site.values("played").await, sorted(played), "{death:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_start_deletes_what_was_played_only_where_it_is_told_to_and_then_for_good() {
    for (death, is_new) in deaths() {
        let site = Site::new();
        site.rows_file(None);
        site.topic("played", 100..103).await;
        site.run(PLAYED, false).await.unwrap();
        site.die_deleting(PLAYED, death).await;
        site.run(PLAYED, false).await.unwrap();
        let played = if is_new { times(1) } else { sorted([times(1), (100..103).collect()].concat()) };
        assert_eq!(site.values("played").await, played, "{death:?}");
        assert_eq!(site.values("out").await, times(if is_new { 2 } else { 1 }), "{death:?}");
        // It is not done once more.
        site.run(PLAYED, false).await.unwrap();
        assert_eq!(site.values("played").await, played, "{death:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_the_manifest_does_not_know_are_read_from_their_beginning() {
    const FOLLOWED: &str = "pipeline: p\n\
        sources:\n\
        \x20 a: { type: topic, topic: x, from: latest, format: json, schema: { n: int64 } }\n\
        sinks:\n\
        \x20 out: { type: topic, input: a, topic: out, format: json }\n\
        commit: { every: 20ms }\n";
    let site = Site::new();
    let topic = NewTopic { name: "x".into(), partitions: 2, configs: Vec::new() };
    site.log.create_topic(topic).await.unwrap();
    site.produce("x", 0, 0..3).await;
    let wrote = async |rows: usize| {
        site.stop_when(FOLLOWED, async |metrics| {
            metrics.snapshot().commits > 0 && site.values("out").await.len() >= rows
        })
        .await;
    };
    wrote(0).await;
    // While nobody looks: one partition goes on, one that was empty gets its first records, and one is added.
    site.produce("x", 0, 3..5).await;
    site.produce("x", 1, 10..12).await;
    site.log.create_partitions("x", 3).await.unwrap();
    site.produce("x", 2, 20..22).await;
    wrote(6).await;
    assert_eq!(site.values("out").await, [3, 4, 10, 11, 20, 21]);
    site.produce("x", 2, 22..23).await;
    wrote(7).await;
    assert_eq!(site.values("out").await, [3, 4, 10, 11, 20, 21, 22]);
}
