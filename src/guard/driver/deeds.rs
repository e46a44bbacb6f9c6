//! What the machine of a guard wants done: starts, signals, and what people are told.
//!
//! Knows: how each of it is done. Does not know: when it is done.

use nix::libc;

use crate::machine::supervision::{Deed, Fact, Remark};
use crate::sys::{self, OomKills, Process};

use super::Driver;

impl Driver {
    pub(super) fn carry_out(&mut self) {
        while let Some(deed) = self.machine.poll_deed() {
            match deed {
                Deed::Start => self.start(),
                Deed::Signal(pid, signal) => match self.generations.find(pid).map(|process| process.signal(signal)) {
                    Some(Err(error)) if error.raw_os_error() != Some(libc::ESRCH) => {
                        log::warn!("cannot send signal {signal} to process {pid}: {error}");
                    }
                    _ => {}
                },
                Deed::TellStrays(signal) => {
                    self.strays.begin(signal, false);
                    self.strays.signal(&self.generations);
                }
                Deed::SignalStrays(signal) => {
                    let strays = self.all_strays();
                    if !strays.is_empty() && signal != libc::SIGKILL {
                        log::warn!(
                            "the main process has ended and left {strays:?}, which are told to end (signal {signal}): a service stays in the \
                             foreground and ends what it has started"
                        );
                    }
                    self.strays.begin(signal, true);
                    self.strays.signal(&self.generations);
                }
                Deed::EmptyStore => self.empty_store(),
                Deed::Tell(remark) => self.tell(remark),
            }
        }
    }

    fn all_strays(&self) -> Vec<u32> {
        self.strays.all(&self.generations).unwrap_or_default()
    }

    fn start(&mut self) {
        self.strays.set_told(Vec::new());
        let last = self.machine.status().map(|exit| (exit, self.machine.strikes(self.now())));
        let started = self.command.start(self.own_group, &self.store, last).and_then(|pid| {
            let watched = Process::open(pid).and_then(|process| self.generations.watch(self.poll.registry(), process));
            watched.map(|()| pid).inspect_err(|_| {
                let _ = sys::kill_and_reap(pid);
            })
        });
        let fact = match started {
            Ok(pid) => Fact::Started(pid),
            Err(error) => {
                let error = self.command.explain(error);
                // The caller tells of the first one.
                if self.machine.status().is_some() {
                    log::error!("cannot start {}: {error}", self.command.name().display());
                }
                self.failure = Some(error);
                Fact::StartFailed
            }
        };
        self.machine.handle(self.now(), fact);
    }

    fn tell(&mut self, remark: Remark) {
        match remark {
            Remark::Main(pid) => {
                self.oom_kills = OomKills::since_now(self.kill_counter.as_ref());
                log::info!("the service is process {pid}");
            }
            Remark::AwaitsSuccessor => log::warn!("the main process has ended in the middle of a restart; its successor may go on"),
            Remark::NotReady(pid) => {
                log::error!("process {pid} has not said in time that it is ready, and is killed; does it call ready()?")
            }
            Remark::KillsStrays => {
                log::warn!("what the service has left behind does not end, and is killed: {:?}", self.all_strays())
            }
            Remark::StraysStay => {
                log::error!("what was killed does not die, and is left to itself: {:?}", self.all_strays())
            }
            Remark::StartsAgain => log::warn!("the service is started again"),
            Remark::StruckOut => {
                log::error!("the service has ended too often (--strikes), and is not started again; its own messages say why")
            }
        }
    }
}
