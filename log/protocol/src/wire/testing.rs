//! Requests made up at random from the descriptions, for tests: valid ones, of every API and version.
//!
//! What the fields hold is up to [`Values`]: anything ([`random_request`]), or what a test thinks up ([`made_request`]).

use fastrand::Rng;
use kafka_protocol::messages::ApiKey;

use crate::wire::messages::{CONSUMER_PROTOCOL_ASSIGNMENT, CONSUMER_PROTOCOL_SUBSCRIPTION, REQUESTS, request};
use crate::wire::shape::{Field, Kind, Message, Shape};

/// Every API and version that is described.
pub fn described() -> impl Iterator<Item = (ApiKey, i16)> {
    REQUESTS.iter().flat_map(|(api, message)| (message.min..=message.max).map(|version| (*api, version)))
}

/// A request's body with random content in every field that this version has, nulls and unknown tagged fields too;
/// empty if there is no such version.
#[must_use]
pub fn random_request(api: ApiKey, version: i16, random: &mut Rng) -> Vec<u8> {
    made_request(api, version, &mut Anything(random))
}

/// What the fields of a made-up request hold. Each is asked for by its name in Kafka's schema.
pub trait Values {
    /// Where chance comes from.
    fn random(&mut self) -> &mut Rng;
    /// A number, of which the last `len` bytes are written.
    fn number(&mut self, field: &str, len: usize) -> i128;
    /// A text.
    fn string(&mut self, field: &str) -> String;
    /// Bytes.
    fn bytes(&mut self, field: &str) -> Vec<u8>;
    /// How many elements an array has.
    fn count(&mut self, field: &str) -> usize;
}

/// A request's body with such values in every field that this version has; empty if there is no such version.
#[must_use]
pub fn made_request(api: ApiKey, version: i16, values: &mut dyn Values) -> Vec<u8> {
    request(api, version).map_or_else(Vec::new, |message| write(message, version, values))
}

/// A frame with such a request and a random header before it, without the frame's size.
#[must_use]
pub fn made_frame(api: ApiKey, version: i16, values: &mut dyn Values) -> Vec<u8> {
    let header_version = api.request_header_version(version);
    let mut random = values.random().fork();
    let mut anything = Anything(&mut random);
    let mut frame = Writer { out: Vec::new(), version, flexible: false, plain: false, values: &mut anything };
    frame.out.extend_from_slice(&(api as i16).to_be_bytes());
    frame.out.extend_from_slice(&version.to_be_bytes());
    frame.fixed("correlation_id", 4);
    frame.string("client_id", true);
    if header_version >= 2 {
        frame.tags(&[]);
    }
    let mut frame = frame.out;
    frame.extend(made_request(api, version, values));
    frame
}

/// As [`made_frame`], with anything in the fields.
#[must_use]
pub fn random_frame(api: ApiKey, version: i16, random: &mut Rng) -> Vec<u8> {
    made_frame(api, version, &mut Anything(random))
}

/// What a member may subscribe to, in some version.
#[must_use]
pub fn random_subscription(random: &mut Rng) -> Vec<u8> {
    versioned(&CONSUMER_PROTOCOL_SUBSCRIPTION, random)
}

/// What a member may be assigned, in some version.
#[must_use]
pub fn random_assignment(random: &mut Rng) -> Vec<u8> {
    versioned(&CONSUMER_PROTOCOL_ASSIGNMENT, random)
}

fn versioned(message: &Message, random: &mut Rng) -> Vec<u8> {
    let version = random.i16(message.min..=message.max);
    [version.to_be_bytes().to_vec(), write(message, version, &mut Anything(random))].concat()
}

fn write(message: &Message, version: i16, values: &mut dyn Values) -> Vec<u8> {
    let flexible = message.is_flexible(version);
    let mut writer = Writer { out: Vec::new(), version, flexible, plain: false, values };
    writer.shape(message.shape);
    writer.out
}

/// Names that tests make topics and groups of, and others.
const NAMES: [&str; 8] = ["flights", "late-flights", "", "g", "größe", "__consumer_offsets", "segment.bytes", "a/b"];

/// Anything, or what is often special.
struct Anything<'r>(&'r mut Rng);

impl Values for Anything<'_> {
    fn random(&mut self) -> &mut Rng {
        self.0
    }

    fn number(&mut self, _: &str, len: usize) -> i128 {
        match self.0.u8(..8) {
            0 => -1,
            1..=4 => i128::from(self.0.u8(..4)),
            _ => (0..len).fold(0, |number, _| number << 8 | i128::from(self.0.u8(1..0x7f))),
        }
    }

    fn string(&mut self, _: &str) -> String {
        let name = self.0.choice(NAMES).unwrap_or_default();
        if self.0.u8(..20) == 0 { name.repeat(40) } else { name.to_owned() }
    }

    fn bytes(&mut self, _: &str) -> Vec<u8> {
        (0..self.0.usize(..100)).map(|_| self.0.u8(..)).collect()
    }

    fn count(&mut self, _: &str) -> usize {
        self.0.usize(..4)
    }
}

struct Writer<'r> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    /// Neither null nor a default: an encoder omits tagged fields that hold theirs.
    plain: bool,
    values: &'r mut dyn Values,
}

impl Writer<'_> {
    fn shape(&mut self, shape: &Shape) {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| field.is_in(version)) {
            self.field(field);
        }
        if self.flexible {
            self.tags(shape.tagged);
        }
    }

    fn field(&mut self, field: &Field) {
        let null = field.is_nullable(self.version) && !self.plain && self.values.random().u8(..4) == 0;
        let name = field.name;
        match field.kind {
            Kind::Bool => {
                let value = self.values.random().u8(..2);
                self.out.push(value);
            }
            Kind::Fixed(len) => self.fixed(name, len),
            Kind::String => self.string(name, null),
            Kind::Bytes if null => self.length(None, 4),
            Kind::Bytes => {
                let bytes = self.values.bytes(name);
                self.length(Some(bytes.len()), 4);
                self.out.extend(bytes);
            }
            Kind::FixedArray(_) | Kind::StringArray | Kind::Array(_) if null => self.length(None, 4),
            Kind::FixedArray(len) => self.elements(name, |writer| writer.fixed(name, len)),
            Kind::StringArray => self.elements(name, |writer| writer.string(name, false)),
            Kind::Array(of) => self.elements(name, |writer| writer.shape(of)),
            Kind::Struct(of) => self.shape(of),
            Kind::Optional(_) if self.values.random().bool() => self.out.push(0xff),
            Kind::Optional(of) => {
                self.out.push(1);
                self.shape(of);
            }
        }
    }

    fn elements(&mut self, name: &str, mut element: impl FnMut(&mut Self)) {
        let count = self.values.count(name);
        self.length(Some(count), 4);
        for _ in 0..count {
            element(self);
        }
    }

    /// A number of so many bytes.
    fn fixed(&mut self, name: &str, len: usize) {
        // A default, which an encoder would omit, is 0 or has all bits set.
        let number =
            if self.plain { i128::from(self.values.random().u8(1..0x7f)) } else { self.values.number(name, len) };
        let bytes = number.to_be_bytes();
        self.out.extend_from_slice(bytes.get(bytes.len() - len..).unwrap_or_default());
    }

    fn string(&mut self, name: &str, nullable: bool) {
        if nullable && self.values.random().u8(..4) == 0 {
            return self.length(None, 2);
        }
        let text = self.values.string(name);
        self.length(Some(text.len()), 2);
        self.out.extend_from_slice(text.as_bytes());
    }

    /// A length or count in its encoding, which takes `len` bytes unless it is compact.
    fn length(&mut self, length: Option<usize>, len: usize) {
        if self.flexible {
            return self.varint(length.map_or(0, |length| length + 1));
        }
        let length = length.map_or(-1, |length| length as i32).to_be_bytes();
        self.out.extend_from_slice(length.get(4 - len..).unwrap_or_default());
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn tags(&mut self, known: &[(u32, Field)]) {
        let mut tagged = Vec::new();
        let version = self.version;
        for (tag, field) in known.iter().filter(|(_, field)| field.is_in(version)) {
            if self.values.random().bool() {
                let mut value = Writer { out: Vec::new(), plain: true, values: self.values, ..*self };
                value.field(field);
                tagged.push((*tag as usize, value.out));
            }
        }
        let mut tag = 100;
        while self.values.random().u8(..8) == 0 {
            tag += self.values.random().usize(1..200);
            tagged.push((tag, vec![7; self.values.random().usize(..200)]));
        }
        self.varint(tagged.len());
        for (tag, value) in tagged {
            self.varint(tag);
            self.varint(value.len());
            self.out.extend(value);
        }
    }
}
