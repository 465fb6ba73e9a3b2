//! One thread of the generator: an epoll loop over its connections. Decides when to look at the clock, when to stop and
//! when to give up; what a connection does then is `connection`'s.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::alarm::Alarm;
use crate::connection::{Connection, Surroundings};
use crate::exchange::Exchange;
use crate::flight::Flight;
use crate::meter::Shelf;
use crate::pace::{Pace, Punctuality};
use crate::plan::{OpenLoop, Plan};
use crate::record::{Record, Window};
use crate::request::Requests;
use crate::schedule::Schedule;
use crate::thread_time::ThreadTime;

/// How often timeouts, pauses and the end of the run are looked at.
const TICK: Duration = Duration::from_millis(5);

/// How often samples are handed to the progress thread.
const PUBLISH: Duration = Duration::from_millis(250);

/// One read; as large as the answers of all connections of a small run together.
const READ_BYTES: usize = 64 << 10;

/// The token of what is no connection.
const ALARM: Token = Token(usize::MAX);

/// Without any answer, or any success, for this many timeouts the run is given up.
const PATIENCE_TIMEOUTS: u32 = 3;

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
    /// No success for too long, and what was said instead.
    Stuck(String),
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
    /// How the plan was kept, if there was one.
    pub punctuality: Option<Punctuality>,
}

/// Where workers wait for each other, so that a run begins when all connections are made.
#[derive(Debug)]
pub struct Gate {
    barrier: Barrier,
    start: OnceLock<Instant>,
}

impl Gate {
    /// A gate for so many workers.
    pub fn new(workers: u32) -> Gate {
        Gate { barrier: Barrier::new(workers as usize), start: OnceLock::new() }
    }

    /// When the run began; now, if it did not yet.
    pub fn start(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    /// Waits for the others, and says when the run begins: now, for all the same.
    fn pass(&self) -> Instant {
        self.barrier.wait();
        self.start()
    }
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
    /// Where it begins.
    pub gate: &'p Gate,
    /// Where sends are noted for consumers of the same run.
    pub flight: Option<&'p Flight>,
    /// Where they are told when the measured part begins.
    pub from: Option<&'p OnceLock<Instant>>,
    /// How it may be ended from outside.
    pub control: &'p Control,
}

struct Worker<'p> {
    run: Run<'p>,
    poll: Poll,
    alarm: Alarm,
    connections: Vec<Connection<'p>>,
    /// Connections with room, for moments that fall due; the one that has had it longest is next. Those at the front may
    /// have lost it since.
    row: VecDeque<usize>,
    pace: Pace,
    record: Record<'p>,
    buffer: Box<[u8]>,
    start: Instant,
    window: Window,
    /// Since when there has been something to wait for.
    awaited_since: Option<Instant>,
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
///
/// # Errors
/// When the process has no more descriptors.
pub fn drive<'p>(run: Run<'p>, index: u32, shelf: Shelf<'p>) -> io::Result<Report<'p>> {
    let mut prepared = Worker::prepare(run, index, shelf);
    // Whoever failed passes too: the others wait for it.
    let start = run.gate.pass();
    if prepared.is_err() {
        run.control.abort.store(true, Ordering::Relaxed);
    }
    let began = ThreadTime::now();
    if let Ok(worker) = &mut prepared {
        worker.begin(index, start);
    }
    let mut worker = prepared?;
    let ended = worker.turn()?;
    let closed = worker.close(Instant::now());
    for connection in &mut worker.connections {
        connection.abandon(Instant::now(), &mut worker.record);
    }
    worker.record.meter.publish();
    let closed_at = start + closed.wall;
    let end = match worker.window.until {
        Some(until) => until.min(closed_at),
        None if ended == Ended::Silent => closed_at,
        None => worker.record.last_answer,
    };
    Ok(Report {
        ended,
        time: closed.time.since(began),
        wall: closed.wall,
        measured: end.saturating_duration_since(worker.window.from),
        punctuality: worker.pace.punctuality(),
        record: worker.record,
    })
}

impl<'p> Worker<'p> {
    /// A worker whose connections are made, as far as they can be.
    fn prepare(run: Run<'p>, index: u32, shelf: Shelf<'p>) -> io::Result<Worker<'p>> {
        let now = Instant::now();
        let connections: Vec<_> = (index..run.plan.connections)
            .step_by(run.plan.threads as usize)
            .enumerate()
            .map(|(slot, number)| {
                let exchange = Exchange::new(run.plan, run.requests, number).noted(run.flight);
                Connection::new(Token(slot), exchange, now)
            })
            .collect();
        let poll = Poll::new()?;
        let window = Window { from: now, until: None };
        let mut worker = Worker {
            alarm: Alarm::new(poll.registry(), ALARM)?,
            run,
            poll,
            row: VecDeque::with_capacity(connections.len()),
            connections,
            pace: Pace::before(),
            record: Record::new(window, run.plan.verify, now, shelf),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            start: now,
            window,
            awaited_since: None,
            closed: None,
        };
        worker.connect()?;
        Ok(worker)
    }

    fn connect(&mut self) -> io::Result<()> {
        let give_up = self.start + self.run.plan.timeout;
        let mut events = Events::with_capacity(1024);
        loop {
            let (now, control) = (Instant::now(), self.run.control);
            let stopped = control.stop.load(Ordering::Relaxed) || control.abort.load(Ordering::Relaxed);
            let (connections, mut around) = self.split();
            for connection in connections.iter_mut() {
                connection.prepare(now, &mut around)?;
            }
            if stopped || now >= give_up || connections.iter().all(Connection::was_tried) {
                return Ok(());
            }
            self.wait(&mut events, TICK)?;
            let (connections, mut around) = self.split();
            events.iter().for_each(|event| connections[event.token().0].ready(event, &mut around));
        }
    }

    fn begin(&mut self, index: u32, start: Instant) {
        let Run { plan, .. } = self.run;
        let from = start + plan.warmup;
        self.window = Window { from, until: plan.time().map(|time| from + time) };
        self.start = start;
        if let Some(flight) = self.run.flight {
            flight.begin(from);
        }
        if let Some(told) = self.run.from {
            told.get_or_init(|| from);
        }
        self.pace = match &plan.open_loop {
            None => Pace::closed_loop(),
            Some(OpenLoop { stages, arrivals }) => {
                let schedule = Schedule::new(stages, *arrivals, plan.seed, index, plan.threads);
                let requests = self.connections.iter().map(Connection::requests).fold(0, u64::saturating_add);
                Pace::open_loop(schedule, requests, start, self.window)
            }
        };
        self.record.begin(self.window, self.pace.is_planned());
        self.record.begin_stages(plan.stage_ends().map(|since| start + since).collect());
        (self.record.last_answer, self.record.last_success) = (start, start);
    }

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
                    self.record.meter.publish();
                    next_publish = now + PUBLISH;
                }
                next_tick = now + TICK;
            }
            self.dispatch(now)?;
            self.wait(&mut events, next_tick.saturating_duration_since(now))?;
            now = Instant::now();
            let (connections, mut around) = self.split();
            for event in events.iter().filter(|event| event.token() != ALARM) {
                connections[event.token().0].ready(event, &mut around);
            }
            if self.pace.is_planned() {
                events
                    .iter()
                    .filter(|event| event.token() != ALARM)
                    .for_each(|event| self.line_up(event.token().0, now));
            }
        }
    }

    fn wait(&mut self, events: &mut Events, most: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(most)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other,
        }
    }

    /// Gives the moments that are due to connections with room, and sets the alarm for the next.
    fn dispatch(&mut self, mut now: Instant) -> io::Result<()> {
        if !self.pace.is_planned() {
            return Ok(());
        }
        while self.pace.next().is_some_and(|next| next <= now)
            && let Some(place) = self.row.pop_front()
        {
            let (connections, mut around) = self.split();
            let connection = &mut connections[place];
            connection.in_row = false;
            if connection.has_room() {
                connection.send(now, &mut around);
            }
            now = Instant::now();
            if self.row.is_empty() {
                self.pace.free_since(None);
            }
            self.line_up(place, now);
        }
        // With nobody free an answer must come first, and it wakes the loop.
        let next = if self.row.is_empty() { None } else { self.pace.next() };
        self.alarm.set(next, now)
    }

    /// Puts a connection into the row if it has room.
    fn line_up(&mut self, place: usize, now: Instant) {
        let connection = &mut self.connections[place];
        if !connection.in_row && connection.has_room() {
            connection.in_row = true;
            if self.row.is_empty() {
                self.pace.free_since(Some(now));
            }
            self.row.push_back(place);
        }
    }

    /// Looks after everything that only time moves. Some reason to end, or `None` to go on.
    fn tick(&mut self, now: Instant) -> io::Result<Option<Ended>> {
        let control = self.run.control;
        let over = self.window.until.is_some_and(|until| now >= until) || control.stop.load(Ordering::Relaxed);
        if self.closed.is_none() && over {
            self.close(now);
        }
        let (mut finished, mut awaited) = (true, false);
        self.pace.hold(true);
        let (connections, mut around) = self.split();
        for connection in connections {
            connection.tick(now, &mut around)?;
            finished &= connection.finished(around.pace.is_open());
            awaited |= connection.is_awaited();
        }
        self.pace.hold(false);
        if self.pace.is_planned() {
            (0..self.connections.len()).for_each(|place| self.line_up(place, now));
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
        self.awaited_since = awaited.then(|| self.awaited_since.unwrap_or(now));
        Ok(self.awaited_since.and_then(|since| self.given_up(since, now)))
    }

    /// Whether what has been waited for since then was waited for in vain for too long.
    fn given_up(&self, since: Instant, now: Instant) -> Option<Ended> {
        let patience = self.run.plan.timeout * PATIENCE_TIMEOUTS;
        let Record { last_answer, last_success, busy, first_refusal, .. } = &self.record;
        let in_vain = |last: Instant| now.saturating_duration_since(since.max(last)) > patience;
        let stuck = || {
            let words = busy.as_ref().or(first_refusal.as_ref()).map_or_else(String::new, |words| format!(": {words}"));
            Ended::Stuck(format!("nothing was accepted for {} s{words}", patience.as_secs_f64()))
        };
        if in_vain(*last_answer) { Some(Ended::Silent) } else { in_vain(*last_success).then(stuck) }
    }

    /// Begins nothing new from here on, and measures the thread up to here.
    fn close(&mut self, now: Instant) -> Closed {
        if let Some(closed) = self.closed {
            return closed;
        }
        let end = self.window.until.map_or(now, |until| until.min(now));
        let Worker { pace, record, .. } = self;
        pace.shut(end, |planned| record.unsent(planned, end));
        let closed = Closed {
            time: ThreadTime::now(),
            wall: now.saturating_duration_since(self.start),
            wait_until: now + self.run.plan.timeout,
        };
        self.closed = Some(closed);
        closed
    }

    fn split(&mut self) -> (&mut [Connection<'p>], Surroundings<'_, 'p>) {
        let around = Surroundings {
            registry: self.poll.registry(),
            address: self.run.address,
            buffer: &mut self.buffer,
            record: &mut self.record,
            pace: &mut self.pace,
            timeout: self.run.plan.timeout,
        };
        (&mut self.connections, around)
    }
}
