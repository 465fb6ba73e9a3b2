//! Deadlines of connections: cheap to move at every request, looked at a few times a second by one task a core.
//!
//! An operation in flight is never dropped: a receive waits by poll and is told that its time is over; a send is ended by
//! shutting the socket down, and then awaited.

use super::socket::{Closer, Socket};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// What happens when the time is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Whoever waits to receive is told.
    Tell,
    /// The connection is ended.
    End,
}

/// One connection's deadline.
pub struct Deadline {
    until: Cell<Option<(Instant, Then)>>,
    expired: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
    closer: Closer,
}

/// How waiting for bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// There is something to receive, or the end.
    Ready,
    /// The time is over.
    Expired,
    /// Somebody [interrupted](Deadline::interrupt) the wait.
    Interrupted,
}

impl Deadline {
    /// A connection without a deadline.
    #[must_use]
    pub fn new(socket: &Socket) -> Rc<Self> {
        Rc::new(Self {
            until: Cell::new(None),
            expired: Cell::new(false),
            waiting: RefCell::default(),
            closer: socket.closer(),
        })
    }

    /// Waits for bytes, at most until `until`.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn readable(&self, socket: &Socket, until: Option<Instant>) -> io::Result<Readable> {
        self.until.set(until.map(|until| (until, Then::Tell)));
        self.expired.set(false);
        let mut ready = std::pin::pin!(socket.readable());
        let result = std::future::poll_fn(|context| {
            if let Poll::Ready(result) = ready.as_mut().poll(context) {
                return Poll::Ready(result.map(|_| Readable::Ready));
            }
            if self.expired.replace(false) {
                let over = self.until.get().is_some_and(|(until, _)| until <= Instant::now());
                return Poll::Ready(Ok(if over { Readable::Expired } else { Readable::Interrupted }));
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waiting = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        self.until.set(None);
        if !matches!(result, Ok(Readable::Ready)) {
            socket.cancel_waits();
        }
        result
    }

    /// Ends a wait for bytes that is going on.
    pub fn interrupt(&self) {
        self.expired.set(true);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whoever takes nothing until then loses the connection.
    pub fn limit_send(&self, until: Instant) {
        self.until.set(Some((until, Then::End)));
    }

    /// No limit any more.
    pub fn clear(&self) {
        self.until.set(None);
    }

    fn check(&self, now: Instant) {
        match self.until.get() {
            Some((until, Then::Tell)) if until <= now => self.interrupt(),
            Some((until, Then::End)) if until <= now => self.closer.shutdown(),
            _ => {}
        }
    }
}

/// The deadlines of all connections of a core.
#[derive(Default)]
pub struct Deadlines {
    slots: RefCell<Slab<Rc<Deadline>>>,
}

impl Deadlines {
    /// Watches a connection; returns the key to [forget](Self::forget) it by.
    pub fn watch(&self, deadline: Rc<Deadline>) -> usize {
        self.slots.borrow_mut().insert(deadline)
    }

    /// The connection is gone.
    pub fn forget(&self, key: usize) {
        self.slots.borrow_mut().remove(key);
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.borrow().is_empty()
    }

    /// Ends every wait for bytes that is going on, so that idle connections notice a drain.
    pub fn interrupt_all(&self) {
        self.slots.borrow().iter().for_each(|(_, deadline)| deadline.interrupt());
    }

    /// Looks at all deadlines, for ever, `period` apart.
    pub async fn keep(&self, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            let now = Instant::now();
            self.slots.borrow().iter().for_each(|(_, deadline)| deadline.check(now));
        }
    }
}
