//! Whole runs into files: rows that a sink can never take, staged files that are gone, and two data directories with one
//! destination.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use super::tests::{ROWS, Site, gather};

/// The row whose group makes a folder of too long a name.
const IMPOSSIBLE: usize = 7;

/// A file into two lakes, one of them with folders by group.
fn two_lakes(on_error: &str) -> String {
    format!(
        "pipeline: p\n\
         sources:\n\
        \x20 a: {{ type: file, path: in.ndjson, format: json, schema: {{ n: int64, g: string }} }}\n\
         sinks:\n\
        \x20 grouped: {{ type: object_store, input: a, url: ./grouped, format: json, partition_by: [g] }}\n\
        \x20 lake: {{ type: object_store, input: a, url: ./lake, format: json }}\n\
         {on_error}\
         commit: {{ every: 20ms }}\n"
    )
}

fn write_rows(site: &Site, impossible: &str) {
    let group = |n: usize| if n == IMPOSSIBLE { impossible.to_owned() } else { ["a", "b/c", ".."][n % 3].to_owned() };
    let lines: Vec<String> = (0..ROWS).map(|n| format!("{{\"n\":{n},\"g\":\"{}\"}}\n", group(n))).collect();
    std::fs::write(site.path("in.ndjson"), lines.concat()).unwrap();
}

fn rows_in(folder: &Path) -> Vec<usize> {
    let mut rows = Vec::new();
    gather(folder, &mut rows);
    rows.sort_unstable();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_sink_can_never_take_stops_the_run_before_anything_of_its_epoch_is_committed() {
    let site = Site::new();
    write_rows(&site, &"y".repeat(300));
    for _ in 0..2 {
        let error = site.run(&two_lakes(""), false).await.unwrap_err();
        assert!(error.starts_with("sink `grouped`, source `a`: "), "{error}");
        assert!(error.contains("would have a name of 302 bytes, and 255 are possible"), "{error}");
        assert!(error.contains("record: {\"n\":7,"), "{error}");
        for folder in ["grouped", "lake"] {
            assert_eq!(rows_in(&site.path(folder)), Vec::<usize>::new(), "{folder}");
        }
    }
    write_rows(&site, "short");
    site.run(&two_lakes(""), false).await.unwrap();
    for folder in ["grouped", "lake"] {
        assert_eq!(rows_in(&site.path(folder)), (0..ROWS).collect::<Vec<_>>(), "{folder}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_sink_can_never_take_becomes_a_dead_letter() {
    let site = Site::new();
    write_rows(&site, &"y".repeat(300));
    site.run(&two_lakes("on_error: { dead_letter: letters }\n"), false).await.unwrap();
    let others: Vec<usize> = (0..ROWS).filter(|n| *n != IMPOSSIBLE).collect();
    assert_eq!(rows_in(&site.path("grouped")), others);
    assert_eq!(rows_in(&site.path("lake")), (0..ROWS).collect::<Vec<_>>());
    assert_eq!(site.values("letters").await, [IMPOSSIBLE]);
}

/// Text of this many bytes, which no codec makes much smaller.
fn noise(bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.alphanumeric()).take(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_topic_can_never_take_is_refused_before_it_is_played() {
    let text = |on_error: &str| {
        format!(
            "pipeline: p\n\
             sources:\n\
            \x20 a: {{ type: file, path: in.ndjson, format: json, schema: {{ n: int64 }}, through: played }}\n\
             sinks:\n\
            \x20 out: {{ type: topic, input: a, topic: out, format: json }}\n\
             {on_error}\
             commit: {{ every: 20ms }}\n"
        )
    };
    let site = Site::new();
    write_rows(&site, &noise(2 << 20));
    for _ in 0..2 {
        let error = site.run(&text(""), false).await.unwrap_err();
        assert!(error.starts_with("source `a`: ") && error.contains("in.ndjson:8"), "{error}");
        assert!(error.contains("raise its max.message.bytes"), "{error}");
        // What came before it may have been committed, once.
        let out = site.values("out").await;
        assert!(out.len() <= IMPOSSIBLE && out == (0..out.len()).collect::<Vec<_>>(), "{out:?}");
    }
    site.run(&text("on_error: { dead_letter: letters }\n"), false).await.unwrap();
    assert_eq!(site.values("out").await, (0..ROWS).filter(|n| *n != IMPOSSIBLE).collect::<Vec<_>>());
    assert!(!site.is_empty("letters").await);
}

#[cfg(feature = "failpoints")]
mod failpoints {
    use super::super::tests::{Death, lake, times};
    use super::*;

    fn staged_files(folder: &Path) -> Vec<std::path::PathBuf> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            match entry.path().is_dir() {
                true => files.extend(staged_files(&entry.path())),
                false => files.push(entry.path()),
            }
        }
        files.retain(|path| path.extension().is_some_and(|extension| extension == "staged"));
        files
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_staged_file_that_is_gone_is_staged_again() {
        for again in [false, true] {
            let site = Site::new();
            site.rows_file(None);
            site.die(&lake(""), false, Death::At("engine::before_tokens")).await;
            let staged = staged_files(&site.path("lake"));
            assert_eq!(staged.len(), 1);
            std::fs::remove_file(&staged[0]).unwrap();
            if again {
                // Staged again, and dead before a manifest names it: it is swept, and staged once more.
                site.die(&lake(""), false, Death::At("engine::before_end_transaction")).await;
                assert!(site.lake().is_empty());
            }
            site.run(&lake(""), false).await.unwrap();
            assert_eq!(site.lake(), times(1));
            assert_eq!(staged_files(&site.path("lake")), Vec::<std::path::PathBuf>::new());
            let left = std::fs::read_dir(site.path("data/checkpoints/p")).unwrap().count();
            assert_eq!(left, 0, "rows are kept no longer than their tokens");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_the_staged_file_and_its_rows_the_run_stops() {
        let site = Site::new();
        site.rows_file(None);
        site.die(&lake(""), false, Death::At("engine::before_tokens")).await;
        std::fs::remove_file(&staged_files(&site.path("lake"))[0]).unwrap();
        for object in std::fs::read_dir(site.path("data/checkpoints/p")).unwrap() {
            std::fs::remove_file(object.unwrap().path()).unwrap();
        }
        let error = site.run(&lake(""), false).await.unwrap_err();
        assert!(error.contains("sink `lake`: neither ") && error.contains("of the checkpoint store"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_data_directories_write_to_one_folder_whenever_one_of_them_dies() {
        for point in [
            "engine::before_state",
            "engine::after_state",
            "engine::before_end_transaction",
            "engine::after_end_transaction",
            "engine::before_tokens",
            "engine::after_tokens",
        ] {
            let (first, second) = (Site::new(), Site::new());
            let text = lake("").replace("./lake", &first.path("lake").display().to_string());
            first.rows_file(None);
            second.rows_file(None);
            first.die(&text, false, Death::At(point)).await;
            // Each sweeps at its start and at its end, while the other has something staged that a manifest names.
            second.die(&text, false, Death::At("engine::before_tokens")).await;
            first.run(&text, false).await.unwrap();
            second.run(&text, false).await.unwrap();
            assert_eq!(first.lake(), times(2), "{point}");
            assert!(!first.path("lake/_logmill").exists(), "{point}");
        }
    }
}
