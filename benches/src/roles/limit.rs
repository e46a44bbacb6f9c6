//! What cannot be undercut: a process started, descriptors passed, and nothing else.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::cmsg_space;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, sendmsg, socketpair,
};

use crate::memory::{now, see_all};

use super::work::Work;
use super::{Failed, Role, Settings, VARIABLE, address, say};

/// As many descriptors as the kernel takes at a time.
const AT_A_TIME: usize = 253;

fn child(settings: &Settings) -> Result<Command, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(VARIABLE, serde_json::to_string(settings)?);
    Ok(command)
}

/// For each line that comes in: starts this program, which std does with `posix_spawn`, and waits for its byte.
pub fn spawn(settings: &Settings) -> Result<(), Failed> {
    let work = Work::begin(settings, false);
    say("ready", "");
    for line in io::stdin().lines() {
        line?;
        let begun = Instant::now();
        let mut child = child(&Settings { role: Role::Byte, ..Settings::default() })?.stdout(Stdio::piped()).spawn()?;
        let mut byte = [0];
        child.stdout.take().ok_or("no pipe")?.read_exact(&mut byte)?;
        let lasted = begun.elapsed();
        child.wait()?;
        say("spawned", &lasted.as_secs_f64().to_string());
    }
    work.end()
}

/// The same with descriptors that the child is passed: all of them are there before it writes its byte.
pub fn pass(settings: &Settings) -> Result<(), Failed> {
    let listeners: Vec<OwnedFd> = (0..settings.listeners)
        .map(|number| std::net::TcpListener::bind(address(settings, number)).map(OwnedFd::from))
        .collect::<io::Result<_>>()?;
    let numbers: Vec<i32> = listeners.iter().map(AsRawFd::as_raw_fd).collect();
    say("ready", "");
    for line in io::stdin().lines() {
        line?;
        let begun = Instant::now();
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let what = Settings { role: Role::Counter, listeners: settings.listeners, ..Settings::default() };
        let mut child = child(&what)?.stdin(theirs).stdout(Stdio::null()).spawn()?;
        for some in numbers.chunks(AT_A_TIME) {
            sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(b"x")], &[ControlMessage::ScmRights(some)], MsgFlags::empty(), None)?;
        }
        recv(ours.as_raw_fd(), &mut [0], MsgFlags::empty())?;
        let lasted = begun.elapsed();
        child.wait()?;
        say("spawned", &lasted.as_secs_f64().to_string());
    }
    Ok(())
}

/// The child of [`pass`].
pub fn count(settings: &Settings) -> Result<(), Failed> {
    let mut missing = settings.listeners;
    let mut room = cmsg_space!([i32; AT_A_TIME]);
    while missing > 0 {
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(0, &mut slices, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                missing = missing.checked_sub(numbers.len()).ok_or("too many descriptors")?;
            }
        }
    }
    // Standard input is the socket.
    nix::unistd::write(io::stdin(), b"x")?;
    io::stdout().flush()?;
    Ok(())
}

/// Says when it has read all of the state into fresh memory.
pub fn read_pipe(settings: &Settings) -> Result<(), Failed> {
    say("ready", "");
    let mut held = Vec::with_capacity(settings.state);
    io::stdin().take(settings.state as u64).read_to_end(&mut held)?;
    say("held", &format!("{} {}", now(), held.len()));
    Ok(())
}

/// Says when it has mapped the file and seen each page of it.
pub fn map_file(settings: &Settings) -> Result<(), Failed> {
    say("ready", "");
    let mut path = String::new();
    io::stdin().read_line(&mut path)?;
    let file = File::open(path.trim_end())?;
    let length = NonZeroUsize::new(settings.state).ok_or("nothing to map")?;
    // SAFETY: a fresh mapping, which nobody changes: the writer has finished.
    let mapped = unsafe {
        let start = mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &file, 0)?;
        std::slice::from_raw_parts(start.as_ptr().cast::<u8>(), settings.state)
    };
    let sum = see_all(mapped);
    say("held", &format!("{} {} {sum}", now(), mapped.len()));
    Ok(())
}
