//! A memory file that several processes have mapped and write to.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;

use super::{may_grow_to, memory_file};

/// A memory file of a length that nobody changes, mapped for reading and writing. Other processes
/// may write to it at any time: it is words that are loaded and stored whole, and never bytes that
/// are borrowed.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    address: NonNull<AtomicU64>,
    words: NonZeroUsize,
}

/// Nobody can make the file shorter, which would kill those who have it mapped.
fn fixed_length() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

impl SharedMemory {
    /// A new file of so many words, all zero. It takes up memory as it is written to.
    pub(crate) fn new(words: NonZeroUsize) -> io::Result<(File, SharedMemory)> {
        let length = words.get() as u64 * size_of::<AtomicU64>() as u64;
        may_grow_to(|| Ok(length))?;
        let file = memory_file()?;
        file.set_len(length)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(fixed_length() | SealFlag::F_SEAL_SEAL))?;
        let memory = SharedMemory::map(std::os::fd::AsFd::as_fd(&file))?;
        Ok((file, memory))
    }

    /// Maps such a file. One whose length could change is an error, and so is one that is no memory
    /// file, one that is shorter than a word, and one that was opened for reading alone.
    pub(crate) fn map(file: BorrowedFd<'_>) -> io::Result<SharedMemory> {
        let seals = fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain).unwrap_or(SealFlag::empty());
        if !seals.contains(fixed_length()) {
            let why =
                "it is no memory file of a fixed length (sealed against shrinking and growing), and may become shorter under the reader";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let length = usize::try_from(nix::sys::stat::fstat(file)?.st_size).unwrap_or_default();
        let Some(words) = NonZeroUsize::new(length / size_of::<AtomicU64>()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is empty"));
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let length = words.get() * size_of::<AtomicU64>();
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(Errno::ENOMEM)?;
        Ok(SharedMemory { address, words })
    }
}

impl Deref for SharedMemory {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins at a page, has so many words and is ours until it is dropped. The seals promise that the file behind
        // it does not become shorter. Others write to it through the kernel or a mapping of its own: an atomic word may
        // change at any time.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.words.get()) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: this is what was mapped, and nobody borrows from it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.words.get() * size_of::<AtomicU64>()) };
    }
}

// SAFETY: the memory belongs to the mapping wherever that goes.
unsafe impl Send for SharedMemory {}
// SAFETY: it is lent as atomic words alone.
unsafe impl Sync for SharedMemory {}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    #[test]
    fn what_is_stored_by_one_mapping_is_loaded_by_another() {
        let (file, one) = SharedMemory::new(NonZeroUsize::new(1_000).expect("a number")).expect("memory");
        let other = SharedMemory::map(file.as_fd()).expect("the same");
        one[999].store(7, SeqCst);
        assert_eq!((other.len(), other[999].load(SeqCst), other[0].load(SeqCst)), (1_000, 7, 0));
        assert!(file.set_len(8).is_err(), "it can become shorter");
    }

    #[test]
    fn a_file_whose_length_may_change_is_not_mapped() {
        let file = memory_file().expect("a file");
        file.set_len(4_096).expect("a length");
        assert_eq!(SharedMemory::map(file.as_fd()).expect_err("not sealed").kind(), io::ErrorKind::InvalidInput);
        let file = File::open("/dev/zero").expect("a file");
        assert_eq!(SharedMemory::map(file.as_fd()).expect_err("no memory file").kind(), io::ErrorKind::InvalidInput);
    }
}
