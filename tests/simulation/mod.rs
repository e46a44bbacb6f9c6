//! The real `Restarter` on a simulated system: its processes are played, its clock stands unless it is moved, and its calls fail when told.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `act` | bytes to acts and back |
//! | `successor` | a successor's end of the lifeline |
//! | `predecessor` | the predecessor's end, of a restarter that has one |
//! | `client` | somebody at the coordination socket |
//! | `judge` | the machine in step with the model, and what it does with the world |
//! | `world` | all of them together, and one life in it |
//!
//! Knows: what a restarter promises to those around it. Does not know: how it keeps it.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "the fuzz target has this module as its own and uses a part of it")]

pub mod act;
pub mod client;
pub mod judge;
pub mod predecessor;
pub mod successor;
pub mod world;

pub use act::{Act, Kind};
pub use world::life;
