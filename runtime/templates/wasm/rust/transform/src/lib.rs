//! What this guest does: it puts `*` for every digit of a text, and counts them.

use std::borrow::Cow;

use logmill_guest::{Message, Out, Port, Transform};
use serde::Deserialize;

/// The `config:` of the operator.
#[derive(Deserialize)]
struct Config {
    mask: char,
}

/// What comes in.
#[derive(Deserialize)]
struct Row<'a> {
    // Borrowed where it can be: a text with escapes in it is a copy.
    #[serde(borrow)]
    author: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

logmill_guest::record! {
    /// What goes out.
    #[derive(Debug, PartialEq)]
    struct Masked {
        author: String,
        text: String,
        masked: i32,
    }
}

struct Mask {
    mask: char,
}

impl Transform for Mask {
    type Config = Option<Config>;

    fn new(config: Self::Config) -> Result<Self, String> {
        Ok(Mask { mask: config.map_or('*', |config| config.mask) })
    }

    /// The outputs. The first goes by the operator's own name, the others by `operator.name`.
    fn outputs(&self) -> Vec<Port> {
        vec![Port::of::<Masked>("masked"), Port::text("rejects")]
    }

    /// Called for every record: puts out as many as it likes, or says why it cannot, which sets the record aside.
    fn transform(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result<(), String> {
        let row: Row<'_> = message.json()?;
        if row.text.is_empty() {
            out.emit_to("rejects")?.text(&format!("{} says nothing", row.author));
            return Ok(());
        }
        let masked = row.text.chars().filter(char::is_ascii_digit).count() as i32;
        let text = row.text.chars().map(|c| if c.is_ascii_digit() { self.mask } else { c }).collect();
        out.json(&Masked { author: row.author.into_owned(), text, masked })
    }
}

logmill_guest::transform!(Mask);

#[cfg(test)]
mod tests {
    use super::*;
    use logmill_guest::testing::{Record, Transforming};

    #[test]
    fn digits_are_masked_and_counted() {
        let guest = Transforming::<Mask>::new(r##"{"mask":"#"}"##).unwrap();
        let entries = guest.transform(&[Record::of(r#"{"author":"\u0061nn","text":"room 101"}"#)]).unwrap();
        let (output, record) = entries[0].what.as_ref().unwrap();
        assert_eq!(output, "masked");
        let expected = Masked { author: "ann".into(), text: "room ###".into(), masked: 3 };
        assert_eq!(record.json::<Masked>().unwrap(), expected);
    }
}
