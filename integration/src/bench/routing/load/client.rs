//! Asks at a constant rate, whatever becomes of the answers, or as fast as they come.

use super::server::{REQUEST, serve};
use crate::bench::routing::pair::Pair;
use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Connections that the requests are spread over, in turn.
const CONNECTIONS: usize = 16;
/// How long no answer at all may come.
const LIMIT: Duration = Duration::from_secs(20);
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Connections from a client to a server that answers.
///
/// The client never sleeps: a timer that is late would be counted as latency of the path.
pub(super) struct Line {
    connections: Vec<Connection>,
    ready: OwnedFd,
    events: Vec<epoll::Event>,
    server: Option<std::thread::JoinHandle<Result<()>>>,
}

/// What came of requests at a constant rate.
pub(super) struct Load {
    /// Microseconds from the moment each request was due until its answer was whole.
    pub(super) latencies: Vec<f64>,
    /// Answers in a second until the last one: fewer than requests where a path does not keep up.
    pub(super) per_second: f64,
}

struct Connection {
    stream: TcpStream,
    /// When the requests were due that are not answered yet.
    due: VecDeque<Duration>,
    /// What the kernel did not take at once.
    unwritten: Vec<u8>,
    /// Octets of the answer that is not whole yet.
    arrived: usize,
}

impl Line {
    pub(super) fn open(pair: &Pair) -> Result<Self> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (mut connections, mut accepted) = (Vec::new(), Vec::new());
        for number in 0..CONNECTIONS {
            let (stream, end) = pair.connection()?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(u64::try_from(number)?);
            epoll::add(&ready, &stream, data, epoll::EventFlags::IN)?;
            accepted.push(end);
            connections.push(Connection {
                stream,
                due: VecDeque::new(),
                unwritten: Vec::new(),
                arrived: 0,
            });
        }
        Ok(Self {
            connections,
            ready,
            events: Vec::with_capacity(CONNECTIONS),
            server: Some(std::thread::spawn(move || serve(accepted))),
        })
    }

    /// How long answers of `reply` octets take when requests come at this rate. What is late delays
    /// nothing: a path that does not keep up is asked on, the time for which its requests queue is
    /// counted, and all answers are waited for, however many seconds that takes.
    pub(super) fn load(&mut self, reply: usize, per_second: f64, time: Duration) -> Result<Load> {
        let wanted = ((per_second * time.as_secs_f64()) as usize).max(1);
        let due = |number: usize| Duration::from_secs_f64(number as f64 / per_second);
        let (start, mut asked, mut taken) = (Instant::now(), 0, Vec::with_capacity(wanted));
        let mut last = Duration::ZERO;
        while taken.len() < wanted {
            let now = start.elapsed();
            if now > last.max(time) + LIMIT {
                bail!("{} of {wanted} answers after {now:?}", taken.len());
            }
            if asked < wanted && due(asked) <= now {
                self.connections[asked % CONNECTIONS].ask(reply, due(asked))?;
                asked += 1;
            }
            self.collect(reply, |_, due| {
                last = start.elapsed();
                taken.push(last.saturating_sub(due).as_secs_f64() * 1e6);
                Ok(())
            })?;
        }
        Ok(Load {
            per_second: wanted as f64 / last.max(time).as_secs_f64(),
            latencies: taken,
        })
    }

    /// Answers in a second when each connection asks again as soon as it has been answered, for
    /// this time, until the last answer is there.
    pub(super) fn greatest(&mut self, reply: usize, time: Duration) -> Result<f64> {
        for connection in &mut self.connections {
            connection.ask(reply, Duration::ZERO)?;
        }
        let (start, mut answers, mut asked) = (Instant::now(), 0_usize, CONNECTIONS);
        let mut last = Duration::ZERO;
        while answers < asked {
            if start.elapsed() > last + LIMIT {
                bail!("{answers} of {asked} answers");
            }
            self.collect(reply, |connection, _| {
                answers += 1;
                last = start.elapsed();
                if last < time {
                    asked += 1;
                    connection.ask(reply, Duration::ZERO)?;
                }
                Ok(())
            })?;
        }
        Ok(answers as f64 / last.as_secs_f64())
    }

    /// Hands each answer that is whole to `each`, with when its request was due, and does not wait
    /// for any.
    fn collect(
        &mut self,
        reply: usize,
        mut each: impl FnMut(&mut Connection, Duration) -> Result<()>,
    ) -> Result<()> {
        match epoll::wait(
            &self.ready,
            spare_capacity(&mut self.events),
            Some(&AT_ONCE),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll"),
        }
        for event in self.events.drain(..) {
            let number = usize::try_from(event.data.u64())?;
            let connection = &mut self.connections[number];
            for _ in 0..connection.read(reply)? {
                let due = connection.due.pop_front().context("an answer too many")?;
                each(connection, due)?;
            }
        }
        for connection in &mut self.connections {
            connection.write()?;
        }
        Ok(())
    }
}

impl Connection {
    fn ask(&mut self, reply: usize, due: Duration) -> Result<()> {
        let mut request = [0; REQUEST];
        request[..4].copy_from_slice(&u32::try_from(reply)?.to_be_bytes());
        self.unwritten.extend_from_slice(&request);
        self.due.push_back(due);
        self.write()
    }

    /// Writes what the kernel takes.
    fn write(&mut self) -> Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.unwritten) {
            Ok(length) => drop(self.unwritten.drain(..length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("a request"),
        }
        Ok(())
    }

    /// Reads once; how many answers became whole by it.
    fn read(&mut self, reply: usize) -> Result<usize> {
        let mut buffer = [0; 1 << 16];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("the server has ended"),
            Ok(length) => self.arrived += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("an answer"),
        }
        let whole = self.arrived / reply;
        self.arrived %= reply;
        Ok(whole)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connections.clear();
        if let Some(Ok(Err(error))) = self.server.take().map(std::thread::JoinHandle::join) {
            eprintln!("the server of a load: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Lab;

    #[test]
    fn every_request_is_answered_and_a_late_answer_is_late_since_its_request_was_due() -> Result<()>
    {
        let lab = Lab::new()?;
        let alone = lab.netns("alone")?;
        alone.ip(["link set lo up"])?;
        let pair = Pair::new(&alone, &alone, [127, 0, 0, 1].into())?;
        let mut line = Line::open(&pair)?;
        for reply in [1, 100, 4096] {
            let load = line.load(reply, 1000.0, Duration::from_millis(50))?;
            assert_eq!(load.latencies.len(), 50);
            assert!(load.per_second <= 1000.0, "{}", load.per_second);
            assert!(line.greatest(reply, Duration::from_millis(20))? > 0.0);
        }
        // More than any machine answers: all of them are due within the first millisecond, and the
        // answers come one after the other.
        let load = line.load(4096, 5e6, Duration::from_millis(1))?;
        assert_eq!(load.latencies.len(), 5000);
        let (first, last) = (load.latencies[0], load.latencies[4999]);
        assert!(first < last, "{first} {last}");
        assert!(load.per_second < 5e6, "{}", load.per_second);
        Ok(())
    }
}
