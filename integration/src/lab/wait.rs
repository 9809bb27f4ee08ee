//! Waiting for conditions.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` says `Ok`, or `limit` is over. What it saw last is in the error.
///
/// # Errors
/// The condition did not come true in time.
pub fn until<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let last = match look() {
            Ok(value) => return Ok(value),
            Err(last) => last,
        };
        if Instant::now() >= deadline {
            bail!(
                "{what}: not within {:.1} s; last seen: {last}",
                limit.as_secs_f64()
            );
        }
        std::thread::sleep(PAUSE);
    }
}
