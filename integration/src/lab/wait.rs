//! Waiting for conditions.

use anyhow::{Result, bail};
use std::io::{self, ErrorKind};
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

/// A call on a socket with a time limit, again where a signal came between, such as that of a child
/// that has ended: the kernel does not restart those (signal(7)).
///
/// # Errors
/// The call's.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
