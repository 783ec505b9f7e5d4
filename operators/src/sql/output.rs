//! The rules for a query's output columns: names are unique, hidden names stay hidden, types can flow.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Schema};
use datafusion::sql::sqlparser::ast::{Expr, Query, Select, SelectItem, SetExpr, Spanned};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::RESERVED_PREFIX;

use super::error::{Place, SqlError};
use super::logical::type_name;
use super::scope::normalize;

/// Checks the names that the SELECT lists of the output give, before anything is planned.
pub(super) fn check_names(query: &Query) -> Vec<SqlError> {
    let mut errors = Vec::new();
    for select in selects(&query.body) {
        let mut seen = HashMap::new();
        for item in &select.projection {
            let Some((name, place)) = named(item) else { continue };
            if let SelectItem::ExprWithAlias { expr, .. } = item
                && name.starts_with(RESERVED_PREFIX)
                && source_column(expr) != Some(name.as_str())
            {
                let hint = format!("write `AS {}`", name.trim_start_matches(RESERVED_PREFIX));
                errors.push(place.error(format!("the name `{name}` is reserved, as it begins with `_`"), Some(hint)));
            }
            if let Some(first) = seen.insert(name.clone(), place) {
                errors.push(duplicate(&name, place, first));
            }
        }
    }
    errors
}

/// Checks the columns that came out of planning.
pub(super) fn check_schema(query: &Query, schema: &Schema) -> Vec<SqlError> {
    let mut errors = Vec::new();
    let mut seen = HashMap::new();
    for (index, field) in schema.fields().iter().enumerate() {
        let place = column_place(query, index);
        if let Some(first) = seen.insert(field.name(), place) {
            errors.push(duplicate(field.name(), place, first));
        }
        let name = field.name();
        let (type_name, hint) = match field.data_type() {
            DataType::Null => ("no type", format!("say which: `CAST(NULL AS …) AS {name}`")),
            DataType::Union(..) => (
                "a JSON value of any type, which cannot flow on",
                "take text with `->>`, or a type with `json_get_int` and its like".to_owned(),
            ),
            other => match ColumnType::from_field(field) {
                Ok(_) => continue,
                Err(_) => {
                    let (message, hint) = no_column_type(name, other);
                    errors.push(place.error(message, Some(hint)));
                    continue;
                }
            },
        };
        errors.push(place.error(format!("the column `{name}` has {type_name}"), Some(hint)));
    }
    errors
}

/// Why a column of a type that none of ours holds cannot flow on, and what to write instead.
fn no_column_type(name: &str, data_type: &DataType) -> (String, String) {
    let hint = match data_type {
        DataType::Duration(_) | DataType::Interval(_) => {
            "take its length as a number, such as `extract(epoch FROM later) - extract(epoch FROM earlier)` in seconds"
                .to_owned()
        }
        DataType::Map(..) => format!("take keys and values as lists: `map_keys({name})`, `map_values({name})`"),
        DataType::Decimal256(..) | DataType::Decimal128(..) => "cast it: `CAST(… AS decimal(38, 6))`".to_owned(),
        _ => "cast it to a type that a schema can declare".to_owned(),
    };
    (format!("the column `{name}` is of type {}, which no sink can hold", type_name(data_type)), hint)
}

fn duplicate(name: &str, place: Place, first: Place) -> SqlError {
    let other = if first == place { String::new() } else { format!(", as at {}:{}", first.line, first.column) };
    place.error(
        format!("a second column of the output is called `{name}`{other}"),
        Some("give one of them another name with `AS`, or name the columns instead of `*`".to_owned()),
    )
}

/// Where the SELECT list of the output makes its n-th column; at a wildcard, if that may be what made it.
fn column_place(query: &Query, index: usize) -> Place {
    let Some(select) = selects(&query.body).into_iter().next() else { return Place::START };
    let is_wildcard = |item: &&SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let wildcards = || select.projection.iter().filter(is_wildcard);
    let item = if wildcards().next().is_none() { select.projection.get(index) } else { wildcards().next_back() };
    item.and_then(|item| Place::of(item.span())).unwrap_or(Place::START)
}

/// The SELECTs whose rows are the query's rows: one, or those of a UNION ALL.
fn selects(body: &SetExpr) -> Vec<&Select> {
    match body {
        SetExpr::Select(select) => vec![select],
        SetExpr::Query(query) => selects(&query.body),
        SetExpr::SetOperation { left, right, .. } => {
            let mut all = selects(left);
            all.extend(selects(right));
            all
        }
        _ => Vec::new(),
    }
}

/// The name that an item certainly has, and where it says so.
fn named(item: &SelectItem) -> Option<(String, Place)> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some((normalize(alias), Place::of(alias.span)?)),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some((normalize(ident), Place::of(ident.span)?)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) if parts.len() == 2 => {
            let last = parts.last()?;
            Some((normalize(last), Place::of(last.span)?))
        }
        _ => None,
    }
}

/// The column that an expression is, if it is nothing more.
fn source_column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Identifier(ident) => Some(&ident.value),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| ident.value.as_str()),
        _ => None,
    }
}
