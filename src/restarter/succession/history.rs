//! What has happened, for operators: the log's lines and the last outcomes.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::machine::Attempt;
use crate::wire::{Outcome, line};

/// How many outcomes are kept, and handed down to successors.
const KEPT: usize = 8;
/// How much of a reason is handed down: the outcomes go with the first message to a successor.
const LONGEST: usize = 200;

/// The restarts of this process, and the last ones of those before it.
#[derive(Debug, Default)]
pub(super) struct History {
    attempt: u64,
    began: Duration,
    outcomes: VecDeque<Outcome>,
}

impl History {
    /// Goes on with what the predecessor has handed down.
    pub(super) fn new(handed_down: Vec<Outcome>) -> History {
        let mut history = History::default();
        for mut outcome in handed_down {
            outcome.text = shortened(&line(&outcome.text));
            history.push(outcome);
        }
        history
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, attempt: Attempt, now: Duration) {
        (self.attempt, self.began) = (attempt.0, now);
    }

    /// One that was called off at once begins: the next one.
    pub(super) fn begin_next(&mut self, now: Duration) {
        self.begin(Attempt(self.attempt + 1), now);
    }

    /// Which attempt, and for how long: what a line of the log begins with.
    pub(super) fn heading(&self, now: Duration) -> String {
        let tenths = (self.took(now).as_micros() as u64 + 50) / 100;
        format!("restart {} after {}.{} ms", self.attempt, tenths / 10, tenths % 10)
    }

    /// It has ended.
    pub(super) fn end(&mut self, ok: bool, text: &str, now: Duration) {
        let text = shortened(text);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.push(Outcome { at, took_ms: self.took(now).as_millis() as u64, ok, text });
    }

    /// The last outcomes, the latest last.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.outcomes.iter().cloned().collect()
    }

    fn took(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began)
    }

    fn push(&mut self, outcome: Outcome) {
        if self.outcomes.len() == KEPT {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
    }
}

/// So that a reader sees where a reason is cut.
fn shortened(text: &str) -> String {
    match text.chars().nth(LONGEST) {
        None => text.to_string(),
        Some(_) => text.chars().take(LONGEST - 1).chain(['…']).collect(),
    }
}
