//! Runs what may block, or compute for long, off the runtime's own threads.

use crate::error::ConnectorError;

/// Runs `call` on a thread that may block. If the future is dropped, the call still runs to its end.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
) -> Result<T, ConnectorError> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|error| {
        Err(ConnectorError::Permanent { context: "a thread of the connector died".into(), source: error.into() })
    })
}
