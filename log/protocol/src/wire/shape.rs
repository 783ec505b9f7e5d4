//! Descriptions of messages as constants, and the walk that holds bytes against them.

use crate::wire::WireError;
use crate::wire::reader::Reader;

/// A message: its versions, and what lies in them.
#[derive(Debug)]
pub(super) struct Message {
    /// The first version described.
    pub(super) min: i16,
    /// The last version described.
    pub(super) max: i16,
    /// The first version with compact lengths and tagged fields (KIP-482).
    flexible_since: i16,
    pub(super) shape: &'static Shape,
}

/// A structure's fields in the order of the wire.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) fields: &'static [Field],
    /// The tagged fields that are known, with their tags.
    pub(super) tagged: &'static [(u32, Field)],
}

/// A field and the versions that have it.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    since: i16,
    until: i16,
    nullable_since: i16,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Kind {
    /// A byte; any but 0 is true.
    Bool,
    /// So many bytes.
    Fixed(usize),
    String,
    Bytes,
    /// An array of numbers of so many bytes.
    FixedArray(usize),
    StringArray,
    Array(&'static Shape),
    Struct(&'static Shape),
    /// A byte, 1 before a structure and -1 for none.
    Optional(&'static Shape),
}

impl Message {
    pub(super) const fn new(min: i16, max: i16, shape: &'static Shape) -> Self {
        Self { min, max, flexible_since: i16::MAX, shape }
    }

    pub(super) const fn flexible_since(self, flexible_since: i16) -> Self {
        Self { flexible_since, ..self }
    }

    pub(super) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_since
    }

    /// Holds the reader's next bytes against this message. They may go on after it.
    pub(super) fn walk(&self, version: i16, reader: &mut Reader<'_>) -> Result<(), WireError> {
        Walk { version, flexible: self.is_flexible(version), reader }.shape(self.shape)
    }
}

impl Shape {
    pub(super) const fn new(fields: &'static [Field]) -> Self {
        Self { fields, tagged: &[] }
    }

    pub(super) const fn tagged(self, tagged: &'static [(u32, Field)]) -> Self {
        Self { tagged, ..self }
    }
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, since: 0, until: i16::MAX, nullable_since: i16::MAX }
    }

    /// First version with this field.
    pub(super) const fn since(mut self, since: i16) -> Self {
        self.since = since;
        self
    }

    /// Last version with this field.
    pub(super) const fn until(mut self, until: i16) -> Self {
        self.until = until;
        self
    }

    pub(super) const fn nullable(self) -> Self {
        self.nullable_since(0)
    }

    pub(super) const fn nullable_since(mut self, nullable_since: i16) -> Self {
        self.nullable_since = nullable_since;
        self
    }

    pub(super) fn is_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }

    pub(super) fn is_nullable(&self, version: i16) -> bool {
        version >= self.nullable_since
    }
}

pub(super) const fn boolean(name: &'static str) -> Field {
    Field::new(name, Kind::Bool)
}

pub(super) const fn int8(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(1))
}

pub(super) const fn int16(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(2))
}

pub(super) const fn int32(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(4))
}

pub(super) const fn int64(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(8))
}

pub(super) const fn uuid(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(16))
}

pub(super) const fn string(name: &'static str) -> Field {
    Field::new(name, Kind::String)
}

pub(super) const fn bytes(name: &'static str) -> Field {
    Field::new(name, Kind::Bytes)
}

pub(super) const fn int32s(name: &'static str) -> Field {
    Field::new(name, Kind::FixedArray(4))
}

pub(super) const fn strings(name: &'static str) -> Field {
    Field::new(name, Kind::StringArray)
}

pub(super) const fn array(name: &'static str, of: &'static Shape) -> Field {
    Field::new(name, Kind::Array(of))
}

pub(super) const fn structure(name: &'static str, of: &'static Shape) -> Field {
    Field::new(name, Kind::Struct(of))
}

pub(super) const fn optional(name: &'static str, of: &'static Shape) -> Field {
    Field::new(name, Kind::Optional(of))
}

/// A walk over one message. It goes as deep as the constants are nested, whatever the bytes say.
struct Walk<'r, 'a> {
    version: i16,
    flexible: bool,
    reader: &'r mut Reader<'a>,
}

impl Walk<'_, '_> {
    fn shape(&mut self, shape: &Shape) -> Result<(), WireError> {
        for field in shape.fields {
            if field.is_in(self.version) {
                self.field(field)?;
            }
        }
        if self.flexible { self.tags(shape.tagged) } else { Ok(()) }
    }

    #[inline]
    fn field(&mut self, field: &Field) -> Result<(), WireError> {
        let (at, name, flexible) = (self.reader.at(), field.name, self.flexible);
        let is_there = match field.kind {
            Kind::Bool => return self.reader.take(name, 1).map(drop),
            Kind::Fixed(len) => return self.reader.take(name, len).map(drop),
            Kind::Struct(of) => return self.shape(of),
            Kind::Optional(of) => return self.optional(name, of),
            Kind::String => self.reader.string(name, flexible)?.is_some(),
            Kind::Bytes => self.reader.bytes(name, flexible)?.is_some(),
            Kind::FixedArray(len) => {
                self.elements(name, len, |walk, count| walk.reader.take(name, count.saturating_mul(len)).map(drop))?
            }
            Kind::StringArray => {
                self.elements(name, if flexible { 1 } else { 2 }, |walk, count| walk.strings(name, count))?
            }
            Kind::Array(of) => self.elements(name, 1, |walk, count| (0..count).try_for_each(|_| walk.shape(of)))?,
        };
        if is_there || field.is_nullable(self.version) { Ok(()) } else { Err(WireError::Null { field: name, at }) }
    }

    /// An array of elements that take `min_bytes` or more each; whether it is there.
    #[inline]
    fn elements(
        &mut self,
        name: &'static str,
        min_bytes: usize,
        walk: impl FnOnce(&mut Self, usize) -> Result<(), WireError>,
    ) -> Result<bool, WireError> {
        let Some(count) = self.reader.count(name, self.flexible, min_bytes)? else { return Ok(false) };
        walk(self, count).map(|()| true)
    }

    fn strings(&mut self, name: &'static str, count: usize) -> Result<(), WireError> {
        for _ in 0..count {
            let at = self.reader.at();
            if self.reader.string(name, self.flexible)?.is_none() {
                return Err(WireError::Null { field: name, at });
            }
        }
        Ok(())
    }

    fn optional(&mut self, name: &'static str, of: &Shape) -> Result<(), WireError> {
        let at = self.reader.at();
        match self.reader.take(name, 1)? {
            [1] => self.shape(of),
            [0xff] => Ok(()),
            _ => Err(WireError::Presence { field: name, at }),
        }
    }

    #[inline]
    fn tags(&mut self, known: &[(u32, Field)]) -> Result<(), WireError> {
        match self.reader.tag_count()? {
            0 => Ok(()),
            count => self.tagged(count, known),
        }
    }

    fn tagged(&mut self, count: usize, known: &[(u32, Field)]) -> Result<(), WireError> {
        let mut before = None;
        for _ in 0..count {
            let at = self.reader.at();
            let (tag, size) = self.reader.tag(&mut before)?;
            let Some((_, field)) = known.iter().find(|(known, _)| *known == tag) else {
                self.reader.take("tagged fields", size)?;
                continue;
            };
            if !field.is_in(self.version) {
                return Err(WireError::TagVersion { tag, at });
            }
            let begin = self.reader.at();
            self.field(field)?;
            let used = self.reader.at() - begin;
            if used != size {
                return Err(WireError::TagSize { tag, at, size, used });
            }
        }
        Ok(())
    }
}
