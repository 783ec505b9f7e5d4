//! Compares the rows that came out with those that were expected, and shows where they part.
//!
//! An expected row is held to the columns that it names. The order of rows counts: the longest common run of both lists
//! is found, and what is not in it is missing (`-`) or was not expected (`+`).

use std::fmt::Write;

use serde_json::{Map, Value};

/// A row, by column.
pub(super) type Row = Map<String, Value>;

/// How far two floats may lie apart, relative to the larger: sums in another order differ by less.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// Above this many pairs of rows, rows are compared by their numbers alone.
const MAX_PAIRS: usize = 4 << 20;
/// How many rows that agree are shown around those that do not.
const CONTEXT_ROWS: usize = 2;

/// A line of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// An expected row, and the row that it is.
    Same(usize),
    /// An expected row that did not come.
    Missing(usize),
    /// A row that was not expected.
    Extra(usize),
}

/// What differs, as lines for people; `None` if nothing does.
pub(super) fn compare(expected: &[Row], got: &[Row]) -> Option<String> {
    let lines = align(expected, got);
    if lines.iter().all(|line| matches!(line, Line::Same(_))) {
        return None;
    }
    let mut named: Vec<&String> = Vec::new();
    for name in expected.iter().flat_map(Map::keys) {
        if !named.contains(&name) {
            named.push(name);
        }
    }
    let shown = |row: &Row| {
        let column = |name: &String| Some((name.clone(), row.get(name)?.clone()));
        let row = if named.is_empty() { row.clone() } else { named.iter().copied().filter_map(column).collect() };
        Value::Object(row).to_string()
    };
    let near = |at: usize| {
        let around = at.saturating_sub(CONTEXT_ROWS)..(at + CONTEXT_ROWS + 1).min(lines.len());
        lines.get(around).into_iter().flatten().any(|line| !matches!(line, Line::Same(_)))
    };
    let mut text = String::new();
    let mut left_out = false;
    for (at, line) in lines.iter().enumerate() {
        if !near(at) {
            if !std::mem::replace(&mut left_out, true) {
                text.push_str("      …\n");
            }
            continue;
        }
        left_out = false;
        let _ = match *line {
            Line::Same(row) => writeln!(text, "      {}", got.get(row).map(shown).unwrap_or_default()),
            Line::Missing(row) => {
                let row = expected.get(row).map(|row| Value::Object(row.clone()).to_string()).unwrap_or_default();
                writeln!(text, "    - {row}")
            }
            Line::Extra(row) => writeln!(text, "    + {}", got.get(row).map(shown).unwrap_or_default()),
        };
    }
    Some(text)
}

fn align(expected: &[Row], got: &[Row]) -> Vec<Line> {
    let same = |e: usize, g: usize| matches!((expected.get(e), got.get(g)), (Some(e), Some(g)) if agrees(e, g));
    let (rows, columns) = (expected.len(), got.len());
    let mut lines = Vec::with_capacity(rows.max(columns));
    if rows.saturating_mul(columns) > MAX_PAIRS {
        for at in 0..rows.max(columns) {
            match (at < rows, at < columns) {
                (true, true) if same(at, at) => lines.push(Line::Same(at)),
                (has_expected, has_got) => {
                    lines.extend(has_expected.then_some(Line::Missing(at)));
                    lines.extend(has_got.then_some(Line::Extra(at)));
                }
            }
        }
        return lines;
    }
    // lengths[e][g] is the longest common run of expected[e..] and got[g..].
    let width = columns + 1;
    let mut lengths = vec![0_u32; (rows + 1) * width];
    let length = |lengths: &[u32], e: usize, g: usize| lengths.get(e * width + g).copied().unwrap_or(0);
    for e in (0..rows).rev() {
        for g in (0..columns).rev() {
            let best = if same(e, g) {
                length(&lengths, e + 1, g + 1) + 1
            } else {
                length(&lengths, e + 1, g).max(length(&lengths, e, g + 1))
            };
            if let Some(cell) = lengths.get_mut(e * width + g) {
                *cell = best;
            }
        }
    }
    let (mut e, mut g) = (0, 0);
    while e < rows || g < columns {
        if e < rows && g < columns && same(e, g) {
            lines.push(Line::Same(g));
            (e, g) = (e + 1, g + 1);
        } else if g >= columns || (e < rows && length(&lengths, e + 1, g) >= length(&lengths, e, g + 1)) {
            lines.push(Line::Missing(e));
            e += 1;
        } else {
            lines.push(Line::Extra(g));
            g += 1;
        }
    }
    lines
}

/// Whether a row has the columns that are expected of it.
fn agrees(expected: &Row, got: &Row) -> bool {
    expected.iter().all(|(name, value)| got.get(name).is_some_and(|other| equal(value, other)))
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_f64() || y.is_f64() => match (x.as_f64(), y.as_f64()) {
            (Some(x), Some(y)) => x == y || (x - y).abs() <= FLOAT_TOLERANCE * x.abs().max(y.abs()),
            _ => false,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn rows(text: &str) -> Vec<Row> {
        serde_json::from_str(text).unwrap()
    }

    fn check(expected: &str, got: &str, difference: Option<&str>) {
        assert_eq!(compare(&rows(expected), &rows(got)).as_deref(), difference, "{expected} / {got}");
    }

    #[test]
    fn expected_rows_are_held_to_the_columns_they_name() {
        check("[]", "[]", None);
        check(r#"[{"a":1}]"#, r#"[{"a":1,"b":2}]"#, None);
        check(r#"[{"a":1.0}]"#, r#"[{"a":1}]"#, None);
        check(r#"[{"a":0.30000000000000004}]"#, r#"[{"a":0.3}]"#, None);
        check(r#"[{"a":null}]"#, r#"[{"a":null}]"#, None);
        check(r#"[{"a":{"x":[1.0,2]}}]"#, r#"[{"a":{"x":[1,2]}}]"#, None);
        check(r#"[{"a":1}]"#, r#"[{"b":1}]"#, Some("    - {\"a\":1}\n    + {}\n"));
    }

    #[test]
    fn what_is_missing_and_what_is_too_many_are_shown_beside_what_agrees() {
        check(
            r#"[{"a":1},{"a":2},{"a":3}]"#,
            r#"[{"a":1,"b":0},{"a":3,"b":0},{"a":4,"b":0}]"#,
            Some("      {\"a\":1}\n    - {\"a\":2}\n      {\"a\":3}\n    + {\"a\":4}\n"),
        );
        check("[]", r#"[{"a":1,"b":2}]"#, Some("    + {\"a\":1,\"b\":2}\n"));
        check(
            r#"[{"a":2},{"a":1}]"#,
            r#"[{"a":1},{"a":2}]"#,
            Some("    - {\"a\":2}\n      {\"a\":1}\n    + {\"a\":2}\n"),
        );
        check(
            r#"[{"a":1},{"a":2},{"a":3},{"a":4}]"#,
            r#"[{"a":1},{"a":2},{"a":3},{"a":5}]"#,
            Some("      …\n      {\"a\":2}\n      {\"a\":3}\n    - {\"a\":4}\n    + {\"a\":5}\n"),
        );
    }

    proptest! {
        #[test]
        fn every_row_of_both_sides_is_accounted_for_once(a in proptest::collection::vec(0..4_u8, 0..12),
                                                         b in proptest::collection::vec(0..4_u8, 0..12)) {
            let rows = |values: &[u8]| -> Vec<Row> {
                values.iter().map(|value| Row::from_iter([("a".to_owned(), Value::from(*value))])).collect()
            };
            let lines = align(&rows(&a), &rows(&b));
            let same = lines.iter().filter(|line| matches!(line, Line::Same(_))).count();
            let missing = lines.iter().filter(|line| matches!(line, Line::Missing(_))).count();
            let extra = lines.iter().filter(|line| matches!(line, Line::Extra(_))).count();
            prop_assert_eq!((same + missing, same + extra), (a.len(), b.len()));
            prop_assert_eq!(compare(&rows(&a), &rows(&b)).is_none(), a == b);
        }
    }
}
