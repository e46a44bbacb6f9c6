//! Players at a server that somebody else runs.

use super::crowd::Crowd;
use super::seen::Span;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::process;
use std::time::Duration;

/// So many players, who stay until nobody asks any more. Each line of the input is a span of time, in
/// nanoseconds of the clock of all processes; the answer is the longest that somebody waited in it.
pub(crate) fn play(address: SocketAddr, players: usize) -> Result<(), String> {
    let crowd = Crowd::gather(address, players, 0)?;
    say("ready", players as u128);
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("cannot read what is asked: {error}"))?;
        let mut ends = line.split(' ').map(|end| end.parse().map(Duration::from_nanos));
        let (Some(Ok(begin)), Some(Ok(end))) = (ends.next(), ends.next()) else {
            return Err(format!("{line:?} is no span of time: give its begin and its end"));
        };
        let longest = crowd.look().longest(Some(Span { begin, end }));
        let tally = crowd.tally();
        if tally.disconnected + tally.out_of_sequence > 0 {
            return Err(format!("a player has lost something: {}", tally.why.unwrap_or_default()));
        }
        say("waited", longest.as_nanos());
    }
    Ok(())
}

/// Prints `WORD PID FIGURE`.
fn say(word: &str, figure: u128) {
    // The one who asked may be gone.
    let _ = writeln!(io::stdout(), "{word} {} {figure}", process::id());
}
