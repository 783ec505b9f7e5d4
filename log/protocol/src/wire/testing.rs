//! Requests made up at random from the descriptions, for tests: valid ones, of every API and version.

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
    request(api, version).map_or_else(Vec::new, |message| write(message, version, random))
}

/// A frame with such a request and a random header before it, without the frame's size.
#[must_use]
pub fn random_frame(api: ApiKey, version: i16, random: &mut Rng) -> Vec<u8> {
    let header_version = api.request_header_version(version);
    let mut frame = Writer { out: Vec::new(), version, flexible: false, plain: false, random };
    frame.out.extend_from_slice(&(api as i16).to_be_bytes());
    frame.out.extend_from_slice(&version.to_be_bytes());
    frame.fixed(4);
    frame.string(true);
    if header_version >= 2 {
        frame.tags(&[]);
    }
    let mut frame = frame.out;
    frame.extend(random_request(api, version, random));
    frame
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
    [version.to_be_bytes().to_vec(), write(message, version, random)].concat()
}

fn write(message: &Message, version: i16, random: &mut Rng) -> Vec<u8> {
    let flexible = message.is_flexible(version);
    let mut writer = Writer { out: Vec::new(), version, flexible, plain: false, random };
    writer.shape(message.shape);
    writer.out
}

/// Names that tests make topics and groups of, and others.
const NAMES: [&str; 8] = ["flights", "late-flights", "", "g", "größe", "__consumer_offsets", "segment.bytes", "a/b"];

struct Writer<'r> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    /// Neither null nor a default: an encoder omits tagged fields that hold theirs.
    plain: bool,
    random: &'r mut Rng,
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
        let null = field.is_nullable(self.version) && !self.plain && self.random.u8(..4) == 0;
        match field.kind {
            Kind::Bool => self.out.push(self.random.u8(..2)),
            Kind::Fixed(len) => self.fixed(len),
            Kind::String => self.string(null),
            Kind::Bytes if null => self.length(None, 4),
            Kind::Bytes => {
                let bytes: Vec<u8> = (0..self.random.usize(..100)).map(|_| self.random.u8(..)).collect();
                self.length(Some(bytes.len()), 4);
                self.out.extend(bytes);
            }
            Kind::FixedArray(_) | Kind::StringArray | Kind::Array(_) if null => self.length(None, 4),
            Kind::FixedArray(len) => self.elements(|writer| writer.fixed(len)),
            Kind::StringArray => self.elements(|writer| writer.string(false)),
            Kind::Array(of) => self.elements(|writer| writer.shape(of)),
            Kind::Struct(of) => self.shape(of),
            Kind::Optional(_) if self.random.bool() => self.out.push(0xff),
            Kind::Optional(of) => {
                self.out.push(1);
                self.shape(of);
            }
        }
    }

    fn elements(&mut self, mut element: impl FnMut(&mut Self)) {
        let count = self.random.usize(..4);
        self.length(Some(count), 4);
        for _ in 0..count {
            element(self);
        }
    }

    /// A number of so many bytes: anything, or one of those that are often special.
    fn fixed(&mut self, len: usize) {
        let filler = match self.random.u8(..8) {
            _ if self.plain => None,
            0 => Some(0xff),
            1..=4 => Some(0),
            _ => None,
        };
        let begin = self.out.len();
        for _ in 0..len {
            let byte = self.random.u8(1..0x7f);
            self.out.push(filler.unwrap_or(byte));
        }
        if filler == Some(0)
            && let Some(last) = self.out.get_mut(begin..).and_then(<[u8]>::last_mut)
        {
            *last = self.random.u8(..4);
        }
    }

    fn string(&mut self, nullable: bool) {
        if nullable && self.random.u8(..4) == 0 {
            return self.length(None, 2);
        }
        let name = self.random.choice(NAMES).unwrap_or_default();
        let name = if self.random.u8(..20) == 0 { name.repeat(40) } else { name.to_owned() };
        self.length(Some(name.len()), 2);
        self.out.extend_from_slice(name.as_bytes());
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
            if self.random.bool() {
                let mut value = Writer { out: Vec::new(), plain: true, random: self.random, ..*self };
                value.field(field);
                tagged.push((*tag as usize, value.out));
            }
        }
        let mut tag = 100;
        while self.random.u8(..8) == 0 {
            tag += self.random.usize(1..200);
            tagged.push((tag, vec![7; self.random.usize(..200)]));
        }
        self.varint(tagged.len());
        for (tag, value) in tagged {
            self.varint(tag);
            self.varint(value.len());
            self.out.extend(value);
        }
    }
}
