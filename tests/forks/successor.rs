//! A successor of a process under test: what it does is in a file that its predecessor leaves.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use pollflip::{Error, RestartConfig};

use crate::child::{BOTH, claim, in_child};
use pollflip_kit::group::{DEADLINE, DIRECTORY};

/// A file of this test.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(DIRECTORY).expect("a directory")).join(name)
}

pub(crate) fn main() -> ExitCode {
    let mut restarter = RestartConfig::new().build().expect("a restarter");
    match std::fs::read_to_string(path("plan")).expect("a plan").as_str() {
        "serve" => {}
        "receive" => {
            let predecessor = restarter.predecessor().expect("a predecessor");
            let mut state = predecessor.receive(DEADLINE).expect("the state");
            assert_eq!(state.bytes("state").expect("a blob").expect("its name"), b"the parent's");
        }
        "hang" => loop {
            std::thread::park();
        },
        "fork" => {
            let predecessor = restarter.predecessor().expect("a predecessor");
            for how in BOTH {
                in_child(how, || {
                    predecessor.progress("the child's");
                    predecessor.pull();
                    let received = predecessor.receive(Duration::from_secs(60));
                    claim(matches!(received, Err(Error::Os { .. })), "no state")?;
                    claim(restarter.ready().is_err(), "not for the child to say")?;
                    predecessor.refuse("the child's");
                    // It is nobody's successor, although its parent is.
                    let mut own = RestartConfig::new().restart_signal(None).build().map_err(|_| "a restarter of its own")?;
                    claim(own.predecessor().is_none() && own.generation() == 0, "no predecessor")?;
                    own.ready().map_err(|_| "that it serves")
                });
            }
        }
        other => panic!("no plan: {other}"),
    }
    restarter.ready().expect("the service");
    ExitCode::SUCCESS
}
