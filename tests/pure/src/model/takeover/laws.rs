//! What must hold of any history, judged by what went in and came out alone.
//!
//! A grant or a commit counts as heard when the predecessor was asked for it, over a lifeline that was
//! open. What belongs to a restarter begins anew with each `Attach`.

use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{DYING, LOST, Prompt, TakeoverInput, TakeoverNotice, TakeoverOutput, refusals};

use super::{Setting, TakeoverLaw};

pub type Verdict = Result<(), TakeoverLaw>;

fn law(holds: bool, otherwise: TakeoverLaw) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// How the service became this process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Another,
    /// It was a first generation's from the start.
    Born,
    Committed,
    /// The predecessor ended without a commit.
    LeftAlone,
    /// The predecessor cannot be heard, and cannot take the service back.
    OutOfReach,
}

/// What the machine can be asked.
#[derive(Debug, Clone, Copy)]
pub struct Answers {
    pub refusal: Option<Refusal>,
    pub may_be_ready: bool,
    pub has_state: bool,
    pub timeout: Option<Duration>,
}

/// A history, as far as the laws remember it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TakeoverLaws {
    setting: Setting,
    /// What the program and the predecessor have done.
    attached: bool,
    pulled_precopy: bool,
    pulled: bool,
    ready: bool,
    complete: bool,
    unusable: bool,
    taken: bool,
    granted: bool,
    given_up: bool,
    closed: bool,
    lost: bool,
    ended: bool,
    owner: Owner,
    /// When a verdict or a look is due.
    due: Duration,
    /// Prompts that this step owes.
    owes_precopy_pull: bool,
    owes_pull: bool,
    owes_ready: bool,
    owes_refusal: bool,
    owes_manager: bool,
    /// Whether something of the state may be held.
    held: bool,
    /// The notices that were told, and whether the main PID was named.
    told: [bool; 5],
    named: bool,
    /// An earlier generation has ended, and its marks have yet to be freed.
    owes_marks: bool,
    /// What the restarter of now has been told.
    opened: bool,
    took: bool,
    answers: bool,
}

impl TakeoverLaws {
    pub fn new(setting: Setting) -> TakeoverLaws {
        TakeoverLaws {
            setting,
            attached: false,
            pulled_precopy: false,
            pulled: false,
            ready: false,
            complete: false,
            unusable: false,
            taken: false,
            granted: false,
            given_up: false,
            closed: false,
            lost: false,
            ended: false,
            owner: Owner::Another,
            due: Duration::ZERO,
            owes_precopy_pull: false,
            owes_pull: false,
            owes_ready: false,
            owes_refusal: false,
            owes_manager: false,
            held: false,
            told: [false; 5],
            named: false,
            owes_marks: false,
            opened: false,
            took: false,
            answers: false,
        }
    }

    /// The same at the beginning of time: two histories that are alike in this have the same future.
    pub fn relative(self, now: Duration) -> TakeoverLaws {
        let due = match self.deadline() {
            None => Duration::ZERO,
            Some(Duration::MAX) => Duration::MAX,
            Some(due) => due.saturating_sub(now),
        };
        TakeoverLaws { due, ..self }
    }

    /// Nobody lives who could grant the service.
    fn is_alone(&self) -> bool {
        !self.setting.has_predecessor() || self.ended && !self.granted && !self.given_up
    }

    /// The predecessor has yet to decide.
    fn is_ungranted(&self) -> bool {
        !self.is_alone() && !self.granted && !self.given_up
    }

    fn is_coming(&self) -> bool {
        self.is_ungranted() && (self.pulled_precopy || self.pulled) && !self.complete && !self.unusable
    }

    fn waits(&self) -> bool {
        self.complete && !self.taken && !self.given_up
    }

    fn may_be_ready(&self) -> bool {
        self.ready || self.given_up || !(self.waits() || self.is_ungranted() && (self.is_coming() || self.unusable))
    }

    fn may_serve(&self) -> bool {
        self.granted || self.is_alone() && self.ready
    }

    fn deadline(&self) -> Option<Duration> {
        let undecided = self.granted && self.owner == Owner::Another && !self.lost || self.is_ungranted() && self.closed;
        undecided.then_some(self.due)
    }

    /// Notes what goes in.
    pub fn goes_in(&mut self, now: Duration, input: TakeoverInput) {
        match input {
            TakeoverInput::Attach => {
                self.attached = true;
                (self.opened, self.took, self.answers) = (false, false, false);
                // With Open it is done.
                self.owes_marks = false;
            }
            TakeoverInput::PullPrecopy => {
                self.owes_precopy_pull = self.is_ungranted() && !self.pulled_precopy && !self.pulled && !self.ready;
                self.pulled_precopy |= self.owes_precopy_pull;
                self.held |= self.owes_precopy_pull && !self.closed;
            }
            TakeoverInput::Pull => {
                self.owes_pull = self.is_ungranted() && !self.pulled && !self.unusable && !self.ready;
                self.pulled |= self.owes_pull;
                self.held |= self.owes_pull && !self.closed;
            }
            TakeoverInput::StateComplete => self.complete |= self.pulled && self.is_coming() && !self.closed,
            TakeoverInput::StateUnusable => {
                self.owes_refusal = self.is_coming() && !self.closed;
                self.unusable |= self.owes_refusal;
            }
            TakeoverInput::StateTaken => self.taken |= self.waits(),
            TakeoverInput::SayReady => {
                let now_ready = !self.ready && !self.given_up && self.may_be_ready();
                self.owes_ready = now_ready && self.setting.has_predecessor() && !self.ended;
                self.owes_manager = now_ready && !self.setting.has_predecessor();
                self.ready |= now_ready;
            }
            TakeoverInput::SayRefuse => self.owes_refusal = self.is_ungranted(),
            TakeoverInput::Granted if self.is_ungranted() && self.ready && !self.closed => {
                self.granted = true;
                self.due = now.saturating_add(self.setting.probation().unwrap_or_default()).saturating_add(DYING);
            }
            TakeoverInput::Commit if self.granted && !self.closed && self.owner == Owner::Another => self.owner = Owner::Committed,
            TakeoverInput::GivenUp => self.given_up |= self.is_ungranted(),
            TakeoverInput::LineClosed { by_us } => {
                if !self.closed && (self.is_ungranted() || self.granted && self.owner == Owner::Another) {
                    self.closed = true;
                    self.due = now.saturating_add(if by_us || self.granted { LOST } else { DYING });
                }
            }
            TakeoverInput::PredecessorDying if self.closed => self.due = self.due.max(now.saturating_add(DYING)),
            TakeoverInput::PredecessorEnded => {
                self.owes_marks |= self.setting.has_predecessor() && self.granted && !self.ended;
                self.ended |= self.setting.has_predecessor();
            }
            TakeoverInput::GenerationEnded => self.owes_marks |= self.may_serve(),
            TakeoverInput::Timeout if self.deadline().is_some_and(|due| now >= due) => match (self.granted, self.closed) {
                (true, true) => self.lost = true,
                (true, false) => self.due = now.saturating_add(DYING),
                (false, _) => self.given_up = true,
            },
            // What changes is only what the program is told of it.
            TakeoverInput::PrecopyComplete => {}
            TakeoverInput::Granted | TakeoverInput::Commit | TakeoverInput::PredecessorDying | TakeoverInput::Timeout => {}
        }
        if self.owner == Owner::Another {
            self.owner = match self.setting {
                Setting::First if self.ready => Owner::Born,
                Setting::Successor(_) if self.ended && self.may_serve() => Owner::LeftAlone,
                Setting::Successor(None) if self.lost => Owner::OutOfReach,
                Setting::First | Setting::Successor(_) => Owner::Another,
            };
        }
    }

    /// Judges a prompt.
    pub fn prompts(&mut self, prompt: Prompt) -> Verdict {
        let (owed, otherwise) = match prompt {
            Prompt::SendPrecopyPull => (&mut self.owes_precopy_pull, TakeoverLaw::PrecopyPullOnce),
            Prompt::SendPull => (&mut self.owes_pull, TakeoverLaw::PullOnce),
            Prompt::SendReady => (&mut self.owes_ready, TakeoverLaw::ReadyOnce),
            Prompt::SendRefuse => (&mut self.owes_refusal, TakeoverLaw::RefuseOnlyWhenDecided),
            Prompt::TellManager => (&mut self.owes_manager, TakeoverLaw::TellManagerOnce),
            Prompt::CloseUntaken => {
                self.held = false;
                return law(!self.can_be_taken(), TakeoverLaw::KeepsWhatCanBeTaken);
            }
        };
        law(std::mem::take(owed), otherwise)
    }

    /// Something of the state is here, or can come, and the program may take it.
    fn can_be_taken(&self) -> bool {
        !self.may_serve() && !self.given_up && (self.complete || self.is_coming() && !self.closed)
    }

    /// Judges that all of that was done.
    pub fn has_prompted(&mut self) -> Verdict {
        let owes = [&mut self.owes_precopy_pull, &mut self.owes_pull, &mut self.owes_ready, &mut self.owes_refusal, &mut self.owes_manager];
        law(!owes.into_iter().any(std::mem::take), TakeoverLaw::SaysWhatTheProgramSays)?;
        law(!self.held || self.can_be_taken(), TakeoverLaw::ClosesWhatNobodyTakes)
    }

    /// Judges what comes out, at the moment it is carried out.
    pub fn comes_out(&mut self, output: TakeoverOutput) -> Verdict {
        let given_up = self.told[TakeoverNotice::GivenUp as usize];
        law(!given_up || output == TakeoverOutput::Notice(TakeoverNotice::PredecessorGone), TakeoverLaw::NothingAfterGivenUp)?;
        match output {
            TakeoverOutput::Open => {
                law(self.may_serve(), TakeoverLaw::OpenOnlyWhenItMay)?;
                law(!std::mem::replace(&mut self.opened, true), TakeoverLaw::OpenOnce)
            }
            TakeoverOutput::MarksFreed => {
                self.owes_marks = false;
                law(self.may_serve(), TakeoverLaw::FreesMarksOnlyWhenItMay)
            }
            TakeoverOutput::Sole => law(self.is_alone(), TakeoverLaw::AnswersOnlyAlone),
            TakeoverOutput::Answer => {
                self.answers = true;
                law(self.owner != Owner::Another || self.is_alone() || self.lost, TakeoverLaw::AnswersOnlyAlone)
            }
            TakeoverOutput::TakeService { name_main_pid } => {
                law(self.owner != Owner::Another, TakeoverLaw::TakeServiceOnlyItsOwn)?;
                law(self.opened, TakeoverLaw::TakeServiceAfterOpen)?;
                law(!std::mem::replace(&mut self.took, true), TakeoverLaw::TakeServiceOnce)?;
                let nameless = self.owner == Owner::LeftAlone && !self.named;
                self.named |= name_main_pid;
                law(name_main_pid == nameless, TakeoverLaw::NamesMainPidOnce)
            }
            TakeoverOutput::Notice(notice) => self.tells(notice),
        }
    }

    fn tells(&mut self, notice: TakeoverNotice) -> Verdict {
        law(!self.told[TakeoverNotice::PredecessorGone as usize] || notice == TakeoverNotice::PredecessorGone, TakeoverLaw::GoneIsLast)?;
        law(!std::mem::replace(&mut self.told[notice as usize], true), TakeoverLaw::NoticeOnce)?;
        let undecided = self.deadline().is_some() && self.closed;
        match notice {
            TakeoverNotice::Granted => law(self.granted, TakeoverLaw::NoticesAreTrue),
            TakeoverNotice::Committed => law(self.granted && self.owner != Owner::Another, TakeoverLaw::NoticesAreTrue),
            TakeoverNotice::GivenUp if undecided && !self.granted => Err(TakeoverLaw::NoVerdictTooSoon),
            TakeoverNotice::GivenUp => law(self.given_up, TakeoverLaw::NoticesAreTrue),
            TakeoverNotice::LineLost if undecided => Err(TakeoverLaw::NoVerdictTooSoon),
            TakeoverNotice::LineLost => law(self.lost, TakeoverLaw::NoticesAreTrue),
            TakeoverNotice::PredecessorGone => law(self.ended, TakeoverLaw::NoticesAreTrue),
        }
    }

    /// Judges what the machine says of itself.
    pub fn says(&self, answers: Answers) -> Verdict {
        let refusal = match self.owner {
            Owner::Another if self.granted => Some(refusals::on_probation(None)),
            Owner::Another => Some(Refusal::NotReady),
            Owner::Born | Owner::Committed | Owner::LeftAlone | Owner::OutOfReach => None,
        };
        law(answers.refusal == refusal, TakeoverLaw::RefusesWithTheReason)?;
        let ready = (answers.may_be_ready, answers.has_state) == (self.may_be_ready(), self.waits());
        law(ready, TakeoverLaw::ReadyWaitsForTheState)?;
        law(answers.timeout == self.deadline(), TakeoverLaw::WakesInTime)
    }

    /// Judges a machine that has nothing more to say.
    pub fn rests(&self) -> Verdict {
        let happened = [
            (self.granted, TakeoverNotice::Granted),
            (self.granted && self.owner != Owner::Another, TakeoverNotice::Committed),
            (self.given_up, TakeoverNotice::GivenUp),
            (self.lost, TakeoverNotice::LineLost),
            (self.ended, TakeoverNotice::PredecessorGone),
        ];
        for (happened, notice) in happened {
            law(!happened || self.told[notice as usize], TakeoverLaw::TellsWhatHappened)?;
        }
        law(!self.attached || !self.owes_marks, TakeoverLaw::FreesMarks)?;
        let holds = [
            (self.may_serve(), self.opened),
            (self.owner != Owner::Another, self.took),
            (self.owner != Owner::Another || self.is_alone() || self.lost, self.answers),
        ];
        law(!self.attached || holds.into_iter().all(|(holds, known)| known || !holds), TakeoverLaw::TellsWhatHolds)
    }
}
