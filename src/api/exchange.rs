//! One connection's side of the conversation: what is to be sent, to whom it answers, and how it is sent.
//!
//! Answers gather in one buffer and go out together; an answer that is longer than memory should hold is sent in pieces
//! as it is made. A reader that takes nothing for too long loses the connection, so no answer holds memory for ever.

use super::Context;
use super::origin::Cors;
use super::problem::Problem;
use crate::http::{Reply, ReplyTo};
use crate::io::deadline::Deadline;
use crate::io::socket::Socket;
use crate::limits::READ_PIECE_BYTES;
use std::rc::Rc;
use std::time::Instant;

/// The peer is gone; nobody is left to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hangup;

/// One connection's side of the conversation.
pub struct Exchange {
    context: Rc<Context>,
    socket: Rc<Socket>,
    deadline: Rc<Deadline>,
    /// What waits to be sent.
    pub out: Vec<u8>,
    /// The request that is answered.
    pub to: ReplyTo,
    /// What its answer says about other origins.
    pub cors: Cors,
    /// Whether the connection ends after this answer.
    pub close: bool,
    /// The peer has gone.
    pub hung_up: bool,
    /// Status of the last answer.
    pub status: u16,
}

impl Exchange {
    /// A conversation that has not begun.
    #[must_use]
    pub fn new(context: Rc<Context>, socket: Rc<Socket>, deadline: Rc<Deadline>) -> Self {
        Self {
            context,
            socket,
            deadline,
            out: Vec::new(),
            to: ReplyTo::UNREADABLE,
            cors: Cors::default(),
            close: false,
            hung_up: false,
            status: 0,
        }
    }

    /// Begins a reply with what every reply says.
    pub fn reply(&mut self, status: u16) -> Reply<'_> {
        self.close |= !self.to.keep_alive;
        self.status = status;
        let dates = self.context.dates.borrow();
        let reply = Reply::new(&mut self.out, status, self.to, &dates);
        let reply = self.cors.write(reply);
        match self.to.keep_alive {
            true => reply.header("Keep-Alive", &self.context.keep_alive),
            false => reply,
        }
    }

    /// Answers with a problem.
    pub fn refuse(&mut self, problem: &Problem) {
        self.context.broker.stats.reject(problem.code);
        if problem.close {
            self.to = self.to.closing();
        }
        problem.write(self.reply(problem.status).header("X-Content-Type-Options", "nosniff"));
    }

    /// Answers with JSON.
    pub fn json(&mut self, status: u16, value: &serde_json::Value) {
        let body = value.to_string();
        self.reply(status).header("X-Content-Type-Options", "nosniff").body("application/json", body.as_bytes());
    }

    /// Counts events that were sent to a reader.
    pub fn delivered(&self, events: u64) {
        if !self.to.head_only {
            self.context.broker.stats.delivered.inc_by(events);
        }
    }

    /// Sends what has gathered.
    ///
    /// # Errors
    /// When the peer is gone or takes nothing.
    pub async fn flush(&mut self) -> Result<(), Hangup> {
        self.send(false).await
    }

    /// Writes the body of an answer whose head has gathered. A large one is sent from where it stands.
    ///
    /// # Errors
    /// When the peer is gone or takes nothing.
    pub async fn write_body(&mut self, body: Vec<u8>) -> Result<(), Hangup> {
        if self.out.len() + body.len() < READ_PIECE_BYTES / 4 {
            self.out.extend_from_slice(&body);
            return Ok(());
        }
        self.send(true).await?;
        self.out = body;
        self.send(false).await
    }

    async fn send(&mut self, more: bool) -> Result<(), Hangup> {
        // Also with nothing to send: an answer that was cut off ends its connection.
        if self.hung_up {
            return Err(Hangup);
        }
        if self.out.is_empty() {
            return Ok(());
        }
        self.deadline.limit_send(Instant::now() + self.context.broker.config.http.send);
        let (result, mut out) = self.socket.send(std::mem::take(&mut self.out), more).await;
        self.deadline.clear();
        out.clear();
        // Between answers a connection holds no more memory than an ordinary answer needs.
        if out.capacity() <= READ_PIECE_BYTES * 2 {
            self.out = out;
        }
        if result.is_err() {
            self.cut_off();
            return Err(Hangup);
        }
        Ok(())
    }

    /// Ends the connection in the middle of an answer, so that no client takes it for a whole one.
    pub fn cut_off(&mut self) {
        self.hung_up = true;
        // There the end of the connection is the end of the answer.
        if self.to.minor_version == 0 {
            self.socket.reset();
        }
    }

    /// Gives the buffer's memory back, for a wait that may be long.
    pub fn rest(&mut self) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
    }

    /// Ends a wait for [`hang_up`](Self::hang_up) that was dropped.
    pub fn heard_enough(&self) {
        self.socket.cancel_waits();
    }

    /// Completes when the peer has gone.
    pub fn hang_up(&self) -> impl Future<Output = std::io::Result<u32>> + use<> {
        self.socket.hung_up()
    }
}
