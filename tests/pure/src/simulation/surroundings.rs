//! What is around a restarter from its birth on, and what of it must be gone in the end.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use pollflip::internals::simulation::{self, Simulation};
use pollflip::{Mark, Restarter};

use super::act::{Setting, THEIRS};
use super::manager::Manager;
use super::predecessor::Predecessor;

pub struct Surroundings {
    pub simulation: Simulation,
    pub predecessor: Option<Predecessor>,
    pub manager: Option<Manager>,
    /// Where the coordination socket is.
    pub path: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
}

impl Surroundings {
    /// And a restarter in them. If a call fails that it cannot do without, nothing is left of it, and in another life it works.
    pub fn with_restarter(setting: Setting) -> (Surroundings, Restarter) {
        let mut surroundings = Surroundings::new(setting);
        if let Some(coded) = setting.fault.checked_sub(1) {
            surroundings.simulation.fail_after(u32::from(coded >> 2), usize::from(coded & 3));
        }
        match surroundings.build(setting) {
            Ok(restarter) => {
                surroundings.simulation.calm();
                (surroundings, restarter)
            }
            Err(error) => {
                assert_eq!(surroundings.simulation.struck().len(), 1, "{error}");
                let told = surroundings.predecessor.as_mut().is_none_or(Predecessor::has_been_refused);
                assert!(told, "the predecessor is not told: {error}");
                if setting.has(Setting::SUCCESSOR) {
                    // One that has been built and is killed before the service is its own leaves what it has bound to the next.
                    surroundings.clear();
                }
                surroundings.are_clean(&error);
                let Surroundings { simulation, predecessor, manager, .. } = surroundings;
                let struck = simulation.struck();
                simulation::end_process();
                drop((simulation, predecessor, manager));
                let (again, restarter) = Surroundings::with_restarter(Setting { fault: 0, ..setting });
                again.simulation.remember(struck);
                (again, restarter)
            }
        }
    }

    fn new(setting: Setting) -> Surroundings {
        // A socket's path has to be short.
        let directory = Some(std::env::temp_dir()).filter(|path| path.as_os_str().len() <= 60).unwrap_or_else(|| "/tmp".into());
        let place = |name| directory.join(format!("pollflip-simulation-{}.{name}", std::process::id()));
        let signal = setting.has(Setting::SIGNAL).then_some(THEIRS as i32);
        let predecessor = || Predecessor::new(setting.may_have_to_prove_itself(), signal);
        let (predecessor, lifeline) = setting.has(Setting::SUCCESSOR).then(predecessor).unzip();
        let manager = setting.has(Setting::MANAGER).then(Manager::new);
        let simulation = Simulation::new(lifeline, manager.as_ref().map(|manager| manager.address().into()));
        let path = setting.has(Setting::SOCKET).then(|| place("sock"));
        let pid_file = setting.has(Setting::PID_FILE).then(|| place("pid"));
        Surroundings { simulation, predecessor, manager, path, pid_file }
    }

    fn build(&self, setting: Setting) -> Result<Restarter, pollflip::Error> {
        let mut config = setting.config();
        if let Some(path) = &self.path {
            config = config.coordination_socket(path);
        }
        if let Some(path) = &self.pid_file {
            config = config.pid_file(path);
        }
        let mut restarter = simulation::build(&self.simulation, &config)?;
        if setting.has(Setting::NAMED) {
            let result = restarter.sockets().or_insert_with("datagrams", UnixDatagram::unbound);
            if let (Err(error), Some(predecessor)) = (&result, restarter.predecessor()) {
                // That is for the program to do.
                predecessor.refuse(&error.to_string());
            }
            result?;
            let mark = Mark::byte(0, 0xf0).generations(2);
            let group = restarter.sockets().udp_group("flows", (Ipv4Addr::LOCALHOST, 0), mark);
            if let (Err(error), Some(predecessor)) = (&group, restarter.predecessor()) {
                predecessor.refuse(&error.to_string());
            }
            group?;
        }
        Ok(restarter)
    }

    /// Nobody serves here any more.
    pub fn are_clean(&self, why: &dyn std::fmt::Display) {
        for path in self.path.iter().chain(&self.pid_file) {
            for (before, after) in [("", ""), ("", ".new"), (".", ".pollflip-new"), (".", ".pollflip-lock")] {
                let name = path.file_name().expect("a name").to_string_lossy();
                let beside = path.with_file_name(format!("{before}{name}{after}"));
                assert!(beside.symlink_metadata().is_err(), "{beside:?} was left behind: {why}");
            }
        }
    }

    /// What a successor has taken over is its to remove.
    pub fn clear(&self) {
        for path in self.path.iter().chain(&self.pid_file) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The numbers that are open.
pub fn open_descriptors() -> BTreeSet<String> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc is there");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// Whether the restarter wants to be polled.
pub fn wants_to_be_polled(restarter: &Restarter) -> bool {
    use std::os::fd::AsFd;
    matches!(poll(&mut [PollFd::new(restarter.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO), Ok(1..))
}

/// So many signals come, one after the other, to a thread that takes them in as the restart thread would.
pub fn strike(signal: Signal, times: u32) {
    let before = SigSet::thread_get_mask().expect("a mask");
    SigSet::from(signal).thread_unblock().expect("a mask");
    (0..times).for_each(|_| raise(signal).expect("there is a handler"));
    before.thread_set_mask().expect("a mask");
}
