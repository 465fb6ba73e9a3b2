//! Everything that is tested through the program itself: one binary, so that it is linked once.

mod broker;
mod history;
mod http;
mod image;
mod program;

mod abuse;
mod approval;
mod audit;
mod command_line;
mod crash;
mod disk_full;
mod groups;
mod limits;
mod live;
mod openapi;
mod operations;
mod origins;
mod produce;
mod producers;
mod read;
mod readme;
mod real_input;
mod revocation;
mod shutdown;
mod tokens;
