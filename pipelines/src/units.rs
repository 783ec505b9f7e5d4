//! Values with units as people write them: `200ms`, `7d`, `64MiB`. One spelling for every key of every connector.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Why a text is not a value with a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("expected a duration such as 200ms, 10s, 5m, 12h or 7d")]
    Duration,
    /// Not a number of bytes.
    #[error("expected a number of bytes such as 64MiB, 1GB or 4096")]
    Bytes,
    /// More than can be counted.
    #[error("the value is too large")]
    TooLarge,
}

/// A span of time, written as `200ms`, `10s`, `5m`, `12h`, `7d`, `2w`, or several of them as in `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationSpec(pub Duration);

/// Units of time, longest first, in microseconds.
const TIME_UNITS: [(&str, u64); 7] = [
    ("w", 604_800_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

impl DurationSpec {
    /// This many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// This many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The span in whole milliseconds, rounded down.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl From<DurationSpec> for Duration {
    fn from(value: DurationSpec) -> Self {
        value.0
    }
}

impl FromStr for DurationSpec {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(UnitError::Duration);
        }
        let mut micros: u64 = 0;
        while !rest.is_empty() {
            let (number, after) = split_number(rest).ok_or(UnitError::Duration)?;
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let (_, scale) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Duration)?;
            let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
            let part = number.checked_mul(*scale).ok_or(UnitError::TooLarge)?;
            micros = micros.checked_add(part).ok_or(UnitError::TooLarge)?;
            rest = after;
        }
        Ok(Self(Duration::from_micros(micros)))
    }
}

impl fmt::Display for DurationSpec {
    /// The longest unit that says it exactly; microseconds at the finest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in TIME_UNITS {
            if micros.is_multiple_of(scale) {
                return write!(f, "{}{unit}", micros / scale);
            }
        }
        Ok(())
    }
}

/// A number of bytes, written as `4096`, `64KiB`, `128MiB`, `1GiB` (powers of 1024) or `1kB`, `10MB`, `1GB` (of 1000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Units of size, those of powers of 1024 first, largest first.
const SIZE_UNITS: [(&str, u64); 11] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

impl ByteSize {
    /// This many MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text.trim()).ok_or(UnitError::Bytes)?;
        let (_, scale) = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim_start()).ok_or(UnitError::Bytes)?;
        let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
        number.checked_mul(*scale).map(Self).ok_or(UnitError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that says it exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS.iter().find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale));
        match exact {
            Some((unit, scale)) if *scale > 1 => write!(f, "{}{unit}", self.0 / scale),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// Splits `10s` into `10` and `s`; `None` if the text doesn't begin with a digit.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

impl JsonSchema for DurationSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(us|ms|s|m|h|d|w))+$",
            "errorMessage": UnitError::Duration.to_string(),
            "examples": ["200ms", "10s", "5m", "12h", "7d"],
        })
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "minimum": 0,
            "pattern": "^[0-9]+ *(B|[kK]B|[MGT]B|[KMGT]iB)?$",
            "errorMessage": UnitError::Bytes.to_string(),
            "examples": ["64MiB", "1GB", 4096],
        })
    }
}

/// Reads a value with a unit from a string, or a plain number where that is allowed.
struct UnitVisitor<T>(std::marker::PhantomData<T>, UnitError);

impl<T: FromStr<Err = UnitError>> Visitor<'_> for UnitVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.1.to_string();
        f.write_str(message.strip_prefix("expected ").unwrap_or(&message))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for DurationSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(UnitVisitor(std::marker::PhantomData, UnitError::Duration))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnitVisitor(std::marker::PhantomData, UnitError::Bytes))
    }
}

impl Serialize for DurationSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How long a topic keeps its records: a duration, or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Records older than this may be deleted.
    For(DurationSpec),
    /// Nothing is deleted by age.
    Forever,
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(duration) => duration.fmt(f),
            Self::Forever => f.write_str("forever"),
        }
    }
}

impl<'de> Deserialize<'de> for Retention {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "forever" {
            return Ok(Self::Forever);
        }
        text.parse().map(Self::For).map_err(|err: UnitError| D::Error::custom(format!("{err}, or forever")))
    }
}

impl Serialize for Retention {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Retention {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Retention".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(forever|([0-9]+(us|ms|s|m|h|d|w))+)$",
            "errorMessage": format!("{}, or forever", UnitError::Duration),
            "examples": ["7d", "forever"],
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_and_printed_in_the_longest_exact_unit() {
        for (text, printed) in
            [("200ms", "200ms"), ("1000ms", "1s"), ("90s", "90s"), ("1h30m", "90m"), ("7d", "1w"), ("0s", "0s")]
        {
            assert_eq!(text.parse::<DurationSpec>().unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "10", "s", "10 s", "-1s", "1.5s", "10seconds", "1h30", "99999999999999999999s"] {
            assert!(text.parse::<DurationSpec>().is_err(), "{text}");
        }
        assert_eq!("99999999999999w".parse::<DurationSpec>(), Err(UnitError::TooLarge));
    }

    #[test]
    fn sizes_are_read_and_printed_in_the_largest_exact_unit() {
        for (text, bytes, printed) in [
            ("64MiB", 64 << 20, "64MiB"),
            ("1GB", 1_000_000_000, "1GB"),
            ("4096", 4096, "4KiB"),
            ("10 kB", 10_000, "10kB"),
            ("1B", 1, "1"),
            ("0", 0, "0"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed), "{text}");
        }
        for text in ["", "MiB", "1XB", "-1", "1.5GB", "99999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printing_loses_nothing(micros in 0u64..u64::MAX / 2, bytes: u64) {
            let duration = DurationSpec(Duration::from_micros(micros));
            prop_assert_eq!(duration.to_string().parse::<DurationSpec>().unwrap(), duration);
            prop_assert_eq!(ByteSize(bytes).to_string().parse::<ByteSize>().unwrap(), ByteSize(bytes));
        }

        #[test]
        fn any_text_is_answered(text: String) {
            let _ = text.parse::<DurationSpec>();
            let _ = text.parse::<ByteSize>();
        }
    }
}
