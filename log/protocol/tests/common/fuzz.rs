//! Fuzzing on stable Rust: valid input, mutated, until the time is up, with an eye on memory.
//!
//! A fixed number of cases, always the same, unless `LOGMILL_FUZZ_SECONDS` says how long to go on with others. What fails names the seed of its case, and
//! `LOGMILL_FUZZ_SEED` begins with it. Coverage does not guide the search; corpora that hold every kind of input do.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::System;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts what is allocated, so that a case that takes too much can be told.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Makes an input of each seed and has it checked: `short` many without `LOGMILL_FUZZ_SECONDS`, never fewer with it.
/// `check` returns the most bytes that it may have allocated in all.
pub fn run(
    name: &str,
    short: u64,
    mut make: impl FnMut(&mut Rng) -> Vec<u8>,
    mut check: impl FnMut(&[u8], &mut Rng) -> usize,
) {
    let seconds = variable("LOGMILL_FUZZ_SECONDS");
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let first = variable("LOGMILL_FUZZ_SEED").unwrap_or_else(|| seconds.map_or(1, |_| clock()));
    tell(&format!("fuzzing {name} from seed {first}\n"));
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    let mut cases: u64 = 0;
    while cases < short || Instant::now() < end {
        let seed = first.wrapping_add(cases);
        let mut random = Rng::with_seed(seed);
        let input = make(&mut random);
        let region = Region::new(ALLOCATOR);
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input, &mut random)));
        let allocated = region.change().bytes_allocated;
        match checked {
            Ok(most) if allocated <= most => {}
            Ok(most) => panic!(
                "{name}: {allocated} bytes allocated for an input of {}, {most} are allowed\n{}",
                input.len(),
                reproduce(seed, &input)
            ),
            Err(_) => panic!("{name}: see the panic above\n{}", reproduce(seed, &input)),
        }
        cases += 1;
    }
    tell(&format!("fuzzed {name}: {cases} cases\n"));
}

/// Past the test runner, which would keep it: it is all that is known should the process be aborted for want of memory.
fn tell(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn reproduce(seed: u64, input: &[u8]) -> String {
    format!("LOGMILL_FUZZ_SEED={seed} reproduces it, with the input {:02x?}", &input[..input.len().min(4096)])
}

/// Numbers at which arithmetic goes wrong, big-endian and as varints.
const EXTREMES: [&[u8]; 12] = [
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x00\xff\xff\xff",
    b"\x7f\xff",
    b"\x80\x00",
    b"\xff\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x01",
    b"\x00",
];

/// Changes `bytes` in one place: half of the time among the first `head`, where the structure is.
pub fn mutate(random: &mut Rng, bytes: &mut Vec<u8>, donor: &[u8], head: usize) {
    if bytes.is_empty() {
        bytes.push(random.u8(..));
    }
    let end = if random.bool() { bytes.len().min(head) } else { bytes.len() };
    let at = random.usize(..end.max(1));
    let piece_of = |random: &mut Rng, from: &[u8]| {
        let begin = random.usize(..from.len().max(1)).min(from.len());
        from[begin..(begin + random.usize(1..60)).min(from.len())].to_vec()
    };
    match random.u8(..9) {
        0 => bytes[at] ^= 1 << random.u8(..8),
        1 => bytes[at] = random.u8(..),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.u8(..)),
        4 => drop(bytes.drain(at..(at + random.usize(1..20)).min(bytes.len()))),
        5 | 6 => {
            let extreme = EXTREMES[random.usize(..EXTREMES.len())];
            let room = (bytes.len() - at).min(extreme.len());
            bytes[at..at + room].copy_from_slice(&extreme[..room]);
        }
        7 => {
            let piece = piece_of(random, donor);
            bytes.splice(at..at, piece);
        }
        _ => {
            // Itself again: repeated fields and tags.
            let piece = piece_of(random, bytes);
            bytes.splice(at..at, piece);
        }
    }
}
