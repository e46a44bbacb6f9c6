//! The server of `examples/game_server`, and its players.

#[allow(dead_code, reason = "the example's, of which the players are used")]
#[path = "../../examples/game_server/client.rs"]
mod client;
#[allow(dead_code, reason = "the example's, of which the moments are used")]
#[path = "../../examples/game_server/clock.rs"]
mod clock;
#[path = "../../examples/game_server/copying.rs"]
mod copying;
#[allow(dead_code, reason = "the example's, of which the players are used")]
#[path = "../../examples/game_server/crowd.rs"]
mod crowd;
#[path = "../../examples/game_server/loopback.rs"]
mod loopback;
#[path = "../../examples/game_server/player.rs"]
mod player;
#[path = "../../examples/game_server/protocol.rs"]
mod protocol;
#[allow(dead_code, reason = "the example's, of which the longest wait is used")]
#[path = "../../examples/game_server/seen.rs"]
mod seen;
#[path = "../../examples/game_server/seats.rs"]
mod seats;
#[path = "../../examples/game_server/server.rs"]
pub mod server;
#[path = "../../examples/game_server/states.rs"]
mod states;
#[path = "../../examples/game_server/visitors.rs"]
mod visitors;
#[path = "../../examples/game_server/world.rs"]
mod world;

use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::time::Duration;

use crate::roles::{Failed, say};

/// So many players, who stay until nobody asks any more. Each line that comes is a span of time in nanoseconds; the longest that a player
/// waited in it is the answer.
pub fn play(address: SocketAddr, players: usize) -> Result<(), Failed> {
    let crowd = crowd::Crowd::gather(address, players, 0)?;
    say("ready", "");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut ends = line.split(' ').map(|end| end.parse().map(Duration::from_nanos));
        let (Some(begin), Some(end)) = (ends.next().transpose()?, ends.next().transpose()?) else { break };
        let longest = crowd.look().longest(Some(seen::Span { begin, end }));
        let tally = crowd.tally();
        if tally.disconnected + tally.out_of_sequence > 0 {
            return Err(format!("a player has lost something: {}", tally.why.unwrap_or_default()).into());
        }
        say("waited", &longest.as_nanos().to_string());
    }
    Ok(())
}
