//! What is heard from the predecessor, and what it means for this process.
//!
//! Knows: whose the service is. Does not know: how that is found out; that is the link's.

use std::mem;
use std::process;

use crate::error::Error;
use crate::machine::Input;
use crate::predecessor::{Standing, opened};
use crate::restart_coordination_socket::Server;

use super::{COORDINATION, Event, Restarter};

/// What has been heard from the predecessor, so that each is told once.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) opened: bool,
    /// The service is this process's, and nobody can take it back.
    pub(super) ours: bool,
    pub(super) granted: bool,
    pub(super) gave_up: bool,
    pub(super) lost: bool,
    pub(super) gone: bool,
    /// The program has yet to be told that it is gone, after what it had said before.
    pub(super) end_untold: bool,
}

impl Restarter {
    pub(super) fn look_at_predecessor(&mut self) {
        let standing = match &self.link {
            None => None,
            Some(link) => match link.look() {
                // Another thread waits for it, and wakes this loop when it is done.
                None => return,
                Some(standing) => Some(standing),
            },
        };
        if let Some(standing) = &standing {
            self.hear(standing);
        }
        let (committed, gone) = standing.map_or((true, true), |standing| (standing.committed, standing.gone));
        if self.claim.is_ready() && !mem::replace(&mut self.heard.opened, true) {
            self.sockets.close_unclaimed();
            if let Some(link) = &self.link {
                let end = if committed || !gone { "" } else { ", which had ended" };
                let text = format!("process {} took over from process {}{end}", process::id(), link.pid());
                self.chronicle.end(true, &text, self.now());
            }
            let on_probation = self.link.is_some() && (committed || !gone);
            self.feed(Input::Opened { on_probation });
        }
        if self.heard.opened && (committed || gone) && !mem::replace(&mut self.heard.ours, true) {
            if !committed {
                // The one whom systemd takes for the service cannot tell it any more.
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
            if self.link.is_some() && self.is_stopped() {
                self.tell_of_the_end();
            }
        }
        if self.link.is_some() && committed {
            self.feed(Input::Committed);
        }
        if self.link.is_some() && gone {
            self.feed(Input::PredecessorGone);
        }
        self.open_server();
    }

    /// Tells the program what is new.
    fn hear(&mut self, standing: &Standing) {
        let Some(link) = &self.link else { return };
        if standing.granted && !mem::replace(&mut self.heard.granted, true) {
            self.told.push_back(Event::Granted);
        }
        if standing.said_ready && (standing.granted || standing.gone) && !standing.gave_up && !self.claim.is_ready() {
            opened();
        }
        if standing.gave_up && !mem::replace(&mut self.heard.gave_up, true) {
            self.told.push_back(Event::Broken(Error::GivenUp(link.pid())));
        }
        if standing.lost && !mem::replace(&mut self.heard.lost, true) {
            log::warn!(target: "pollflip", "the lifeline to the predecessor (process {}) is lost: nothing more is heard of it but its end", link.pid());
        }
        if standing.gone && !mem::replace(&mut self.heard.gone, true) {
            self.heard.end_untold = true;
            self.guarded.stay();
        }
    }

    /// As long as the predecessor can take the service back, only that one takes requests in. A first generation does so from the start:
    /// who asks too early is told. One that has been told to stop does so too, or those who ask would wait in vain; so does one that cannot
    /// hear of the commit, which does not know whether the predecessor still does; and one whose predecessor has ended, ready or not: nobody
    /// else is left to answer. At a path that the predecessor does not have, this process alone can tell whoever comes.
    pub(super) fn open_server(&mut self) {
        let is_the_predecessors = self.server.as_ref().is_some_and(Server::is_shared);
        let is_left_alone = self.heard.gone && !self.heard.gave_up;
        if self.link.is_some() && is_the_predecessors && !self.heard.ours && !self.heard.lost && !is_left_alone {
            return;
        }
        let now = self.now();
        if let Some(server) = &mut self.server {
            server.open(self.poll.registry(), COORDINATION, now);
        }
        if self.heard.ours
            && let Some(mut retired) = self.retired.take()
        {
            retired.remove_path();
        }
    }
}
