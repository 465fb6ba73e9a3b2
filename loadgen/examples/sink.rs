//! Answers every POST with 204 and an offset, and forgets it: what is left is the cost of the generator itself.
//! `taskset -c 0 sink 127.0.0.1:4499`, then `taskset -c 1 loadgen produce --url http://127.0.0.1:4499 --group load
//! --create=false --no-verify`. One thread, one epoll loop; reads nothing but lengths.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\nEddyline-Offset: 1234567\r\n\r\n";

struct Peer {
    stream: TcpStream,
    /// A head that is not whole yet.
    head: Vec<u8>,
    /// Body bytes still to come, after which an answer is due.
    body: Option<usize>,
    out: Vec<u8>,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4499".into());
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 1 << 20];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut peers)?;
            } else if let Some(slot) = peers.get_mut(event.token().0)
                && let Some(peer) = slot
                && !peer.serve(&mut buffer)
            {
                *slot = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, peers: &mut Vec<Option<Peer>>) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let place = peers.iter().position(Option::is_none).unwrap_or(peers.len());
        poll.registry().register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE)?;
        let peer = Peer { stream, head: Vec::new(), body: None, out: Vec::new() };
        if place == peers.len() {
            peers.push(Some(peer));
        } else {
            peers[place] = Some(peer);
        }
    }
}

impl Peer {
    /// Reads and answers what is there; false once the peer is gone.
    fn serve(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(bytes) => {
                    self.take(&buffer[..bytes]);
                    if bytes < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        match self.stream.write(&self.out) {
            Ok(bytes) => drop(self.out.drain(..bytes)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        true
    }

    fn take(&mut self, mut bytes: &[u8]) {
        loop {
            if let Some(left) = self.body {
                let taken = left.min(bytes.len());
                bytes = &bytes[taken..];
                self.body = (taken < left).then_some(left - taken);
                if self.body.is_some() {
                    return;
                }
                self.out.extend_from_slice(ANSWER);
            }
            if bytes.is_empty() {
                return;
            }
            let joined;
            let whole = if self.head.is_empty() {
                bytes
            } else {
                joined = [self.head.as_slice(), bytes].concat();
                &joined
            };
            let Some(end) = memchr::memmem::find(whole, b"\r\n\r\n") else {
                self.head = whole.to_vec();
                return;
            };
            let used = end + 4 - self.head.len();
            self.body = Some(content_length(&whole[..end]));
            bytes = &bytes[used..];
            self.head.clear();
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let name = b"\r\nContent-Length: ";
    let Some(at) = memchr::memmem::find(head, name) else {
        return 0;
    };
    let digits = head[at + name.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}
