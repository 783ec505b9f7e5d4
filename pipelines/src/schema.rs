//! The JSON Schema of a whole pipeline: that of the spec's structs, with the catalog's connectors and formats put in.
//!
//! Each connector becomes one closed object (the keys every source has, and its own), chosen by `type` through `if` and
//! `then`. Editors complete from it, and our validator follows it, so both know the same keys.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::catalog::{Catalog, ConnectorKind, FormatKind, Role};
use crate::spec::PipelineSpec;

/// The JSON Schema (draft 2020-12) of a pipeline's YAML, for editors.
pub fn json_schema(catalog: &Catalog) -> Value {
    catalog.schema().clone()
}

/// The name of the definition of a role's entries.
const fn definition(role: Role) -> &'static str {
    match role {
        Role::Source => "SourceSpec",
        Role::Table => "TableSpec",
        Role::Sink => "SinkSpec",
    }
}

/// Keys that only a connector with formats has.
const FORMAT_KEYS: [&str; 3] = ["format", "schema", "unknown"];

pub(crate) fn compose(catalog: &Catalog) -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut root = generator.into_root_schema_for::<PipelineSpec>().to_value();
    if let Some(root) = root.as_object_mut() {
        root.insert("title".to_owned(), json!("Logmill pipeline"));
    }
    let mut definitions = match root.get_mut("$defs").map(Value::take) {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    definitions.shift_remove("Format");
    for role in Role::ALL {
        let common = definitions.get(definition(role)).cloned().unwrap_or_default();
        for kind in catalog.connectors(role) {
            let name = format!("{role}_{}", kind.name);
            let connector = connector(kind, &common, catalog, &name, &mut definitions);
            definitions.insert(name, connector);
        }
        definitions.insert(definition(role).to_owned(), choice(role, &common, catalog));
    }
    for format in catalog.formats() {
        let name = format!("format_{}", format.name);
        let schema = format_options(format, &name, &mut definitions);
        definitions.insert(name, schema);
    }
    if let Some(root) = root.as_object_mut() {
        root.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

/// What may stand under `sources`, `tables` or `sinks`: one of the connectors, by its `type`.
fn choice(role: Role, common: &Value, catalog: &Catalog) -> Value {
    let kinds = || catalog.connectors(role);
    let mut branches: Vec<Value> = kinds().map(|kind| by_type(kind.name, &format!("{role}_{}", kind.name))).collect();
    // Without a type, the keys that every connector has can still be checked.
    let mut shared = common.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    ["type", "format"].iter().for_each(|key| drop(shared.shift_remove(*key)));
    let names: Vec<&str> = kinds().map(|kind| kind.name).collect();
    branches.push(json!({
        "if": { "properties": { "type": { "enum": names } }, "required": ["type"] },
        "else": { "properties": shared },
    }));
    json!({
        "description": common.get("description"),
        "type": "object",
        "properties": { "type": type_key(&format!("{role} type"), kinds().map(|kind| (kind.name, kind.summary))) },
        "required": ["type"],
        "allOf": branches,
    })
}

/// The key `type` with its alternatives.
fn type_key(title: &str, kinds: impl Iterator<Item = (&'static str, &'static str)>) -> Value {
    let (names, lines): (Vec<_>, Vec<_>) = kinds.map(|(name, line)| (name, format!("`{name}`: {line}"))).unzip();
    json!({ "title": title, "description": lines.join("\n"), "type": "string", "enum": names })
}

/// If `type` is this, the definition holds.
fn by_type(name: &str, definition: &str) -> Value {
    json!({
        "if": { "properties": { "type": { "const": name } }, "required": ["type"] },
        "then": { "$ref": format!("#/$defs/{definition}") },
    })
}

fn connector(
    kind: &ConnectorKind,
    common: &Value,
    catalog: &Catalog,
    name: &str,
    definitions: &mut Map<String, Value>,
) -> Value {
    let mut properties = common.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    properties.insert("type".to_owned(), json!({ "const": kind.name, "description": kind.summary }));
    if kind.formats.is_empty() {
        FORMAT_KEYS.iter().for_each(|key| drop(properties.shift_remove(*key)));
    } else {
        let description = properties.get("format").and_then(|format| format.get("description")).cloned();
        properties.insert("format".to_owned(), format_key(kind, description, catalog));
    }
    let mut required = strings(common.get("required"));
    if kind.needs_through {
        required.push("through".to_owned());
    }
    let own = own_keys((kind.schema)(), name, definitions);
    required.extend(strings(own.get("required")));
    properties.extend(own.get("properties").and_then(Value::as_object).cloned().unwrap_or_default());
    json!({
        "description": kind.summary,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// A connector's `format`: the name of one of its formats, or a mapping of `type` and options.
fn format_key(kind: &ConnectorKind, description: Option<Value>, catalog: &Catalog) -> Value {
    let branches: Vec<Value> = kind
        .formats
        .iter()
        .map(|name| match catalog.formats().iter().find(|format| format.name == *name) {
            Some(_) => by_type(name, &format!("format_{name}")),
            None => json!({
                "if": { "properties": { "type": { "const": name } }, "required": ["type"] },
                "then": { "properties": { "type": true }, "additionalProperties": false },
            }),
        })
        .collect();
    let names = json!({ "title": "format", "type": "string", "enum": kind.formats });
    json!({
        "description": description,
        "anyOf": [
            names,
            { "type": "object", "properties": { "type": names }, "required": ["type"], "allOf": branches },
        ],
    })
}

fn format_options(format: &FormatKind, name: &str, definitions: &mut Map<String, Value>) -> Value {
    let own = own_keys((format.schema)(), name, definitions);
    let mut properties = Map::from_iter([("type".to_owned(), json!({ "const": format.name }))]);
    properties.extend(own.get("properties").and_then(Value::as_object).cloned().unwrap_or_default());
    let mut required = vec!["type".to_owned()];
    required.extend(strings(own.get("required")));
    json!({
        "description": format.summary,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The schema of a configuration, with its definitions moved into the pipeline's under names of their own.
fn own_keys(schema: Schema, prefix: &str, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = schema.to_value();
    let nested = schema.get_mut("$defs").map(Value::take);
    rename(&mut schema, prefix);
    if let Some(Value::Object(nested)) = nested {
        for (name, mut nested) in nested {
            rename(&mut nested, prefix);
            definitions.insert(format!("{prefix}_{name}"), nested);
        }
    }
    schema
}

/// Lets every reference lead to the renamed definition.
fn rename(schema: &mut Value, prefix: &str) {
    match schema {
        Value::Object(keys) => {
            for (key, value) in keys.iter_mut() {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(name) = target.strip_prefix("#/$defs/") {
                            *target = format!("#/$defs/{prefix}_{name}");
                        }
                    }
                    other => rename(other, prefix),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, prefix)),
        _ => {}
    }
}

/// Every keyword that the validator follows, or that is for editors only.
const KEYWORDS: [&str; 36] = [
    "$comment",
    "$defs",
    "$ref",
    "$schema",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "default",
    "deprecated",
    "description",
    "else",
    "enum",
    "errorMessage",
    "examples",
    "exclusiveMinimum",
    "format",
    "if",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "oneOf",
    "pattern",
    "prefixItems",
    "properties",
    "propertyNames",
    "required",
    "then",
    "title",
    "type",
    "writeOnly",
];

/// What of the catalog's schemas the validator would not follow.
pub(crate) fn problems(catalog: &Catalog) -> Vec<String> {
    let mut found = Vec::new();
    let plain = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<PipelineSpec>().to_value();
    for role in Role::ALL {
        let common = plain.pointer(&format!("/$defs/{}/properties", definition(role)));
        for kind in catalog.connectors(role) {
            let own = (kind.schema)().to_value();
            for key in own.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
                if common.is_some_and(|common| common.get(key).is_some()) {
                    found.push(format!(
                        "the {role} `{}` has a key `{key}` of its own, but every {role} has one",
                        kind.name
                    ));
                }
            }
        }
    }
    let schema = catalog.schema();
    not_followed(schema, schema, &mut found);
    found
}

fn not_followed(schema: &Value, root: &Value, found: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else { return };
    for (key, value) in keywords {
        if !KEYWORDS.contains(&key.as_str()) {
            found.push(format!("keyword `{key}` is not checked"));
        }
        match (key.as_str(), value) {
            ("$ref", Value::String(target))
                if target.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).is_none() =>
            {
                found.push(format!("`{target}` is not defined"));
            }
            ("properties" | "$defs", Value::Object(nested)) => {
                nested.values().for_each(|nested| not_followed(nested, root, found));
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(nested)) => {
                nested.iter().for_each(|nested| not_followed(nested, root, found));
            }
            ("if" | "then" | "else" | "items" | "additionalProperties" | "propertyNames", nested) => {
                not_followed(nested, root, found);
            }
            _ => {}
        }
    }
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
