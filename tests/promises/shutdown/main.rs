//! What `pollflip::shutdown` promises, through its public API.

mod cost;
mod handles;
mod interleaving;
mod on_shutdown;
mod phases;
mod registered;
mod runtime;
mod tools;
mod wakers;
