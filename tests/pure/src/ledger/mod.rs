//! Any bytes in the place of a ledger: what fuzzing runs, and the tests over its corpus.

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc::{SIGKILL, SIGSEGV};
use nix::sys::memfd::{MFdFlags, memfd_create};
use pollflip::Exit;
use pollflip::ledger::{Ledger, Recovered, cookie};

pub const NAME: &str = "fuzz";
/// Where the table of cookies begins, by the layout of version 1.
const COOKIES: u64 = 64 * 8;
const ACCOUNTS: u64 = 2 * 8;

/// A memory file of a fixed length that holds these bytes.
pub fn memory_file(bytes: &[u8]) -> OwnedFd {
    let mut file = File::from(memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).expect("a file"));
    file.write_all(bytes).expect("a write");
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)).expect("seals");
    file.into()
}

/// Both ends of a connection.
pub fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (peer, listener.accept().expect("a connection").0)
}

/// The first byte says how the last process has ended; the rest is the file. If it opens, all accounts that
/// there can be are made those of a connection, and that is recovered and used.
pub fn any_bytes(data: &[u8]) {
    let Some((end, bytes)) = data.split_first() else { return };
    let end = [Exit::Signal(SIGSEGV), Exit::OutOfMemory, Exit::Signal(SIGKILL), Exit::Unknown][usize::from(end % 4)];
    let file = memory_file(bytes);
    let write = File::from(file.try_clone().expect("a duplicate"));
    let (peer, socket) = connection();
    let cookie = cookie(&socket).expect("a cookie");
    let word = |at: u64| {
        let mut word = [0; 8];
        write.read_exact_at(&mut word, at).map(|()| u64::from_ne_bytes(word)).unwrap_or(0)
    };
    // As many as there are at the most, and not more than are worth the time.
    let accounts = word(ACCOUNTS).min(8).min(bytes.len() as u64 / 64);
    for account in 0..accounts {
        let at = COOKIES + account * 8;
        if at + 8 <= bytes.len() as u64 {
            write.write_all_at(&cookie.to_ne_bytes(), at).expect("a write");
        }
        // The record has the owner that the file says, or this one.
        for place in (0..bytes.len() as u64 / 8).filter(|place| word(place * 8) == u64::MAX) {
            write.write_all_at(&cookie.to_ne_bytes(), place * 8).expect("a write");
        }
    }
    let Ok(ledger) = Ledger::open(NAME, file) else { return };
    let judgement = ledger.judge(end).expect("a judgement");
    assert!(judgement.in_hand.len() <= ledger.accounts());
    let again = || ledger.recover(socket.try_clone().expect("a duplicate"));
    if let Ok(Recovered::Even(mut account) | Recovered::Behind(mut account)) = again() {
        assert!(account.state().len() + account.unwritten() <= ledger.capacity());
        let _ = account.flush();
        let _ = account.advance(&mut [0; 64], |input, draft| draft.write_all(input).map(|()| input.len()));
        let state = account.state().to_vec();
        drop(account);
        if let Ok(Recovered::Even(account) | Recovered::Behind(account)) = again() {
            assert_eq!(account.state(), state);
            account.close();
        }
    }
    drop(peer);
    let _ = ledger.close_unclaimed().expect("a number");
    assert_eq!(ledger.free(), ledger.accounts());
    let (_peer, socket) = connection();
    assert!(ledger.accounts() == 0 || ledger.begin(&socket, b"").is_ok(), "an empty one has room");
}
