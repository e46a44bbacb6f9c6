//! How much may be kept: said before it bites.
//!
//! Knows: the limits of a keeper, of the kernel and of the user. Does not know: what is kept.

use std::io;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit};

use crate::sys;

/// So many descriptors the queues of a process are.
const QUEUE_ENDS: usize = 4;
/// What replaces something is held before that is removed.
const SPARE: usize = 1;
/// So many bytes all names may have together, with a colon after each: the kernel takes 128 KiB in a
/// variable, and a systemd that was given more never starts the service again.
const ROOM_FOR_NAMES: usize = 100 * 1024;
/// Of the descriptors that the user may have on their way, so many parts stay free: for the queues
/// of a successor, and for what it is handed over.
const PARTS: usize = 4;
/// A process with one of them may have any number on their way.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

#[derive(Debug)]
pub(super) struct Room {
    /// How many entries the keeper has, if it says so.
    size: Option<usize>,
    /// So many connections may lie in the queue of this process.
    most_streams: usize,
}

/// How much of that is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) entries: usize,
    /// So many bytes their names are, each with a colon.
    pub(super) length_of_names: usize,
}

impl Room {
    /// `size`: how many entries the keeper has.
    pub(super) fn new(size: Option<usize>) -> Room {
        Room { size, most_streams: most_streams() }
    }

    /// Whether more can be held besides, under names of so many bytes.
    pub(super) fn check(&self, taken: Taken, names: impl ExactSizeIterator<Item = usize>) -> io::Result<()> {
        let (entries, more) = (taken.entries + QUEUE_ENDS, names.len());
        if let Some(size) = self.size.filter(|size| entries + more + QUEUE_ENDS + SPARE > *size) {
            let why = format!(
                "the keeper holds {size} descriptors at the most, {entries} are kept, and {more} more do not fit: have it hold more (pollflip guard --store, \
                 FileDescriptorStoreMax=); {QUEUE_ENDS} stay free for the next process, and {SPARE} for what replaces something"
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        if taken.length_of_names + names.map(|length| length + 1).sum::<usize>() > ROOM_FOR_NAMES {
            let why =
                format!("the names of all that is kept would be longer than {ROOM_FOR_NAMES} bytes: keep less, or under shorter names");
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        Ok(())
    }

    /// Whether one more connection can be kept beside so many.
    pub(super) fn check_streams(&self, streams: usize) -> io::Result<()> {
        if streams < self.most_streams { Ok(()) } else { Err(too_many(self.most_streams)) }
    }
}

/// What an error means of a queue that so many connections lie in.
pub(super) fn in_a_queue(error: io::Error, streams: usize) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ETOOMANYREFS) => too_many(streams),
        Some(libc::EAGAIN) => {
            let why = format!("{streams} connections are kept, and the queue has no room for more: raise net.core.wmem_max");
            io::Error::new(io::ErrorKind::StorageFull, why)
        }
        _ => error,
    }
}

/// How many connections may lie in a queue.
fn most_streams() -> usize {
    let may_have_any = sys::own_capabilities().is_ok_and(|own| own & (1 << CAP_SYS_ADMIN | 1 << CAP_SYS_RESOURCE) != 0);
    if may_have_any {
        return usize::MAX;
    }
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX) / PARTS
}

fn too_many(most: usize) -> io::Error {
    let why = format!(
        "{most} connections are kept, and this user may have no more descriptors on their way: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=) \
         to {PARTS} times as many"
    );
    io::Error::new(io::ErrorKind::StorageFull, why)
}
