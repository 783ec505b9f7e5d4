//! The examples do what their README says, and the commands that are printed anywhere work as they are printed.

use std::fs;

use logmill_tests::data::repository;
use logmill_tests::outcome;
use logmill_tests::site::Site;

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for file in outcome::files(from) {
        let below = file.strip_prefix(from).unwrap();
        if below.starts_with("out") || below.starts_with("guests") {
            continue;
        }
        let target = to.join(below);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

#[test]
fn late_flights_from_a_clone_to_a_lake() {
    let site = Site::new();
    copy(&repository().join("examples/01-late-flights"), site.path());
    let first = site.run(&["run", "pipeline.yaml"]);
    assert!(first.stderr.contains("logmill sql") || first.stdout.contains("logmill sql"), "{first:?}");
    first.ok();
    let lake = outcome::rows(&site.path().join("out/late-flights"));
    assert_eq!(lake.len(), 763);
    assert_eq!(outcome::topic(&site, "flights").len(), 6_114);
    assert_eq!(outcome::topic(&site, "late-flights").len(), 763);
    assert!(lake.iter().all(|row| row.contains("\"airline\":")), "the join with the airlines");

    let expected = fs::read_to_string(repository().join("examples/01-late-flights/expected.csv")).unwrap();
    let by_carrier = "SELECT carrier, count(*) AS flights, round(avg(delay_minutes), 1) AS mean_delay FROM \
                      'out/late-flights' GROUP BY carrier ORDER BY carrier";
    assert_eq!(site.run(&["sql", by_carrier, "--format", "csv"]).ok(), expected);
    let by_carrier = by_carrier.replace("'out/late-flights'", "\"late-flights\"");
    assert_eq!(site.run(&["sql", &by_carrier, "--format", "csv"]).ok(), expected);

    let second = site.run(&["run", "pipeline.yaml"]);
    let said = format!("{}{}", second.stdout, second.stderr);
    assert!(said.contains("nothing new") && said.contains("--fresh"), "{said}");
    second.ok();
    assert_eq!(outcome::rows(&site.path().join("out/late-flights")), lake);
    assert_eq!(outcome::topic(&site, "late-flights").len(), 763);
}

#[test]
fn guests_of_two_languages_mask_and_score_flights_and_sql_calls_a_third() {
    let site = Site::new();
    let example = repository().join("examples/02-wasm-transform");
    copy(&example, site.path());
    site.run(&["test", "pipeline.yaml"]).ok();
    site.run(&["run", "pipeline.yaml"]).ok();

    let by_carrier = "SELECT carrier, count(*) AS flights, sum(CASE WHEN severe THEN 1 ELSE 0 END) AS severe, \
                      round(avg(score), 3) AS mean_score, round(avg(distance_km)) AS mean_km \
                      FROM 'out/scored-flights' GROUP BY carrier ORDER BY carrier";
    let expected = fs::read_to_string(example.join("expected.csv")).unwrap();
    assert_eq!(site.run(&["sql", by_carrier, "--format", "csv"]).ok(), expected);

    let odd = "SELECT count(*) AS odd FROM 'out/scored-flights' WHERE abs(distance_km / (distance * 1.609344) - 1) > 0.01 \
               OR tailnum NOT LIKE '****__' AND tailnum NOT LIKE '***__' \
               OR dest = 'MIA' AND dest_geohash <> 'dhwf'";
    assert_eq!(site.run(&["sql", odd, "--format", "csv"]).ok(), "odd\n0\n");

    let rejects = outcome::rows(&site.path().join("out/rejected-flights"));
    assert_eq!(rejects.len(), 16);
    assert!(rejects.iter().all(|row| row.contains("it never left")), "{rejects:?}");
    assert_eq!(outcome::topic(&site, "scored-flights").len(), 812);
}

/// A clone as far as the commands of the READMEs need one.
fn clone() -> Site {
    let site = Site::new();
    for example in ["01-late-flights", "02-wasm-transform"] {
        let below = format!("examples/{example}");
        copy(&repository().join(&below), &site.path().join(&below));
    }
    site
}

/// The blocks of code under a heading, or in all of a text, that hold commands of ours.
fn commands(text: &str, heading: Option<&str>) -> Vec<String> {
    let text = heading.map_or(text, |heading| {
        let (_, after) = text.split_once(heading).unwrap_or_else(|| panic!("no `{heading}`"));
        after.split("\n## ").next().unwrap()
    });
    let blocks = text.split("```\n").skip(1).step_by(2);
    let blocks = blocks.map(|block| block.replace("cargo run --release -- ", "logmill "));
    blocks.filter(|block| block.starts_with("logmill ")).collect()
}

#[test]
fn the_commands_of_the_readmes_work_as_they_are_printed() {
    let site = clone();
    let run = |block: &str| site.shell(".", &format!("set -e\n{block}"));
    let start = commands(&fs::read_to_string(repository().join("README.md")).unwrap(), Some("## Start\n"));
    assert_eq!(start.len(), 2, "{start:?}");
    let said: Vec<_> = start.iter().map(|block| run(block).ok()).collect();
    for text in ["9E", "JetBlue Airways", "late-flights"] {
        assert!(said[1].contains(text), "no {text} in:\n{}", said[1]);
    }
    for example in ["01-late-flights", "02-wasm-transform"] {
        let text = fs::read_to_string(repository().join(format!("examples/{example}/README.md"))).unwrap();
        for block in commands(&text, None) {
            run(&block).ok();
        }
    }
}

#[test]
fn what_a_run_suggests_works_from_where_it_was_said() {
    let site = clone();
    for (folder, run) in [
        (".", "logmill run examples/01-late-flights/pipeline.yaml"),
        ("examples/01-late-flights", "logmill run pipeline.yaml --fresh"),
        ("examples", "logmill run 01-late-flights/pipeline.yaml --data-dir 'it is here'"),
    ] {
        let said = site.shell(folder, run);
        assert_eq!(said.code, Some(0), "{said:?}");
        let (_, suggested) = said.stderr.split_once("try next:\n").unwrap();
        let lines: Vec<_> = suggested.lines().filter(|line| line.starts_with("  logmill ")).collect();
        assert!(lines.len() >= 4, "{}", said.stderr);
        for line in lines {
            assert!(!site.shell(folder, line).ok().is_empty(), "{line} said nothing");
        }
        let again = site.shell(folder, &run.replace(" --fresh", ""));
        assert!(again.stderr.contains("nothing new"), "{again:?}");
    }
}

#[test]
fn a_pipelines_state_follows_its_file_and_not_the_working_directory() {
    let site = clone();
    let lake = site.path().join("examples/01-late-flights/out/late-flights");
    for (folder, run) in [
        (".", "logmill run examples/01-late-flights/pipeline.yaml"),
        ("examples", "logmill run 01-late-flights/pipeline.yaml"),
        ("examples/01-late-flights", "logmill run pipeline.yaml"),
    ] {
        let said = site.shell(folder, run);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.stderr.contains("logmill-data"), "{said:?}");
        assert_eq!(outcome::rows(&lake).len(), 763, "{folder}");
    }
    assert!(!site.path().join("logmill-data").exists() && !site.path().join("examples/logmill-data").exists());
}

#[test]
fn state_in_the_working_directory_is_not_passed_over() {
    let site = clone();
    let run = "logmill run examples/01-late-flights/pipeline.yaml";
    site.shell(".", &format!("{run} --data-dir logmill-data")).ok();
    let refused = site.shell(".", run).fails_with(&[
        "earlier runs of pipeline `late-flights` kept their state in `logmill-data`",
        "--data-dir logmill-data",
        "--data-dir examples/01-late-flights/logmill-data",
    ]);
    assert!(!refused.stderr.contains("--fresh"), "{refused:?}");
    assert!(site.shell(".", &format!("{run} --data-dir logmill-data")).stderr.contains("nothing new"));
    // In another folder nobody knows of it, and where it was said to begin there, there is no question.
    site.shell(".", &format!("{run} --data-dir examples/01-late-flights/logmill-data")).ok();
    assert!(site.shell(".", run).stderr.contains("nothing new"));
}

#[test]
fn commands_that_find_no_data_dir_say_so_and_make_none() {
    let site = Site::new();
    site.write("a.ndjson", "{\"n\":1}\n");
    for command in [
        "topic list",
        "topic create t",
        "group list",
        "consume t",
        "produce t",
        "sql 'SELECT * FROM t'",
        "sql 'SELECT 1 FROM u'",
    ] {
        let refused = site.shell(".", &format!("logmill {command}"));
        refused.fails_with(&["the working directory has no `logmill-data`", "--data-dir DIR", "LOGMILL_DATA_DIR"]);
    }
    assert!(site.shell(".", "logmill sql \"SELECT n FROM 'a.ndjson'\"").ok().contains('1'));
    assert!(!site.path().join("logmill-data").exists());
}
