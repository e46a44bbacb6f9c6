//! The rows of the table on `Stage` in which the predecessor is lost, gives up or ends, and those in which
//! a restarter is built, as what they promise.

use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::Prompt::{CloseUntaken, SendReady};
use pollflip::internals::machine::TakeoverInput::*;
use pollflip::internals::machine::TakeoverOutput::{Answer, MarksFreed, Open, Sole};
use pollflip::internals::machine::{DYING, Inbound, LOST, Line, Stage, TakeoverInput, refusals};
use pollflip_tests_pure::model;
use pollflip_tests_pure::model::PROBATION;
use pollflip_tests_pure::model::takeover::say::*;
use pollflip_tests_pure::model::takeover::{CheckedTakeover, INPUTS};

/// A lifeline that was closed so long ago.
fn closed_for(setting: model::takeover::Setting, path: &[TakeoverInput], closed: TakeoverInput, time: Duration) -> CheckedTakeover {
    let mut process = after(setting, path);
    process.meets(closed);
    process.wait(time);
    process
}

/// The clock is looked at, whether or not anything is due.
fn looks(process: &mut CheckedTakeover) -> Carried {
    (process.takes(process.now(), Timeout), process.drain(model::checked::ALL))
}

const CAN_BE_LOST: [(&[TakeoverInput], TakeoverInput, Duration); 6] = [
    (STARTING, CLOSED, DYING),
    (STARTING, CLOSED_BY_US, LOST),
    (READY_SENT, CLOSED, DYING),
    (READY_SENT, CLOSED_BY_US, LOST),
    (GRANTED, CLOSED, LOST),
    (GRANTED, CLOSED_BY_US, LOST),
];

mod lost {
    use super::*;

    #[test]
    fn a_predecessor_that_closes_the_lifeline_before_the_grant_gives_this_process_up_if_it_lives_on() {
        for path in [STARTING, ASKED, ARRIVED, TAKEN, UNUSABLE, READY_SENT] {
            for (closed, patience) in [(CLOSED, DYING), (CLOSED_BY_US, LOST)] {
                for late in [Duration::ZERO, INSTANT, LOST] {
                    let mut process = closed_for(SUCCESSOR, path, closed, patience + late);
                    assert_eq!(looks(&mut process), (vec![CloseUntaken], vec![TOLD_GIVEN_UP]));
                    assert_eq!(process.stage(), Stage::GivenUp { predecessor_ended: false });
                }
            }
        }
    }

    #[test]
    fn nothing_is_lost_an_instant_too_soon() {
        for (path, closed, patience) in CAN_BE_LOST {
            for setting in SUCCESSORS {
                let mut process = closed_for(setting, path, closed, patience - INSTANT);
                let stage = process.stage();
                assert_eq!((looks(&mut process), process.stage()), (NOTHING, stage));
                assert_eq!(process.machine().poll_timeout(), Some(patience));
            }
        }
    }

    #[test]
    fn one_that_ends_at_the_last_moment_has_not_given_this_process_up() {
        for (path, closed, patience) in CAN_BE_LOST {
            for setting in SUCCESSORS {
                let mut process = closed_for(setting, path, closed, patience);
                let (_, outputs) = process.meets(PredecessorEnded);
                assert!(outputs.contains(&TOLD_GONE) && !outputs.contains(&TOLD_GIVEN_UP) && !outputs.contains(&TOLD_LOST));
                assert_eq!(looks(&mut process), NOTHING);
            }
        }
    }

    #[test]
    fn a_clock_that_was_looked_at_before_is_no_verdict() {
        for (path, closed, patience) in CAN_BE_LOST {
            let mut process = closed_for(SUCCESSOR, path, closed, patience + DYING);
            let stage = process.stage();
            assert_eq!(process.takes(patience - INSTANT, Timeout), vec![]);
            assert_eq!(process.stage(), stage);
        }
    }

    #[test]
    fn a_predecessor_that_is_dying_postpones_the_verdict_for_as_long_as_it_dies() {
        for (path, closed, patience) in CAN_BE_LOST {
            let mut process = closed_for(PROBATIONER, path, closed, patience);
            for _ in 0..3 {
                assert_eq!(process.meets(PredecessorDying), NOTHING);
                assert_eq!(looks(&mut process), NOTHING);
                assert_eq!(process.to_deadline(), DYING);
                process.wait(DYING);
            }
            assert_ne!(looks(&mut process), NOTHING);
        }
    }

    #[test]
    fn a_predecessor_that_begins_to_die_early_does_not_hasten_it() {
        for (path, closed, patience) in CAN_BE_LOST {
            let mut process = closed_for(PROBATIONER, path, closed, Duration::ZERO);
            process.meets(PredecessorDying);
            assert_eq!(process.machine().poll_timeout(), Some(patience));
        }
    }

    #[test]
    fn one_that_is_dying_with_its_lifeline_open_is_listened_to() {
        for path in [STARTING, READY_SENT, GRANTED] {
            let mut process = after(PROBATIONER, path);
            let stage = process.stage();
            assert_eq!((process.meets(PredecessorDying), process.stage()), (NOTHING, stage));
        }
    }

    #[test]
    fn a_lifeline_is_lost_once() {
        for (path, closed, patience) in CAN_BE_LOST {
            let mut process = closed_for(SUCCESSOR, path, closed, DYING / 2);
            for again in [CLOSED, CLOSED_BY_US] {
                assert_eq!(process.meets(again), NOTHING);
                assert_eq!(process.machine().poll_timeout(), Some(patience));
            }
        }
    }

    #[test]
    fn a_process_goes_on_starting_without_its_lifeline() {
        let mut process = closed_for(SUCCESSOR, STARTING, CLOSED_BY_US, DYING);
        assert_eq!(process.meets(SayReady), (vec![SendReady], vec![]));
        assert_eq!(process.stage(), Stage::ReadySent { line: Line::Lost { until: LOST } });
    }

    #[test]
    fn after_a_grant_without_a_probation_it_counts_as_the_commit() {
        for closed in [CLOSED, CLOSED_BY_US] {
            let mut process = closed_for(SUCCESSOR, GRANTED, closed, LOST);
            assert_eq!(looks(&mut process), (vec![], vec![TOLD_LOST, TAKE, Answer, TOLD_COMMITTED]));
            assert_eq!(process.stage(), Stage::Final { predecessor_ended: false });
            assert_eq!(process.meets(PredecessorEnded), (vec![], vec![MarksFreed, TOLD_GONE]));
        }
    }

    #[test]
    fn after_a_grant_with_a_probation_it_is_one_until_the_predecessor_ends() {
        for closed in [CLOSED, CLOSED_BY_US] {
            let mut process = closed_for(PROBATIONER, GRANTED, closed, LOST);
            assert_eq!(looks(&mut process), (vec![], vec![TOLD_LOST, Answer]));
            assert_eq!(process.machine().poll_timeout(), None);
            process.wait(10 * PROBATION);
            for unheard in [Commit, Granted, GivenUp, CLOSED, PredecessorDying, Timeout] {
                assert_eq!(process.meets(unheard), NOTHING, "{unheard:?}");
            }
            assert_eq!(process.machine().refusal(), Some(refusals::on_probation(None)));
            assert_eq!(process.meets(PredecessorEnded), (vec![], vec![TAKE_AND_NAME, Answer, TOLD_COMMITTED, MarksFreed, TOLD_GONE]));
        }
    }

    #[test]
    fn a_commit_over_a_lost_lifeline_is_not_heard() {
        let mut process = closed_for(PROBATIONER, GRANTED, CLOSED, Duration::ZERO);
        assert_eq!(process.meets(Commit), NOTHING);
    }
}

mod given_up {
    use super::*;

    #[test]
    fn a_process_that_is_told_so_closes_what_it_has_of_the_state() {
        for path in [STARTING, ASKED, ARRIVED, TAKEN, UNUSABLE, READY_SENT] {
            for setting in SUCCESSORS {
                let mut process = after(setting, path);
                assert_eq!(process.meets(GivenUp), (vec![CloseUntaken], vec![TOLD_GIVEN_UP]));
                assert!(!process.machine().has_state());
                assert_eq!(process.machine().refusal(), Some(Refusal::NotReady));
            }
        }
    }

    #[test]
    fn it_hears_of_nothing_later_but_the_end_of_the_predecessor() {
        for path in [STARTING, ASKED, ARRIVED, READY_SENT] {
            for input in INPUTS.into_iter().filter(|input| *input != PredecessorEnded) {
                let mut process = after(PROBATIONER, path);
                process.meets(GivenUp);
                assert_eq!(process.meets(input), NOTHING, "{input:?}");
                assert_eq!(process.meets(PredecessorEnded), (vec![], vec![TOLD_GONE]));
                for later in INPUTS {
                    assert_eq!(process.meets(later), NOTHING, "{later:?}");
                }
                assert_eq!(process.machine().refusal(), Some(Refusal::NotReady));
            }
        }
    }

    #[test]
    fn a_predecessor_that_says_so_and_ends_has_still_said_so() {
        let mut process = after(SUCCESSOR, READY_SENT);
        process.takes(process.now(), GivenUp);
        assert_eq!(process.meets(PredecessorEnded), (vec![], vec![TOLD_GIVEN_UP, TOLD_GONE]));
        assert_eq!(process.stage(), Stage::GivenUp { predecessor_ended: true });
    }

    #[test]
    fn one_whose_predecessor_has_ended_is_not_given_up_any_more() {
        let mut process = after(SUCCESSOR, &[Attach, PredecessorEnded]);
        assert_eq!(process.meets(GivenUp), NOTHING);
        assert_eq!(process.meets(SayReady).1, vec![Open, TAKE_AND_NAME, Answer]);
    }
}

mod alone {
    use super::*;

    /// A process is left alone while it starts: what becomes of the state, and what is closed at once.
    const LEFT: [(&[TakeoverInput], Inbound, bool); 5] = [
        (STARTING, Inbound::NotAsked, true),
        (ASKED, Inbound::NotAsked, true),
        (ARRIVED, Inbound::Arrived, false),
        (TAKEN, Inbound::Taken, false),
        (UNUSABLE, Inbound::Unusable, false),
    ];

    #[test]
    fn a_process_that_starts_answers_and_keeps_the_state_that_is_here() {
        for (path, state, closes) in LEFT {
            for line in [&[] as &[_], &[CLOSED], &[CLOSED_BY_US]] {
                let mut process = after(PROBATIONER, &[path, line].concat());
                let prompts = if closes { vec![CloseUntaken] } else { vec![] };
                assert_eq!(process.meets(PredecessorEnded), (prompts, vec![Sole, Answer, TOLD_GONE]), "{path:?}");
                assert_eq!(process.stage(), Stage::Alone { state, ready: false });
                assert_eq!(process.machine().refusal(), Some(Refusal::NotReady));
            }
        }
    }

    #[test]
    fn it_has_the_service_when_it_is_ready_and_names_itself_to_the_manager() {
        for (path, state, _) in LEFT {
            let mut process = after(PROBATIONER, &[path, &[PredecessorEnded]].concat());
            if state == Inbound::Arrived {
                assert_eq!(process.meets(SayReady), NOTHING, "the state waits");
                assert_eq!(process.meets(StateTaken), NOTHING);
            }
            assert_eq!(process.meets(SayReady), (vec![CloseUntaken], vec![Open, TAKE_AND_NAME, Answer]));
            assert_eq!(process.machine().refusal(), None);
        }
    }

    #[test]
    fn a_process_that_is_ready_has_it_at_once() {
        for line in [&[] as &[_], &[CLOSED], &[CLOSED_BY_US]] {
            let mut process = after(PROBATIONER, &[READY_SENT, line].concat());
            assert_eq!(process.meets(PredecessorEnded), (vec![CloseUntaken], vec![Open, TAKE_AND_NAME, Answer, TOLD_GONE]));
            assert_eq!(process.machine().refusal(), None);
        }
    }

    #[test]
    fn nothing_is_heard_of_a_predecessor_that_has_ended() {
        for path in [STARTING, READY_SENT, GRANTED] {
            let path = [path, &[PredecessorEnded]].concat();
            for input in INPUTS.into_iter().filter(|input| !matches!(input, Attach | SayReady | GenerationEnded)) {
                let mut process = after(PROBATIONER, &path);
                let stage = process.stage();
                assert_eq!((process.meets(input), process.stage()), (NOTHING, stage), "{input:?}");
            }
        }
    }
}

mod restarters {
    use super::*;

    #[test]
    fn a_second_one_is_told_what_holds() {
        let silent = [GRANTED, &[CLOSED, Timeout]].concat();
        let holds: [(&[TakeoverInput], Vec<_>); 9] = [
            (STARTING, vec![]),
            (ARRIVED, vec![]),
            (READY_SENT, vec![]),
            (GRANTED, vec![Open]),
            (&silent, vec![Open, Answer]),
            (FINAL, vec![Open, TAKE, Answer]),
            (GIVEN_UP, vec![]),
            (&[Attach, PredecessorEnded], vec![Sole, Answer]),
            (&[Attach, SayReady, PredecessorEnded], vec![Open, TAKE, Answer]),
        ];
        for (path, outputs) in holds {
            assert_eq!(after(PROBATIONER, path).meets(Attach), (vec![], outputs), "{path:?}");
        }
        assert_eq!(after(FIRST, READY_SENT).meets(Attach), (vec![], vec![Open, TAKE, Answer]));
    }

    #[test]
    fn each_takes_the_service_once_however_it_becomes_this_process_s() {
        for end in [&[Commit] as &[_], &[PredecessorEnded], &[CLOSED, Timeout]] {
            let mut process = after(SUCCESSOR, &[GRANTED, end].concat());
            for _ in 0..3 {
                assert_eq!(process.meets(Attach), (vec![], vec![Open, TAKE, Answer]));
                assert!(!process.meets(PredecessorEnded).1.contains(&TAKE_AND_NAME));
            }
        }
    }

    #[test]
    fn one_that_comes_while_the_lifeline_is_lost_waits_with_it() {
        let mut process = closed_for(PROBATIONER, GRANTED, CLOSED, DYING);
        assert_eq!(process.meets(Attach), (vec![], vec![Open]));
        assert_eq!(process.meets(Timeout), (vec![], vec![TOLD_LOST, Answer]));
    }

    #[test]
    fn what_the_first_has_not_carried_out_comes_once_and_what_it_has_not_told_is_told() {
        let mut process = after(PROBATIONER, READY_SENT);
        process.takes(process.now(), Granted);
        assert_eq!(process.meets(Attach), (vec![], vec![TOLD_GRANTED, Open]));
        process.takes(process.now(), Commit);
        assert_eq!(process.meets(Attach), (vec![], vec![TOLD_COMMITTED, Open, TAKE, Answer]));
    }

    #[test]
    fn the_main_pid_that_the_first_has_not_named_is_named_by_the_next_and_then_no_more() {
        // The loop may have opened the process, and no more.
        for (path, carried_out) in [(READY_SENT, 0), (READY_SENT, 1), (GRANTED, 0)] {
            let mut process = after(PROBATIONER, path);
            process.takes(process.now(), PredecessorEnded);
            process.drain(carried_out);
            process.takes(process.now(), Attach);
            process.takes(process.now(), Attach);
            assert!(process.drain(model::checked::ALL).contains(&TAKE_AND_NAME), "{process}");
            assert_eq!(process.meets(Attach), (vec![], vec![Open, TAKE, Answer]));
        }
    }

    #[test]
    fn a_process_that_is_ready_before_it_has_one_opens_with_it() {
        let mut process = after(SUCCESSOR, &[SayReady, Granted, Commit]);
        assert_eq!(process.meets(Attach), (vec![], vec![Open, TAKE, Answer]));
    }
}
