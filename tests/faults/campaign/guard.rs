//! The guard above the services of this campaign, if the environment asks for one.
//!
//! All must come out as without it. Besides, the guard lives as long as anybody serves, who is its
//! only child then, and ends when nobody does.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::case::Case;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, Process, wait_for};
use pollflip_kit::procfs;

/// `child`: each service has a guard above it. `init`: that is the first process of a PID namespace.
const WANTED: &str = "POLLFLIP_CAMPAIGN_GUARD";
/// The operator's program.
const POLLFLIP: &str = env!("CARGO_BIN_EXE_pollflip-of-faults");
/// A new PID namespace with its own /proc.
const CONTAINER: &str = "unshare --pid --fork --kill-child --mount-proc";

/// What a guard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Above {
    /// An ordinary process.
    Child,
    /// PID 1.
    Init,
}

impl Above {
    pub fn wanted() -> Option<Above> {
        match std::env::var(WANTED).as_deref() {
            Err(_) => None,
            Ok("child") => Some(Above::Child),
            Ok("init") => Some(Above::Init),
            Ok(other) => panic!("{WANTED}={other} is neither child nor init"),
        }
    }

    /// Whether this machine lets us have it; says aloud if not.
    pub fn is_possible(self) -> bool {
        let mut probe = Command::new("unshare");
        let mut probe = || probe.args(CONTAINER.split(' ').skip(1)).arg("true").stderr(Stdio::null()).status();
        let is_possible = self == Above::Child || probe().is_ok_and(|status| status.success());
        if !is_possible {
            eprintln!("skipped: no PID namespace can be had here; it needs root and unshare");
        }
        is_possible
    }

    /// The service under a guard. What the guard says goes to a file of its own.
    pub fn put_above(self, setup: Setup) -> Setup {
        let log = setup.path("guard.log");
        let container = if self == Above::Init { CONTAINER } else { "" };
        let shell = format!("exec {container} \"$POLLFLIP\" guard -- \"$0\" 2>>\"$LOG\"");
        setup.env("POLLFLIP", POLLFLIP).env("POLLFLIP_LOG", "info").env("LOG", log).shell(&shell)
    }
}

/// The guard of a service.
#[derive(Debug)]
pub struct Guard {
    pid: u32,
    log: PathBuf,
}

impl Guard {
    pub fn of(above: Above, service: &Service) -> Guard {
        let pid = match above {
            Above::Child => service.launched(),
            Above::Init => wait_for("the first process", || procfs::children(service.launched()).first().copied()),
        };
        Guard { pid, log: service.path("guard.log") }
    }

    /// Who the service is, as it has said last.
    fn main(&self) -> Option<u32> {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        said.lines().rev().find_map(|line| line.strip_prefix("pollflip guard: the service is process ")?.parse().ok())
    }

    /// It has taken in what a case has left: whoever serves is the service to it, its child and the
    /// only one, but for helpers; if nobody serves it has ended.
    pub fn agrees(&self, case: Case, owner: Option<&Process>) {
        let agrees = || match owner {
            None => procfs::has_ended(self.pid),
            Some(owner) => {
                let is_helper = |pid: &u32| procfs::status(*pid, "Name").is_some_and(|name| name == "sleep");
                let children = procfs::children(self.pid).into_iter().filter(|pid| !is_helper(pid));
                children.eq([owner.pid]) && self.main() == Some(owner.own) && !procfs::has_ended(self.pid)
            }
        };
        let deadline = Instant::now() + DEADLINE;
        while !agrees() {
            let said = || fs::read_to_string(&self.log).unwrap_or_default();
            let children = || procfs::children(self.pid);
            assert!(
                Instant::now() < deadline,
                "{case}: {:?}, and the guard has {:?} and says:\n{}",
                owner.map(|owner| owner.pid),
                children(),
                said()
            );
            thread::sleep(Duration::from_millis(3));
        }
    }
}
