//! `${VAR}`, `${VAR:-default}` and `${file:path}` in the values of a pipeline; `$$` is one dollar sign.
//!
//! It works on a scalar after YAML has read it, so a value can't change the document's structure.

use crate::environment::Environment;
use crate::tree::{Segment, Template};

/// A mistake in an interpolation, and where in the scalar: character index and length.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) at: usize,
    pub(crate) length: usize,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// The interpolated text and what it was made from; `None` if there is nothing to interpolate.
pub(crate) fn interpolate(
    written: &str,
    environment: &dyn Environment,
) -> Result<Option<(String, Template)>, Vec<Problem>> {
    if !written.contains('$') {
        return Ok(None);
    }
    let mut run = Run {
        value: String::new(),
        value_chars: 0,
        segments: Vec::new(),
        secret: false,
        values: Vec::new(),
        changed: false,
    };
    let mut problems = Vec::new();
    let mut rest = written;
    let mut at = 0;
    while let Some(found) = rest.find('$') {
        let (before, after) = rest.split_at(found);
        run.literal(before, at);
        at += before.chars().count();
        let (taken, problem) = run.dollar(after, at, environment);
        problems.extend(problem);
        at += after.get(..taken).map_or(0, |part| part.chars().count());
        rest = after.get(taken..).unwrap_or("");
    }
    run.literal(rest, at);
    if !problems.is_empty() {
        return Err(problems);
    }
    let template =
        Template { written: written.to_owned(), segments: run.segments, secret: run.secret, values: run.values };
    Ok(run.changed.then_some((run.value, template)))
}

/// The text so far.
struct Run {
    value: String,
    value_chars: usize,
    segments: Vec<Segment>,
    secret: bool,
    values: Vec<String>,
    changed: bool,
}

impl Run {
    fn push(&mut self, text: &str, written_start: usize, literal: bool) {
        self.segments.push(Segment { value_start: self.value_chars, written_start, literal });
        self.value.push_str(text);
        self.value_chars += text.chars().count();
    }

    fn literal(&mut self, text: &str, written_start: usize) {
        if !text.is_empty() {
            self.push(text, written_start, true);
        }
    }

    /// Reads what begins with a dollar sign; says how many bytes that is.
    fn dollar(&mut self, text: &str, at: usize, environment: &dyn Environment) -> (usize, Option<Problem>) {
        if text.starts_with("$$") {
            self.changed = true;
            self.push("$", at, false);
            return (2, None);
        }
        let Some(inside) = text.strip_prefix("${") else {
            self.literal("$", at);
            return (1, None);
        };
        self.changed = true;
        let Some(end) = inside.find('}') else {
            let message = "`${` without a closing `}`".to_owned();
            let hint = Some("write `$$` for a dollar sign".to_owned());
            return (text.len(), Some(Problem { at, length: 2, message, hint }));
        };
        let reference = inside.get(..end).unwrap_or("");
        let length = reference.chars().count() + 3;
        let problem = match self.fill(reference, at, environment) {
            Ok(()) => None,
            Err((message, hint)) => Some(Problem { at, length, message, hint }),
        };
        (end + 3, problem)
    }

    fn fill(
        &mut self,
        reference: &str,
        at: usize,
        environment: &dyn Environment,
    ) -> Result<(), (String, Option<String>)> {
        if let Some(path) = reference.strip_prefix("file:") {
            let text =
                environment.read_file(path).map_err(|reason| (format!("can't read file `{path}`: {reason}"), None))?;
            self.secret = true;
            self.values.push(text.clone());
            self.push(&text, at, false);
            return Ok(());
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let legal = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !legal || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            let hint = "write `${NAME}`, `${NAME:-default}` or `${file:path}`, and `$$` for a dollar sign".to_owned();
            return Err((format!("`${{{reference}}}` names no variable"), Some(hint)));
        }
        match (environment.var(name), default) {
            (Some(value), default) if !value.is_empty() || default.is_none() => {
                self.secret = true;
                self.values.push(value.clone());
                self.push(&value, at, false);
            }
            (_, Some(default)) => self.push(default, at, false),
            (_, None) => {
                let hint = format!("set it, or give a default: `${{{name}:-...}}`");
                return Err((format!("variable `{name}` is not set"), Some(hint)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::environment::MemoryEnvironment;
    use proptest::prelude::*;

    fn environment() -> MemoryEnvironment {
        MemoryEnvironment {
            vars: [("A", "alpha"), ("EMPTY", ""), ("DOLLAR", "$$ ${A}")].map(|(k, v)| (k.into(), v.into())).into(),
            files: [("key".to_owned(), "k3y\n".to_owned())].into(),
        }
    }

    #[test]
    fn references_are_filled_once() {
        for (written, value, secret) in [
            ("${A}", "alpha", true),
            ("x${A}y${A}", "xalphayalpha", true),
            ("${B:-beta}", "beta", false),
            ("${EMPTY:-beta}", "beta", false),
            ("${EMPTY}", "", true),
            ("${file:key}", "k3y", true),
            ("$${A}", "${A}", false),
            ("${DOLLAR}", "$$ ${A}", true),
            ("${B:-}", "", false),
        ] {
            let (text, template) = interpolate(written, &environment()).unwrap().unwrap();
            assert_eq!((text.as_str(), template.secret), (value, secret), "{written}");
        }
        assert!(interpolate("costs $5, $x", &environment()).unwrap().is_none());
    }

    #[test]
    fn every_mistake_in_a_scalar_has_its_place() {
        let problems = interpolate("ü${NOPE} ${file:gone} ${a b} ${", &environment()).unwrap_err();
        let seen: Vec<_> = problems.iter().map(|p| (p.at, p.length, p.message.as_str())).collect();
        assert_eq!(
            seen,
            [
                (1, 7, "variable `NOPE` is not set"),
                (9, 12, "can't read file `gone`: no such file"),
                (22, 6, "`${a b}` names no variable"),
                (29, 2, "`${` without a closing `}`"),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[${}:A-]{0,12}|\\PC*") {
            let _ = interpolate(&text, &environment());
        }
    }
}
