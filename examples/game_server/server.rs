//! The server that is restarted with all its players: one thread, one mio loop, twenty ticks a second.
//!
//! From `StateRequested` to `HandedOff` or `Failed` the world is frozen: no tick, no byte read or written, for the connections may be
//! the successor's already. A successor is frozen too, until it has been granted the service. What is told of a player meanwhile is
//! remembered, and `thaw` looks at it: it is still in the kernel.
//! A connection is taken out of the poll before it is closed. Closing alone does not do that while another process has it too.

use super::clock::{self, Moment};
use super::player::Player;
use super::protocol::Update;
use super::states::{State, States};
use super::world::World;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};
use pollflip::{Event, Inheritance, RestartConfig, Restarter};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, process};

const LISTENER: Token = Token(usize::MAX - 1);
const RESTARTER: Token = Token(usize::MAX - 2);

const TICK: Duration = Duration::from_millis(50);
/// Each player is told where it is once in so many ticks.
const TOLD_EVERY: u64 = 20;
/// What waits for a slow client waits in this process: ten thousand buffers of the kernel's own choice would be too much.
const KERNEL_BUFFER: usize = 16 * 1024;
const STATE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) socket: PathBuf,
    /// The states are kept in a memory file, which the successor gets as it is.
    pub(crate) shared: bool,
    /// If this file is there, a successor that has received everything does what it says: it fails, or
    /// breaks a rule.
    pub(crate) fail: Option<PathBuf>,
}

pub(crate) fn serve(options: &Options) -> io::Result<()> {
    let mut restarter = RestartConfig::new().coordination_socket(&options.socket).build()?;
    let listener = restarter.sockets().tcp_listener("game", options.listen)?;
    setsockopt(&listener, sockopt::SndBuf, &KERNEL_BUFFER)?; // for all that are accepted from it
    let address = listener.local_addr()?;

    let states = if options.shared { States::shared()? } else { States::InProcess(Vec::new()) };
    let mut server = Server::new(TcpListener::from_std(listener), World::new(states))?;
    if let Some(predecessor) = restarter.predecessor() {
        match predecessor.receive(STATE_LIMIT) {
            Ok(inheritance) => server.take_over(inheritance).inspect_err(|error| predecessor.refuse(&error.to_string()))?,
            // It has ended, and its players with it: the listener is here, and they may come again. If it lives, `ready` says so.
            Err(error) => log::warn!("{error}"),
        }
    }
    server.fail_if_told(options.fail.as_deref(), &restarter)?;
    server.poll.registry().register(&mut restarter, RESTARTER, Interest::READABLE)?;
    restarter.ready()?;
    clock::tell(Moment::Granted);
    let _ = writeln!(io::stdout(), "listening on {address}");
    server.start_accepting()?;
    server.thaw();
    server.run(&mut restarter)
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    world: World,
    frozen: bool,
    /// For whom something has come while the world was frozen.
    missed: Vec<usize>,
    over: bool,
}

impl Server {
    fn new(listener: TcpListener, world: World) -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, listener, world, frozen: true, missed: Vec::new(), over: false })
    }

    fn run(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut next_tick = Instant::now();
        while !self.over {
            let timeout = next_tick.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    RESTARTER => {
                        while let Some(event) = restarter.poll() {
                            self.restart(event)?;
                        }
                    }
                    LISTENER if self.frozen => {} // looked at when it thaws
                    LISTENER => self.accept(),
                    Token(number) if self.frozen => self.missed.push(number),
                    Token(number) => self.drive(number),
                }
            }
            if Instant::now() >= next_tick {
                // Ticks that were missed are not made up for.
                next_tick = (next_tick + TICK).max(Instant::now());
                if !self.frozen {
                    self.tick();
                }
            }
        }
        Ok(())
    }

    /// What a restart means for this server.
    fn restart(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::StateRequested(handover) => {
                clock::tell(Moment::Frozen);
                self.frozen = true;
                // What goes wrong comes back as `Failed`.
                let _ = self.world.save(handover);
                clock::tell(Moment::Collected);
            }
            Event::Failed(_) if self.frozen => {
                self.thaw();
                clock::tell(Moment::Thawed);
            }
            Event::HandedOff(_) => self.let_go()?,
            // On probation this server would be back without its players: they have gone with the successor.
            Event::Resumed(_) => {
                self.start_accepting()?;
                self.thaw();
            }
            Event::Completed(_) => self.over = true,
            _ => {}
        }
        Ok(())
    }

    fn thaw(&mut self) {
        self.frozen = false;
        std::mem::take(&mut self.missed).into_iter().for_each(|number| self.drive(number));
        self.accept();
    }

    fn let_go(&mut self) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.deregister(&mut self.listener)?;
        for mut player in self.world.players.drain() {
            registry.deregister(&mut player.stream)?;
        }
        Ok(())
    }

    /// Makes a world of what the predecessor has handed over, and watches all connections.
    fn take_over(&mut self, inheritance: Inheritance) -> io::Result<()> {
        clock::tell(Moment::Received);
        let came = self.world.complete(inheritance)?;
        clock::tell(Moment::Adopted);
        came.into_iter().try_for_each(|number| self.watch(number))?;
        clock::tell(Moment::Registered);
        Ok(())
    }

    fn watch(&mut self, number: usize) -> io::Result<()> {
        let Some(player) = self.world.players.get_mut(number) else { return Ok(()) };
        let interest = interest(player.has_more_to_say());
        self.poll.registry().register(&mut player.stream, Token(number), interest)
    }

    fn start_accepting(&mut self) -> io::Result<()> {
        self.poll.registry().register(&mut self.listener, LISTENER, Interest::READABLE)
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => continue,
                    _ => return log::warn!("cannot accept now: {error}"),
                },
            };
            let _ = stream.set_nodelay(true);
            let number = match self.world.add(Player::new(stream)) {
                Ok(number) => number,
                Err(error) => return log::warn!("cannot keep a player's state: {error}"),
            };
            match self.watch(number) {
                Ok(()) => self.visit(number, Player::tell),
                Err(error) => {
                    log::warn!("cannot watch a player: {error}");
                    self.world.remove(number);
                }
            }
        }
    }

    fn drive(&mut self, number: usize) {
        self.visit(number, Player::drive);
    }

    fn tick(&mut self) {
        self.world.tick += 1;
        // Nobody else is touched: where a player is follows from the tick.
        let numbers = (0..self.world.players.end()).skip((self.world.tick % TOLD_EVERY) as usize);
        for number in numbers.step_by(TOLD_EVERY as usize) {
            self.visit(number, Player::tell);
        }
    }

    /// Does something with a player, if it is still there and stays, and keeps watching for what it waits for.
    fn visit(&mut self, number: usize, what: impl FnOnce(&mut Player, &mut State, u64) -> io::Result<()>) {
        let waited = self.world.players.get(number).is_some_and(Player::has_more_to_say);
        let Some(result) = self.world.visit(number, what) else { return };
        let player = self.world.players.get_mut(number).filter(|player| player.has_more_to_say() != waited);
        let watched = player.map_or(Ok(()), |player| self.poll.registry().reregister(&mut player.stream, Token(number), interest(!waited)));
        if let Err(error) = result.and(watched) {
            log::debug!("player {number} is gone: {error}");
            self.remove(number);
        }
    }

    fn remove(&mut self, number: usize) {
        let Some(mut player) = self.world.remove(number) else { return };
        if let Err(error) = self.poll.registry().deregister(&mut player.stream) {
            log::warn!("player {number} is still watched: {error}");
        }
    }

    /// For the run: a new version that turns out to be no good when it has everything, or that touches a connection before it may.
    fn fail_if_told(&mut self, file: Option<&Path>, restarter: &Restarter) -> io::Result<()> {
        let (Some(file), Some(predecessor)) = (file, restarter.predecessor()) else { return Ok(()) };
        let Ok(how) = fs::read_to_string(file) else { return Ok(()) };
        fs::remove_file(file)?;
        match how.as_str() {
            "refuse" => {
                predecessor.refuse("this version was told to fail");
                return Err(io::Error::other("this version was told to fail"));
            }
            "read" => while !self.world.players.iter().any(|(_, player)| (&player.stream).read(&mut [0; 16]).is_ok()) {},
            "write" => self.world.players.iter().try_for_each(|(_, player)| (&player.stream).write_all(&[0; Update::LENGTH]))?,
            _ => process::exit(3),
        }
        Ok(())
    }
}

/// Ten thousand sockets that could be written to are no news.
fn interest(has_more_to_say: bool) -> Interest {
    if has_more_to_say { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}
