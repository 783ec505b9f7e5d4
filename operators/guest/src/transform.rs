//! Transforms: a record in, any number of records out. The engine calls with many records at once, packed
//! (`transform/PACKED.md`), and each is read where it lies and answered into one buffer.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::{Message, Messages, NO_TIMESTAMP, put_bytes};
use crate::record::Record;
use crate::wit::transform::exports::logmill::transform::describe;

/// A transform of records.
///
/// One is made by each worker; the engine may replace it at any time, so whatever it remembers from record to record may be
/// lost. Export it with [`transform!`](crate::transform!).
pub trait Transform: Sized + 'static {
    /// What the operator's `config:` is read into; `()` if there is none.
    type Config: DeserializeOwned;

    /// Called when a pipeline is checked and by each worker.
    ///
    /// # Errors
    /// What is wrong with the configuration, in words for the pipeline's author.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// The outputs. The first goes by the operator's own name; the others are `operator.name`.
    fn outputs(&self) -> Vec<Port>;

    /// Takes one record and puts out what becomes of it.
    ///
    /// # Errors
    /// The record is set aside with this reason, and nothing of it is put out.
    fn transform(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result<(), String>;
}

/// An output of a transform and what its values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    name: String,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Json(Vec<(String, String)>),
    Text,
    Bytes,
}

impl Port {
    /// JSON objects with the columns of a struct.
    #[must_use]
    pub fn of<R: Record>(name: &str) -> Self {
        Port { name: name.to_owned(), content: Content::Json(R::columns()) }
    }

    /// JSON objects with these columns: names and types as a pipeline's `schema:` writes them.
    #[must_use]
    pub fn json(name: &str, columns: &[(&str, &str)]) -> Self {
        let columns = columns.iter().map(|(name, data_type)| ((*name).to_owned(), (*data_type).to_owned())).collect();
        Port { name: name.to_owned(), content: Content::Json(columns) }
    }

    /// Text, in one column `value` of type string.
    #[must_use]
    pub fn text(name: &str) -> Self {
        Port { name: name.to_owned(), content: Content::Text }
    }

    /// Bytes, in one column `value` of type binary.
    #[must_use]
    pub fn bytes(name: &str) -> Self {
        Port { name: name.to_owned(), content: Content::Bytes }
    }
}

/// Where a transform puts the records that come of one.
#[derive(Debug)]
pub struct Out<'a> {
    ports: &'a [Port],
    message: Message<'a>,
    index: u32,
    entries: &'a mut u32,
    buffer: &'a mut Vec<u8>,
}

impl<'a> Out<'a> {
    /// Puts a JSON object into the first output, with the key, the headers and the timestamp of the record it comes from.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), String> {
        self.emit().json(value)
    }

    /// Begins a record for the first output, which has the key, the headers and the timestamp of the one it comes from.
    pub fn emit(&mut self) -> Emit<'_, 'a> {
        self.begin(0)
    }

    /// Begins a record for another output.
    ///
    /// # Errors
    /// If there is no such output.
    pub fn emit_to(&mut self, output: &str) -> Result<Emit<'_, 'a>, String> {
        let found = self.ports.iter().position(|port| port.name == output);
        let found = found.and_then(|found| u16::try_from(found).ok());
        Ok(self.begin(found.ok_or_else(|| format!("there is no output `{output}`"))?))
    }

    fn begin(&mut self, port: u16) -> Emit<'_, 'a> {
        let start = self.buffer.len();
        let Message { header_count, .. } = self.message;
        let (key, timestamp) = (self.message.key(), self.message.timestamp_us());
        Emit { port, start, key, timestamp, header_count, added: Vec::new(), out: self }
    }
}

/// A record on its way out. It is put out by the last call: `json`, `text`, `bytes` or `null`.
#[derive(Debug)]
#[must_use]
pub struct Emit<'o, 'a> {
    out: &'o mut Out<'a>,
    port: u16,
    start: usize,
    key: Option<&'o [u8]>,
    timestamp: Option<i64>,
    header_count: u32,
    added: Vec<u8>,
}

impl<'o> Emit<'o, '_> {
    /// Another key.
    pub fn key(mut self, key: Option<&'o [u8]>) -> Self {
        self.key = key;
        self
    }

    /// Another timestamp: microseconds since the Unix epoch, UTC.
    pub fn timestamp_us(mut self, timestamp: Option<i64>) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// One more header.
    pub fn header(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.header_count += 1;
        put_bytes(&mut self.added, Some(name.as_bytes()));
        put_bytes(&mut self.added, value);
        self
    }

    /// Puts it out with a JSON object as the value.
    ///
    /// # Errors
    /// If it cannot be written as JSON; nothing is put out then.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<(), String> {
        self.finish(|buffer| {
            let length_at = buffer.len();
            buffer.extend_from_slice(&[0; 4]);
            serde_json::to_writer(&mut *buffer, value).map_err(|error| error.to_string())?;
            let length = (buffer.len() - length_at - 4) as u32;
            buffer[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            Ok(())
        })
    }

    /// Puts it out with a text as the value.
    pub fn text(self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Puts it out with these bytes as the value.
    pub fn bytes(self, value: &[u8]) {
        let written = self.finish(|buffer| {
            put_bytes(buffer, Some(value));
            Ok(())
        });
        debug_assert!(written.is_ok(), "bytes can always be written");
    }

    /// Puts it out without a value: a tombstone.
    pub fn null(self) {
        let written = self.finish(|buffer| {
            put_bytes(buffer, None);
            Ok(())
        });
        debug_assert!(written.is_ok(), "null can always be written");
    }

    fn finish(self, value: impl FnOnce(&mut Vec<u8>) -> Result<(), String>) -> Result<(), String> {
        let Out { buffer, index, message, entries, .. } = self.out;
        buffer.extend_from_slice(&index.to_le_bytes());
        buffer.push(0);
        buffer.extend_from_slice(&self.port.to_le_bytes());
        buffer.extend_from_slice(&self.timestamp.unwrap_or(NO_TIMESTAMP).to_le_bytes());
        put_bytes(buffer, self.key);
        if let Err(error) = value(buffer) {
            buffer.truncate(self.start);
            return Err(error);
        }
        buffer.extend_from_slice(&self.header_count.to_le_bytes());
        buffer.extend_from_slice(message.headers);
        buffer.extend_from_slice(&self.added);
        **entries += 1;
        Ok(())
    }
}

/// What a function that is a transform may return: a record, an `Option` or a `Vec` of them, or a `Result` of these.
pub trait Outcome {
    /// The record.
    type Row: Record;

    /// Puts it out.
    ///
    /// # Errors
    /// Why the record is to be set aside.
    fn put(self, out: &mut Out<'_>) -> Result<(), String>;
}

impl<R: Record> Outcome for R {
    type Row = R;

    fn put(self, out: &mut Out<'_>) -> Result<(), String> {
        out.json(&self)
    }
}

impl<R: Record> Outcome for Option<R> {
    type Row = R;

    fn put(self, out: &mut Out<'_>) -> Result<(), String> {
        self.map_or(Ok(()), |row| out.json(&row))
    }
}

impl<R: Record> Outcome for Vec<R> {
    type Row = R;

    fn put(self, out: &mut Out<'_>) -> Result<(), String> {
        self.iter().try_for_each(|row| out.json(row))
    }
}

impl<O: Outcome, E: fmt::Display> Outcome for Result<O, E> {
    type Row = O::Row;

    fn put(self, out: &mut Out<'_>) -> Result<(), String> {
        self.map_err(|error| error.to_string())?.put(out)
    }
}

/// A transform at work in an instance: what [`transform!`](crate::transform!) exports.
#[doc(hidden)]
#[derive(Debug)]
pub struct Running<T>(RefCell<Option<State<T>>>);

#[derive(Debug)]
struct State<T> {
    guest: T,
    ports: Vec<Port>,
    /// How large the last result was: the next will need about as much.
    room: usize,
}

impl<T: Transform> Running<T> {
    #[expect(clippy::new_without_default, reason = "a constant")]
    pub const fn new() -> Self {
        Running(RefCell::new(None))
    }

    pub fn outputs(&self, config: &str) -> Result<Vec<describe::Port>, String> {
        crate::host::report_panics();
        let guest = T::new(crate::host::config(config)?)?;
        let ports = guest.outputs();
        let described = ports.iter().map(describe_port).collect();
        *self.0.borrow_mut() = Some(State { guest, ports, room: 0 });
        Ok(described)
    }

    pub fn transform_packed(&self, packed: &[u8]) -> Result<Vec<u8>, String> {
        let mut state = self.0.borrow_mut();
        let State { guest, ports, room } = state.as_mut().ok_or("`outputs` has not been called")?;
        let mut messages = Messages::new(packed)?;
        let mut buffer = Vec::with_capacity(*room + *room / 8);
        buffer.extend_from_slice(&[0; 4]);
        let mut entries = 0;
        for index in 0..messages.count {
            let message = messages.next()?;
            let (start, entries_before) = (buffer.len(), entries);
            let mut out = Out { ports, message, index, entries: &mut entries, buffer: &mut buffer };
            if let Err(reason) = guest.transform(message, &mut out) {
                buffer.truncate(start);
                entries = entries_before + 1;
                buffer.extend_from_slice(&index.to_le_bytes());
                buffer.push(1);
                put_bytes(&mut buffer, Some(reason.as_bytes()));
            }
        }
        buffer[..4].copy_from_slice(&u32::to_le_bytes(entries));
        *room = buffer.len();
        Ok(buffer)
    }
}

fn describe_port(port: &Port) -> describe::Port {
    use crate::wit::transform::logmill::transform::types::{Column, Content as Described};
    let content = match &port.content {
        Content::Text => Described::Text,
        Content::Bytes => Described::Bytes,
        Content::Json(columns) => Described::Json(
            columns
                .iter()
                .map(|(name, data_type)| Column { name: name.clone(), data_type: data_type.clone() })
                .collect(),
        ),
    };
    describe::Port { name: port.name.clone(), content }
}

/// Exports a transform: a type that implements [`Transform`], or a function of one argument.
///
/// ```
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Flight {
///     carrier: String,
///     delay_minutes: f64,
/// }
///
/// logmill_guest::record! {
///     struct Late { carrier: String, hours: f64 }
/// }
///
/// logmill_guest::transform!(|flight: Flight| -> Option<Late> {
///     (flight.delay_minutes > 60.0).then(|| Late { carrier: flight.carrier, hours: flight.delay_minutes / 60.0 })
/// });
/// ```
///
/// The argument is read from the record's value as JSON; what is returned is an [`Outcome`](crate::transform::Outcome) of a
/// [`record!`](crate::record!). With `fn late(flight: Flight<'_>) -> Option<Late> { … }` in place of the closure, the
/// function also has a name, so that tests can call it.
#[macro_export]
macro_rules! transform {
    (|$argument:ident: $input:ty| -> $output:ty $body:block) => {
        const _: () = {
            $crate::transform!(fn apply($argument: $input) -> $output $body);
        };
    };
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($argument:ident: $input:ty) -> $output:ty $body:block) => {
        $(#[$meta])*
        $visibility fn $name($argument: $input) -> $output $body

        const _: () = {
            struct Function;

            impl $crate::Transform for Function {
                type Config = Option<$crate::serde::de::IgnoredAny>;

                fn new(_config: Self::Config) -> Result<Self, String> {
                    Ok(Function)
                }

                fn outputs(&self) -> Vec<$crate::Port> {
                    vec![$crate::Port::of::<<$output as $crate::Outcome>::Row>("out")]
                }

                fn transform(&mut self, message: $crate::Message<'_>, out: &mut $crate::Out<'_>) -> Result<(), String> {
                    $crate::Outcome::put($name(message.json()?), out)
                }
            }

            $crate::transform!(Function);
        };
    };
    ($guest:ty) => {
        // For the machine itself: the guest counts as used.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            let _ = $crate::transform::Running::<$guest>::new();
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::wit::transform::exports::logmill::transform::{describe, packed};

            struct Exported;

            thread_local! {
                static RUNNING: $crate::transform::Running<$guest> = const { $crate::transform::Running::new() };
            }

            impl describe::Guest for Exported {
                fn outputs(config: String) -> Result<Vec<describe::Port>, String> {
                    RUNNING.with(|running| running.outputs(&config))
                }
            }

            impl packed::Guest for Exported {
                fn transform_packed(messages: Vec<u8>) -> Result<Vec<u8>, String> {
                    RUNNING.with(|running| running.transform_packed(&messages))
                }
            }

            $crate::wit::transform::export_transform!(Exported with_types_in $crate::wit::transform);
        };
    };
}
