//! Trying again what may pass: exponential back-off with jitter, a bounded number of times.

use std::time::Duration;

use logmill_connectors::error::ConnectorError;

/// How often a call is made in all.
const ATTEMPTS: u32 = 6;
/// The longest pause before the second try; it doubles with each.
const FIRST_PAUSE: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_millis(100) };

/// Calls until the result is not a transient error, or the attempts are used up.
pub(crate) async fn transient<T, F>(mut call: impl FnMut() -> F) -> Result<T, ConnectorError>
where
    F: Future<Output = Result<T, ConnectorError>>,
{
    let mut attempt = 1;
    loop {
        match call().await {
            Err(ConnectorError::Transient { context, source }) if attempt < ATTEMPTS => {
                let pause = FIRST_PAUSE * 2_u32.pow(attempt - 1);
                tracing::warn!(attempt, "{context}: {source}; trying again");
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test]
    async fn only_transient_errors_are_tried_again_and_not_for_ever() {
        check(|_| None, 1, true).await;
        check(|call| if call < 3 { passing() } else { None }, 3, true).await;
        check(|_| passing(), ATTEMPTS, false).await;
        check(|_| Some(ConnectorError::Config("no".into())), 1, false).await;
    }
}
