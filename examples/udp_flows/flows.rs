//! Protocol and clients as a library, for those who test with the same flows.

#[path = "bench/clients.rs"]
pub mod clients;
pub mod protocol;
