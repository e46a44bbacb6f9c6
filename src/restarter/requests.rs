//! Who asks for a restart: the program, a signal, a client of the coordination socket.
//!
//! Knows: who waits for which ticket. Does not know: attempts, reasons, states.

#[cfg(test)]
mod tests;

use std::mem;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use mio::Token;
use nix::sys::signal::{SigSet, Signal};
use signal_hook_mio::v1_0::Signals;

use crate::machine::{Input, Ticket};
use crate::restart_coordination_socket::{Asked, ClientId, Server, Status};
use crate::wire::{FileId, Response};

use super::part::{Moment, Part};
use super::reactor::{COORDINATION, Deadline, Due, Reactor, SIGNALS};

/// Those who ask, and those who wait.
pub(super) struct Requests {
    signals: Option<Signals>,
    /// The one that asks for a restart. The predecessor's may be handled as well, and does nothing.
    signal: Option<Signal>,
    server: Option<Server>,
    /// Clients that were answered and may have asked again already.
    again: Vec<Token>,
    askers: Vec<(Ticket, Asker)>,
    tickets: u64,
    /// Clients that want to know where the service stands.
    status_askers: Vec<ClientId>,
}

/// Who waits for the outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Program,
    Signal,
    Client(ClientId),
}

impl Requests {
    pub(super) fn new(signals: Option<Signals>, signal: Option<Signal>, server: Option<Server>) -> Requests {
        Requests { signals, signal, server, again: Vec::new(), askers: Vec::new(), tickets: 0, status_askers: Vec::new() }
    }

    /// Drops the clients whose time is over, and takes new ones in.
    pub(super) fn admit(&mut self, moment: &Moment, reactor: &Reactor, inputs: &mut Vec<Input>) {
        let Some(server) = &mut self.server else { return };
        // Those who have left have made room.
        if server.expire(moment.now) || moment.ready.has(COORDINATION) {
            let newcomers = server.accept(reactor.registry(), moment.now);
            self.poll_clients(newcomers, reactor, inputs);
        }
    }

    fn poll_signals(&mut self, inputs: &mut Vec<Input>) {
        let pending: Vec<i32> = self.signals.iter_mut().flat_map(|signals| signals.pending().collect::<Vec<_>>()).collect();
        for number in pending {
            if self.signal.is_some_and(|signal| signal as i32 == number) {
                inputs.push(self.request(Asker::Signal));
            } else {
                log::warn!("signal {number} restarted the predecessor, and does nothing in this process");
            }
        }
    }

    fn poll_clients(&mut self, clients: impl IntoIterator<Item = Token>, reactor: &Reactor, inputs: &mut Vec<Input>) {
        let now = reactor.now();
        for token in clients {
            match self.server.as_mut().and_then(|server| server.client(token, now)) {
                Some(Asked::Restart(client)) => inputs.push(self.request(Asker::Client(client))),
                Some(Asked::Status(client)) => self.status_askers.push(client),
                None => {}
            }
        }
    }

    /// Issues a ticket, and puts the question.
    pub(super) fn request(&mut self, asker: Asker) -> Input {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.askers.push((ticket, asker));
        Input::Request(ticket)
    }

    /// Whether a client wants to know where the service stands.
    pub(super) fn wants_status(&self) -> bool {
        !self.status_askers.is_empty()
    }

    pub(super) fn answer_status(&mut self, status: &Status, reactor: &Reactor) {
        for client in mem::take(&mut self.status_askers) {
            self.answer(client, Response::Status(Box::new(status.clone())), reactor);
        }
    }

    /// Answers the one who has that ticket, if a client; says who it was.
    pub(super) fn reply(&mut self, ticket: Ticket, response: impl FnOnce() -> Response, reactor: &Reactor) -> Option<Asker> {
        let index = self.askers.iter().position(|(asked, _)| *asked == ticket)?;
        let (_, asker) = self.askers.swap_remove(index);
        if let Asker::Client(client) = asker {
            self.answer(client, response(), reactor);
        }
        Some(asker)
    }

    /// Answers a client; what it wants next is looked at in the next turn.
    fn answer(&mut self, client: ClientId, response: Response, reactor: &Reactor) {
        if let Some(server) = &mut self.server
            && let Some(token) = server.answer(client, response, reactor.now())
        {
            self.again.push(token);
            reactor.wake();
        }
    }

    /// Tells the clients that wait how far the restart is.
    pub(super) fn progress(&mut self, text: &str) {
        if let Some(server) = &mut self.server {
            server.progress(text);
        }
    }

    /// Takes clients in, unless the predecessor does: at a path that it does not have, this process alone can answer; a first
    /// generation does so from the start.
    pub(super) fn open(&mut self, reactor: &Reactor) {
        if let Some(server) = self.server.as_mut().filter(|server| !server.is_shared()) {
            server.open(reactor.registry(), COORDINATION, reactor.now());
        }
    }

    /// The predecessor takes nobody in any more.
    pub(super) fn answer_alone(&mut self) {
        if let Some(server) = &mut self.server {
            server.answers_alone();
        }
    }

    /// The listener is the successor's.
    pub(super) fn hand_over(&mut self, reactor: &Reactor) {
        if let Some(server) = &mut self.server {
            server.hand_over(reactor.registry());
        }
    }

    /// Nobody is to find the coordination socket any more.
    pub(super) fn remove_path(&mut self) {
        if let Some(server) = &mut self.server {
            server.remove_path();
        }
    }

    /// The listener for the successor: its path, what that names in which root directory, and itself.
    pub(super) fn listener(&self) -> Option<(&Path, [Option<FileId>; 2], BorrowedFd<'_>)> {
        let server = self.server.as_ref()?;
        Some((server.path(), server.identities(), server.listener()?))
    }

    /// The signal that asks for a restart.
    pub(super) fn signal(&self) -> Option<Signal> {
        self.signal
    }

    /// The signal was blocked for the restart thread's sake; its handler stays and does nothing.
    pub(super) fn unblock_signal(&self) {
        if let Err(error) = self.signal.into_iter().collect::<SigSet>().thread_unblock() {
            log::warn!(target: "pollflip", "cannot unblock the restart signal: {error}");
        }
    }

    /// The drop of the handler takes it away, and waits for a thread that was in one when this process was forked.
    pub(super) fn forget_handler(&mut self) {
        mem::forget(self.signals.take());
    }
}

impl Part for Requests {
    /// Takes in who asks. One request of each client in a turn, so that none of them keeps the others waiting.
    /// Before the clock: what they have said came in time, although this process may have been stopped since.
    fn poll(&mut self, moment: &Moment, reactor: &Reactor, inputs: &mut Vec<Input>) {
        if moment.ready.has(SIGNALS) {
            self.poll_signals(inputs);
        }
        let again = mem::take(&mut self.again);
        self.poll_clients(again.into_iter().chain(moment.ready.clients().iter().copied()), reactor, inputs);
    }

    fn next_deadline(&self, _: Duration) -> Option<Due> {
        Some((self.server.as_ref()?.next_timeout()?, Deadline::Client))
    }
}
