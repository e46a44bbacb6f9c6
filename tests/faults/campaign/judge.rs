//! Whether the promises have held.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::asker::{Answer, Asker};
use crate::case::{Case, Fault, Victim};
use crate::expected::{Serves, Told};
use crate::strike::Strike;
use crate::world::{Outcome, World};
use pollflip_kit::harness::Service;
use pollflip_kit::hub::{DEADLINE, Process, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::Act;

/// Looks at what a case has left. Whoever serves then is the owner, or nobody does: `false`.
pub fn judge(world: &mut World, case: Case, outcome: Outcome, expected: &[(Serves, Told)]) -> bool {
    let Outcome { old, new, answer, mut kept } = outcome;
    let found = expected.iter().find(|(_, told)| was_told(&answer, *told, new.as_ref()));
    let Some((serves, told)) = found.copied() else { panic!("{case}: the asker was told {answer:?}, and not {expected:?}") };
    if matches!(case.fault, Fault::Full | Fault::Crowded) {
        match (case.victim, &new) {
            (Victim::Old, _) => drop(world.strike_with(&old, Strike::Relieve)),
            (Victim::New, Some(new)) if serves == Serves::New => drop(world.strike_with(new, Strike::Relieve)),
            _ => {}
        }
    }
    let kept_on = serves == Serves::New && told == Told::Complete && !case.fault.is_deadly();
    match serves {
        Serves::Old => {
            kept.echo("still here");
            drop(kept);
            one_owner(world, case, &old);
            alone(world, case, Some(&old));
            // Nothing is left of what has failed.
            let before = world.before.clone();
            expect_size(world, case, &old, &before);
        }
        Serves::New => {
            let new = new.unwrap_or_else(|| match answer {
                Answer::Complete(pid) => world.service.hub.process(pid),
                _ => panic!("{case}: who serves?"),
            });
            new.says("serving");
            if kept_on {
                // It has been handed over for good, and the other finishes its work.
                kept.echo("still here");
            }
            // Whether or not the commit has come through.
            one_owner(world, case, &new);
            drop(kept);
            alone(world, case, Some(&new));
            new.says("event PredecessorGone");
            world.owner = new;
        }
        Serves::Nobody => {
            drop(kept);
            alone(world, case, None);
            return false;
        }
        Serves::NobodyAndReported => {
            let new = new.expect("a successor");
            assert_eq!(old.says("event SuccessorGone"), new.own.to_string(), "{case}");
            kept.echo("still here");
            drop(kept);
            alone(world, case, None);
            return false;
        }
    }
    next_restart(world, case);
    true
}

fn was_told(answer: &Answer, told: Told, new: Option<&Process>) -> bool {
    match (answer, told) {
        (Answer::Complete(pid), Told::Complete) => new.is_none_or(|new| new.own == *pid),
        (Answer::Ended, Told::Ended) => true,
        (Answer::Failed(why), Told::Failed(words)) => words.iter().all(|word| why.contains(word)),
        _ => false,
    }
}

/// It works, and whoever serves then is as large as the one before.
pub fn next_restart(world: &mut World, case: Case) {
    let before = size(&world.service, &world.owner);
    let first = world.owner.said("built").iter().any(|built| built.starts_with("generation 0 "));
    let next = if world.has_long_probation {
        // Counted before: the next one may be born as soon as somebody has asked.
        let births = world.service.hub.pids().len();
        let asker = Asker::ask(&world.service.socket());
        let next = world.service.hub.nth(births);
        next.says("serving");
        world.owner.ask(Act::Stop);
        assert_eq!(asker.answer(), Answer::Complete(next.own), "{case}");
        next
    } else {
        world.service.restart_some_time()
    };
    next.says("serving");
    one_owner(world, case, &next);
    alone(world, case, Some(&next));
    next.says("event PredecessorGone");
    // A first one has no predecessor to hold.
    if !first {
        expect_size(world, case, &next, &before);
    }
    world.before = size(&world.service, &next);
    world.owner = next;
}

/// All who ask are served by the one who should.
fn one_owner(world: &World, case: Case, owner: &Process) {
    let status = world.service.status();
    assert_eq!(status.pid, owner.own, "{case}: {status:?}");
    for _ in 0..3 {
        let mut connection = world.service.connect();
        assert_eq!(connection.pid, owner.own, "{case}: two serve");
        connection.echo("served");
    }
}

/// Waits until no other process of the service is left, but for helpers; nor a zombie of theirs.
pub fn alone(world: &World, case: Case, owner: Option<&Process>) {
    until(world, case, "one process", || {
        let left = group(&world.service);
        let wanted = left.iter().all(|process| Some(process.pid) == owner.map(|owner| owner.pid) || process.name == "sleep");
        if wanted { Ok(()) } else { Err(format!("{left:?} where only {:?} should be", owner.map(|owner| owner.pid))) }
    });
    if let Some(guard) = &world.guard {
        guard.agrees(case, owner);
    }
}

/// What a process has open when all who have left are gone. The end of a connection takes a moment through the loopback device; what else
/// has happened it knows when it has answered twice.
pub fn size(service: &Service, process: &Process) -> Snapshot {
    wait_until("the end of all connections", || process.ask(Act::Connections) == "0");
    wait_until("all who have asked to be gone", || procfs::connections_to(&service.socket()) == 0);
    process.ask(Act::Status);
    process.ask(Act::Status);
    Snapshot::of(process.pid)
}

pub fn expect_size(world: &World, case: Case, process: &Process, expected: &Snapshot) {
    until(world, case, "the size before", || {
        let now = Snapshot::of(process.pid);
        if now == *expected { Ok(()) } else { Err(format!("process {} was {expected:#?} and is {now:#?}", process.pid)) }
    });
}

fn until(world: &World, case: Case, what: &str, look: impl Fn() -> Result<(), String>) {
    let deadline = Instant::now() + DEADLINE / 4;
    while let Err(why) = look() {
        assert!(Instant::now() < deadline, "{case}: waited for {what}: {why}\n{}", world.service.hub.story());
        thread::sleep(Duration::from_millis(3));
    }
}

/// A process of a service, running or not yet reaped by another of them.
#[derive(Debug)]
pub struct Member {
    pub pid: u32,
    pub name: String,
}

/// All of them: they are in one process group. The dead ones that this process has to reap do not count.
pub fn group(service: &Service) -> Vec<Member> {
    let (group, own) = (service.first().pid.to_string(), std::process::id().to_string());
    let pids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let member = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, fields) = text.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let counts = fields[2] == group && !(fields[1] == own && procfs::has_ended(pid));
        counts.then(|| Member { pid, name: head.split_once('(').map_or("", |(_, name)| name).into() })
    };
    pids.filter_map(member).collect()
}
