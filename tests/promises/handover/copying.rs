//! What goes ahead of the state: how the old process gives it, and how the new one takes it.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use pollflip::{Arrival, Event, Precopy, Predecessor};

use crate::service::{Ask, Holder, Kind, memory};
use crate::taking::hold;
use pollflip_kit::service::Core;
use pollflip_kit::service::report::{self, say};
use serde::{Deserialize, Serialize};

pollflip_kit::settings![Ahead, AheadItems, TakeAhead];

const LIMIT: Duration = Duration::from_secs(60);

/// How the old process gives ahead, if its successor is to ask for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ahead {
    None,
    All,
    /// All, and does not say that this was all.
    Open,
    /// One name twice.
    Twice,
    /// Nothing, and says twice that this was all.
    CompleteTwice,
}

/// So many items without a meaning go ahead too.
#[derive(Debug, Serialize, Deserialize)]
pub struct AheadItems(pub u64);

/// How the new process takes what goes ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TakeAhead {
    All,
    Never,
    /// Asks for it, and reads nothing until it is told to go on.
    Unread,
    /// Asks for it, and is told by events.
    Pull,
    ButTheThird,
    // --- what it does when it has it ---
    Wait,
    Hang,
    Exit,
    Refuse,
    /// Wants no state.
    NoState,
    /// Takes what has changed since, when it is told to go on.
    Twice,
}

/// What the old process gives ahead.
#[derive(Debug)]
pub struct Copy {
    precopy: Precopy,
    /// What was given and is not gone.
    pub given: BTreeSet<String>,
    /// How many items without a meaning have been given.
    items: u64,
}

pub fn begin(holder: &mut Holder, core: &Core, mut precopy: Precopy) {
    let how = core.settings.get().unwrap_or(Ahead::None);
    match how {
        Ahead::None => return drop(precopy),
        Ahead::Twice => {
            tell(precopy.fds(["same", "same"].map(|name| (name, io::stdin()))));
            // Nothing of it counts any more.
            precopy.complete();
        }
        Ahead::CompleteTwice => {
            precopy.complete();
            precopy.complete();
        }
        _ => {}
    }
    say(&format!("copies {}", precopy.room()));
    holder.copy = Some(Copy { precopy, given: BTreeSet::new(), items: 0 });
    if !matches!(how, Ahead::Twice | Ahead::CompleteTwice) {
        go_on(holder, core);
    }
}

/// There is room.
pub fn go_on(holder: &mut Holder, core: &Core) {
    let count = core.settings.get().map_or(0, |AheadItems(count)| count);
    let is_open = core.settings.get() != Some(Ahead::Open);
    let Some(copy) = &mut holder.copy else { return };
    let Copy { precopy, given, items } = copy;
    let room = precopy.room();
    let holdings: Vec<_> = holder.holdings.iter().filter(|(name, _)| !given.contains(*name)).take(room).collect();
    let left = (room - holdings.len()) as u64;
    tell(precopy.fds(holdings.iter().map(|(name, held)| (name, held.fd.as_fd()))));
    given.extend(holdings.into_iter().map(|(name, _)| name.clone()));
    let next = (*items + left).min(count);
    let stdin = io::stdin();
    tell(precopy.fds((*items..next).map(|number| (format!("item/{number}"), &stdin))));
    *items = next;
    if is_open && *items == count && holder.holdings.keys().all(|name| copy.given.contains(name)) && room > 0 {
        copy.precopy.complete();
        say(&format!("copied {}", copy.given.len()));
    }
}

/// The old process has closed something.
pub fn closed(holder: &mut Holder, name: &str, fd: &Kind) {
    if let Some(copy) = &mut holder.copy {
        pollflip::hang_up(fd.as_fd());
        copy.given.remove(name);
        copy.precopy.gone(name);
    }
}

pub fn obey(holder: &mut Holder, ask: &Ask) -> Option<String> {
    let copy = holder.copy.as_mut()?;
    Some(match ask {
        Ask::Again(times) => {
            for _ in 0..*times {
                copy.precopy.gone("again");
                tell(copy.precopy.fd("again", memory()));
            }
            copy.given.insert("again".into());
            holder.hold("again", Kind::Other(memory()));
            "given".into()
        }
        Ask::Complete => {
            copy.precopy.complete();
            "complete".into()
        }
        Ask::GiveLate => copy.precopy.fd("late", io::stdin()).map_or_else(|error| error.to_string(), |()| "given".into()),
        Ask::Room => copy.precopy.room().to_string(),
        Ask::GiveNothingMore => {
            holder.copy = None;
            "dropped".into()
        }
        _ => return None,
    })
}

/// What was given ahead, when the state is asked for.
pub fn given(holder: &Holder) -> BTreeSet<String> {
    holder.copy.as_ref().map(|copy| copy.given.clone()).unwrap_or_default()
}

/// Whether the new process goes on to ask for the state.
pub fn take(holder: &mut Holder, core: &mut Core, predecessor: &Predecessor) -> Result<bool, String> {
    let how = core.settings.get().unwrap_or(TakeAhead::All);
    if how == TakeAhead::Never {
        return Ok(true);
    }
    if how == TakeAhead::Unread {
        predecessor.pull_precopy();
        report::wait_for_go();
    }
    let mut count = 0;
    let result = if how == TakeAhead::Pull {
        predecessor.pull_precopy();
        Ok(pulled(holder, core, &mut count))
    } else {
        predecessor.receive_precopy(LIMIT, |arrival| {
            if how == TakeAhead::ButTheThird && count == 2 {
                return Err(io::Error::other("the third\nis one too many"));
            }
            count += 1;
            take_in(holder, arrival);
            Ok(())
        })
    };
    say(&format!("ahead {count} {result:?}"));
    if let Err(error) = result {
        say(&format!("receive-error {error}"));
        holder.holdings.clear();
        return Ok(false);
    }
    match how {
        TakeAhead::Wait => report::wait_for_go(),
        TakeAhead::Hang => {
            say("hangs");
            std::thread::sleep(Duration::MAX);
        }
        TakeAhead::Exit => std::process::exit(3),
        TakeAhead::Refuse => {
            predecessor.refuse("not with these");
            return Err("refused".into());
        }
        TakeAhead::NoState => return Ok(false),
        // What has changed since comes now.
        TakeAhead::Twice => {
            report::wait_for_go();
            let is_any = predecessor.receive_precopy(LIMIT, |arrival| {
                take_in(holder, arrival);
                Ok(())
            });
            say(&format!("ahead again {is_any:?}"));
        }
        _ => {}
    }
    Ok(true)
}

fn take_in(holder: &mut Holder, arrival: Arrival) {
    match arrival {
        Arrival::Given(name, _) if name.starts_with("item/") => {}
        Arrival::Given(name, descriptor) => hold(holder, &name, descriptor),
        Arrival::Gone(name) => drop(holder.holdings.remove(&name)),
        other => panic!("{other:?}"),
    }
}

fn pulled(holder: &mut Holder, core: &mut Core, count: &mut u64) -> bool {
    loop {
        match core.restarter().wait(LIMIT) {
            Some(Event::Arrived(arrival)) => {
                *count += 1;
                take_in(holder, arrival);
            }
            Some(Event::ArrivedAll) => return *count > 0,
            Some(other) => drop(report::event(&other)),
            None => panic!("nothing has come"),
        }
    }
}

fn tell(result: io::Result<()>) {
    if let Err(error) = result {
        say(&format!("copy-error {error}"));
    }
}
