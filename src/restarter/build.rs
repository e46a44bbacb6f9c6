//! How a restarter is made.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use mio::{Interest, Registry};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use signal_hook_mio::v1_0::Signals;

use crate::config::{RestartConfig, restart_signal};
use crate::error::{Error, Refusal};
use crate::exec::Exec;
use crate::keep::{Held, HeldGroup, Keeper};
use crate::machine::Limits;
use crate::predecessor::{Claim, Coordination, Gifts, Link};
use crate::restart_coordination_socket::Server;
use crate::sockets::{Family, Sockets, regained};
use crate::sys::{self, Process};
use crate::systemd::{self, Passed};
use crate::wire;

use super::Restarter;
use super::ancestry::{Ancestry, Guarded};
use super::driver::Driver;
use super::manager::Manager;
use super::owned_paths::OwnedPaths;
use super::preconditions::{Preconditions, World};
use super::reactor::{FIRST_CLIENT, Reactor, SIGNALS};
use super::requests::Requests;
use super::succession::Succession;

impl RestartConfig {
    /// Makes the restarter: adopts the lifeline (the socket to the predecessor) if this process is a successor, installs the signal's
    /// handler, starts the restart thread and binds the coordination socket. Drop privileges after this, not before.
    ///
    /// The restart signal is blocked in this thread, and so in those that it starts later: the
    /// restart thread takes it, and no system call of another thread is interrupted by it (EINTR).
    /// Threads that run already should block it too, if they mind. A helper that such a thread
    /// starts inherits the block: a helper that wants this very signal has to unblock it.
    ///
    /// Other things still interrupt a loop, and are no error: a stop and SIGCONT, or a successor
    /// that ends before it is watched (a script whose interpreter is missing, say).
    ///
    /// A successor should do its slow initialisation after this call, not before, and tell how far it is: see [`Predecessor`](crate::Predecessor).
    ///
    /// # Privileges
    ///
    /// The restart thread is started here, with the rights of the moment. A seccomp filter (without TSYNC), dropped capabilities and
    /// `no_new_privs` bind the thread that asks for them: other threads may give them up after this call, and a restart still works. The C
    /// library's `setuid`, a filter with TSYNC and `chroot` reach every thread, the restart thread too: see
    /// [the guide](crate::guide#fewer-privileges), which also lists [the system calls of the loop](crate::guide#the-system-calls-of-the-loop).
    ///
    /// # Errors
    ///
    /// Another restarter lives in this process, or has handed the service over; the configuration makes no sense; the end of the predecessor
    /// would kill this process (`PR_SET_PDEATHSIG`); a path of the configuration is relative in a
    /// process that has [more rights than its caller](crate::guide#more-rights-than-the-caller);
    /// the coordination socket cannot be bound; a descriptor or the thread cannot be had. A
    /// predecessor is told why.
    pub fn build(&self) -> Result<Restarter, Error> {
        let claim = Claim::new()?;
        let (link, gifts) = claim.adopt_lifeline()?;
        let mask = SigSet::thread_get_mask();
        let result = self.build_as(claim, link.clone(), gifts);
        if let (Err(_), Ok(mask)) = (&result, mask)
            && let Err(error) = mask.thread_set_mask()
        {
            log::warn!(target: "pollflip", "cannot set the signal mask back: {error}");
        }
        if let (Err(error), Some(link)) = (&result, &link) {
            link.refuse(&error.to_string());
        }
        result
    }

    fn build_as(&self, claim: Claim, link: Option<Arc<Link>>, mut gifts: Gifts) -> Result<Restarter, Error> {
        let signal = self.signal.map(restart_signal).transpose()?;
        if self.ready_timeout.is_zero() {
            return Err(Error::setting("a ready timeout of zero would fail every restart"));
        }
        if self.freeze_timeout.is_zero() {
            return Err(Error::setting("a freeze timeout of zero would fail every restart with a state"));
        }
        if link.as_ref().is_some_and(|link| link.living().is_some()) && ends_with_parent() {
            return Err(Error::Unsuitable(
                "the end of its parent would kill this process (PR_SET_PDEATHSIG), and its parent is the predecessor: set that only where \
                 there is none"
                    .into(),
            ));
        }
        // One that this version would not take for itself is left as it is.
        let blocked = link.as_ref().and_then(|link| link.blocked_signal()).and_then(|number| restart_signal(number).ok());
        if link.is_none() {
            // Before there is a thread of ours: later it would hold the first restart up. That of a
            // successor has been enlarged.
            sys::enlarge_descriptor_table(0);
        }
        // Before this process opens descriptors of its own.
        let passed = if self.keeps && claim.has_built() { Vec::new() } else { systemd::passed(link.is_some()) };
        let (passed, mut held) = self.take_held(passed, claim.has_built());
        let mut given = Held::sort(mem::take(&mut gifts.sockets));
        join_groups(&mut gifts, mem::take(&mut held.groups), mem::take(&mut given.groups));
        let is_deaf = systemd::is_deaf();
        let reactor = Reactor::new()?;

        // Read before the restart signal is arranged for: a successor is born with the same mask, plus that signal.
        let mut launch = self.launch()?;
        let handled: Vec<Signal> = signal.into_iter().chain(blocked).collect();
        let signals = self.handle_signals(reactor.registry(), &handled)?;
        for signal in &handled {
            // Blocked by the predecessor or an earlier restarter, not by the program: not to be handed down.
            launch.mask.remove(*signal);
        }
        if claim.has_built()
            && let Some(signal) = signal
        {
            forget_pending(signal);
        }
        let missing = sys::missing_call(link.is_some()).map(|(call, errno)| Refusal::MissingCall { call, errno });
        let unsupported = (!sys::CAN_RESTART).then_some(Refusal::Unsupported);
        let unstartable = unsupported.or(launch.program.as_ref().err().copied()).or(missing);
        let world = World::look(link.is_none(), self.trusts_parent);
        let names_nobody = world.has_other_numbers();
        let preconditions = Preconditions::new(self, unstartable, &world, is_deaf, &launch.mask);
        if let Some(refusal) = preconditions.permanent().filter(|_| !claim.has_built()) {
            log::warn!(target: "pollflip", "every restart of this process will be refused: {refusal}");
        }
        if let Some(path) = launch.program.as_ref().ok().and_then(|program| program.unfollowed.as_deref()).filter(|_| !claim.has_built()) {
            log::warn!(
                target: "pollflip",
                "this process was started by a relative path, {}, and PWD does not name its directory: if a link on the way there is switched \
                 to a new release, restarts still start {}; start it by an absolute path, or name that with RestartConfig::program",
                path.display(),
                launch.program.as_ref().map(|program| program.path.display().to_string()).unwrap_or_default()
            );
        }
        let program = launch.program.as_ref().map(|program| program.path.clone()).unwrap_or_default();
        let exec = Exec::start(launch, link.as_ref().and_then(|link| link.birth()), signal, reactor.waker().clone())
            .map_err(Error::os("cannot start the restart thread (clone)"))?;
        arrange(signal, blocked)?;
        Ancestry::watch(link.as_deref(), &gifts.draining, &reactor)?;
        let guarded = Guarded::new(&reactor)?;
        let pid_file = self.absolute_pid_file()?;
        // Last: if anything else cannot be had, no path is left behind that names nobody.
        let path = self.absolute_socket()?;
        let (inherited, retired) = match (&path, gifts.coordination) {
            (Some(path), Some(given)) if Server::is_at(&given, path) => (Some(Coordination { path: path.clone(), ..given }), None),
            (_, given) => (None, given.map(|given| Server::inherited(given, FIRST_CLIENT))),
        };
        let server = match (path, inherited) {
            (_, Some(given)) => Some(Server::go_on(given, FIRST_CLIENT)),
            (Some(path), None) => Some(Server::new(&path, FIRST_CLIENT).map_err(cannot_bind(&path))?),
            (None, None) => None,
        };
        let is_another = claim.has_built();
        let takeover = claim.built(reactor.waker().clone());
        let limits = Limits { ready: self.ready_timeout, freeze: self.freeze_timeout, probation: self.probation };
        let earlier = gifts.draining.iter().map(Process::pid).collect();
        let family = Family { predecessor: link.as_ref().map(|link| link.pid()), earlier };
        let mut restarter = Restarter {
            driver: Driver::new(limits),
            succession: Succession::new(exec, program, limits, Ancestry::outcomes(link.as_deref())),
            requests: Requests::new(signals, signal, server),
            manager: Manager::new(names_nobody),
            preconditions,
            paths: OwnedPaths::new(pid_file.as_deref(), link.as_ref().and_then(|link| link.pid_file()), retired),
            sockets: Sockets::new(mem::take(&mut given.sockets), gifts.groups, passed, family),
            keeper: Keeper::inert(),
            ancestry: Ancestry::new(link, takeover, gifts.draining, guarded),
            version: self.version.as_deref().map(wire::line),
            claim,
            reactor,
        };
        restarter.keep(self.keeps, held, given);
        // Nothing wakes a loop before the program is ready but those who ask too early.
        restarter.requests.open(&restarter.reactor);
        restarter.rearm();
        if is_another {
            // What holds already, and what an earlier one has not told.
            restarter.reactor.wake();
        }
        Ok(restarter)
    }

    /// What a keeper has given is taken by its number: a duplicate that stays open would withhold the
    /// end of a connection from its peer. A program that keeps nothing leaves the rest as it is.
    fn take_held(&self, passed: Vec<Passed>, is_another: bool) -> (Vec<Passed>, Held) {
        // Of a second restarter in this process the numbers are what they are by now.
        if is_another || sys::has_gained_rights() {
            return (passed, Held::default());
        }
        let (ours, rest) = passed.into_iter().partition::<Vec<_>, _>(|passed| self.keeps || Held::has_its_form(&passed.name));
        let adopted = ours.into_iter().filter_map(|passed| match sys::adopt(passed.number) {
            Ok(descriptor) => Some((passed.name, descriptor)),
            Err(error) => {
                log::warn!(target: "pollflip", "cannot take {:?}, which was kept: {error}", passed.name);
                None
            }
        });
        (rest, Held::sort(adopted))
    }

    fn handle_signals(&self, registry: &Registry, handled: &[Signal]) -> Result<Option<Signals>, Error> {
        if handled.is_empty() {
            return Ok(None);
        }
        let numbers: Vec<i32> = handled.iter().map(|signal| *signal as i32).collect();
        let mut signals = sys::may_fail(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM])
            .and_then(|()| Signals::new(&numbers))
            .map_err(Error::os("cannot install the handler of the restart signal (socketpair, rt_sigaction)"))?;
        sys::may_fail(&[libc::ENOMEM, libc::ENOSPC])
            .and_then(|()| registry.register(&mut signals, SIGNALS, Interest::READABLE))
            .map_err(Error::os("cannot watch the restart signal"))?;
        Ok(Some(signals))
    }
}

/// The UDP groups that a keeper has held, and what a predecessor that has them held gives with its own.
fn join_groups(gifts: &mut Gifts, held: BTreeMap<String, HeldGroup>, given: BTreeMap<String, HeldGroup>) {
    for (name, parts) in given {
        if let Some(group) = gifts.groups.iter_mut().find(|group| group.name == name) {
            group.roster = parts.roster;
        }
    }
    let (groups, draining) = regained(held);
    gifts.groups.extend(groups);
    gifts.draining.extend(draining);
}

fn cannot_bind(path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::os(format!("cannot bind the coordination socket {}", path.display()))
}

/// Whether the end of this process's parent brings it a signal. A real-time one is none that nix knows.
fn ends_with_parent() -> bool {
    matches!(sys::death_signal(), Ok(Some(_)) | Err(Errno::EINVAL))
}

/// An earlier restarter may have been dropped on another thread than it was made on, which then has the signal still blocked: one that
/// came meanwhile was to do nothing, and waits.
fn forget_pending(signal: Signal) {
    if let Err(error) = sys::forget_pending(signal) {
        log::warn!(target: "pollflip", "cannot look for a restart signal that came before: {error}");
    }
}

/// The restart thread takes the restart signal, and this thread and those that it starts do not: a loop that sleeps in the kernel is not
/// woken by it with an error (EINTR) that it may not expect. What the predecessor has blocked besides has a handler now.
fn arrange(signal: Option<Signal>, inherited: Option<Signal>) -> Result<(), Error> {
    let set = |signals: Option<Signal>| signals.into_iter().collect::<SigSet>();
    let failed = |error: Errno| Error::os("cannot set the signal mask")(error.into());
    set(signal).thread_block().map_err(failed)?;
    set(inherited.filter(|inherited| Some(*inherited) != signal)).thread_unblock().map_err(failed)
}
