//! Descriptors that are closed where nobody waits for it.
//!
//! What closes a connection last can have to wait until its peer has taken all that was sent
//! (SO_LINGER), for as long as somebody else likes. So can what closes a unix socket last in whose
//! queue such a connection lies. The kernel waits in the thread that closes, unless that thread is
//! ending: then nothing lingers. So a thread is made that has a table of descriptors of its own, and
//! ends with all that is in it.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Barrier;
use std::thread::{self, Builder};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::fstat;

use super::guarding::receive_datagram;

/// Room for the little that such a thread does.
const STACK: usize = 64 * 1024;

/// Closes descriptors. Without a thread for those that may linger they are closed here.
pub(crate) fn close_aside(descriptors: Vec<OwnedFd>) {
    let may_linger = |descriptor: &OwnedFd| fstat(descriptor).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFSOCK);
    if !descriptors.iter().any(may_linger) {
        return;
    }
    // Once when the other thread has them too, and once when it alone has them.
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let thread = builder().spawn_scoped(scope, || {
            // Without memory for that they are closed here.
            let _ = have_own_table();
            barrier.wait();
            barrier.wait();
        });
        if thread.is_ok() {
            barrier.wait();
            drop(descriptors);
            barrier.wait();
        }
    });
}

/// Takes a datagram off with all that comes with it, and closes that. What it is has been looked at
/// before.
pub(crate) fn discard_datagram(socket: &impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    // What has no room in the table would be closed before the thread ends.
    let limit = getrlimit(Resource::RLIMIT_NOFILE).ok().filter(|(soft, hard)| soft < hard);
    if let Some((_, hard)) = limit {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let discarded = thread::scope(|scope| {
        let thread = builder().spawn_scoped(scope, || {
            have_own_table()?;
            let datagram = receive_datagram(&socket, &mut [0])?;
            // It has them when it ends.
            datagram.descriptors.into_iter().for_each(mem::forget);
            Ok(())
        });
        // It is waited for until it has begun to end, and no longer.
        thread?.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    });
    if let Some((soft, hard)) = limit {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
    discarded
}

fn builder() -> Builder {
    Builder::new().name("pollflip-close".into()).stack_size(STACK)
}

/// Gives the calling thread a copy of the table of descriptors, for itself alone.
fn have_own_table() -> io::Result<()> {
    // SAFETY: the call takes a number. What this thread has open from here on stays open elsewhere,
    // and it uses nothing but what it was handed before or opens itself.
    if unsafe { libc::unshare(libc::CLONE_FILES) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
