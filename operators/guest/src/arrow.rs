//! Arrow's columns, by the paths that they have in the crate `arrow`. For its kernels (`arrow::compute`) let a guest depend on
//! `arrow` itself, of the same major version, without its default features: the types are the same.

/// Columns, batches and what builds them.
pub mod array {
    pub use arrow_array::builder::*;
    pub use arrow_array::cast::*;
    pub use arrow_array::*;
    pub use arrow_data::ArrayData;
}

/// What columns are made of.
pub mod buffer {
    pub use arrow_buffer::{
        BooleanBuffer, BooleanBufferBuilder, Buffer, MutableBuffer, NullBuffer, NullBufferBuilder, OffsetBuffer,
        ScalarBuffer,
    };
}

/// Types, fields and schemas.
pub mod datatypes {
    pub use arrow_array::types::*;
    pub use arrow_buffer::{ArrowNativeType, i256};
    pub use arrow_schema::*;
}

/// What Arrow says if columns do not fit.
pub mod error {
    pub use arrow_schema::ArrowError;
}

/// Batches as bytes.
pub mod ipc {
    pub use arrow_ipc::*;
}
