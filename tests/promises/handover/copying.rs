//! What goes ahead of the state: how the old process gives it, by the setting `ahead`, and how the new one takes it, by `take_ahead`.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use pollflip::{Arrival, Event, Precopy, Predecessor};

use crate::service::{Ask, Kind, Service, memory};
use crate::taking::hold;
use pollflip_kit::service::report::{self, say};

const LIMIT: Duration = Duration::from_secs(60);

/// What the old process gives ahead.
#[derive(Debug)]
pub struct Copy {
    precopy: Precopy,
    /// What was given and is not gone.
    pub given: BTreeSet<String>,
    /// How many items without a meaning have been given.
    items: u64,
}

pub fn begin(service: &mut Service, mut precopy: Precopy) {
    let how = service.settings.get("ahead").unwrap_or("none").to_owned();
    match how.as_str() {
        "none" => return drop(precopy),
        "twice" => {
            tell(precopy.fds(["same", "same"].map(|name| (name, io::stdin()))));
            // Nothing of it counts any more.
            precopy.complete();
        }
        "complete_twice" => {
            precopy.complete();
            precopy.complete();
        }
        _ => {}
    }
    say(&format!("copies {}", precopy.room()));
    service.copy = Some(Copy { precopy, given: BTreeSet::new(), items: 0 });
    if !matches!(how.as_str(), "twice" | "complete_twice") {
        go_on(service);
    }
}

/// There is room.
pub fn go_on(service: &mut Service) {
    let count = service.settings.number("ahead_items").unwrap_or(0);
    let is_open = service.settings.get("ahead") != Some("open");
    let Some(copy) = &mut service.copy else { return };
    let Copy { precopy, given, items } = copy;
    let room = precopy.room();
    let holdings: Vec<_> = service.holdings.iter().filter(|(name, _)| !given.contains(*name)).take(room).collect();
    let left = (room - holdings.len()) as u64;
    tell(precopy.fds(holdings.iter().map(|(name, held)| (name, held.fd.as_fd()))));
    given.extend(holdings.into_iter().map(|(name, _)| name.clone()));
    let next = (*items + left).min(count);
    let stdin = io::stdin();
    tell(precopy.fds((*items..next).map(|number| (format!("item/{number}"), &stdin))));
    *items = next;
    if is_open && *items == count && service.holdings.keys().all(|name| copy.given.contains(name)) && room > 0 {
        copy.precopy.complete();
        say(&format!("copied {}", copy.given.len()));
    }
}

/// The old process has closed something.
pub fn closed(service: &mut Service, name: &str, fd: &Kind) {
    if let Some(copy) = &mut service.copy {
        pollflip::hang_up(fd.as_fd());
        copy.given.remove(name);
        copy.precopy.gone(name);
    }
}

pub fn obey(service: &mut Service, ask: &Ask) -> Option<String> {
    let copy = service.copy.as_mut()?;
    Some(match ask {
        Ask::Again(times) => {
            for _ in 0..*times {
                copy.precopy.gone("again");
                tell(copy.precopy.fd("again", memory()));
            }
            copy.given.insert("again".into());
            service.hold("again", Kind::Other(memory()));
            "given".into()
        }
        Ask::Complete => {
            copy.precopy.complete();
            "complete".into()
        }
        Ask::GiveLate => copy.precopy.fd("late", io::stdin()).map_or_else(|error| error.to_string(), |()| "given".into()),
        Ask::Room => copy.precopy.room().to_string(),
        Ask::GiveNothingMore => {
            service.copy = None;
            "dropped".into()
        }
        _ => return None,
    })
}

/// What was given ahead, when the state is asked for.
pub fn given(service: &Service) -> BTreeSet<String> {
    service.copy.as_ref().map(|copy| copy.given.clone()).unwrap_or_default()
}

/// Whether the new process goes on to ask for the state.
pub fn take(service: &mut Service, predecessor: &Predecessor) -> Result<bool, String> {
    let how = service.settings.get("take_ahead").unwrap_or("all").to_owned();
    if how == "never" {
        return Ok(true);
    }
    if how == "unread" {
        predecessor.pull_precopy();
        report::wait_for_go();
    }
    let limit = service.settings.number("limit_ahead_ms").map_or(LIMIT, Duration::from_millis);
    let mut count = 0;
    let result = if how == "pull" {
        predecessor.pull_precopy();
        Ok(pulled(service, &mut count))
    } else {
        predecessor.receive_precopy(limit, |arrival| {
            if how == "but_the_third" && count == 2 {
                return Err(io::Error::other("the third\nis one too many"));
            }
            count += 1;
            take_in(service, arrival);
            Ok(())
        })
    };
    say(&format!("ahead {count} {result:?}"));
    if let Err(error) = result {
        say(&format!("receive-error {error}"));
        service.holdings.clear();
        return Ok(false);
    }
    match how.as_str() {
        "wait" => report::wait_for_go(),
        "hang" => {
            say("hangs");
            std::thread::sleep(Duration::MAX);
        }
        "exit" => std::process::exit(3),
        "refuse" => {
            predecessor.refuse("not with these");
            return Err("refused".into());
        }
        "no_state" => return Ok(false),
        // What has changed since comes now.
        "twice" => {
            report::wait_for_go();
            let is_any = predecessor.receive_precopy(limit, |arrival| {
                take_in(service, arrival);
                Ok(())
            });
            say(&format!("ahead again {is_any:?}"));
        }
        _ => {}
    }
    Ok(true)
}

fn take_in(service: &mut Service, arrival: Arrival) {
    match arrival {
        Arrival::Given(name, _) if name.starts_with("item/") => {}
        Arrival::Given(name, descriptor) => hold(service, &name, descriptor),
        Arrival::Gone(name) => drop(service.holdings.remove(&name)),
        other => panic!("{other:?}"),
    }
}

fn pulled(service: &mut Service, count: &mut u64) -> bool {
    loop {
        match service.restarter.wait(LIMIT) {
            Some(Event::Arrived(arrival)) => {
                *count += 1;
                take_in(service, arrival);
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
