//! One restarter with everybody around it, from its birth to its end.

use std::collections::{BTreeSet, VecDeque};
use std::io::Write;
use std::time::Duration;

use nix::libc;
use pollflip::internals::machine::State;
use pollflip::internals::simulation::{self, Struck};
use pollflip::{Blob, Error, Exit, Handover, Precopy, Refusal, Restarter};

use crate::model::Checked;

use super::act::{OURS, Setting, THEIRS};
use super::client::Client;
use super::judge::Judge;
use super::manager::Manager;
use super::predecessor::Predecessor;
use super::successor::Successor;
use super::surroundings::{Surroundings, open_descriptors, strike, wants_to_be_polled};
use super::{Act, Kind};

/// How much of a life is lived: a longer one has nothing new.
const LONGEST: usize = 200;
/// Why nothing can be started.
const ERRORS: [i32; 8] = [libc::EPERM, libc::ENOENT, libc::EAGAIN, libc::ENOMEM, libc::EACCES, libc::E2BIG, libc::ENOEXEC, libc::ETXTBSY];
/// How long a program that is being written is waited for.
pub(super) const BUSY: Duration = Duration::from_secs(2);
/// Which of the errors of a lifeline that is read does not pass.
const DEAF: u8 = 2;
/// So many signals fill what the kernel keeps of them.
const STORM: u32 = 500;

pub(super) struct World {
    pub(super) setting: Setting,
    pub(super) around: Surroundings,
    pub(super) restarter: Restarter,
    pub(super) judge: Judge,
    pub(super) successors: Vec<Successor>,
    pub(super) clients: VecDeque<Client>,
    pub(super) precopy: Option<Precopy>,
    /// Something that was to go ahead has not.
    pub(super) incomplete_ahead: bool,
    /// The state has been asked for.
    pub(super) frozen: bool,
    pub(super) handover: Option<Handover>,
    /// Something that was to be given has not been.
    pub(super) incomplete: bool,
    /// When the last restart began.
    pub(super) began: Duration,
    pub(super) completed: bool,
    /// The program has not polled to the end.
    pub(super) at_it: bool,
    /// When the commitment was carried out.
    pub(super) committed: Option<Duration>,
    pub(super) faulty: bool,
    /// Its lifeline may be, or have been, one that cannot be read at any time.
    pub(super) may_be_deaf: bool,
    /// The last successor that was to be started has not been given up before it was.
    pub(super) wants_one: bool,
    /// Clients are taken in.
    pub(super) serves: bool,
    /// The state has been asked for and not come yet.
    pub(super) pulled: bool,
    /// How many requests there have been, and how many there may have been.
    pub(super) asks: u32,
    pub(super) may_ask: u32,
    /// A signal has come that the loop has not dealt with: how many requests there had been before.
    pub(super) signalled: Option<u32>,
    pub(super) happened: BTreeSet<Happening>,
}

/// What was seen of a life.
pub struct Life {
    pub checked: Checked,
    /// The calls that have failed in it.
    pub struck: Vec<Struck>,
    /// What else has happened.
    pub happened: BTreeSet<Happening>,
}

/// What can happen besides what the machine does and what fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// The restart signal is taken for a request; more of them than the kernel keeps are.
    Signal,
    Storm,
    /// The signal of the predecessor does nothing.
    SignalOfThePredecessor,
    /// The service manager has answered before the end of a restart is told; or has not within its time; or was gone.
    Answered,
    Unanswered,
    ManagerGone,
    /// The program was being written until nobody waited for it any more.
    BeingWritten,
}

/// The body of the fuzz target: any bytes are a life.
pub fn life(data: &[u8]) -> Life {
    let before = open_descriptors();
    let (first, rest) = data.split_first_chunk().unwrap_or((&[0; 3], &[]));
    let mut world = World::new(Setting::of_bytes(*first));
    for pair in rest.chunks_exact(2).take(LONGEST) {
        world.act(Act::of_bytes([pair[0], pair[1]]));
    }
    let life = world.end();
    assert_eq!(open_descriptors(), before, "a descriptor was left behind\n{}", life.checked);
    life
}

impl World {
    fn new(setting: Setting) -> World {
        let (around, restarter) = Surroundings::with_restarter(setting);
        World {
            setting,
            restarter,
            judge: Judge::new(setting),
            successors: Vec::new(),
            clients: VecDeque::new(),
            precopy: None,
            incomplete_ahead: false,
            frozen: false,
            handover: None,
            incomplete: false,
            began: Duration::ZERO,
            completed: false,
            at_it: false,
            committed: None,
            faulty: !around.simulation.struck().is_empty(),
            may_be_deaf: false,
            wants_one: false,
            serves: false,
            pulled: false,
            asks: 0,
            may_ask: 0,
            signalled: None,
            happened: BTreeSet::new(),
            around,
        }
    }

    fn act(&mut self, Act { kind, what }: Act) {
        match kind {
            Kind::Poll => match what & 3 {
                most @ 1.. => (0..most).for_each(|_| _ = self.poll()),
                0 => self.poll_empty(),
            },
            // It would wait for ever: for a word that has not been said, or could not be heard.
            Kind::Ready if self.around.predecessor.as_ref().is_some_and(|predecessor| !predecessor.has_decided(self.may_be_deaf)) => {}
            Kind::Ready => {
                // It may wait for room.
                self.around.manager.iter_mut().for_each(Manager::reads_on);
                self.around.predecessor.iter_mut().for_each(Predecessor::answers);
                let result = self.restarter.ready();
                let is_given_up = matches!(result, Err(Error::GivenUp { .. })) && !self.hears_predecessor();
                assert!(result.is_ok() || self.pulled || is_given_up, "{result:?}");
            }
            Kind::Request => {
                let before = self.restarter.status().state;
                let result = self.request();
                assert_eq!(result.is_ok(), before == pollflip::ServiceState::Serving, "{result:?} in {before:?}");
            }
            Kind::Cancel => {
                let early = self.restarter.cancel("not now");
                assert!(!early || matches!(self.state(), State::Idle | State::Closed(_) | State::Killing { .. }));
            }
            Kind::Stop => self.restarter.stop(),
            Kind::Wait => {
                let event = self.restarter.wait(Duration::ZERO);
                self.hear(event);
            }
            Kind::Thread => {
                let errno = what.checked_sub(1).map(|which| ERRORS[usize::from(which) % ERRORS.len()]);
                let (before, born) = (self.now(), self.successors.len());
                self.around.simulation.obstruct(errno);
                simulation::run_thread(&mut self.restarter);
                self.around.simulation.obstruct(None);
                if self.now() - before >= BUSY {
                    self.happened.insert(Happening::BeingWritten);
                }
                self.look_for_children();
                assert!(self.wants_one || self.successors.len() == born, "nobody wants it\n{}", self.judge.checked);
            }
            Kind::ThreadLost => simulation::lose_thread(&mut self.restarter),
            Kind::Says => self.successor(|successor| successor.say(what)),
            Kind::Closes => self.successor(|successor| successor.close()),
            Kind::Exits => {
                let exit = if what & 1 == 0 { Exit::Code(i32::from(what >> 1)) } else { Exit::Signal(i32::from(what >> 1 & 31) + 1) };
                if let Some(last) = self.successors.last_mut() {
                    last.close();
                    self.around.simulation.exit(last.pid, exit);
                }
            }
            Kind::Undying => {
                if let Some(last) = self.successors.last() {
                    self.around.simulation.undying(last.pid, what & 1 == 0);
                }
            }
            Kind::Gives => self.give(what),
            Kind::Copies => self.copy(what),
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
                self.may_be_deaf |= what & 3 == DEAF;
                self.around.simulation.fail_after(u32::from(what >> 2), usize::from(what & 3));
            }
            Kind::Connects => {
                let client =
                    self.around.path.as_ref().filter(|_| self.clients.len() < 4).and_then(|path| Client::connect(path, self.now()));
                self.clients.extend(client);
            }
            Kind::Asks => {
                let restart = self.client(what >> 2, |client| client.ask(what));
                self.may_ask += u32::from(restart == Some(true));
            }
            Kind::Babbles => _ = self.client(what >> 2, |client| client.babble(what)),
            Kind::HangsUp => drop(self.clients.pop_front()),
            Kind::Predecessor => self.around.predecessor.iter_mut().for_each(|predecessor| predecessor.does(what)),
            Kind::Pulls => {
                self.pulled |= self.around.predecessor.is_some();
                if let Some(predecessor) = self.restarter.predecessor() {
                    if what & 1 == 0 { predecessor.pull() } else { predecessor.pull_precopy() }
                }
            }
            Kind::Signal if !self.setting.has(Setting::SIGNAL) => {}
            Kind::Signal if what & 8 != 0 => {
                strike(THEIRS, 1);
                if self.around.predecessor.is_some() {
                    self.happened.insert(Happening::SignalOfThePredecessor);
                }
            }
            Kind::Signal => self.signal([1, 2, 3, 8, 64, STORM, 1, 1][usize::from(what & 7)]),
            Kind::Manager => self.around.manager.iter_mut().for_each(|manager| manager.does(what)),
        }
        self.judge();
    }

    /// One event, if there is one. The program polls until there is none, and again when the descriptor is readable: as it is told to.
    fn poll(&mut self) -> bool {
        if !self.at_it && !wants_to_be_polled(&self.restarter) {
            return false;
        }
        let event = self.restarter.poll();
        self.hear(event)
    }

    pub(super) fn poll_empty(&mut self) {
        for _ in 0..100 {
            if !self.poll() {
                return;
            }
        }
        panic!("there is no end to the events\n{}", self.judge.checked);
    }

    pub(super) fn successor(&mut self, what: impl FnOnce(&mut Successor)) {
        self.successors.last_mut().map(what);
    }

    fn client<T>(&mut self, which: u8, what: impl FnOnce(&mut Client) -> T) -> Option<T> {
        let count = self.clients.len().max(1);
        self.clients.get_mut(usize::from(which) % count).map(what)
    }

    fn copy(&mut self, what: u8) {
        let Some(precopy) = &mut self.precopy else { return };
        let result = match what & 7 {
            0 => precopy.bytes(&format!("ahead/{what}"), &[what; 100]),
            1 => precopy.fd(&format!("ahead/{what}"), std::io::stdin()),
            2 => {
                // One that may have been given.
                precopy.gone(&format!("ahead/{}", what - 1));
                Ok(())
            }
            3 => {
                precopy.complete();
                Ok(())
            }
            4 => {
                self.precopy = None;
                return;
            }
            5 => (0..300).try_for_each(|number| precopy.fd(&format!("ahead/{what}/{number}"), std::io::stdin())),
            6 => precopy.fds((0..precopy.room()).map(|number| (format!("ahead/{what}/{number}"), std::io::stdin()))),
            _ => {
                (0..300).for_each(|number| precopy.gone(&format!("ahead/{}/{number}", what - 1)));
                Ok(())
            }
        };
        // What goes wrong fails the attempt, unless nothing can be given any more.
        self.incomplete_ahead |= !self.frozen && result.is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe);
    }

    fn give(&mut self, what: u8) {
        let Some(handover) = &mut self.handover else { return };
        // What goes wrong is kept, and told when the handover is sent.
        let result = match what & 3 {
            0 => handover.bytes(&format!("bytes/{what}"), &[what; 100]),
            1 => handover.fd(&format!("fd/{what}"), std::io::stdin()),
            2 => match Blob::new() {
                Ok(mut blob) => blob.write_all(&[what; 1000]).and_then(|()| handover.blob("blob", blob)),
                // The handover does not know of it.
                Err(_) => Ok(()),
            },
            _ => (0..300).try_for_each(|number| handover.fd(&format!("many/{what}/{number}"), std::io::stdin())),
        };
        self.incomplete |= result.is_err();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        simulation::pass(&self.around.simulation, &mut self.restarter, time);
    }

    /// The program asks for a restart.
    pub(super) fn request(&mut self) -> Result<(), Refusal> {
        self.may_ask += 1;
        self.restarter.request()
    }

    /// So many restart signals come.
    pub(super) fn signal(&mut self, times: u32) {
        self.signalled.get_or_insert(self.asks);
        self.may_ask += times;
        strike(OURS, times);
        if times == STORM {
            self.happened.insert(Happening::Storm);
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.around.simulation.passed()
    }

    pub(super) fn state(&self) -> State {
        simulation::state(&self.restarter)
    }
}
