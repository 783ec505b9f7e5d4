//! Ports for the servers that tests start.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that connections get for themselves (from 32768 on, on Linux): a server that is started again must find its
/// port as it left it.
const FIRST: u16 = 20_000;
/// How many there are, in pairs.
const PAIRS: u16 = 6_000;

/// A port that nobody listens on, nor on the one after it. No two calls give the same.
pub fn free() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let candidate = |_| {
        let number = std::process::id().wrapping_mul(7).wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed));
        FIRST + 2 * u16::try_from(number % u32::from(PAIRS)).unwrap()
    };
    (0..PAIRS).map(candidate).find(|port| is_free(*port) && is_free(port + 1)).expect("a free port")
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_has_its_own() {
        let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| super::free()).collect();
        assert_eq!(ports.len(), 50);
    }
}
