//! One turn of the loop: what is ready becomes input.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use mio::Token;
use nix::libc;

use crate::error::{ChildSpawnError, Refusal};
use crate::machine::{Input, Phase, State, Ticket};
use crate::restart_coordination_socket::{Asked, Server};
use crate::sys;
use crate::systemd;
use crate::wire::Response;

use super::attempt::{Current, Said};
use super::{
    Asker, BARRIER, CAPACITY, COORDINATION, DRAINING, LIFELINE, PREDECESSOR, Restarter, SIGNALS, SUCCESSOR, TIMER, WAKER, unwatch, watch,
};

/// How often lines of progress are passed on: a successor that has much to say must not hold this loop up.
const PROGRESS: Duration = Duration::from_millis(50);

/// How often a lifeline is looked at for more when a deadline has passed: it holds some 300 messages, all of which have come in time.
const LOOKS: usize = 8;

/// How often a child that waits to be reaped is looked at where it cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(1);
/// How soon a timer that cannot be set is tried again.
const TIMER_RETRY: Duration = Duration::from_millis(100);

/// What a turn of the loop has found.
#[derive(Debug, Default)]
struct News {
    any: bool,
    signals: bool,
    accept: bool,
    drained: bool,
    clients: Vec<Token>,
}

/// The loop.
impl Restarter {
    pub(super) fn now(&self) -> Duration {
        sys::now() - self.epoch
    }

    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::warn!("cannot wake the loop: {error}");
        }
    }

    pub(super) fn feed(&mut self, input: Input) {
        let now = self.now();
        log::trace!("{input:?} in {:?}", self.machine.state());
        self.take_in(now, input);
    }

    /// Takes in what the inner poll has, and deals with it in a fixed order: what the restart thread, signals and clients bring, then the
    /// successor (its lifeline, its end), then the predecessor, then the clock. `false`: there was nothing.
    pub(super) fn turn(&mut self) -> bool {
        // The time by which deadlines are judged is that before anything is read: this process may be stopped at any point, and what has been
        // said meanwhile came in time.
        let now = self.now();
        let news = self.collect();
        if !news.any {
            return false;
        }
        self.look_at_thread();
        let is_due = self.machine.poll_timeout().is_some_and(|deadline| now >= deadline);
        for _ in 0..LOOKS {
            if !self.look_at_successor() || !is_due {
                break;
            }
        }
        self.look_at_predecessor();
        if news.drained {
            self.forget_the_ended();
        }
        if news.signals {
            self.look_at_signals();
        }
        self.look_at_clients(&news, now);
        if self.next_deadline().is_some_and(|deadline| now >= deadline) {
            self.look_at_probation();
            self.take_in(now, Input::Timeout);
        }
        self.exec.kill_again();
        self.ask_systemd_for_time();
        self.manager.flush();
        self.rearm();
        true
    }

    /// Drains the inner poll: an outer edge-triggered one does not fire again for what is left in it.
    fn collect(&mut self) -> News {
        let mut news = News::default();
        loop {
            let polled = sys::may_fail(&[libc::EINTR]).and_then(|()| self.poll.poll(&mut self.events, Some(Duration::ZERO)));
            match polled {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("cannot poll: {error}");
                    return news;
                }
            }
            let mut count = 0;
            for event in &self.events {
                count += 1;
                news.any = true;
                match event.token() {
                    TIMER => self.timer.fired(),
                    SIGNALS => news.signals = true,
                    COORDINATION => news.accept = true,
                    DRAINING => news.drained = true,
                    WAKER | LIFELINE | SUCCESSOR | PREDECESSOR | BARRIER => {}
                    client => news.clients.push(client),
                }
            }
            if count < CAPACITY {
                return news;
            }
        }
    }

    fn look_at_thread(&mut self) {
        while let Some((attempt, result)) = self.exec.take() {
            let wanted = matches!(self.machine.state(), State::Spawning { attempt: wanted, .. } if wanted == attempt);
            let Some(current) = self.current.as_mut().filter(|current| wanted && current.attempt == attempt) else {
                // It has just been given up.
                if let Ok(process) = result {
                    self.exec.discard(process);
                }
                continue;
            };
            let input = match result {
                Ok(process) => {
                    let watched = watch(self.poll.registry(), process.as_fd(), SUCCESSOR)
                        .and_then(|()| watch(self.poll.registry(), current.lifeline.as_fd(), LIFELINE));
                    match watched {
                        Ok(()) => {
                            let pid = process.pid();
                            current.process = Some(Arc::new(process));
                            Input::Spawned(attempt, pid)
                        }
                        Err(error) => {
                            unwatch(self.poll.registry(), process.as_fd());
                            self.exec.discard(process);
                            let note = "it was started but cannot be watched, and has been killed".into();
                            current.words.spawn = Some(ChildSpawnError::new(&self.program, &error.into(), Some(note)));
                            Input::SpawnFailed(attempt)
                        }
                    }
                }
                Err(error) => {
                    current.words.spawn = Some(error);
                    Input::SpawnFailed(attempt)
                }
            };
            self.feed(input);
        }
        for process in self.exec.take_held() {
            if let Err(error) = watch(self.poll.registry(), process.as_fd(), SUCCESSOR) {
                log::warn!("process {} has been given up and waits to be reaped: {error}", process.pid());
                self.held_unwatched = true;
            }
            self.held.push(process);
        }
        if self.exec.is_lost() {
            self.lose_thread();
        }
    }

    /// Nothing can be started any more, nor what was about to be.
    pub(super) fn lose_thread(&mut self) {
        let error = ChildSpawnError::new(&self.program, &io::Error::other(Refusal::Broken.to_string()), None);
        match (&mut self.current, self.machine.state()) {
            (Some(current), State::Spawning { attempt, .. }) if current.attempt == attempt => current.words.spawn = Some(error),
            _ => self.not_started = Some(error),
        }
        self.feed(Input::ThreadLost);
    }

    /// Takes in what the successor has said and done. Says whether there may be more.
    pub(super) fn look_at_successor(&mut self) -> bool {
        let now = self.now();
        let Some(current) = &mut self.current else { return false };
        let (said, more) = current.read(now);
        for said in said {
            match said {
                Said::Input(input) => {
                    self.tell_progress();
                    self.feed(input);
                }
                Said::Progress(text) => {
                    if let Some(current) = &mut self.current {
                        current.words.heard = Some(text);
                    }
                }
            }
        }
        if self.current.as_ref().is_some_and(|current| now >= current.next_line) {
            self.tell_progress();
        }
        if more {
            self.wake();
        }
        more
    }

    /// A probation is about to end: not well, if the successor has failed and that would only be seen later. What it writes of its core is
    /// cut off: nobody serves meanwhile.
    pub(super) fn look_at_probation(&mut self) {
        if let State::Handoff { attempt, phase: Phase::Probation { .. }, .. } = self.machine.state()
            && self.current.as_mut().is_some_and(Current::has_failed_in_silence)
        {
            self.feed(Input::LifelineClosed(attempt));
        }
    }

    /// Tells all who want to know how far the successor is: the last line of those that came at once.
    fn tell_progress(&mut self) {
        let now = self.now();
        let Some(current) = &mut self.current else { return };
        let Some(text) = current.words.heard.take() else { return };
        if let State::AwaitingReady { attempt, .. } = self.machine.state() {
            current.next_line = now + PROGRESS;
            if let Some(server) = &mut self.server {
                server.progress(&text);
            }
            self.manager.progress(&text);
            current.words.untold = Some(text.clone());
            current.words.progress = Some(text);
            self.feed(Input::Progress(attempt));
        }
    }

    fn look_at_signals(&mut self) {
        let pending: Vec<i32> = self.signals.iter_mut().flat_map(|signals| signals.pending().collect::<Vec<_>>()).collect();
        for number in pending {
            if self.signal.is_some_and(|signal| signal as i32 == number) {
                self.ask(Asker::Signal);
            } else {
                log::warn!("signal {number} restarted the predecessor, and does nothing in this process");
            }
        }
    }

    fn look_at_clients(&mut self, news: &News, now: Duration) {
        // One request of each client in a turn, so that none of them keeps the others waiting. Before the clock: what they have said came in
        // time, although this process may have been stopped since.
        let again = mem::take(&mut self.again);
        self.serve_clients(again.into_iter().chain(news.clients.iter().copied()));
        let Some(server) = &mut self.server else { return };
        // Those who have left have made room.
        if server.expire(now) || news.accept {
            let newcomers = server.accept(self.poll.registry(), now);
            self.serve_clients(newcomers);
        }
    }

    fn serve_clients(&mut self, clients: impl IntoIterator<Item = Token>) {
        let now = self.now();
        for token in clients {
            match self.server.as_mut().and_then(|server| server.client(token, now)) {
                Some(Asked::Restart(key)) => {
                    let ticket = self.ask(Asker::Client);
                    if let Some(server) = &mut self.server {
                        server.wait_for(key, ticket);
                    }
                }
                Some(Asked::Status(key)) => {
                    let status = self.status();
                    self.answer(key, Response::Status(status));
                }
                None => {}
            }
        }
    }

    /// Answers a client; what it wants next is looked at in the next turn.
    pub(super) fn answer(&mut self, key: usize, response: Response) {
        let now = self.now();
        if let Some(server) = &mut self.server
            && let Some(token) = server.answer(key, response, now)
        {
            self.again.push(token);
            self.wake();
        }
    }

    /// As long as the loop turns, the end of this process may take longer.
    fn ask_systemd_for_time(&mut self) {
        let now = self.now();
        if self.stopping.is_some_and(|at| now >= at) {
            self.manager.still_stopping();
            self.stopping = Some(now + systemd::EXTENSION);
        }
    }

    /// Issues a ticket and puts the question to the machine.
    pub(super) fn ask(&mut self, asker: Asker) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.askers.push((ticket, asker));
        self.look_for_obstacles();
        self.feed(Input::Request(ticket));
        ticket
    }

    /// When the next deadline of the machine passes. `None` as long as something may have come in time that
    /// cannot be read yet: it is read first.
    fn next_deadline(&self) -> Option<Duration> {
        let listens = matches!(self.machine.state(), State::AwaitingReady { .. } | State::Handoff { .. });
        let waits = listens && self.current.as_ref().is_some_and(Current::has_unread);
        self.machine.poll_timeout().filter(|_| !waits)
    }

    pub(super) fn rearm(&mut self) {
        let now = self.now();
        let deadlines = [
            self.next_deadline(),
            self.current.as_ref().and_then(|current| current.next_timeout(now)),
            self.server.as_ref().and_then(Server::next_timeout),
            self.link
                .as_ref()
                .filter(|_| !self.heard.gave_up && !self.heard.lost)
                .and_then(|link| link.next_timeout())
                .map(|left| now + left),
            self.barrier.as_ref().map(|(_, limit)| *limit),
            self.stopping,
            self.link.as_ref().and_then(|link| link.line().retry_in()).map(|left| now + left),
            self.manager.next_timeout().map(|left| now + left),
            self.exec.next_timeout().map(|left| now + left),
            self.held_unwatched.then(|| now + UNWATCHED),
        ];
        let next = deadlines.into_iter().flatten().min();
        if !self.timer.arm(next, now) {
            self.exec.wake_loop_in(next.map_or(TIMER_RETRY, |at| at.saturating_sub(now).min(TIMER_RETRY)));
        }
    }
}
