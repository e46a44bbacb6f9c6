//! Which process has made a thing: this one, or one that this one was forked from, which has left a copy of it here.
//!
//! A process that asks gets a number. The number stands in a page that the kernel wipes in a forked child (`MADV_WIPEONFORK`, since Linux
//! 4.14), whichever call has forked it, so that a child gets a number of its own. `vfork` and `posix_spawn` share the memory of their
//! parent, and change nothing in it.
//!
//! Some kernels do not wipe: gVisor, older versions of qemu's user mode. There a handler of the C library wipes the number
//! (`pthread_atfork`), and the process id is compared as well. One child is taken for the process that has made a thing all the same: it
//! was forked past the C library, and has the same process id, since it is in a namespace of its own or the number has come back.
//!
//! Nothing here takes a lock: another thread of the parent may have held one at the fork, and nobody in the child releases it.

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicPtr, AtomicU32};

use nix::libc;

use super::wiped::{pid, wiped_page};

/// Where the number of this process stands. Null until something asks for it, and never taken back.
static PLACE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
/// That place where the kernel wipes none.
static UNWIPED: AtomicU32 = AtomicU32::new(0);
/// The last number that was given out on the way from the first process to this one. Nobody wipes it.
static LAST: AtomicU32 = AtomicU32::new(0);

/// The process that has made a thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    number: u32,
    /// Its process id if the kernel does not wipe, 0 otherwise.
    pid: u32,
}

impl Origin {
    /// This process.
    pub(crate) fn here() -> Origin {
        let place = place();
        let mut number = place.load(Relaxed);
        if number == 0 {
            let next = LAST.fetch_add(1, Relaxed).wrapping_add(1);
            number = place.compare_exchange(0, next, Relaxed, Relaxed).map_or_else(|other| other, |_| next);
        }
        Origin { number, pid: if ptr::eq(place, &UNWIPED) { pid() } else { 0 } }
    }

    /// Whether it is this process. In a forked child it is not.
    pub(crate) fn is_here(self) -> bool {
        // SAFETY: what is there is a place, which stays, or null before the first one.
        let place = unsafe { PLACE.load(Acquire).as_ref() };
        place.is_some_and(|place| place.load(Relaxed) == self.number) && (self.pid == 0 || self.pid == pid())
    }

    /// An error in a forked child, about its copy of `what`.
    pub(crate) fn check(self, what: &str) -> io::Result<()> {
        if self.is_here() {
            return Ok(());
        }
        let why = format!("this is a forked child's copy of a {what}, which does nothing: use the {what} in the process that made it");
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }
}

/// A static value of which each process has its own: that of a forked child begins anew, and what it has a copy of is left as it is.
#[derive(Debug)]
pub(crate) struct PerProcess<T: 'static> {
    made: AtomicPtr<Made<T>>,
    make: fn() -> T,
}

#[derive(Debug)]
struct Made<T> {
    origin: Origin,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new(make: fn() -> T) -> PerProcess<T> {
        PerProcess { made: AtomicPtr::new(ptr::null_mut()), make }
    }

    /// The value of this process.
    pub(crate) fn get(&'static self) -> &'static T {
        let found = self.made.load(Acquire);
        // SAFETY: it is null or was leaked below, and nobody takes it back.
        if let Some(made) = unsafe { found.as_ref() }
            && made.origin.is_here()
        {
            return &made.value;
        }
        let new = Box::into_raw(Box::new(Made { origin: Origin::here(), value: (self.make)() }));
        match self.made.compare_exchange(found, new, AcqRel, Acquire) {
            // SAFETY: it is leaked from here on.
            Ok(_) => unsafe { &(*new).value },
            Err(other) => {
                // SAFETY: it was made just now, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: another thread of this process has leaked it.
                unsafe { &(*other).value }
            }
        }
    }
}

/// Where the number of this process stands.
fn place() -> &'static AtomicU32 {
    // SAFETY: as in `is_here`.
    unsafe { PLACE.load(Acquire).as_ref() }.unwrap_or_else(find_place)
}

#[cold]
fn find_place() -> &'static AtomicU32 {
    if cfg!(miri) {
        // Miri has neither forks nor the calls that tell of them.
        return &UNWIPED;
    }
    let page = wiped_page();
    let place = page.unwrap_or_else(|| {
        // SAFETY: the handler makes one write to memory that stays. Without room for it, the process id has to do.
        unsafe { libc::pthread_atfork(None, None, Some(wipe)) };
        (&raw const UNWIPED).cast_mut()
    });
    match PLACE.compare_exchange(ptr::null_mut(), place, AcqRel, Acquire) {
        // SAFETY: nobody takes it back from here on.
        Ok(_) => unsafe { &*place },
        Err(other) => {
            if let Some(page) = page {
                // SAFETY: it was mapped just now, and nobody else has seen it.
                unsafe { libc::munmap(page.cast(), mem::size_of::<AtomicU32>()) };
            }
            // SAFETY: another thread has put a place there, which stays.
            unsafe { &*other }
        }
    }
}

/// The C library calls this in a forked child.
extern "C" fn wipe() {
    UNWIPED.store(0, Relaxed);
}
