//! The examples do what their README says.

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
