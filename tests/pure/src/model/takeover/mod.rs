//! A second, independent account of the machine of the process that takes over, the laws that it must
//! keep, and a driver that holds both against the code.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `place` | where a process stands, flat: what the code's `Stage` comes to |
//! | `rows` | the table of transitions as data |
//! | `facts` | the model: a flat record that obeys the rows |
//! | `law` | the names of the laws |
//! | `laws` | what must hold of any history, whatever the rows say |
//! | `tampered` | the machine, with or without a planted fault |
//! | `checked` | the driver: code, model and laws in step |
//! | `step` | bytes to steps and back: fuzzing, random walks, the corpus |
//! | `say` | words to write tests in |
//!
//! Knows: what the machine promises. Does not know: how it keeps it.

pub mod checked;
pub mod facts;
pub mod law;
pub mod laws;
pub mod place;
pub mod rows;
pub mod say;
pub mod step;
pub mod tampered;

pub use checked::{CheckedTakeover, Judges, Wrong};
pub use facts::TakeoverFacts;
pub use law::TakeoverLaw;
pub use laws::TakeoverLaws;
pub use place::{At, Contact, Setting, StageView};
pub use rows::TAKEOVER_ROWS;
pub use step::{TakeoverStep, takeover};
pub use tampered::Tamper;

use pollflip::internals::machine::TakeoverInput;

/// Every input. Their numbers in a corpus: what is added comes last.
pub const INPUTS: [TakeoverInput; 18] = [
    TakeoverInput::Attach,
    TakeoverInput::PullPrecopy,
    TakeoverInput::PrecopyComplete,
    TakeoverInput::Pull,
    TakeoverInput::StateComplete,
    TakeoverInput::StateUnusable,
    TakeoverInput::StateTaken,
    TakeoverInput::SayReady,
    TakeoverInput::SayRefuse,
    TakeoverInput::Granted,
    TakeoverInput::Commit,
    TakeoverInput::GivenUp,
    TakeoverInput::LineClosed { by_us: false },
    TakeoverInput::LineClosed { by_us: true },
    TakeoverInput::PredecessorDying,
    TakeoverInput::PredecessorEnded,
    TakeoverInput::Timeout,
    TakeoverInput::GenerationEnded,
];
