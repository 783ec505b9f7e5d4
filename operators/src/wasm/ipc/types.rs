//! The types that columns of guests may have, as their schema messages encode them. They are checked before Arrow reads them,
//! since it panics on some invalid types.
//!
//! A pipeline's `schema:` can name every one of them, if by another width. Views and dictionaries are left out, as their values
//! may share bytes; so are types whose rows may take no bytes.

use std::collections::HashSet;
use std::str::FromStr;

use arrow::array::timezone::Tz;
use arrow::ipc::{Date, DateUnit, Field, Precision, TimeUnit, Type};

/// How many columns, and fields of columns, a stream may have.
const MAX_FIELDS: usize = 10_000;
/// How deep types nest.
const MAX_DEPTH: usize = 32;
/// What to do about a type that cannot be used.
const HINT: &str = "use a type that a pipeline's `schema:` can name, such as `int64` or `string`";

/// Checks the columns of a schema.
pub(super) fn check<'a>(fields: impl ExactSizeIterator<Item = Field<'a>>) -> Result<(), String> {
    let mut left = MAX_FIELDS;
    for field in fields {
        check_field(&field, 0, &mut left)
            .map_err(|why| format!("its column `{}` {why}", field.name().unwrap_or("")))?;
    }
    Ok(())
}

fn check_field(field: &Field<'_>, depth: usize, left: &mut usize) -> Result<(), String> {
    *left = left.checked_sub(1).ok_or_else(|| format!("is one of more than {MAX_FIELDS}"))?;
    if depth > MAX_DEPTH {
        return Err(format!("nests more than {MAX_DEPTH} deep"));
    }
    if field.dictionary().is_some() {
        return Err("is a dictionary; write plain columns".to_owned());
    }
    let children = field.children().map_or(0, |children| children.len());
    let unusable = || {
        let kind = field.type_type().variant_name().unwrap_or("unknown");
        format!("is of the Arrow type {}, which cannot be used; {HINT}", kind.trim_end_matches('_'))
    };
    let usable = match field.type_type() {
        Type::Struct_ => children > 0,
        Type::List | Type::LargeList => children == 1,
        Type::FixedSizeList => children == 1 && field.type_as_fixed_size_list().is_some_and(|list| list.listSize() > 0),
        _ => children == 0 && is_usable(field)?,
    };
    if !usable {
        return Err(unusable());
    }
    let mut names = HashSet::new();
    for child in field.children().into_iter().flatten() {
        let name = child.name().unwrap_or("");
        if !names.insert(name) {
            return Err(format!("has two fields `{name}`"));
        }
        check_field(&child, depth + 1, left).map_err(|why| format!("has `{name}`, which {why}"))?;
    }
    Ok(())
}

/// Whether a type that holds no other can be used; the error is about what it says of itself.
fn is_usable(field: &Field<'_>) -> Result<bool, String> {
    let usable = match field.type_type() {
        Type::Bool | Type::Utf8 | Type::LargeUtf8 | Type::Binary | Type::LargeBinary => Some(true),
        Type::FixedSizeBinary => field.type_as_fixed_size_binary().map(|binary| binary.byteWidth() > 0),
        Type::Int => field.type_as_int().map(|int| matches!(int.bitWidth(), 8 | 16 | 32 | 64)),
        Type::FloatingPoint => {
            let known = [Precision::HALF, Precision::SINGLE, Precision::DOUBLE];
            field.type_as_floating_point().map(|float| known.contains(&float.precision()))
        }
        Type::Decimal => {
            let Some(decimal) = field.type_as_decimal() else { return Ok(false) };
            let (precision, scale) = (decimal.precision(), decimal.scale());
            let most = match decimal.bitWidth() {
                32 => 9,
                64 => 18,
                128 => 38,
                _ => return Ok(false),
            };
            if !(1..=most).contains(&precision) || !(0..=precision).contains(&scale) {
                return Err(format!(
                    "is a decimal({precision},{scale}), which its {} bits cannot be",
                    decimal.bitWidth()
                ));
            }
            Some(true)
        }
        Type::Date => {
            field.type_as_date().map(|date: Date<'_>| matches!(date.unit(), DateUnit::DAY | DateUnit::MILLISECOND))
        }
        Type::Time => field.type_as_time().map(|time| {
            matches!(
                (time.bitWidth(), time.unit()),
                (32, TimeUnit::SECOND | TimeUnit::MILLISECOND) | (64, TimeUnit::MICROSECOND | TimeUnit::NANOSECOND)
            )
        }),
        Type::Timestamp => {
            let Some(timestamp) = field.type_as_timestamp() else { return Ok(false) };
            if let Some(zone) = timestamp.timezone()
                && Tz::from_str(zone).is_err()
            {
                return Err(format!("is a timestamp of the time zone `{zone}`, which is unknown"));
            }
            let known = [TimeUnit::SECOND, TimeUnit::MILLISECOND, TimeUnit::MICROSECOND, TimeUnit::NANOSECOND];
            Some(known.contains(&timestamp.unit()))
        }
        _ => Some(false),
    };
    Ok(usable.unwrap_or(false))
}
