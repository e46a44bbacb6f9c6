//! Memory files: made, sealed, and mapped where nobody can change them.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{may_fail, naming};

/// A new memory file, which can be sealed.
pub(crate) fn memory_file() -> io::Result<File> {
    may_fail(&[libc::EMFILE, libc::ENOMEM])?;
    let made = memfd_create(c"pollflip", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
    made.map(File::from).map_err(|error| naming("memfd_create")(error.into()))
}

/// From now on nobody changes it.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    let all = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(file, FcntlArg::F_ADD_SEALS(all))?;
    Ok(())
}

/// A sealed memory file, mapped for reading.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// None for an empty file, which cannot be mapped.
    memory: Option<(NonNull<libc::c_void>, NonZeroUsize)>,
}

impl Mapping {
    /// Maps a file whose seals promise that it neither shrinks nor changes.
    pub(crate) fn new(file: BorrowedFd<'_>) -> io::Result<Mapping> {
        let seals = fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain).unwrap_or(SealFlag::empty());
        if !seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE) {
            let why = "it is no memory file sealed against shrinking and writing, and may change under the reader; take it as a descriptor";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let length = nix::sys::stat::fstat(file)?.st_size;
        let Some(length) = usize::try_from(length).ok().and_then(NonZeroUsize::new) else { return Ok(Mapping { memory: None }) };
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe { libc::mmap(ptr::null_mut(), length.get(), libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { memory: NonNull::new(address).map(|address| (address, length)) })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.memory {
            // SAFETY: the mapping is so long, readable and ours until it is dropped; the seals promise that the file behind it neither
            // shrinks nor changes, by nobody.
            Some((address, length)) => unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), length.get()) },
            None => &[],
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some((address, length)) = self.memory {
            // SAFETY: this is what was mapped, and nobody borrows from it any more.
            unsafe { libc::munmap(address.as_ptr(), length.get()) };
        }
    }
}

// SAFETY: the memory is only read, and belongs to the mapping wherever that goes.
unsafe impl Send for Mapping {}
// SAFETY: reading the same memory from several threads is no race.
unsafe impl Sync for Mapping {}
