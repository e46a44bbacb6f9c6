//! The server that is restarted with all its players: one thread, one mio loop, a hundred ticks a second.
//!
//! The connections go ahead, while the server serves them: see `copying.rs`. The successor registers each as it comes, and neither reads
//! nor writes it. So what is left for the freeze does not grow with the number of players.
//! From `StateRequested` to `Failed` the world is frozen: no tick, no byte read or written, for the connections may be the successor's
//! already, and nothing but the restart wakes this process. What comes for players meanwhile waits in the poll.
//! A connection is taken out of the poll before it is closed, and shut down: closing alone does neither while another process has it too.
//! The old process drops the players at `Completed`, when it ends. At `HandedOff` the successor needs the processor.
//! With `--keep` the players outlive a kill: see `keeping.rs` and `kept.rs`.

use super::clock::{self, Moment};
use super::copying::Copying;
use super::keeping::Keeping;
use super::player::{Occasion, Player};
use super::states::States;
use super::world::World;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};
use pollflip::{Arrival, Event, Inheritance, Predecessor, RestartConfig, Restarter, Sweep};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LISTENER: Token = Token(usize::MAX - 1);
const RESTARTER: Token = Token(usize::MAX - 2);

const TICK: Duration = Duration::from_millis(10);
/// Each player is told where it is once in so many ticks.
const TOLD_EVERY: u64 = 100;
/// What waits for a slow client waits in this process: ten thousand buffers of the kernel's own choice would be too much.
const KERNEL_BUFFER: usize = 16 * 1024;
/// How long the predecessor may take to give its players ahead, and to freeze and give the rest.
const COPY_LIMIT: Duration = Duration::from_secs(30);
const STATE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) socket: PathBuf,
    /// The states are kept in a memory file, which the successor gets as it is.
    pub(crate) shared: bool,
    /// Players are given ahead of the freeze, if the successor asks for them.
    pub(crate) precopy: bool,
    /// The players outlive this process; there is room for so many.
    pub(crate) keep: Option<usize>,
}

/// `before_ready` may have its own opinion of a successor that has everything.
pub(crate) fn serve(options: &Options, before_ready: impl FnOnce(&Restarter, &World) -> io::Result<()>) -> io::Result<()> {
    let mut restarter = RestartConfig::new().coordination_socket(&options.socket).keep(options.keep.is_some()).build()?;
    let keeping = options.keep.map(|seats| Keeping::new(&restarter, seats)).transpose()?;
    let listener = restarter.sockets().tcp_listener("game", options.listen)?;
    setsockopt(&listener, sockopt::SndBuf, &KERNEL_BUFFER)?; // for all that are accepted from it
    let address = listener.local_addr()?;

    let states = if options.shared { States::shared()? } else { States::InProcess(Vec::new()) };
    let mut server = Server::new(TcpListener::from_std(listener), World::new(states, keeping), options.precopy)?;
    if let Some(predecessor) = restarter.predecessor() {
        match server.receive(&predecessor) {
            Ok(inheritance) => server.take_over(inheritance).inspect_err(|error| predecessor.refuse(&error.to_string()))?,
            Err(error) => {
                // It has ended: the listener is here, and its players learn of the end when what came of them is dropped. They may
                // come again. If it lives, `ready` says so.
                log::warn!("{error}");
                server.world.drop_what_is_not_kept()?;
            }
        }
    }
    server.recover(&mut restarter)?;
    before_ready(&restarter, &server.world)?;
    server.poll.registry().register(&mut restarter, RESTARTER, Interest::READABLE)?;
    restarter.ready()?;
    server.world.serves();
    clock::tell(Moment::Granted);
    let _ = writeln!(io::stdout(), "listening on {address}");
    server.start_accepting()?;
    server.frozen = false;
    server.go_on();
    server.run(&mut restarter)
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    world: World,
    /// While players go ahead.
    copying: Option<Copying>,
    precopy: bool,
    frozen: bool,
    over: bool,
}

impl Server {
    fn new(listener: TcpListener, world: World, precopy: bool) -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, listener, world, copying: None, precopy, frozen: true, over: false })
    }

    fn run(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut next_tick = Instant::now() + TICK;
        while !self.over {
            let timeout = next_tick.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    RESTARTER => {} // when all that was told of players has been looked at
                    LISTENER => self.accept(),
                    Token(number) => self.visit(number, Occasion::Ready),
                }
            }
            while let Some(event) = restarter.poll() {
                self.restart(event)?;
            }
            // Only the restart wakes this process then. What comes for players waits in the poll.
            while self.frozen && !self.over {
                if let Some(event) = restarter.wait(Duration::MAX) {
                    self.restart(event)?;
                }
            }
            if !self.over && Instant::now() >= next_tick {
                // Ticks that were missed are not made up for.
                next_tick = (next_tick + TICK).max(Instant::now());
                self.tick();
            }
        }
        Ok(())
    }

    /// What a restart means for this server.
    fn restart(&mut self, event: Event) -> io::Result<()> {
        match event {
            // What goes wrong in one of these three comes back as `Failed`.
            Event::PrecopyRequested(precopy) if self.precopy => {
                self.copying = Copying::begin(precopy, &self.world).ok();
                self.go_on_copying();
            }
            Event::PrecopyRoom => self.go_on_copying(),
            Event::StateRequested(handover) => {
                clock::tell(Moment::Frozen);
                self.frozen = true;
                let _ = self.world.save(handover, self.copying.take());
                clock::tell(Moment::Collected);
            }
            Event::Failed(_) => {
                self.copying = None;
                if self.frozen {
                    self.frozen = false;
                    clock::tell(Moment::Thawed);
                }
            }
            Event::Completed(_) => self.over = true,
            _ => {}
        }
        Ok(())
    }

    fn go_on_copying(&mut self) {
        if let Some(copying) = &mut self.copying {
            let _ = copying.go_on(&self.world);
        }
    }

    /// Takes the players ahead, and what is left when the predecessor has frozen.
    fn receive(&mut self, predecessor: &Predecessor) -> io::Result<Inheritance> {
        if predecessor.receive_precopy(COPY_LIMIT, |arrival| self.arrive(arrival))? {
            self.sweep()?;
        }
        Ok(predecessor.receive_each(STATE_LIMIT, |arrival| self.arrive(arrival))?)
    }

    /// The poll has told of what came while players went ahead; the first poll after the grant need not
    /// go through all that. The predecessor has dealt with most of it: what is still there is told
    /// again of a player that is registered anew.
    fn sweep(&mut self) -> io::Result<()> {
        let mut sweep = Sweep::default();
        sweep.look(&mut self.poll)?;
        sweep.into_iter().try_for_each(|event| self.watch_again(event.token().0))
    }

    fn arrive(&mut self, arrival: Arrival) -> io::Result<()> {
        match arrival {
            Arrival::Given(name, descriptor) => self.world.take(&name, descriptor)?.map_or(Ok(()), |number| self.watch(number)),
            Arrival::Gone(name) => {
                World::number_of(&name).into_iter().for_each(|number| self.remove(number));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Makes a world of what the predecessor has handed over: the connections are here.
    fn take_over(&mut self, inheritance: Inheritance) -> io::Result<()> {
        clock::tell(Moment::Received);
        self.world.complete(inheritance)?;
        clock::tell(Moment::Adopted);
        let unfinished: Vec<_> = self.world.unfinished.iter().copied().collect();
        unfinished.into_iter().try_for_each(|number| self.watch_again(number))?;
        clock::tell(Moment::Registered);
        Ok(())
    }

    /// Takes the players of a process that was killed.
    fn recover(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        let known = self.world.players.end();
        self.world.recover(restarter)?;
        (known..self.world.players.end()).try_for_each(|number| self.watch(number))
    }

    /// What a process before has left undone. That a socket is writable may have been told already.
    fn go_on(&mut self) {
        for number in self.world.left_undone() {
            self.visit(number, Occasion::Ready);
        }
    }

    fn watch(&mut self, number: usize) -> io::Result<()> {
        let Some(player) = self.world.players.get_mut(number) else { return Ok(()) };
        let interest = interest(player.has_more_to_say());
        self.poll.registry().register(player.stream_mut(), Token(number), interest)
    }

    fn watch_again(&mut self, number: usize) -> io::Result<()> {
        let Some(player) = self.world.players.get_mut(number) else { return Ok(()) };
        let interest = interest(player.has_more_to_say());
        self.poll.registry().reregister(player.stream_mut(), Token(number), interest)
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
            let number = match self.world.add(stream) {
                Ok(number) => number,
                Err(error) => return log::warn!("cannot keep a player's state: {error}"),
            };
            match self.watch(number) {
                Ok(()) => {
                    if let Some(copying) = &mut self.copying {
                        let _ = copying.came(number, &self.world);
                    }
                    self.visit(number, Occasion::Tick);
                }
                Err(error) => {
                    log::warn!("cannot watch a player: {error}");
                    self.world.remove(number);
                }
            }
        }
    }

    fn tick(&mut self) {
        if let Err(error) = self.world.set_tick(self.world.tick + 1) {
            return log::warn!("the time stands still: {error}");
        }
        // Nobody else is touched: where a player is follows from the tick.
        let numbers = (0..self.world.players.end()).skip((self.world.tick % TOLD_EVERY) as usize);
        for number in numbers.step_by(TOLD_EVERY as usize) {
            self.visit(number, Occasion::Tick);
        }
    }

    /// Does what there is to do with a player, if it is still there and stays, and keeps watching for what it waits for.
    fn visit(&mut self, number: usize, occasion: Occasion) {
        let waited = self.world.players.get(number).is_some_and(Player::has_more_to_say);
        let Some(result) = self.world.visit(number, occasion) else { return };
        let player = self.world.players.get_mut(number).filter(|player| player.has_more_to_say() != waited);
        let watched =
            player.map_or(Ok(()), |player| self.poll.registry().reregister(player.stream_mut(), Token(number), interest(!waited)));
        if let Err(error) = result.and(watched) {
            log::debug!("player {number} is gone: {error}");
            self.remove(number);
        }
    }

    fn remove(&mut self, number: usize) {
        let Some(mut player) = self.world.remove(number) else { return };
        if let Err(error) = self.poll.registry().deregister(player.stream_mut()) {
            log::warn!("player {number} is still watched: {error}");
        }
        self.world.end(player);
        if let Some(copying) = &mut self.copying {
            copying.gone(number);
        }
    }
}

/// Ten thousand sockets that could be written to are no news.
fn interest(has_more_to_say: bool) -> Interest {
    if has_more_to_say { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}
