//! One request at a time until one was answered.
//!
//! An HTTP client learns with a connection whether the server speaks HTTP/2. Until then it opens one
//! for each request that it has: with a watch for each kind that would be twenty TLS handshakes of
//! every node that starts, or that has lost its server together with all the others. So one request
//! goes ahead; the others share its connection, or why there is none.

use super::client::ApiError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Mutex, MutexGuard};

/// What requests pass on their way to the servers.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// A request was answered, and none has failed since.
    open: AtomicBool,
    /// How often the one that went ahead failed.
    failures: AtomicU64,
    /// Whose turn it is to go ahead, and why the last one failed.
    turn: Mutex<Option<ApiError>>,
}

impl Gate {
    /// Asks, alone where nobody was answered yet. Whoever waits while that fails has failed too.
    pub(super) async fn through<T>(
        &self,
        ask: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let mut turn = self.turn().await?;
        let outcome = ask.await;
        match &outcome {
            Ok(_) => self.open.store(true, Ordering::Release),
            Err(error) => {
                self.close();
                if let Some(reason) = &mut turn {
                    **reason = Some(error.clone());
                    self.failures.fetch_add(1, Ordering::Release);
                }
            }
        }
        outcome
    }

    /// The connection may be lost: the next request goes ahead again.
    pub(super) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// The turn to go ahead; none where requests need not wait for each other.
    async fn turn(&self) -> Result<Option<MutexGuard<'_, Option<ApiError>>>, ApiError> {
        if self.is_open() {
            return Ok(None);
        }
        let before = self.failures.load(Ordering::Acquire);
        let turn = self.turn.lock().await;
        if self.is_open() {
            return Ok(None);
        }
        match &*turn {
            Some(error) if self.failures.load(Ordering::Acquire) != before => Err(error.clone()),
            _ => Ok(Some(turn)),
        }
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use tokio::sync::Notify;
    use tokio::task::yield_now;

    fn unreachable() -> ApiError {
        ApiError::Unreachable {
            server: "https://10.0.0.1:6443".to_owned(),
            reason: "connection refused".to_owned(),
        }
    }

    /// Everybody has gone as far as they can.
    async fn settle() {
        for _ in 0..10 {
            yield_now().await;
        }
    }

    /// A server that answers when told to, and counts who asks.
    #[derive(Default)]
    struct Server {
        gate: Gate,
        asked: Cell<usize>,
        answer: Notify,
        is_away: Cell<bool>,
        outcomes: RefCell<Vec<bool>>,
    }

    impl Server {
        async fn request(&self) {
            let outcome = self.gate.through(async {
                self.asked.set(self.asked.get() + 1);
                self.answer.notified().await;
                match self.is_away.get() {
                    true => Err(unreachable()),
                    false => Ok(()),
                }
            });
            let outcome = outcome.await.is_ok();
            self.outcomes.borrow_mut().push(outcome);
        }

        /// Three requests at once; how many asked before and after the first answer.
        async fn three(&self) -> (usize, usize) {
            let look = async {
                settle().await;
                let first = self.asked.take();
                self.answer.notify_waiters();
                settle().await;
                let then = self.asked.take();
                self.answer.notify_waiters();
                (first, then)
            };
            let (_, _, _, seen) =
                tokio::join!(self.request(), self.request(), self.request(), look);
            seen
        }
    }

    #[tokio::test]
    async fn one_goes_ahead_and_the_others_follow_its_answer_together() {
        let server = Server::default();
        assert_eq!(server.three().await, (1, 2));
        assert_eq!(server.three().await, (3, 0));
        server.gate.close();
        assert_eq!(server.three().await, (1, 2));
        assert!(server.outcomes.take().into_iter().all(|good| good));
    }

    #[tokio::test]
    async fn those_that_waited_share_the_failure_and_those_that_come_later_ask_again() {
        let server = Server::default();
        server.is_away.set(true);
        assert_eq!(server.three().await, (1, 0));
        assert_eq!(server.outcomes.take(), [false; 3]);
        server.is_away.set(false);
        assert_eq!(server.three().await, (1, 2));
        assert_eq!(server.outcomes.take(), [true; 3]);
    }
}
