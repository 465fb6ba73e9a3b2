//! A broker of a few hundred lines: takes events and batches, gives them back, and breaks one promise where told to.
//! `http` moves requests and answers, `log` keeps events, `readers` gives them to consumers.

mod http;
mod log;
mod readers;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::{Answer, Peer, Request};
use log::{Group, Placed, split_batch};
pub(crate) use readers::ReaderFault;

/// What happens to the n-th produce request (counted from 1 over all connections) instead of the right thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answered, not stored; its offsets stay empty.
    LoseLeavingHole,
    /// Answered, not stored; the next event gets its offset.
    Lose,
    /// Stored twice.
    Duplicate,
    /// Its last event changes places with the event before it.
    Swap,
    /// One byte of its last event is another.
    Corrupt,
    /// The answer names the offset after the right one.
    WrongOffset,
    /// Stored, and answered half a second later.
    Delay,
    /// Never answered, and not stored.
    Stall,
    /// The connection ends before it is stored.
    CloseBefore,
    /// The connection ends after it is stored, without an answer.
    CloseAfter,
    /// 503, not stored.
    Busy,
    /// 503, but stored all the same.
    BusyYetStored,
    /// 404, not stored.
    Refuse,
    /// 204 without an offset.
    NoOffset,
    /// What the answer begins with is not HTTP.
    Garbage,
    /// Answered as the last one of its connection.
    AnswerAndClose,
}

/// A produce request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) group: String,
    pub(crate) content_type: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) prefer: Option<String>,
    pub(crate) producer: Option<(String, u64, u64)>,
    pub(crate) events: Vec<Vec<u8>>,
}

/// How the broker behaves as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    /// What happens to which produce requests.
    pub(crate) faults: HashMap<usize, Fault>,
    /// Answers are sent a few bytes at a time.
    pub(crate) in_pieces: bool,
    /// No more than this many events in a page, whatever is asked for.
    pub(crate) page_events: usize,
    /// Reads are refused with this status.
    pub(crate) refuse_reads: Option<u16>,
    /// What is wrong with what consumers are given.
    pub(crate) readers: Option<ReaderFault>,
}

#[derive(Debug, Default)]
struct State {
    manners: Manners,
    groups: HashMap<String, Group>,
    seen: Vec<Seen>,
    /// The next offset of each consumer.
    consumers: HashMap<String, u64>,
    pages: usize,
}

/// A running fake broker; ends when dropped.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Broker {
    /// One that keeps every promise.
    pub(crate) fn honest() -> Broker {
        Broker::with(Manners { page_events: 100, ..Manners::default() })
    }

    /// One that does this to its n-th produce request.
    pub(crate) fn with_fault(request: usize, fault: Fault) -> Broker {
        Broker::with_faults([(request, fault)])
    }

    /// One that does all of this.
    pub(crate) fn with_faults(faults: impl IntoIterator<Item = (usize, Fault)>) -> Broker {
        Broker::with(Manners { faults: faults.into_iter().collect(), page_events: 100, ..Manners::default() })
    }

    /// One with these manners.
    pub(crate) fn with(manners: Manners) -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { manners, ..State::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopping) = (Arc::clone(&state), Arc::clone(&stop));
        let accepting = thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let (shared, stopping) = (Arc::clone(&shared), Arc::clone(&stopping));
                let stream = stream.unwrap();
                thread::spawn(move || serve(connection, Peer::new(stream), &shared, &stopping));
            }
        });
        Broker { address, state, stop, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All produce requests in the order of their arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// The events stored in a group.
    pub(crate) fn stored(&self, group: &str) -> Vec<Vec<u8>> {
        self.lock().groups.get(group).map(Group::data).unwrap_or_default()
    }

    /// Puts an event of somebody else into a group.
    pub(crate) fn store(&self, group: &str, data: &[u8]) {
        self.lock().groups.entry(group.to_owned()).or_default().push(vec![data.to_vec()]);
    }

    /// How many consumers there are.
    pub(crate) fn consumers(&self) -> usize {
        self.lock().consumers.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }
}

/// What comes after a request on its connection.
enum Next {
    Answer(Answer),
    AnswerAfter(Duration, Answer),
    AnswerAndClose(Answer),
    Close,
    Never,
}

fn serve(connection: usize, mut peer: Peer, state: &Mutex<State>, stop: &AtomicBool) {
    while let Some(request) = peer.request() {
        let (next, in_pieces) = {
            let mut state = state.lock().unwrap();
            (answer(connection, &request, &mut state), state.manners.in_pieces)
        };
        match next {
            Next::Answer(answer) => peer.answer(&answer, in_pieces),
            Next::AnswerAfter(pause, answer) => {
                thread::sleep(pause);
                peer.answer(&answer, in_pieces);
            }
            Next::AnswerAndClose(mut answer) => {
                answer.headers.push(("Connection", "close".into()));
                return peer.answer(&answer, in_pieces);
            }
            Next::Close => return,
            Next::Never => {
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
                return;
            }
        }
    }
}

fn answer(connection: usize, request: &Request, state: &mut State) -> Next {
    let path: Vec<&str> = request.path.split('/').skip(1).collect();
    match (request.method.as_str(), path.as_slice()) {
        ("PUT", ["v1", "groups", group]) => {
            state.groups.entry((*group).to_owned()).or_default();
            Next::Answer(Answer::of(201, b"{}"))
        }
        ("GET", ["v1", "groups", group, "events"]) => Next::Answer(page(request, group, state)),
        ("POST", ["v1", "groups", group, "events" | "batch"]) => produce(connection, request, group, state),
        ("PUT", ["v1", "groups", group, "consumers", consumer]) => {
            Next::Answer(readers::subscribe(state, group, consumer, &request.body))
        }
        ("DELETE", ["v1", "groups", _, "consumers", consumer]) => Next::Answer(readers::leave(state, consumer)),
        ("GET", ["v1", "groups", group, "consumers", consumer, "next"]) => {
            readers::next(state, group, consumer, request)
        }
        ("POST", ["v1", "groups", _, "consumers", consumer, "ack"]) => {
            Next::Answer(readers::ack(state, consumer, &request.body))
        }
        _ => Next::Answer(Answer::problem(404, "not_found", "none")),
    }
}

fn page(request: &Request, group: &str, state: &mut State) -> Answer {
    if let Some(status) = state.manners.refuse_reads {
        return Answer::problem(status, "reads_refused", "none");
    }
    assert_eq!(request.header("accept"), Some("application/x-ndjson"));
    let Some(log) = state.groups.get(group) else {
        return Answer::problem(404, "no_group", "none");
    };
    let limit: usize = request.parameter("limit").unwrap().parse().unwrap();
    let from = match request.parameter("from").unwrap() {
        "latest" => log.tail(),
        number => number.parse().unwrap(),
    };
    let (body, next) = log.page(from, limit.min(state.manners.page_events));
    state.pages += 1;
    let mut answer = Answer::of(200, &body);
    // Both ways to say how long a body is.
    answer.chunked = state.pages.is_multiple_of(2);
    answer.headers.push(("Eddyline-Next", next.to_string()));
    answer.headers.push(("Eddyline-Tail", log.tail().to_string()));
    answer
}

fn produce(connection: usize, request: &Request, group: &str, state: &mut State) -> Next {
    let seen = see(connection, request, group);
    state.seen.push(seen.clone());
    let fault = state.manners.faults.get(&state.seen.len()).copied();
    let Some(log) = state.groups.get_mut(group) else {
        return Next::Answer(Answer::problem(404, "no_group", "none"));
    };
    match fault {
        Some(Fault::Stall) => return Next::Never,
        Some(Fault::CloseBefore) => return Next::Close,
        Some(Fault::Busy) => return Next::Answer(Answer::busy()),
        Some(Fault::Refuse) => return Next::Answer(Answer::problem(404, "gone_away", "none")),
        _ => {}
    }
    let placed = match log.deduplicated(seen.producer.as_ref(), seen.events) {
        Ok(events) => log.push_faulty(events, fault, seen.producer),
        Err(placed) => placed,
    };
    match placed {
        Placed::Gap { expected } => {
            let mut answer = Answer::problem(409, "producer_gap", "none");
            answer.headers.push(("Producer-Expected-Seq", expected.to_string()));
            Next::Answer(answer)
        }
        Placed::At { first, count, duplicate } => {
            let first = first + u64::from(fault == Some(Fault::WrongOffset));
            let minimal = seen.prefer.as_deref() == Some("return=minimal");
            stored(Answer::stored(first, count, duplicate, minimal), fault)
        }
    }
}

/// Takes a produce request apart.
fn see(connection: usize, request: &Request, group: &str) -> Seen {
    let events = if request.path.ends_with("/batch") {
        split_batch(request.header("content-type").unwrap_or(""), &request.body)
    } else {
        vec![request.body.clone()]
    };
    let producer = request.header("producer-id").map(|id| {
        let number = |name: &str| request.header(name).unwrap().parse().unwrap();
        (id.to_owned(), number("producer-epoch"), number("producer-seq"))
    });
    let owned = |name: &str| request.header(name).map(str::to_owned);
    Seen {
        connection,
        group: group.to_owned(),
        content_type: owned("content-type"),
        authorization: owned("authorization"),
        prefer: owned("prefer"),
        producer,
        events,
    }
}

/// What is said after events were stored.
fn stored(mut answer: Answer, fault: Option<Fault>) -> Next {
    match fault {
        Some(Fault::CloseAfter) => return Next::Close,
        Some(Fault::Delay) => return Next::AnswerAfter(Duration::from_millis(500), answer),
        Some(Fault::AnswerAndClose) => return Next::AnswerAndClose(answer),
        Some(Fault::BusyYetStored) => answer = Answer::busy(),
        Some(Fault::NoOffset) => answer = Answer::of(204, b""),
        Some(Fault::Garbage) => answer.version = "SPDY/3",
        _ => {}
    }
    Next::Answer(answer)
}
