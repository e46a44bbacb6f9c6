//! The parts of the example, in the order in which they can be read.
//!
//! `marked` and `server` are what a QUIC server has to do for restarts; `identity` is what its generations must have in common. The rest
//! is QUIC on a loop without async, a client, and the run that shows that nothing is lost.

pub mod protocol;
pub mod identity;
pub mod marked;
pub mod connections;
pub mod server;
pub mod client;
pub mod service;
pub mod visits;
