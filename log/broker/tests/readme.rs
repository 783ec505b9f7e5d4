//! The README's tables of APIs and of topic configs are those that the code yields. `LOGMILL_UPDATE_README=1` rewrites them.
#![allow(clippy::unwrap_used)]

use std::fs;

#[test]
fn the_readmes_tables_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let mut readme = fs::read_to_string(path).unwrap();
    let tables =
        [("apis", logmill_broker::server::api_table()), ("topic configs", logmill_broker::topic_config_table())];
    for (name, expected) in tables {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let (before, rest) = readme.split_once(&begin).unwrap();
        let (table, after) = rest.split_once(&end).unwrap();
        if std::env::var_os("LOGMILL_UPDATE_README").is_none() {
            assert_eq!(
                table, expected,
                "LOGMILL_UPDATE_README=1 cargo test -p logmill-broker --test readme updates it"
            );
        }
        readme = format!("{before}{begin}{expected}{end}{after}");
    }
    if std::env::var_os("LOGMILL_UPDATE_README").is_some() {
        fs::write(path, readme).unwrap();
    }
}
