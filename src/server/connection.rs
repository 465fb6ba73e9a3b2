//! One connection: receive, parse everything that came, send once.
//!
//! Requests of one receive are taken one after the other; appends among them are answered together, by their commit,
//! everything else when its turn comes, so answers keep the order of their requests. A request whose body has not all
//! come is gathered aside, in memory that counts against a bounded pool.

use crate::api::auth::Caller;
use crate::api::exchange::Exchange;
use crate::api::problem::Problem;
use crate::api::produce::{self, Pending};
use crate::api::route::{Route, Target, route, target, too_large};
use crate::api::{self, Context, groups, origin};
use crate::http::{CONTINUE, ChunkDecoder, Framing, Head, LastHead, Method, ReplyTo, parse_head};
use crate::io::deadline::{Deadline, Readable};
use crate::io::socket::Socket;
use crate::limits::{LINGER_BYTES, LINGER_TIME, READ_PIECE_BYTES, RECEIVE_BYTES};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

/// Serves a connection to its end, or says why it is `refused` and hangs up.
pub(super) async fn serve(context: &Rc<Context>, socket: Socket, refused: Option<&'static str>) {
    let socket = Rc::new(socket);
    // One that broke meanwhile asks for nothing any more.
    let peer = socket.peer().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into());
    let deadline = Deadline::new(&socket);
    let key = context.deadlines.watch(Rc::clone(&deadline));
    let exchange = Exchange::new(Rc::clone(context), Rc::clone(&socket), Rc::clone(&deadline));
    let mut connection = Connection {
        context: Rc::clone(context),
        socket,
        peer,
        deadline,
        exchange,
        last_head: LastHead::default(),
        pending: Vec::new(),
    };
    if let Some(detail) = refused {
        connection.exchange.refuse(&Problem::passing(503, "too_many_connections", 1000, detail).closing());
    } else {
        connection.run().await;
    }
    connection.end().await;
    context.deadlines.forget(key);
}

struct Connection {
    context: Rc<Context>,
    socket: Rc<Socket>,
    peer: SocketAddr,
    deadline: Rc<Deadline>,
    exchange: Exchange,
    last_head: LastHead,
    /// Appends of this turn that wait for their commit.
    pending: Vec<Pending>,
}

/// What came of looking at the front of the input.
enum Step {
    /// A request was taken; it was so long.
    Taken(usize),
    /// The request is not all there.
    Incomplete,
    /// Its head is, its body is not.
    BodyComing {
        /// Bytes of the head.
        head: usize,
        /// How long the body may be.
        body_max: u64,
        /// Who asks.
        caller: Caller,
    },
    /// The connection cannot go on.
    Stop,
}

/// A body that was received, and what came behind it.
struct Body {
    bytes: Vec<u8>,
    rest: Vec<u8>,
}

impl Connection {
    async fn run(&mut self) {
        let mut input = Vec::new();
        loop {
            let mut used = 0;
            while used < input.len() && !self.exchange.close {
                match self.step(&input[used..]).await {
                    Step::Taken(bytes) => used += bytes,
                    Step::Incomplete => break,
                    Step::Stop => return self.settle().await,
                    Step::BodyComing { head, body_max, caller } => {
                        let head_bytes = input[used..used + head].to_vec();
                        let came = input.split_off(used + head);
                        match Box::pin(self.gather(&head_bytes, came, body_max, caller)).await {
                            Some(rest) => (input, used) = (rest, 0),
                            None => return,
                        }
                    }
                }
                if self.exchange.out.len() >= READ_PIECE_BYTES && self.exchange.flush().await.is_err() {
                    return;
                }
            }
            self.settle().await;
            if self.exchange.flush().await.is_err() || self.exchange.close {
                return;
            }
            input.drain(..used);
            if input.is_empty() {
                self.context.buffers.borrow_mut().give(std::mem::take(&mut input));
            }
            if !self.receive(&mut input).await {
                return;
            }
        }
    }

    /// Waits for bytes; false when none will come.
    async fn receive(&mut self, input: &mut Vec<u8>) -> bool {
        let http = &self.context.broker.config.http;
        let begun = !input.is_empty();
        let until = Instant::now() + if begun { http.head } else { http.keep_alive };
        loop {
            if self.context.draining() && input.is_empty() {
                return false;
            }
            match self.deadline.readable(&self.socket, Some(until)).await {
                Ok(Readable::Ready) => {}
                Ok(Readable::Interrupted) => continue,
                Ok(Readable::Expired) if begun => {
                    self.refuse_unread(&Problem::new(408, "slow_request", "the request's head took too long"));
                    return false;
                }
                Ok(Readable::Expired) | Err(_) => return false,
            }
            if input.capacity() == 0 {
                *input = self.context.buffers.borrow_mut().take(RECEIVE_BYTES);
            }
            match self.socket.receive(input, RECEIVE_BYTES) {
                Ok(0) => {
                    self.exchange.hung_up = true;
                    return false;
                }
                // A head that comes in pieces has one deadline for all of them.
                Ok(_) if begun && !matches!(parse_head(input), Ok(None)) => return true,
                Ok(_) if !begun => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.exchange.hung_up = true;
                    return false;
                }
            }
        }
    }

    /// Refuses what could not be read: whose it was is not known, so nothing of an earlier request applies to it.
    fn refuse_unread(&mut self, problem: &Problem) {
        self.exchange.to = ReplyTo::UNREADABLE;
        self.exchange.cors = origin::Cors::default();
        self.exchange.refuse(problem);
    }

    /// Takes the request at the front of the input, if it is all there.
    async fn step(&mut self, input: &[u8]) -> Step {
        let (head, used) = match self.last_head.parse(input) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Step::Incomplete,
            Err(fault) => {
                self.settle().await;
                self.refuse_unread(&fault.into());
                return Step::Stop;
            }
        };
        let route = match self.admit(&head).await {
            Ok(route) => route,
            Err(problem) => return self.refuse_early(&head, &problem, input, used).await,
        };
        let body = match head.framing {
            Framing::None => &[],
            Framing::Length(length) if (input.len() - used) as u64 >= length => &input[used..used + length as usize],
            _ => return Step::BodyComing { head: used, body_max: route.body_max, caller: route.caller },
        };
        self.carry_out(&route, &head, body).await;
        Step::Taken(used + body.len())
    }

    /// Everything that can be said before the body is read.
    async fn admit<'b>(&mut self, head: &Head<'b>) -> Result<Route<'b>, Problem> {
        let target = target(&self.context, head)?;
        let caller = Caller::of(&self.context, head, target.as_ref(), self.peer)?;
        self.route(head, target, caller).await
    }

    /// Finds out how a request is carried out, and makes its group where that is configured.
    async fn route<'b>(
        &mut self,
        head: &Head<'b>,
        target: Option<Target<'b>>,
        caller: Caller,
    ) -> Result<Route<'b>, Problem> {
        if !self.context.broker.config.auto_create || head.method != Method::Post {
            return route(&self.context, head, target, caller);
        }
        match route(&self.context, head, target, caller.clone()) {
            Err(problem) if problem.code == "no_group" => {
                let name = crate::http::segments(head.path).nth(2).unwrap_or_default();
                let name = crate::http::decode(name).map_err(Problem::from)?;
                groups::create_on_produce(&self.context, &caller, &name).await?;
                route(&self.context, head, self::target(&self.context, head)?, caller)
            }
            other => other,
        }
    }

    /// Refuses a request whose body was not looked at. If all of it is there it is passed over and the connection goes on.
    async fn refuse_early(&mut self, head: &Head<'_>, problem: &Problem, input: &[u8], used: usize) -> Step {
        self.settle().await;
        self.exchange.to = head.reply_to();
        self.exchange.cors = origin::of_refusal(&self.context, head);
        let body = match head.framing {
            Framing::None => Some(0),
            Framing::Length(length) if (input.len() - used) as u64 >= length => Some(length as usize),
            _ => None,
        };
        let problem = if body.is_none() { problem.clone().closing() } else { problem.clone() };
        self.exchange.refuse(&problem);
        self.context.count("refused", problem.status);
        match body {
            Some(body) if !self.exchange.close => Step::Taken(used + body),
            _ => Step::Stop,
        }
    }

    /// Does what the request asks for.
    async fn carry_out(&mut self, route: &Route<'_>, head: &Head<'_>, body: &[u8]) {
        let cors = route.caller.cors.clone();
        if route.produce.is_some() {
            match produce::begin(&self.context, route, head, body, cors.clone()).await {
                Ok(pending) => {
                    self.exchange.close |= !pending.to.keep_alive;
                    self.pending.push(pending);
                    return;
                }
                Err(problem) => {
                    self.settle().await;
                    self.exchange.to = head.reply_to();
                    self.exchange.cors = cors;
                    self.exchange.refuse(&problem);
                }
            }
        } else {
            self.settle().await;
            self.exchange.to = head.reply_to();
            self.exchange.cors = cors;
            Box::pin(self.answer(route, head, body)).await;
        }
        self.context.count(route.target.name(), self.exchange.status);
    }

    async fn answer(&mut self, route: &Route<'_>, head: &Head<'_>, body: &[u8]) {
        if matches!(route.target, Target::Preflight) {
            let cors = self.exchange.cors.clone();
            let reply = self.exchange.reply(204).header("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            return cors.write_preflight(reply).empty();
        }
        let begun = self.exchange.out.len();
        if let Err(problem) = api::answer(&self.context, route, head, body, &mut self.exchange).await {
            debug_assert!(
                self.exchange.out.len() == begun || self.exchange.out.is_empty(),
                "half an answer was written"
            );
            self.exchange.refuse(&problem);
        }
    }

    /// Answers the appends of this turn, in order.
    async fn settle(&mut self) {
        let mut turn = std::mem::take(&mut self.pending);
        for pending in turn.drain(..) {
            pending.settle(&mut self.exchange).await;
            self.context.count("produce", self.exchange.status);
        }
        self.pending = turn;
    }

    /// Receives the rest of a body, takes the request, and returns what came behind it.
    async fn gather(&mut self, head_bytes: &[u8], came: Vec<u8>, body_max: u64, caller: Caller) -> Option<Vec<u8>> {
        let Ok(Some((head, _))) = parse_head(head_bytes) else { return None };
        // What was asked before is answered before this one's body has come.
        self.settle().await;
        if head.expects_continue && came.is_empty() {
            self.exchange.out.extend_from_slice(CONTINUE);
        }
        if self.exchange.flush().await.is_err() {
            return None;
        }
        let before = self.context.body_bytes.get();
        let received = self.receive_body(&head, came, body_max).await;
        let cors = caller.cors.clone();
        let result = match received {
            Ok(Some(body)) => match self.admit_again(&head, caller).await {
                Ok(route) => {
                    self.carry_out(&route, &head, &body.bytes).await;
                    Some(body.rest)
                }
                Err(problem) => {
                    self.exchange.to = head.reply_to();
                    self.exchange.cors = cors;
                    self.exchange.refuse(&problem);
                    Some(body.rest)
                }
            },
            Ok(None) => None,
            Err(problem) => {
                self.exchange.to = head.reply_to();
                self.exchange.cors = cors;
                self.exchange.refuse(&problem);
                None
            }
        };
        debug_assert!(before <= self.context.broker.config.http.body_memory);
        if result.is_none() {
            self.settle().await;
        }
        result
    }

    /// The same once a body has come: group and token may be gone since.
    async fn admit_again<'b>(&mut self, head: &Head<'b>, caller: Caller) -> Result<Route<'b>, Problem> {
        caller.still_good()?;
        let target = target(&self.context, head)?;
        self.route(head, target, caller).await
    }

    /// Receives a body; `None` when the peer is gone.
    async fn receive_body(
        &mut self,
        head: &Head<'_>,
        mut came: Vec<u8>,
        body_max: u64,
    ) -> Result<Option<Body>, Problem> {
        let http = &self.context.broker.config.http;
        let started = Instant::now();
        let mut held = Held { context: Rc::clone(&self.context), bytes: 0 };
        let mut decoder = ChunkDecoder::default();
        let mut body = Vec::new();
        if let Framing::Length(_) = head.framing {
            body = std::mem::take(&mut came);
        }
        loop {
            let want = match head.framing {
                Framing::Length(length) if body.len() as u64 >= length => {
                    let rest = body.split_off(length as usize);
                    return Ok(Some(Body { bytes: body, rest }));
                }
                Framing::Length(length) => (length as usize - body.len()).min(READ_PIECE_BYTES),
                _ => {
                    let progress =
                        decoder.feed(&came, &mut body, body_max as usize).map_err(|fault| match fault.status {
                            413 => too_large(body_max),
                            _ => fault.into(),
                        })?;
                    came.drain(..progress.used);
                    if progress.done {
                        return Ok(Some(Body { bytes: body, rest: came }));
                    }
                    RECEIVE_BYTES
                }
            };
            held.hold((body.len() + came.len() + want) as u64)?;
            let seconds = body.len() as f64 / http.body_rate.max(1) as f64;
            let until = started + http.body_grace + std::time::Duration::from_secs_f64(seconds);
            match self.deadline.readable(&self.socket, Some(until)).await {
                Ok(Readable::Ready) => {}
                Ok(Readable::Interrupted) => continue,
                Ok(Readable::Expired) => {
                    return Err(Problem::new(408, "slow_request", "the body comes too slowly").closing());
                }
                Err(_) => return Ok(None),
            }
            let into = if matches!(head.framing, Framing::Length(_)) { &mut body } else { &mut came };
            match self.socket.receive(into, want) {
                Ok(0) => {
                    self.exchange.hung_up = true;
                    return Ok(None);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Ok(None),
            }
        }
    }

    /// Sends what is left. A client that may still be sending is heard for a moment, so that it reads the answer instead of
    /// a reset.
    async fn end(&mut self) {
        if self.exchange.flush().await.is_err() || self.exchange.hung_up {
            return;
        }
        self.socket.shutdown_send();
        let until = Instant::now() + LINGER_TIME;
        let mut discarded = Vec::new();
        let mut total = 0;
        while total < LINGER_BYTES && Instant::now() < until {
            match self.deadline.readable(&self.socket, Some(until)).await {
                Ok(Readable::Ready) => match self.socket.receive(&mut discarded, RECEIVE_BYTES) {
                    Ok(0) => return,
                    Ok(bytes) => total += bytes,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                },
                Ok(Readable::Interrupted) => {}
                Ok(Readable::Expired) | Err(_) => return,
            }
            discarded.clear();
        }
    }
}

/// A body's share of the memory for bodies, given back when it is dropped.
struct Held {
    context: Rc<Context>,
    bytes: u64,
}

impl Held {
    fn hold(&mut self, bytes: u64) -> Result<(), Problem> {
        let most = self.context.broker.config.http.body_memory;
        let all = self.context.body_bytes.get() - self.bytes + bytes.max(self.bytes);
        if all > most {
            let detail = "too many request bodies are coming in (http.body_memory)";
            return Err(Problem::passing(503, "overloaded", 500, detail).closing());
        }
        self.context.body_bytes.set(all);
        self.bytes = self.bytes.max(bytes);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.context.body_bytes.set(self.context.body_bytes.get() - self.bytes);
    }
}
