//! Another thread holds a lock at the fork. In the child nobody releases it, and all that ends there must end without it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use mio::{Interest, Poll, Token};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use pollflip::shutdown::ShutdownCoordinator;
use pollflip::{RestartConfig, startup_complete};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::child::{BOTH, Verdict, claim, in_child};
use pollflip_kit::group::wait_until;

cases![
    a_child_drops_its_copies_of_a_coordinator,
    a_child_drops_its_copy_of_a_shutdown,
    a_child_drops_its_copy_of_a_restarter,
    a_child_drops_its_copy_of_a_restarter_while_a_signal_was_handled,
];

static STANDS: AtomicBool = AtomicBool::new(false);

/// Where nothing ever comes.
static SILENCE: AtomicI32 = AtomicI32::new(-1);

/// Stands still, whatever this thread is at.
#[allow(unsafe_code, reason = "a handler may not do much")]
fn stand_still() {
    STANDS.store(true, Ordering::SeqCst);
    let mut byte = 0u8;
    loop {
        // SAFETY: there is room for the byte.
        unsafe { libc::read(SILENCE.load(Ordering::SeqCst), (&raw mut byte).cast(), 1) };
    }
}

extern "C" fn on_sigsys(_: libc::c_int) {
    stand_still();
}

/// Has a thread do that. When this returns, that thread stands still in a system call of that number, with the locks that it has then, and
/// never goes on. `false`: this machine has no filters.
#[allow(unsafe_code, reason = "a signal is handled")]
fn stands_still_at(call: libc::c_long, work: impl FnOnce() + Send + 'static) -> bool {
    let Ok(machine) = TargetArch::try_from(std::env::consts::ARCH) else {
        eprintln!("skipped: this machine has no system call filters");
        return false;
    };
    let (silence, never_written) = nix::unistd::pipe().expect("a pipe");
    SILENCE.store(std::os::fd::IntoRawFd::into_raw_fd(silence), Ordering::SeqCst);
    std::mem::forget(never_written);
    let action = SigAction::new(SigHandler::Handler(on_sigsys), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes system calls alone.
    unsafe { sigaction(Signal::SIGSYS, &action) }.expect("a handler");
    let rules = [(call, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trap, machine).expect("a filter");
    let program = BpfProgram::try_from(filter).expect("a program");
    thread::spawn(move || {
        apply_filter(&program).expect("a filter of this thread");
        work();
    });
    wait_until("the thread to stand still", || STANDS.load(Ordering::SeqCst));
    true
}

/// No lock of this process can be had any more.
fn end() -> ! {
    std::process::exit(0)
}

fn a_child_drops_its_copies_of_a_coordinator() {
    let coordinator = ShutdownCoordinator::new();
    let (handle, weak) = (coordinator.handle(), coordinator.handle_weak());
    let poll = Poll::new().expect("an epoll");
    let mut signal = coordinator.signal();
    poll.registry().register(&mut signal, Token(0), Interest::READABLE).expect("registered");
    let mut future = signal.begun();
    assert!(is_pending(&mut future));
    let mut others = coordinator.signal();
    if !stands_still_at(libc::SYS_eventfd2, move || {
        let _ = Poll::new().expect("an epoll").registry().register(&mut others, Token(0), Interest::READABLE);
    }) {
        return;
    }
    let mut copies = Some((coordinator, handle, weak, signal, future));
    for how in BOTH {
        in_child(how, || {
            let (coordinator, handle, weak, mut signal, mut future) = copies.take().ok_or("copies")?;
            claim(is_pending(&mut future), "a future that is pending")?;
            signal.wait();
            signal.wait_forced();
            claim(poll.registry().deregister(&mut signal).is_err(), "a signal that is not deregistered")?;
            claim(is_pending(coordinator.signal().begun()), "another future that is pending")?;
            claim(weak.upgrade().is_some(), "a handle")?;
            drop((weak.signal(), handle.clone(), handle.downgrade(), signal.clone()));
            let shutdown = coordinator.shutdown();
            shutdown.force();
            claim(shutdown.wait(Duration::MAX) == Err(1), "a wait for nobody")?;
            drop((handle, weak, signal, future));
            claim(shutdown.wait(Duration::MAX) == Err(1), "a wait for nobody although no handle is left")?;
            drop(shutdown);
            Ok(())
        });
    }
    end();
}

fn is_pending(mut future: impl Future + Unpin) -> bool {
    Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

fn a_child_drops_its_copy_of_a_shutdown() {
    let coordinator = ShutdownCoordinator::new();
    let handle = coordinator.handle();
    let mut others = coordinator.signal();
    let mut shutdown = coordinator.shutdown();
    shutdown.descriptor().expect("an eventfd");
    assert!(is_pending(&mut shutdown));
    if !stands_still_at(libc::SYS_eventfd2, move || {
        let _ = Poll::new().expect("an epoll").registry().register(&mut others, Token(0), Interest::READABLE);
    }) {
        return;
    }
    let mut copies = Some((shutdown, handle));
    for how in BOTH {
        in_child(how, || {
            let (mut shutdown, handle) = copies.take().ok_or("copies")?;
            shutdown.force();
            claim(!handle.signal().is_forced(), "no forced phase")?;
            claim(is_pending(&mut shutdown), "a shutdown that is pending")?;
            claim(shutdown.wait(Duration::MAX) == Err(1), "a wait for nobody")?;
            claim(shutdown.descriptor().is_err(), "no descriptor")?;
            drop(handle);
            claim(shutdown.poll().is_pending() && shutdown.remaining() == 0, "a shutdown that does not finish")?;
            drop(shutdown);
            Ok(())
        });
    }
    end();
}

/// The child can also build one of its own, and say that it serves.
fn a_child_drops_its_copy_of_a_restarter() {
    let mut restarter = Some(RestartConfig::new().build().expect("a restarter"));
    // It wakes the loop with the lock of what there is once in a process.
    if !stands_still_at(libc::SYS_write, || _ = startup_complete()) {
        return;
    }
    for how in BOTH {
        in_child(how, || {
            drop(restarter.take());
            claim(startup_complete().is_err(), "that it is too early")?;
            serves_by_itself()
        });
    }
    end();
}

/// Without a signal: what handles them is another crate's.
fn serves_by_itself() -> Verdict {
    let mut own = RestartConfig::new().restart_signal(None).build().map_err(|_| "a restarter of its own")?;
    own.ready().map_err(|_| "that it serves")?;
    claim(own.poll().is_none() && own.status().state == pollflip::ServiceState::Serving, "a restarter that is idle")
}

#[allow(unsafe_code, reason = "a signal is handled")]
fn a_child_drops_its_copy_of_a_restarter_while_a_signal_was_handled() {
    let (silence, _never_written) = nix::unistd::pipe().expect("a pipe");
    SILENCE.store(std::os::fd::AsRawFd::as_raw_fd(&silence), Ordering::SeqCst);
    let mut restarter = Some(RestartConfig::new().build().expect("a restarter"));
    // SAFETY: the handler makes system calls alone.
    unsafe { signal_hook::low_level::register(libc::SIGUSR2, stand_still) }.expect("a handler");
    thread::spawn(|| signal_hook::low_level::raise(libc::SIGUSR2));
    wait_until("the thread to stand still", || STANDS.load(Ordering::SeqCst));
    for how in BOTH {
        in_child(how, || {
            drop(restarter.take());
            serves_by_itself()
        });
    }
    end();
}
