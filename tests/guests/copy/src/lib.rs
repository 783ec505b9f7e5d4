//! A transform that gives every record as it comes, unread: what a record at a time costs.

use logmill_guest::{Message, Out, Port, Transform};

struct Copy;

impl Transform for Copy {
    type Config = ();

    fn new((): ()) -> Result<Self, String> {
        Ok(Copy)
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::text("out")]
    }

    fn transform(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result<(), String> {
        match message.value() {
            Some(value) => out.emit().bytes(value),
            None => out.emit().null(),
        }
        Ok(())
    }
}

logmill_guest::transform!(Copy);
