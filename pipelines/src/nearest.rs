//! The nearest known name to a misspelt one, for hints.

/// The candidate a person most likely meant, if one is near enough to be worth saying. Of two as near, the first by name,
/// so that a hint does not change with the order of a map.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let allowed = (wanted.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != name)
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn typos_are_near_and_other_words_are_not() {
        let keys = ["partitions", "retention", "retention_bytes", "type"];
        for (name, expected) in [
            ("retenton", Some("retention")),
            ("partitons", Some("partitions")),
            ("Partitions", Some("partitions")),
            ("tpye", Some("type")),
            ("colour", None),
            ("x", None),
            ("typo", Some("type")),
        ] {
            assert_eq!(nearest(name, keys), expected, "{name}");
        }
    }
}
