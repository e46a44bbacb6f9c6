//! `posix_spawn`: a new process without copying the page tables of this one. libc rather than nix, which lacks the change of directory.

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::sys::signal::SigSet;
use nix::unistd::{AccessFlags, faccessat};

use super::orders::Spawn;
use super::{may_fail, simulation};

/// Starts the program and returns its process id. Returns once it has been executed, or with the error that kept it from that.
pub(crate) fn spawn(what: &Spawn<'_>) -> io::Result<u32> {
    may_fail(&[libc::EAGAIN, libc::ENOMEM, libc::ETXTBSY])?;
    if let Some(result) = simulation::spawn(what.inherited.last().map(|(fd, _)| *fd)) {
        return result;
    }
    // A child that cannot go on would end here, and its end (SIGCHLD, which the C library blocks in this thread meanwhile) would interrupt
    // the system calls of another thread.
    for path in what.directory.into_iter().chain([what.program]) {
        match may_enter(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_denied(path) => {}
            seen => seen?,
        }
    }
    let mut actions = FileActions::new()?;
    for (fd, number) in what.inherited {
        // Onto itself it clears CLOEXEC in the child alone.
        actions.dup2(fd.as_raw_fd(), *number)?;
    }
    // Before the directory is entered, which can take as long as the program.
    let mut closed = what.closed;
    let close_from = what.closed_from.zip(close_from());
    if let Some((first, _)) = close_from {
        closed = &closed[..closed.partition_point(|number| *number < first)];
    }
    for number in closed {
        actions.close(*number)?;
    }
    if let Some((first, close_from)) = close_from {
        actions.close_from(close_from, first)?;
    }
    if let Some(directory) = what.directory {
        actions.change_directory(directory)?;
    }
    let mut attributes = Attributes::new()?;
    attributes.set_signals(what.mask)?;

    let arguments = pointers(what.arguments);
    let environment = pointers(what.environment);
    let mut pid: libc::pid_t = 0;
    // SAFETY: both lists end with a null pointer and hold pointers to strings that `what` keeps alive; actions and attributes are
    // initialised and outlive the call; nothing is written but `pid`.
    check(unsafe {
        libc::posix_spawn(
            &mut pid,
            what.program.as_ptr(),
            actions.0.as_ptr(),
            attributes.0.as_ptr(),
            arguments.as_ptr().cast(),
            environment.as_ptr().cast(),
        )
    })?;
    Ok(pid as u32)
}

/// Whether this thread may execute what is there, or enter it, as far as that can be seen: no error need not mean that it may.
pub(crate) fn may_enter(path: &CStr) -> io::Result<()> {
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        Err(error @ (Errno::EACCES | Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG)) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether it is the kernel that says that this thread may not. Before Linux 5.8 the C library has to find it out, and asks for a user without
/// capabilities, who may less.
fn is_denied(path: &CStr) -> bool {
    // SAFETY: the path ends with a NUL byte, and the call writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) };
    result < 0 && Errno::last() == Errno::EACCES
}

/// Adds the action that closes all descriptors from a number on.
type CloseFrom = unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, libc::c_int) -> libc::c_int;

/// That function, where the C library has it (glibc from 2.34 on) and the kernel does it in one call: without that, the child would have
/// to read `/proc`.
fn close_from() -> Option<CloseFrom> {
    if !can_close_ranges() {
        return None;
    }
    // SAFETY: the name ends with a NUL byte.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"posix_spawn_file_actions_addclosefrom_np".as_ptr()) };
    // SAFETY: what the C library has by that name is a function with these arguments, and no function is at null.
    (!found.is_null()).then(|| unsafe { mem::transmute::<*mut libc::c_void, CloseFrom>(found) })
}

/// Whether this thread may have the kernel close a range of descriptors: not before Linux 5.9, nor
/// under some filters.
fn can_close_ranges() -> bool {
    let last = libc::c_uint::MAX;
    // SAFETY: the call takes three numbers, and no descriptor has this one.
    unsafe { libc::syscall(libc::SYS_close_range, last, last, 0) == 0 }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// These calls return the error instead of setting errno.
fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

struct FileActions(Box<MaybeUninit<libc::posix_spawn_file_actions_t>>);

impl FileActions {
    fn new() -> io::Result<FileActions> {
        let mut actions = Box::new(MaybeUninit::uninit());
        // SAFETY: the call initialises what it is given, or fails; then it is not kept.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        Ok(FileActions(actions))
    }

    fn dup2(&mut self, from: RawFd, to: RawFd) -> io::Result<()> {
        // SAFETY: the actions are initialised; numbers that are not open fail in the child.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(self.0.as_mut_ptr(), from, to) })
    }

    /// What is not open by then is no error.
    fn close(&mut self, number: RawFd) -> io::Result<()> {
        // SAFETY: the actions are initialised.
        match unsafe { libc::posix_spawn_file_actions_addclose(self.0.as_mut_ptr(), number) } {
            // glibc does not take the number of one that was opened before the limit was lowered.
            libc::EBADF => Ok(()),
            result => check(result),
        }
    }

    fn close_from(&mut self, add: CloseFrom, first: RawFd) -> io::Result<()> {
        // SAFETY: the actions are initialised, and the function is the C library's own.
        match unsafe { add(self.0.as_mut_ptr(), first) } {
            // No number is beyond that one.
            libc::EBADF => Ok(()),
            result => check(result),
        }
    }

    fn change_directory(&mut self, to: &CStr) -> io::Result<()> {
        // SAFETY: the actions are initialised, and the call copies the path.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(self.0.as_mut_ptr(), to.as_ptr()) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: they are initialised, and this is their end.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

struct Attributes(Box<MaybeUninit<libc::posix_spawnattr_t>>);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut attributes = Box::new(MaybeUninit::uninit());
        // SAFETY: the call initialises what it is given, or fails; then it is not kept.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        Ok(Attributes(attributes))
    }

    /// The child's mask, and SIGPIPE as std's `Command` leaves it: Rust programs ignore it, others do not expect that.
    fn set_signals(&mut self, mask: &SigSet) -> io::Result<()> {
        let mut pipe = SigSet::empty();
        pipe.add(nix::sys::signal::Signal::SIGPIPE);
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let attributes = self.0.as_mut_ptr();
        // SAFETY: the attributes are initialised, and the calls copy the sets.
        unsafe {
            check(libc::posix_spawnattr_setsigmask(attributes, mask.as_ref()))?;
            check(libc::posix_spawnattr_setsigdefault(attributes, pipe.as_ref()))?;
            check(libc::posix_spawnattr_setflags(attributes, flags as libc::c_short))
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: they are initialised, and this is their end.
        unsafe { libc::posix_spawnattr_destroy(self.0.as_mut_ptr()) };
    }
}
