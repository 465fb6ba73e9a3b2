//! One thread of consumers: an epoll loop over their sockets, a connection each.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

use super::Beside;
use super::plan::ConsumePlan;
use super::talk::Talk;
use super::tally::Tally;
use crate::alarm::Alarm;
use crate::incoming::Incoming;
use crate::meter::{Meter, Shelf};
use crate::sample::ErrorKind;
use crate::thread_time::ThreadTime;

/// How often timeouts and the end of the run are looked at.
const TICK: Duration = Duration::from_millis(1);
/// How often what was measured is handed on.
const PUBLISH: Duration = Duration::from_millis(250);
/// One read.
const READ_BYTES: usize = 256 << 10;
/// The token of what is no connection.
const ALARM: Token = Token(usize::MAX);
/// Without any answer, or any success, for this many timeouts the run is given up.
const PATIENCE_TIMEOUTS: u32 = 3;

/// What all workers share.
pub(super) struct Run<'p> {
    /// What to do.
    pub(super) plan: &'p ConsumePlan,
    /// Where.
    pub(super) address: SocketAddr,
    /// When it began.
    pub(super) start: Instant,
    /// Set by signals: begin nothing new.
    pub(super) stop: &'p AtomicBool,
    /// Producers of the same run.
    pub(super) beside: Option<&'p Beside<'p>>,
    /// Live answers that are open now.
    pub(super) open: &'p AtomicU64,
}

impl Run<'_> {
    fn is_open(&self, now: Instant) -> bool {
        now < self.start + self.plan.duration && !self.stop.load(Ordering::Relaxed)
    }
}

struct Worker<'r, 'a> {
    run: &'r Run<'r>,
    poll: Poll,
    /// Wakes the loop when an ack or a query is due, to the microsecond.
    alarm: Alarm,
    links: Vec<Link<'r>>,
    tally: Tally<'a>,
    /// When nothing new was begun any more.
    closed: Option<Instant>,
    /// Since when there has been an answer to wait for, when the last one came, and the last that was a success.
    awaited_since: Option<Instant>,
    heard: Instant,
    succeeded: Instant,
}

/// One consumer and its socket.
struct Link<'p> {
    token: Token,
    talk: Talk<'p>,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    taken: usize,
    incoming: Incoming,
    /// Whether a live answer was counted as open.
    counted: bool,
}

/// Drives every `threads`-th consumer, from that of number `index` on. Fails only for want of descriptors.
///
/// # Errors
/// What the kernel says.
pub(super) fn drive<'a>(run: &Run<'_>, index: u32, names: &[String], shelf: Shelf<'a>) -> io::Result<Tally<'a>> {
    let began = ThreadTime::now();
    let mut worker = Worker::new(run, index, names, shelf)?;
    worker.turn()?;
    let Worker { links, mut tally, .. } = worker;
    tally.open = links.iter().filter(|link| link.counted).count() as u64;
    tally.behind = links.iter().filter(|link| link.talk.is_behind()).count() as u64;
    tally.meter.publish();
    tally.thread(ThreadTime::now().since(began), run.start.elapsed());
    Ok(tally)
}

impl<'r, 'a> Worker<'r, 'a> {
    fn new(run: &'r Run<'r>, index: u32, names: &[String], shelf: Shelf<'a>) -> io::Result<Self> {
        let plan = run.plan;
        let flight = run.beside.and_then(|beside| beside.flight);
        let mine = names.iter().zip(0..).filter(|(_, number)| number % plan.threads == index);
        let link = |(place, (name, number)): (usize, (&String, u32))| Link {
            token: Token(place),
            talk: Talk::new(plan, name.clone(), run.start + plan.every() * number / plan.consumers, flight),
            stream: None,
            out: Vec::new(),
            taken: 0,
            incoming: Incoming::default(),
            counted: false,
        };
        let poll = Poll::new()?;
        Ok(Self {
            run,
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            links: mine.enumerate().map(link).collect(),
            tally: Tally::new(Meter::new(run.start, Some(shelf))),
            closed: None,
            awaited_since: None,
            heard: run.start,
            succeeded: run.start,
        })
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BYTES];
        let mut next_tick = Instant::now();
        let mut next_publish = next_tick + PUBLISH;
        loop {
            let now = Instant::now();
            if now >= next_tick {
                if self.tick(now)? {
                    return Ok(());
                }
                next_tick = now + TICK;
            }
            if now >= next_publish {
                self.tally.meter.publish();
                next_publish = now + PUBLISH;
            }
            match self.poll.poll(&mut events, Some(next_tick.saturating_duration_since(now))) {
                Err(error) if error.kind() == Io::Interrupted => events.clear(),
                other => other?,
            }
            for event in &events {
                match event.token() {
                    ALARM => next_tick = Instant::now(),
                    _ => self.ready(event, &mut buffer)?,
                }
            }
        }
    }

    /// Looks after everything that time moves; true at the end.
    fn tick(&mut self, now: Instant) -> io::Result<bool> {
        let run = self.run;
        if let Some(from) = run.beside.and_then(|beside| beside.from?.get()) {
            self.tally.meter.begin(*from);
        }
        let open = run.is_open(now);
        let (mut finished, mut awaited, mut due) = (true, false, None::<Instant>);
        for link in &mut self.links {
            link.tick(run, self.poll.registry(), now, open, &mut self.tally)?;
            finished &= link.talk.done || !open && link.talk.is_live();
            let waits = link.stream.is_none() || link.talk.waiting_since().is_some() || !link.talk.may_speak(now);
            awaited |= !link.talk.done && waits;
            due = [due, link.talk.due()].into_iter().flatten().min();
        }
        self.alarm.set(due, now)?;
        if !open {
            self.closed.get_or_insert(now);
        }
        self.awaited_since = awaited.then(|| self.awaited_since.unwrap_or(now));
        let patience = run.plan.timeout * PATIENCE_TIMEOUTS;
        let in_vain = |since: Instant, last: Instant| now.saturating_duration_since(since.max(last)) > patience;
        self.tally.silent = self.awaited_since.is_some_and(|since| in_vain(since, self.heard));
        self.tally.stuck = self.awaited_since.is_some_and(|since| in_vain(since, self.succeeded));
        // Who was refused before anything was given will be refused again.
        let refused = self.tally.refusal.is_some() && self.tally.meter.requests() == 0;
        let late = self.closed.is_some_and(|closed| now > closed + run.plan.timeout);
        Ok(finished || late || refused || self.tally.silent || self.tally.stuck)
    }

    /// Does what the kernel says can be done with one connection.
    fn ready(&mut self, event: &Event, buffer: &mut [u8]) -> io::Result<()> {
        let link = &mut self.links[event.token().0];
        let events = self.tally.given;
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let requests = self.tally.meter.requests();
            if let Some(heard) = link.receive(self.run, buffer, &mut self.tally) {
                self.heard = heard;
                if self.tally.meter.requests() > requests || link.talk.is_live() {
                    self.succeeded = heard;
                }
            }
        }
        link.send(self.run, &mut self.tally);
        if let Some(beside) = self.run.beside {
            beside.events.fetch_add(self.tally.given - events, Ordering::Relaxed);
        }
        match link.talk.due() {
            Some(due) if self.alarm.moment().is_none_or(|moment| due < moment) => {
                self.alarm.set(Some(due), Instant::now())
            }
            _ => Ok(()),
        }
    }
}

impl Link<'_> {
    fn tick(
        &mut self,
        run: &Run<'_>,
        registry: &Registry,
        now: Instant,
        open: bool,
        tally: &mut Tally<'_>,
    ) -> io::Result<()> {
        if self.stream.is_none() && !self.talk.done && self.talk.may_speak(now) {
            let mut stream = TcpStream::connect(run.address)?;
            stream.set_nodelay(true)?;
            registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
            self.stream = Some(stream);
        }
        if self.talk.waiting_since().is_some_and(|since| now.saturating_duration_since(since) > run.plan.timeout) {
            self.lose(run, ErrorKind::Timeout, now, tally);
        }
        self.talk.say(now, open, &mut self.out);
        self.send(run, tally);
        Ok(())
    }

    /// Takes what has come; says when, if it was the whole or the begin of an answer.
    fn receive(&mut self, run: &Run<'_>, buffer: &mut [u8], tally: &mut Tally<'_>) -> Option<Instant> {
        loop {
            let stream = self.stream.as_mut()?;
            match stream.read(buffer) {
                Ok(bytes @ 1..) => self.incoming.push(&buffer[..bytes]),
                Err(error) if error.kind() == Io::WouldBlock => break,
                Err(error) if error.kind() == Io::Interrupted => {}
                Ok(0) | Err(_) => {
                    self.lose(run, ErrorKind::ConnectionLost, Instant::now(), tally);
                    return None;
                }
            }
        }
        let now = Instant::now();
        let mut heard = None;
        loop {
            match self.incoming.take() {
                Ok(Some(whole)) => {
                    self.talk.hear(&whole, now, tally);
                    heard = Some(now);
                    if whole.close {
                        self.lose(run, ErrorKind::ConnectionLost, now, tally);
                        return heard;
                    }
                }
                Ok(None) => break,
                Err(fault) => {
                    tally.unusable(|| fault.to_string());
                    self.lose(run, ErrorKind::ConnectionLost, now, tally);
                    return heard;
                }
            }
        }
        if self.talk.is_live() && self.incoming.status() == Some(200) {
            tally.meter.at(now).bytes += self.incoming.forget_body() as u64;
            heard = Some(now);
            if !std::mem::replace(&mut self.counted, true) {
                run.open.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.talk.say(now, run.is_open(now), &mut self.out);
        heard
    }

    fn send(&mut self, run: &Run<'_>, tally: &mut Tally<'_>) {
        let Some(stream) = &mut self.stream else { return };
        while self.taken < self.out.len() {
            match stream.write(&self.out[self.taken..]) {
                Ok(bytes) => self.taken += bytes,
                // Not connected yet, or full: the kernel says when.
                Err(error) if matches!(error.kind(), Io::WouldBlock | Io::NotConnected) => return,
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(_) => return self.lose(run, ErrorKind::ConnectionLost, Instant::now(), tally),
            }
        }
        self.out.clear();
        self.taken = 0;
    }

    fn lose(&mut self, run: &Run<'_>, kind: ErrorKind, now: Instant, tally: &mut Tally<'_>) {
        self.stream = None;
        self.out.clear();
        self.taken = 0;
        self.incoming = Incoming::default();
        if std::mem::take(&mut self.counted) {
            run.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.talk.lost(kind, now, tally);
    }
}
