//! Functions for SQL: over rows, as ordinary Rust functions, or over whole columns.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use crate::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, PrimitiveArray, RecordBatch,
    StringArray, StringBuilder,
};
use crate::arrow::buffer::NullBuffer;
use crate::arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use serde::de::DeserializeOwned;

use crate::ipc;
use crate::operator::Failure;
use crate::wit::function::exports::logmill::function::scalar;

/// Functions over columns. Export them with [`functions!`](crate::functions!), which also makes them of functions over rows.
pub trait Functions: Sized + 'static {
    /// What the function's `config:` is read into; `()` if there is none.
    type Config: DeserializeOwned;

    /// Called when a pipeline is checked and for each instance.
    ///
    /// # Errors
    /// What is wrong with the configuration, in words for the pipeline's author.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// The functions that there are.
    fn functions(&self) -> Vec<Function>;

    /// Computes one of them over columns of the types it asked for; as many values come out as rows went in.
    ///
    /// # Errors
    /// Why it failed, and on which row if that is known.
    fn invoke(&mut self, name: &str, arguments: &RecordBatch) -> Result<ArrayRef, Failure>;
}

/// A function's name and types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    name: String,
    arguments: Schema,
    returns: DataType,
    deterministic: bool,
}

impl Function {
    /// A function of these arguments, each with its name. Its result depends on them alone.
    #[must_use]
    pub fn new<'a>(name: &str, arguments: impl IntoIterator<Item = (&'a str, DataType)>, returns: DataType) -> Self {
        let arguments: Vec<Field> = arguments.into_iter().map(|(name, of)| Field::new(name, of, true)).collect();
        Function { name: name.to_owned(), arguments: Schema::new(arguments), returns, deterministic: true }
    }

    /// Its result depends on more than the arguments, so it is computed anew for every row.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.deterministic = false;
        self
    }

    fn described(&self) -> Result<scalar::Signature, String> {
        let write = |schema: &Schema| ipc::write(schema, &[]).map_err(|error| error.to_string());
        Ok(scalar::Signature {
            name: self.name.clone(),
            arguments: write(&self.arguments)?,
            returns: write(&result_schema(&self.returns))?,
            deterministic: self.deterministic,
        })
    }
}

fn result_schema(data_type: &DataType) -> Schema {
    Schema::new(vec![Field::new("result", data_type.clone(), true)])
}

/// What a function over rows can take: numbers, booleans, `&str`, `&[u8]`, and `Option`s of them. If an argument that is no
/// `Option` is null, so is the result, without a call.
pub trait Argument<'a>: Sized {
    /// The column it is taken from.
    type Column;

    /// The column's type.
    fn data_type() -> DataType;

    /// The column as that type.
    fn column(column: &'a ArrayRef) -> Option<Self::Column>;

    /// A row's argument; none makes the result null.
    fn value(column: &Self::Column, row: usize) -> Option<Self>;
}

/// What a function over rows can return a row's value as: numbers, booleans, `String` and `Vec<u8>`.
pub trait Value: Sized {
    /// What builds the column.
    type Builder;

    /// The column's type.
    fn data_type() -> DataType;

    /// A builder with room for this many rows.
    fn builder(rows: usize) -> Self::Builder;

    /// Adds a row.
    fn append(builder: &mut Self::Builder, value: Option<Self>);

    /// The column.
    fn finish(builder: Self::Builder) -> ArrayRef;
}

/// What a function over rows can return: a [`Value`], an `Option` of one for a null, or a `Result` of these for an error.
pub trait Returned {
    /// The value.
    type Value: Value;

    /// The value or null.
    ///
    /// # Errors
    /// What the row is blamed for.
    fn value(self) -> Result<Option<Self::Value>, String>;
}

impl<V: Value> Returned for V {
    type Value = V;

    fn value(self) -> Result<Option<V>, String> {
        Ok(Some(self))
    }
}

impl<V: Value> Returned for Option<V> {
    type Value = V;

    fn value(self) -> Result<Option<V>, String> {
        Ok(self)
    }
}

impl<R: Returned, E: fmt::Display> Returned for Result<R, E> {
    type Value = R::Value;

    fn value(self) -> Result<Option<R::Value>, String> {
        self.map_err(|error| error.to_string())?.value()
    }
}

impl<'a, T: Argument<'a>> Argument<'a> for Option<T> {
    type Column = T::Column;

    fn data_type() -> DataType {
        T::data_type()
    }

    fn column(column: &'a ArrayRef) -> Option<Self::Column> {
        T::column(column)
    }

    fn value(column: &Self::Column, row: usize) -> Option<Self> {
        Some(T::value(column, row))
    }
}

/// A column of numbers as a function over rows takes it: what a loop needs at hand, and nothing to look up for each row.
#[doc(hidden)]
#[derive(Debug)]
pub struct Numbers<'a, T> {
    values: &'a [T],
    nulls: Option<&'a NullBuffer>,
}

/// A column of numbers while it is built: a place for each row, and its nulls apart.
#[doc(hidden)]
#[derive(Debug)]
pub struct NumbersBuilder<T> {
    values: Vec<T>,
    rows: usize,
    valid: Option<Vec<bool>>,
}

/// Out of the way of the loop, which most often meets no null.
#[cold]
fn mark_null(valid: &mut Option<Vec<bool>>, rows: usize, row: usize) {
    if let Some(valid) = valid.get_or_insert_with(|| vec![true; rows]).get_mut(row) {
        *valid = false;
    }
}

macro_rules! numbers {
    ($($rust:ty: $arrow:ty = $data_type:ident;)*) => {$(
        impl<'a> Argument<'a> for $rust {
            type Column = Numbers<'a, $rust>;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            fn column(column: &'a ArrayRef) -> Option<Self::Column> {
                let column = column.as_primitive_opt::<$arrow>()?;
                Some(Numbers { values: column.values(), nulls: column.nulls() })
            }

            #[inline(always)]
            fn value(column: &Self::Column, row: usize) -> Option<Self> {
                match column.nulls {
                    Some(nulls) if nulls.is_null(row) => None,
                    _ => column.values.get(row).copied(),
                }
            }
        }

        impl Value for $rust {
            type Builder = NumbersBuilder<$rust>;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            fn builder(rows: usize) -> Self::Builder {
                NumbersBuilder { values: vec![<$rust>::default(); rows], rows: 0, valid: None }
            }

            // Called for every row: as a call of its own it would take as long as the arithmetic of many functions.
            #[inline(always)]
            fn append(builder: &mut Self::Builder, value: Option<Self>) {
                match (value, builder.values.get_mut(builder.rows)) {
                    (Some(value), Some(place)) => *place = value,
                    _ => mark_null(&mut builder.valid, builder.values.len(), builder.rows),
                }
                builder.rows += 1;
            }

            fn finish(builder: Self::Builder) -> ArrayRef {
                let nulls = builder.valid.map(NullBuffer::from);
                Arc::new(PrimitiveArray::<$arrow>::new(builder.values.into(), nulls))
            }
        }
    )*};
}

numbers! {
    i8: Int8Type = Int8;
    i16: Int16Type = Int16;
    i32: Int32Type = Int32;
    i64: Int64Type = Int64;
    u8: UInt8Type = UInt8;
    u16: UInt16Type = UInt16;
    u32: UInt32Type = UInt32;
    u64: UInt64Type = UInt64;
    f32: Float32Type = Float32;
    f64: Float64Type = Float64;
}

macro_rules! others {
    ($($argument:ty, $value:ty: $array:ty, $builder:ty = $data_type:ident, $room:expr;)*) => {$(
        impl<'a> Argument<'a> for $argument {
            type Column = &'a $array;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            fn column(column: &'a ArrayRef) -> Option<Self::Column> {
                column.as_any().downcast_ref()
            }

            fn value(column: &Self::Column, row: usize) -> Option<Self> {
                column.is_valid(row).then(|| column.value(row))
            }
        }

        impl Value for $value {
            type Builder = $builder;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            fn builder(rows: usize) -> Self::Builder {
                $room(rows)
            }

            fn append(builder: &mut Self::Builder, value: Option<Self>) {
                builder.append_option(value);
            }

            fn finish(mut builder: Self::Builder) -> ArrayRef {
                Arc::new(builder.finish())
            }
        }
    )*};
}

others! {
    bool, bool: BooleanArray, BooleanBuilder = Boolean, BooleanBuilder::with_capacity;
    &'a str, String: StringArray, StringBuilder = Utf8, |rows| StringBuilder::with_capacity(rows, rows * 16);
    &'a [u8], Vec<u8>: BinaryArray, BinaryBuilder = Binary, |rows| BinaryBuilder::with_capacity(rows, rows * 16);
}

/// A column of the arguments as what a function over rows takes.
#[doc(hidden)]
pub fn column<'a, A: Argument<'a>>(arguments: &'a RecordBatch, index: usize) -> Result<A::Column, Failure> {
    let column = arguments.columns().get(index).ok_or_else(|| format!("argument {index} is missing"))?;
    A::column(column).ok_or_else(|| format!("argument {index} is of type {}", column.data_type()).into())
}

/// Calls a function for each row; none is a null for want of an argument.
#[doc(hidden)]
pub fn rows<R: Returned>(count: usize, mut call: impl FnMut(usize) -> Option<R>) -> Result<ArrayRef, Failure> {
    let mut builder = R::Value::builder(count);
    for row in 0..count {
        let value = match call(row) {
            None => None,
            Some(returned) => returned.value().map_err(|message| Failure::at(row, message))?,
        };
        R::Value::append(&mut builder, value);
    }
    Ok(R::Value::finish(builder))
}

/// Functions at work in an instance: what [`functions!`](crate::functions!) exports.
#[doc(hidden)]
#[derive(Debug)]
pub struct Running<T>(RefCell<Option<T>>);

impl<T: Functions> Running<T> {
    #[expect(clippy::new_without_default, reason = "a constant")]
    pub const fn new() -> Self {
        Running(RefCell::new(None))
    }

    pub fn functions(&self, config: &str) -> Result<Vec<scalar::Signature>, String> {
        crate::host::report_panics();
        let guest = T::new(crate::host::config(config)?)?;
        let described = guest.functions().iter().map(Function::described).collect();
        *self.0.borrow_mut() = Some(guest);
        described
    }

    pub fn invoke(&self, name: &str, arguments: Vec<u8>) -> Result<Vec<u8>, scalar::Failure> {
        let work = || -> Result<Vec<u8>, Failure> {
            let mut guest = self.0.borrow_mut();
            let guest = guest.as_mut().ok_or("`functions` has not been called")?;
            let results: Vec<ArrayRef> = ipc::read(arguments)
                .map_err(|error| error.to_string())?
                .iter()
                .map(|batch| guest.invoke(name, batch))
                .collect::<Result<_, _>>()?;
            let data_type = results.first().ok_or("no rows to compute over")?.data_type();
            let schema = Arc::new(result_schema(data_type));
            let batches: Vec<RecordBatch> = results
                .iter()
                .map(|column| crate::operator::batch(&schema, vec![Arc::clone(column)]))
                .collect::<Result<_, _>>()?;
            Ok(ipc::write(&schema, &batches).map_err(|error| error.to_string())?)
        };
        work().map_err(|Failure { message, row }| scalar::Failure { message, row })
    }
}

/// Exports functions for SQL: ordinary functions over rows, or a type that implements
/// [`Functions`](crate::function::Functions) over columns.
///
/// ```
/// logmill_guest::functions! {
///     /// Miles as kilometres.
///     fn kilometres(miles: f64) -> f64 {
///         miles * 1.609_344
///     }
///
///     /// The part of an address after its `@`, null if there is none.
///     fn domain(address: &str) -> Option<String> {
///         address.split_once('@').map(|(_, domain)| domain.to_owned())
///     }
/// }
/// ```
///
/// They stay what they are, so tests can call them.
#[macro_export]
macro_rules! functions {
    ($($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $output:ty $body:block)+) => {
        $($(#[$meta])* $visibility fn $name($($argument: $type),*) -> $output $body)+

        const _: () = {
            use $crate::function::{self, Argument, Function, Functions, Returned, Value};

            struct Rows;

            impl Functions for Rows {
                type Config = Option<$crate::serde::de::IgnoredAny>;

                fn new(_config: Self::Config) -> Result<Self, String> {
                    Ok(Rows)
                }

                fn functions(&self) -> Vec<Function> {
                    vec![$(Function::new(
                        stringify!($name),
                        [$((stringify!($argument), <$type as Argument<'_>>::data_type())),*],
                        <<$output as Returned>::Value as Value>::data_type(),
                    )),+]
                }

                fn invoke(
                    &mut self,
                    name: &str,
                    arguments: &$crate::arrow::array::RecordBatch,
                ) -> Result<$crate::arrow::array::ArrayRef, $crate::operator::Failure> {
                    match name {
                        $(stringify!($name) => {
                            let mut columns = 0..;
                            $(let $argument =
                                function::column::<$type>(arguments, columns.next().unwrap_or_default())?;)*
                            function::rows::<$output>(arguments.num_rows(), |row| {
                                Some($name($(<$type as Argument<'_>>::value(&$argument, row)?),*))
                            })
                        })+
                        _ => Err(format!("there is no function `{name}`").into()),
                    }
                }
            }

            $crate::functions!(Rows);
        };
    };
    ($guest:ty) => {
        // For the machine itself: the guest counts as used.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            let _ = $crate::function::Running::<$guest>::new();
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::wit::function::exports::logmill::function::scalar;

            struct Exported;

            thread_local! {
                static RUNNING: $crate::function::Running<$guest> = const { $crate::function::Running::new() };
            }

            impl scalar::Guest for Exported {
                fn functions(config: String) -> Result<Vec<scalar::Signature>, String> {
                    RUNNING.with(|running| running.functions(&config))
                }

                fn invoke(name: String, arguments: Vec<u8>) -> Result<Vec<u8>, scalar::Failure> {
                    RUNNING.with(|running| running.invoke(&name, arguments))
                }
            }

            $crate::wit::function::export_function!(Exported with_types_in $crate::wit::function);
        };
    };
}
