//! `logmill new`: writes the beginnings of things.

mod template;
mod wasm;

/// Write the beginnings of a guest: a folder that builds, with a pipeline that runs it and tests.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// A WebAssembly guest, with a pipeline that runs it and tests.
    Wasm(wasm::Arguments),
}

pub(super) fn execute(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Wasm(arguments) => wasm::execute(arguments),
    }
}
