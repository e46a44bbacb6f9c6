//! The rows of the table on `Stage`, as what they promise.

use std::time::Duration;

use pollflip::internals::machine::{Takeover, TakeoverInput, TakeoverOutput};

#[test]
fn the_main_pid_that_the_first_restarter_has_not_named_is_named_by_the_next_and_then_no_more() {
    let mut process = Takeover::successor(None);
    let mut attach = |inputs: &[TakeoverInput]| {
        inputs.iter().for_each(|input| process.handle(Duration::ZERO, *input));
        std::iter::from_fn(|| process.poll_output()).collect::<Vec<_>>()
    };
    // A thread says that the process is ready; the restarter is dropped before its loop turns.
    let outputs = attach(&[TakeoverInput::SayReady, TakeoverInput::PredecessorEnded, TakeoverInput::Attach]);
    assert!(outputs.contains(&TakeoverOutput::TakeService { name_main_pid: true }), "{outputs:?}");
    let outputs = attach(&[TakeoverInput::Attach]);
    assert!(outputs.contains(&TakeoverOutput::TakeService { name_main_pid: false }), "{outputs:?}");
}

#[test]
fn a_state_whose_lifeline_was_lost_does_not_come_any_more() {
    for by_us in [false, true] {
        let mut process = Takeover::successor(None);
        for input in [TakeoverInput::Pull, TakeoverInput::LineClosed { by_us }, TakeoverInput::StateComplete] {
            process.handle(Duration::ZERO, input);
        }
        assert!(!process.has_state() && !process.may_be_ready());
    }
}
