//! Requests that fail while restarts go on, over connections that are kept alive.
//!
//! Ours is the server of `examples/zero_downtime`. The peers' are hyper with its graceful shutdown, and each peer's own way with the
//! listener: shellflip passes none, so that each generation binds beside the one before; ecdysis passes it.

mod own;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::example;
use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::roles::{Role, Settings};
use crate::service::{Service, is_installed};

const CONNECTIONS: usize = 16;

/// What clients have seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub requests: u64,
    pub failed: u64,
}

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let restarts = plan.choose(5, 50);
    let wrk = is_installed("wrk");
    let mut failed = Row::new("load failed", format!("{restarts} restarts under keep-alive load: failed requests"), Unit::Count);
    let mut seen = Vec::new();
    for peer in plan.peers(&[Peer::Ours, Peer::Shellflip, Peer::Ecdysis]) {
        let tally = sample(peer, restarts, wrk)?;
        failed = failed.with(peer, tally.failed as f64);
        seen.push(format!("{} {} of {}", peer.name(), tally.failed, tally.requests));
    }
    report.add(failed);
    let client = if wrk { "wrk" } else { "a client of its own, as wrk is not installed" };
    report.note(format!(
        "load: {client}, {CONNECTIONS} connections; all kinds of errors are added up: {}. pollflip: the server of examples/zero_downtime, which announces \
         the close with the last answer. The peers: hyper and its graceful shutdown, which closes what is idle; shellflip passes no listener, \
         so each generation binds with SO_REUSEPORT",
        seen.join(", ")
    ));
    Ok(())
}

fn sample(peer: Peer, restarts: usize, wrk: bool) -> Result<Tally, String> {
    let address = free_address()?;
    let mut service = if peer == Peer::Ours {
        let program = example::build("zero_downtime")?;
        Service::spawn(peer, |socket| {
            let mut command = Command::new(program);
            command.args(["serve", "--drain", "5", "--listen", &address.to_string(), "--socket"]).arg(socket);
            Ok(command)
        })?
    } else {
        Service::launch(peer, Settings { role: Role::of(peer), http: Some(address), ..Settings::default() })?
    };
    service.pid = listening(&mut service)?;
    let load = Load::start(address, wrk)?;
    thread::sleep(Duration::from_millis(300));
    for _ in 0..restarts {
        let old = service.pid;
        service.restart()?;
        service.forget();
        service.wait_for_end(old)?;
        thread::sleep(Duration::from_millis(50));
    }
    load.stop()
}

/// The example says it in its own words.
fn listening(service: &mut Service) -> Result<u32, String> {
    let line = service.wait_for("listening")?;
    match line.pid {
        0 => line.rest.rsplit(' ').next().and_then(|pid| pid.parse().ok()).ok_or_else(|| format!("no process id in {:?}", line.rest)),
        pid => Ok(pid),
    }
}

fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map_err(|error| format!("no free address: {error}"))
}

enum Load {
    Wrk(Child),
    Own(own::Load),
}

impl Load {
    fn start(address: SocketAddr, wrk: bool) -> Result<Load, String> {
        if !wrk {
            return own::Load::start(address, CONNECTIONS).map(Load::Own).map_err(|error| format!("cannot start clients: {error}"));
        }
        let child = Command::new("wrk")
            .args(["-t2", &format!("-c{CONNECTIONS}"), "-d600s", "--timeout", "10s", &format!("http://{address}/")])
            .stdout(Stdio::piped())
            .spawn();
        child.map(Load::Wrk).map_err(|error| format!("cannot start wrk: {error}"))
    }

    fn stop(self) -> Result<Tally, String> {
        let mut child = match self {
            Load::Own(load) => return Ok(load.stop()),
            Load::Wrk(child) => child,
        };
        let failed = |error: std::io::Error| format!("wrk: {error}");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).map_err(|error| failed(error.into()))?;
        let mut text = String::new();
        child.stdout.take().ok_or("wrk: no output")?.read_to_string(&mut text).map_err(failed)?;
        child.wait().map_err(failed)?;
        read_wrk(&text).ok_or_else(|| format!("wrk says what is not understood: {text:?}"))
    }
}

/// All four of its socket errors, and answers that are no success.
fn read_wrk(text: &str) -> Option<Tally> {
    let numbers = |line: &str| -> u64 { line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum() };
    let line = |what: &str| text.lines().find(|line| line.contains(what));
    let requests = line(" requests in ")?.split_whitespace().next()?.parse().ok()?;
    Some(Tally { requests, failed: line("Socket errors:").map_or(0, numbers) + line("Non-2xx").map_or(0, numbers) })
}
