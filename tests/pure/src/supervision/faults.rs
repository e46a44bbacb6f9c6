//! The machine with one fault planted, of the kind that a change of it could bring. Each is found
//! by a law.

use std::collections::VecDeque;
use std::time::Duration;

use nix::libc::{SIGKILL, SIGTERM};
use pollflip::Exit;
use pollflip::internals::machine::supervision::{Deed, Fact, Notification, Policy, Remark, Rules, Stage, Supervision};

use super::{Law, Machine};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What was stored is closed with the main process.
    EmptiesTheStoreAtAnEnd,
    /// What was stored is never closed.
    NeverEmptiesTheStore,
    /// Who becomes the service after the guard was told to end is not told.
    ForgetsTold,
    /// The ones that drain are not told to end.
    SparesEarlierOnes,
    /// A service is started as soon as the last one has ended, beside what that has left.
    StartsTooSoon,
    /// Two are started.
    StartsTwice,
    /// No end is counted.
    CountsNothing,
    /// Whatever has ended is started again.
    StartsAlways,
    /// It is over when the last main process has ended.
    ForgetsThoseThatDrain,
    /// Its status is always that of success.
    HidesTheStatus,
    /// A successor is killed with its predecessor.
    KillsSuccessors,
    /// Its deadlines are not asked for.
    HasNoClock,
    /// An earlier generation names the service.
    ListensToEarlierOnes,
    /// A main process that has ended is signalled.
    SignalsTheDead,
    /// Who becomes the service is told to end, whether it has heard that or not.
    TellsTwice,
}

impl Fault {
    pub const ALL: [(Fault, Law); 15] = [
        (Fault::EmptiesTheStoreAtAnEnd, Law::WhatIsStoredIsThereAtTheNextStart),
        (Fault::NeverEmptiesTheStore, Law::NothingIsStoredForNobody),
        (Fault::ForgetsTold, Law::ToldIsNeverForgotten),
        (Fault::SparesEarlierOnes, Law::EarlierOnesAreToldToo),
        (Fault::StartsTooSoon, Law::OneStartAtATime),
        (Fault::StartsTwice, Law::OneStartAtATime),
        (Fault::CountsNothing, Law::StrikesEndALoop),
        (Fault::StartsAlways, Law::ThePolicyDecides),
        (Fault::ForgetsThoseThatDrain, Law::NeverOverWhileAGenerationLives),
        (Fault::HidesTheStatus, Law::TheStatusIsTheLastGenerations),
        (Fault::KillsSuccessors, Law::ASuccessorIsWaitedFor),
        (Fault::HasNoClock, Law::AnEndIsReached),
        (Fault::ListensToEarlierOnes, Law::TheMainProcessIsKnown),
        (Fault::SignalsTheDead, Law::NoSignalToTheDead),
        (Fault::TellsTwice, Law::NobodyIsToldTwice),
    ];
}

#[derive(Clone)]
pub struct Faulty {
    inner: Supervision,
    fault: Fault,
    main: Option<u32>,
    more: VecDeque<Deed>,
}

impl Faulty {
    pub fn new(mut rules: Rules, fault: Fault) -> Faulty {
        match fault {
            Fault::CountsNothing => rules.strikes.count = u32::MAX,
            Fault::StartsAlways => rules.policy = Policy::Always,
            _ => {}
        }
        Faulty { inner: Supervision::new(rules), fault, main: None, more: VecDeque::new() }
    }
}

impl Machine for Faulty {
    fn handle(&mut self, now: Duration, fact: Fact) {
        let fact = match fact {
            Fact::Notified(_, notification) if self.fault == Fault::ListensToEarlierOnes => Fact::Notified(u32::MAX, notification),
            Fact::Notified(from, notification) if self.fault == Fault::TellsTwice => {
                Fact::Notified(from, Notification { has_heard: false, ..notification })
            }
            fact => fact,
        };
        if let (Fault::SignalsTheDead, Fact::Ended(pid, _)) = (self.fault, fact) {
            self.more.push_back(Deed::Signal(pid, SIGTERM));
        }
        if let (Fault::EmptiesTheStoreAtAnEnd, Fact::Ended(..)) = (self.fault, fact) {
            self.more.push_back(Deed::EmptyStore);
        }
        self.inner.handle(now, fact);
        if let (Fault::StartsTooSoon, Stage::Clearing { .. }) = (self.fault, self.inner.stage()) {
            self.inner.handle(now, Fact::Alone);
        }
    }

    fn poll_deed(&mut self) -> Option<Deed> {
        if let Some(deed) = self.more.pop_front() {
            return Some(deed);
        }
        loop {
            let deed = self.inner.poll_deed()?;
            let after_main = std::mem::take(&mut self.main);
            match (self.fault, deed) {
                (Fault::ForgetsTold, Deed::Tell(Remark::Main(pid))) => self.main = Some(pid),
                (Fault::ForgetsTold, Deed::Signal(pid, _)) if after_main == Some(pid) => continue,
                (Fault::SparesEarlierOnes, Deed::Signal(pid, _)) if self.inner.earlier().contains(&pid) => continue,
                (Fault::NeverEmptiesTheStore, Deed::EmptyStore) => continue,
                (Fault::StartsTwice, Deed::Start) => self.more.push_back(Deed::Start),
                (Fault::KillsSuccessors, Deed::Tell(Remark::AwaitsSuccessor)) => return Some(Deed::SignalStrays(SIGKILL)),
                _ => {}
            }
            return Some(deed);
        }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.inner.poll_timeout().filter(|_| self.fault != Fault::HasNoClock)
    }

    fn stage(&self) -> Stage {
        match self.inner.stage() {
            Stage::Stopping if self.fault == Fault::ForgetsThoseThatDrain => Stage::Over,
            stage => stage,
        }
    }

    fn status(&self) -> Option<Exit> {
        if self.fault == Fault::HidesTheStatus { Some(Exit::Code(0)) } else { self.inner.status() }
    }

    fn inner(&self) -> &Supervision {
        &self.inner
    }
}
