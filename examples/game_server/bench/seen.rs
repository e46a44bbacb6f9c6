//! What the players have seen, as spans of time on the clock of all processes.
//! Knows: when each span began and ended. Does not know: why anything took so long.

use std::time::Duration;

#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
}

impl Span {
    pub(crate) fn length(self) -> Duration {
        self.end.saturating_sub(self.begin)
    }

    pub(crate) fn touches(self, other: Span) -> bool {
        self.begin <= other.end && other.begin <= self.end
    }
}

#[derive(Default)]
pub(crate) struct Seen {
    /// Each from a question to its answer.
    pub(crate) waits: Vec<Span>,
    /// In each of these nobody was told anything.
    pub(crate) silences: Vec<Span>,
    /// Each from the last that a visitor was told to the end of its connection.
    pub(crate) farewells: Vec<Span>,
}

impl Seen {
    /// The longest that somebody waited or that nobody was told anything, of the spans that touch
    /// the given one.
    pub(crate) fn longest(&self, about: Option<Span>) -> Duration {
        let all = self.waits.iter().chain(&self.silences);
        let about = all.filter(|span| about.is_none_or(|about| span.touches(about)));
        about.map(|span| span.length()).max().unwrap_or_default()
    }
}

/// The lengths of the spans that touch the given one, shortest first.
pub(crate) fn lengths(spans: &[Span], about: Span) -> Vec<Duration> {
    let mut lengths: Vec<_> = spans.iter().filter(|span| span.touches(about)).map(|span| span.length()).collect();
    lengths.sort_unstable();
    lengths
}

/// The one below which this share lies, of lengths that are sorted.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}
