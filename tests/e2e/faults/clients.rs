//! Clients that stop in the middle: they cost a bounded amount until they are cut off, and the others nothing.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use logmill_tests::data::python;
use logmill_tests::load::batch::{batch, produce_frame, produced};
use logmill_tests::load::raw::{Raw, frame, string};

use super::scene::Scene;

const FETCH: i16 = 1;
const METADATA: i16 = 3;
const JOIN_GROUP: i16 = 11;
/// What an answer holds at its most, in bytes.
const FETCH_BYTES: i32 = 64 << 20;
const LIMIT: Duration = Duration::from_secs(60);

/// Asks for all of `victim` from its start on.
fn fetch() -> Vec<u8> {
    let mut body = (-1_i32).to_be_bytes().to_vec();
    for number in [500, 1, FETCH_BYTES] {
        body.extend(i32::to_be_bytes(number));
    }
    body.push(0);
    body.extend([&[0, 0, 0, 1][..], &string("victim"), &[0, 0, 0, 1, 0, 0, 0, 0]].concat());
    body.extend(0_i64.to_be_bytes());
    body.extend(FETCH_BYTES.to_be_bytes());
    frame(FETCH, 4, &body)
}

/// Batches of about `mib` MiB in `victim`.
fn fill(scene: &Scene, mib: usize) {
    let one = batch(0, &[7; 900_000]);
    let mut raw = scene.connect();
    for _ in 0..mib {
        raw.send(&produce_frame("victim", 1, &one)).unwrap();
        let answer = raw.answer().unwrap().unwrap_or_else(|| panic!("{}", scene.node));
        assert_eq!(produced(&answer, "victim"), 0, "{}", scene.node);
    }
}

/// Whether the other end hangs up on someone who goes on sending.
#[track_caller]
fn assert_cut_off(raw: &mut Raw, request: &[u8], scene: &Scene) {
    let deadline = Instant::now() + LIMIT;
    raw.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    loop {
        match raw.stream.write(request) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
            Ok(_) => {}
        }
        assert!(Instant::now() < deadline, "it is still connected\n{}", scene.node);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn who_never_reads_the_answers_is_not_read_from_either_and_cut_off() {
    let scene = Scene::new("  write_timeout: 3s\n");
    fill(&scene, 32);
    let mut deaf: Vec<_> = (0..20).map(|_| scene.connect()).collect();
    let request = fetch();
    for raw in &mut deaf {
        // Their answers would be of 2 GiB.
        raw.stream.set_nonblocking(true).unwrap();
        let _ = raw.stream.write(&request.repeat(100));
        raw.stream.set_nonblocking(false).unwrap();
    }
    scene.assert_unharmed("clients that do not read");
    for raw in &mut deaf {
        assert_cut_off(raw, &request, &scene);
    }
    scene.assert_unharmed("clients that do not read");
    scene.end();
}

#[test]
fn a_member_that_falls_silent_loses_its_partitions_to_the_others() {
    let scene = Scene::new("");
    for _ in 0..3 {
        // Version 0 of a subscription to the bystanders' topic, with which the member stands for all of it.
        let subscription = [&[0, 0, 0, 0, 0, 1][..], &string("bystanders"), &[0xff; 4]].concat();
        let mut body = [&string("bystanders")[..], &6000_i32.to_be_bytes(), &string(""), &string("consumer")].concat();
        body.extend([0, 0, 0, 1]);
        body.extend(string("range"));
        body.extend(i32::try_from(subscription.len()).unwrap().to_be_bytes());
        body.extend(subscription);
        let mut raw = scene.connect();
        // It joins, and is never heard of again; nor does it hang up.
        let answer = raw.ask(JOIN_GROUP, 0, &body).unwrap().expect("an answer");
        assert_eq!(answer[..2], [0, 0], "{}", scene.node);
        scene.assert_unharmed("a silent member");
        drop(raw);
    }
    scene.end();
}

/// Connects, sends, and dies without a word: its kernel forgets the connections instead of closing them, as when power
/// or network fail.
const VANISH: &str = "
import socket, sys
TCP_REPAIR = 19
port, count = int(sys.argv[1]), int(sys.argv[2])
sent = sys.stdin.buffer.read()
gone = [socket.create_connection(('127.0.0.1', port)) for _ in range(count)]
for one in gone:
    one.sendall(sent)
for one in gone:
    one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    one.close()
";

fn vanish(scene: &Scene, count: u32, sent: &[u8]) {
    let arguments = ["-c", VANISH, &scene.node.port().to_string(), &count.to_string()];
    let mut python =
        Command::new(python()).args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(sent).unwrap();
    let output = python.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "clients that vanish need the rights of root: {errors}");
}

#[test]
fn who_vanishes_without_a_word_makes_room_in_the_end() {
    let scene = Scene::new("  max_connections: 60\n  frame_timeout: 3s\n  max_idle: 10s\n");
    // Between two requests, within one, and waiting for an answer.
    vanish(&scene, 15, &[]);
    vanish(&scene, 15, &frame(METADATA, 1, &[0, 0, 0, 0])[..10]);
    vanish(&scene, 15, &fetch());
    scene.assert_unharmed("clients that vanished");
    // Fifty at a time are possible only once the vanished have been forgotten.
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut all: Vec<_> = (0..50).map(|_| scene.connect()).collect();
        let answered = all.iter_mut().filter_map(|raw| raw.ask(METADATA, 1, &[0, 0, 0, 0]).ok().flatten()).count();
        if answered == 50 {
            break;
        }
        assert!(Instant::now() < deadline, "only {answered} get in\n{}", scene.node);
        drop(all);
        std::thread::sleep(Duration::from_millis(200));
    }
    scene.assert_unharmed("clients that vanished");
    scene.end();
}
