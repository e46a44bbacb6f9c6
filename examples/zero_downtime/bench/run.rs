//! One run: a service, load on it, and restarts, each once the one before has proved itself.

use super::bad_release::CRASH_AFTER;
use super::load::Load;
use super::report::{self, Progress, Restart};
use super::service::{Ask, Service};
use super::tally::Tally;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// So many requests a generation answers before it is replaced.
const PROOF: u64 = 300;
const PROOF_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Options {
    pub(crate) restarts: usize,
    pub(crate) connections: usize,
    /// The restarts are spread over it.
    pub(crate) time: Duration,
    pub(crate) probation: Option<Duration>,
    /// One of the releases in the middle is bad.
    pub(crate) bad_release: bool,
}

/// True if nothing failed.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let mut run = Run {
        interrupted: interrupt_flag()?,
        service: Service::start(options.probation)?,
        restarts: Vec::new(),
        told: None,
        progress: Progress::new(),
    };
    let begun = Instant::now();
    let load = Load::start(run.service.address, options.connections).map_err(|error| format!("cannot start the clients: {error}"))?;

    let went = run.restart_all(options, &load, begun);
    let tally = load.stop();
    let lasted = begun.elapsed();
    // If it went wrong, the service is dropped here, which kills the servers.
    let went = went.and_then(|()| run.service.stop());

    run.progress.clear();
    if let Err(problem) = &went {
        eprintln!("zero_downtime: {problem}");
    }
    let printed = report::print(&mut io::stdout().lock(), &run.restarts, &tally, lasted, run.told.as_deref());
    printed.map_err(|error| format!("cannot print the report: {error}"))?;
    let all_succeeded = run.restarts.iter().all(|restart| restart.outcome.is_ok());
    // No client has more than one connection at a time that can break.
    let lost_few = tally.lost <= options.connections as u64;
    Ok(went.is_ok() && all_succeeded && tally.failed() == 0 && lost_few)
}

pub(crate) struct LoadOptions {
    pub(crate) to: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) time: Duration,
}

/// Only the clients; somebody else restarts the server. Ctrl-C ends it early, and in order. True if nothing failed.
pub(crate) fn load(options: &LoadOptions) -> Result<bool, String> {
    let interrupted = interrupt_flag()?;
    let begun = Instant::now();
    let load = Load::start(options.to, options.connections).map_err(|error| format!("cannot start the clients: {error}"))?;
    while begun.elapsed() < options.time && !interrupted.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(20));
    }
    let tally = load.stop();
    let printed = report::print_load(&mut io::stdout().lock(), &tally, begun.elapsed());
    printed.map_err(|error| format!("cannot print the report: {error}"))?;
    Ok(tally.failed() == 0 && tally.answered() > 0)
}

struct Run {
    interrupted: Arc<AtomicBool>,
    service: Service,
    restarts: Vec<Restart>,
    /// What was told to the one who asked for the restart with the bad release.
    told: Option<String>,
    progress: Progress,
}

impl Run {
    fn restart_all(&mut self, options: &Options, load: &Load, begun: Instant) -> Result<(), String> {
        for number in 0..options.restarts {
            let share = number as f64 / options.restarts as f64;
            self.wait_for_proof(options, load, begun + options.time.mul_f64(share))?;
            if options.bad_release && number == options.restarts / 2 {
                self.restart_with_a_bad_release(load)?;
                self.wait_for_proof(options, load, Instant::now())?;
            }
            let ask = if number % 2 == 0 { Ask::Socket } else { Ask::Signal };
            self.restart(ask, load);
        }
        self.wait_for_proof(options, load, begun + options.time)
    }

    fn restart(&mut self, ask: Ask, load: &Load) {
        let old_pid = self.service.pid;
        let answered_before = load.tally().answered();
        let outcome = self.service.restart(ask).map(|took| (self.service.pid, took));
        load.expect_generation(self.service.generation);
        self.restarts.push(Restart { ask, old_pid, outcome, answered_meanwhile: load.tally().answered() - answered_before });
    }

    fn restart_with_a_bad_release(&mut self, load: &Load) -> Result<(), String> {
        load.expect_bad_release();
        let told = self.service.restart_with_a_bad_release(CRASH_AFTER)?;
        load.bad_release_is_over();
        self.told = Some(told);
        Ok(())
    }

    /// Until this generation has answered its share of requests from now on, and not before `time`.
    fn wait_for_proof(&mut self, options: &Options, load: &Load, time: Instant) -> Result<(), String> {
        let limit = time.max(Instant::now()) + PROOF_LIMIT;
        let before = answered_by(&load.tally(), self.service.generation);
        loop {
            let tally = load.tally();
            let proof = answered_by(&tally, self.service.generation) - before;
            self.progress.show(self.restarts.len(), options.restarts, &tally);
            if self.interrupted.load(Ordering::SeqCst) {
                return Err("interrupted".into());
            }
            self.service.check()?;
            if proof >= PROOF && Instant::now() >= time {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(format!("server {} has answered no more than {proof} requests", self.service.pid));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn answered_by(tally: &Tally, generation: u32) -> u64 {
    tally.by_generation.get(&generation).copied().unwrap_or_default()
}

/// Set by Ctrl-C and the like: the run ends early, and in order.
fn interrupt_flag() -> Result<Arc<AtomicBool>, String> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(|error| format!("signal {signal}: {error}"))?;
    }
    Ok(flag)
}
