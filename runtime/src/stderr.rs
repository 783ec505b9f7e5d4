//! What people read on stderr: the one place that writes to it.
//!
//! Names and messages may be anybody's: of files, topics, guests. What would move a terminal's cursor or begin a line is
//! escaped. A reader that is gone is no error.

use std::io::{IsTerminal, Write, stderr};

use logmill_pipelines::terminal::{escape, escape_line};

/// Whether it is a terminal.
pub(crate) fn is_terminal() -> bool {
    stderr().is_terminal()
}

/// Whether it shows colours.
pub(crate) fn has_colours() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints one line, whatever the text holds.
pub(crate) fn print_line(text: &str) {
    print_as_it_is(&format!("{}\n", escape_line(text)));
}

/// Prints lines. Names that could begin one were escaped when they were put in.
pub(crate) fn print_lines(text: &str) {
    print_as_it_is(&format!("{}\n", escape(text.trim_end())));
}

/// Prints what was escaped as it was made: its colours stay.
pub(crate) fn print_as_it_is(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}
