//! Trying again what may pass: exponential back-off with jitter, a bounded number of times.

use std::time::Duration;

use logmill_connectors::error::ConnectorError;

/// How often a call is made in all.
const ATTEMPTS: u32 = 6;
/// The longest pause before the second try; it doubles with each.
const FIRST_PAUSE: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_millis(100) };

/// Counts the failures since something last succeeded, and waits longer after each.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something succeeded: the next failure is again the first.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits, if the error is transient and attempts are left.
    ///
    /// # Errors
    /// The error otherwise.
    pub(crate) async fn wait_after(&mut self, error: ConnectorError) -> Result<(), ConnectorError> {
        self.failures += 1;
        if !error.is_transient() || self.failures >= ATTEMPTS {
            return Err(error);
        }
        let pause = FIRST_PAUSE * 2_u32.pow(self.failures - 1);
        let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        tracing::warn!(attempt = self.failures, "{error}{cause}; trying again");
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        Ok(())
    }
}

/// Calls until the result is not a transient error, or the attempts are used up.
pub(crate) async fn transient<T, F>(mut call: impl FnMut() -> F) -> Result<T, ConnectorError>
where
    F: Future<Output = Result<T, ConnectorError>>,
{
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Err(error) => backoff.wait_after(error).await?,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logmill_connectors::error::LogError;

    async fn check(error: fn(u32) -> Option<ConnectorError>, expected_calls: u32, succeeds: bool) {
        let mut calls = 0;
        let result = transient(|| {
            calls += 1;
            let error = error(calls);
            async move { error.map_or(Ok(()), Err) }
        })
        .await;
        assert_eq!((calls, result.is_ok()), (expected_calls, succeeds));
    }

    fn passing() -> Option<ConnectorError> {
        Some(ConnectorError::Transient { context: "call".into(), source: "busy".into() })
    }

    fn unreachable_log() -> Option<ConnectorError> {
        Some(LogError::Unreachable { context: "no answer".into(), source: "timed out".into() }.into())
    }

    #[tokio::test]
    async fn only_transient_errors_are_tried_again_and_not_for_ever() {
        check(|_| None, 1, true).await;
        check(|call| if call < 3 { passing() } else { None }, 3, true).await;
        check(|_| passing(), ATTEMPTS, false).await;
        check(|_| Some(ConnectorError::Config("no".into())), 1, false).await;
        check(|call| if call < 3 { unreachable_log() } else { None }, 3, true).await;
    }
}
