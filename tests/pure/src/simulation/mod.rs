//! The real `Restarter` on a simulated system: its processes are played, its clock stands unless it is moved, and its calls fail when told.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `act` | bytes to acts and back |
//! | `successor` | a successor's end of the lifeline |
//! | `predecessor` | the predecessor's end, of a restarter that has one |
//! | `client` | somebody at the coordination socket |
//! | `manager` | the service manager |
//! | `surroundings` | a restarter, and what it must leave behind nowhere |
//! | `judge` | the machine in step with the model, and what it does with the world |
//! | `seams` | the calls that can fail, and lives in which they do |
//! | `world` | all of them together, and one life in it |
//! | `hearing` | what the program hears in it, and whether it is true |
//! | `ending` | how that life ends |
//!
//! Knows: what a restarter promises to those around it. Does not know: how it keeps it.

pub mod act;
pub mod client;
pub mod ending;
pub mod hearing;
pub mod judge;
pub mod manager;
pub mod predecessor;
pub mod seams;
pub mod successor;
pub mod surroundings;
pub mod world;

pub use act::{Act, Kind};
pub use world::{Happening, Life, life};
