//! The machine, with or without a planted fault: a fault tampers with what goes in or comes out.

use std::collections::VecDeque;
use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{Prompt, Stage, Takeover, TakeoverInput, TakeoverOutput};

use super::Setting;

/// What a fault makes of a thing, knowing where the machine stands.
type Makes<T> = fn(Stage, T) -> Vec<T>;

/// Where a fault strikes.
#[derive(Debug, Clone, Copy)]
pub enum Tamper {
    Input(Makes<TakeoverInput>),
    Prompt(Makes<Prompt>),
    Output(Makes<TakeoverOutput>),
    /// The time at which an input comes.
    Time(fn(Stage, TakeoverInput, Duration) -> Duration),
    /// When the machine wants to be woken.
    Timeout(fn(Stage, Option<Duration>) -> Option<Duration>),
    /// Whether `SayReady` is said to be taken.
    MayBeReady(fn(Stage, bool) -> bool),
    /// Why a request for a restart would be refused.
    Refusal(fn(Stage, Option<Refusal>) -> Option<Refusal>),
}

#[derive(Debug)]
pub struct Tampered {
    machine: Takeover,
    tamper: Option<Tamper>,
    prompts: VecDeque<Prompt>,
    outputs: VecDeque<TakeoverOutput>,
}

impl Tampered {
    pub fn new(setting: Setting, tamper: Option<Tamper>) -> Tampered {
        Tampered { machine: setting.machine(), tamper, prompts: VecDeque::new(), outputs: VecDeque::new() }
    }

    pub fn machine(&self) -> &Takeover {
        &self.machine
    }

    pub fn handle(&mut self, now: Duration, input: TakeoverInput) {
        let stage = self.machine.stage();
        let now = match self.tamper {
            Some(Tamper::Time(changes)) => changes(stage, input, now),
            _ => now,
        };
        let Some(Tamper::Input(makes)) = self.tamper else { return self.machine.handle(now, input) };
        for input in makes(stage, input) {
            self.machine.handle(now, input);
        }
    }

    pub fn poll_prompt(&mut self) -> Option<Prompt> {
        let Some(Tamper::Prompt(makes)) = self.tamper else { return self.machine.poll_prompt() };
        while let Some(prompt) = self.machine.poll_prompt() {
            self.prompts.extend(makes(self.machine.stage(), prompt));
        }
        self.prompts.pop_front()
    }

    pub fn poll_output(&mut self) -> Option<TakeoverOutput> {
        let Some(Tamper::Output(makes)) = self.tamper else { return self.machine.poll_output() };
        while self.outputs.is_empty() {
            let output = self.machine.poll_output()?;
            self.outputs.extend(makes(self.machine.stage(), output));
        }
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Duration> {
        let timeout = self.machine.poll_timeout();
        match self.tamper {
            Some(Tamper::Timeout(changes)) => changes(self.machine.stage(), timeout),
            _ => timeout,
        }
    }

    pub fn may_be_ready(&self) -> bool {
        let may = self.machine.may_be_ready();
        match self.tamper {
            Some(Tamper::MayBeReady(changes)) => changes(self.machine.stage(), may),
            _ => may,
        }
    }

    pub fn refusal(&self) -> Option<Refusal> {
        let refusal = self.machine.refusal();
        match self.tamper {
            Some(Tamper::Refusal(changes)) => changes(self.machine.stage(), refusal),
            _ => refusal,
        }
    }
}
