//! The successor's standing when memory is short: until the restart is final it goes first, and the
//! process that serves stays.
//!
//! Knows: what was changed in the successor, and what its control group has counted. Does not know:
//! when the restart is final.

use nix::libc;

use crate::error::Exit;
use crate::sys::{OomKills, OomScore, Process};

/// What a successor was given for as long as its restart is not final.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    raised: Option<OomScore>,
    kills: Option<OomKills>,
    /// Why the kernel may end the process that serves before the successor.
    problem: Option<String>,
}

impl Memory {
    /// Makes the successor the one that the kernel ends first.
    pub(super) fn of(process: &Process, kills: Option<OomKills>) -> Memory {
        match OomScore::raise(process) {
            Ok(raised) => Memory { raised, kills, problem: None },
            Err(error) => {
                let pid = process.pid();
                let problem = format!(
                    "if memory gets short before the restart is final, the kernel may end the process that serves: the oom_score_adj of \
                     the successor (process {pid}) cannot be raised: {error}"
                );
                log::warn!(target: "pollflip", "{problem}");
                Memory { raised: None, kills, problem: Some(problem) }
            }
        }
    }

    /// The restart is final: the successor stands where this process stood.
    pub(crate) fn settle(&mut self, pid: u32) {
        self.problem = None;
        if let Some(Err(error)) = self.raised.take().map(|raised| raised.restore()) {
            log::warn!(
                target: "pollflip",
                "the oom_score_adj of the successor (process {pid}) is 1000 and cannot be set back by this process: {error}; the successor \
                 tries it itself"
            );
        }
    }

    /// What an operator has to know.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// What an end means that this process has not brought about.
    pub(crate) fn explain(&self, exit: Exit) -> Exit {
        let is_it = exit == Exit::Signal(libc::SIGKILL) && self.kills.as_ref().is_some_and(OomKills::has_risen);
        if is_it { Exit::OutOfMemory } else { exit }
    }
}
