//! A second, independent account of the restart machine, the laws that it must keep, and a driver that holds both against the code.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `room` | where a process stands, flat: what the code's `State` comes to |
//! | `on` | the inputs by kind |
//! | `rows` | the table of transitions as data |
//! | `facts` | the model: a flat record that obeys the rows |
//! | `laws` | what must hold of any history, whatever the rows say |
//! | `checked` | the driver: code, model and laws in step |
//! | `say` | words to write tests in |
//! | `operation` | bytes to steps and back: fuzzing, random walks, the corpus |
//! | `random` | chance that can be had again |
//! | `corpus` | the committed files that fuzzing starts from |
//! | `takeover` | the same for the machine of the process that takes over |
//! | `bytes` | what must hold of the two decoders for any bytes |
//! | `steering` | what must hold of marks in datagrams, and an interpreter of their programs |
//!
//! Knows: what the machine promises. Does not know: how it keeps it.

pub mod bytes;
pub mod checked;
pub mod corpus;
pub mod facts;
pub mod laws;
pub mod on;
pub mod operation;
pub mod random;
pub mod room;
pub mod rows;
pub mod say;
pub mod steering;
pub mod takeover;

pub use checked::Checked;
pub use on::On;
pub use operation::{After, Operation, machine};
pub use random::Random;
pub use room::{Room, View};

use std::time::Duration;

use pollflip::internals::machine::Limits;

/// How long the tests let a restart take.
pub const READY: Duration = Duration::from_secs(30);
/// How much of that may pass once it has asked for the state: no other limit is alike.
pub const FREEZE: Duration = Duration::from_secs(8);
/// How long the tests let it prove itself.
pub const PROBATION: Duration = Duration::from_secs(10);

/// A restart that is final at once.
pub const PLAIN: Limits = Limits { ready: READY, freeze: FREEZE, probation: None };
/// A restart that can be taken back.
pub const ON_PROBATION: Limits = Limits { ready: READY, freeze: FREEZE, probation: Some(PROBATION) };
