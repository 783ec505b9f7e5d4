//! Programs of other people's clients, run against a node; each is one process that goes through its scenarios.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::data::repository;
use crate::node::Node;

/// A program that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(400);
/// What a program prints when its clients should see the node restart, and what it is answered.
const WANTS_RESTART: &str = "RESTART?";
const RESTARTED: &[u8] = b"restarted\n";

/// The clients that write to the matrix, a topic for each codec; all of them read it.
pub const WRITERS: [&str; 7] = ["confluent", "kafka-python", "aiokafka", "java-3.9", "java-4.1", "franz-go", "kafkajs"];
/// One for each of five codecs, but kafkajs has nothing that writes LZ4 as Kafka wants it.
const MATRIX_TOPICS: usize = WRITERS.len() * 5 - 1;

/// A running program; killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a client's scenarios by name, or all of them; fails with everything that it printed if one fails.
///
/// A scenario that asks for it sees the node end by SIGTERM and start again.
#[track_caller]
pub fn run(client: &str, node: &mut Node, scenarios: &[&str]) {
    let mut program = start(client, node, scenarios);
    let lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
    let (printed, received) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| printed.send(line)));
    let (deadline, mut output) = (Instant::now() + LIMIT, String::new());
    loop {
        match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                output.push_str(&line);
                output.push('\n');
                if line == WANTS_RESTART {
                    assert_eq!(node.terminate(), Some(0), "{client}: the node did not drain\n{output}\n{node}");
                    node.start();
                    program.0.stdin.as_mut().unwrap().write_all(RESTARTED).unwrap();
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("{client}: not done after {LIMIT:?}\n{output}\n{node}"),
        }
    }
    let status = program.0.wait().unwrap();
    assert!(status.success(), "{client}: {status}\n{output}\n{node}");
    let passed = output.lines().filter(|line| line.starts_with("PASS ")).count();
    assert!(passed >= scenarios.len().max(1), "{client}: {passed} scenarios passed\n{output}");
    println!("{client}:\n{output}");
}

fn start(client: &str, node: &Node, scenarios: &[&str]) -> Program {
    // Both streams in one, as they were printed.
    let script = format!("exec {} \"$@\" 2>&1", repository().join("tests/clients/run.sh").display());
    let child = Command::new("bash")
        .args(["-c", &script, "run.sh", client])
        .args(scenarios)
        .env("BOOTSTRAP", node.bootstrap())
        .env("DATA_DIR", node.data_dir())
        .env("MATRIX_TOPICS", MATRIX_TOPICS.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    Program(child.unwrap())
}
