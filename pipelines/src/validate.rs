//! Holds a tree to a JSON Schema and says every mistake at its place: the same schema that editors complete from.
//!
//! It knows the keywords that our schemas use; `errorMessage` (as editors know it) says in words what a value must be,
//! and the `title` of an enumeration what its values are.

use std::collections::{BTreeSet, HashMap};

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::column::ColumnType;
use crate::diagnostics::Diagnostic;
use crate::nearest::nearest;
use crate::tree::{Characters, Content, Entry, Node, Place, Style, resolve_plain};

/// How many alternatives a hint lists.
const MAX_LISTED: usize = 24;
/// The longest chain of `$ref`s and alternatives, in case a schema refers to itself.
const MAX_SCHEMA_DEPTH: usize = 32;

/// A mistake and the path of the value it is about.
pub(crate) struct Mistake {
    pub(crate) path: Vec<String>,
    pub(crate) diagnostic: Diagnostic,
}

/// Checks a document, and gives interpolated scalars the type that is wanted where they stand. `document` says what the
/// whole of it is.
pub(crate) fn validate(document: &'static str, root: &Value, node: &mut Node, characters: &Characters) -> Vec<Mistake> {
    let mut validator = Validator {
        document,
        root,
        characters,
        mistakes: Vec::new(),
        path: Vec::new(),
        holders: Vec::new(),
        patterns: HashMap::new(),
    };
    validator.check(root, node, 0);
    validator.mistakes
}

struct Validator<'a> {
    document: &'static str,
    root: &'a Value,
    characters: &'a Characters,
    mistakes: Vec<Mistake>,
    /// The keys that lead to the value that is being checked.
    path: Vec<String>,
    /// The places of those keys.
    holders: Vec<Place>,
    patterns: HashMap<&'a str, Option<Regex>>,
}

impl<'a> Validator<'a> {
    fn check(&mut self, schema: &'a Value, node: &mut Node, depth: usize) {
        let Some(keywords) = schema.as_object() else { return };
        if matches!(node.content, Content::Broken) || depth > MAX_SCHEMA_DEPTH {
            return;
        }
        if let Some(target) = self.target(keywords) {
            return self.check(target, node, depth + 1);
        }
        self.coerce(schema, node, depth);
        if keywords.get("format").and_then(Value::as_str) == Some("column-type") {
            return self.check_column_type(node);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = keywords.get(key).and_then(Value::as_array) {
                self.check_alternatives(branches, node, depth);
            }
        }
        let types = own_types(schema);
        if !types.is_empty() && !kinds(node).iter().any(|kind| types.contains(kind)) {
            return self.wrong_type(keywords, &types, node);
        }
        match &node.content {
            Content::Map(_) => self.check_map(keywords, node, depth),
            Content::List(_) => self.check_list(keywords, node, depth),
            _ => self.check_scalar(keywords, node),
        }
        for branch in keywords.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.check(branch, node, depth + 1);
        }
        if let Some(condition) = keywords.get("if") {
            let branch = if self.matches(condition, node, depth) { "then" } else { "else" };
            if let Some(branch) = keywords.get(branch) {
                self.check(branch, node, depth + 1);
            }
        }
    }

    fn target(&self, keywords: &Map<String, Value>) -> Option<&'a Value> {
        let pointer = keywords.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(pointer)
    }

    /// Whether a value fits, without saying why not.
    fn matches(&mut self, schema: &'a Value, node: &Node, depth: usize) -> bool {
        let known = self.mistakes.len();
        self.check(schema, &mut node.clone(), depth + 1);
        let fits = self.mistakes.len() == known;
        self.mistakes.truncate(known);
        fits
    }

    /// An unquoted scalar with references is what is wanted there: `${PARTITIONS}` is a number where one belongs.
    fn coerce(&self, schema: &'a Value, node: &mut Node, depth: usize) {
        let Some(scalar) = &node.scalar else { return };
        if scalar.style != Style::Plain || scalar.template.is_none() || !matches!(node.content, Content::Text) {
            return;
        }
        let wanted = self.all_types(schema, depth);
        if wanted.is_empty() || wanted.contains("string") {
            return;
        }
        if let Some(content) = resolve_plain(&scalar.text) {
            node.content = content;
        }
    }

    /// The types that a schema allows, through references and alternatives; empty if it doesn't say.
    fn all_types(&self, schema: &'a Value, depth: usize) -> BTreeSet<&'a str> {
        let Some(keywords) = schema.as_object().filter(|_| depth <= MAX_SCHEMA_DEPTH) else { return BTreeSet::new() };
        if let Some(target) = self.target(keywords) {
            return self.all_types(target, depth + 1);
        }
        let branches = ["anyOf", "oneOf"].iter().filter_map(|key| keywords.get(*key)?.as_array()).flatten();
        let mut types = own_types(schema);
        branches.for_each(|branch| types.extend(self.all_types(branch, depth + 1)));
        types
    }
}

/// Alternatives.
impl<'a> Validator<'a> {
    fn check_alternatives(&mut self, branches: &'a [Value], node: &mut Node, depth: usize) {
        let kinds = kinds(node);
        let viable: Vec<&Value> = branches
            .iter()
            .filter(|branch| {
                let types = self.all_types(branch, depth + 1);
                types.is_empty() || kinds.iter().any(|kind| types.contains(kind))
            })
            .collect();
        match viable.as_slice() {
            [] => {
                let types = branches.iter().flat_map(|branch| self.all_types(branch, depth + 1)).collect();
                let worded =
                    branches.iter().map(|branch| self.resolved(branch)).find(|b| b.contains_key("errorMessage"));
                self.wrong_type(worded.unwrap_or(&Map::new()), &types, node);
            }
            [only] => {
                let known = self.mistakes.len();
                self.check(only, node, depth + 1);
                self.add_mappings(branches, node, known);
            }
            several => match several.iter().find(|branch| self.matches(branch, node, depth)) {
                Some(fitting) => self.check(fitting, node, depth + 1),
                None => self.none_fits(several, node, depth),
            },
        }
    }

    /// Where a word was wrong, a mapping might have been right: adds its key to the hint.
    fn add_mappings(&mut self, branches: &'a [Value], node: &Node, from: usize) {
        let keys: Vec<&str> = branches.iter().flat_map(|branch| texts(self.resolved(branch).get("required"))).collect();
        if node.scalar.is_none() || keys.is_empty() || keys == ["type"] {
            return;
        }
        for mistake in self.mistakes.iter_mut().skip(from) {
            if let Some(hint) = &mut mistake.diagnostic.hint {
                hint.push_str(&format!(", or a mapping with {}", list(&keys)));
            }
        }
    }

    /// Says what is wrong by the branch that was most likely meant.
    fn none_fits(&mut self, branches: &[&'a Value], node: &mut Node, depth: usize) {
        if node.entries().is_empty() && !matches!(node.content, Content::Map(_)) {
            let mut names = Vec::new();
            branches.iter().for_each(|branch| self.enumerated(branch, depth, &mut names));
            match branches.first() {
                _ if !names.is_empty() => self.not_one_of(&Map::new(), &names, node),
                Some(first) => self.check(first, node, depth + 1),
                None => {}
            }
            return;
        }
        let required: Vec<(&'a Value, Vec<&'a str>)> =
            branches.iter().map(|branch| (*branch, texts(self.resolved(branch).get("required")))).collect();
        let mut meant = required.iter().filter(|(_, keys)| keys.iter().all(|key| node.get(key).is_some()));
        let keys: Vec<&str> = required.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
        match (meant.next(), meant.next()) {
            (Some(_), Some((_, extra))) => {
                let place = extra.iter().find_map(|key| node.entry(key)).map_or(node.place, |entry| entry.key_place);
                return self.say(place, format!("{} can have only one of the keys {}", self.here(), list(&keys)), None);
            }
            (Some((branch, _)), None) => return self.check(branch, node, depth + 1),
            _ => {}
        }
        let message = format!("{} needs one of the keys {}", self.here(), list(&keys));
        let typo = node.entries().iter().find_map(|entry| Some((entry.key_place, nearest(&entry.key, keys.clone())?)));
        match typo {
            Some((place, name)) => self.say(place, message, Some(format!("did you mean `{name}`?"))),
            None => self.say(self.holder(node), message, None),
        }
    }

    /// The values that string enumerations name.
    fn enumerated(&self, schema: &'a Value, depth: usize, names: &mut Vec<&'a str>) {
        let keywords = self.resolved(schema);
        names.extend(keywords.get("const").and_then(Value::as_str));
        names.extend(texts(keywords.get("enum")));
        let nested = ["anyOf", "oneOf"].iter().filter_map(|key| keywords.get(*key)?.as_array()).flatten();
        if depth <= MAX_SCHEMA_DEPTH {
            nested.for_each(|branch| self.enumerated(branch, depth + 1, names));
        }
    }

    fn resolved(&self, schema: &'a Value) -> &'a Map<String, Value> {
        static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        let keywords = schema.as_object().unwrap_or(&NONE);
        self.target(keywords).and_then(Value::as_object).unwrap_or(keywords)
    }
}

/// Scalars.
impl<'a> Validator<'a> {
    fn check_scalar(&mut self, keywords: &'a Map<String, Value>, node: &Node) {
        if let Some(value) = keywords.get("const").filter(|value| **value != node.to_json()) {
            return self.not_one_of(keywords, &value.as_str().into_iter().collect::<Vec<_>>(), node);
        }
        let values = keywords.get("enum").and_then(Value::as_array);
        if values.is_some_and(|values| !values.contains(&node.to_json())) {
            return self.not_one_of(keywords, &texts(keywords.get("enum")), node);
        }
        if let Some(text) = node.as_text() {
            self.check_text(keywords, text, node);
        }
        if let Content::Number(number) = &node.content {
            let value = number.as_f64().unwrap_or(f64::NAN);
            let bound = |key: &str| keywords.get(key).and_then(Value::as_f64);
            let wrong = match (bound("minimum"), bound("maximum"), bound("exclusiveMinimum")) {
                (Some(least), _, _) if value < least => Some(format!("at least {}", keywords["minimum"])),
                (_, Some(most), _) if value > most => Some(format!("at most {}", keywords["maximum"])),
                (_, _, Some(over)) if value <= over => Some(format!("more than {}", keywords["exclusiveMinimum"])),
                _ => None,
            };
            if let Some(wrong) = wrong {
                let message = format!("{} must be {wrong}, found {}", self.here(), shown_number(node));
                self.say(node.place, message, None);
            }
        }
    }

    fn check_text(&mut self, keywords: &'a Map<String, Value>, text: &str, node: &Node) {
        let length = text.chars().count() as u64;
        let bound = |key: &str| keywords.get(key).and_then(Value::as_u64);
        if bound("minLength").is_some_and(|least| length < least) {
            let message = if length == 0 { "must not be empty" } else { "is too short" };
            return self.say(node.place, format!("{} {message}", self.here()), None);
        }
        if let Some(most) = bound("maxLength").filter(|most| length > *most) {
            return self.say(node.place, format!("{} has more than {most} characters", self.here()), None);
        }
        if let Some(message) = self.pattern_mistake(keywords, text, &node.shown()) {
            return self.say(node.place, message, None);
        }
        let is_url = matches!(keywords.get("format").and_then(Value::as_str), Some("uri" | "url"));
        if is_url && !has_scheme(text) {
            let message =
                format!("expected a URL such as file://./out or s3://bucket/prefix, found `{}`", node.shown());
            self.say(node.place, message, None);
        }
    }

    /// What to say about a text that doesn't match the schema's pattern.
    fn pattern_mistake(&mut self, keywords: &'a Map<String, Value>, text: &str, shown: &str) -> Option<String> {
        let pattern = keywords.get("pattern")?.as_str()?;
        let compiled = self.patterns.entry(pattern).or_insert_with(|| Regex::new(pattern).ok()).as_ref()?;
        if compiled.is_match(text) {
            return None;
        }
        Some(match keywords.get("errorMessage").and_then(Value::as_str) {
            Some(words) if words.starts_with("expected") => format!("{words}, found `{shown}`"),
            Some(words) => format!("`{shown}` can't stand here: {words}"),
            None => format!("`{shown}` doesn't match the pattern {pattern}"),
        })
    }

    fn check_column_type(&mut self, node: &Node) {
        let Some(text) = node.as_text() else {
            let hint = matches!(node.content, Content::Map(_) | Content::List(_))
                .then_some("write nested types as text: \"list<string>\", \"struct{name: string}\"");
            let message = format!("expected a column type such as string or int64, found {}", described(node));
            return self.say(self.holder(node), message, hint.map(str::to_owned));
        };
        if let Err(err) = text.parse::<ColumnType>() {
            let cut =
                text.contains(['(', '<', '{']).then(|| "inside `{ }`, a type with a comma needs quotes".to_owned());
            self.say(node.place, if node.is_secret() { "not a column type".to_owned() } else { err.to_string() }, cut);
        }
    }

    fn not_one_of(&mut self, keywords: &Map<String, Value>, names: &[&str], node: &Node) {
        let message = match keywords.get("title").and_then(Value::as_str) {
            Some(title) => format!("unknown {title} `{}`", node.shown()),
            None => format!("{} can't be `{}`", self.here(), node.shown()),
        };
        self.say(node.place, message, suggestion(&node.shown(), names));
    }

    fn wrong_type(&mut self, keywords: &Map<String, Value>, types: &BTreeSet<&str>, node: &Node) {
        let expected = match keywords.get("errorMessage").and_then(Value::as_str) {
            Some(words) if words.starts_with("expected") => words.to_owned(),
            _ => format!("expected {}", wanted(types)),
        };
        let is_scalar = matches!(node.content, Content::Number(_) | Content::Bool(_));
        let hint = if types.contains("string") && is_scalar && !keywords.contains_key("errorMessage") {
            Some(format!("put it in quotes: \"{}\"", node.shown()))
        } else if types.contains("array") && node.scalar.is_some() && !matches!(node.content, Content::Null) {
            Some(format!("write a list: [{}]", node.shown()))
        } else {
            None
        };
        let message = format!("{expected} for {}, found {}", self.here(), described(node));
        self.say(self.holder(node), message, hint);
    }
}

/// Mappings and lists.
impl<'a> Validator<'a> {
    fn check_map(&mut self, keywords: &'a Map<String, Value>, node: &mut Node, depth: usize) {
        let properties = keywords.get("properties").and_then(Value::as_object);
        let additional = keywords.get("additionalProperties");
        self.check_required(keywords, properties, node);
        let Content::Map(entries) = &mut node.content else { return };
        for entry in entries.iter_mut() {
            if let Some(names) = keywords.get("propertyNames").and_then(Value::as_object)
                && !self.check_name(names, entry)
            {
                continue;
            }
            let schema = properties.and_then(|properties| properties.get(&entry.key)).or(additional);
            match schema {
                Some(Value::Bool(false)) => self.unknown_key(properties, entry),
                Some(schema) => {
                    self.path.push(entry.key.clone());
                    self.holders.push(entry.key_place);
                    self.check(schema, &mut entry.value, depth + 1);
                    self.path.pop();
                    self.holders.pop();
                }
                None => {}
            }
        }
    }

    fn check_required(
        &mut self,
        keywords: &'a Map<String, Value>,
        properties: Option<&'a Map<String, Value>>,
        node: &Node,
    ) {
        let known = || properties.into_iter().flat_map(Map::keys).map(String::as_str);
        // A misspelt key is reported as such; that the right one is missing would be the same mistake again.
        let misspelt: Vec<&str> = node
            .entries()
            .iter()
            .filter(|entry| properties.is_none_or(|properties| !properties.contains_key(&entry.key)))
            .filter_map(|entry| nearest(&entry.key, known()))
            .collect();
        for key in texts(keywords.get("required")) {
            if node.get(key).is_none() && !misspelt.contains(&key) {
                let property = properties.and_then(|properties| properties.get(key));
                let names = texts(property.and_then(|property| property.get("enum")));
                let about = property.and_then(|property| property.get("description")).and_then(Value::as_str);
                let hint = match about {
                    _ if !names.is_empty() => Some(format!("one of {}", list(&names))),
                    about => about.map(|about| format!("`{key}`: {}", about.replace('\n', " "))),
                };
                let place = self.missing_place(node);
                self.say(place, format!("{} has no `{key}`, which it needs", self.here()), hint);
            }
        }
        let least = keywords.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
        if (node.entries().len() as u64) < least {
            let place = self.missing_place(node);
            self.say(place, format!("{} must not be empty", self.here()), None);
        }
    }

    /// Where to point for a key that isn't there.
    fn missing_place(&self, node: &Node) -> Place {
        self.holders.last().copied().unwrap_or(Place { start: node.place.start, end: node.place.start })
    }

    /// Whether a key may be a name here.
    fn check_name(&mut self, schema: &'a Map<String, Value>, entry: &Entry) -> bool {
        let Some(message) = self.pattern_mistake(schema, &entry.key, &entry.key) else { return true };
        if entry.key.starts_with('_') {
            let message = format!("`{}` is reserved: names that begin with `_` belong to the system", entry.key);
            let hint = format!("write `{}`", entry.key.trim_start_matches('_'));
            self.say_about(entry, message, Some(hint));
            return false;
        }
        let snake = entry.key.to_lowercase().replace(['-', ' ', '.'], "_");
        let hint = self.pattern_mistake(schema, &snake, &snake).is_none().then(|| format!("write `{snake}`"));
        self.say_about(entry, message, hint);
        false
    }

    fn unknown_key(&mut self, properties: Option<&'a Map<String, Value>>, entry: &Entry) {
        let known: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let message = match self.path.is_empty() {
            true => format!("unknown key `{}`", entry.key),
            false => format!("unknown key `{}` in {}", entry.key, self.here()),
        };
        let near = nearest(&entry.key, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        self.say_about(entry, message, near.or_else(|| suggestion(&entry.key, &known)));
    }

    fn check_list(&mut self, keywords: &'a Map<String, Value>, node: &mut Node, depth: usize) {
        let place = self.holder(node);
        let Content::List(items) = &mut node.content else { return };
        let bound = |key: &str| keywords.get(key).and_then(Value::as_u64);
        let count = items.len() as u64;
        if let Some(least) = bound("minItems").filter(|least| count < *least) {
            self.say(place, format!("{} needs at least {least} items", self.here()), None);
        }
        if let Some(most) = bound("maxItems").filter(|most| count > *most) {
            self.say(place, format!("{} has more than {most} items", self.here()), None);
        }
        let by_place = keywords.get("prefixItems").and_then(Value::as_array);
        for (index, item) in items.iter_mut().enumerate() {
            let own = by_place.and_then(|schemas| schemas.get(index));
            let Some(schema) = own.or(keywords.get("items")) else { continue };
            self.path.push(index.to_string());
            self.holders.push(item.place);
            self.check(schema, item, depth + 1);
            self.path.pop();
            self.holders.pop();
        }
    }
}

/// Saying it.
impl Validator<'_> {
    /// The value in words: its path.
    fn here(&self) -> String {
        if self.path.is_empty() { self.document.to_owned() } else { format!("`{}`", self.path.join(".")) }
    }

    /// Where to point for a value: a scalar itself, the key of anything else.
    fn holder(&self, node: &Node) -> Place {
        let has_text = node.scalar.is_some() && node.place.end > node.place.start;
        if has_text { node.place } else { self.missing_place(node) }
    }

    fn say(&mut self, place: Place, message: String, hint: Option<String>) {
        let diagnostic = Diagnostic::error(self.characters.span(place), message).with_hint_opt(hint);
        self.mistakes.push(Mistake { path: self.path.clone(), diagnostic });
    }

    fn say_about(&mut self, entry: &Entry, message: String, hint: Option<String>) {
        self.path.push(entry.key.clone());
        self.say(entry.key_place, message, hint);
        self.path.pop();
    }
}

/// The types that a schema itself names.
fn own_types(schema: &Value) -> BTreeSet<&str> {
    let mut types: BTreeSet<&str> = match schema.get("type") {
        Some(Value::String(one)) => BTreeSet::from([one.as_str()]),
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => BTreeSet::new(),
    };
    let values =
        schema.get("const").into_iter().chain(schema.get("enum").and_then(Value::as_array).into_iter().flatten());
    if types.is_empty() {
        types.extend(values.map(|value| match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }));
    }
    types
}

/// The schema types that a node is of.
fn kinds(node: &Node) -> &'static [&'static str] {
    match &node.content {
        Content::Null | Content::Broken => &["null"],
        Content::Bool(_) => &["boolean"],
        Content::Number(number) if number.is_f64() => &["number"],
        Content::Number(_) => &["integer", "number"],
        Content::Text => &["string"],
        Content::List(_) => &["array"],
        Content::Map(_) => &["object"],
    }
}

/// A node in words.
fn described(node: &Node) -> String {
    match &node.content {
        Content::Null | Content::Broken => "nothing".to_owned(),
        Content::Bool(_) => format!("`{}`", node.shown()),
        Content::Number(_) => shown_number(node),
        Content::Text => format!("the text `{}`", node.shown()),
        Content::List(_) => "a list".to_owned(),
        Content::Map(_) => "a mapping".to_owned(),
    }
}

fn shown_number(node: &Node) -> String {
    format!("the number `{}`", node.shown())
}

/// Schema types in words.
fn wanted(types: &BTreeSet<&str>) -> String {
    let words = types.iter().filter_map(|name| match *name {
        "string" => Some("text"),
        "integer" => Some("a whole number"),
        "number" => Some("a number"),
        "boolean" => Some("true or false"),
        "array" => Some("a list"),
        "object" => Some("a mapping"),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" or ")
}

/// The nearest name, or all of them.
fn suggestion(name: &str, known: &[&str]) -> Option<String> {
    match nearest(name, known.iter().copied()) {
        Some(name) if known.len() == 1 => Some(format!("did you mean `{name}`?")),
        Some(name) => Some(format!("did you mean `{name}`? one of {}", list(known))),
        None if known.is_empty() => None,
        None => Some(format!("one of {}", list(known))),
    }
}

fn list(names: &[&str]) -> String {
    let mut text = names.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > MAX_LISTED {
        text.push_str(", …");
    }
    text
}

fn texts(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether a text begins as a URL does, with a scheme.
fn has_scheme(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.split_once("://")
        .is_some_and(|(scheme, _)| scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(legal))
}
