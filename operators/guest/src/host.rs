//! What the engine offers a guest: a line in the pipeline's log and the time. Built for the machine itself, as tests are, the
//! lines go to stderr and the time is 0.

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For the guest's author.
    Debug,
    /// Worth knowing.
    Info,
    /// Something may be wrong.
    Warn,
    /// Something is wrong.
    Error,
}

/// Writes a line to the pipeline's log. Lines above the engine's rate limit are counted and left out.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    {
        use crate::wit::host::logmill::operator::host;
        let level = match level {
            Level::Debug => host::Level::Debug,
            Level::Info => host::Level::Info,
            Level::Warn => host::Level::Warn,
            Level::Error => host::Level::Error,
        };
        host::log(level, message);
    }
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?}: {message}");
}

/// The engine's clock: microseconds since the Unix epoch, UTC. It stands still during a call, and a repeated call sees the
/// time of the first.
#[must_use]
pub fn now_us() -> i64 {
    #[cfg(target_arch = "wasm32")]
    return crate::wit::host::logmill::operator::host::now();
    #[cfg(not(target_arch = "wasm32"))]
    0
}

/// Lets a panic's message and place reach the log before the instance traps: without a system below, it would be lost.
#[doc(hidden)]
pub fn report_panics() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic_line(panic)))));
    }
}

/// A panic in one line, as a log wants it.
#[cfg(target_arch = "wasm32")]
fn panic_line(panic: &std::panic::PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = panic.location().map_or_else(String::new, |place| format!(", at {place}"));
    format!("panicked: {}{place}", message.unwrap_or("with a value that is no text"))
}

/// Reads an operator's `config:`.
pub(crate) fn config<C: serde::de::DeserializeOwned>(text: &str) -> Result<C, String> {
    serde_json::from_str(text).map_err(|error| format!("config: {error}"))
}
