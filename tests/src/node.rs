//! The real binary as a node that clients talk to: started, killed, restarted, watched.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use crate::load::raw::Raw;
use crate::port;
use crate::site::binary;

/// How long a node may take to serve, or to go.
const LIMIT: Duration = Duration::from_secs(60);
/// Of the node's log, so much is printed with a failure, in bytes.
const PRINTED_LOG_BYTES: usize = 6000;
const API_VERSIONS: i16 = 18;

/// `logmill serve` on a data dir and a port that stay the same from start to start; killed when dropped.
#[derive(Debug)]
pub struct Node {
    data_dir: PathBuf,
    log: PathBuf,
    port: u16,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// A node whose data lies in `folder/data` and whose log in `folder/node.log`; not started yet.
    pub fn new(folder: &Path) -> Self {
        let port = port::free();
        Self {
            data_dir: folder.join("data"),
            log: folder.join("node.log"),
            port,
            arguments: Vec::new(),
            environment: Vec::new(),
            child: None,
        }
    }

    /// More arguments of `serve` from the next start on.
    pub fn arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// A variable for the next starts.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.unset(name);
        self.environment.push((name.to_owned(), value.into()));
    }

    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// Starts the node without waiting for it.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        writeln!(log, "--- start").unwrap();
        let errors = File::try_clone(&log).unwrap();
        let child = Command::new(binary())
            .args(["serve", "--listen", &self.bootstrap(), "--data-dir"])
            .arg(&self.data_dir)
            .args(&self.arguments)
            .env_remove("RUST_BACKTRACE")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Starts the node and waits until it serves.
    #[track_caller]
    pub fn start(&mut self) {
        self.spawn();
        self.await_ready();
    }

    /// Waits until it serves.
    #[track_caller]
    pub fn await_ready(&mut self) {
        let deadline = Instant::now() + LIMIT;
        // Said after it listens: until then, whoever answers is another.
        while !(self.says_it_listens() && self.serves()) {
            assert!(!self.has_ended(), "the node ended instead of serving\n{self}");
            assert!(Instant::now() < deadline, "the node does not serve after {LIMIT:?}\n{self}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it has said, since it was started, that it listens.
    fn says_it_listens(&self) -> bool {
        self.log().rsplit("--- start").next().is_some_and(|since| since.contains("listening on"))
    }

    /// Whether it answers.
    pub fn serves(&self) -> bool {
        let answer = Raw::connect(self.port).and_then(|mut raw| raw.ask(API_VERSIONS, 0, &[]));
        answer.is_ok_and(|answer| answer.is_some())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; returns how it ended.
    #[track_caller]
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until it ends by itself; returns the code, or none if a signal ended it.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        while !self.has_ended() {
            assert!(Instant::now() < deadline, "the node still runs after {LIMIT:?}\n{self}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.take().and_then(|mut child| child.wait().unwrap().code())
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("it does not run")), signal).unwrap();
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What clients connect to.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Everything it said, of all starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The most memory that it ever held, in bytes (`VmHWM`).
    #[track_caller]
    pub fn peak_memory_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// The memory that it holds, in bytes (`VmRSS`).
    #[track_caller]
    pub fn memory_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    #[track_caller]
    fn status_bytes(&self, field: &str) -> u64 {
        let pid = self.child.as_ref().expect("it does not run").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_else(|| panic!("no {field} of {pid}"));
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// The end of its log, for messages of failed tests.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log();
        let start = log.ceil_char_boundary(log.len().saturating_sub(PRINTED_LOG_BYTES));
        write!(f, "the node's log ends:\n{}", &log[start..])
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
