//! The last words to those that are not served. Anybody can connect, so only so many get any.

use crate::connection::LINGER;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Farewells at a time; each holds a socket for up to [`LINGER`].
const FAREWELLS: usize = 32;

/// Ends connections that are not served.
#[derive(Debug)]
pub(crate) struct Farewells {
    places: Arc<Semaphore>,
}

impl Farewells {
    /// None is being said.
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(FAREWELLS)),
        }
    }

    /// Sends `last` and closes the connection; only closes it if too many take their time already.
    pub(crate) fn say(&self, stream: TcpStream, last: Vec<u8>, tasks: &mut JoinSet<()>) {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            tasks.spawn(async move {
                // A stranger that does not listen has had its chance.
                let _ = tokio::time::timeout(LINGER, farewell(stream, &last)).await;
                drop(place);
            });
        }
    }
}

async fn farewell(mut stream: TcpStream, last: &[u8]) -> io::Result<()> {
    stream.write_all(last).await?;
    stream.shutdown().await?;
    let mut unread = [0; 512];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use tokio::net::TcpListener;

    async fn connected(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let stranger = TcpStream::connect(listener.local_addr().unwrap());
        let (stranger, accepted) = tokio::join!(stranger, listener.accept());
        (stranger.unwrap(), accepted.unwrap().0)
    }

    async fn heard(mut stranger: TcpStream) -> Vec<u8> {
        let mut words = Vec::new();
        stranger.read_to_end(&mut words).await.unwrap();
        words
    }

    /// Tasks of this runtime run only while the test waits, so all connections are there at once.
    #[tokio::test]
    async fn strangers_beyond_the_limit_are_cut_off_without_a_word() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut strangers, mut accepted) = (Vec::new(), Vec::new());
        for _ in 0..FAREWELLS + 8 {
            let (stranger, ours) = connected(&listener).await;
            strangers.push(stranger);
            accepted.push(ours);
        }
        let (farewells, mut tasks) = (Farewells::new(), JoinSet::new());
        for stream in accepted {
            farewells.say(stream, b"farewell".to_vec(), &mut tasks);
        }
        assert_eq!(tasks.len(), FAREWELLS);
        for (index, stranger) in strangers.into_iter().enumerate() {
            let expected: &[u8] = if index < FAREWELLS { b"farewell" } else { b"" };
            assert_eq!(heard(stranger).await, expected, "stranger {index}");
        }

        while tasks.join_next().await.is_some() {}
        let (stranger, ours) = connected(&listener).await;
        farewells.say(ours, b"farewell".to_vec(), &mut tasks);
        assert_eq!(heard(stranger).await, b"farewell", "places are given back");
    }
}
