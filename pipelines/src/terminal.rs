//! Text of others where people read it: on a terminal, and in a log.
//!
//! A name in a file, a message of a guest or a record may hold what moves a terminal's cursor, reverses the text after it, or
//! begins a line that nobody wrote. It is shown as JSON would write it: `\u001b`.

use std::borrow::Cow;
use std::fmt::Write;

/// Text that may have several lines.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_all(text, |symbol| symbol == '\n')
}

/// Text that is part of a line.
#[must_use]
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape_all(text, |_| false)
}

fn escape_all(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let harms = |symbol: char| is_harmful(symbol) && !stays(symbol);
    if !text.contains(harms) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut symbols = text.chars().peekable();
    while let Some(symbol) = symbols.next() {
        match symbol {
            // The end of a line, where lines may end.
            '\r' if symbols.peek() == Some(&'\n') && stays('\n') => shown.push(symbol),
            '\n' if harms(symbol) => shown.push_str("\\n"),
            _ if harms(symbol) => {
                let _ = write!(shown, "\\u{:04x}", u32::from(symbol));
            }
            _ => shown.push(symbol),
        }
    }
    Cow::Owned(shown)
}

/// Whether a character does something to the text around it, and is not just shown: control characters but for tabs, and those
/// that set the direction of text or separate lines.
fn is_harmful(symbol: char) -> bool {
    let is_control = symbol.is_control() && symbol != '\t';
    is_control
        || matches!(
            symbol,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_something_to_a_terminal_is_written_out() {
        let check = |text: &str, lines: &str, line: &str| {
            assert_eq!(escape(text), lines);
            assert_eq!(escape_line(text), line);
        };
        check("größe\t1 🚀", "größe\t1 🚀", "größe\t1 🚀");
        check("a\nb", "a\nb", "a\\nb");
        check("a\r\nb", "a\r\nb", "a\\u000d\\nb");
        check("a\rb", "a\\u000db", "a\\u000db");
        check("\u{1b}[2J", "\\u001b[2J", "\\u001b[2J");
        check("\u{9b}1m\0", "\\u009b1m\\u0000", "\\u009b1m\\u0000");
        check("abc\u{202e}fdp", "abc\\u202efdp", "abc\\u202efdp");
        check("\u{2066}x\u{2069}\u{2028}", "\\u2066x\\u2069\\u2028", "\\u2066x\\u2069\\u2028");
    }
}
