//! Clocks and random numbers of the profile `deterministic`.
//!
//! Both clocks start at a fixed time and are a microsecond later at every look, so that a guest that waits
//! for time to pass gets ahead, and sees the same times in every run. A wait still takes its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// The wall clock's first answer: 2000-01-01 00:00:00 UTC, in seconds since 1970.
const EPOCH_SECONDS: u64 = 946_684_800;

/// Time between two looks, in nanoseconds.
const STEP_NANOS: u64 = 1_000;

/// What the random numbers are made from.
const SEED: &[u8] = b"wasmlet deterministic 1";

/// Bytes after which they repeat.
const RANDOM_BYTES: usize = 64 * 1024;

pub(super) fn set(wasi: &mut WasiCtxBuilder) {
    let ticks = Ticks::default();
    let bytes = random_bytes();
    wasi.wall_clock(ticks.clone())
        .monotonic_clock(ticks)
        .secure_random(Deterministic::new(bytes.clone()))
        .insecure_random(Deterministic::new(bytes))
        .insecure_random_seed(0);
}

/// SHA-256 of the seed and a counter, one after the other.
fn random_bytes() -> Vec<u8> {
    (0_u64..)
        .flat_map(|counter| {
            let mut hash = Sha256::new();
            hash.update(SEED);
            hash.update(counter.to_le_bytes());
            hash.finalize()
        })
        .take(RANDOM_BYTES)
        .collect()
}

/// One count of looks for both clocks.
#[derive(Debug, Clone, Default)]
struct Ticks(Arc<AtomicU64>);

impl Ticks {
    fn next(&self) -> u64 {
        self.0.fetch_add(STEP_NANOS, Ordering::Relaxed)
    }
}

impl HostWallClock for Ticks {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(STEP_NANOS)
    }

    fn now(&self) -> Duration {
        Duration::from_secs(EPOCH_SECONDS) + Duration::from_nanos(self.next())
    }
}

impl HostMonotonicClock for Ticks {
    fn resolution(&self) -> u64 {
        STEP_NANOS
    }

    fn now(&self) -> u64 {
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_at_the_same_moment_and_goes_on() {
        for _ in 0..2 {
            let ticks = Ticks::default();
            assert_eq!(
                HostWallClock::now(&ticks),
                Duration::from_secs(EPOCH_SECONDS)
            );
            assert_eq!(HostMonotonicClock::now(&ticks), STEP_NANOS);
        }
    }

    #[test]
    fn random_bytes_are_always_the_same_and_look_random() {
        let bytes = random_bytes();
        assert_eq!(bytes, random_bytes());
        assert_eq!(bytes.len(), RANDOM_BYTES);
        let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
        let half = u32::try_from(RANDOM_BYTES * 4).expect("small");
        assert!(ones.abs_diff(half) < half / 50, "{ones} of {half}");
        // The first of them; a change would change every deterministic run.
        assert_eq!(bytes[..4], FIRST);
    }

    const FIRST: [u8; 4] = [36, 231, 40, 177];
}
