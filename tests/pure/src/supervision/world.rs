//! Processes with parents, of which some are the service, and a clock: what the driver feeds the
//! machine with, and what comes of its deeds.

use std::time::Duration;

use nix::libc::{SIGKILL, SIGSEGV, SIGTERM};
use pollflip::Exit;
use pollflip::internals::machine::supervision::{Deed, Fact, Notification, PATIENCE, Policy, Rules, STRAYS_LIMIT, Stage};

use super::{Law, Machine, SECOND};

/// So many processes live at a time, at most.
const CROWD: usize = 3;

/// What can happen. What makes no sense where things stand does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    StartSucceeds,
    StartFails,
    /// The main process says that it is ready.
    Ready,
    /// A restart begins, and takes some time.
    Reload,
    /// It begins, and does not say how long it takes.
    ReloadAnyTime,
    /// The main process starts a successor.
    Spawn,
    /// The main process says which is the service from now on.
    Name,
    /// A successor does, which has seen that it is alone.
    NameItself,
    /// An earlier generation tries to make its eldest child, or itself, the service.
    EarlierNames,
    Stopping,
    /// The main process asks for more time.
    Extend,
    MainExits,
    MainCrashes,
    EarlierExits,
    EarlierCrashes,
    SuccessorExits,
    /// The guard is told to end.
    Told,
    /// It is, by a terminal that tells the service as well.
    ToldByTerminal,
    /// A signal that the service understands.
    Signalled,
    /// Time passes until the machine wants to know it.
    Deadline,
    /// So much time passes that no strike counts any more.
    Later,
    /// Somebody kills the main process.
    MainIsKilled,
    /// The main process says that the end of the one before is no strike.
    Absolve,
}

impl Step {
    pub const ALL: [Step; 23] = [
        Step::StartSucceeds,
        Step::StartFails,
        Step::Ready,
        Step::Reload,
        Step::ReloadAnyTime,
        Step::Spawn,
        Step::Name,
        Step::NameItself,
        Step::EarlierNames,
        Step::Stopping,
        Step::Extend,
        Step::MainExits,
        Step::MainCrashes,
        Step::EarlierExits,
        Step::EarlierCrashes,
        Step::SuccessorExits,
        Step::Told,
        Step::ToldByTerminal,
        Step::Signalled,
        Step::Deadline,
        Step::Later,
        Step::MainIsKilled,
        Step::Absolve,
    ];
}

/// A process that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: u32,
    /// 0: the guard.
    parent: u32,
    /// It is or was the service.
    generation: bool,
    /// It was told to end since the guard was.
    told: bool,
    /// When it was killed.
    killed: Option<Duration>,
}

#[derive(Clone)]
pub struct World<M> {
    machine: M,
    rules: Rules,
    now: Duration,
    processes: Vec<Process>,
    main: Option<u32>,
    /// The driver owes an answer.
    starting: bool,
    reloading: bool,
    told: bool,
    started: bool,
    /// When the service ended by itself, or could not be started.
    strikes: Vec<Duration>,
    /// The last end was a strike, and nobody has said yet that it is none.
    absolvable: bool,
    /// The service has stored something.
    stored: bool,
    /// How the last process ended that was the service; `None` as long as that one lives.
    last: Option<Exit>,
    /// When the successor in a restart that is under way may be given up, should its predecessor
    /// have ended.
    patience: Option<Duration>,
    pub broken: Option<Law>,
    pub story: Vec<Step>,
}

impl<M: Machine> World<M> {
    pub fn new(machine: M, rules: Rules) -> World<M> {
        let mut world = World {
            machine,
            rules,
            now: Duration::ZERO,
            processes: Vec::new(),
            main: None,
            starting: false,
            reloading: false,
            told: false,
            started: false,
            strikes: Vec::new(),
            absolvable: false,
            stored: false,
            last: None,
            patience: None,
            broken: None,
            story: Vec::new(),
        };
        world.carry_out();
        world
    }

    pub fn stage(&self) -> Stage {
        self.machine.stage()
    }

    /// All that what comes depends on, with times as seen from now.
    pub fn key(&self) -> String {
        let strikes = self.strikes().min(self.rules.strikes.count as usize);
        let inside = format!("{:?}", self.machine.inner());
        let inside = inside.split_once("stage:").map_or("", |(_, rest)| rest);
        let rest = relative(&format!("{inside} {:?}", self.patience), self.now, self.rules.strikes.within);
        let killed = |p: &Process| p.killed.map(|killed| self.now - killed >= STRAYS_LIMIT);
        let processes: Vec<_> = self.processes.iter().map(|p| (p.pid, p.parent, p.generation, p.told, killed(p))).collect();
        format!(
            "{rest} {processes:?} {:?} {strikes:?} {:?}",
            self.main,
            (self.starting, self.reloading, self.told, self.last, self.absolvable, self.stored)
        )
    }

    /// What happens next. `false`: that makes no sense here.
    pub fn take(&mut self, step: Step) -> bool {
        self.story.push(step);
        let says = |notification| move |from| Fact::Notified(from, notification);
        let nothing = Notification::default();
        match step {
            Step::StartSucceeds | Step::StartFails if !self.starting => return false,
            Step::StartSucceeds => {
                self.starting = false;
                let pid = self.spawn(0);
                self.becomes_main(pid);
                self.feed(Fact::Started(pid));
            }
            Step::StartFails => {
                self.starting = false;
                self.strikes.push(self.now);
                self.feed(Fact::StartFailed);
            }
            // The driver answers first.
            _ if self.starting => return false,
            Step::Ready | Step::Stopping | Step::Extend | Step::Reload | Step::ReloadAnyTime => {
                let Some(main) = self.living_main() else { return false };
                let notification = match step {
                    Step::Ready => Notification { ready: true, ..nothing },
                    Step::Stopping => Notification { stopping: true, ..nothing },
                    Step::Extend => Notification { extend: Some(4 * SECOND), ..nothing },
                    Step::Reload => Notification { reloading: true, extend: Some(2 * SECOND), ..nothing },
                    _ => Notification { reloading: true, ..nothing },
                };
                self.patience = match step {
                    Step::Reload => Some(self.now + 2 * SECOND),
                    Step::ReloadAnyTime => Some(self.now + PATIENCE),
                    Step::Extend => self.patience.map(|patience| patience.max(self.now + 4 * SECOND)),
                    _ => None,
                };
                self.reloading = self.patience.is_some();
                self.feed(says(notification)(main));
            }
            Step::Spawn => {
                let Some(main) = self.living_main().filter(|_| self.reloading) else { return false };
                if self.successor().is_some() || self.processes.len() >= CROWD {
                    return false;
                }
                self.spawn(main);
            }
            Step::Name | Step::NameItself => {
                let Some(pid) = self.successor().filter(|pid| self.process(*pid).killed.is_none()) else { return false };
                let parent = self.process(pid).parent;
                let from = if step == Step::Name { parent } else { pid };
                let has_heard = self.process(pid).told;
                if from == 0 || step == Step::Name && (Some(from) != self.living_main() || !self.reloading) {
                    return false;
                }
                self.becomes_main(pid);
                self.feed(says(Notification { main: Some(pid), has_heard, ready: true, ..nothing })(from));
            }
            Step::EarlierNames => {
                let Some(earlier) = self.earlier() else { return false };
                let child = self.processes.iter().find(|process| process.parent == earlier).map_or(earlier, |process| process.pid);
                self.feed(says(Notification { main: Some(child), ready: true, ..nothing })(earlier));
            }
            Step::MainExits | Step::MainCrashes => {
                let Some(main) = self.main else { return false };
                self.ends(main, if step == Step::MainExits { Exit::Code(0) } else { Exit::Signal(SIGSEGV) });
            }
            Step::MainIsKilled => {
                let Some(main) = self.main else { return false };
                self.ends(main, Exit::Signal(SIGKILL));
            }
            Step::Absolve => {
                let Some(main) = self.living_main().filter(|_| self.absolvable) else { return false };
                self.absolvable = false;
                self.strikes.pop();
                self.feed(says(Notification { absolved: true, ..nothing })(main));
            }
            Step::EarlierExits | Step::EarlierCrashes => {
                let Some(pid) = self.earlier() else { return false };
                self.ends(pid, if step == Step::EarlierExits { Exit::Code(0) } else { Exit::Signal(SIGSEGV) });
            }
            Step::SuccessorExits => {
                let Some(pid) = self.successor() else { return false };
                self.ends(pid, Exit::Code(1));
            }
            Step::Told | Step::ToldByTerminal => {
                let heard = step == Step::ToldByTerminal;
                self.told = true;
                for process in &mut self.processes {
                    process.told = heard;
                }
                self.feed(Fact::Told { signal: SIGTERM, heard });
            }
            Step::Signalled => self.feed(Fact::Signalled(nix::libc::SIGUSR1)),
            Step::Deadline => {
                let Some(deadline) = self.machine.poll_timeout() else { return false };
                self.now = self.now.max(deadline);
                self.feed(Fact::Timeout);
            }
            Step::Later => {
                self.now += self.rules.strikes.within;
                self.feed(Fact::Timeout);
            }
        }
        true
    }

    /// Everybody ends, nobody can be started, and time passes.
    pub fn everything_ends(&mut self) {
        for _ in 0..100 {
            if self.machine.stage() == Stage::Over {
                return;
            }
            let next = self.processes.first().map(|process| process.pid);
            match next {
                Some(pid) => self.ends(pid, Exit::Code(0)),
                None if self.starting => _ = self.take(Step::StartFails),
                None => _ = self.take(Step::Deadline),
            }
        }
        self.breaks(Law::AnEndIsReached);
    }

    fn breaks(&mut self, law: Law) {
        self.broken.get_or_insert(law);
    }

    fn process(&self, pid: u32) -> &Process {
        self.processes.iter().find(|process| process.pid == pid).expect("a process that lives")
    }

    fn living_main(&self) -> Option<u32> {
        self.main.filter(|main| self.process(*main).killed.is_none())
    }

    /// The oldest that was the service, and is not any more.
    fn earlier(&self) -> Option<u32> {
        self.processes.iter().find(|process| process.generation && Some(process.pid) != self.main).map(|process| process.pid)
    }

    /// The process that will become the service.
    fn successor(&self) -> Option<u32> {
        self.processes.iter().find(|process| !process.generation).map(|process| process.pid)
    }

    fn strays(&mut self) -> impl Iterator<Item = &mut Process> {
        self.processes.iter_mut().filter(|process| !process.generation && process.parent == 0)
    }

    /// Numbers come back, as those of processes do.
    fn spawn(&mut self, parent: u32) -> u32 {
        let pid = (1..).find(|pid| self.processes.iter().all(|process| process.pid != *pid)).expect("numbers without end");
        self.processes.push(Process { pid, parent, generation: false, told: false, killed: None });
        pid
    }

    fn becomes_main(&mut self, pid: u32) {
        self.main = Some(pid);
        self.reloading = false;
        self.last = None;
        self.patience = None;
        // Else a driver takes nothing in.
        self.stored = self.rules.policy != Policy::No && !self.told;
        for process in self.processes.iter_mut().filter(|process| process.pid == pid) {
            process.generation = true;
        }
    }

    fn ends(&mut self, pid: u32, exit: Exit) {
        let process = self.process(pid).clone();
        let exit = if process.killed.is_some() { Exit::Signal(SIGKILL) } else { exit };
        self.processes.retain(|other| other.pid != pid);
        for child in self.processes.iter_mut().filter(|child| child.parent == pid) {
            child.parent = 0;
        }
        if self.main == Some(pid) {
            self.main = None;
            // The guard kills no main process but one that hangs at its start.
            self.last = Some(if process.killed.is_some() { Exit::NotReady } else { exit });
            self.absolvable = process.killed.is_some() || exit != Exit::Signal(SIGKILL);
            if self.absolvable {
                self.strikes.push(self.now);
            }
            self.reloading = false;
        }
        if process.generation {
            self.feed(Fact::Ended(pid, exit));
        } else {
            self.carry_out();
        }
    }

    fn feed(&mut self, fact: Fact) {
        self.machine.handle(self.now, fact);
        self.carry_out();
    }

    /// What a driver does after each fact.
    fn carry_out(&mut self) {
        loop {
            while let Some(deed) = self.machine.poll_deed() {
                self.does(deed);
            }
            if self.starting || !self.machine.inner().awaits_strays() || self.strays().next().is_some() {
                break;
            }
            let before = self.machine.stage();
            self.machine.handle(self.now, Fact::Alone);
            if self.machine.stage() == before {
                return self.breaks(Law::AnEndIsReached);
            }
        }
        self.check();
    }

    fn does(&mut self, deed: Deed) {
        match deed {
            Deed::Start => self.starts(),
            Deed::Signal(pid, signal) => {
                let now = self.now;
                let Some(process) = self.processes.iter_mut().find(|process| process.pid == pid) else {
                    return self.breaks(Law::NoSignalToTheDead);
                };
                match signal {
                    SIGTERM if process.told => self.breaks(Law::NobodyIsToldTwice),
                    SIGTERM => process.told = true,
                    SIGKILL => _ = process.killed.get_or_insert(now),
                    _ => {}
                }
            }
            Deed::TellStrays(_) => self.strays().for_each(|stray| stray.told = true),
            Deed::SignalStrays(signal) => {
                let (now, patience) = (self.now, self.patience);
                let mut too_soon = false;
                if signal == SIGTERM {
                    self.strays().for_each(|stray| stray.told = true);
                }
                for stray in self.strays().filter(|_| signal == SIGKILL) {
                    too_soon |= patience.is_some_and(|patience| now < patience);
                    stray.killed.get_or_insert(now);
                }
                if too_soon {
                    self.breaks(Law::ASuccessorIsWaitedFor);
                }
            }
            Deed::EmptyStore => self.stored = false,
            Deed::Tell(_) => {}
        }
    }

    fn starts(&mut self) {
        let now = self.now;
        let beside = self.strays().any(|stray| stray.killed.is_none_or(|killed| now < killed + STRAYS_LIMIT));
        if self.starting || self.main.is_some() || beside {
            self.breaks(Law::OneStartAtATime);
        }
        if self.told {
            self.breaks(Law::ToldIsNeverForgotten);
        }
        let is_first = !std::mem::replace(&mut self.started, true);
        let wanted = match self.rules.policy {
            Policy::No => is_first,
            Policy::OnFailure => is_first || !matches!(self.last, None | Some(Exit::Code(0))),
            Policy::Always => true,
            _ => panic!("a policy that is not known here"),
        };
        if !wanted {
            self.breaks(Law::ThePolicyDecides);
        }
        self.starting = true;
        self.patience = None;
        if self.strikes() >= self.rules.strikes.count as usize {
            self.breaks(Law::StrikesEndALoop);
        }
        if !is_first && !self.stored {
            self.breaks(Law::WhatIsStoredIsThereAtTheNextStart);
        }
    }

    /// How many there are that count.
    fn strikes(&self) -> usize {
        self.strikes.iter().filter(|strike| self.now - **strike < self.rules.strikes.within).count()
    }

    fn check(&mut self) {
        let is_for_nobody = self.told || matches!(self.machine.stage(), Stage::Stopping | Stage::Over);
        if self.stored && is_for_nobody {
            self.breaks(Law::NothingIsStoredForNobody);
        }
        if self.machine.inner().main() != self.main {
            self.breaks(Law::TheMainProcessIsKnown);
        }
        if self.told {
            let untold = |process: &&Process| process.generation && !process.told;
            let untold: Vec<_> = self.processes.iter().filter(untold).map(|process| Some(process.pid)).collect();
            if untold.contains(&self.main) {
                self.breaks(Law::ToldIsNeverForgotten);
            } else if !untold.is_empty() {
                self.breaks(Law::EarlierOnesAreToldToo);
            }
        }
        if self.machine.stage() == Stage::Over {
            if self.processes.iter().any(|process| process.generation) {
                self.breaks(Law::NeverOverWhileAGenerationLives);
            }
            if self.machine.status() != self.last {
                self.breaks(Law::TheStatusIsTheLastGenerations);
            }
        }
    }
}

/// Each time in a text as seen from now. What is past is only looked at by those who count strikes.
fn relative(text: &str, now: Duration, oldest: Duration) -> String {
    let mut result = String::new();
    let mut digits = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' => digits.push(c),
            's' if !digits.is_empty() => {
                let time = Duration::from_secs(digits.parse().expect("digits"));
                result += &match now.checked_sub(time) {
                    None | Some(Duration::ZERO) => format!("in {:?}", time - now),
                    Some(age) if age < oldest => "past".into(),
                    Some(_) => "long past".into(),
                };
                digits.clear();
            }
            _ => {
                result += &digits;
                digits.clear();
                result.push(c);
            }
        }
    }
    result + &digits
}
