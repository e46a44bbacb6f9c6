//! Memory that the kernel wipes in a forked child, and the number of this process as it tells it.

use std::mem;
use std::ptr;
use std::sync::atomic::AtomicU32;

use nix::libc;

/// A page with a zero in it, and with zeroes in each forked child. `None`: the kernel has none, or does not wipe.
pub(super) fn wiped_page() -> Option<*mut AtomicU32> {
    // The kernel rounds it up to a page.
    let length = mem::size_of::<AtomicU32>();
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let page = unsafe { libc::mmap(ptr::null_mut(), length, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page is new, and nobody has seen it.
    let advise = |advice| unsafe { libc::madvise(page, length, advice) == 0 };
    // Older versions of qemu say yes to any advice, this one too, and follow none.
    const NO_ADVICE: libc::c_int = -1;
    if advise(libc::MADV_WIPEONFORK) && !advise(NO_ADVICE) {
        return Some(page.cast());
    }
    // SAFETY: as above.
    unsafe { libc::munmap(page, length) };
    None
}

/// As the kernel tells it: older C libraries remember the number, and know nothing of a fork that was made without them.
pub(super) fn pid() -> u32 {
    if cfg!(miri) {
        // Miri knows few calls by their numbers.
        return std::process::id();
    }
    // SAFETY: getpid has no preconditions.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}
