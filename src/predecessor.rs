//! The successor's side of the lifeline, and the one moment that every process has: when it is ready.
//!
//! Knows: the lifeline that this process was born with, adopted once into one process-wide slot, and whether the program has said that
//! it is ready. Does not know: sockets, the state machine, the loop. Whoever reads the lifeline, the loop or a thread that waits, leaves
//! what it found in one inbox and wakes the loop.

mod hello;
mod link;
mod origin;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::error::Error;
use crate::handover::Inheritance;
use crate::lifeline::Lifeline;
use crate::sys;
use crate::systemd;
use crate::wire::{self, LIFELINE_VARIABLE, Message, Place};

pub(crate) use hello::{Coordination, Gifts};
pub(crate) use link::{Link, Standing};

/// Tells systemd and the predecessor that this process can serve: the same as [`Restarter::ready`](crate::Restarter::ready), from
/// anywhere, any number of times.
///
/// Blocks until the predecessor has granted the service, which takes it one turn of its loop. Without one it does not block: a systemd that
/// is too busy to be told is told by the next calls of [`Restarter::poll`](crate::Restarter::poll), for which the descriptor becomes
/// readable.
///
/// # Errors
///
/// [`Error::GivenUp`]: the predecessor has given this process up, which should then end. [`Error::Rule`]: it is too early, for no
/// [`Restarter`](crate::Restarter) or [`RestartTask`](crate::RestartTask) has been built yet, or the state that was asked for has not been
/// taken.
pub fn startup_complete() -> Result<(), Error> {
    let link = {
        let startup = startup();
        if !startup.built {
            return Err(Error::rule("startup_complete comes too early: build the Restarter first"));
        }
        startup.link.clone()
    };
    if let Some(link) = link {
        if !link.say_ready() {
            let why = "the state that was asked for has not been taken yet: wait for Event::Inherited, or receive it, before this process is ready";
            return Err(Error::rule(why));
        }
        let result = link.wait_until_granted();
        // What else has come meanwhile is the loop's.
        wake_loop(&startup());
        result?;
    }
    opened();
    Ok(())
}

/// The process that started this one. It serves until [`startup_complete`] or [`Restarter::ready`](crate::Restarter::ready).
///
/// Cheap to clone, and usable from any thread.
#[derive(Debug, Clone)]
pub struct Predecessor(Arc<Link>);

impl Predecessor {
    pub(crate) fn new(link: Arc<Link>) -> Predecessor {
        Predecessor(link)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Tells it, whoever asked for the restart, and systemd how far this process is: a line for people, such as "warming the cache, 40%". What
    /// comes while some two hundred lines have not been read is left out.
    pub fn progress(&self, text: &str) {
        // What nobody reads must not pile up, nor stand in the way of what this process says last.
        if self.0.line.has_room() {
            self.0.say(&Message::Progress { text: wire::line(text) });
        }
    }

    /// Asks for the state, for programs with a loop: it comes as [`Event::Inherited`](crate::Event::Inherited). The predecessor freezes from
    /// then on until this process is ready, so do the slow initialisation first. A [`RestartTask`](crate::RestartTask) has no use for it but
    /// in [`next_event`](crate::RestartTask::next_event).
    pub fn pull(&self) {
        if !self.0.pull() {
            log::warn!(target: "pollflip", "pull comes too late: this process has said that it is ready");
        }
    }

    /// Asks for the state and waits for it.
    ///
    /// The predecessor freezes meanwhile, so the limit is for it to answer, not for this process to initialise: some seconds.
    ///
    /// # Errors
    ///
    /// [`Error::Alone`]: the predecessor has ended before it had given all of it. This process can go on without the state.
    /// [`Error::TimedOut`]: the limit has passed. Anything else: what came cannot be used, for want of descriptors, say, of which the
    /// predecessor is told. This process should then [refuse](Predecessor::refuse), with the reason, or end.
    pub fn receive(&self, limit: Duration) -> Result<Inheritance, Error> {
        let result = self.0.wait_for_state(limit);
        // What else has come meanwhile is the loop's.
        wake_loop(&startup());
        result
    }

    /// Tells it, and whoever asked for the restart, that this process will not take over, and why. It then kills this process.
    pub fn refuse(&self, reason: &str) {
        self.0.refuse(reason);
    }
}

/// What there is once in a process.
#[derive(Debug)]
struct Startup {
    /// Whether the environment has been looked at for a lifeline.
    adopted: bool,
    /// Why the lifeline could not be used: this process is a successor all the same, and no first generation.
    unusable: Option<String>,
    link: Option<Arc<Link>>,
    /// Whether a restarter lives in this process.
    claimed: bool,
    /// Whether one has been built, ever.
    built: bool,
    /// Whether the program has said that it is ready and, with a predecessor, has been granted the service.
    ready: bool,
    /// The service is a successor's for good.
    handed_over: bool,
    waker: Option<Arc<Waker>>,
}

static STARTUP: Mutex<Startup> = Mutex::new(Startup::NEW);

impl Startup {
    const NEW: Startup =
        Startup { adopted: false, unusable: None, link: None, claimed: false, built: false, ready: false, handed_over: false, waker: None };
}

fn startup() -> MutexGuard<'static, Startup> {
    STARTUP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to be the one restarter of this process, given back when dropped.
#[derive(Debug)]
pub(crate) struct Claim(());

impl Claim {
    pub(crate) fn new() -> Result<Claim, Error> {
        let mut startup = startup();
        if startup.handed_over {
            return Err(Error::rule(
                "this process has handed the service over for good: another one serves, and this one restarts nothing any more",
            ));
        }
        if std::mem::replace(&mut startup.claimed, true) {
            return Err(Error::rule("another Restarter or RestartTask lives in this process; there can be one at a time"));
        }
        Ok(Claim(()))
    }

    /// The lifeline that this process was born with, if it is a successor. The gifts come with the first call of the process.
    pub(crate) fn adopt_lifeline(&self) -> Result<(Option<Arc<Link>>, Gifts), Error> {
        let mut startup = startup();
        let mut gifts = Gifts::default();
        if !std::mem::replace(&mut startup.adopted, true)
            && let Some(socket) = inherited_lifeline()
        {
            // The predecessor has about as many descriptors as the number says under which it made this one, and they may all come.
            sys::enlarge_descriptor_table(socket.as_raw_fd());
            let (link, given) = Link::read_hello(Lifeline::from(socket)).inspect_err(|why| startup.unusable = Some(why.to_string()))?;
            link.introduce();
            startup.link = Some(Arc::new(link));
            gifts = given;
        }
        match &startup.unusable {
            Some(why) => Err(Error::rule(why.clone())),
            None => Ok((startup.link.clone(), gifts)),
        }
    }

    /// Whether this process has had a restarter before.
    pub(crate) fn has_built(&self) -> bool {
        startup().built
    }

    /// From now on this process can be ready; the loop is woken when it is.
    pub(crate) fn built(&self, waker: Arc<Waker>) {
        let mut startup = startup();
        startup.built = true;
        startup.waker = Some(waker);
    }

    /// There will be no other restarter in this process: two would have successors.
    pub(crate) fn hand_over(&self) {
        startup().handed_over = true;
    }

    /// Whether the program is ready and has been granted the service.
    pub(crate) fn is_ready(&self) -> bool {
        startup().ready
    }
}

/// A test goes on as another process would begin.
pub(crate) fn begin_anew() {
    systemd::begin_anew();
    *startup() = Startup::NEW;
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut startup = startup();
        startup.claimed = false;
        startup.waker = None;
    }
}

/// The program is ready, and its predecessor, if it lives, has granted it the service.
pub(crate) fn opened() {
    // One thread at a time says so to systemd, and the rest goes on when that is done: a restart that the loop begins must come second.
    // Nobody waits for the manager meanwhile, nor does the loop for this lock, if it is not the one who says so.
    static SAYING: Mutex<()> = Mutex::new(());
    let _one = SAYING.lock().unwrap_or_else(PoisonError::into_inner);
    let first = {
        let startup = startup();
        !startup.ready && startup.link.is_none()
    };
    if first {
        // For a successor the predecessor tells it, which systemd still takes for the service.
        systemd::ready();
    }
    let mut startup = startup();
    startup.ready = true;
    // It is also the loop that tells systemd later, if that was busy.
    wake_loop(&startup);
}

fn wake_loop(startup: &Startup) {
    if let Some(waker) = &startup.waker
        && let Err(error) = waker.wake()
    {
        log::warn!("cannot wake the loop: {error}");
    }
}

/// The lifeline that the environment names, if it is there and the same. Anything else is not ours: helpers inherit the variable.
fn inherited_lifeline() -> Option<OwnedFd> {
    if let Some(lifeline) = sys::simulation::born_with() {
        return lifeline;
    }
    let text = std::env::var(LIFELINE_VARIABLE).ok()?;
    let place = Place::parse(&text).filter(|place| sys::identity(place.number) == Some(place.identity) && is_seqpacket(place.number));
    let named = place.and_then(|place| sys::adopt(place.number).ok());
    if named.is_none() {
        log::debug!("{LIFELINE_VARIABLE}={text} names no lifeline of this process; it is ignored");
    }
    named
}

fn is_seqpacket(number: RawFd) -> bool {
    sys::peek(number, |fd| getsockopt(&fd, sockopt::SockType) == Ok(SockType::SeqPacket)).unwrap_or(false)
}
