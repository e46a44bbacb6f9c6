//! A helper that the first generation has started, and that every later one watches and ends by its pidfd.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pollflip::Event;

use crate::service::Recipe;
use nix::sys::signal::Signal;
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::{self, DEADLINE, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::report::say;
use pollflip_kit::service::{Act, Capability, Core, Step, at};
use serde::{Deserialize, Serialize};

pollflip_kit::trials![
    a_helper_is_watched_and_ended_by_its_pidfd_in_every_generation,
    a_helper_stays_the_child_of_a_process_whose_restart_fails,
];

/// The helper by its pidfd, and as a child in the process that has started it.
#[derive(Default)]
pub struct Helper {
    pidfd: Option<OwnedFd>,
    child: Option<Child>,
}

#[allow(unsafe_code, reason = "nix has no pidfds")]
fn open(pid: u32) -> OwnedFd {
    // SAFETY: the call takes two numbers; the descriptor that it returns is new.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    assert!(raw >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(raw as i32) }
}

#[allow(unsafe_code, reason = "nix has no pidfds")]
fn send(pidfd: &OwnedFd, signal: i32) {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and a null stands for the defaults.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn has_ended_within(pidfd: &OwnedFd, limit: PollTimeout) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, limit).expect("poll") == 1
}

/// What is asked of the helper.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// Whether it has ended.
    HasEnded,
    /// Whether it is a child of this process.
    IsChild,
    /// Ends it. Whether it could.
    End,
}

impl hub::Command for Ask {}

impl Capability for Helper {
    fn built(&mut self, core: &mut Core) -> Result<(), String> {
        match core.restarter().predecessor() {
            None => {
                let nothing = Stdio::null;
                let child = Command::new("sleep").arg("100000").stdin(nothing()).stdout(nothing()).stderr(nothing()).spawn();
                let child = child.map_err(|error| error.to_string())?;
                say(&format!("helper {}", child.id()));
                self.pidfd = Some(open(child.id()));
                self.child = Some(child);
            }
            Some(predecessor) => {
                let mut inheritance = predecessor.receive(DEADLINE).map_err(|error| error.to_string())?;
                self.pidfd = inheritance.drain().find(|(name, _)| name == "helper").map(|(_, pidfd)| pidfd);
            }
        }
        Ok(())
    }

    fn event(&mut self, _: &mut Core, event: Event) -> Result<Option<Event>, String> {
        match event {
            Event::StateRequested(mut handover) => {
                if let Some(pidfd) = &self.pidfd {
                    handover.fd("helper", pidfd.as_fd()).expect("room for one");
                }
                handover.send();
                Ok(None)
            }
            event => Ok(Some(event)),
        }
    }

    fn perform(&mut self, _: &mut Core, act: &Act) -> Option<String> {
        let pidfd = self.pidfd.as_ref().expect("a helper");
        Some(match act.other()? {
            Ask::HasEnded => has_ended_within(pidfd, PollTimeout::ZERO).to_string(),
            Ask::IsChild => self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none())).to_string(),
            Ask::End => {
                send(pidfd, libc::SIGTERM);
                has_ended_within(pidfd, PollTimeout::from(10_000u16)).to_string()
            }
        })
    }
}

fn a_helper_is_watched_and_ended_by_its_pidfd_in_every_generation() {
    let service = Setup::new().set(Recipe::Helper).start();
    let helper: u32 = service.first().says("helper").parse().expect("a number");
    for _ in 0..3 {
        let new = service.restart();
        new.says("event PredecessorGone");
        assert_eq!(new.ask(Ask::HasEnded), "false");
        assert!(procfs::state(helper).is_some());
    }
    let last = service.restart();
    last.says("event PredecessorGone");
    assert_eq!(last.ask(Ask::End), "true");
    assert_eq!(last.ask(Ask::HasEnded), "true");
    // Whoever takes orphans in reaps it: here, the test.
    wait_until("the helper to be over", || matches!(procfs::state(helper), None | Some('Z')));
    assert_eq!(service.connect().pid, last.pid);
}

fn a_helper_stays_the_child_of_a_process_whose_restart_fails() {
    let service = Setup::new().set(Recipe::Helper).start();
    let first = service.first();
    for plan in [at(Step::Claimed, Act::Exit(3)), at(Step::Claimed, Act::Raise(Signal::SIGKILL))] {
        service.plan_next(plan);
        service.fail_to_restart();
        assert_eq!((first.ask(Ask::IsChild), first.ask(Ask::HasEnded)), ("true".into(), "false".into()));
    }
    assert_eq!(first.ask(Ask::End), "true");
    assert_eq!(first.ask(Ask::IsChild), "false");
}
