//! The successor's standing when memory is short: until the restart is final it goes first, and the
//! process that serves stays.
//!
//! Knows: what was changed in the successor, and what its control group has counted. Does not know:
//! when the restart is final.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::libc;

use crate::error::Exit;
use crate::sys::{OomKills, OomScore, Process};
use crate::wire::KillCounter;

/// What a successor is given for as long as its restart is not final. The restart thread does that
/// while the loop already works with the successor, and the loop undoes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<Standing>>);

#[derive(Debug, Default)]
struct Standing {
    /// The restart is final: nothing is changed any more.
    settled: bool,
    raised: Option<OomScore>,
    kills: Option<OomKills>,
    /// Why the kernel may end the process that serves before the successor.
    problem: Option<String>,
}

impl Memory {
    /// Makes the successor the one that the kernel ends first, unless the restart is final already.
    pub(super) fn put_first(&self, process: &Process, counter: Option<&KillCounter>) {
        if self.standing().settled {
            return;
        }
        let kills = OomKills::since_now(counter);
        // Outside of the lock: of a process that changes its user, the file is waited for.
        let opened = OomScore::open(process);
        let mut standing = self.standing();
        standing.kills = kills;
        if standing.settled {
            // Meanwhile.
            return;
        }
        let raised = opened.and_then(|score| score.map(OomScore::raised).transpose());
        match raised {
            Ok(raised) => standing.raised = raised,
            Err(_) if process.has_ended() => {}
            Err(error) => {
                let pid = process.pid();
                let problem = format!(
                    "if memory gets short before the restart is final, the kernel may end the process that serves: the oom_score_adj of \
                     the successor (process {pid}) cannot be raised: {error}"
                );
                log::warn!(target: "pollflip", "{problem}");
                standing.problem = Some(problem);
            }
        }
    }

    /// The restart is final: the successor stands where this process stood.
    pub(crate) fn settle(&self, pid: u32) {
        let mut standing = self.standing();
        standing.settled = true;
        standing.problem = None;
        if let Some(Err(error)) = standing.raised.take().map(|raised| raised.restore()) {
            log::warn!(
                target: "pollflip",
                "the oom_score_adj of the successor (process {pid}) is 1000 and cannot be set back by this process: {error}; the successor \
                 tries it itself"
            );
        }
    }

    /// What an operator has to know.
    pub(crate) fn problem(&self) -> Option<String> {
        self.standing().problem.clone()
    }

    /// What an end means that this process has not brought about.
    pub(crate) fn explain(&self, exit: Exit) -> Exit {
        let is_it = exit == Exit::Signal(libc::SIGKILL) && self.standing().kills.as_ref().is_some_and(OomKills::has_risen);
        if is_it { Exit::OutOfMemory } else { exit }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn of_a_successor_that_has_ended_no_problem_is_told() {
        let mut child = Command::new("true").spawn().expect("a process");
        let process = Process::open(child.id()).expect("a pidfd");
        child.wait().expect("its end");
        let memory = Memory::default();
        memory.put_first(&process, None);
        assert_eq!(memory.problem(), None);
    }
}
