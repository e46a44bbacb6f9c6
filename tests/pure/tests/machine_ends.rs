//! The rows of the table on `State` that close, kill, refuse and end, as what they promise.

use pollflip::internals::machine::Attempt;
use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{Action, Cause, Input, KILL_TIMEOUT, Notice, Output, Reply, Side, State, Ticket, Whose, refusals};
use pollflip_tests_pure::model::checked::ALL;
use pollflip_tests_pure::model::say::*;
use pollflip_tests_pure::model::{Checked, ON_PROBATION, On, PLAIN, Room};
use pollflip_tests_pure::outputs;

mod killing {
    use super::*;

    #[test]
    fn nothing_but_its_end_matters_of_a_child_that_is_being_killed() {
        for on in [
            On::Ready,
            On::Granted,
            On::Refused,
            On::LifelineClosed,
            On::Garbage,
            On::StateRequested,
            On::HandoverFailed,
            On::Progress,
            On::Cancel,
        ] {
            let mut process = after(KILLING);
            assert_eq!(process.meets(on), vec![], "{on:?}");
            assert_eq!(meets(process, On::Exited), (failed(Cause::Cancelled), Room::Idle));
        }
    }

    #[test]
    fn a_child_that_will_not_die_keeps_no_asker_waiting_and_lets_no_other_start() {
        let mut process = after(KILLING);
        assert_eq!(process.to_deadline(), KILL_TIMEOUT);
        assert_eq!(process.meets(On::Timeout), failed_at_its_end(Cause::Cancelled));
        assert_eq!(process.machine().poll_timeout(), None);
        assert_eq!(process.meets(On::Request), refused(2, refusals::under_way(KILL_TIMEOUT)));
        assert_eq!(meets(process, On::Exited), (outputs![Action::Hold(Whose::This)], Room::Idle));
    }

    #[test]
    fn a_child_that_had_the_service_and_dies_late_still_gives_it_back() {
        let mut process = Checked::after(ON_PROBATION, KILLING_GRANTED);
        // It may still be at it: that the program goes on would make two.
        assert_eq!(process.meets(On::Timeout), outputs![Action::Reply(T, Reply::Failed(Cause::HungUp))]);
        assert_eq!(
            meets(process, On::Exited),
            (
                outputs![
                    Action::Steer(Side::This),
                    Action::Hold(Whose::Returned),
                    Notice::Resumed(Cause::HungUp),
                    Action::Hold(Whose::This)
                ],
                Room::Idle
            )
        );
    }
}

mod refusing {
    use super::*;

    #[test]
    fn whoever_asks_while_a_restart_is_under_way_is_told_since_when() {
        for path in [SPAWNING, WAITING, GIVING, GIVEN, GRANTING, KILLING] {
            let mut process = after(path);
            let since = Duration::from_secs(3);
            assert_eq!(process.step(since, Input::Request(Ticket(9)), ALL), refused(9, refusals::under_way(since)));
        }
    }

    #[test]
    fn whoever_asks_after_the_handoff_is_told_whom_to_ask() {
        let (probation, gone) = (refusals::on_probation(Some(PID)), refusals::handed_off(PID));
        assert_eq!(meets(Checked::after(ON_PROBATION, GRANTED), On::Request), (refused(2, probation), Room::Proving));
        assert_eq!(meets(after(COMMITTED), On::Request), (refused(2, gone), Room::Committed));
    }

    #[test]
    fn an_idle_process_that_is_kept_from_restarting_says_by_what_until_it_is_not() {
        let mut process = after(IDLE);
        for (ticket, obstacle) in [(1, Refusal::ContainerInit), (2, refusals::draining(3, 7))] {
            process.obstruct(Some(obstacle));
            assert_eq!(process.meets(On::Request), forbidden(ticket, obstacle));
            assert_eq!(process.room(), Room::Idle);
        }
        process.obstruct(None);
        assert_eq!(process.meets(On::Request), outputs![Notice::Restarting, Action::Hold(Whose::Both), Action::Spawn(A)]);
    }

    #[test]
    fn what_keeps_a_process_from_restarting_does_not_end_a_restart_nor_hide_a_better_reason() {
        for limits in [PLAIN, ON_PROBATION] {
            // One that is not open has no better reason.
            for room in Room::ALL.into_iter().filter(|room| !matches!(room, Room::Idle | Room::NotReady | Room::Sole)) {
                let mut process = Checked::after(limits, &way_to(room));
                let (state, refusal) = (process.state(), process.machine().refusal(process.now()));
                process.obstruct(Some(Refusal::ContainerInit));
                assert_eq!((process.state(), process.machine().refusal(process.now())), (state, refusal));
                assert!(refusal.is_some() && process.drain(ALL).is_empty());
            }
        }
    }
}

mod stopping {
    use super::*;

    #[test]
    fn a_process_at_rest_closes() {
        for path in [&[On::Sole], IDLE] {
            let mut process = after(path);
            assert_eq!(process.meets(On::Stop), outputs![Action::TellStopping]);
            assert_eq!(process.meets(On::Stop), vec![]);
            assert_eq!(meets(process, On::Request), (refused(1, Refusal::Stopping), Room::Stopping));
        }
        let mut process = after(&way_to(Room::Broken));
        assert_eq!(process.meets(On::Stop), outputs![Action::TellStopping]);
        assert_eq!(meets(process, On::Request), (refused(1, Refusal::Stopping), Room::Stopping));
    }

    #[test]
    fn the_service_manager_is_not_told_as_long_as_the_service_is_another_process_s() {
        for on in [On::Sole, On::Opened] {
            let mut process = after(&[]);
            assert_eq!((process.meets(On::Stop), process.room()), (vec![], Room::StoppingUntold));
            assert_eq!(process.meets(On::Stop), vec![]);
            assert_eq!(meets(process, On::Request), (refused(1, Refusal::Stopping), Room::StoppingUntold));
            let mut process = after(&[On::Stop]);
            assert_eq!((process.meets(on), process.room()), (outputs![Action::TellStopping], Room::Stopping));
        }
        // It comes back from a successor that has failed.
        for (on, outputs) in [
            (On::Dying, outputs![Action::Kill(A)]),
            (On::Exited, [resumed_at_its_end(Cause::DiedOnProbation), outputs![Action::TellStopping]].concat()),
        ] {
            let mut process = Checked::after(ON_PROBATION, GRANTED);
            assert_eq!(process.meets(On::Stop), outputs![Action::Check(A)]);
            assert_eq!(process.meets(on), outputs);
            if on == On::Dying {
                assert_eq!(process.meets(On::Exited), [resumed_at_its_end(Cause::HungUp), outputs![Action::TellStopping]].concat());
            }
        }
    }

    #[test]
    fn nor_by_a_restarter_that_is_dropped() {
        for path in [&[On::Sole], IDLE] {
            assert_eq!(meets(after(path), On::Dropped), (vec![], Room::Stopping));
        }
        let mut process = after(WAITING);
        assert_eq!(process.meets(On::Dropped), outputs![Action::Kill(A)]);
        assert_eq!(meets(process, On::Exited), (failed(Cause::Stopping), Room::Stopping));
        let mut process = Checked::after(ON_PROBATION, GRANTED);
        assert_eq!(process.meets(On::Dropped), outputs![Action::Check(A)]);
        assert_eq!(meets(process, On::Exited), (resumed(Cause::DiedOnProbation), Room::Stopping));
    }

    #[test]
    fn a_child_that_gets_ready_is_killed_first() {
        for path in [WAITING, GIVING, GIVEN, GRANTING] {
            let mut process = after(path);
            let outputs = [outputs![Action::TellStopping], here_again(path), outputs![Action::Kill(A)]].concat();
            assert_eq!(process.meets(On::Stop), outputs);
            assert_eq!(meets(process, On::Exited), (failed_at_its_end(Cause::Stopping), Room::Stopping));
        }
    }

    #[test]
    fn a_child_that_is_being_killed_is_waited_for() {
        let mut process = after(KILLING);
        assert_eq!(process.meets(On::Stop), outputs![Action::TellStopping]);
        assert_eq!(process.meets(On::Stop), vec![]);
        assert_eq!(meets(process, On::Exited), (failed_at_its_end(Cause::Cancelled), Room::Stopping));
    }
}

mod broken {
    use super::*;

    #[test]
    fn an_idle_process_that_loses_its_thread_says_so_and_refuses() {
        let mut process = after(IDLE);
        assert_eq!(process.meets(On::ThreadLost), outputs![Notice::Broken]);
        assert_eq!(meets(process, On::Request), (forbidden(1, Refusal::RestartThreadGone), Room::Broken));
    }

    #[test]
    fn an_asker_whose_successor_can_never_start_is_refused() {
        let ending = outputs![Notice::Failed(Cause::SpawnFailed), Notice::Broken];
        let outputs =
            [outputs![Action::Abandon(Attempt(1)), Action::Hold(Whose::This)], refused(1, Refusal::RestartThreadGone), ending].concat();
        assert_eq!(meets(after(SPAWNING), On::ThreadLost), (outputs, Room::Broken));
    }

    #[test]
    fn a_child_that_lives_may_still_take_over() {
        let mut process = after(WAITING);
        assert_eq!(process.meets(On::ThreadLost), vec![]);
        process.meets(On::Ready);
        process.meets(On::Granted);
        assert!(matches!(process.state(), State::Handoff { .. }));
    }

    #[test]
    fn a_child_that_fails_is_the_last() {
        let broken = |outputs: Vec<Output>| [outputs, outputs![Notice::Broken]].concat();
        for (path, outputs) in [
            (WAITING, failed(Cause::Exited)),
            (GRANTING, [here_again(GRANTING), failed(Cause::Exited)].concat()),
            (KILLING, failed(Cause::Cancelled)),
        ] {
            let mut process = after(path);
            process.meets(On::ThreadLost);
            assert_eq!(meets(process, On::Exited), (broken(outputs), Room::Broken));
        }
        let mut process = Checked::after(ON_PROBATION, GRANTED);
        process.meets(On::ThreadLost);
        assert_eq!(meets(process, On::Exited), (broken(resumed(Cause::DiedOnProbation)), Room::Broken));
    }

    #[test]
    fn a_process_that_loses_its_thread_before_it_serves_is_broken_as_soon_as_it_does() {
        assert_eq!(meets(after(&[On::ThreadLost]), On::Opened), (outputs![Notice::Broken], Room::Broken));
    }
}
