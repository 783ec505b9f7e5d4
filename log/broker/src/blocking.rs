//! Keeping disk work off the threads that drive everyone else.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinError;

use crate::error::{BrokerError, Result};
use crate::in_place::InPlace;

/// Work on at most this many bytes of page cache is done in place: handing it over would cost more.
const SMALL_BYTES: usize = 1 << 20;

/// Runs work that may wait for the disk on a thread that may.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// Pieces of work that decompress clients' batches, at a time, of all brokers in this process. A few bytes may become
/// [`BatchLimits::DEFAULT_MAX_DECOMPRESSED_BYTES`](logmill_protocol::BatchLimits::DEFAULT_MAX_DECOMPRESSED_BYTES), and
/// more cores than these are better left to others.
static DECOMPRESSING: Semaphore = Semaphore::const_new(4);

/// Runs work that may decompress clients' batches, or wait for the disk: a few at a time, in the order they came.
pub(crate) async fn decompressing<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // It is never closed.
    let permit = DECOMPRESSING.acquire().await.map_err(|_| BrokerError::Closed)?;
    run(move || {
        // Held by the work, which goes on if nobody waits for it any longer.
        let _permit = permit;
        work()
    })
    .await
}

/// Runs work on the page cache: here if it is small and a thread can be [spared](crate::in_place), elsewhere if not.
pub(crate) async fn unless_small<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match (bytes <= SMALL_BYTES).then(InPlace::begin).flatten() {
        Some(_in_place) => work(),
        None => run(work).await,
    }
}

/// Threads that wait for the disk side by side when many logs are opened or closed: the file system then commits their
/// syncs together.
const SIDE_BY_SIDE: usize = 16;

/// Does `work` for every item, many at a time, and returns the results in the items' order, or the first error.
pub(crate) fn side_by_side<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> Result<T> + Sync) -> Result<Vec<T>> {
    if items.len() <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        while let Some((index, item)) = take(items, &next) {
            done.push((index, work(item)));
        }
        done
    };
    let mut results: Vec<(usize, Result<T>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..items.len().min(SIDE_BY_SIDE)).map(|_| scope.spawn(run)).collect();
        let mut results = run();
        for thread in threads {
            results.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn take<'a, I>(items: &'a [I], next: &AtomicUsize) -> Option<(usize, &'a I)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    items.get(index).map(|item| (index, item))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn only_a_few_decompress_at_a_time() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let work = || {
            MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(2));
            NOW.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        };
        let all: Vec<_> = (0..40).map(|_| tokio::spawn(decompressing(work))).collect();
        for one in all {
            joined(one.await).unwrap();
        }
        assert!((1..=4).contains(&MOST.load(Ordering::SeqCst)), "{MOST:?}");
    }

    #[test]
    fn results_come_in_the_order_of_the_items_and_the_first_error_wins() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(side_by_side(&items, |n| Ok(n * 2)).unwrap(), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        let fail = |n: &usize| if *n < 40 { Ok(*n) } else { Err(BrokerError::Invalid(n.to_string())) };
        assert_eq!(side_by_side(&items, fail).unwrap_err().to_string(), "40");
        assert!(side_by_side(&[], |n: &usize| Ok(*n)).unwrap().is_empty());
    }
}
