//! A game at 60 ticks a second over one UDP socket, handed over with its state: no mark, no relay, no datagram lost.
//!
//!     cargo run --release --example udp_game -- --restarts 10
//!
//! starts a server, has 200 players send what they do, and replaces the server again and again. The old
//! process reads nothing more once it has written its state down, so what players send meanwhile waits
//! in the socket for the new one. With the state goes the time of the next tick. The last line counts
//! the inputs that were lost and the ticks that were not made.

#[allow(dead_code, reason = "of which only a part is used")]
#[path = "udp_flows/bench/service.rs"]
mod service;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser, ValueExt};
use nix::sys::socket::{setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use pollflip::{Event, RestartConfig, Restarter};
use service::Service;
use signal_hook::consts::SIGTERM;

const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);
const PLAYERS: u32 = 200;
/// In bytes, for what players send in a tick: the usual 208 KiB have room for some 200 of the smallest datagrams. The kernel gives twice what
/// it is asked for, of which `net.core.rmem_max` is the most.
const ROOM: usize = 1 << 20;
/// How long the state may take, and an answer of the server.
const LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("udp_game: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let (mut restarts, mut serves) = (10, false);
    let (mut listen, mut socket) = (SocketAddr::from(([127, 0, 0, 1], 0)), String::new());
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("restarts") => restarts = parser.value()?.parse()?,
            Arg::Value(word) if word == "serve" => serves = true,
            Arg::Long("listen") => listen = parser.value()?.parse()?,
            Arg::Long("socket") => socket = parser.value()?.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    if serves { serve(listen, &socket).map(|()| true).map_err(Into::into) } else { play(restarts) }
}

// --- the server ---

/// The state, all of it.
#[derive(Default)]
struct World {
    tick: u64,
    /// When the next tick is due, on a clock that all processes have.
    next: Duration,
    /// Ticks that were due and not made.
    skipped: u64,
    /// The number of the input that each player sends next, and how many of them never came.
    players: BTreeMap<SocketAddr, u64>,
    lost: u64,
}

fn serve(listen: SocketAddr, coordination: &str) -> io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, stop.clone())?;
    let mut restarter = RestartConfig::new().coordination_socket(coordination).build()?;
    let socket = restarter.sockets().udp_socket("game", listen)?;
    setsockopt(&socket, sockopt::RcvBuf, &ROOM)?;
    let mut world = inherited(&restarter)?.unwrap_or_else(|| World { next: now(), ..World::default() });
    restarter.ready()?;
    let _ = writeln!(io::stdout(), "listening on {}, pid {}", socket.local_addr()?, std::process::id());
    let mut is_frozen = false;
    while !stop.load(Ordering::Relaxed) {
        // In the place of a sleep until the next tick. A game that stands still waits for the outcome.
        let left = if is_frozen { Duration::MAX } else { world.next.saturating_sub(now()) };
        match restarter.wait(left) {
            Some(Event::StateRequested(mut handover)) => {
                is_frozen = true;
                if handover.bytes("world", &world.save()).is_ok() {
                    handover.send();
                }
            }
            Some(Event::Failed(_) | Event::Resumed(_)) => is_frozen = false,
            Some(Event::HandedOff(_)) => is_frozen = true,
            Some(Event::Completed(_)) => return Ok(()),
            Some(_) => {}
            None if is_frozen => {}
            None => world.play_one_tick(&socket)?,
        }
    }
    restarter.stop();
    Ok(())
}

/// The world of the predecessor, if there is one.
fn inherited(restarter: &Restarter) -> io::Result<Option<World>> {
    let Some(predecessor) = restarter.predecessor() else { return Ok(None) };
    let world = predecessor.receive(LIMIT)?.bytes("world")?;
    Ok(world.as_deref().and_then(World::load))
}

impl World {
    fn play_one_tick(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            let (length, player) = match socket.recv_from(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                received => received?,
            };
            let Some(number) = buffer[..length].first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else { continue };
            let expected = self.players.entry(player).or_insert(0);
            self.lost += number.saturating_sub(*expected);
            *expected = (*expected).max(number.saturating_add(1));
        }
        let late = now().saturating_sub(self.next).as_nanos() / TICK.as_nanos();
        self.skipped += late as u64;
        self.tick += 1 + late as u64;
        self.next += TICK * (1 + late as u32);
        for (player, expected) in &self.players {
            let snapshot = [self.tick, *expected, self.lost, self.skipped].map(u64::to_be_bytes).concat();
            // What the kernel does not take, the next tick makes up for.
            let _ = socket.send_to(&snapshot, player);
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        let mut text = format!("{} {} {} {}", self.tick, self.next.as_nanos(), self.skipped, self.lost);
        self.players.iter().for_each(|(player, expected)| text += &format!("\n{player} {expected}"));
        text.into_bytes()
    }

    /// `None`: it is none.
    fn load(bytes: &[u8]) -> Option<World> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let numbers: Vec<u64> = lines.next()?.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [tick, next, skipped, lost] = numbers[..] else { return None };
        let player = |line: &str| {
            let (player, expected) = line.split_once(' ')?;
            Some((player.parse().ok()?, expected.parse().ok()?))
        };
        let players = lines.map(player).collect::<Option<_>>()?;
        Some(World { tick, next: Duration::from_nanos(next), skipped, players, lost })
    }
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

// --- the players ---

struct Player {
    socket: UdpSocket,
    /// How many inputs were sent, and how many of them the server has seen.
    sent: u64,
    seen: u64,
}

/// Each player sends one input for each snapshot: the socket has room for all of them while nobody reads it.
fn play(restarts: usize) -> Result<bool, Box<dyn Error>> {
    let mut service = Service::start(&[])?;
    let mut players = Vec::new();
    for _ in 0..PLAYERS {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(service.address)?;
        socket.set_nonblocking(true)?;
        socket.send(&0_u64.to_be_bytes())?;
        players.push(Player { socket, sent: 1, seen: 0 });
    }
    let mut told = [0; 4];
    turns(&mut players, &mut told, 30)?;
    for _ in 0..restarts {
        std::thread::scope(|scope| {
            let restart = scope.spawn(|| service.restart().map_err(|error| error.to_string()));
            while !restart.is_finished() {
                turns(&mut players, &mut told, 1)?;
            }
            match restart.join() {
                Ok(Ok(None)) => turns(&mut players, &mut told, 10),
                other => Err(format!("the restart: {other:?}").into()),
            }
        })?;
    }
    let unseen: u64 = players.iter().map(|player| player.sent - player.seen).sum();
    service.stop()?;
    let [tick, _, lost, skipped] = told;
    let inputs: u64 = players.iter().map(|player| player.sent).sum();
    println!("players={PLAYERS} restarts={restarts} ticks={tick} inputs={inputs} lost={} skipped_ticks={skipped}", lost + unseen);
    Ok(lost + unseen == 0)
}

/// Until each player has had so many snapshots that show its last input.
fn turns(players: &mut [Player], told: &mut [u64; 4], count: u64) -> Result<(), Box<dyn Error>> {
    let mut buffer = [0; 64];
    let mut last = Instant::now();
    let goals: Vec<u64> = players.iter().map(|player| player.seen + count).collect();
    while players.iter().zip(&goals).any(|(player, goal)| player.seen < *goal || player.seen < player.sent) {
        for (player, goal) in players.iter_mut().zip(&goals) {
            while let Ok(32) = player.socket.recv(&mut buffer) {
                let number = |at: usize| buffer[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
                let snapshot = [number(0), number(8), number(16), number(24)];
                if snapshot[0] > told[0] {
                    *told = snapshot;
                }
                player.seen = player.seen.max(snapshot[1]);
                last = Instant::now();
                if player.seen == player.sent && player.seen < *goal {
                    player.socket.send(&player.sent.to_be_bytes())?;
                    player.sent += 1;
                }
            }
        }
        if last.elapsed() > LIMIT * 4 {
            return Err("the server is silent".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
