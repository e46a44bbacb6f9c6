//! The rows of the table on `Stage` up to the commit, as what they promise. Each step is held against the
//! model and the laws as well.

use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::Prompt::{CloseUntaken, SendPull, SendReady, SendRefuse, TellManager};
use pollflip::internals::machine::TakeoverInput::*;
use pollflip::internals::machine::TakeoverOutput::{Answer, MarksFreed, Open, Sole};
use pollflip::internals::machine::{Closed, DYING, Inbound, Line, Stage, TakeoverInput, refusals};
use pollflip_tests_pure::model;
use pollflip_tests_pure::model::takeover::INPUTS;
use pollflip_tests_pure::model::takeover::say::*;
use pollflip_tests_pure::model::{PLAIN, PROBATION};
use pollflip_tests_pure::outputs;

const ON_PROBATION: Refusal = refusals::on_probation(None);

/// How far the state can be on its way, with a lifeline that is open.
const WITH_A_STATE: [&[TakeoverInput]; 5] = [STARTING, ASKED, ARRIVED, TAKEN, UNUSABLE];

mod first_generation {
    use super::*;

    #[test]
    fn it_answers_from_the_start_and_is_not_ready() {
        let mut process = after(FIRST, &[]);
        assert_eq!(process.meets(Attach), (vec![], vec![Sole, Answer]));
        assert_eq!(process.machine().refusal(), Some(Refusal::NotReady));
    }

    #[test]
    fn it_tells_the_manager_once_that_it_is_ready_and_has_the_service() {
        let mut process = after(FIRST, STARTING);
        assert_eq!(process.meets(SayReady), (vec![TellManager], vec![Open, TAKE, Answer]));
        assert_eq!(process.machine().refusal(), None);
        assert_eq!(process.meets(SayReady), NOTHING);
    }

    #[test]
    fn it_has_no_predecessor_to_ask_refuse_or_hear_of() {
        for path in [STARTING, READY_SENT] {
            for input in INPUTS.into_iter().filter(|input| !matches!(input, Attach | SayReady | GenerationEnded)) {
                let mut process = after(FIRST, path);
                let stage = process.stage();
                assert_eq!((process.meets(input), process.stage()), (NOTHING, stage), "{input:?}");
            }
        }
    }
}

mod state {
    use super::*;

    #[test]
    fn it_is_asked_for_once() {
        assert_eq!(after(SUCCESSOR, STARTING).meets(Pull), (vec![SendPull], vec![]));
        for path in [ASKED, ARRIVED, TAKEN, UNUSABLE] {
            assert_eq!(after(SUCCESSOR, path).meets(Pull), NOTHING, "{path:?}");
        }
    }

    #[test]
    fn it_is_not_asked_for_by_a_process_that_has_said_that_it_is_ready() {
        for path in [READY_SENT, GRANTED, FINAL] {
            assert_eq!(after(SUCCESSOR, path).meets(Pull), NOTHING);
        }
    }

    #[test]
    fn one_that_nobody_has_asked_for_does_not_come() {
        for input in [StateComplete, StateUnusable, StateTaken] {
            let mut process = after(SUCCESSOR, STARTING);
            assert_eq!(process.meets(input), NOTHING);
            assert!(!process.machine().has_state() && process.machine().may_be_ready());
        }
    }

    #[test]
    fn one_that_is_here_waits_until_it_is_taken() {
        let mut process = after(SUCCESSOR, ARRIVED);
        assert!(process.machine().has_state());
        assert_eq!(process.meets(StateTaken), NOTHING);
        assert!(!process.machine().has_state());
        assert_eq!(process.stage(), Stage::Starting { line: Line::Open, state: Inbound::Taken });
    }

    #[test]
    fn one_that_cannot_be_used_is_refused_and_then_closed() {
        let mut process = after(SUCCESSOR, ASKED);
        assert_eq!(process.meets(StateUnusable), (vec![SendRefuse, CloseUntaken], vec![]));
        assert_eq!(process.meets(StateComplete), NOTHING);
        assert!(!process.machine().has_state());
    }

    #[test]
    fn half_of_one_is_closed_when_the_lifeline_is_and_the_rest_does_not_come() {
        for closed in [CLOSED, CLOSED_BY_US] {
            for late in [StateComplete, StateUnusable] {
                let mut process = after(SUCCESSOR, ASKED);
                assert_eq!(process.meets(closed), (vec![CloseUntaken], vec![]));
                assert_eq!(process.meets(late), NOTHING);
                assert!(!process.machine().has_state() && !process.machine().may_be_ready());
            }
        }
    }

    #[test]
    fn one_that_is_here_outlives_the_lifeline() {
        let mut process = after(SUCCESSOR, ARRIVED);
        assert_eq!(process.meets(CLOSED), NOTHING);
        assert!(process.machine().has_state());
    }
}

mod readiness {
    use super::*;

    #[test]
    fn it_is_said_once() {
        for path in [STARTING, TAKEN] {
            let mut process = after(SUCCESSOR, path);
            assert_eq!(process.meets(SayReady), (vec![SendReady], vec![]));
            assert_eq!(process.meets(SayReady), NOTHING);
            assert_eq!(process.machine().refusal(), Some(Refusal::NotReady));
        }
    }

    #[test]
    fn it_is_refused_while_a_state_is_on_its_way_or_waits_or_is_unusable() {
        for path in [ASKED, ARRIVED, UNUSABLE] {
            let mut process = after(SUCCESSOR, path);
            let stage = process.stage();
            assert!(!process.machine().may_be_ready());
            assert_eq!((process.meets(SayReady), process.stage()), (NOTHING, stage));
        }
        let mut process = after(SUCCESSOR, ARRIVED);
        process.meets(StateTaken);
        assert!(process.machine().may_be_ready());
        assert_eq!(process.meets(SayReady), (vec![SendReady], vec![]));
    }

    #[test]
    fn one_that_will_not_take_over_may_say_so_until_the_grant_and_as_often_as_it_likes() {
        for path in WITH_A_STATE.into_iter().chain([READY_SENT]) {
            let mut process = after(SUCCESSOR, path);
            for _ in 0..2 {
                assert_eq!(process.meets(SayRefuse), (vec![SendRefuse], vec![]));
            }
        }
        for path in [GRANTED, FINAL, GIVEN_UP] {
            assert_eq!(after(SUCCESSOR, path).meets(SayRefuse), NOTHING);
        }
    }
}

mod grant {
    use super::*;

    #[test]
    fn it_closes_what_was_not_taken_and_opens_the_process() {
        for setting in SUCCESSORS {
            let mut process = after(setting, READY_SENT);
            assert_eq!(process.meets(Granted), (vec![CloseUntaken], vec![Open, TOLD_GRANTED]));
            assert_eq!(process.machine().refusal(), Some(ON_PROBATION));
        }
    }

    #[test]
    fn one_that_comes_before_it_was_asked_for_is_not_heard() {
        for path in WITH_A_STATE {
            let mut process = after(SUCCESSOR, path);
            let stage = process.stage();
            for early in [Granted, Commit] {
                assert_eq!((process.meets(early), process.stage()), (NOTHING, stage));
            }
        }
        let mut process = after(SUCCESSOR, STARTING);
        for (input, carried) in [(Granted, NOTHING), (SayReady, (vec![SendReady], vec![])), (Commit, NOTHING)] {
            assert_eq!(process.meets(input), carried);
        }
        assert_eq!(process.stage(), Stage::ReadySent { line: Line::Open });
    }

    #[test]
    fn one_that_comes_twice_changes_nothing() {
        for path in [GRANTED, FINAL] {
            let mut process = after(PROBATIONER, path);
            let stage = process.stage();
            assert_eq!((process.meets(Granted), process.stage()), (NOTHING, stage));
        }
    }

    #[test]
    fn one_over_a_lost_lifeline_is_not_heard() {
        let mut process = after(SUCCESSOR, READY_SENT);
        process.meets(CLOSED_BY_US);
        assert_eq!(process.meets(Granted), NOTHING);
        assert!(matches!(process.stage(), Stage::ReadySent { line: Line::Lost { .. } }));
    }

    #[test]
    fn it_is_not_taken_back_by_word() {
        let mut process = after(PROBATIONER, GRANTED);
        assert_eq!(process.meets(GivenUp), NOTHING);
        assert_eq!(process.meets(Commit), (vec![], vec![TAKE, Answer, TOLD_COMMITTED]));
    }
}

mod commit {
    use super::*;

    #[test]
    fn a_process_whose_predecessor_has_not_committed_refuses_until_it_has() {
        for setting in SUCCESSORS {
            let mut process = after(setting, GRANTED);
            assert_eq!(process.machine().refusal(), Some(ON_PROBATION));
            assert_eq!(process.meets(Commit), (vec![], vec![TAKE, Answer, TOLD_COMMITTED]));
            assert_eq!(process.machine().refusal(), None);
        }
    }

    #[test]
    fn a_predecessor_that_dies_uncommitted_has_committed_and_the_manager_is_told_the_main_pid() {
        for setting in SUCCESSORS {
            let mut process = after(setting, GRANTED);
            assert_eq!(process.meets(PredecessorEnded), (vec![], vec![TAKE_AND_NAME, Answer, TOLD_COMMITTED, MarksFreed, TOLD_GONE]));
            assert_eq!(process.machine().refusal(), None);
        }
    }

    #[test]
    fn it_comes_once_and_nothing_is_heard_after_it_but_the_end_of_the_predecessor() {
        for input in INPUTS.into_iter().filter(|input| !matches!(input, Attach | GenerationEnded | PredecessorEnded)) {
            let mut process = after(PROBATIONER, FINAL);
            assert_eq!(process.meets(input), NOTHING, "{input:?}");
            assert_eq!(process.meets(PredecessorEnded), (vec![], vec![MarksFreed, TOLD_GONE]));
            assert_eq!(process.meets(PredecessorEnded), NOTHING);
        }
    }

    #[test]
    fn it_is_looked_for_when_it_is_due_and_every_second_from_then_on() {
        let mut process = after(PROBATIONER, GRANTED);
        assert_eq!(process.machine().poll_timeout(), Some(PROBATION + DYING));
        for look in 1..4 {
            assert_eq!(process.meets(Timeout), NOTHING);
            assert_eq!(process.machine().poll_timeout(), Some(PROBATION + DYING + look * DYING));
        }
        assert_eq!(after(SUCCESSOR, GRANTED).machine().poll_timeout(), Some(DYING));
    }

    #[test]
    fn one_that_is_never_due_overflows_nothing() {
        let eternal = model::takeover::Setting::Successor(Some(Duration::MAX));
        for at in [Duration::ZERO, DYING, Duration::MAX - DYING, Duration::MAX] {
            let mut process = after(eternal, READY_SENT);
            process.wait(at);
            process.meets(Granted);
            assert_eq!(process.machine().poll_timeout(), Some(Duration::MAX));
            assert_eq!(process.meets(Timeout), NOTHING);
            process.meets(CLOSED);
            process.meets(PredecessorDying);
            process.meets(Timeout);
            assert!(matches!(process.stage(), Stage::Granted { line: Line::Silent, .. }));
        }
    }
}

/// What both machines of one process come to.
mod with_the_restart_machine {
    use pollflip::internals::machine::{Action, Input, Machine, Notice, Output, Reply, State, Ticket};

    use super::*;
    use crate::outputs;
    use pollflip_tests_pure::model::takeover::CheckedTakeover;

    /// A process on probation, as its loop has it: the one machine says why the other is closed, which
    /// opens when the service is taken.
    struct Process {
        takeover: CheckedTakeover,
        machine: Machine,
    }

    impl Process {
        fn on_probation() -> Process {
            Process { takeover: after(PROBATIONER, GRANTED), machine: Machine::new(PLAIN) }
        }

        fn hears(&mut self, input: TakeoverInput) {
            let (_, outputs) = self.takeover.meets(input);
            assert_eq!(outputs.iter().filter(|output| **output == TAKE || **output == TAKE_AND_NAME).count(), 1);
            self.does(Input::Opened);
        }

        fn does(&mut self, input: Input) {
            self.machine.set_obstacle(self.takeover.machine().refusal());
            self.machine.handle(self.takeover.now(), input);
        }

        fn outputs(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.machine.poll_output()).collect()
        }
    }

    fn refused(ticket: u64, refusal: Refusal) -> Vec<Output> {
        outputs![Action::Reply(Ticket(ticket), Reply::Refused(refusal))]
    }

    #[test]
    fn a_process_on_probation_restarts_only_when_it_is_over() {
        for end in [Commit, PredecessorEnded] {
            let mut process = Process::on_probation();
            process.does(Input::Request(Ticket(1)));
            assert_eq!(process.outputs(), refused(1, ON_PROBATION));
            process.hears(end);
            process.does(Input::Request(Ticket(2)));
            assert!(matches!(process.machine.state(), State::Spawning { .. }));
        }
    }

    #[test]
    fn one_that_is_told_to_stop_on_probation_closes_and_takes_the_service_all_the_same() {
        for end in [Commit, PredecessorEnded] {
            let mut process = Process::on_probation();
            process.does(Input::Stop);
            process.does(Input::Request(Ticket(1)));
            assert_eq!(process.outputs(), refused(1, Refusal::Stopping));
            process.hears(end);
            process.does(Input::Request(Ticket(2)));
            // The service manager is told of the end when the service is this process's.
            assert_eq!(process.outputs(), [outputs![Action::TellStopping], refused(2, Refusal::Stopping)].concat());
            assert_eq!(process.machine.state(), State::Closed(Closed::Stopping { told: true }));
        }
    }

    #[test]
    fn one_that_loses_its_thread_on_probation_is_broken_when_it_is_over() {
        for end in [Commit, PredecessorEnded] {
            let mut process = Process::on_probation();
            process.does(Input::ThreadLost);
            process.does(Input::Request(Ticket(1)));
            assert_eq!(process.outputs(), refused(1, ON_PROBATION));
            process.hears(end);
            assert_eq!(process.outputs(), outputs![Notice::Broken]);
            assert_eq!(process.machine.state(), State::Closed(Closed::Broken));
        }
    }
}
