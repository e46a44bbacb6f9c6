//! What the takeover machine has the loop do.
//!
//! Knows: what belongs to the service, and is this process's with it. Does not know: when that is; that is the machine's.

use std::process;

use crate::error::Error;
use crate::machine::{Input, Stage, TakeoverNotice, TakeoverOutput};
use crate::restart_coordination_socket::Server;

use super::{COORDINATION, Event, Restarter};

impl Restarter {
    pub(super) fn look_at_predecessor(&mut self) {
        if self.link.as_ref().is_some_and(|link| !link.look()) {
            // Another thread waits for it, and wakes this loop when it is done.
            return;
        }
        while let Some(output) = self.takeover.poll_output() {
            match output {
                TakeoverOutput::Open => self.open(),
                TakeoverOutput::Answer => {
                    if let Some(server) = &mut self.server {
                        server.answers_alone();
                    }
                }
                TakeoverOutput::TakeService { name_main_pid } => self.take_service(name_main_pid),
                TakeoverOutput::Notice(notice) => self.take_notice(notice),
            }
        }
        self.open_server();
    }

    /// The program may serve.
    fn open(&mut self) {
        self.sockets.close_unclaimed();
        if let Some(link) = &self.link {
            let end = if matches!(self.takeover.stage(), Stage::Alone { .. }) { ", which had ended" } else { "" };
            let text = format!("process {} took over from process {}{end}", process::id(), link.pid());
            self.chronicle.end(true, &text, self.now());
        }
    }

    fn take_service(&mut self, name_main_pid: bool) {
        if name_main_pid {
            self.manager.handed_over(process::id());
        }
        if let Some(file) = &self.pid_file {
            file.write(process::id());
        }
        if let Some(file) = self.retired_pid_file.take()
            && self.pid_file.as_ref().is_none_or(|own| !file.is_the_same_as(own))
        {
            file.remove(self.link.as_ref().map(|link| link.pid()));
        }
        if let Some(mut retired) = self.retired.take() {
            retired.remove_path();
        }
        self.feed(Input::Opened);
        if self.link.is_some() && self.is_stopped() {
            self.tell_of_the_end();
        }
    }

    fn take_notice(&mut self, notice: TakeoverNotice) {
        let Some(link) = &self.link else { return };
        self.pending_events.push_back(match notice {
            TakeoverNotice::Granted => Event::Granted,
            TakeoverNotice::Committed => {
                log::info!(target: "pollflip", "final, the predecessor has committed or ended: process {} serves", process::id());
                Event::Committed
            }
            TakeoverNotice::GivenUp => Event::Broken(Error::GivenUp(link.pid())),
            TakeoverNotice::LineLost => {
                let pid = link.pid();
                return log::warn!(target: "pollflip", "the lifeline to the predecessor (process {pid}) is lost: nothing more is heard of it but its end");
            }
            TakeoverNotice::PredecessorGone => Event::PredecessorGone,
        });
    }

    /// As long as the predecessor answers on the coordination socket that both have, this process does not. At a path that the predecessor
    /// does not have, this process alone can tell whoever comes; a first generation does so from the start.
    pub(super) fn open_server(&mut self) {
        let now = self.now();
        if let Some(server) = self.server.as_mut().filter(|server| !Server::is_shared(server)) {
            server.open(self.poll.registry(), COORDINATION, now);
        }
    }
}
