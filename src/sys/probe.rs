//! Whether the system calls can be made that every restart needs: an old kernel has not all of them, and a sandbox may forbid some.

use std::io;
use std::process;

use nix::libc;

use super::{Process, packet, packet_sockets, simulation};

/// The first of them that cannot be made, by its name, and the error. A shortage is none: it passes.
/// `has_lifeline`: packets with descriptors have come to this process already.
pub(crate) fn missing_call(has_lifeline: bool) -> Option<(&'static str, i32)> {
    if simulation::is_simulated() {
        return None;
    }
    let missing = |call: &'static str, error: io::Error| {
        let number = error.raw_os_error()?;
        [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::EINVAL].contains(&number).then_some((call, number))
    };
    processes().err().or_else(|| packets(has_lifeline).err()).and_then(|(call, error)| missing(call, error))
}

/// Names the call in an error that says that there is none, or that it is forbidden; another one is left as it is.
pub(crate) fn naming(call: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => io::Error::new(error.kind(), format!("{call}: {error}")),
        _ => error,
    }
}

fn processes() -> Result<(), (&'static str, io::Error)> {
    let own = Process::open(process::id()).map_err(|error| ("pidfd_open", error))?;
    // Signal 0 is none: it is only looked whether one could be sent.
    own.signal(0).map_err(|error| ("pidfd_send_signal", error))?;
    own.can_be_waited_for().map_err(|error| ("waitid", error))
}

/// As on a lifeline, with a descriptor.
fn packets(have_come: bool) -> Result<(), (&'static str, io::Error)> {
    let (one, other) = packet_sockets().map_err(|error| ("socketpair", error))?;
    if have_come {
        return Ok(());
    }
    let descriptor = std::os::fd::AsFd::as_fd(&one);
    packet::send(&one, b"?", &[descriptor]).map_err(|error| ("sendmsg", error))?;
    packet::receive(&other).map(drop).map_err(|error| ("recvmsg", error))
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_of_them_can_be_made_here() {
        assert_eq!(super::missing_call(false), None);
    }
}
