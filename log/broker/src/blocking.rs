//! Keeping disk work off the threads that drive everyone else.

use tokio::task::JoinError;

use crate::error::{BrokerError, Result};

/// Work on at most this many bytes of page cache is done in place: handing it over would cost more.
const SMALL_BYTES: usize = 1 << 20;

/// Runs work that may wait for the disk on a thread that may.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// Runs work on the page cache: here if it is small, elsewhere if not.
pub(crate) async fn unless_small<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes <= SMALL_BYTES { work() } else { run(work).await }
}

/// The result of a task; its panic is the caller's.
pub(crate) fn joined<T>(result: Result<Result<T>, JoinError>) -> Result<T> {
    match result.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Cancelled: the runtime is shutting down.
        Err(Err(_)) => Err(BrokerError::Closed),
    }
}
