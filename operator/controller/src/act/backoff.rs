//! When something that failed is done again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::plan::Key;

/// Pause after a first failure.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause.
const MOST: Duration = Duration::from_secs(60);

/// Keys that are left alone for a while.
#[derive(Debug, Default)]
pub struct Backoff {
    held: BTreeMap<Key, Held>,
}

#[derive(Debug)]
struct Held {
    failures: u32,
    until: Instant,
}

impl Backoff {
    /// A sequence with this key failed. The pause doubles with each failure; `jitter` from 0 to 1 spreads it over its upper half.
    pub fn failed(&mut self, key: Key, now: Instant, jitter: f64) {
        let failures = self
            .held
            .get(&key)
            .map_or(1, |held| held.failures.saturating_add(1));
        let pause = FIRST
            .saturating_mul(1 << failures.clamp(1, 10).saturating_sub(1))
            .min(MOST);
        let until = now + pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.held.insert(key, Held { failures, until });
    }

    /// A sequence with this key succeeded; it is left alone for a time, so that what changes all the time is not written all the time.
    pub fn succeeded(&mut self, key: Key, now: Instant, rest: Duration) {
        if rest.is_zero() {
            self.held.remove(&key);
        } else {
            self.held.insert(
                key,
                Held {
                    failures: 0,
                    until: now + rest,
                },
            );
        }
    }

    /// Until when a key is left alone.
    pub fn held(&self, key: &Key, now: Instant) -> Option<Instant> {
        self.held
            .get(key)
            .map(|held| held.until)
            .filter(|until| *until > now)
    }

    /// Forgets keys that nothing is planned for any more.
    pub fn keep(&mut self, planned: impl Fn(&Key) -> bool, now: Instant) {
        self.held
            .retain(|key, held| held.until > now || planned(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::Node("a".to_owned())
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_success_ends_them() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            backoff.failed(key(), now, 1.0);
            pauses.push((backoff.held(&key(), now).unwrap() - now).as_millis());
        }
        assert_eq!(
            pauses,
            [
                500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000, 60000, 60000
            ]
        );
        backoff.succeeded(key(), now, Duration::ZERO);
        assert_eq!(backoff.held(&key(), now), None);
    }

    #[test]
    fn a_pause_ends_by_itself_and_its_count_stays_while_something_is_planned() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.failed(key(), now, 0.0);
        let later = now + Duration::from_millis(250);
        assert_eq!(backoff.held(&key(), later), None);
        backoff.keep(|_| true, later);
        backoff.failed(key(), later, 1.0);
        assert_eq!(
            backoff.held(&key(), later).unwrap() - later,
            Duration::from_secs(1)
        );
        let end = later + Duration::from_secs(1);
        backoff.keep(|_| false, end);
        backoff.failed(key(), end, 1.0);
        assert_eq!(backoff.held(&key(), end).unwrap() - end, FIRST);
    }
}
