//! Columns of an output, from a Rust struct: `record!` keeps the two from drifting apart.

/// A struct whose JSON becomes a row: its fields as columns with a pipeline's types. [`record!`](crate::record) implements it.
pub trait Record: serde::Serialize {
    /// Names and types, as a pipeline's `schema:` writes them.
    fn columns() -> Vec<(String, String)>;
}

/// A field's type as a pipeline's `schema:` writes it.
pub trait Column {
    /// `int64`, `string`, `list<string>`…
    fn data_type() -> String;
}

macro_rules! columns {
    ($($name:literal: $($rust:ty),*;)*) => {
        $($(impl Column for $rust {
            fn data_type() -> String {
                $name.to_owned()
            }
        })*)*
    };
}

columns! {
    "boolean": bool;
    "int8": i8;
    "int16": i16;
    "int32": i32;
    "int64": i64;
    "uint8": u8;
    "uint16": u16;
    "uint32": u32;
    "uint64": u64;
    "float32": f32;
    "float64": f64;
    "string": String, &str, std::borrow::Cow<'_, str>;
}

impl<T: Column> Column for Option<T> {
    fn data_type() -> String {
        T::data_type()
    }
}

impl<T: Column> Column for Vec<T> {
    fn data_type() -> String {
        format!("list<{}>", T::data_type())
    }
}

/// Declares structs that are rows of an output, with the columns they become.
///
/// ```
/// logmill_guest::record! {
///     /// A flight with its score.
///     #[derive(Debug, PartialEq)]
///     pub struct Scored {
///         pub flight: i32,
///         pub score: Option<f64>,
///         pub at: String as "timestamp",
///     }
/// }
/// ```
///
/// A column is of the field's type, or of the one that `as` gives, as a pipeline's `schema:` writes it, and has the field's name.
/// So attributes of serde that would write the JSON otherwise than the columns say do not compile; a struct that needs them
/// implements [`Record`] by hand:
///
/// ```compile_fail
/// logmill_guest::record! {
///     struct Scored {
///         #[serde(rename = "flightNumber")]
///         flight: i32,
///     }
/// }
/// ```
#[macro_export]
macro_rules! record {
    ($($(#[$($meta:tt)*])* $visibility:vis struct $name:ident $(<$life:lifetime>)? {
        $($(#[$($field_meta:tt)*])* $field_visibility:vis $field:ident: $type:ty $(as $data_type:literal)?),* $(,)?
    })+) => {$(
        $($crate::record!(@attribute $($meta)*);)*
        $($($crate::record!(@attribute $($field_meta)*);)*)*

        #[derive($crate::serde::Serialize, $crate::serde::Deserialize)]
        #[serde(crate = "logmill_guest::serde")]
        $(#[$($meta)*])*
        $visibility struct $name $(<$life>)? {
            $($(#[$($field_meta)*])* $field_visibility $field: $type,)*
        }

        impl $(<$life>)? $crate::Record for $name $(<$life>)? {
            fn columns() -> Vec<(String, String)> {
                vec![$((
                    stringify!($field).trim_start_matches("r#").to_owned(),
                    $crate::record!(@type $type $(as $data_type)?),
                )),*]
            }
        }
    )+};
    (@attribute serde($($options:tt)*)) => { $crate::record!(@option $($options)*); };
    (@attribute $($other:tt)*) => {};
    (@option) => {};
    // Those that leave names and columns as they are.
    (@option alias $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@option borrow $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@option default $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@option deny_unknown_fields $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@option deserialize_with $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@option expecting $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@option serialize_with $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@option skip_serializing_if $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@option with $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@option $other:ident $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "`record!` gives each column the name of its field, and `serde(", ::core::stringify!($other),
            ")` may write another or none; name the field like the column, or implement `Record` by hand"
        ));
    };
    (@after) => {};
    (@after , $($rest:tt)*) => { $crate::record!(@option $($rest)*); };
    (@after = $value:literal $($rest:tt)*) => { $crate::record!(@after $($rest)*); };
    (@type $type:ty as $data_type:literal) => { $data_type.to_owned() };
    (@type $type:ty) => { <$type as $crate::Column>::data_type() };
}

#[cfg(test)]
mod tests {
    use super::Record;

    crate::record! {
        /// With all that leaves names alone.
        #[derive(Debug, Default)]
        #[serde(deny_unknown_fields, default)]
        struct Named<'a> {
            #[serde(borrow)]
            text: std::borrow::Cow<'a, str>,
            /// A name that Rust has a use for.
            #[serde(default = "seven", alias = "kind")]
            r#type: i64,
            #[serde(skip_serializing_if = "Option::is_none")]
            at: Option<String> as "timestamp",
        }
    }

    fn seven() -> i64 {
        7
    }

    #[test]
    fn columns_have_the_names_that_the_json_has() {
        let names: Vec<String> = Named::columns().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["text", "type", "at"]);
        let named: Named<'_> = serde_json::from_str(r#"{"text":"a\"b"}"#).unwrap_or_default();
        assert_eq!(serde_json::to_string(&named).ok().as_deref(), Some(r#"{"text":"a\"b","type":7}"#));
    }
}
