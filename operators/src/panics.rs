//! Catches the panics of code that is not ours: functions, kernels and planners that do not expect what a row or a query
//! holds. What a caught panic says becomes an error; it is not printed.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// How many calls of [`catch`] this thread is in.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
}

/// Runs `work`; the error is the message of its panic. After an error, drop what `work` changed, unless it stays valid.
///
/// # Errors
/// It panicked.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if CATCHING.get() == 0 {
                print(panic);
            }
        }));
    });
    CATCHING.set(CATCHING.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(CATCHING.get().saturating_sub(1));
    result.map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn a_panic_becomes_what_it_said() {
        assert_eq!(catch(|| 7), Ok(7));
        assert_eq!(catch(|| -> u8 { panic!("too {}", "late") }), Err("too late".to_owned()));
        assert_eq!(catch(|| catch(|| -> u8 { panic!("inner\nmore") })), Ok(Err("inner".to_owned())));
        assert_eq!(catch(|| -> u8 { std::panic::panic_any(7) }), Err("it panicked".to_owned()));
    }
}
