//! One thread of consumers: an epoll loop over their sockets, a connection each.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

use super::plan::ConsumePlan;
use super::talk::Talk;
use super::tally::Tally;
use crate::flight::Flight;
use crate::incoming::Incoming;
use crate::thread_time::ThreadTime;

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(1);
/// One read.
const READ_BYTES: usize = 256 << 10;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Run<'p> {
    /// What to do.
    pub(super) plan: &'p ConsumePlan,
    /// Where.
    pub(super) address: SocketAddr,
    /// When it began.
    pub(super) start: Instant,
    /// Set by signals: begin nothing new.
    pub(super) stop: &'p AtomicBool,
    /// When what is given was planned to be sent.
    pub(super) flight: Option<&'p Flight>,
    /// Events given so far, for the progress line.
    pub(super) events: &'p AtomicU64,
    /// Live answers that are open now.
    pub(super) open: &'p AtomicU64,
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
pub(super) fn drive(run: &Run<'_>, index: u32, names: &[String]) -> io::Result<Tally> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BYTES];
    let mut tally = Tally::default();
    let (plan, began) = (run.plan, ThreadTime::now());
    let mine = names.iter().zip(0..).filter(|(_, number)| number % plan.threads == index);
    let mut links: Vec<Link<'_>> = mine
        .enumerate()
        .map(|(place, (name, number))| Link {
            token: Token(place),
            talk: Talk::new(plan, name.clone(), run.start + plan.ack_every() * number / plan.consumers, run.flight),
            stream: None,
            out: Vec::new(),
            taken: 0,
            incoming: Incoming::default(),
            counted: false,
        })
        .collect();
    let until = run.start + plan.duration;
    let mut closed = None;
    let mut next_tick = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next_tick {
            let open = now < until && !run.stop.load(Ordering::Relaxed);
            let mut finished = true;
            for link in &mut links {
                link.tick(run, poll.registry(), now, open, &mut tally)?;
                finished &= link.talk.done || !open && link.talk.is_live();
            }
            if !open {
                closed.get_or_insert(now);
            }
            if finished || closed.is_some_and(|closed| now > closed + plan.timeout) {
                break;
            }
            next_tick = now + TICK;
        }
        match poll.poll(&mut events, Some(next_tick.saturating_duration_since(now))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        for event in &events {
            let link = &mut links[event.token().0];
            let open = Instant::now() < until && !run.stop.load(Ordering::Relaxed);
            let before = tally.events;
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                link.receive(run, open, &mut buffer, &mut tally);
            }
            link.send(&mut tally);
            run.events.fetch_add(tally.events - before, Ordering::Relaxed);
        }
    }
    tally.open = links.iter().filter(|link| link.counted).count() as u64;
    let now = ThreadTime::now();
    let spent = ThreadTime { running: now.running - began.running, waiting: now.waiting.saturating_sub(began.waiting) };
    tally.thread(spent, run.start.elapsed());
    Ok(tally)
}

impl Link<'_> {
    fn tick(
        &mut self,
        run: &Run<'_>,
        registry: &Registry,
        now: Instant,
        open: bool,
        tally: &mut Tally,
    ) -> io::Result<()> {
        if self.stream.is_none() && !self.talk.done && now >= run.start {
            let mut stream = TcpStream::connect(run.address)?;
            stream.set_nodelay(true)?;
            registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
            self.stream = Some(stream);
        }
        if self.talk.waiting_since().is_some_and(|since| now.saturating_duration_since(since) > run.plan.timeout) {
            self.lose(run, now, tally);
        }
        self.talk.say(now, open, &mut self.out);
        self.send(tally);
        Ok(())
    }

    fn receive(&mut self, run: &Run<'_>, open: bool, buffer: &mut [u8], tally: &mut Tally) {
        loop {
            let Some(stream) = &mut self.stream else { return };
            match stream.read(buffer) {
                Ok(0) => return self.lose(run, Instant::now(), tally),
                Ok(bytes) => self.incoming.push(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.lose(run, Instant::now(), tally),
            }
        }
        let now = Instant::now();
        loop {
            match self.incoming.take() {
                Ok(Some(whole)) => {
                    self.talk.hear(&whole, now, tally);
                    if whole.close {
                        return self.lose(run, now, tally);
                    }
                }
                Ok(None) => break,
                Err(fault) => {
                    tally.wrong(|| fault.to_string());
                    return self.lose(run, now, tally);
                }
            }
        }
        if self.talk.is_live() && self.incoming.status() == Some(200) {
            self.incoming.forget_body();
            if !std::mem::replace(&mut self.counted, true) {
                run.open.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.talk.say(now, open, &mut self.out);
    }

    fn send(&mut self, tally: &mut Tally) {
        let Some(stream) = &mut self.stream else { return };
        while self.taken < self.out.len() {
            match stream.write(&self.out[self.taken..]) {
                Ok(bytes) => self.taken += bytes,
                // Not connected yet, or full: the kernel says when.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.stream = None;
                    return self.talk.lost(Instant::now(), tally);
                }
            }
        }
        self.out.clear();
        self.taken = 0;
    }

    fn lose(&mut self, run: &Run<'_>, now: Instant, tally: &mut Tally) {
        self.stream = None;
        self.out.clear();
        self.taken = 0;
        self.incoming = Incoming::default();
        if std::mem::take(&mut self.counted) {
            run.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.talk.lost(now, tally);
    }
}
