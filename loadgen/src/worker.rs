//! One thread of the generator: an epoll loop over its connections. Decides when to look at the clock, when to stop and
//! when to give up; what a connection does then is `connection`'s.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::connection::{Connection, Surroundings};
use crate::exchange::Exchange;
use crate::plan::Plan;
use crate::record::{Record, Shelf, Window};
use crate::request::Requests;
use crate::thread_time::ThreadTime;

/// How often timeouts, pauses and the end of the run are looked at.
const TICK: Duration = Duration::from_millis(5);

/// How often samples are handed to the progress thread.
const PUBLISH: Duration = Duration::from_millis(250);

/// One read; as large as the answers of all connections of a small run together.
const READ_BYTES: usize = 64 << 10;

/// Without any answer for this many timeouts the run is given up.
const SILENT_TIMEOUTS_MAX: u32 = 3;

/// How the rest of the process ends a run before its time.
#[derive(Debug, Default)]
pub struct Control {
    /// Begin nothing new, finish what is under way. Set by signals.
    pub stop: std::sync::Arc<AtomicBool>,
    /// Leave at once: the broker refused the very first requests.
    pub abort: AtomicBool,
}

/// Why a worker's loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was sent and answered, or the time was over.
    Done,
    /// The broker refused before it had taken anything; its words.
    Refused(String),
    /// No answer for too long.
    Silent,
}

/// What a worker brings home.
#[derive(Debug)]
pub struct Report<'a> {
    /// Its ledger.
    pub record: Record<'a>,
    /// Why it ended.
    pub ended: Ended,
    /// Time of the thread until nothing new was begun.
    pub time: ThreadTime,
    /// Time until nothing new was begun.
    pub wall: Duration,
    /// Length of the measured part.
    pub measured: Duration,
}

/// What all workers of a run share.
#[derive(Clone, Copy, Debug)]
pub struct Run<'p> {
    /// What to send.
    pub plan: &'p Plan,
    /// Its templates.
    pub requests: &'p Requests<'p>,
    /// Where to.
    pub address: SocketAddr,
    /// When it began, and which part is measured.
    pub start: Instant,
    /// The measured part; nothing new begins after its end.
    pub window: Window,
    /// How it may be ended from outside.
    pub control: &'p Control,
}

struct Worker<'p> {
    run: Run<'p>,
    poll: Poll,
    connections: Vec<Connection<'p>>,
    record: Record<'p>,
    buffer: Box<[u8]>,
    /// Set once nothing new is begun: thread time, time since the start, and when waiting for answers ends.
    closed: Option<Closed>,
}

#[derive(Clone, Copy)]
struct Closed {
    time: ThreadTime,
    wall: Duration,
    wait_until: Instant,
}

/// Drives the connections `index`, `index + threads`, … to the end of the run.
pub fn drive<'p>(run: Run<'p>, index: u32, shelf: Shelf<'p>) -> io::Result<Report<'p>> {
    let connections = (index..run.plan.connections)
        .step_by(run.plan.threads as usize)
        .enumerate()
        .map(|(slot, number)| {
            let exchange = Exchange::new(run.plan, run.requests, number);
            Connection::new(Token(slot), exchange, run.start)
        })
        .collect();
    let record = Record::new(run.window, run.plan.verify, run.start, shelf);
    let buffer = vec![0; READ_BYTES].into_boxed_slice();
    let mut worker = Worker { run, poll: Poll::new()?, connections, record, buffer, closed: None };
    let ended = worker.turn()?;
    let closed = worker.close(Instant::now());
    for connection in &mut worker.connections {
        connection.abandon(&mut worker.record);
    }
    worker.record.publish();
    let closed_at = run.start + closed.wall;
    let end = match run.window.until {
        Some(until) => until.min(closed_at),
        None if ended == Ended::Silent => closed_at,
        None => worker.record.last_answer,
    };
    let measured = end.saturating_duration_since(run.window.from);
    Ok(Report { record: worker.record, ended, time: closed.time, wall: closed.wall, measured })
}

impl<'p> Worker<'p> {
    fn turn(&mut self) -> io::Result<Ended> {
        let mut events = Events::with_capacity(1024);
        let mut now = Instant::now();
        let (mut next_tick, mut next_publish) = (now, now + PUBLISH);
        loop {
            if now >= next_tick {
                if let Some(ended) = self.tick(now)? {
                    return Ok(ended);
                }
                if now >= next_publish {
                    self.record.publish();
                    next_publish = now + PUBLISH;
                }
                next_tick = now + TICK;
            }
            match self.poll.poll(&mut events, Some(next_tick.saturating_duration_since(now))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            now = Instant::now();
            let open = self.open(now);
            let (connections, mut around) = self.split(open);
            for event in &events {
                connections[event.token().0].ready(event, &mut around);
            }
        }
    }

    /// Looks after everything that only time moves. Some reason to end, or `None` to go on.
    fn tick(&mut self, now: Instant) -> io::Result<Option<Ended>> {
        let control = self.run.control;
        if !self.open(now) {
            self.close(now);
        }
        let open = self.closed.is_none();
        let (connections, mut around) = self.split(open);
        let mut finished = true;
        for connection in connections {
            connection.tick(now, &mut around)?;
            finished &= connection.finished(open);
        }
        if self.record.acked_events == 0
            && let Some(words) = &self.record.first_refusal
        {
            control.abort.store(true, Ordering::Relaxed);
            return Ok(Some(Ended::Refused(words.clone())));
        }
        if finished || control.abort.load(Ordering::Relaxed) {
            return Ok(Some(Ended::Done));
        }
        if self.closed.is_some_and(|closed| now >= closed.wait_until) {
            return Ok(Some(Ended::Done));
        }
        let silence = now.saturating_duration_since(self.record.last_answer);
        Ok((silence > self.run.plan.timeout * SILENT_TIMEOUTS_MAX).then_some(Ended::Silent))
    }

    /// Whether new requests may begin.
    fn open(&self, now: Instant) -> bool {
        self.closed.is_none()
            && self.run.window.until.is_none_or(|until| now < until)
            && !self.run.control.stop.load(Ordering::Relaxed)
    }

    /// Begins nothing new from here on, and measures the thread up to here.
    fn close(&mut self, now: Instant) -> Closed {
        let run = &self.run;
        *self.closed.get_or_insert_with(|| Closed {
            time: ThreadTime::now(),
            wall: now.saturating_duration_since(run.start),
            wait_until: now + run.plan.timeout,
        })
    }

    fn split(&mut self, open: bool) -> (&mut [Connection<'p>], Surroundings<'_, 'p>) {
        let around = Surroundings {
            registry: self.poll.registry(),
            address: self.run.address,
            buffer: &mut self.buffer,
            record: &mut self.record,
            open,
            timeout: self.run.plan.timeout,
        };
        (&mut self.connections, around)
    }
}
