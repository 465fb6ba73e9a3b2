//! One connection's socket: connects, backs off, moves bytes between the kernel and the exchange. What is said over it
//! and what answers mean is the exchange's; when to look is the worker's.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::exchange::{After, Exchange};
use crate::pace::Pace;
use crate::record::Record;
use crate::sample::ErrorKind;

/// First wait after a connection could not be made or kept; doubles up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);

/// What a connection needs of its worker for a moment.
pub struct Surroundings<'w, 'a> {
    /// Where sockets are registered.
    pub registry: &'w Registry,
    /// The broker.
    pub address: SocketAddr,
    /// Receives; shared by all connections of the worker, so it stays in the cache.
    pub buffer: &'w mut [u8],
    /// The worker's ledger.
    pub record: &'w mut Record<'a>,
    /// Whether new requests may begin, and when.
    pub pace: &'w mut Pace,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

/// A connection and its conversation.
#[derive(Debug)]
pub struct Connection<'p> {
    token: Token,
    exchange: Exchange<'p>,
    socket: Socket,
    /// Rendered requests, and how many of their bytes the kernel has taken. Keeps the size it once needed.
    out: Vec<u8>,
    taken: usize,
    failures_in_row: u32,
    /// Whether it stands in the worker's row of connections with room.
    pub in_row: bool,
}

#[derive(Debug)]
enum Socket {
    None { not_before: Instant },
    Connecting { stream: TcpStream, since: Instant },
    Connected(TcpStream),
}

impl<'p> Connection<'p> {
    /// A connection that is made at the first [`Connection::tick`].
    pub fn new(token: Token, exchange: Exchange<'p>, now: Instant) -> Connection<'p> {
        let socket = Socket::None { not_before: now };
        Connection { token, exchange, socket, out: Vec::new(), taken: 0, failures_in_row: 0, in_row: false }
    }

    /// Whether nothing is left to do if `open` stays as it is.
    pub fn finished(&self, open: bool) -> bool {
        self.exchange.finished(open)
    }

    /// Whether a new request could be sent at once.
    pub fn has_room(&self) -> bool {
        matches!(self.socket, Socket::Connected(_)) && self.exchange.has_room()
    }

    /// How many requests it sends if the run is long enough.
    pub fn requests(&self) -> u64 {
        self.exchange.requests()
    }

    /// Whether a connect, an answer or the time to send again is waited for.
    pub fn is_awaited(&self) -> bool {
        !matches!(self.socket, Socket::Connected(_)) || !self.exchange.finished(false)
    }

    /// Whether it was connected, or that failed once.
    pub fn was_tried(&self) -> bool {
        matches!(self.socket, Socket::Connected(_)) || self.failures_in_row > 0
    }

    /// Connects before the run begins. Fails as [`Connection::tick`] does.
    pub fn prepare(&mut self, now: Instant, around: &mut Surroundings<'_, '_>) -> io::Result<()> {
        match self.socket {
            Socket::None { .. } if self.failures_in_row == 0 => self.connect(now, around),
            _ => Ok(()),
        }
    }

    /// Gives everything that is still under way its last outcome.
    pub fn abandon(&mut self, now: Instant, record: &mut Record<'_>) {
        self.exchange.abandon(now, record);
    }

    /// Does what time asks for: connect, give up waiting, go on after a pause. Fails only if this process has no more
    /// file descriptors.
    pub fn tick(&mut self, now: Instant, around: &mut Surroundings<'_, '_>) -> io::Result<()> {
        match &self.socket {
            Socket::None { not_before } => {
                if now >= *not_before && !self.exchange.finished(around.pace.is_open()) {
                    self.connect(now, around)?;
                }
            }
            Socket::Connecting { since, .. } => {
                if now.duration_since(*since) > around.timeout {
                    self.lose(ErrorKind::ConnectFailed, around.record);
                }
            }
            Socket::Connected(_) => {
                let waiting = self.exchange.waiting_since();
                if waiting.is_some_and(|since| now.saturating_duration_since(since) > around.timeout) {
                    self.lose(ErrorKind::Timeout, around.record);
                } else {
                    self.send(now, around);
                }
            }
        }
        Ok(())
    }

    /// Does what the kernel says can be done now.
    pub fn ready(&mut self, event: &Event, around: &mut Surroundings<'_, '_>) {
        if let Socket::Connecting { stream, .. } = &self.socket {
            match connected(stream) {
                Ok(true) => self.begin(around),
                Ok(false) => {}
                Err(_) => self.lose(ErrorKind::ConnectFailed, around.record),
            }
        } else if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.receive(event.is_read_closed() || event.is_error(), around);
        } else if event.is_writable() {
            self.send(Instant::now(), around);
        }
    }

    /// The socket is connected: the first requests go out.
    fn begin(&mut self, around: &mut Surroundings<'_, '_>) {
        let now = Instant::now();
        let before = std::mem::replace(&mut self.socket, Socket::None { not_before: now });
        if let Socket::Connecting { stream, .. } = before {
            self.socket = Socket::Connected(stream);
            self.send(now, around);
        }
    }

    fn connect(&mut self, now: Instant, around: &mut Surroundings<'_, '_>) -> io::Result<()> {
        let made = TcpStream::connect(around.address).and_then(|mut stream| {
            stream.set_nodelay(true)?;
            around.registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match made {
            Ok(stream) => self.socket = Socket::Connecting { stream, since: now },
            Err(error) if out_of_descriptors(&error) => return Err(error),
            Err(_) => self.lose(ErrorKind::ConnectFailed, around.record),
        }
        Ok(())
    }

    /// Takes what has come, and sends what may be sent then.
    fn receive(&mut self, to_the_end: bool, around: &mut Surroundings<'_, '_>) {
        if let Some(now) = self.read(to_the_end, around) {
            self.send(now, around);
        }
    }

    /// Reads until the kernel has no more; gives the moment, or `None` if the connection has ended. `to_the_end` is set
    /// when the peer has closed: then only a read of nothing ends it, else a read that did not fill the buffer does too
    /// and saves a call.
    fn read(&mut self, to_the_end: bool, around: &mut Surroundings<'_, '_>) -> Option<Instant> {
        let Socket::Connected(stream) = &mut self.socket else { return None };
        loop {
            let read = stream.read(around.buffer);
            let now = Instant::now();
            match read {
                Ok(bytes @ 1..) => match self.exchange.receive(&around.buffer[..bytes], now, around.record) {
                    Ok(After::Open) => {
                        self.failures_in_row = 0;
                        if bytes < around.buffer.len() && !to_the_end {
                            return Some(now);
                        }
                    }
                    Ok(After::Closed) => {
                        // An end that was announced is no failure, so the next connection need not wait.
                        self.failures_in_row = 0;
                        self.end(ErrorKind::ConnectionLost, now, around.record);
                        return None;
                    }
                    Err(_) => {
                        around.record.error(ErrorKind::BadAnswer);
                        break;
                    }
                },
                Err(error) if error.kind() == Io::WouldBlock => return Some(now),
                Err(error) if error.kind() == Io::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        self.lose(ErrorKind::ConnectionLost, around.record);
        None
    }

    /// Sends what may be sent now.
    pub fn send(&mut self, now: Instant, around: &mut Surroundings<'_, '_>) {
        self.exchange.fill(now, around.pace, &mut self.out);
        let Socket::Connected(stream) = &mut self.socket else {
            return;
        };
        while self.taken < self.out.len() {
            match stream.write(&self.out[self.taken..]) {
                Ok(bytes) => self.taken += bytes,
                Err(error) if error.kind() == Io::WouldBlock => return,
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(_) => {
                    // Who takes no more has perhaps said why.
                    if self.read(true, around).is_some() {
                        self.lose(ErrorKind::ConnectionLost, around.record);
                    }
                    return;
                }
            }
        }
        self.out.clear();
        self.taken = 0;
    }

    /// Drops the socket and waits a little before the next, longer each time in a row.
    fn lose(&mut self, kind: ErrorKind, record: &mut Record<'_>) {
        let backoff = (BACKOFF_FIRST * (1 << self.failures_in_row.min(10))).min(BACKOFF_LONGEST);
        self.failures_in_row += 1;
        self.end(kind, Instant::now() + backoff, record);
    }

    /// Drops the socket, if any. An orderly end with nothing in flight is no error.
    fn end(&mut self, kind: ErrorKind, not_before: Instant, record: &mut Record<'_>) {
        if kind != ErrorKind::ConnectionLost || self.exchange.waiting_since().is_some() {
            record.error(kind);
        }
        self.exchange.lost(Instant::now(), record);
        self.out.clear();
        self.taken = 0;
        self.socket = Socket::None { not_before };
    }
}

/// Whether a connect has come to its end; an error if it failed.
fn connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Io::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mio::{Events, Poll};

    use super::*;
    use crate::payload::{Generated, Payload};
    use crate::plan::{Plan, tests::plan};
    use crate::record::{Window, tests::Kept};
    use crate::request::Requests;
    use crate::units::Sizes;

    /// Lets the connection react until `done`.
    fn turn(
        poll: &mut Poll,
        connection: &mut Connection<'_>,
        address: SocketAddr,
        record: &mut Record<'_>,
        done: impl Fn(&Connection<'_>, &Record<'_>) -> bool,
    ) {
        let mut events = Events::with_capacity(8);
        while !done(connection, record) {
            poll.poll(&mut events, Some(Duration::from_millis(5))).unwrap();
            let mut around = Surroundings {
                registry: poll.registry(),
                address,
                buffer: &mut [0; 1024],
                record: &mut *record,
                pace: &mut Pace::closed_loop(),
                timeout: Duration::from_secs(60),
            };
            for event in &events {
                connection.ready(event, &mut around);
            }
            if events.is_empty() {
                connection.tick(Instant::now(), &mut around).unwrap();
            }
        }
    }

    #[test]
    fn an_answer_and_the_end_right_behind_it_are_both_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (plan, kept, now) = (plan(), Kept::default(), Instant::now());
        let requests = Requests::new(&plan);
        let mut record = Record::new(Window { from: now, until: None }, true, now, kept.shelf());
        let mut poll = Poll::new().unwrap();
        let mut connection = Connection::new(Token(0), Exchange::new(&plan, &requests, 0), now);

        turn(&mut poll, &mut connection, address, &mut record, |connection, _| {
            connection.exchange.waiting_since().is_some()
        });
        let (mut peer, _) = listener.accept().unwrap();
        let mut request = vec![0; 1024];
        let mut received = 0;
        while !request[..received].ends_with(b"\"}") {
            received += peer.read(&mut request[received..]).unwrap();
        }
        peer.write_all(b"HTTP/1.1 204 No Content\r\nEddyline-Offset: 0\r\n\r\n").unwrap();
        drop(peer);

        turn(&mut poll, &mut connection, address, &mut record, |_, record| record.acks.count() > 0);
        assert!(matches!(connection.socket, Socket::None { .. }), "nothing is sent into a connection that has ended");
        assert!(record.unknown.is_empty());
    }

    #[test]
    fn what_was_said_before_no_more_was_taken_is_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // More than the kernel takes while nobody reads.
        let sizes = Sizes { least: 32 << 20, most: 32 << 20 };
        let plan = Plan { payload: Payload::Generated(Generated::new(1, sizes, None)), ..plan() };
        let (kept, now) = (Kept::default(), Instant::now());
        let requests = Requests::new(&plan);
        let mut record = Record::new(Window { from: now, until: None }, true, now, kept.shelf());
        let mut poll = Poll::new().unwrap();
        let mut connection = Connection::new(Token(0), Exchange::new(&plan, &requests, 0), now);
        turn(&mut poll, &mut connection, address, &mut record, |connection, _| connection.taken > 0);
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        // What it has not read makes the kernel reset the connection.
        drop(peer);

        let mut around = Surroundings {
            registry: poll.registry(),
            address,
            buffer: &mut [0; 1024],
            record: &mut record,
            pace: &mut Pace::closed_loop(),
            timeout: Duration::from_secs(60),
        };
        while matches!(connection.socket, Socket::Connected(_)) {
            connection.send(Instant::now(), &mut around);
        }
        assert_eq!((record.first_refusal.as_deref(), record.unknown.count()), (Some("status 413"), 0));
    }
}
