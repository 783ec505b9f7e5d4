//! The README's table of APIs is the one that the code yields. `LOGMILL_UPDATE_README=1` rewrites it.
#![allow(clippy::unwrap_used)]

use std::fs;

#[test]
fn the_readme_lists_the_apis_that_are_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = fs::read_to_string(path).unwrap();
    let (before, rest) = readme.split_once("<!-- apis -->\n").unwrap();
    let (table, after) = rest.split_once("<!-- /apis -->").unwrap();
    let expected = logmill_broker::server::api_table();
    if std::env::var_os("LOGMILL_UPDATE_README").is_some() {
        fs::write(path, format!("{before}<!-- apis -->\n{expected}<!-- /apis -->{after}")).unwrap();
        return;
    }
    assert_eq!(table, expected, "LOGMILL_UPDATE_README=1 cargo test -p logmill-broker --test readme updates it");
}
