//! What the run shows: a table of all tries, and one line of figures at its end.

use crate::clock::Moment;
use crate::crowd::Tally;
use std::io::{self, Write};
use std::time::Duration;

/// One restart, or one that was made to fail.
pub(crate) struct Try {
    pub(crate) failure: Option<String>,
    pub(crate) moments: Vec<(Moment, Duration)>,
    /// What the players have seen of it.
    pub(crate) seen: Tally,
}

pub(crate) fn print(out: &mut impl Write, players: usize, tries: &[Try], normal: &Tally, all: &Tally) -> io::Result<()> {
    writeln!(out, "all times in milliseconds; the servers' side:                    the players' side:")?;
    writeln!(out, "restart  collect  transfer  adopt  register  grant  in all         silence  longest wait")?;
    let mut number = 0;
    for one in tries {
        number += usize::from(one.failure.is_none());
        let name = if one.failure.is_some() { "failed".into() } else { number.to_string() };
        let steps = [
            (Moment::Frozen, Moment::Collected),
            (Moment::Collected, Moment::Received),
            (Moment::Received, Moment::Adopted),
            (Moment::Adopted, Moment::Registered),
            (Moment::Registered, Moment::Granted),
            (Moment::Frozen, if one.failure.is_some() { Moment::Thawed } else { Moment::Granted }),
        ];
        let [collect, transfer, adopt, register, grant, in_all] = steps.map(|(from, to)| one.between(from, to));
        writeln!(
            out,
            "{name:>7}  {collect:>7}  {transfer:>8}  {adopt:>5}  {register:>8}  {grant:>5}  {in_all:>6}         {:7.1}  {:12.1}",
            milliseconds(one.seen.silence),
            milliseconds(one.seen.wait)
        )?;
    }
    for one in tries {
        if let Some(why) = &one.failure {
            writeln!(out, "failed as it was told to: {why}")?;
        }
    }
    writeln!(
        out,
        "without a restart: silence {:.1}, longest wait {:.1}; {} inputs were answered in all",
        milliseconds(normal.silence),
        milliseconds(normal.wait),
        all.answers
    )?;
    if let Some(why) = &all.why {
        writeln!(out, "the first that was disconnected: {why}")?;
    }

    // The pause is what the players saw of it, be it the silence or a wait that began in it.
    let mut pauses: Vec<_> = tries.iter().filter(|one| one.failure.is_none()).map(|one| one.seen.wait.max(one.seen.silence)).collect();
    pauses.sort();
    let longest = tries.iter().map(|one| one.seen.wait.max(one.seen.silence)).max().unwrap_or_default();
    let median = pauses.get(pauses.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    writeln!(
        out,
        "\nplayers={players} restarts={} disconnected={} out_of_sequence={} pause_ms_max={:.1} pause_ms_p50={:.1}",
        pauses.len(),
        all.disconnected,
        all.out_of_sequence,
        milliseconds(longest),
        milliseconds(median)
    )
}

impl Try {
    fn between(&self, from: Moment, to: Moment) -> String {
        let when = |wanted| self.moments.iter().find(|(moment, _)| *moment == wanted).map(|(_, time)| time.as_secs_f64() * 1000.0);
        // The new process may have received all before the old one had said that it has given all.
        when(from).zip(when(to)).map_or_else(String::new, |(from, to)| format!("{:.1}", (to - from).max(0.0)))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
