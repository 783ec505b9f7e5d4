//! A site: a folder with a pipeline, where the real binary is run, interrupted and killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::data::target_folder;

/// A folder of its own for one test.
pub struct Site {
    folder: TempDir,
    environment: Vec<(String, String)>,
    has_data_dir: bool,
}

/// What a finished command printed, and how it ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Asserts success and returns what it printed to stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts failure with every one of the texts in what it printed to stderr or stdout.
    #[track_caller]
    pub fn fails_with(self, texts: &[&str]) -> Self {
        assert!(self.code.is_some_and(|code| code != 0), "it should have failed: {self:?}");
        let all = format!("{}{}", self.stdout, self.stderr);
        for text in texts {
            assert!(all.contains(text), "no `{text}` in:\n{all}");
        }
        assert!(!all.contains("panicked"), "{all}");
        self
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new(), has_data_dir: true }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file below the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Sets a variable for all later commands.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.into()));
    }

    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// Later commands are told of no data directory by the environment.
    pub fn unset_data_dir(&mut self) {
        self.has_data_dir = false;
    }

    /// A command of the binary, run in the folder, with the data directory in it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.path()).args(arguments).stdin(Stdio::null());
        command.env_remove("LOGMILL_DATA_DIR").env_remove("LOGMILL_BOOTSTRAP").env_remove("RUST_BACKTRACE");
        if self.has_data_dir {
            command.env("LOGMILL_DATA_DIR", self.path().join("data"));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a line of shell in a folder below, in which `logmill` is the binary and no data directory is named.
    pub fn shell(&self, folder: &str, line: &str) -> Finished {
        let tools = self.path().join("bin");
        if !tools.exists() {
            fs::create_dir_all(&tools).unwrap();
            std::os::unix::fs::symlink(fs::canonicalize(binary()).unwrap(), tools.join("logmill")).unwrap();
        }
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.current_dir(self.path().join(folder)).args(["-c", line]).stdin(Stdio::null()).env("PATH", path);
        command.env_remove("LOGMILL_DATA_DIR").env_remove("LOGMILL_BOOTSTRAP").env_remove("RUST_BACKTRACE");
        command.output().unwrap().into()
    }

    /// Starts a command in the background; its output goes to `<name>.out` and `<name>.err` below the folder.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Running {
        let file = |suffix: &str| fs::File::create(self.path().join(format!("{name}.{suffix}"))).unwrap();
        let child = self.command(arguments).stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Running { child, errors: self.path().join(format!("{name}.err")) }
    }
}

/// A command in the background; killed when dropped.
pub struct Running {
    child: Child,
    errors: PathBuf,
}

impl Running {
    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|status| status.code())
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(code) = self.ended() {
                return code;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("still running after {limit:?}; it said:\n{}", self.errors());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// SIGINT, as by ctrl-C.
    pub fn interrupt(&mut self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        self.signal(rustix::process::Signal::TERM);
    }

    fn signal(&mut self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// What it printed to stderr so far.
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn binary() -> PathBuf {
    std::env::var_os("LOGMILL_TEST_BINARY").map_or_else(|| target_folder().join("debug/logmill"), PathBuf::from)
}
