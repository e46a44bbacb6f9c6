//! One restarter with everybody around it, from its birth to its end.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use pollflip::internals::machine::{Closed, Input, Phase, State};
use pollflip::internals::simulation::{self, Simulation};
use pollflip::{Blob, Event, Exit, Handover, Restarter};

use crate::model::{Checked, PROBATION, READY, Room};

use super::act::Setting;
use super::client::Client;
use super::judge::Judge;
use super::predecessor::Predecessor;
use super::successor::{self, Successor};
use super::{Act, Kind};

/// How much of a life is lived: a longer one has nothing new.
const LONGEST: usize = 200;
/// EPERM, ENOENT, EAGAIN, ENOMEM, EACCES, E2BIG, ENOEXEC.
const ERRORS: [i32; 7] = [1, 2, 11, 12, 13, 7, 8];

struct World {
    setting: Setting,
    simulation: Simulation,
    restarter: Restarter,
    judge: Judge,
    successors: Vec<Successor>,
    predecessor: Option<Predecessor>,
    clients: VecDeque<Client>,
    handover: Option<Handover>,
    path: Option<PathBuf>,
    now: Duration,
    completed: bool,
    faulty: bool,
    /// Clients are taken in.
    serves: bool,
    /// The state has been asked for and not come yet.
    pulled: bool,
}

/// The body of the fuzz target: any bytes are a life. Hands back what the machine in it has seen.
pub fn life(data: &[u8]) -> Checked {
    let before = lowest_free_descriptor();
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let mut world = World::new(Setting(*first));
    for pair in rest.chunks_exact(2).take(LONGEST) {
        world.act(Act::of_bytes([pair[0], pair[1]]));
    }
    let checked = world.end();
    assert_eq!(lowest_free_descriptor(), before, "a descriptor was left behind\n{checked}");
    checked
}

fn lowest_free_descriptor() -> i32 {
    File::open("/dev/null").expect("it is everywhere").as_raw_fd()
}

impl World {
    fn new(setting: Setting) -> World {
        let (predecessor, lifeline) = setting.has_predecessor().then(|| Predecessor::new(setting.0 & 3 != 0)).unzip();
        let path = setting.has_socket().then(|| std::env::temp_dir().join(format!("pollflip-simulation-{}.sock", std::process::id())));
        let simulation = Simulation::new(lifeline);
        let config = match &path {
            Some(path) => setting.config().coordination_socket(path),
            None => setting.config(),
        };
        let restarter = simulation::build(&simulation, &config).expect("nothing is in the way");
        World {
            setting,
            simulation,
            restarter,
            judge: Judge::new(setting),
            successors: Vec::new(),
            predecessor,
            clients: VecDeque::new(),
            handover: None,
            path,
            now: Duration::ZERO,
            completed: false,
            faulty: false,
            serves: false,
            pulled: false,
        }
    }

    fn act(&mut self, Act { kind, what }: Act) {
        match kind {
            Kind::Poll => match what & 3 {
                most @ 1.. => (0..most).for_each(|_| _ = self.poll()),
                0 => self.poll_empty(),
            },
            // It would wait for ever: for a word that has not been said, or could not be heard.
            Kind::Ready if self.predecessor.as_ref().is_some_and(|predecessor| !predecessor.has_decided(self.faulty)) => {}
            Kind::Ready => {
                let result = self.restarter.ready();
                assert!(result.is_ok() || self.pulled, "{result:?}");
            }
            Kind::Request => {
                let before = self.restarter.status().state;
                let result = self.restarter.request();
                assert_eq!(result.is_ok(), before == "idle", "{result:?} in {before:?}");
            }
            Kind::Cancel => {
                let early = self.restarter.cancel();
                assert!(!early || matches!(self.state(), State::Idle | State::Closed(_) | State::Killing { .. }));
            }
            Kind::Stop => self.restarter.stop(),
            Kind::Wait => {
                let event = self.restarter.wait(Duration::ZERO);
                self.hear(event);
            }
            Kind::Thread => {
                let errno = what.checked_sub(1).map(|which| ERRORS[usize::from(which) % ERRORS.len()]);
                self.simulation.obstruct(errno);
                simulation::run_thread(&mut self.restarter);
                self.simulation.obstruct(None);
                self.look_for_children();
            }
            Kind::ThreadLost => simulation::lose_thread(&mut self.restarter),
            Kind::Says => self.successor(|successor| successor.say(what)),
            Kind::Closes => self.successor(|successor| successor.close()),
            Kind::Exits => {
                let exit = if what & 1 == 0 { Exit::Code(i32::from(what >> 1)) } else { Exit::Signal(i32::from(what >> 1 & 31) + 1) };
                if let Some(last) = self.successors.last_mut() {
                    last.close();
                    self.simulation.exit(last.pid, exit);
                }
            }
            Kind::Undying => {
                if let Some(last) = self.successors.last() {
                    self.simulation.undying(last.pid, what & 1 == 0);
                }
            }
            Kind::Gives => self.give(what),
            Kind::Sends => self.handover.take().into_iter().for_each(Handover::send),
            Kind::Fails => self.handover.take().into_iter().for_each(|handover| handover.fail("no")),
            Kind::Drops => self.handover = None,
            Kind::Pass => {
                let left = self.judge.checked.to_deadline().min(Duration::from_secs(3600));
                self.pass(match what & 7 {
                    0 => left,
                    1 => left.saturating_sub(Duration::from_nanos(1)),
                    2 => Duration::from_nanos(1),
                    3 => Duration::from_millis(10),
                    4 => Duration::from_millis(50),
                    5 => Duration::from_secs(1),
                    6 => Duration::from_secs(5),
                    _ => Duration::from_secs(60),
                });
            }
            Kind::Fault => {
                self.faulty = true;
                self.simulation.fail_after(u32::from(what >> 2), usize::from(what & 3));
            }
            Kind::Connects => {
                let client = self.path.as_ref().filter(|_| self.clients.len() < 4).and_then(|path| Client::connect(path, self.now));
                self.clients.extend(client);
            }
            Kind::Asks => self.client(what >> 2, |client| client.ask(what)),
            Kind::Babbles => self.client(what >> 2, |client| client.babble(what)),
            Kind::HangsUp => drop(self.clients.pop_front()),
            Kind::Predecessor => self.predecessor.iter_mut().for_each(|predecessor| predecessor.does(what)),
            Kind::Pulls => {
                self.pulled |= self.predecessor.is_some();
                self.restarter.predecessor().iter().for_each(|predecessor| predecessor.pull());
            }
        }
        self.judge();
    }

    /// One event, if there is one.
    fn poll(&mut self) -> bool {
        let event = self.restarter.poll();
        self.hear(event)
    }

    fn poll_empty(&mut self) {
        for _ in 0..100 {
            if !self.poll() {
                return;
            }
        }
        panic!("there is no end to the events\n{}", self.judge.checked);
    }

    fn hear(&mut self, event: Option<Event>) -> bool {
        self.judge();
        self.judge.hears(event.as_ref());
        let any = event.is_some();
        if self.completed {
            assert!(matches!(event, None | Some(Event::SuccessorGone(_) | Event::PredecessorGone | Event::Inherited(_))), "{event:?}");
        }
        match event {
            Some(Event::StateRequested(handover)) => self.handover = Some(handover),
            Some(Event::Completed(_)) => self.completed = true,
            Some(Event::Inherited(_)) => self.pulled = false,
            _ => {}
        }
        self.serves |= self.predecessor.is_none() || self.state() == State::Idle;
        for client in &mut self.clients {
            if !any && self.serves && !self.completed {
                client.has_been_seen(self.now);
            }
            client.listen(self.now);
        }
        any
    }

    fn judge(&mut self) {
        self.look_for_children();
        let steps = simulation::steps(&mut self.restarter);
        let state = simulation::state(&self.restarter);
        self.judge.sees(steps, state, &self.simulation.children(), &self.successors);
        self.successors.iter_mut().for_each(Successor::listen);
    }

    fn look_for_children(&mut self) {
        for child in self.simulation.children().iter().skip(self.successors.len()) {
            match self.simulation.lifeline(child.pid) {
                Some(line) => self.successors.push(Successor::new(child.pid, line)),
                None => self.successors.push(Successor::stillborn(child.pid)),
            }
        }
        for (successor, child) in self.successors.iter_mut().zip(self.simulation.children()) {
            if child.ended {
                successor.listen();
                successor.close();
            }
        }
    }

    fn successor(&mut self, what: impl FnOnce(&mut Successor)) {
        self.successors.last_mut().map(what);
    }

    fn client(&mut self, which: u8, what: impl FnOnce(&mut Client)) {
        let count = self.clients.len().max(1);
        self.clients.get_mut(usize::from(which) % count).map(what);
    }

    fn give(&mut self, what: u8) {
        let Some(handover) = &mut self.handover else { return };
        // What goes wrong is kept, and told when the handover is sent.
        let _ = match what & 3 {
            0 => handover.bytes(&format!("bytes/{what}"), &[what; 100]),
            1 => handover.fd(&format!("fd/{what}"), std::io::stdin()),
            2 => Blob::new().and_then(|mut blob| blob.write_all(&[what; 1000]).and_then(|()| handover.blob("blob", blob))),
            _ => (0..300).try_for_each(|number| handover.fd(&format!("many/{what}/{number}"), std::io::stdin())),
        };
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        simulation::pass(&self.simulation, &mut self.restarter, time);
    }

    fn state(&self) -> State {
        simulation::state(&self.restarter)
    }

    /// Nothing fails any more, everything that can end ends, and time passes.
    fn come_to_rest(&mut self) {
        self.simulation.faults();
        for successor in &self.successors {
            self.simulation.undying(successor.pid, false);
        }
        for _ in 0..8 {
            while simulation::run_thread(&mut self.restarter) {}
            self.poll_empty();
            self.pass(READY.max(PROBATION) * 2);
        }
        self.poll_empty();
        let deadlines = self.setting.limits();
        let endless = deadlines.ready == Duration::MAX || deadlines.probation == Some(Duration::MAX);
        if endless && !at_rest(self.state()) {
            self.restarter.stop();
            self.pass(READY);
            self.poll_empty();
        }
        assert!(at_rest(self.state()), "it is stuck\n{}", self.judge.checked);
        let waiting: Vec<_> = self.clients.iter().filter(|client| client.waits()).collect();
        assert!(waiting.is_empty(), "a reply was lost: {waiting:?}\n{}", self.judge.checked);
    }

    /// Whatever has happened before: the next restart works.
    fn restart_once_more(&mut self) {
        self.restarter.request().expect("it is idle");
        self.poll_empty();
        simulation::run_thread(&mut self.restarter);
        self.look_for_children();
        self.poll_empty();
        self.successor(|successor| {
            successor.say(successor::HERE);
            successor.say(successor::PULL);
        });
        self.poll_empty();
        self.handover.take().expect("it was asked for").send();
        self.poll_empty();
        self.successor(|successor| successor.say(successor::READY));
        self.poll_empty();
        self.restarter.stop();
        self.poll_empty();
        let last = self.successors.last().expect("it was started");
        assert!(self.completed && last.committed && last.served, "the next restart fails\n{}", self.judge.checked);
    }

    fn end(mut self) -> Checked {
        let give_up = self.setting.0 & 32 != 0;
        if !give_up {
            self.come_to_rest();
            if self.state() == State::Idle {
                self.restart_once_more();
            }
        }
        self.simulation.faults();
        let committed = matches!(self.state(), State::Handoff { .. });
        drop(self.restarter);
        if let Some(path) = self.path {
            // What a successor has taken over is its to remove, and the lock stays for whoever comes next.
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(path.with_extension("sock.lock"));
        }
        for successor in &mut self.successors {
            successor.listen();
        }
        for (child, successor) in self.simulation.children().iter().zip(&self.successors) {
            let kept = successor.committed || child.ended && child.reaped || child.killed && !child.ended;
            let last = successor.pid == self.successors.last().map_or(0, |last| last.pid);
            assert!(
                kept || committed && last,
                "a child is left to itself: {child:?}, which said {:?}\n{}",
                successor.said,
                self.judge.checked
            );
        }
        self.clients.iter_mut().for_each(|client| client.listen(self.now));
        self.judge.checked
    }
}

fn at_rest(state: State) -> bool {
    matches!(state, State::Idle | State::Closed(_) | State::Handoff { phase: Phase::Committed, .. })
}
