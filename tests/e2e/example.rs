//! The examples do what their README says.

use std::fs;

use logmill_tests::data::repository;
use logmill_tests::outcome;
use logmill_tests::site::Site;

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for file in outcome::files(from) {
        let below = file.strip_prefix(from).unwrap();
        if below.starts_with("out") {
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
