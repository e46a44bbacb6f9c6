//! What of the world outlives this process: the accounts of the players, their connections, and the
//! tick.
//!
//! A guard or systemd holds it while the service is dead. Successors get it too: of a player that is
//! handed over, the account is where it was, and its connection is [resumed](Keeping::resume) when it
//! is first touched. So that costs no time in the freeze.
//! Knows: the ledger and the keeper. Does not know: who is where in the world.

use super::kept::{self, Kept};
use mio::net::TcpStream;
use nix::sys::memfd::{MFdFlags, memfd_create};
use pollflip::ledger::{Ledger, NoAccount, Recovered, Scope};
use pollflip::{Keeper, Restarter};
use std::fs::File;
use std::io;
use std::net;
use std::os::unix::fs::FileExt;

const LEDGER: &str = "ledger";
const TICK: &str = "tick";

pub(crate) struct Keeping {
    keeper: Keeper,
    ledger: Ledger,
    /// Eight bytes. No process maps it.
    tick: File,
}

impl Keeping {
    /// Takes what a process before has kept, be it the predecessor or one that was killed, or begins
    /// anew, with room for so many players.
    pub(crate) fn new(restarter: &Restarter, seats: usize) -> io::Result<Self> {
        let keeper = restarter.keeper();
        let ledger = match keeper.take(LEDGER).map(|file| Ledger::open(kept::NAME, file)) {
            Some(Ok(ledger)) => ledger,
            // The predecessor goes on with it.
            Some(Err(error)) if restarter.predecessor().is_some() => return Err(error),
            // Of another release, or damaged: its players have to come again, and the game goes on.
            _ => Ledger::new(kept::NAME, seats, kept::CAPACITY)?,
        };
        keeper.keep(LEDGER, &ledger)?;
        let tick = match keeper.take(TICK) {
            Some(file) => file.into(),
            None => File::from(memfd_create(TICK, MFdFlags::MFD_CLOEXEC)?),
        };
        keeper.keep(TICK, &tick)?;
        Ok(Self { keeper, ledger, tick })
    }

    /// The tick that the process before was at.
    pub(crate) fn tick(&self) -> u64 {
        let mut bytes = [0; 8];
        self.tick.read_exact_at(&mut bytes, 0).map_or(0, |()| u64::from_le_bytes(bytes))
    }

    /// Before anybody is told of it: no player may see the time go back.
    pub(crate) fn set_tick(&self, tick: u64) -> io::Result<()> {
        self.tick.write_all_at(&tick.to_le_bytes(), 0)
    }

    /// A new player. First its connection is kept, then it has an account: killed in between, the
    /// connection is [untouched](Recovered::Untouched).
    pub(crate) fn begin(&self, stream: TcpStream) -> io::Result<Kept> {
        if let Err(error) = self.keeper.keep_stream(&stream) {
            log::warn!("a player is lost if this process is killed: {error}");
        }
        self.ledger.begin(stream, &Kept::first_record()).map(Kept::new).map_err(|failed| self.end_failed(failed))
    }

    /// A connection that was handed over, and is not resumed yet.
    pub(crate) fn keep(&self, stream: &TcpStream) {
        if let Err(error) = self.keeper.keep_stream(stream) {
            log::warn!("a player is lost if this process is killed: {error}");
        }
    }

    /// Goes on with a player where it was, byte for byte. The connection comes back if that cannot be.
    pub(crate) fn resume(&self, stream: TcpStream) -> io::Result<Result<Kept, TcpStream>> {
        Ok(match self.ledger.recover(stream).map_err(|failed| self.end_failed(failed))? {
            Recovered::Even(account) | Recovered::Behind(account) => Ok(Kept::new(account)),
            // The process before was killed just after it had accepted it.
            Recovered::Untouched(stream) => Ok(self.begin(stream)?),
            // Over, dropped because the process before died of it, or read past the ledger.
            other => Err(other.into_connection()),
        })
    }

    /// Of a connection that is only dropped the keeper has a copy.
    fn end_failed(&self, failed: NoAccount<TcpStream>) -> io::Error {
        self.keeper.forget_stream(&failed.connection);
        failed.error
    }

    /// The players of a process that was killed. `None`: there was no such process.
    pub(crate) fn survivors(&self, restarter: &mut Restarter) -> io::Result<Option<Vec<Kept>>> {
        let Some(mut survivors) = restarter.survivors() else { return Ok(None) };
        let judgement = self.ledger.judge(survivors.cause())?;
        if judgement.scope != Scope::All && !judgement.is_strike {
            survivors.absolve();
        }
        let mut players = Vec::new();
        for survivor in survivors.streams() {
            match self.resume(TcpStream::from_std(net::TcpStream::from(survivor)))? {
                Ok(player) => players.push(player),
                Err(stream) => self.keeper.forget_stream(&stream),
            }
        }
        Ok(Some(players))
    }

    /// Closes the accounts of those who have not survived: all others are resumed.
    pub(crate) fn close_the_rest(&self) -> io::Result<()> {
        self.ledger.close_unclaimed().map(drop)
    }

    /// What is kept does not keep this process from serving.
    pub(crate) fn serves(&self) {
        self.ledger.serves();
    }

    /// Ends a connection. Its peer gets the end, although others have it open.
    pub(crate) fn end(&self, player: Result<Kept, TcpStream>) {
        let stream = player.map_or_else(|stream| stream, |player| player.into_account().close());
        self.keeper.forget_stream(&stream);
    }
}
