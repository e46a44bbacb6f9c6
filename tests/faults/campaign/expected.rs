//! What a case must come to, by the promises: written down from the design, not from the code.

use crate::case::Fault::*;
use crate::case::Step::*;
use crate::case::{Case, Fault, Victim};

/// Who serves in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    Old,
    New,
    /// The last one's end is reported: by its own status to whoever started it.
    Nobody,
    /// The old one, which has handed the service over for good, reports the end of the new one.
    NobodyAndReported,
}

/// What the asker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Complete,
    /// The old one died.
    Ended,
    /// With these words in it.
    Failed(&'static [&'static str]),
}

/// What may come of it, any of these: where both happen at once, either may be first.
pub fn outcomes(case: Case) -> Vec<(Serves, Told)> {
    use Serves::*;
    let Case { step, fault, victim } = case;
    let succeeded = (New, Told::Complete);
    let failed = |words| (Old, Told::Failed(words));
    let too_late = failed(&["was not ready within"]);
    let one = match (fault, victim) {
        (fault, Victim::Old) if fault.is_deadly() => match step {
            BeforeSpawn => (Nobody, Told::Ended),
            step if step < Commit => (New, Told::Ended),
            _ => succeeded,
        },
        (fault, Victim::New) if fault.is_deadly() => match step {
            AfterSpawn | Hello if fault == Terminate => failed(&["was killed by SIGTERM before it was ready"]),
            step if step < Granted => failed(before_ready(fault)),
            Probation => failed(on_probation(fault)),
            // It had been granted for good.
            _ => (NobodyAndReported, Told::Complete),
        },
        // The new one finds itself given up, and ends; the old one finds that nobody takes the state, and ends it: whoever is first.
        (Close, Victim::Old) if matches!(step, Precopy | HalfAhead | Pull | Half) => {
            return vec![failed(&["exited with status 2"]), failed(&["closed its lifeline"])];
        }
        // The new one finds itself given up, and ends.
        (Close, Victim::Old) if step < Granted => failed(&["exited with status 2"]),
        // One without a lifeline gives up by itself after a while: whoever is first.
        (Close, Victim::New) if matches!(step, Here | Ahead | End | Ready) => {
            return vec![failed(&["closed its lifeline"]), failed(&["exited with status 2"])];
        }
        (Close, Victim::New) if step < Granted || step == Probation => failed(&["closed its lifeline"]),
        // It was asked for, and may be a part of the state.
        (Garbage, Victim::Old) if step.goes_ahead() || matches!(step, Pull | Half) => {
            failed(&["refused", "the state cannot be taken over"])
        }
        (Garbage, Victim::New) if step < Granted || step == Probation => failed(&["broke the protocol", "cannot be read"]),
        (Full, Victim::Old) => match step {
            BeforeSpawn => failed(&["its lifeline cannot be made", "(os error 24)"]),
            Precopy | HalfAhead | Ahead | Pull | Half => failed(&["the handover failed", "(os error 24)"]),
            _ => succeeded,
        },
        (Full, Victim::New) => match step {
            AfterSpawn => failed(&["RLIMIT_NOFILE"]),
            // The listener that it asks for needs a duplicate.
            Here => failed(&["exited with status 2"]),
            Precopy | HalfAhead | Ahead | Pull | Half => failed(&["refused", "the state cannot be taken over", "RLIMIT_NOFILE"]),
            _ => succeeded,
        },
        (Crowded, Victim::Old) if step == BeforeSpawn => failed(&["could not start", "Resource temporarily unavailable"]),
        (Crowded, Victim::New) if step == AfterSpawn => failed(&["refused", "cannot start the restart thread"]),
        (Suspend, Victim::New) if step < Granted => too_late,
        (Slow, _) => too_late,
        // Either may look first.
        (Sleep, _) if step < Ready => return vec![too_late, succeeded],
        // What the new one said in time counts, however late it is read; here it waits for the state itself.
        (Suspend, Victim::Old) if step.goes_ahead() || matches!(step, Pull | Half) => return vec![too_late, succeeded],
        _ => succeeded,
    };
    vec![one]
}

fn before_ready(fault: Fault) -> &'static [&'static str] {
    match fault {
        Exit0 => &["exited with status 0 before it was ready"],
        Exit1 => &["exited with status 1 before it was ready"],
        Abort => &["was killed by SIGABRT before it was ready"],
        Terminate => &["exited with status 143 before it was ready"],
        _ => &["was killed by SIGKILL before it was ready"],
    }
}

fn on_probation(fault: Fault) -> &'static [&'static str] {
    match fault {
        Exit0 => &["exited with status 0 on probation"],
        Exit1 => &["exited with status 1 on probation"],
        Abort => &["was killed by SIGABRT on probation"],
        // It may have ended in order after the first.
        Terminate => &["exited with status", "on probation"],
        _ => &["was killed by SIGKILL on probation"],
    }
}
