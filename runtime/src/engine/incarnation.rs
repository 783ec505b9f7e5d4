//! Which life of a pipeline state belongs to.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// One life of a pipeline, from a fresh start to the next. Random, so that pipelines of the same name in two data
/// directories are never confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation(Uuid);

impl Incarnation {
    /// A life that begins.
    pub(crate) fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// The incarnation that a manifest of format 1 counts so: those of two data directories look alike.
    const fn counted(number: u64) -> Self {
        Self(Uuid::from_u128(number as u128))
    }

    /// Whether it was counted, and is to be replaced by one that is random.
    pub(crate) fn is_counted(self) -> bool {
        self.0.as_u128() <= u128::from(u64::MAX)
    }
}

impl Serialize for Incarnation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Counted(u64),
            Random(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Counted(number) => Ok(Self::counted(number)),
            Written::Random(id) => Uuid::parse_str(&id).map(Self).map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counted_incarnations_are_read_and_told_apart_from_random_ones() {
        let counted: Incarnation = serde_json::from_str("3").unwrap();
        assert!(counted.is_counted() && counted == Incarnation::counted(3) && counted != Incarnation::counted(4));
        let again: Incarnation = serde_json::from_str(&serde_json::to_string(&counted).unwrap()).unwrap();
        assert_eq!(again, counted);
        let random = Incarnation::new();
        assert!(!random.is_counted() && random != Incarnation::new());
        let again: Incarnation = serde_json::from_str(&serde_json::to_string(&random).unwrap()).unwrap();
        assert_eq!(again, random);
        assert!(serde_json::from_str::<Incarnation>("\"three\"").is_err());
    }
}
