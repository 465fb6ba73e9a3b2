//! Load generator for Eddyline: drives the broker over HTTP, measures, and reads back what was acknowledged.
//!
//! The road of one request; imports only ever point down this list (`cli`, `produce` and `consume` see everything).
//!
//! ```text
//!  cli         arguments → a checked plan
//!  produce     one profile: set up · drive · read back · judge · print
//!  consume     another: consumers that read, ack or listen, and a room of its own
//!  e2e         produce and consume at once, for the time from planned send to a consumer's hands
//!  catchup     produce, then consume from the start
//!  mixed       services, browsers, consumers and observers at once
//!  find        the same again and again, for the highest rate that meets the objectives
//!  compare     two reports beside each other
//!  process     what all of them do around a run: signals, the summary and the report at the end, exit codes
//!  progress    one line a second, from its own thread
//!  broker      what the broker says of itself meanwhile
//!  report      the files that a run leaves
//!  summary     the dozen lines (or the JSON object) at the end
//!  results     all workers' records together;  verdict decides the first word
//!  slo         objectives, and whether they were met
//!  verify      reads every acknowledged event back and says what is wrong
//!  api         the few blocking requests: make a group, its tail, one page of events
//!  worker      one thread, one epoll loop over its connections
//!  connection  a socket: connect, back off, read, write
//!  alarm       wakes a worker at a planned moment
//!  flight      events between a planned send and a consumer's hands
//!  exchange    what one connection says and hears; knows no sockets
//!  pace        who may send when, in the closed loop and in the open
//!  incoming    whole answers of any length
//!  acks        what was acknowledged, in bounded memory
//!  request     request bytes          answer      answer bytes
//!  record      what one worker writes down of the requests it sent
//!  meter       one worker's measurements on their way to the others'
//!  series      the run second by second, all workers together
//!  sample      counts and times by clock
//!  schedule    planned moments: a pure function of rate, shape and seed
//!  plan        what is sent: a pure function of (connection, request number)
//!  keys        which key an event has
//!  payload     the bytes of an event, and whose they are when met again
//!  target, descriptors, thread_time, units
//! ```
//!
//! Two decisions carry the rest. *What* request `r` of connection `c` contains is a pure function of the plan, so
//! nothing that was sent is kept: 24 bytes per answered request, in a temporary file, are enough to check every byte
//! afterwards, and a retry renders the same bytes again. *When* a connection may send its next request is asked in one place,
//! [`pace::Pace::take`]: "as soon as there is room" in the closed loop, "at the oldest planned moment that is due" in the
//! open one.

pub mod catchup;
pub mod cli;
pub mod compare;
pub mod consume;
pub mod e2e;
pub mod find;
pub mod mixed;
pub mod produce;

pub mod process;

pub mod broker;
pub mod progress;
pub mod report;
pub mod results;
pub mod slo;
pub mod summary;
pub mod verdict;
pub mod verify;

pub mod api;
pub mod worker;

pub mod alarm;
pub mod connection;
pub mod exchange;
pub mod flight;
pub mod incoming;
pub mod pace;

pub mod acks;
pub mod answer;
pub mod record;
pub mod request;

pub mod meter;
pub mod sample;
pub mod series;

pub mod keys;
pub mod payload;
pub mod plan;
pub mod schedule;

pub mod descriptors;
pub mod target;
pub mod thread_time;
pub mod units;
