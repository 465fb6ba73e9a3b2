//! The only room that touches the kernel: rings, sockets, files, buffers, clocks and the machine's limits.
//!
//! Everything here takes and returns owned buffers or plain values, so that no other room knows which ring it runs on,
//! and `unsafe` stays in the files of this folder. Nothing here knows what the bytes mean.

pub mod background;
pub mod buffer;
pub mod clock;
pub mod deadline;
pub mod file;
pub mod helper;
pub mod ring;
pub mod socket;
pub mod system;
