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
/// A column is of the field's type, or of the one that `as` gives, as a pipeline's `schema:` writes it.
#[macro_export]
macro_rules! record {
    ($($(#[$meta:meta])* $visibility:vis struct $name:ident $(<$life:lifetime>)? {
        $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty $(as $data_type:literal)?),* $(,)?
    })+) => {$(
        $(#[$meta])*
        #[derive($crate::serde::Serialize, $crate::serde::Deserialize)]
        #[serde(crate = "logmill_guest::serde")]
        $visibility struct $name $(<$life>)? {
            $($(#[$field_meta])* $field_visibility $field: $type,)*
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
    (@type $type:ty as $data_type:literal) => { $data_type.to_owned() };
    (@type $type:ty) => { <$type as $crate::Column>::data_type() };
}
