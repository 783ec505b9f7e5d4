//! `logmill serve`: how it starts, what it refuses, how it ends; and the commands that speak to it.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use logmill_tests::site::{Running, Site};

const LIMIT: Duration = Duration::from_secs(60);

/// A server on a port of its own: the process and its address.
fn serve(site: &Site, name: &str, more: &[&str]) -> (Running, String) {
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0"];
    arguments.extend(more);
    let mut server = site.start(name, &arguments);
    let address = listening(&mut server);
    (server, address)
}

/// Waits until a server says where it listens.
fn listening(server: &mut Running) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let said = server.errors();
        if let Some((_, rest)) = said.split_once("logmill: listening on ")
            && let Some((address, _)) = rest.split_once(" (node ")
        {
            return address.to_owned();
        }
        assert!(server.ended().is_none() && Instant::now() < deadline, "it does not listen:\n{said}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_says_where_it_is_and_ends_well_when_told_to() {
    let site = Site::new();
    let (mut server, address) = serve(&site, "first", &[]);
    assert!(!address.ends_with(":0"), "{address}");
    assert!(server.errors().contains("(node 1, data dir "), "{}", server.errors());
    // The data dir has an owner now, and commands say who it is.
    site.run(&["serve", "--listen", "127.0.0.1:0"]).fails_with(&["in use by", "--data-dir"]);
    server.terminate();
    assert_eq!(server.wait(LIMIT), Some(0));
    // It was closed: the next one opens it, and ctrl-C does as SIGTERM.
    let (mut server, _) = serve(&site, "second", &[]);
    server.interrupt();
    assert_eq!(server.wait(LIMIT), Some(0));
}

#[test]
fn an_address_that_cannot_be_listened_on_is_explained() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    site.run(&["serve", "--listen", &address]).fails_with(&[&address, "another process listens there", "--listen"]);
    let check = |arguments: &[&str], expected: &[&str]| {
        let mut all = vec!["serve"];
        all.extend(arguments);
        site.run(&all).fails_with(expected);
    };
    check(&["--listen", "127.0.0.1"], &["`127.0.0.1` is no address", "it has no port"]);
    check(&["--listen", "0.0.0.0:0"], &["`0.0.0.0:0`", "--advertise"]);
    check(&["--listen", "SSL://127.0.0.1:0"], &["TLS and SASL are not supported yet"]);
    check(&["--listen", "192.0.2.1:0"], &["no such address"]);
}

#[test]
fn mistakes_in_a_nodes_config_are_told_where_they_stand() {
    let site = Site::new();
    site.write("node.yaml", "node: { id: 3 }\nlisen: [127.0.0.1:0]\nlimits: { max_in_flight: many }\n");
    site.run(&["serve", "--config", "node.yaml"]).fails_with(&[
        "node.yaml:2:1",
        "unknown key `lisen`",
        "`listen`",
        "node.yaml:3:",
        "a whole number",
    ]);
    site.run(&["serve", "--config", "other.yaml"]).fails_with(&["could not read `other.yaml`", "No such file"]);
}

#[test]
fn a_file_configures_a_node_and_flags_stand_over_it() {
    let mut site = Site::new();
    site.unset_data_dir();
    site.write("etc/node.yaml", "node: { id: 3 }\nlisten: [\"${ADDRESS}\"]\ndata_dir: kept\n");
    site.set("ADDRESS", "127.0.0.1:0");
    let mut server = site.start("file", &["serve", "--config", "etc/node.yaml"]);
    listening(&mut server);
    assert!(server.errors().contains("(node 3, data dir etc/kept)"), "{}", server.errors());
    server.terminate();
    assert_eq!(server.wait(LIMIT), Some(0));
    assert!(site.path().join("etc/kept").is_dir());
    let mut server = site.start("flag", &["serve", "--config", "etc/node.yaml", "--data-dir", "flagged"]);
    listening(&mut server);
    assert!(server.errors().contains("(node 3, data dir flagged)"), "{}", server.errors());
}
