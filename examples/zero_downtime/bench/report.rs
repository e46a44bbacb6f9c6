//! What the run shows: a line of progress while it lasts, tables and one line of figures at its end.

use super::service::Ask;
use super::tally::Tally;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

pub(crate) struct Restart {
    pub(crate) ask: Ask,
    pub(crate) old_pid: u32,
    /// The new pid and the time that it took, or why it failed.
    pub(crate) outcome: Result<(u32, Duration), String>,
    pub(crate) answered_meanwhile: u64,
}

/// On a terminal one line that changes; in a file a line now and then.
pub(crate) struct Progress {
    terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: None }
    }

    pub(crate) fn show(&mut self, restarts: usize, of: usize, tally: &Tally) {
        let pause = Duration::from_millis(if self.terminal { 100 } else { 2000 });
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = format!("{restarts} of {of} restarts, {} requests answered, {} failed", tally.answered(), tally.failed());
        if self.terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{line}") }
    }

    pub(crate) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

pub(crate) fn print(out: &mut impl Write, restarts: &[Restart], tally: &Tally, lasted: Duration, told: Option<&str>) -> io::Result<()> {
    let times = Times::of(restarts);
    print_restarts(out, restarts, &times)?;
    print_totals(out, tally, lasted)?;
    write!(
        out,
        "\nrestarts={} requests={} failed={} slowest_restart_ms={:.1} p50_restart_ms={:.1}",
        times.0.len(),
        tally.answered() + tally.failed() + tally.lost,
        tally.failed(),
        times.percentile(100),
        times.percentile(50)
    )?;
    if let Some(told) = told {
        write!(out, " refused={} lost_with_the_bad_release={} told={told:?}", tally.refused(), tally.lost)?;
    }
    writeln!(out)
}

pub(crate) fn print_load(out: &mut impl Write, tally: &Tally, lasted: Duration) -> io::Result<()> {
    print_totals(out, tally, lasted)?;
    let generations = tally.by_generation.len();
    writeln!(out, "\nrequests={} failed={} generations={generations}", tally.answered() + tally.failed(), tally.failed())
}

fn print_restarts(out: &mut impl Write, restarts: &[Restart], times: &Times) -> io::Result<()> {
    writeln!(out, "restart  asked by  old pid  new pid        ms  answered meanwhile")?;
    for (number, Restart { ask, old_pid, outcome, answered_meanwhile }) in restarts.iter().enumerate() {
        let number = number + 1;
        let asked_by = match ask {
            Ask::Socket => "socket",
            Ask::Signal => "signal",
        };
        match outcome {
            Ok((pid, took)) => {
                let ms = milliseconds(*took);
                writeln!(out, "{number:7}  {asked_by:8}  {old_pid:7}  {pid:7}  {ms:8.1}  {answered_meanwhile:18}")?;
            }
            Err(reason) => writeln!(out, "{number:7}  {asked_by:8}  {old_pid:7}  failed: {reason}")?,
        }
    }
    writeln!(out, "\nrestarts   {} of {} succeeded", times.0.len(), restarts.len())?;
    if !times.0.is_empty() {
        let [least, p50, p90, p99, most] = [0, 50, 90, 99, 100].map(|percent| times.percentile(percent));
        writeln!(out, "           {least:.1} ms at least, p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, {most:.1} at most")?;
    }
    Ok(())
}

fn print_totals(out: &mut impl Write, tally: &Tally, lasted: Duration) -> io::Result<()> {
    let Tally { keep_alive, one_shot, connections, told_to_close, closed_idle, .. } = tally;
    let seconds = lasted.as_secs_f64();
    let rate = tally.answered() as f64 / seconds;
    writeln!(out, "requests   {} answered in {seconds:.1} s, {rate:.0} a second", tally.answered())?;
    writeln!(out, "           {keep_alive} on keep-alive connections, {one_shot} on connections of their own")?;
    writeln!(out, "           the slowest answer took {:.1} ms", milliseconds(tally.slowest))?;
    writeln!(out, "clients    {connections} connections")?;
    writeln!(out, "           {told_to_close} keep-alive ones were told to close, {closed_idle} were closed while idle")?;
    if tally.lost > 0 {
        writeln!(out, "lost       {} in the hands of the bad release when it crashed", tally.lost)?;
    }
    writeln!(out, "failed     {}", tally.failed())?;
    for (reason, count) in &tally.failures {
        writeln!(out, "{count:10} {reason}")?;
    }
    Ok(())
}

/// Of the restarts that succeeded, shortest first.
struct Times(Vec<Duration>);

impl Times {
    fn of(restarts: &[Restart]) -> Self {
        let mut times: Vec<_> = restarts.iter().flat_map(|restart| &restart.outcome).map(|(_, took)| *took).collect();
        times.sort();
        Self(times)
    }

    /// In milliseconds: so many of a hundred took no longer. 0 if there are none.
    fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).map_or(0.0, |time| milliseconds(*time))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
