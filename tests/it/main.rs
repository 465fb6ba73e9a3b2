//! Everything that is tested through the program itself: one binary, so that it is linked once.

mod broker;
mod consumer;
mod history;
mod http;
mod image;
mod journal;
mod program;

mod abuse;
mod approval;
mod audit;
mod command_line;
mod consumer_cli;
mod consumer_failures;
mod consumer_moves;
mod consumer_sessions;
mod consumers;
mod crash;
mod disk_full;
mod groups;
mod limits;
mod live;
mod metrics;
mod openapi;
mod operations;
mod origins;
mod produce;
mod producers;
mod read;
mod readme;
mod real_input;
mod repair;
mod revocation;
mod shutdown;
mod tokens;
