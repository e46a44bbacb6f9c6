//! Puts the server to the test: `service.rs` runs it as a process of its own, and `clients.rs` talk to
//! it while it is replaced.

#[allow(unreachable_pub, reason = "a part of the library `flows.rs` too")]
mod clients;
mod service;

use std::error::Error;
use std::time::{Duration, Instant};

use clients::Clients;
use service::Service;

/// How many flows begin between two restarts, at least.
const FLOWS: u64 = 20;
/// So long a run may wait for one restart, where generations that drain are in the way.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints the line, and says whether nothing was lost.
pub(crate) fn run(restarts: usize, clients: usize) -> Result<bool, Box<dyn Error>> {
    let mut service = Service::start(&[])?;
    // A user who may not ask is told so here. Later it would look like a refusal that passes.
    service.alive()?;
    let load = Clients::start(service.address, clients)?;
    let mut generations = 1;
    for _ in 0..restarts {
        load.wait_for_flows(FLOWS)?;
        let begun = Instant::now();
        // While each socket of the group has a generation that reads it, a restart is refused.
        while let Some(why) = service.restart()? {
            if begun.elapsed() > PATIENCE {
                return Err(why.into());
            }
            load.wait_for_flows(1)?;
        }
        generations = generations.max(service.alive()?);
    }
    load.wait_for_flows(FLOWS)?;
    let tally = load.stop();
    service.stop()?;
    println!(
        "restarts={restarts} generations={generations} datagrams={} lost={} misrouted={}",
        tally.answered, tally.lost, tally.misrouted
    );
    if tally.begun_anew > 0 {
        println!("{} flows were told to begin anew", tally.begun_anew);
    }
    Ok(tally.lost + tally.misrouted + tally.begun_anew == 0)
}
