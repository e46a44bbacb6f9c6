//! Planted faults: each tampers with what goes into the machine or comes out of it, and is caught by a
//! law and by the model, each without the other.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use pollflip::internals::machine::TakeoverOutput::{Answer, MarksFreed, Notice, Open, Sole};
use pollflip::internals::machine::{DYING, Inbound, Line, Prompt, Stage, TakeoverInput, TakeoverNotice};
use pollflip_tests_pure::model::checked::ALL;
use pollflip_tests_pure::model::takeover::say::*;
use pollflip_tests_pure::model::takeover::{CheckedTakeover, INPUTS, Judges, Setting, TakeoverLaw, Tamper, Wrong};

struct Fault {
    name: &'static str,
    tamper: Tamper,
    /// The law that catches it first.
    breaks: TakeoverLaw,
}

const fn fault(name: &'static str, breaks: TakeoverLaw, tamper: Tamper) -> Fault {
    Fault { name, tamper, breaks }
}

/// Some inputs are not heard.
macro_rules! deaf {
    ($input:pat, $stage:pat) => {
        Tamper::Input(|stage, input| if matches!((stage, input), ($stage, $input)) { vec![] } else { vec![input] })
    };
}

/// One thing comes out as others, wherever the stage is that.
macro_rules! makes {
    ($kind:ident, $from:pat, $stage:pat => $($to:expr),*) => {
        Tamper::$kind(|stage, thing| if matches!((stage, thing), ($stage, $from)) { vec![$($to),*] } else { vec![thing] })
    };
}

#[rustfmt::skip]
const FAULTS: &[Fault] = &[
    fault("the state is asked for twice", TakeoverLaw::PullOnce,
        makes!(Prompt, Prompt::SendPull, _ => Prompt::SendPull, Prompt::SendPull)),
    fault("SendReady is sent twice", TakeoverLaw::ReadyOnce,
        makes!(Prompt, Prompt::SendReady, _ => Prompt::SendReady, Prompt::SendReady)),
    fault("SayReady passes over a state that is on its way", TakeoverLaw::ReadyOnce,
        makes!(Input, TakeoverInput::SayReady, Stage::Starting { state: Inbound::Asked, .. }
            => TakeoverInput::StateComplete, TakeoverInput::StateTaken, TakeoverInput::SayReady)),
    fault("a grant is heard that nobody has asked for", TakeoverLaw::ReadyOnce,
        makes!(Input, TakeoverInput::Granted, Stage::Starting { .. } => TakeoverInput::SayReady, TakeoverInput::Granted)),
    fault("a process that is ready refuses", TakeoverLaw::RefuseOnlyWhenDecided,
        makes!(Prompt, Prompt::SendReady, _ => Prompt::SendRefuse, Prompt::SendReady)),
    fault("a successor tells the service manager that it is ready", TakeoverLaw::TellManagerOnce,
        makes!(Prompt, Prompt::SendReady, _ => Prompt::SendReady, Prompt::TellManager)),
    fault("a refusal of the program is lost", TakeoverLaw::SaysWhatTheProgramSays, deaf!(TakeoverInput::SayRefuse, _)),
    fault("a state that cannot be used counts as whole", TakeoverLaw::SaysWhatTheProgramSays,
        makes!(Input, TakeoverInput::StateUnusable, _ => TakeoverInput::StateComplete)),
    fault("what can go ahead is asked for twice", TakeoverLaw::PrecopyPullOnce,
        makes!(Prompt, Prompt::SendPrecopyPull, _ => Prompt::SendPrecopyPull, Prompt::SendPrecopyPull)),
    fault("what has come ahead is closed when the state is asked for", TakeoverLaw::KeepsWhatCanBeTaken,
        makes!(Input, TakeoverInput::Pull, Stage::Starting { state: Inbound::Precopied, .. } => CLOSED, TakeoverInput::Pull)),
    fault("what has come ahead is kept when the lifeline is lost", TakeoverLaw::ClosesWhatNobodyTakes,
        makes!(Prompt, Prompt::CloseUntaken, Stage::Starting { line: Line::Lost { .. }, state: Inbound::Precopied } => )),
    fault("what has come ahead is kept when the predecessor ends", TakeoverLaw::ClosesWhatNobodyTakes,
        makes!(Prompt, Prompt::CloseUntaken, Stage::Alone { ready: false, .. } => )),
    fault("connections are served without the state that belongs to them", TakeoverLaw::ReadyWaitsForTheState,
        Tamper::MayBeReady(|stage, may| may || matches!(stage, Stage::Starting { state: Inbound::Precopied, .. }))),
    fault("what comes is closed as soon as it is asked for", TakeoverLaw::KeepsWhatCanBeTaken,
        makes!(Prompt, Prompt::SendPull, _ => Prompt::SendPull, Prompt::CloseUntaken)),
    fault("what was not taken is kept after the grant", TakeoverLaw::ClosesWhatNobodyTakes,
        makes!(Prompt, Prompt::CloseUntaken, Stage::Granted { .. } => )),
    fault("half a state is kept when the lifeline is lost", TakeoverLaw::ClosesWhatNobodyTakes,
        makes!(Prompt, Prompt::CloseUntaken, Stage::Starting { line: Line::Lost { .. }, .. } => )),
    fault("a restarter is told twice to open", TakeoverLaw::OpenOnce, makes!(Output, Open, _ => Open, Open)),
    fault("a process that is left alone serves before it is ready", TakeoverLaw::OpenOnlyWhenItMay,
        makes!(Output, Answer, Stage::Alone { ready: false, .. } => Open, Answer)),
    fault("a process that was given up serves when the predecessor ends", TakeoverLaw::NothingAfterGivenUp,
        makes!(Output, Notice(TakeoverNotice::PredecessorGone), Stage::GivenUp { .. } => Notice(TakeoverNotice::PredecessorGone), Open, TAKE_AND_NAME)),
    fault("the word that this process is given up is lost", TakeoverLaw::TellsWhatHappened, deaf!(TakeoverInput::GivenUp, _)),
    fault("the service is taken twice", TakeoverLaw::TakeServiceOnce, makes!(Output, TAKE, _ => TAKE, TAKE)),
    fault("the service is taken before the process is open", TakeoverLaw::TakeServiceAfterOpen,
        makes!(Output, Open, Stage::Alone { .. } => TAKE, Open)),
    fault("the service is taken with the grant", TakeoverLaw::TakeServiceOnlyItsOwn,
        makes!(Output, TOLD_GRANTED, _ => TOLD_GRANTED, TAKE)),
    fault("the probation ends by this process's clock", TakeoverLaw::TakeServiceOnlyItsOwn,
        makes!(Input, TakeoverInput::Timeout, Stage::Granted { line: Line::Open, .. } => TakeoverInput::Commit)),
    fault("a lost lifeline counts as the commit despite a probation", TakeoverLaw::TakeServiceOnlyItsOwn,
        makes!(Output, Answer, Stage::Granted { line: Line::Silent, .. } => TAKE, Answer)),
    fault("the main PID is named by one that the predecessor has committed to", TakeoverLaw::NamesMainPidOnce,
        makes!(Output, TAKE, Stage::Final { .. } => TAKE_AND_NAME)),
    fault("the main PID of a process that is left alone is not named", TakeoverLaw::NamesMainPidOnce,
        makes!(Output, TAKE_AND_NAME, _ => TAKE)),
    fault("a first generation names itself the new main process", TakeoverLaw::NamesMainPidOnce,
        makes!(Output, TAKE, Stage::Alone { .. } => TAKE_AND_NAME)),
    fault("a process answers beside its predecessor", TakeoverLaw::AnswersOnlyAlone,
        makes!(Output, Open, Stage::Granted { .. } => Open, Answer)),
    fault("a process on probation has the only claim", TakeoverLaw::AnswersOnlyAlone,
        makes!(Output, Open, Stage::Granted { .. } => Open, Sole)),
    fault("nobody answers once the lifeline is lost", TakeoverLaw::TellsWhatHolds,
        makes!(Output, Answer, Stage::Granted { .. } => )),
    fault("a restarter that comes after the grant is not told of it", TakeoverLaw::TellsWhatHolds,
        deaf!(TakeoverInput::Attach, Stage::Granted { .. })),
    fault("the grant is told twice", TakeoverLaw::NoticeOnce, makes!(Output, TOLD_GRANTED, _ => TOLD_GRANTED, TOLD_GRANTED)),
    fault("the grant is told as the commit", TakeoverLaw::NoticesAreTrue, makes!(Output, TOLD_GRANTED, _ => TOLD_COMMITTED)),
    fault("a lifeline is told of as lost while the predecessor may be dying", TakeoverLaw::NoVerdictTooSoon,
        makes!(Output, Open, Stage::Granted { line: Line::Lost { .. }, .. } => TOLD_LOST, Open)),
    fault("a predecessor that is held up gets no time", TakeoverLaw::NoVerdictTooSoon,
        Tamper::Time(|stage, input, now| match (stage, input) {
            (Stage::Starting { .. } | Stage::ReadySent { .. }, TakeoverInput::Timeout) => now.saturating_add(DYING),
            _ => now,
        })),
    fault("the end of the predecessor is told before its commit", TakeoverLaw::GoneIsLast,
        makes!(Output, TOLD_COMMITTED, Stage::Final { predecessor_ended: true } => TOLD_GONE, TOLD_COMMITTED)),
    fault("a mark is freed before the grant", TakeoverLaw::FreesMarksOnlyWhenItMay,
        makes!(Output, Answer, Stage::Alone { ready: false, .. } => MarksFreed, Answer)),
    fault("the marks of the predecessor stay its own", TakeoverLaw::FreesMarks,
        makes!(Output, MarksFreed, Stage::Final { predecessor_ended: true } => )),
    fault("the end of an earlier generation is not heard", TakeoverLaw::FreesMarks, deaf!(TakeoverInput::GenerationEnded, _)),
    fault("the grant is not told", TakeoverLaw::TellsWhatHappened, makes!(Output, TOLD_GRANTED, _ => )),
    fault("the end of a predecessor is not seen by one that was given up", TakeoverLaw::TellsWhatHappened,
        deaf!(TakeoverInput::PredecessorEnded, Stage::GivenUp { .. })),
    fault("a process on probation may be replaced", TakeoverLaw::RefusesWithTheReason,
        Tamper::Refusal(|stage, refusal| if matches!(stage, Stage::Granted { .. }) { None } else { refusal })),
    fault("a state that waits may be passed over", TakeoverLaw::ReadyWaitsForTheState,
        Tamper::MayBeReady(|stage, may| may || matches!(stage, Stage::Starting { state: Inbound::Arrived, .. }))),
    fault("nobody looks at a lifeline that says nothing after the grant", TakeoverLaw::WakesInTime,
        Tamper::Timeout(|stage, timeout| if matches!(stage, Stage::Granted { line: Line::Open, .. }) { None } else { timeout })),
    fault("a predecessor that is dying does not postpone the verdict", TakeoverLaw::WakesInTime, deaf!(TakeoverInput::PredecessorDying, _)),
    fault("a lifeline that this process closed is one that the predecessor closed", TakeoverLaw::WakesInTime,
        makes!(Input, CLOSED_BY_US, _ => CLOSED)),
];

/// A shortest history that shows the fault to these judges.
fn caught(tamper: Tamper, judges: Judges) -> Option<(Wrong, CheckedTakeover)> {
    let mut edge: VecDeque<(Setting, Vec<(bool, TakeoverInput)>)> = Setting::ALL.into_iter().map(|setting| (setting, vec![])).collect();
    let mut seen = HashSet::new();
    while let Some((setting, way)) = edge.pop_front() {
        let last = INPUTS.into_iter().flat_map(|input| [(false, input), (true, input)]);
        for step in last {
            let longer = [&way[..], &[step]].concat();
            let mut checked = CheckedTakeover::with_fault(setting, Some(tamper), judges);
            match longer.iter().try_for_each(|(in_time, input)| happens(&mut checked, *in_time, *input)) {
                Err(wrong) => return Some((wrong, checked)),
                Ok(()) if seen.insert(checked.key()) => edge.push_back((setting, longer)),
                Ok(()) => {}
            }
        }
    }
    None
}

/// At once or when the deadline has come; all of it carried out.
fn happens(checked: &mut CheckedTakeover, in_time: bool, input: TakeoverInput) -> Result<(), Wrong> {
    checked.wait(if in_time { checked.to_deadline_of_this_age() } else { Duration::ZERO });
    checked.try_take(checked.now(), input)?;
    checked.try_drain(ALL)?;
    checked.try_ask()
}

#[test]
fn each_planted_fault_is_caught_by_its_law_and_by_the_model() {
    let mut broken = BTreeSet::new();
    for Fault { name, tamper, breaks } in FAULTS {
        let (law, history) = caught(*tamper, Judges::Laws).unwrap_or_else(|| panic!("no law catches it: {name}"));
        let (_, by_model) = caught(*tamper, Judges::Model).unwrap_or_else(|| panic!("the model does not catch it: {name}"));
        println!("{name}\n    {breaks:?} after {} steps, the model after {}", history.steps(), by_model.steps());
        assert_eq!(law, Wrong::Law(*breaks), "{name}\n{history}");
        broken.insert(*breaks);
    }
    let idle: Vec<_> = TakeoverLaw::ALL.into_iter().filter(|law| !broken.contains(law)).collect();
    println!("{} faults, {} laws", FAULTS.len(), broken.len());
    assert!(idle.is_empty(), "no fault breaks {idle:?}");
}

/// Without a fault there is nothing to catch.
#[test]
fn the_machine_as_it_is_breaks_no_law() {
    let harmless = Tamper::Timeout(|_, timeout| timeout);
    for judges in [Judges::Laws, Judges::Model, Judges::Both] {
        let found = caught(harmless, judges);
        assert!(found.is_none(), "{}", found.map(|(wrong, history)| format!("{wrong}\n{history}")).unwrap_or_default());
    }
}
