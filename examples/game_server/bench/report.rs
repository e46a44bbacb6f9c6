//! What the run shows: a table of all tries, and one line of figures at its end.

use super::crowd::Tally;
use super::seen::{Seen, Span, lengths, quantile};
use crate::clock::{Moment, Told};
use std::io::{self, Write};
use std::time::Duration;

/// What became of the server.
#[derive(Clone, PartialEq)]
pub(crate) enum Outcome {
    Restarted,
    /// As it was told to.
    Failed(String),
    /// It was killed, and has come back.
    Killed,
}

/// One restart, one that was made to fail, or one kill.
pub(crate) struct Try {
    pub(crate) outcome: Outcome,
    pub(crate) moments: Vec<Told>,
    /// What the players have seen of it.
    pub(crate) seen: Seen,
}

pub(crate) struct Run<'a> {
    pub(crate) players: usize,
    /// They outlive a kill.
    pub(crate) keeps: bool,
    pub(crate) tries: &'a [Try],
    /// What the players see without a restart.
    pub(crate) normal: &'a Seen,
    pub(crate) tally: &'a Tally,
}

pub(crate) fn print(out: &mut impl Write, run: &Run) -> io::Result<()> {
    let Run { players, keeps, tries, normal, tally } = run;
    writeln!(out, "all times in milliseconds; the servers' side:                           the players' longest wait or silence:")?;
    writeln!(out, "restart  copy  | collect  transfer  adopt  register  grant  in all  |  in the copy  at the pause  at any time")?;
    let mut number = 0;
    for one in *tries {
        let name = match one.outcome {
            Outcome::Failed(_) => "failed".into(),
            Outcome::Killed => "killed".into(),
            Outcome::Restarted => {
                number += 1;
                number.to_string()
            }
        };
        let steps = [
            (Moment::Frozen, Moment::Collected),
            (Moment::Collected, Moment::Received),
            (Moment::Received, Moment::Adopted),
            (Moment::Adopted, Moment::Registered),
            (Moment::Registered, Moment::Granted),
        ];
        let [collect, transfer, adopt, register, grant] = steps.map(|(from, to)| one.step(from, to));
        let copy = one.step(Moment::Copying, Moment::Copied);
        let in_copy = one.copy().map_or_else(String::new, |copy| format!("{:.1}", milliseconds(one.seen.longest(Some(copy)))));
        let in_all = one.pause().map_or_else(String::new, |pause| format!("{:.1}", milliseconds(pause.length())));
        writeln!(
            out,
            "{name:>7}  {copy:>5} | {collect:>7}  {transfer:>8}  {adopt:>5}  {register:>8}  {grant:>5}  {in_all:>6}  |  {in_copy:>11}  {:12.1}  {:11.1}",
            milliseconds(one.seen.longest(one.pause())),
            milliseconds(one.seen.longest(None))
        )?;
    }
    for one in *tries {
        if let Outcome::Failed(why) = &one.outcome {
            writeln!(out, "failed as it was told to: {why}")?;
        }
    }
    writeln!(out, "without a restart: {:.1}; {} inputs were answered in all", milliseconds(normal.longest(None)), tally.answers)?;
    let waited = about(tries, Try::pause, |seen| &seen.waits);
    writeln!(out, "waits of the {} players who waited in a pause: p50 {}", waited.len(), shown(&waited))?;
    let left = about(tries, Try::pause, |seen| &seen.farewells);
    if !left.is_empty() {
        writeln!(out, "{} left in a pause; from the last answer to the end of the connection: p50 {}", left.len(), shown(&left))?;
    }
    let left = about(tries, Try::copy, |seen| &seen.farewells);
    if !left.is_empty() {
        writeln!(out, "{} left in a copy; from the last answer to the end of the connection: p50 {}", left.len(), shown(&left))?;
    }
    let copies: Vec<_> =
        tries.iter().filter_map(|one| Some((one.copy()?.length(), one.told(Moment::Copied)?.figures.as_slice()))).collect();
    if !copies.is_empty() {
        let mut pieces: Vec<_> =
            copies.iter().flat_map(|(_, figures)| figures.iter().skip(1)).map(|one| Duration::from_nanos(*one)).collect();
        pieces.sort_unstable();
        let mut each: Vec<_> = copies.iter().filter_map(|(length, figures)| length.checked_div(*figures.first()? as u32)).collect();
        each.sort_unstable();
        let mut worst: Vec<_> =
            copies.iter().filter_map(|(_, figures)| figures.iter().skip(1).max().copied()).map(Duration::from_nanos).collect();
        worst.sort_unstable();
        let each = milliseconds(quantile(&each, 0.5)) * 1000.0;
        writeln!(
            out,
            "{} copies, {each:.2} µs a player; so long each of the {} pieces has held the old loop: p50 {:.2}, p99 {:.2}; the longest of a \
             copy: p50 {:.2}, max {:.2}",
            copies.len(),
            pieces.len(),
            milliseconds(quantile(&pieces, 0.5)),
            milliseconds(quantile(&pieces, 0.99)),
            milliseconds(quantile(&worst, 0.5)),
            milliseconds(quantile(&worst, 1.0)),
        )?;
    }
    if let Some(why) = &tally.why {
        writeln!(out, "the first that was disconnected: {why}")?;
    }

    let pauses = |which: &dyn Fn(&Outcome) -> bool| {
        let mut pauses: Vec<_> = tries.iter().filter(|one| which(&one.outcome)).map(|one| one.seen.longest(one.pause())).collect();
        pauses.sort_unstable();
        pauses
    };
    let restarted = pauses(&|outcome| *outcome == Outcome::Restarted);
    let killed = pauses(&|outcome| *outcome == Outcome::Killed);
    let failed = pauses(&|outcome| matches!(outcome, Outcome::Failed(_)));
    let mut server: Vec<_> =
        tries.iter().filter(|one| one.outcome == Outcome::Restarted).filter_map(|one| Some(one.pause()?.length())).collect();
    server.sort_unstable();
    let kills = if *keeps { format!(" kills={}", killed.len()) } else { String::new() };
    write!(
        out,
        "\nplayers={players} restarts={}{kills} disconnected={} out_of_sequence={} pause_ms_max={:.1} pause_ms_p50={:.1} server_ms_max={:.2} \
         server_ms_p50={:.2} failed_pause_ms_max={:.1}",
        restarted.len(),
        tally.disconnected,
        tally.out_of_sequence,
        milliseconds(quantile(&restarted, 1.0)),
        milliseconds(quantile(&restarted, 0.5)),
        milliseconds(quantile(&server, 1.0)),
        milliseconds(quantile(&server, 0.5)),
        milliseconds(quantile(&failed, 1.0)),
    )?;
    if *keeps {
        let [max, p50] = [1.0, 0.5].map(|share| milliseconds(quantile(&killed, share)));
        write!(out, " killed_pause_ms_max={max:.1} killed_pause_ms_p50={p50:.1}")?;
    }
    writeln!(out)
}

/// Of all restarts that succeeded, the lengths of the spans that touch a part of them.
fn about(tries: &[Try], part: impl Fn(&Try) -> Option<Span>, spans: impl Fn(&Seen) -> &[Span]) -> Vec<Duration> {
    let done = tries.iter().filter(|one| one.outcome == Outcome::Restarted);
    let mut all: Vec<_> = done.flat_map(|one| part(one).map_or(Vec::new(), |part| lengths(spans(&one.seen), part))).collect();
    all.sort_unstable();
    all
}

fn shown(sorted: &[Duration]) -> String {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| milliseconds(quantile(sorted, share)));
    format!("{p50:.1}, p99 {p99:.1}, max {max:.1}")
}

impl Try {
    /// From the freeze, or the kill, until players are served again.
    pub(crate) fn pause(&self) -> Option<Span> {
        let (begin, end) = match self.outcome {
            Outcome::Restarted => (Moment::Frozen, Moment::Granted),
            Outcome::Failed(_) => (Moment::Frozen, Moment::Thawed),
            Outcome::Killed => (Moment::Killed, Moment::Granted),
        };
        Some(Span { begin: self.at(begin)?, end: self.at(end)? })
    }

    fn told(&self, wanted: Moment) -> Option<&Told> {
        self.moments.iter().find(|told| told.moment == wanted)
    }

    /// While players were given ahead.
    fn copy(&self) -> Option<Span> {
        Some(Span { begin: self.at(Moment::Copying)?, end: self.at(Moment::Copied)? })
    }

    fn at(&self, wanted: Moment) -> Option<Duration> {
        self.told(wanted).map(|told| told.at)
    }

    fn step(&self, from: Moment, to: Moment) -> String {
        // The new process may have received all before the old one had said that it has given all.
        let times = self.at(from).zip(self.at(to));
        times.map_or_else(String::new, |(from, to)| format!("{:.1}", milliseconds(to.saturating_sub(from))))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
