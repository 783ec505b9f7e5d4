//! The `logmill` binary.

use std::process::ExitCode;

use clap::Parser;
use logmill::cli::{self, Cli};

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = cli::failpoints();
    cli::main(Cli::parse())
}
