//! The rows of the table on `State` up to the handoff, as what they promise. Each step is held against the model and the laws as well.

use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{
    Action, Attempt, COMMIT_TIMEOUT, Cause, DYING, GRANT_TIMEOUT, Input, Limits, Notice, Output, Side, TakeoverNotice, UNREAD, Violation,
    Whose, refusals,
};
use pollflip_tests_pure::model::checked::ALL;
use pollflip_tests_pure::model::say::*;
use pollflip_tests_pure::model::{Checked, FREEZE, ON_PROBATION, On, PLAIN, PROBATION, READY, Room};
use pollflip_tests_pure::outputs;

/// What a stop has told before all else.
fn stopping(on: On) -> Vec<Output> {
    if on == On::Stop { outputs![Action::TellStopping] } else { vec![] }
}

/// An attempt that came to nothing by that.
fn failed_by(on: On, cause: Cause) -> Vec<Output> {
    if on == On::Stop { failed_at_its_end(cause) } else { failed(cause) }
}

mod starting {
    use super::*;

    #[test]
    fn a_process_that_is_not_ready_refuses() {
        assert_eq!(meets(after(&[]), On::Request), (refused(1, Refusal::NotReady), Room::NotReady));
    }

    #[test]
    fn a_process_without_a_predecessor_is_idle_once_it_is_ready() {
        assert_eq!(meets(after(&[]), On::Opened), (vec![], Room::Idle));
    }

    #[test]
    fn a_process_that_is_not_open_refuses_for_the_reason_that_it_is_given() {
        let mut process = after(&[]);
        process.obstruct(Some(refusals::on_probation(None)));
        assert_eq!(process.meets(On::Request), refused(1, refusals::on_probation(None)));
        process.obstruct(None);
        assert_eq!(process.meets(On::Request), refused(2, Refusal::NotReady));
        assert_eq!(meets(process, On::Opened), (vec![], Room::Idle));
    }

    #[test]
    fn what_is_opened_twice_changes_nothing() {
        assert_eq!(meets(after(IDLE), On::Opened), (vec![], Room::Idle));
        assert_eq!(meets(after(&way_to(Room::Stopping)), On::Opened), (vec![], Room::Stopping));
    }
}

mod spawning {
    use super::*;

    #[test]
    fn a_request_has_the_successor_started() {
        assert_eq!(
            meets(after(IDLE), On::Request),
            (outputs![Notice::Restarting, Action::Hold(Whose::Both), Action::Spawn(A)], Room::Spawning)
        );
    }

    #[test]
    fn the_user_is_told_the_pid() {
        assert_eq!(meets(after(SPAWNING), On::Spawned), (outputs![Notice::Spawned(PID)], Room::Waiting));
    }

    #[test]
    fn a_program_that_cannot_be_started_fails_the_attempt() {
        assert_eq!(meets(after(SPAWNING), On::SpawnFailed), (failed(Cause::SpawnFailed), Room::Idle));
    }

    #[test]
    fn a_successor_that_is_still_being_started_is_abandoned() {
        for (on, cause, room) in [
            (On::Timeout, Cause::TimedOut, Room::Idle),
            (On::Cancel, Cause::Cancelled, Room::Idle),
            (On::Stop, Cause::Stopping, Room::Stopping),
        ] {
            let outputs = [stopping(on), outputs![Action::Abandon(A)], failed_by(on, cause)].concat();
            assert_eq!(meets(after(SPAWNING), on), (outputs, room));
        }
    }

    #[test]
    fn a_cancel_between_restarting_and_the_spawn_prevents_it() {
        let both = outputs![Action::Hold(Whose::Both)];
        for (on, outputs) in [
            (On::Cancel, [both.clone(), failed(Cause::Cancelled)].concat()),
            (On::Timeout, [both.clone(), failed(Cause::TimedOut)].concat()),
            (On::Stop, [stopping(On::Stop), failed_at_its_end(Cause::Stopping)].concat()),
            (
                On::ThreadLost,
                [
                    outputs![Action::Hold(Whose::Both), Action::Hold(Whose::This)],
                    refused(1, Refusal::RestartThreadGone),
                    outputs![Notice::Failed(Cause::SpawnFailed), Notice::Broken],
                ]
                .concat(),
            ),
        ] {
            let mut process = after(IDLE);
            assert_eq!(process.step(Duration::ZERO, Input::Request(T), 1), outputs![Notice::Restarting]);
            assert_eq!(process.meets(on), outputs);
        }
    }

    #[test]
    fn a_late_birth_of_an_abandoned_attempt_does_nothing() {
        let process = after(&[SPAWNING, &[On::Cancel]].concat());
        assert_eq!(meets(process, On::Spawned), (vec![], Room::Idle));
    }
}

mod awaiting_ready {
    use super::*;

    /// What can go wrong with a child that lives, whether or not it is ready.
    pub(super) const WRONG: [(On, Cause); 5] = [
        (On::HereAnother, Cause::Protocol(Violation::WrongPid)),
        (On::Garbage, Cause::Protocol(Violation::Garbage)),
        (On::HandoverFailed, Cause::HandoverFailed),
        (On::Refused, Cause::Refused),
        (On::Cancel, Cause::Cancelled),
    ];

    #[test]
    fn the_state_is_asked_for_and_given_once() {
        assert_eq!(meets(after(WAITING), On::StateRequested), (outputs![Notice::StateRequested(A)], Room::Giving));
        assert_eq!(meets(after(GIVING), On::HandoverSent), (vec![], Room::Given));
    }

    #[test]
    fn progress_is_passed_on() {
        for path in [WAITING, GIVING, GIVEN] {
            let (outputs, room) = meets(after(path), On::Progress);
            assert_eq!((outputs, room), (outputs![Notice::Progress(A)], after(path).room()));
        }
    }

    #[test]
    fn promise_07_nothing_is_told_between_the_grant_and_the_handoff() {
        assert_eq!(meets(after(GRANTING), On::Progress), (vec![], Room::Granting));
        let news = Input::Predecessor(TakeoverNotice::PredecessorGone);
        for limits in [PLAIN, ON_PROBATION] {
            let mut process = Checked::after(limits, GRANTING);
            assert_eq!(process.step(Duration::ZERO, news, 0), vec![]);
            let outputs = process.step(Duration::ZERO, Input::Granted(A), ALL);
            let commit = if limits.probation.is_none() { outputs![Action::Hold(Whose::Successor), Action::Commit(A)] } else { vec![] };
            let gone = outputs![Notice::Predecessor(TakeoverNotice::PredecessorGone), Action::LetSurvivorsGo];
            assert_eq!(outputs, [outputs![Notice::HandedOff(PID)], commit, gone].concat());
        }
    }

    #[test]
    fn what_the_predecessor_has_left_is_there_until_the_program_asks_for_more_than_its_end() {
        let notices = [TakeoverNotice::Granted, TakeoverNotice::Committed, TakeoverNotice::GivenUp, TakeoverNotice::LineLost];
        for notice in notices {
            let mut process = Checked::after(PLAIN, WAITING);
            assert_eq!(process.step(Duration::ZERO, Input::Predecessor(notice), ALL), outputs![Notice::Predecessor(notice)]);
        }
        let (gone, mut process) = (TakeoverNotice::PredecessorGone, Checked::after(PLAIN, WAITING));
        assert_eq!(process.step(Duration::ZERO, Input::Predecessor(gone), 1), outputs![Notice::Predecessor(gone)]);
        assert_eq!(process.step(Duration::ZERO, Input::Cancel, 1), outputs![Action::LetSurvivorsGo]);
    }

    #[test]
    fn the_right_pid_is_taken_in_silence() {
        assert_eq!(meets(after(WAITING), On::HereItself), (vec![], Room::Waiting));
    }

    #[test]
    fn whatever_goes_wrong_has_the_child_killed_and_is_the_cause() {
        for path in [WAITING, GIVING, GIVEN, GRANTING] {
            for (on, cause) in WRONG {
                let mut process = after(path);
                assert_eq!(process.meets(on), [here_again(path), outputs![Action::Kill(A)]].concat());
                assert_eq!(meets(process, On::Exited), (failed(cause), Room::Idle));
            }
        }
    }

    #[test]
    fn a_child_that_closes_its_lifeline_has_a_second_to_end() {
        for path in [WAITING, GIVING, GIVEN, GRANTING] {
            let mut process = after(path);
            assert_eq!(process.meets(On::LifelineClosed), vec![]);
            assert_eq!((process.room(), process.to_deadline()), (after(path).room(), DYING));
            // It is closed once.
            process.step(INSTANT, Input::LifelineClosed(A), ALL);
            assert_eq!(process.to_deadline(), DYING - INSTANT);
            assert_eq!(meets(process, On::Exited), ([here_again(path), failed(Cause::Exited)].concat(), Room::Idle));
            let mut process = after(&[path, &[On::LifelineClosed]].concat());
            assert_eq!(process.meets(On::Timeout), [here_again(path), outputs![Action::Kill(A)]].concat());
            assert_eq!(meets(process, On::Exited), (failed(Cause::HungUp), Room::Idle));
        }
        let mut process = after(WAITING);
        process.step(READY - INSTANT, Input::LifelineClosed(A), ALL);
        assert_eq!(process.step(INSTANT, Input::Timeout, ALL), outputs![Action::Kill(A)], "nobody waits for longer than for a restart");
        assert_eq!(meets(process, On::Exited), (failed(Cause::TimedOut), Room::Idle));
    }

    #[test]
    fn promise_03_a_deadline_waits_for_words_that_may_have_come_in_time() {
        for (limits, path) in [(PLAIN, WAITING), (PLAIN, GIVING), (PLAIN, GIVEN), (PLAIN, GRANTING), (ON_PROBATION, GRANTED)] {
            let mut process = Checked::after(limits, path);
            let left = process.to_deadline();
            assert_eq!(process.step(left - UNREAD, Input::Unread(A), ALL), vec![]);
            assert_eq!(process.to_deadline(), UNREAD, "there is time");
            process.step(UNREAD - INSTANT, Input::Unread(A), ALL);
            assert_eq!(process.step(INSTANT, Input::Timeout, ALL), vec![]);
            assert_eq!(process.to_deadline(), UNREAD - INSTANT);
            let outputs = if path == GRANTING { 2 } else { 1 };
            assert_eq!(process.meets(On::Timeout).len(), outputs);
        }
    }

    #[test]
    fn a_second_request_for_the_state_breaks_the_protocol() {
        for path in [GIVING, GIVEN] {
            let mut process = after(path);
            assert_eq!(process.meets(On::StateRequested), outputs![Action::Kill(A)]);
            assert_eq!(meets(process, On::Exited), (failed(Cause::Protocol(Violation::AskedTwice)), Room::Idle));
        }
    }

    #[test]
    fn to_be_ready_before_the_state_has_come_breaks_the_protocol() {
        let mut process = after(GIVING);
        assert_eq!(process.meets(On::Ready), outputs![Action::Kill(A)]);
        assert_eq!(meets(process, On::Exited), (failed(Cause::Protocol(Violation::ReadyTooSoon)), Room::Idle));
    }

    #[test]
    fn a_child_that_ends_by_itself_fails_the_attempt() {
        for path in [WAITING, GIVING, GIVEN] {
            assert_eq!(meets(after(path), On::Exited), (failed(Cause::Exited), Room::Idle));
        }
    }

    #[test]
    fn a_child_that_is_ready_is_granted_the_service() {
        for path in [WAITING, GIVEN] {
            assert_eq!(meets(after(path), On::Ready), (outputs![Action::Steer(Side::Successor), Action::Grant(A)], Room::Granting));
        }
    }

    #[test]
    fn a_child_that_is_not_ready_in_time_is_killed() {
        for (path, cause) in [(WAITING, Cause::TimedOut), (GIVING, Cause::FreezeTimedOut), (GIVEN, Cause::FreezeTimedOut)] {
            let mut process = after(path);
            assert_eq!(process.meets(On::Timeout), outputs![Action::Kill(A)]);
            assert_eq!(meets(process, On::Exited), (failed(cause), Room::Idle));
        }
    }

    #[test]
    fn promise_03_a_freeze_has_its_time_from_the_request_for_the_state_on() {
        let mut process = after(WAITING);
        process.step(Duration::from_secs(10), Input::StateRequested(A), ALL);
        process.step(FREEZE - INSTANT, Input::HandoverSent(A), ALL);
        process.meets(On::Progress);
        assert_eq!(process.step(Duration::ZERO, Input::Timeout, ALL), vec![]);
        assert_eq!(process.step(INSTANT, Input::Timeout, ALL), outputs![Action::Kill(A)]);
        assert_eq!(meets(process, On::Exited), (failed(Cause::FreezeTimedOut), Room::Idle));
    }

    #[test]
    fn a_freeze_that_begins_late_ends_with_the_time_of_the_whole() {
        for left in [INSTANT, FREEZE - INSTANT, FREEZE] {
            let mut process = after(SPAWNING);
            process.meets(On::Spawned);
            process.step(READY - left, Input::StateRequested(A), ALL);
            assert_eq!(process.to_deadline(), left);
            assert_eq!(process.meets(On::Timeout), outputs![Action::Kill(A)]);
            assert_eq!(meets(process, On::Exited), (failed(Cause::TimedOut), Room::Idle));
        }
        let mut process = after(WAITING);
        process.step(READY - FREEZE - INSTANT, Input::StateRequested(A), ALL);
        process.meets(On::Timeout);
        assert_eq!(meets(process, On::Exited), (failed(Cause::FreezeTimedOut), Room::Idle));
    }

    #[test]
    fn a_restart_that_has_less_time_than_a_freeze_has_no_more_with_it() {
        let limits = Limits { ready: FREEZE, freeze: READY, probation: None };
        let mut process = Checked::after(limits, GIVING);
        assert_eq!(process.to_deadline(), FREEZE);
        process.meets(On::Timeout);
        assert_eq!(meets(process, On::Exited), (failed(Cause::TimedOut), Room::Idle));
    }

    #[test]
    fn a_freeze_that_was_long_takes_nothing_from_the_grant_nor_from_the_probation() {
        let mut process = Checked::after(ON_PROBATION, GIVEN);
        process.step(FREEZE - INSTANT, Input::Ready(A), ALL);
        assert_eq!(process.to_deadline(), GRANT_TIMEOUT);
        process.meets(On::Granted);
        assert_eq!((process.room(), process.to_deadline()), (Room::Proving, PROBATION));
    }

    #[test]
    fn the_deadline_counts_from_the_request_and_not_from_the_spawn() {
        let mut process = after(SPAWNING);
        process.step(READY - INSTANT, Input::Spawned(A, PID), ALL);
        assert_eq!(process.step(Duration::ZERO, Input::Timeout, ALL), vec![]);
        assert_eq!(process.step(INSTANT, Input::Timeout, ALL), outputs![Action::Kill(A)]);
    }
}

mod granting {
    use super::awaiting_ready::WRONG;
    use super::*;

    /// A process whose successor is ready, with the order to grant it the service carried out (1) or not (0).
    fn granting(drain: usize) -> Checked {
        let mut process = after(WAITING);
        assert_eq!(process.step(Duration::ZERO, Input::Ready(A), drain).len(), drain);
        process
    }

    #[test]
    fn a_child_that_was_told_so_has_the_service_for_good_without_probation() {
        assert_eq!(
            meets(after(GRANTING), On::Granted),
            (outputs![Notice::HandedOff(PID), Action::Hold(Whose::Successor), Action::Commit(A)], Room::Settled)
        );
    }

    #[test]
    fn a_successor_that_dies_before_it_is_granted_leaves_the_service_here() {
        for limits in [PLAIN, ON_PROBATION] {
            let mut process = Checked::after(limits, GRANTING);
            assert_eq!(process.meets(On::Exited), [here_again(GRANTING), failed(Cause::Exited)].concat());
            assert_eq!(process.meets(On::Granted), vec![]);
            let outputs = outputs![Notice::Restarting, Action::Hold(Whose::Both), Action::Spawn(Attempt(2))];
            assert_eq!(meets(process, On::Request), (outputs, Room::Spawning));
        }
    }

    #[test]
    fn a_grant_nobody_has_carried_out_is_taken_back() {
        assert_eq!(meets(granting(0), On::Exited), (failed(Cause::Exited), Room::Idle));
        for (on, cause) in WRONG.into_iter().chain([(On::Stop, Cause::Stopping)]) {
            let mut process = granting(0);
            assert_eq!(process.meets(on), [stopping(on), outputs![Action::Kill(A)]].concat(), "{on:?}");
            assert_eq!(process.meets(On::Exited), failed_by(on, cause));
        }
    }

    #[test]
    fn a_grant_that_was_carried_out_is_not_told_of_when_it_comes_to_nothing() {
        for (on, cause) in WRONG.into_iter().chain([(On::Stop, Cause::Stopping)]) {
            for carried_out in [1, 2] {
                let mut process = granting(carried_out);
                assert_eq!(process.meets(on), [stopping(on), here_again(GRANTING), outputs![Action::Kill(A)]].concat(), "{on:?}");
                assert_eq!(process.meets(On::Granted), vec![]);
                assert_eq!(process.meets(On::Exited), failed_by(on, cause));
            }
        }
    }

    #[test]
    fn new_flows_go_to_the_successor_first_and_come_back_if_that_fails() {
        // What nobody has carried out cannot have failed.
        let mut process = granting(0);
        assert_eq!(process.step(Duration::ZERO, Input::SteeringFailed(A), 0), vec![]);
        assert_eq!(process.room(), Room::Granting);
        let mut process = granting(1);
        assert_eq!(process.meets(On::SteeringFailed), outputs![Action::Steer(Side::This), Action::Kill(A)]);
        assert_eq!(process.meets(On::SteeringFailed), vec![]);
        assert_eq!(meets(process, On::Exited), (failed(Cause::Steering), Room::Idle));
        for path in [WAITING, GIVEN] {
            assert_eq!(after(path).meets(On::SteeringFailed), vec![], "{path:?}");
        }
    }

    #[test]
    fn the_marks_of_the_ended_are_freed_by_the_one_that_serves() {
        let ended = outputs![Notice::GenerationEnded];
        for path in [IDLE, SPAWNING, WAITING, GIVEN, KILLING] {
            let freed = [outputs![Action::Steer(Side::This)], ended.clone()].concat();
            assert_eq!(after(path).meets(On::MarksFreed), freed, "{path:?}");
        }
        for path in [GRANTING, GRANTED, COMMITTED, KILLING_GRANTED] {
            assert_eq!(Checked::after(ON_PROBATION, path).meets(On::MarksFreed), ended, "{path:?}");
        }
    }

    #[test]
    fn it_was_ready_in_time_and_the_grant_has_a_time_of_its_own() {
        let mut process = after(WAITING);
        process.step(READY - INSTANT, Input::Ready(A), 2);
        assert_eq!(process.to_deadline(), GRANT_TIMEOUT);
        assert_eq!(process.step(GRANT_TIMEOUT - INSTANT, Input::Timeout, 0), vec![]);
        assert_eq!(process.room(), Room::Granting);
        assert_eq!(process.meets(On::Timeout), [here_again(GRANTING), outputs![Action::Kill(A)]].concat());
        assert_eq!(meets(process, On::Exited), (failed(Cause::GrantNotTaken), Room::Idle));
    }

    #[test]
    fn a_successor_whose_end_has_begun_is_not_waited_for() {
        let mut process = after(GRANTING);
        assert_eq!(process.meets(On::Dying), [here_again(GRANTING), outputs![Action::Kill(A)]].concat());
        assert_eq!(meets(process, On::Exited), (failed(Cause::HungUp), Room::Idle));
        // It may be ready before its end has begun, and is heard of until it is over.
        assert_eq!(meets(after(WAITING), On::Dying), (vec![], Room::Waiting));
    }

    #[test]
    fn what_it_wants_now_does_nothing() {
        for on in [On::Ready, On::StateRequested, On::HandoverSent, On::HereItself] {
            assert_eq!(meets(after(GRANTING), on), (vec![], Room::Granting), "{on:?}");
        }
    }

    #[test]
    fn a_grant_that_was_not_asked_for_is_none() {
        for path in [&[], IDLE, SPAWNING, WAITING, GIVING, GIVEN, GRANTED, KILLING] {
            assert_eq!(meets(after(path), On::Granted), (vec![], after(path).room()));
        }
    }
}

mod probation {
    use super::*;

    fn on_probation() -> Checked {
        Checked::after(ON_PROBATION, GRANTED)
    }

    #[test]
    fn it_begins_with_the_grant_and_ends_with_the_commit() {
        for path in [WAITING, GIVEN] {
            let mut process = Checked::after(ON_PROBATION, path);
            assert_eq!(process.meets(On::Ready), outputs![Action::Steer(Side::Successor), Action::Grant(A)]);
            assert_eq!(process.meets(On::Granted), outputs![Notice::HandedOff(PID)]);
            assert_eq!(process.machine().poll_timeout(), Some(PROBATION));
            assert_eq!(process.meets(On::Timeout), outputs![Action::Check(A)]);
            assert_eq!(meets(process, On::Sound), (outputs![Action::Hold(Whose::Successor), Action::Commit(A)], Room::Settled));
        }
    }

    #[test]
    fn a_stop_ends_it() {
        let mut process = on_probation();
        assert_eq!(process.meets(On::Stop), outputs![Action::Check(A)]);
        assert_eq!(meets(process, On::Sound), (outputs![Action::Hold(Whose::Successor), Action::Commit(A)], Room::Settled));
    }

    #[test]
    fn a_child_that_has_failed_unseen_when_it_ends_does_not_keep_the_service() {
        for (on, cause) in [(On::Dying, Cause::HungUp), (On::LifelineClosed, Cause::HungUp)] {
            let mut process = on_probation();
            process.meets(On::Timeout);
            assert_eq!(process.meets(On::Request), refused(2, refusals::on_probation(Some(PID))));
            assert_eq!(process.meets(on), outputs![Action::Kill(A)]);
            assert_eq!(meets(process, On::Exited), (resumed(cause), Room::Idle));
        }
        let mut process = on_probation();
        process.meets(On::Timeout);
        assert_eq!(meets(process, On::Exited), (resumed(Cause::DiedOnProbation), Room::Idle));
    }

    #[test]
    fn what_it_says_of_itself_unasked_commits_nothing() {
        assert_eq!(meets(on_probation(), On::Sound), (vec![], Room::Proving));
    }

    #[test]
    fn a_child_that_dies_gives_the_service_back() {
        assert_eq!(meets(on_probation(), On::Exited), (resumed(Cause::DiedOnProbation), Room::Idle));
    }

    #[test]
    fn a_child_that_hangs_up_or_talks_nonsense_is_killed_before_the_service_is_taken_back() {
        let mut process = on_probation();
        assert_eq!(process.meets(On::LifelineClosed), vec![]);
        assert_eq!(process.to_deadline(), DYING);
        assert_eq!(process.meets(On::Timeout), outputs![Action::Kill(A)]);
        assert_eq!(meets(process, On::Exited), (resumed(Cause::HungUp), Room::Idle));
        let mut process = on_probation();
        assert_eq!(process.meets(On::Garbage), outputs![Action::Kill(A)]);
        assert_eq!(meets(process, On::Exited), (resumed(Cause::Protocol(Violation::Garbage)), Room::Idle));
    }

    #[test]
    fn a_child_that_nothing_is_heard_of_when_it_ends_has_not_passed_it() {
        let mut process = on_probation();
        process.step(PROBATION - INSTANT, Input::LifelineClosed(A), ALL);
        assert_eq!(process.step(INSTANT, Input::Timeout, ALL), outputs![Action::Kill(A)]);
        assert_eq!(meets(process, On::Exited), (resumed(Cause::HungUp), Room::Idle));
        let mut process = on_probation();
        process.meets(On::LifelineClosed);
        assert_eq!(process.meets(On::Stop), outputs![Action::Kill(A)]);
        let told = outputs![Action::TellStopping];
        assert_eq!(meets(process, On::Exited), ([resumed_at_its_end(Cause::HungUp), told].concat(), Room::Stopping));
    }

    #[test]
    fn it_is_too_late_to_cancel() {
        assert_eq!(meets(on_probation(), On::Cancel), (vec![], Room::Proving));
        assert_eq!(meets(after(COMMITTED), On::Cancel), (vec![], Room::Committed));
    }
}

mod committing {
    use super::*;

    fn committing() -> Checked {
        after(&way_to(Room::Untold))
    }

    #[test]
    fn the_manager_is_told_first_and_those_who_wait_when_all_others_know() {
        let mut process = committing();
        assert_eq!(process.meets(On::ManagerTold), outputs![Action::TellCommit(A)]);
        assert_eq!(process.meets(On::CommitTaken), vec![]);
        assert_eq!(meets(process, On::BarrierPassed), (completed(), Room::Committed));
        let mut process = committing();
        process.meets(On::ManagerTold);
        assert_eq!(process.meets(On::BarrierPassed), vec![]);
        assert_eq!(meets(process, On::CommitTaken), (completed(), Room::Committed));
    }

    #[test]
    fn a_manager_that_does_not_answer_is_not_waited_for_any_longer() {
        let mut process = committing();
        assert_eq!(process.to_deadline(), COMMIT_TIMEOUT);
        assert_eq!(process.meets(On::Timeout), outputs![Action::TellCommit(A)]);
        // Only the kernel is waited for.
        assert_eq!(process.machine().poll_timeout(), None);
        assert_eq!(meets(process, On::CommitTaken), (completed(), Room::Committed));
        assert_eq!(meets(after(&way_to(Room::Heard)), On::Timeout), (completed(), Room::Committed));
    }

    #[test]
    fn the_manager_has_its_time_from_when_somebody_begins_to_tell_it_and_from_when_it_is_told() {
        let late = Duration::from_secs(60);
        let mut process = after(&way_to(Room::Settled));
        assert_eq!(process.machine().poll_timeout(), None, "the loop stands still");
        assert_eq!(process.step(late, Input::Timeout, ALL), vec![]);
        assert_eq!((process.meets(On::ManagerAsked), process.room()), (vec![], Room::Untold));
        assert_eq!(process.to_deadline(), COMMIT_TIMEOUT);
        for room in [Room::Untold, Room::Left] {
            let mut process = after(&way_to(room));
            process.step(COMMIT_TIMEOUT - INSTANT, Input::ManagerTold, ALL);
            assert_eq!(process.to_deadline(), COMMIT_TIMEOUT);
        }
    }

    #[test]
    fn whoever_waits_is_told_when_nobody_will_poll_again() {
        let gone = [completed(), outputs![Notice::SuccessorGone(PID)]].concat();
        let told = |outputs: Vec<Output>| [outputs![Action::TellCommit(A)], outputs].concat();
        for (room, outputs) in [
            (Room::Settled, told(completed())),
            (Room::Untold, told(completed())),
            (Room::UntoldManaged, told(completed())),
            (Room::Telling, completed()),
            (Room::TellingManaged, completed()),
            (Room::Heard, completed()),
            (Room::Left, gone),
        ] {
            assert_eq!(meets(after(&way_to(room)), On::GivingUp), (outputs, Room::Committed), "{room:?}");
        }
        assert_eq!(meets(after(KILLING), On::GivingUp), (failed(Cause::Cancelled), Room::Idle));
    }

    #[test]
    fn a_successor_that_ends_meanwhile_has_had_the_service_and_its_end_is_reported_last() {
        let gone = [completed(), outputs![Notice::SuccessorGone(PID)]].concat();
        let mut process = committing();
        // Those who come to the coordination socket must not find nobody.
        assert_eq!(process.meets(On::Exited), outputs![Action::TellCommit(A)]);
        assert_eq!(process.meets(On::ManagerTold), vec![]);
        assert_eq!(meets(process, On::BarrierPassed), (gone.clone(), Room::Committed));
        assert_eq!(meets(after(&way_to(Room::TellingManaged)), On::Exited), (gone.clone(), Room::Committed));
        assert_eq!(meets(after(&way_to(Room::Left)), On::Timeout), (gone, Room::Committed));
    }

    #[test]
    fn whoever_asks_meanwhile_is_told_at_once() {
        for room in [Room::Settled, Room::Untold, Room::UntoldManaged, Room::Telling, Room::TellingManaged, Room::Heard, Room::Left] {
            let mut process = after(&way_to(room));
            assert_eq!(process.meets(On::Request), refused(2, refusals::handed_off(PID)));
            for on in [On::Stop, On::Cancel, On::ThreadLost, On::LifelineClosed, On::Garbage, On::Dying, On::Sound] {
                assert_eq!(process.meets(on), vec![], "{on:?} in {room:?}");
                assert_eq!(process.room(), room);
            }
        }
    }
}

mod committed {
    use super::*;

    #[test]
    fn the_end_of_the_successor_is_reported_and_nothing_else_happens() {
        assert_eq!(meets(after(COMMITTED), On::Exited), (outputs![Notice::SuccessorGone(PID)], Room::Committed));
        for on in [On::LifelineClosed, On::Garbage, On::Ready, On::Refused, On::Stop, On::ThreadLost, On::Timeout, On::Opened] {
            assert_eq!(meets(after(COMMITTED), on), (vec![], Room::Committed), "{on:?}");
        }
    }
}
