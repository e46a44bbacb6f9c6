//! What a process needs that watches over others: datagrams with the credentials of their senders,
//! a fork that executes at once, the ends of children and of those that are not, and an end like
//! that of another.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

use crate::error::Exit;

use super::orders::Execution;
use super::{Process, dying, name_senders, pipe};

/// Asks the kernel to pass pidfds of senders (Linux 6.5), and the type of the message that has one.
/// `libc` does not have them yet.
const SO_PASSPIDFD: libc::c_int = 76;
const SCM_PIDFD: libc::c_int = 4;
/// Asks a pidfd about its process, of which its exit status can be had when it is reaped (Linux
/// 6.15).
const PIDFD_GET_INFO: u64 = 0xc040_ff0b;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Room for 253 descriptors, as many as one message can have, the credentials and a pidfd.
const CONTROL_WORDS: usize = 160;

/// A datagram, whose bytes are in the buffer.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) length: usize,
    /// What came with it.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The process that sent it, as the kernel says; 0: one of another PID namespace.
    pub(crate) sender: u32,
    /// The same, held by a pidfd, where the kernel has that.
    pub(crate) process: Option<Process>,
    /// Bytes were left out.
    pub(crate) truncated: bool,
    /// Descriptors were left out: this process has no room for them.
    pub(crate) lacks_descriptors: bool,
}

/// Who has sent the datagram that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    /// As the kernel says; 0: a process of another PID namespace.
    pub(crate) pid: u32,
    /// Descriptors come with it.
    pub(crate) has_descriptors: bool,
}

/// Has the kernel say who has sent what comes.
pub(crate) fn pass_credentials(socket: &impl AsFd) -> io::Result<()> {
    name_senders(socket, true)
}

/// Whether the kernel is to hold senders by pidfds too. Where it does not know the option nothing
/// changes.
fn hold_senders(socket: &impl AsFd, hold: bool) {
    let hold = libc::c_int::from(hold);
    let length = mem::size_of_val(&hold) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the value is an int of that length.
    unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, SO_PASSPIDFD, (&raw const hold).cast(), length) };
}

/// Looks at who has sent the datagram that comes next. It stays where it is, and none of its
/// descriptors becomes one of this process: even to close those of a stranger can take long.
pub(crate) fn next_sender(socket: &impl AsFd) -> io::Result<Sender> {
    // SAFETY: an all-zero msghdr is a valid one: null pointers and lengths of zero.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // For the credentials and nothing else.
    let mut control = [0u64; 4];
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control) as _;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points to a buffer that outlives the call, and its length is that.
    if unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &mut message, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut sender = Sender { pid: 0, has_descriptors: message.msg_flags & libc::MSG_CTRUNC != 0 };
    // SAFETY: the kernel has written whole headers into the buffer. What is behind one need not be
    // aligned.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if !header.is_null()
            && ((*header).cmsg_level, (*header).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
            && (*header).cmsg_len as usize >= libc::CMSG_LEN(mem::size_of::<libc::ucred>() as u32) as usize
        {
            let credentials = libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned();
            sender.pid = u32::try_from(credentials.pid).unwrap_or(0);
        }
    }
    Ok(sender)
}

/// Receives one datagram, without blocking, and without allocating but for descriptors.
pub(crate) fn receive_datagram(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; CONTROL_WORDS];
    // SAFETY: an all-zero msghdr is a valid one: null pointers and lengths of zero.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    hold_senders(socket, true);
    // SAFETY: the message points to buffers that outlive the call, and their lengths are theirs.
    let received = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &mut message, flags) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error());
    hold_senders(socket, false);
    let length = length?;
    let mut datagram = Datagram {
        length,
        descriptors: Vec::new(),
        sender: 0,
        process: None,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        lacks_descriptors: message.msg_flags & libc::MSG_CTRUNC != 0,
    };
    let mut pidfd = None;
    // SAFETY: the kernel has written whole headers into the buffer, and the CMSG_ functions do not
    // step beyond its end. The numbers behind a header of SCM_RIGHTS or SCM_PIDFD are descriptors
    // that the kernel has just made for this process, and each is taken once. What is behind a
    // header need not be aligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for index in 0..bytes / mem::size_of::<RawFd>() {
                        datagram.descriptors.push(OwnedFd::from_raw_fd(data.cast::<RawFd>().add(index).read_unaligned()));
                    }
                }
                (libc::SOL_SOCKET, SCM_PIDFD) if bytes >= mem::size_of::<RawFd>() => {
                    // A sender that is gone by now has none.
                    let number = data.cast::<RawFd>().read_unaligned();
                    pidfd = (number >= 0).then(|| OwnedFd::from_raw_fd(number));
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if bytes >= mem::size_of::<libc::ucred>() => {
                    datagram.sender = u32::try_from(data.cast::<libc::ucred>().read_unaligned().pid).unwrap_or(0);
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    datagram.process = pidfd.map(|pidfd| Process::from((datagram.sender, pidfd)));
    Ok(datagram)
}

/// How a process has ended that is no child of this one. Its parent may have reaped it: then only
/// newer kernels know.
pub(crate) fn exit_of_another(process: &Process) -> Exit {
    if let Some(status) = dying::status_of_zombie(process.pid()) {
        return Exit::of_wait_status(status);
    }
    // The first and only version that matters here: the mask, twelve numbers that are not looked
    // at, and the status.
    let mut info = [0u32; 16];
    info[0] = PIDFD_INFO_EXIT as u32;
    // SAFETY: the descriptor is open; the number of the call says how long what it writes is, and
    // the buffer is as long.
    let result = unsafe { libc::ioctl(process.as_fd().as_raw_fd(), PIDFD_GET_INFO as libc::Ioctl, info.as_mut_ptr()) };
    if result == 0 && u64::from(info[0]) & PIDFD_INFO_EXIT != 0 { Exit::of_wait_status(info[15] as i32) } else { Exit::Unknown }
}

/// What `kcmp` is asked, which `libc` does not have: whether two descriptors are one open file.
const KCMP_FILE: libc::c_int = 0;

/// Whether two descriptors of this process are of one open file: one description, and not only one
/// file. Some kernels and filters do not tell.
pub(crate) fn is_same_open_file(one: &impl AsFd, other: &impl AsFd) -> io::Result<bool> {
    let own = std::process::id();
    let (one, other) = (one.as_fd().as_raw_fd(), other.as_fd().as_raw_fd());
    // SAFETY: the call takes numbers.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one as libc::c_ulong, other as libc::c_ulong) };
    if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
}

/// Room for `=`, the digits of a process id and a NUL.
const DIGITS: usize = 12;

/// Forks and executes. Returns once the program has been executed, or with the error that kept it
/// from that. Not `posix_spawn`: that cannot tell the child its number, nor ask for its death
/// signal. It is for a process with one thread and little memory.
pub(crate) fn fork_and_execute(what: &Execution<'_>) -> io::Result<u32> {
    // All memory that the child needs is there before.
    let mut patched: Vec<Vec<u8>> = what.pid_variables.iter().map(|name| [name.as_bytes(), &[0; DIGITS]].concat()).collect();
    let mut environment: Vec<*const libc::c_char> = Vec::new();
    environment.try_reserve_exact(what.environment.len() + patched.len() + 1)?;
    environment.extend(what.environment.iter().map(|variable| variable.as_ptr()));
    environment.extend(patched.iter().map(|variable| variable.as_ptr().cast()));
    environment.push(ptr::null());
    let arguments: Vec<_> = what.arguments.iter().map(|argument| argument.as_ptr()).chain([ptr::null()]).collect();
    let parent = nix::unistd::getpid().as_raw();
    let (ours, theirs) = pipe(false)?;
    // Above all numbers that the child is to know descriptors by.
    let above = what.inherited.iter().map(|(_, number)| number + 1).max().unwrap_or(0);
    let theirs = if theirs.as_raw_fd() < above { super::duplicate(theirs, above)? } else { theirs };
    let mut placed: Vec<(RawFd, RawFd)> = what.inherited.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();

    // SAFETY: the child does nothing that another thread of this process could have been in the
    // midst of: none but those that close descriptors run.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: nothing here allocates or takes a lock; all pointers are to memory that was made
        // before, and the lists end with a null.
        unsafe {
            let own = libc::getpid();
            for (variable, name) in patched.iter_mut().zip(what.pid_variables) {
                write_number(&mut variable[name.len()..], own as u32);
            }
            if what.own_group {
                libc::setpgid(0, 0);
            }
            for signal in what.default_signals {
                libc::signal(*signal, libc::SIG_DFL);
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, what.death_signal as libc::c_ulong);
            if place(&mut placed, above) && libc::getppid() == parent {
                libc::pthread_sigmask(libc::SIG_SETMASK, what.mask.as_ref(), ptr::null_mut());
                libc::execve(what.program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            }
            let error = Errno::last_raw().to_ne_bytes();
            libc::write(theirs.as_raw_fd(), error.as_ptr().cast(), error.len());
            libc::_exit(127);
        }
    }
    drop(theirs);
    if what.own_group {
        // Whichever of the two is first. The child may have executed by now, and has done it then.
        // SAFETY: two numbers.
        unsafe { libc::setpgid(pid, pid) };
    }
    let mut error = [0; 4];
    loop {
        match nix::unistd::read(&ours, &mut error) {
            Err(Errno::EINTR) => {}
            // It is closed by the execution.
            Ok(0) | Err(_) => return Ok(pid as u32),
            Ok(_) => break,
        }
    }
    // SAFETY: the child ends now, and nobody else reaps it; a null is allowed for the status.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error)))
}

/// Gives descriptors their numbers, whatever is there; those that stand where another one belongs
/// first move up.
///
/// # Safety
///
/// Only for a forked child that executes: what was open at these numbers is closed.
unsafe fn place(placed: &mut [(RawFd, RawFd)], above: RawFd) -> bool {
    // SAFETY: the calls take numbers, and nobody else in this process has descriptors any more.
    unsafe {
        for (from, _) in placed.iter_mut() {
            if *from < above {
                *from = libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, above);
            }
            if *from < 0 {
                return false;
            }
        }
        // Without CLOEXEC.
        placed.iter().all(|(from, to)| libc::dup2(*from, *to) >= 0)
    }
}

/// `=` and the digits, in memory that is there.
fn write_number(place: &mut [u8], number: u32) {
    let mut digits = [0; DIGITS];
    let mut length = 0;
    let mut rest = number;
    while rest > 0 || length == 0 {
        digits[length] = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
    }
    let equals = [b'='];
    let text = equals.iter().chain(digits[..length].iter().rev());
    place.iter_mut().zip(text).for_each(|(place, byte)| *place = *byte);
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn a_number_is_written_as_it_is_read() {
        for number in [0, 1, 9, 10, 65535, 4_194_304, u32::MAX] {
            let mut place = [0; DIGITS];
            write_number(&mut place, number);
            let text = CStr::from_bytes_until_nul(&place).expect("a NUL").to_str().expect("digits");
            assert_eq!(text, format!("={number}"));
        }
    }
}
