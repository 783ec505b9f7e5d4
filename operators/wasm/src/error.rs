//! What can go wrong with a guest, in words of the person who wrote it.

use std::time::Duration;

/// Why a module cannot be used, or an instance of it not be made.
#[derive(Debug, thiserror::Error)]
pub enum WasmError {
    /// The bytes are no WebAssembly that can be read.
    #[error("not a WebAssembly module: {0}")]
    NotWasm(String),
    /// The module can be read but not compiled, or its component types do not fit it.
    #[error("the module is not valid: {0}")]
    Invalid(String),
    /// It imports something that guests do not get.
    #[error("the module imports what guests do not get: {0}")]
    Import(String),
    /// It exports nothing of ours, only a part of it, or with other types.
    #[error("the module cannot be called: {0}")]
    Export(String),
    /// It needs more memory to begin with than the limit allows.
    #[error(
        "the module needs {needed_bytes} bytes of memory to begin with, the limit is {limit_bytes}; raise `memory:`"
    )]
    Memory {
        /// What it asks for.
        needed_bytes: u64,
        /// What it may have.
        limit_bytes: u64,
    },
    /// An instance could not be made: its start function failed, or the process has no room for one more.
    #[error("the module does not start: {0}")]
    Start(String),
    /// The engine itself could not be set up.
    #[error("WebAssembly cannot be run here: {0}")]
    Engine(String),
}

/// Why a transform gave nothing for a batch of records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct TransformError {
    /// What went wrong.
    pub error: CallError,
    /// The record on which it did, counted from 0 within the batch: known of guests that take one at a time. Nothing if the
    /// batch as a whole is to blame, as it is where memory ran out: earlier records may have used it up.
    pub row: Option<usize>,
}

impl From<CallError> for TransformError {
    fn from(error: CallError) -> TransformError {
        TransformError { error, row: None }
    }
}

/// Why a call into a guest gave nothing. After any of these but `Refused` the instance must be thrown away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The guest returned an error.
    #[error("{message}")]
    Refused {
        /// What it said.
        message: String,
        /// The row it blames, counted from 0 within the batch.
        row: Option<u32>,
    },
    /// The guest ran into a trap: a panic, an abort, an access outside its memory, a division by zero.
    #[error("the guest failed: {0}")]
    Trapped(String),
    /// The call took longer than it may.
    #[error("the guest did not come back within {deadline:?}")]
    Deadline {
        /// What a call may take.
        deadline: Duration,
    },
    /// The guest failed after it was refused more memory.
    #[error("the guest failed for want of memory: the limit is {limit_bytes} bytes; raise `memory:`")]
    Memory {
        /// What it may have.
        limit_bytes: u64,
    },
    /// The guest's calls nest too deep, without end as a rule.
    #[error("the guest's calls nest too deep: its stack is full")]
    Stack,
    /// What the guest gave cannot be read, or whoever got it cannot use it.
    #[error("the guest's output cannot be used: {0}")]
    Output(String),
}
