//! Waiting for a condition with a deadline, the only way the tests wait.

use std::time::{Duration, Instant};

/// For what one component does on its own: an object's status, a line of a log.
pub const SHORT: Duration = Duration::from_secs(20);

/// For what includes pulling an image, compiling a module or several pods' starts on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);

/// Time between two looks at a condition: each is a request to the API server.
const STEP: Duration = Duration::from_millis(200);

/// Looks until `look` gives a value; its last error is returned when `within` is over.
pub fn wait_for<T, E>(within: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(STEP),
        }
    }
}

/// [`wait_for`] that fails the test when the condition does not come true.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, look: impl FnMut() -> Result<T, String>) -> T {
    match wait_for(within, look) {
        Ok(value) => value,
        Err(last) => panic!(
            "not within {} s: {what}; seen last: {last}",
            within.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let value = wait_for(SHORT, || {
            looks += 1;
            if looks == 2 {
                Ok(looks)
            } else {
                Err("not yet")
            }
        });
        assert_eq!(value, Ok(2));
    }

    #[test]
    fn the_last_state_is_reported() {
        let result: Result<(), _> = wait_for(Duration::ZERO, || Err("Pending"));
        assert_eq!(result, Err("Pending"));
    }
}
