//! The successor's side of the lifeline, and the one moment that every process has: when it is ready.
//!
//! Knows: the lifeline that this process was born with, adopted once into one process-wide slot, and the takeover machine that decides
//! what follows from what comes over it. Does not know: sockets, restarts, the loop. The loop reads the lifeline, or a thread that waits,
//! which then wakes the loop.

mod group;
mod hello;
mod link;
mod provenance;
mod takeover;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::error::Error;
use crate::handover::{Arrival, Inheritance};
use crate::lifeline::Lifeline;
use crate::machine::{Prompt, Takeover, TakeoverInput};
use crate::sys::{self, Origin, PerProcess};
use crate::systemd;
use crate::wire::{self, BIRTH_VARIABLE, Birth, LIFELINE_VARIABLE, Message, Place};

pub(crate) use group::GroupGift;
pub(crate) use hello::{Coordination, Gifts};
pub(crate) use link::{Ahead, Link};
pub(crate) use takeover::SharedTakeover;

/// Tells systemd and the predecessor that this process can serve: the same as [`Restarter::ready`](crate::Restarter::ready), from
/// anywhere, any number of times.
///
/// Blocks until the predecessor has granted the service, which takes one turn of its loop. Without one it does not block: a systemd that
/// is too busy to be told is told by the next calls of [`Restarter::poll`](crate::Restarter::poll), for which the descriptor becomes
/// readable.
///
/// It speaks for the process, and not for one restarter: after a [`Restarter`](crate::Restarter)
/// has been dropped, it still returns `Ok` in a process that was ready.
///
/// # Errors
///
/// [`Error::GivenUp`]: the predecessor has given this process up, which should then end. [`Error::TooEarly`]: no
/// [`Restarter`](crate::Restarter) or [`RestartTask`](crate::RestartTask) has been built yet, or the state that was asked for has not been
/// taken.
pub fn startup_complete() -> Result<(), Error> {
    let (takeover, link) = {
        let startup = startup();
        match &startup.takeover {
            Some(takeover) if startup.built => (takeover.clone(), startup.link.clone()),
            _ => return Err(Error::TooEarly("startup_complete comes too early: build the Restarter first".into())),
        }
    };
    if !say_ready(&takeover, link.as_deref()) {
        let why = if link.is_some_and(|link| link.comes_ahead()) {
            "what has gone ahead is of no use without its state: receive that before this process is ready"
        } else {
            "the state that was asked for has not been taken yet: wait for Event::Inherited, or receive it, before this process is ready"
        };
        let error = Error::TooEarly(why.into());
        tell_trouble(&error);
        return Err(error);
    }
    let result = link.map_or(Ok(()), |link| link.wait_until_granted());
    // What has come meanwhile is the loop's; it is also the loop that tells systemd later, if that was busy.
    wake_loop(&startup());
    result
}

/// An error that the program gets from this crate before it is ready: should it end for that, the one who asked for
/// the restart is told. Of no use to a predecessor that has said it, or is gone.
pub(crate) fn tell_trouble(error: &Error) {
    // Said by a forked child, it would not be this process's.
    let link = startup().link.clone().filter(|link| link.origin.is_here());
    if let (Some(link), false) = (link, matches!(error, Error::GivenUp { .. } | Error::PredecessorGone { .. })) {
        link.tell_trouble(&error.to_string());
    }
}

/// Says that this process can serve, once; `false`: not yet, for the state that it has asked for has not been taken.
pub(crate) fn say_ready(takeover: &SharedTakeover, link: Option<&Link>) -> bool {
    match link {
        Some(link) => link.say_ready(),
        None => takeover.feed_if(Takeover::may_be_ready, TakeoverInput::SayReady, |prompt| {
            if prompt == Prompt::TellManager {
                // Under the lock: a restart that the loop begins must come second. Nobody waits for the manager meanwhile.
                systemd::ready();
            }
        }),
    }
}

/// The process that started this one. It serves until [`startup_complete`] or [`Restarter::ready`](crate::Restarter::ready).
///
/// Cheap to clone, and usable from any thread. It is the predecessor of this process alone: a forked child's copy says nothing to it, and
/// cannot receive.
///
/// ```no_run
/// use std::time::Duration;
/// use pollflip::{Error, Inheritance, Restarter};
///
/// /// After the slow initialisation, before `ready`. `None`: there is no predecessor.
/// fn inherited(restarter: &Restarter) -> Result<Option<Inheritance>, Error> {
///     let Some(predecessor) = restarter.predecessor() else { return Ok(None) };
///     predecessor.progress("asking for the state");
///     // The one who asked for the restart is told why not.
///     let state = predecessor.receive(Duration::from_secs(5)).inspect_err(|why| predecessor.refuse(&why.to_string()))?;
///     Ok(Some(state))
/// }
/// ```
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

    /// Whether it has ended. Before the grant nobody serves then, and [`ready`](crate::Restarter::ready) has nobody to wait for.
    ///
    /// A program that asks for the state learns of such an end from
    /// [`receive`](Predecessor::receive). A program that asks for none calls this before `ready`,
    /// if it has to know that something may be lost that was not saved. A later end is told by
    /// [`Event::PredecessorGone`](crate::Event::PredecessorGone): what the predecessor has
    /// [kept](crate::Restarter::survivors) is still there then.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), pollflip::Error> {
    /// # let mut restarter = pollflip::RestartConfig::new().build()?;
    /// // Initialised, and about to serve.
    /// if restarter.predecessor().is_some_and(|predecessor| predecessor.has_ended()) {
    ///     println!("the process before has ended in the middle of the restart");
    /// }
    /// restarter.ready()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn has_ended(&self) -> bool {
        let has_ended = self.is_here() && self.0.has_ended();
        if self.is_here() {
            // What else has come is the loop's.
            wake_loop(&startup());
        }
        has_ended
    }

    /// Tells the predecessor how far this process is: a line for people, such as "warming the cache,
    /// 40%". The predecessor passes it on to the one who asked for the restart, and to systemd. While
    /// some two hundred lines have not been read, further ones are left out. A line is cut at 4096
    /// bytes, and then ends in `…`.
    pub fn progress(&self, text: &str) {
        // What nobody reads must not pile up, nor stand in the way of what this process says last.
        if self.is_here() && self.0.line.has_room() {
            self.0.say(&Message::Progress { text: wire::line(text) });
        }
    }

    /// Asks for what can go [ahead](crate::Precopy) of the state, hands it out as it comes, and returns when all of it is here. The
    /// predecessor **serves meanwhile**. Called again before the state is asked for, hands out what has changed since.
    ///
    /// The connections that are handed out belong to the program, and the predecessor still serves
    /// them. The program registers each with its own `Poll`, and does not read it, write it or
    /// change its flags. Until [`ready`](crate::Restarter::ready) has returned, it polls that
    /// `Poll` only as a [`Sweep`](crate::Sweep).
    ///
    /// Returns `false` if the predecessor gives nothing ahead. In both cases the program asks for
    /// the state next: [`ready`](crate::Restarter::ready) is an error before that.
    ///
    /// ```no_run
    /// # use std::{collections::BTreeMap, net::TcpStream, time::Duration};
    /// use pollflip::{Arrival, Error, Predecessor};
    ///
    /// fn load(predecessor: &Predecessor, players: &mut BTreeMap<String, TcpStream>) -> Result<(), Error> {
    ///     predecessor.receive_precopy(Duration::from_secs(30), |arrival| {
    ///         match arrival {
    ///             Arrival::Given(name, descriptor) => drop(players.insert(name, descriptor.into())),
    ///             Arrival::Gone(name) => drop(players.remove(&name)),
    ///             _ => {}
    ///         }
    ///         Ok(())
    ///     })?;
    ///     // The predecessor stands still from here on.
    ///     let mut state = predecessor.receive(Duration::from_secs(1))?;
    ///     for name in state.gone() {
    ///         players.remove(name);
    ///     }
    ///     players.extend(state.drain().map(|(name, descriptor)| (name, descriptor.into())));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`receive_each`](Predecessor::receive_each), [`Error::TooLate`] after the state has been asked for. The program drops what
    /// it has been given, whatever it does then: of a predecessor that has ended, the other ends of these connections learn so.
    pub fn receive_precopy(&self, limit: Duration, each: impl FnMut(Arrival) -> io::Result<()>) -> Result<bool, Error> {
        self.receive_with(|link| link.wait_for_precopy(limit, each))
    }

    /// Asks for what can go [ahead](crate::Precopy) of the state without waiting for it, for programs with a loop: it comes as
    /// [`Event::Arrived`](crate::Event::Arrived), and [`Event::ArrivedAll`](crate::Event::ArrivedAll) when all of it is here. Some thousand
    /// arrivals wait here at most, and the rest in the predecessor. The program then asks for the state by
    /// [`pull`](Predecessor::pull).
    pub fn pull_precopy(&self) {
        if !self.is_here() {
            return;
        }
        self.0.tell_arrivals();
        if !self.0.pull_precopy() {
            log::warn!(target: "pollflip", "pull_precopy comes too late: the state has been asked for");
        }
        wake_loop(&startup());
    }

    /// Asks for the state without waiting for it, for programs with a loop: it comes as
    /// [`Event::Inherited`](crate::Event::Inherited). The predecessor is frozen until this process is
    /// ready, so do the slow initialisation first. With a [`RestartTask`](crate::RestartTask) this is
    /// for programs that take each event by [`next_event`](crate::RestartTask::next_event).
    pub fn pull(&self) {
        if self.is_here() && !self.0.pull() {
            log::warn!(target: "pollflip", "pull comes too late: this process has said that it is ready");
        }
    }

    /// Asks for the state and waits for it.
    ///
    /// The predecessor is frozen meanwhile. The limit is the time that it has to save and send the state:
    /// some seconds. Do the initialisation of this process before.
    ///
    /// # Errors
    ///
    /// - [`Error::PredecessorGone`]: the predecessor has ended before it had given all of the
    ///   state. This process can go on without.
    /// - [`Error::TimedOut`]: the limit has passed. This process should
    ///   [refuse](Predecessor::refuse), with the reason, or end.
    /// - Any other: what came cannot be used, for want of descriptors, say. The predecessor has
    ///   been told so. This process should refuse or end, too.
    pub fn receive(&self, limit: Duration) -> Result<Inheritance, Error> {
        self.receive_with(|link| link.wait_for_state(limit))
    }

    /// Asks for the state and hands each descriptor out as it comes. A program with thousands of
    /// connections registers each while the predecessor still gives the others, and the freeze is
    /// shorter for it. Blobs are in what is returned, and nothing else is.
    ///
    /// The connections that are handed out belong to the program. It neither reads nor writes them
    /// before the grant, as with [`receive`](Predecessor::receive). It can register them in a
    /// `Poll` that is not polled before [`ready`](crate::Restarter::ready) has returned. `each` is
    /// called on the thread that calls this method, and only until the method returns.
    ///
    /// ```no_run
    /// # use std::{collections::HashMap, error, net::TcpStream, time::Duration};
    /// use pollflip::{Arrival, Predecessor};
    ///
    /// type Players = HashMap<String, TcpStream>;
    ///
    /// fn load(predecessor: &Predecessor) -> Result<(Players, Vec<u8>), Box<dyn error::Error>> {
    ///     let mut players = Players::new();
    ///     let mut rest = predecessor.receive_each(Duration::from_secs(5), |arrival| {
    ///         if let Arrival::Given(name, descriptor) = arrival {
    ///             players.insert(name, TcpStream::from(descriptor)); // and register it
    ///         }
    ///         Ok(())
    ///     })?;
    ///     let world = rest.bytes("world.v1")?.ok_or("no world")?;
    ///     Ok((players, world))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`receive`](Predecessor::receive), and [`Error::UnusableState`] with the error of
    /// `each`, of which the predecessor is told. In all these cases the program drops what it has
    /// been given: the predecessor still has it, or has ended, and then the other ends of these
    /// connections must learn that nobody serves them.
    ///
    /// After [`Error::TimedOut`] it may call this or [`receive`](Predecessor::receive) again, and
    /// keep what it has: what of that is gone meanwhile is told by [`Arrival::Gone`], or by
    /// [`Inheritance::gone`].
    pub fn receive_each(&self, limit: Duration, each: impl FnMut(Arrival) -> io::Result<()>) -> Result<Inheritance, Error> {
        self.receive_with(|link| link.wait_for_each(limit, each))
    }

    fn receive_with<T>(&self, receive: impl FnOnce(&Link) -> Result<T, Error>) -> Result<T, Error> {
        self.0.origin.check("Predecessor").map_err(Error::os("cannot receive the state"))?;
        let result = receive(&self.0).inspect_err(tell_trouble);
        // What else has come meanwhile is the loop's.
        wake_loop(&startup());
        result
    }

    /// Tells the predecessor, and through it the one who asked for the restart, that this process will
    /// not take over, and why. The predecessor then kills this process. A reason is cut at 4096
    /// bytes, and then ends in `…`.
    pub fn refuse(&self, reason: &str) {
        if self.is_here() {
            self.0.refuse(reason);
        }
    }

    fn is_here(&self) -> bool {
        self.0.origin.is_here()
    }
}

/// What there is once in a process.
#[derive(Debug)]
struct Startup {
    /// Why the lifeline could not be used: this process is a successor all the same, and no first generation.
    unusable: Option<String>,
    link: Option<Arc<Link>>,
    /// From the first restarter on.
    takeover: Option<Arc<SharedTakeover>>,
    /// Whether a restarter lives in this process.
    claimed: bool,
    /// Whether one has been built, ever.
    built: bool,
    /// The service is a successor's, and that is final.
    handed_over: bool,
    waker: Option<Arc<Waker>>,
}

/// A forked child has neither the restarter nor the predecessor of its parent, and nobody there would release the lock.
static STARTUP: PerProcess<Mutex<Startup>> = PerProcess::new(|| Mutex::new(Startup::NEW));

/// Whether the environment has been looked at for a lifeline. A child that was forked later finds the one of its parent there.
static ADOPTED: AtomicBool = AtomicBool::new(false);

impl Startup {
    const NEW: Startup =
        Startup { unusable: None, link: None, takeover: None, claimed: false, built: false, handed_over: false, waker: None };
}

fn startup() -> MutexGuard<'static, Startup> {
    STARTUP.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to be the one restarter of this process, given back when dropped. In a forked child there is nothing to give back.
#[derive(Debug)]
pub(crate) struct Claim(Origin);

impl Claim {
    pub(crate) fn new() -> Result<Claim, Error> {
        let mut startup = startup();
        if startup.handed_over {
            return Err(Error::HandedOver);
        }
        if std::mem::replace(&mut startup.claimed, true) {
            return Err(Error::AnotherRestarter);
        }
        Ok(Claim(Origin::here()))
    }

    /// The lifeline that this process was born with, if it is a successor. The gifts come with the first call of the process.
    pub(crate) fn adopt_lifeline(&self) -> Result<(Option<Arc<Link>>, Gifts), Error> {
        let mut startup = startup();
        let mut gifts = Gifts::default();
        if !ADOPTED.swap(true, Ordering::Relaxed)
            && let Some(socket) = inherited_lifeline()
        {
            // They may all come. An older predecessor has about as many as the number says under which it made this one.
            let birth = birth();
            sys::enlarge_descriptor_table(
                birth.as_ref().map_or(socket.as_raw_fd(), |birth| RawFd::try_from(birth.open).unwrap_or(RawFd::MAX)),
            );
            let (link, given) =
                Link::read_hello(Lifeline::from(socket), birth).inspect_err(|why| startup.unusable = Some(why.to_string()))?;
            link.introduce();
            startup.link = Some(Arc::new(link));
            gifts = given;
        }
        match &startup.unusable {
            Some(why) => Err(Error::UnusableLifeline(why.clone().into())),
            None => Ok((startup.link.clone(), gifts)),
        }
    }

    /// Whether this process has had a restarter before.
    pub(crate) fn has_built(&self) -> bool {
        startup().built
    }

    /// From now on this process can be ready; the loop is woken when it is. Returns the machine of this process.
    pub(crate) fn built(&self, waker: Arc<Waker>) -> Arc<SharedTakeover> {
        let mut startup = startup();
        startup.built = true;
        startup.waker = Some(waker);
        let link = startup.link.as_ref().map(|link| link.takeover().clone());
        let takeover = startup.takeover.get_or_insert_with(|| link.unwrap_or_else(|| Arc::new(SharedTakeover::new(Takeover::first()))));
        takeover.feed(takeover.now(), TakeoverInput::Attach, |_| {});
        takeover.clone()
    }

    /// Whether this is no copy that a forked child has.
    pub(crate) fn is_here(&self) -> bool {
        self.0.is_here()
    }

    /// An error in a forked child.
    pub(crate) fn check_here(&self) -> io::Result<()> {
        self.0.check("Restarter")
    }

    /// There will be no other restarter in this process: two would have successors.
    pub(crate) fn hand_over(&self) {
        startup().handed_over = true;
    }
}

/// A test goes on as another process would begin.
pub(crate) fn begin_anew() {
    systemd::begin_anew();
    ADOPTED.store(false, Ordering::Relaxed);
    *startup() = Startup::NEW;
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.0.is_here() {
            return;
        }
        let mut startup = startup();
        startup.claimed = false;
        startup.waker = None;
    }
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

/// What the environment tells of the start of this process, if it belongs to the lifeline that is named there. The caller
/// of a process that has gained rights may have made it up.
fn birth() -> Option<Birth> {
    if sys::is_simulated() || sys::has_gained_rights() {
        return None;
    }
    let place = Place::parse(&std::env::var(LIFELINE_VARIABLE).ok()?)?;
    Birth::parse(&std::env::var(BIRTH_VARIABLE).ok()?).filter(|birth| birth.lifeline == place.identity)
}

fn is_seqpacket(number: RawFd) -> bool {
    sys::peek(number, |fd| getsockopt(&fd, sockopt::SockType) == Ok(SockType::SeqPacket)).unwrap_or(false)
}
