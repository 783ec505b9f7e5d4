//! Any other YAML file of people's, read as strictly as a pipeline: every mistake at its place, with the nearest name.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::diagnostics::{Diagnostic, Diagnostics, SourceText, Span};
use crate::environment::Environment;
use crate::tree::Characters;
use crate::validate::validate;
use crate::yaml;

/// Reads a file into a struct whose JSON Schema says what may stand in it. A file of comments alone is an empty mapping.
/// `document` names the whole in messages, such as `the node's config`.
///
/// # Errors
/// Every mistake.
pub fn read_document<T: DeserializeOwned + JsonSchema>(
    document: &'static str,
    file_name: &str,
    text: &str,
    environment: &dyn Environment,
) -> Result<T, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut diagnostics = Diagnostics::new(SourceText::new(file_name, text));
    let is_blank = text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#'));
    let value = if is_blank {
        Value::Object(Map::new())
    } else {
        let characters = Characters::new(text);
        let mut problems = Vec::new();
        let root = yaml::load(text, &characters, environment, &mut problems);
        diagnostics.extend(problems);
        let Some(mut root) = root else { return Err(diagnostics) };
        let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
        let mistakes = validate(document, &schema, &mut root, &characters);
        diagnostics.extend(mistakes.into_iter().map(|mistake| mistake.diagnostic));
        root.to_json()
    };
    if diagnostics.has_errors() {
        return Err(diagnostics);
    }
    serde_json::from_value(value).map_err(|error| {
        diagnostics.push(Diagnostic::error(Span::START, error.to_string()));
        diagnostics
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde::Deserialize;

    use super::*;
    use crate::environment::MemoryEnvironment;
    use crate::units::ByteSize;

    #[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        listen: Vec<String>,
        frame: ByteSize,
        inner: Inner,
    }

    #[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        #[schemars(range(min = 1, max = 9))]
        count: i32,
    }

    fn check(text: &str, expected: Result<Sample, &[&str]>) {
        let environment =
            MemoryEnvironment { vars: [("COUNT".to_owned(), "7".to_owned())].into(), ..Default::default() };
        match (read_document::<Sample>("the sample", "s.yaml", text, &environment), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => {
                let found = found.render(false);
                for text in expected {
                    assert!(found.contains(text), "no `{text}` in:\n{found}");
                }
            }
            (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        check("", Ok(Sample::default()));
        check("# nothing\n\n", Ok(Sample::default()));
        check("inner:\n  count: ${COUNT}\n", Ok(Sample { inner: Inner { count: 7 }, ..Sample::default() }));
        check("frame: 1KiB", Ok(Sample { frame: ByteSize(1024), ..Sample::default() }));
    }

    #[test]
    fn every_mistake_is_told_at_its_place() {
        check("liste: []\ninner: { count: 12 }\n", Err(&["s.yaml:1:1", "`liste`", "`listen`", ":2:", "at most 9"]));
        check("inner: { cuont: 1 }", Err(&["`cuont` in `inner`", "`count`"]));
        check("- 1", Err(&["a mapping for the sample"]));
        check("inner: {", Err(&["s.yaml:1"]));
    }
}
