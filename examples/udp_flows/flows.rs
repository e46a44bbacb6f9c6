//! Protocol and clients as a library, for those who test with the same flows.

pub mod clients;
pub mod protocol;
