//! Which columns guests may read and make, and in which types.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use logmill_pipelines::flow::{META_COLUMNS, RESERVED_PREFIX};
use logmill_pipelines::{ColumnType, nearest};

use super::error::PlanError;
use crate::sql::{Relation, meta_field};

/// A column as guests get it: of one of the types that a pipeline's `schema:` may name. `None`: no guest can.
pub(super) fn for_guests(field: &Field) -> Option<Field> {
    let data_type = ColumnType::from_field(field).ok()?.to_arrow();
    let field = Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone());
    Some(field)
}

/// The columns of an input that guests may be told of, without the hidden ones.
pub(super) fn visible(input: &Relation) -> Schema {
    Schema::new(input.schema.fields().iter().filter_map(|field| for_guests(field)).collect::<Fields>())
}

/// The columns that a guest reads: those it names, or all that the input has.
pub(super) fn read(input: &Relation, reads: Option<&[String]>) -> Result<SchemaRef, PlanError> {
    let full = input.full_schema();
    let all: Vec<String> = input.schema.fields().iter().map(|field| field.name().clone()).collect();
    let names = reads.unwrap_or(&all);
    let column = |(index, name): (usize, &String)| {
        let Ok(field) = full.field_with_name(name) else { return Err(unknown_column(input, &full, name)) };
        if names.iter().take(index).any(|earlier| earlier == name) {
            return Err(PlanError::new(format!("the module reads the column `{name}` twice")));
        }
        for_guests(field).ok_or_else(|| {
            let message =
                format!("the module reads the column `{name}` of type {}, which no guest can", field.data_type());
            PlanError::with_hint(message, "put an `sql` operator before it that casts the column or leaves it out")
        })
    };
    Ok(Arc::new(Schema::new(names.iter().enumerate().map(column).collect::<Result<Vec<_>, _>>()?)))
}

fn unknown_column(input: &Relation, full: &Schema, name: &str) -> PlanError {
    let message = format!("the module reads the column `{name}`, which `{}` does not have", input.name);
    let names = || full.fields().iter().map(|field| field.name().as_str());
    let hint = match nearest(name, names()) {
        Some(near) => format!("did it mean `{near}`?"),
        None if META_COLUMNS.contains(&name) => "only a source of records has it".to_owned(),
        None => {
            let names: Vec<String> =
                names().filter(|name| !name.starts_with(RESERVED_PREFIX)).map(|name| format!("`{name}`")).collect();
            format!("there are {}", names.join(", "))
        }
    };
    PlanError::with_hint(message, hint)
}

/// Checks what a signature says that a guest makes. `what` says whose columns they are.
pub(super) fn check_made(what: &str, schema: &Schema) -> Result<(), PlanError> {
    if schema.fields().is_empty() {
        return Err(PlanError::new(format!("{what} has no columns")));
    }
    let mut seen = HashSet::new();
    for field in schema.fields() {
        let name = field.name();
        if !seen.insert(name) {
            return Err(PlanError::new(format!("{what} has two columns `{name}`")));
        }
        let is_meta = META_COLUMNS.contains(&name.as_str()) && meta_field(name).data_type() == field.data_type();
        if name.starts_with(RESERVED_PREFIX) && !is_meta {
            let message =
                format!("{what} has a column `{name}`: names that begin with `{RESERVED_PREFIX}` are reserved");
            return Err(PlanError::with_hint(
                message,
                format!("call it `{}`", name.trim_start_matches(RESERVED_PREFIX)),
            ));
        }
        check_type(field).map_err(|data_type| {
            let message = format!("{what} has the column `{name}` of the Arrow type {data_type}, which cannot flow on");
            PlanError::with_hint(
                message,
                "use a type that a pipeline's `schema:` can name, such as `int64` or `string`",
            )
        })?;
    }
    Ok(())
}

/// Whether a column can flow on, or which type in it cannot.
pub(super) fn check_type(field: &Field) -> Result<(), DataType> {
    let refused = || Err(field.data_type().clone());
    match field.data_type() {
        // Dictionaries need messages of their own, and a row of these may take no space at all.
        DataType::Dictionary(..) | DataType::RunEndEncoded(..) | DataType::Null => refused(),
        DataType::FixedSizeBinary(bytes) if *bytes < 1 => refused(),
        DataType::FixedSizeList(_, items) if *items < 1 => refused(),
        DataType::Struct(fields) if fields.is_empty() => refused(),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check_type(field)),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::FixedSizeList(item, _) => check_type(item),
        _ if ColumnType::from_field(field).is_ok() => Ok(()),
        _ => refused(),
    }
}
