//! Puts the server to the test. `run.rs` directs, `service.rs` runs the servers as processes of their
//! own, `crowd.rs`, `client.rs` and `visitors.rs` are the players, who connect by `loopback.rs`,
//! `players.rs` has them play at a server of somebody else's, `seen.rs` and `report.rs` tell how long
//! what took, and `sabotage.rs` has a server break a rule, which the players must notice.

mod client;
mod crowd;
mod loopback;
mod players;
mod report;
mod run;
mod sabotage;
mod seen;
mod service;
mod visitors;

pub(crate) use players::play;
pub(crate) use run::{Options, run};
pub(crate) use sabotage::fail_if_told;
