//! Copies of a ledger and of its accounts.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use pollflip::ledger::{Account, Advance, Recovered};
use pollflip::{Exit, Ledger};

use crate::child::{BOTH, Verdict, claim, in_child};

cases![a_child_records_nothing_takes_nothing_and_closes_nothing, a_child_that_opens_the_file_has_a_ledger_of_its_own];

fn connect() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (peer, listener.accept().expect("a connection").0)
}

fn is_refused<T>(result: std::io::Result<T>, what: &'static str) -> Verdict {
    claim(result.is_err_and(|error| error.kind() == ErrorKind::Unsupported), what)
}

fn tries_all(ledger: &Ledger, mut account: Account<TcpStream>, other: &TcpStream) -> Verdict {
    is_refused(account.advance(&mut [0; 8], |_, _| Ok(1)), "it works")?;
    is_refused(account.push(|draft| draft.write_all(b"the child's")), "it writes")?;
    is_refused(account.flush(), "it flushes")?;
    is_refused(ledger.begin(other, b"").map_err(|failed| failed.error), "it begins")?;
    is_refused(ledger.recover(account.connection()).map_err(|failed| failed.error), "it recovers")?;
    is_refused(ledger.close_unclaimed(), "it closes the unclaimed")?;
    is_refused(ledger.judge(Exit::Unknown), "it judges")?;
    ledger.serves();
    std::mem::forget(account.in_hand());
    // Shut down, it would be so for its parent too.
    drop(account.close());
    Ok(())
}

fn a_child_records_nothing_takes_nothing_and_closes_nothing() {
    let ledger = Ledger::new("forks", 3, 64).expect("a ledger");
    let ((mut peer, connection), (_, other)) = (connect(), connect());
    let mut account = Some(ledger.begin(connection, b"state").expect("an account"));
    peer.write_all(b"input").expect("a write");
    for how in BOTH {
        in_child(how, || tries_all(&ledger, account.take().ok_or("an account")?, &other));
    }
    let mut account = account.expect("the parent's own");
    while account.advance(&mut [0; 8], |input, draft| draft.write_all(input).map(|()| input.len())).expect("work") != Advance::Worked {}
    let mut answer = [0; 5];
    peer.read_exact(&mut answer).expect("an answer");
    assert_eq!((&answer, account.state(), ledger.free()), (b"input", &b"state"[..], 2));
}

/// A child is a process as any other: given the file and the connection, it goes on.
fn a_child_that_opens_the_file_has_a_ledger_of_its_own() {
    let ledger = Ledger::new("forks", 3, 64).expect("a ledger");
    let (mut peer, connection) = connect();
    let kept = connection.try_clone().expect("a duplicate");
    drop(ledger.begin(connection, b"state").expect("an account"));
    let file: OwnedFd = ledger.as_fd().try_clone_to_owned().expect("a duplicate");
    let mut given = Some((file, kept));
    in_child(BOTH[0], || {
        let (file, kept) = given.take().ok_or("what is given")?;
        let ledger = Ledger::open("forks", file).map_err(|_| "a ledger")?;
        let Ok(Recovered::Even(mut account)) = ledger.recover(kept) else { return Err("an account") };
        claim(account.push(|draft| draft.write_all(b"hi")).is_ok(), "it writes")
    });
    let mut answer = [0; 2];
    peer.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"hi");
}
