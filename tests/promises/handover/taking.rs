//! The ways in which the new process takes what it is given.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use pollflip::{Arrival, Error, Event, Inheritance, Predecessor};

use crate::copying::{self, Ahead};
use crate::service::{Holder, Kind};
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs;
use pollflip_kit::service::Core;
use pollflip_kit::service::report::{self, say};
use serde::{Deserialize, Serialize};

pollflip_kit::settings![Take, ReceiveWithin];

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Take {
    All,
    Nothing,
    /// All, when it has done other things for so long.
    Late(Duration),
    /// Asks for it, and is told by an event.
    Pull,
    ImpatientWhileAnotherThreadWaits,
    Each(Each),
    /// One connection.
    First,
    /// Looks at what it is given.
    Names,
    Blob,
    Memfd,
    /// Asks for it, and hangs.
    Hang,
    // --- what it does when it has it ---
    HangWithIt,
    Refuse,
    Exit,
    Abort,
    Wait,
}

/// Each item as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Each {
    Quietly,
    /// And tells of it.
    Aloud,
    ButTheThird,
    OfWhatWasPulled,
}

/// How long it waits for the state.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReceiveWithin(pub Duration);

pub fn take(holder: &mut Holder, core: &mut Core) -> Result<(), String> {
    let predecessor = core.restarter().predecessor().expect("a predecessor");
    let how = core.settings.get().unwrap_or(Take::All);
    if how == Take::Nothing {
        return Ok(());
    }
    predecessor.progress("warming,\n40%");
    if how == Take::Hang {
        predecessor.pull();
        say("hangs");
        std::thread::sleep(Duration::MAX);
    }
    if let Take::Late(time) = how {
        // It has much to do before it wants the state.
        std::thread::sleep(time);
    }
    if core.settings.has::<Ahead>() && !copying::take(holder, core, &predecessor)? {
        return Ok(());
    }
    let limit = core.settings.get().map_or(LIMIT, |ReceiveWithin(limit)| limit);
    let inheritance = if how == Take::Pull {
        predecessor.pull();
        Ok(pulled(core))
    } else if how == Take::ImpatientWhileAnotherThreadWaits {
        let patient = predecessor.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw() as u32).expect("it is waited for");
            patient.receive(limit)
        });
        let id = told.recv().expect("a thread");
        report::wait_for_go();
        // It has asked, and there is nothing else to sleep for.
        wait_until("the other thread to wait", || procfs::state(id) == Some('S'));
        let error = predecessor.receive(Duration::from_millis(200)).expect_err("nothing is given yet");
        say(&format!("impatient {error}"));
        waiting.join().expect("no panic")
    } else if let Take::Each(how) = how {
        take_each(holder, &predecessor, how, limit)
    } else {
        predecessor.receive(limit)
    };
    let mut inheritance = match inheritance {
        Ok(inheritance) => inheritance,
        Err(error) => {
            say(&format!("receive-error {error}"));
            // Of what has come ahead nobody has the state.
            holder.holdings.clear();
            // What a careless program does.
            return Ok(());
        }
    };
    say(&format!("received {}", inheritance.names().len()));
    match how {
        Take::Refuse => {
            predecessor.refuse("this version\nlikes it not");
            return Err("refused".into());
        }
        Take::HangWithIt => {
            predecessor.progress("loading, 70%");
            say("hangs");
            std::thread::sleep(Duration::MAX);
        }
        Take::Exit => std::process::exit(3),
        Take::Abort => std::process::abort(),
        Take::Wait => {
            report::wait_for_go();
        }
        // Takes one and leaves the others, which it keeps until long after.
        Take::First => {
            let first = inheritance.names().into_iter().find(|name| name.starts_with("tcp/")).expect("a connection");
            hold(holder, &first, inheritance.fd(&first).expect("its name"));
            std::mem::forget(inheritance);
            return Ok(());
        }
        Take::Names => {
            for name in inheritance.names() {
                let bytes = inheritance.bytes(&name).expect("a blob").expect("its name");
                say(&format!("name {name} {}", bytes == name.as_bytes()));
            }
        }
        Take::Blob => look_at_blob(&mut inheritance),
        Take::Memfd => look_at_memfd(&mut inheritance),
        _ => {}
    }
    for name in inheritance.gone() {
        say(&format!("gone {name}"));
        holder.holdings.remove(name);
    }
    let buffers = inheritance.bytes("buffers").map_err(|error| error.to_string())?;
    for (name, descriptor) in inheritance.drain() {
        if !name.starts_with("item/") {
            hold(holder, &name, descriptor);
        }
    }
    let buffers: Vec<(String, Vec<u8>)> = buffers.map_or_else(Vec::new, |json| serde_json::from_slice(&json).expect("buffers"));
    for (name, buffer) in buffers {
        if let Some(held) = holder.holdings.get_mut(&name) {
            held.buffer = buffer;
        }
    }
    Ok(())
}

/// Holds each connection as soon as it is here. `how` says what else.
fn take_each(holder: &mut Holder, predecessor: &Predecessor, how: Each, limit: Duration) -> Result<Inheritance, Error> {
    if how == Each::OfWhatWasPulled {
        predecessor.pull();
        report::wait_for_go();
    }
    let mut count = 0;
    let result = predecessor.receive_each(limit, |arrival| {
        match arrival {
            Arrival::Given(name, descriptor) => {
                count += 1;
                if how == Each::ButTheThird && count == 3 {
                    return Err(io::Error::other("the third\nis one too many"));
                }
                if name.starts_with("item/") {
                    return Ok(());
                }
                if how == Each::Aloud {
                    say(&format!("arrived {name}"));
                }
                hold(holder, &name, descriptor);
            }
            Arrival::Gone(name) => {
                say(&format!("gone {name}"));
                holder.holdings.remove(&name);
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    });
    say(&format!("each {count}"));
    if result.is_err() {
        holder.holdings.clear();
    }
    result
}

fn pulled(core: &mut Core) -> Inheritance {
    loop {
        match core.restarter().wait(LIMIT) {
            Some(Event::Inherited(inheritance)) => {
                say("event Inherited");
                return inheritance;
            }
            Some(other) => drop(report::event(&other)),
            None => panic!("no state"),
        }
    }
}

pub fn hold(holder: &mut Holder, name: &str, descriptor: OwnedFd) {
    let kind = match name.split('/').next() {
        Some("tcp") => Kind::Tcp(descriptor.into()),
        Some("unix") => Kind::Unix(descriptor.into()),
        _ => Kind::Other(descriptor.into()),
    };
    holder.hold(name, kind);
}

fn look_at_blob(inheritance: &mut Inheritance) {
    let file: File = inheritance.fd::<OwnedFd>("blob").map(File::from).expect("the blob");
    // Nobody can change it, not even who has it open for writing.
    let written = std::os::unix::fs::FileExt::write_at(&file, b"x", 0).map_err(|error| error.kind());
    let shrunk = file.set_len(0).map_err(|error| error.kind());
    say(&format!("sealed {written:?} {shrunk:?}"));
    say(&format!("size {}", file.metadata().expect("a file").len()));
}

fn look_at_memfd(inheritance: &mut Inheritance) {
    let map = inheritance.map("memfd").map(|map| map.is_some());
    say(&format!("map {}", map.map_or_else(|error| error.to_string(), |some| some.to_string())));
    // It is still there.
    let bytes = inheritance.bytes("memfd").expect("a file");
    say(&format!("bytes {}", String::from_utf8_lossy(&bytes.unwrap_or_default())));
    let map = inheritance.map("buffers").expect("a blob").expect("its name");
    say(&format!("mapped {}", String::from_utf8_lossy(&map)));
    assert!(inheritance.map("buffers").expect("nothing to fail").is_none());
}
