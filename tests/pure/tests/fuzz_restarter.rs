//! The body of the fuzz target `restarter`, run over its committed corpus: the real loop on a simulated system, against the model.
//!
//! The seeds are made here (`POLLFLIP_BLESS=1 cargo test --test fuzz_restarter` writes them); what fuzzing adds beside them is run as well.
#![cfg(debug_assertions)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use nix::libc;

use pollflip_tests_pure::model::corpus::{Seed, bless, corpus, is_seed};
use pollflip_tests_pure::model::rows::ROWS;
use pollflip_tests_pure::simulation;
use pollflip_tests_pure::simulation::act::Setting;
use pollflip_tests_pure::simulation::seams::{Plan, Seam, seams};
use pollflip_tests_pure::simulation::successor::{ANOTHER, COPY, GARBAGE, HERE, PROGRESS, PULL, READY, REFUSE};
use pollflip_tests_pure::simulation::{Act, Happening, Kind};

/// A process has one life at a time: it counts its descriptors.
static ALONE: Mutex<()> = Mutex::new(());

/// Up to where the program is ready,
const OPEN: &[(Kind, u8)] = &[(Kind::Ready, 0), POLL];
/// a restart is asked for,
const BEGUN: &[(Kind, u8)] = &[(Kind::Request, 0), POLL];
/// and the successor runs.
const STARTED: &[(Kind, u8)] = &[(Kind::Thread, 0), POLL, (Kind::Says, HERE)];
const SAYS_READY: &[(Kind, u8)] = &[(Kind::Says, READY), POLL];
const POLL: (Kind, u8) = (Kind::Poll, 0);
const POLL_ONCE: (Kind, u8) = (Kind::Poll, 1);
const DEADLINE: (Kind, u8) = (Kind::Pass, 0);
const A_SECOND: (Kind, u8) = (Kind::Pass, 5);
const DIES: (Kind, u8) = (Kind::Exits, 3);
const CANCEL: (Kind, u8) = (Kind::Cancel, 0);
const STOP: (Kind, u8) = (Kind::Stop, 0);
const LOST: (Kind, u8) = (Kind::ThreadLost, 0);
const UNDYING: (Kind, u8) = (Kind::Undying, 0);
const DIES_AT_LAST: (Kind, u8) = (Kind::Undying, 1);
const STORM: (Kind, u8) = (Kind::Signal, 5);
const A_MOMENT: &[(Kind, u8)] = &[(Kind::Pass, 3), POLL];
const READS: (Kind, u8) = (Kind::Manager, 1);
const BUSY: (Kind, u8) = (Kind::Manager, 4);
const GRANTS: (Kind, u8) = (Kind::Predecessor, 0);

fn seed(name: &str, setting: Setting, parts: &[&[(Kind, u8)]]) -> Seed {
    let acts = parts.concat().into_iter().flat_map(|(kind, what)| Act { kind, what }.to_bytes());
    (name.into(), setting.to_bytes().into_iter().chain(acts).collect())
}

/// One for each row of the table, by the name of it.
fn rows() -> Vec<Seed> {
    use Kind::{Asks, Closes, Connects, Copies, Gives, Says, Sends, Thread};
    let plain = |name, acts: &[(Kind, u8)]| seed(name, Setting::PLAIN, &[OPEN, acts]);
    let begun = |name, acts: &[(Kind, u8)]| seed(name, Setting::PLAIN, &[OPEN, BEGUN, acts]);
    let started = |name, acts: &[(Kind, u8)]| seed(name, Setting::PLAIN, &[OPEN, BEGUN, STARTED, acts, &[POLL]]);
    // The manager is busy when the restart becomes final.
    let final_while_busy = |name, acts: &[(Kind, u8)]| {
        let setting = Setting::PROBATION.and(Setting::MANAGER);
        let busy: &[(Kind, u8)] = &[(Kind::Manager, 0), (Kind::Says, READY), POLL, BUSY];
        seed(name, setting, &[OPEN, BEGUN, STARTED, busy, acts, &[POLL]])
    };
    // Nor can it be asked for a sign: there is no descriptor for that.
    let no_barrier = (Kind::Fault, 4 << 2);
    // The kernel does not take the commit at once.
    let untaken: &[(Kind, u8)] = &[(Kind::Fault, (2 << 2) + 1), DEADLINE, POLL];
    let proving = |name, acts: &[(Kind, u8)]| seed(name, Setting::PROBATION, &[OPEN, BEGUN, STARTED, SAYS_READY, acts, &[POLL]]);
    // Which of the calls of that poll it is that tells the kernel where new flows go.
    let not_steered = |call: u8| {
        let fault: &[(Kind, u8)] = &[(Kind::Fault, call << 2)];
        seed("not-steered", Setting::NAMED, &[OPEN, BEGUN, STARTED, fault, SAYS_READY])
    };
    let is_it = |(_, bytes): &Seed| simulation::life(bytes).checked.cells().iter().any(|(row, ..)| ROWS[*row].name == "not-steered");
    let ended: &[(Kind, u8)] = &[(Kind::Predecessor, 6), POLL];
    let committed: &[(Kind, u8)] = &[(Kind::Predecessor, 1), POLL];
    vec![
        (0..32).map(not_steered).find(is_it).expect("a call that fails"),
        seed("marks-freed", Setting::SUCCESSOR, &[&[GRANTS], OPEN, committed, ended]),
        seed("marks-freed-by-another", Setting::SUCCESSOR, &[&[GRANTS], OPEN, committed, BEGUN, STARTED, SAYS_READY, ended]),
        plain("opened", &[]),
        plain("request", BEGUN),
        seed("refusal", Setting::SOCKET, &[&[POLL, (Connects, 0), (Asks, 0), POLL]]),
        started("spawned", &[]),
        begun("spawn-failed", &[(Thread, 2), POLL]),
        begun("abandoned", &[CANCEL, POLL, (Thread, 0), POLL]),
        begun("stopped-spawning", &[STOP, POLL, (Thread, 0), POLL]),
        started("precopy-requested", &[(Says, COPY), POLL, (Copies, 0), (Copies, 1), (Copies, 2), (Copies, 3), POLL]),
        started("precopy-room", &[(Says, COPY), POLL, (Copies, 6), POLL, (Copies, 14), POLL, (Copies, 7), (Copies, 3)]),
        started("precopy-requested-twice", &[(Says, COPY), POLL, (Copies, 0), (Says, COPY)]),
        started("ready-without-the-state", &[(Says, COPY), POLL, (Copies, 3), POLL, (Says, READY)]),
        started("state-requested", &[(Says, PULL)]),
        started("handover-sent", &[(Says, PULL), POLL, (Gives, 0), (Gives, 1), (Sends, 0), POLL, (Says, READY)]),
        started("gone-before-it-lets-go", &[(Says, PULL), POLL, (Sends, 0), POLL, (Says, READY), POLL, DIES]),
        started("asked-twice", &[(Says, PULL), POLL, (Says, PULL)]),
        started("ready-too-soon", &[(Says, PULL), POLL, (Says, READY)]),
        started("wrong-pid", &[(Says, ANOTHER)]),
        started("garbage", &[(Says, GARBAGE)]),
        started("given-up", &[(Says, REFUSE)]),
        started("not-ready-in-time", &[DEADLINE]),
        started("stopped-awaiting", &[STOP]),
        started("progress", &[(Says, PROGRESS)]),
        started("exited-early", &[DIES]),
        started("exited-ungranted", &[(Says, PROGRESS), (Says, READY), POLL_ONCE, DIES]),
        started("ready", SAYS_READY),
        proving("granted", &[]),
        started("granted-for-good", SAYS_READY),
        proving("proved", &[DEADLINE]),
        proving("stopped-proving", &[STOP]),
        proving("died-on-probation", &[DIES]),
        proving("dying-on-probation", &[STOP, DIES]),
        started("closed", &[(Closes, 0)]),
        started("hung-up", &[(Closes, 0), POLL, A_SECOND]),
        proving("not-proved", &[(Closes, 0), POLL, A_SECOND]),
        proving("garbage-on-probation", &[(Says, GARBAGE)]),
        started("killed", &[CANCEL]),
        proving("killed-after-grant", &[(Says, GARBAGE), POLL]),
        started("will-not-die", &[UNDYING, CANCEL, POLL, DEADLINE]),
        proving("will-not-die-after-grant", &[UNDYING, (Says, GARBAGE), POLL, DEADLINE]),
        started("died-at-last", &[UNDYING, CANCEL, POLL, DEADLINE, POLL, DIES_AT_LAST]),
        proving("died-at-last-after-grant", &[UNDYING, (Says, GARBAGE), POLL, DEADLINE, POLL, DIES_AT_LAST]),
        final_while_busy("manager-given-up", &[DEADLINE, POLL, (Kind::Pass, 6)]),
        final_while_busy("manager-knows", &[no_barrier, DEADLINE]),
        final_while_busy("manager-told-last", &[no_barrier, DEADLINE, POLL, READS, (Kind::Pass, 4)]),
        final_while_busy("gone-untold", &[DEADLINE, POLL, DIES]),
        final_while_busy("gone-and-all-know", &[DEADLINE, POLL, DIES, POLL, (Kind::Pass, 6)]),
        final_while_busy("gone-untold-at-last", &[no_barrier, DEADLINE, POLL, DIES]),
        seed("gone-while-told", Setting::MANAGER, &[OPEN, BEGUN, STARTED, &[(Kind::Manager, 0)], SAYS_READY, &[DIES, POLL]]),
        proving("gone-while-told-at-last", &[untaken, &[DIES, (Kind::Fault, (1 << 2) + 1)]].concat()),
        started("successor-gone", &[(Says, READY), POLL, DIES]),
        proving("stopped-killing-after-grant", &[UNDYING, (Says, GARBAGE), POLL, STOP]),
        plain("stopped", &[STOP, POLL]),
        seed("stopped-too-early", Setting::SUCCESSOR, &[&[GRANTS], OPEN, &[STOP, POLL]]),
        seed("stopped-before", Setting::SUCCESSOR, &[&[GRANTS], OPEN, &[STOP, POLL, (Kind::Predecessor, 1), POLL]]),
        started("stopped-killing", &[UNDYING, CANCEL, POLL, STOP]),
        plain("broken", &[LOST, POLL]),
        begun("broken-spawning", &[LOST, POLL]),
        started("broken-later", &[LOST, POLL, DIES]),
    ]
}

/// What no row is about: clients, calls that fail, a predecessor that goes.
fn between() -> Vec<Seed> {
    use Kind::{Asks, Closes, Connects, Copies, Fails, Fault, Gives, Manager, Pass, Predecessor, Pulls, Says, Sends, Signal, Thread, Wait};
    let asked: &[(Kind, u8)] = &[(Connects, 0), (Asks, 1), (Connects, 0), (Asks, 7), POLL];
    // Of which the service manager hears before it is final.
    let managed = |name, acts: &[(Kind, u8)]| seed(name, Setting::MANAGER, &[OPEN, BEGUN, STARTED, &[(Manager, 0)], SAYS_READY, acts]);
    // In which the kernel does not take the grant at once; or the commit.
    let granting =
        |name, acts: &[(Kind, u8)]| seed(name, Setting::PROBATION, &[OPEN, BEGUN, STARTED, &[(Fault, (4 << 2) + 1)], SAYS_READY, acts]);
    let committing = |name, setting: Setting, acts: &[(Kind, u8)]| {
        seed(name, Setting::PROBATION.and(setting), &[OPEN, BEGUN, STARTED, SAYS_READY, &[(Fault, (2 << 2) + 1)], acts])
    };
    vec![
        seed("between-clients", Setting::SOCKET, &[OPEN, asked, STARTED, &[(Says, PROGRESS), POLL], SAYS_READY, &[(Asks, 7), POLL]]),
        // What it is told last it hears although the other side has left something unread.
        seed(
            "between-given-up-unread",
            Setting::GIVEN_UP.and(Setting::PROBATION),
            &[OPEN, BEGUN, STARTED, SAYS_READY, &[(Says, PROGRESS)]],
        ),
        // The old process has read nothing of it when it is replaced.
        seed(
            "between-asked-when-replaced",
            Setting::SOCKET.and(Setting::MANAGER).and(Setting::PROBATION),
            &[OPEN, &[(Connects, 0), POLL], BEGUN, STARTED, SAYS_READY, &[(Asks, 3), STOP, POLL, READS, POLL]],
        ),
        seed("between-opened-on-probation", Setting::SUCCESSOR, &[&[GRANTS], OPEN]),
        seed("between-own-probation-over", Setting::SUCCESSOR, &[&[GRANTS], OPEN, &[(Predecessor, 1), POLL]]),
        seed("between-asked-when-left-alone", Setting::SOCKET.and(Setting::SUCCESSOR), &[&[(Predecessor, 6), POLL], asked]),
        seed("between-stopped-unopened", Setting::SOCKET, &[&[STOP], asked]),
        seed(
            "between-many-gifts",
            Setting::PLAIN,
            &[OPEN, BEGUN, STARTED, &[(Says, PULL), POLL, (Gives, 3), (Gives, 2), (Sends, 0), POLL], SAYS_READY],
        ),
        // Some goes ahead, some of that goes again, more comes after that was all; and the rest with the state.
        seed(
            "between-copied",
            Setting::PLAIN,
            &[
                OPEN,
                BEGUN,
                STARTED,
                &[(Says, COPY), POLL, (Copies, 5), POLL, (Copies, 6), POLL, (Copies, 7), (Copies, 1), (Copies, 3), POLL, (Copies, 2)],
                &[(Copies, 1), (Says, PULL), POLL, (Copies, 1), (Copies, 3), (Gives, 1), (Sends, 0), POLL],
                SAYS_READY,
                A_MOMENT,
            ],
        ),
        seed("between-copied-twice", Setting::PLAIN, &[OPEN, BEGUN, STARTED, &[(Says, COPY), POLL, (Copies, 1), (Copies, 1), POLL]]),
        seed(
            "between-copied-and-failed",
            Setting::PLAIN,
            &[OPEN, BEGUN, STARTED, &[(Says, COPY), POLL, (Copies, 5), DIES, POLL, (Copies, 1), (Copies, 2)], BEGUN, STARTED],
        ),
        seed(
            "between-nothing-copied",
            Setting::PLAIN,
            &[OPEN, BEGUN, STARTED, &[(Says, COPY), POLL, (Copies, 4), POLL, (Says, PULL), POLL, (Sends, 0), POLL], SAYS_READY],
        ),
        seed("between-ahead-inherited", Setting::SUCCESSOR, &[&[(Pulls, 1), (Predecessor, 10), POLL, (Predecessor, 9), POLL]]),
        seed(
            "between-ahead-complete",
            Setting::SUCCESSOR,
            &[&[(Pulls, 1), (Predecessor, 8), POLL, (Pulls, 0), (Predecessor, 2), POLL, GRANTS], OPEN],
        ),
        seed("between-predecessor-dies-ahead", Setting::SUCCESSOR, &[&[(Pulls, 1), (Predecessor, 10), POLL, (Predecessor, 6), POLL], OPEN]),
        seed(
            "between-copied-to-the-killed",
            Setting::PLAIN,
            &[OPEN, BEGUN, STARTED, &[(Says, COPY), POLL, UNDYING, CANCEL, POLL, (Copies, 0), POLL, DIES_AT_LAST, POLL]],
        ),
        seed(
            "between-given-to-the-killed",
            Setting::PLAIN,
            &[OPEN, BEGUN, STARTED, &[(Says, PULL), POLL, UNDYING, CANCEL, POLL, (Gives, 0), (Sends, 0), POLL, DIES_AT_LAST, POLL]],
        ),
        seed("between-handover-failed", Setting::PLAIN, &[OPEN, BEGUN, STARTED, &[(Says, PULL), POLL, (Fails, 0), POLL]]),
        seed("between-lifeline-closed", Setting::PLAIN, &[OPEN, BEGUN, STARTED, &[(Closes, 0), POLL, A_SECOND, POLL]]),
        seed("between-predecessor-dies", Setting::SUCCESSOR, &[&[(Pulls, 0), (Predecessor, 6), POLL, (Wait, 0)], OPEN, BEGUN, STARTED]),
        seed("between-state-inherited", Setting::SUCCESSOR, &[&[(Pulls, 0), (Predecessor, 2), POLL, GRANTS], OPEN]),
        seed("between-given-up", Setting::GIVEN_UP, &[OPEN, BEGUN, STARTED]),
        // The grant has to wait; it is then taken, or not at all, or not in time.
        granting("between-grant-waits", &[(Pass, 3), POLL, DEADLINE, POLL]),
        granting("between-grant-lost", &[(Fault, (1 << 2) + 3), (Pass, 3), POLL, A_SECOND, POLL]),
        granting("between-grant-too-late", &[(Fault, (1 << 2) + 1), (Pass, 6), POLL]),
        granting("between-grant-taken-back", &[CANCEL, POLL, (Pass, 3), POLL]),
        // So has the commit, and nothing more is told before.
        committing("between-commit-waits", Setting::PLAIN, &[DEADLINE, POLL, (Pass, 3), POLL]),
        committing("between-commit-lost", Setting::PLAIN, &[DEADLINE, POLL, (Fault, (1 << 2) + 3), (Pass, 3), POLL]),
        committing("between-commit-waits-at-the-end", Setting::GIVEN_UP, &[DEADLINE, POLL]),
        committing("between-commit-waits-in-vain", Setting::PLAIN, &[DEADLINE, POLL, DIES, POLL]),
        // What was spawned, given up and not yet reaped when the thread was lost.
        seed("between-lost-unreaped", Setting::PLAIN, &[OPEN, BEGUN, &[(Thread, 0), STOP, POLL, LOST, POLL]]),
        seed(
            "between-signal-storm",
            Setting::SIGNAL,
            &[&[STORM], OPEN, &[STORM, POLL, STORM], STARTED, &[STORM, POLL, STORM], SAYS_READY, &[STORM, POLL]],
        ),
        seed(
            "between-signal-of-the-predecessor",
            Setting::SIGNAL.and(Setting::SUCCESSOR),
            &[&[(Signal, 8), GRANTS], OPEN, &[(Signal, 8), POLL]],
        ),
        managed("between-manager-answers-late", &[READS, POLL, DEADLINE, POLL, (Manager, 3), POLL]),
        managed("between-manager-never-answers", &[READS, POLL, (Pass, 6), POLL]),
        managed("between-manager-gone", &[(Manager, 7), POLL]),
        managed("between-manager-asked-late", &[BUSY, POLL, (Pass, 4), POLL, READS, (Pass, 4), POLL, (Manager, 3)]),
        managed("between-manager-too-busy", &[BUSY, (Pass, 6), POLL, (Pass, 6)]),
        seed("between-manager-gone-before", Setting::MANAGER, &[OPEN, &[(Manager, 7)], BEGUN, STARTED, SAYS_READY]),
        seed("between-manager-forgotten", Setting::MANAGER.and(Setting::GIVEN_UP), &[OPEN, BEGUN, STARTED, SAYS_READY, &[READS]]),
        seed("between-being-written", Setting::MANAGER, &[OPEN, BEGUN, &[(Thread, 8), POLL, (Manager, 0)]]),
        seed("between-being-written-in-vain", Setting::PLAIN, &[OPEN, BEGUN, &[CANCEL, POLL, (Thread, 8), POLL]]),
        seed("between-too-late", Setting::PLAIN, &[OPEN, BEGUN, &[(Thread, 0), CANCEL, POLL, (Thread, 0)]]),
    ]
}

/// Whole lives with everybody in them, to have each call fail in.
fn plans() -> Vec<Plan> {
    use Kind::{Asks, Connects, Copies, Gives, Manager, Predecessor, Pulls, Says, Sends, Signal, Thread};
    let everybody = [Setting::PROBATION, Setting::SOCKET, Setting::SIGNAL, Setting::MANAGER, Setting::PID_FILE, Setting::NAMED];
    let setting = everybody.into_iter().fold(Setting::PLAIN, Setting::and);
    let attends: &[(Kind, u8)] = &[(Manager, 0), POLL];
    let served: &[(Kind, u8)] = &[(Connects, 0), (Asks, 1), (Connects, 0), (Asks, 7), POLL, (Asks, 7), POLL];
    let given: &[(Kind, u8)] = &[
        (Says, PROGRESS),
        (Says, COPY),
        POLL,
        (Copies, 1),
        (Copies, 3),
        POLL,
        (Says, PULL),
        POLL,
        (Gives, 0),
        (Gives, 1),
        (Gives, 2),
        (Sends, 0),
        POLL,
    ];
    let acts = [OPEN, served, &[(Thread, 0), POLL, (Says, HERE)], given, SAYS_READY, &[(Asks, 7), POLL, DEADLINE, POLL], attends];
    let inherits: &[(Kind, u8)] = &[(Signal, 0), (Pulls, 0), (Predecessor, 2), POLL, GRANTS, POLL, (Predecessor, 1), POLL];
    let ends: &[(Kind, u8)] = &[(Signal, 1), POLL, (Thread, 0), POLL, STOP, POLL];
    vec![
        Plan { name: "early", setting: Setting::SOCKET, acts: served.to_vec() },
        // After the refusal nothing else happens that would wake the loop.
        Plan { name: "fail", setting: Setting::MANAGER, acts: [OPEN, BEGUN, STARTED, &[(Says, REFUSE), POLL]].concat() },
        Plan { name: "refuse", setting, acts: [OPEN, served, &[(Thread, 0), POLL, (Says, REFUSE), POLL, STOP, POLL]].concat() },
        Plan { name: "restart", setting, acts: acts.concat() },
        Plan { name: "inherit", setting: setting.and(Setting::SUCCESSOR), acts: [inherits, OPEN, served, ends].concat() },
    ]
}

/// One for each way in which a call can fail.
fn faults() -> Vec<Seed> {
    let seams = seams();
    let mut missing: BTreeMap<&Seam, BTreeSet<i32>> = seams.iter().map(|seam| (seam, BTreeSet::new())).collect();
    let mut seeds = Vec::new();
    let mut lives = 0;
    for plan in plans() {
        for (bytes, struck) in plan.live_through_all_faults() {
            lives += 1;
            let seam = seams.iter().find(|seam| struck.file.ends_with(&seam.file) && seam.line == struck.line);
            let seam = seam.unwrap_or_else(|| panic!("{struck:?} is not in the source"));
            if missing.get_mut(seam).expect("it is one of them").insert(struck.error) {
                // The line would change with each change above it.
                let number = seams.iter().filter(|other| other.file == seam.file && other.line < seam.line).count();
                let file = seam.file.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "-");
                seeds.push((format!("fault-{file}-{number}-{}", struck.error), bytes));
            }
        }
    }
    missing.retain(|seam, errors| errors.len() < seam.errors.len());
    assert!(missing.is_empty(), "calls that never fail so: {missing:#?}");
    println!("{} ways to fail of {} calls, in {lives} lives", seeds.len(), seams.len());
    seeds
}

/// In the seeds that are about the grant or the commit: how many packets are not taken.
fn sends_that_fail(seed: &str) -> Option<usize> {
    match seed {
        _ if !seed.contains("-grant-") && !seed.contains("-commit-") => None,
        _ if seed.contains("-lost") || seed.contains("-too-late") => Some(2),
        _ => Some(1),
    }
}

/// What a restarter that is dropped does is not recorded; and a check is answered before anything else is looked at.
const OUT_OF_REACH: [&str; 4] = ["given-up-untold", "given-up-told", "given-up-gone", "closed-when-looked-at"];

#[test]
fn every_life_is_one_that_the_model_knows_and_every_row_is_reached() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reached = BTreeSet::new();
    let mut happened = BTreeSet::new();
    bless("restarter", &faults());
    let files = corpus("restarter", &[rows(), between()].concat());
    for (file, bytes) in &files {
        let life = simulation::life(bytes);
        let cells = life.checked.cells().to_vec();
        if is_seed(file) {
            happened.extend(life.happened);
            // Those of one fault are made by looking for it.
            let sends = sends_that_fail(&file.to_string_lossy());
            let failed = life.struck.iter().filter(|struck| struck.file.ends_with("packet.rs")).count();
            assert!(sends.is_none_or(|sends| sends == failed), "{file:?}: {:?}", life.struck);
            // The service stays where it is unless the grant has been taken.
            let given_up = cells.iter().any(|(row, ..)| ["given-up", "grant-not-taken"].contains(&ROWS[*row].name));
            assert!(!file.to_string_lossy().contains("-grant-") || given_up != file.to_string_lossy().contains("-waits"), "{file:?}");
            reached.extend(cells.iter().map(|(row, ..)| ROWS[*row].name));
        }
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let own = ROWS.iter().find(|row| row.name == name);
        assert!(own.is_none_or(|own| cells.iter().any(|(row, ..)| ROWS[*row].name == own.name)), "{name} is not in {name}.seed");
    }
    use Happening::{Answered, BeingWritten, ManagerGone, Signal, SignalOfThePredecessor, Storm, Unanswered};
    assert!(happened.iter().eq(&[Signal, Storm, SignalOfThePredecessor, Answered, Unanswered, ManagerGone, BeingWritten]), "{happened:?}");
    println!("{} lives, {} of {} rows", files.len(), reached.len(), ROWS.len());
    let is_known = |name: &&str| reached.contains(name) || OUT_OF_REACH.contains(name);
    let missing: Vec<_> = ROWS.iter().map(|row| row.name).filter(|name| !is_known(name)).collect();
    assert!(missing.is_empty(), "no file reaches {missing:?}");
}

/// Each message of a lifeline, on both sides of it, cannot be read once for want of memory, and can be
/// read a moment later.
#[test]
fn a_lifeline_that_cannot_be_read_for_a_moment_ends_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let a_moment: &[(Kind, u8)] = &[(Kind::Pass, 3), POLL];
    let mut lives = 0;
    for plan in plans() {
        let acts = plan.acts.iter().flat_map(|act| std::iter::once(*act).chain(a_moment.iter().filter(|_| *act == POLL).copied()));
        let plan = Plan { acts: acts.collect(), ..plan };
        // But that there is something to wait for.
        let is_of_the_life = |name: &&str| *name != "unread";
        let rows = |bytes: &[u8]| -> BTreeSet<_> {
            simulation::life(bytes).checked.cells().iter().map(|(row, ..)| ROWS[*row].name).filter(is_of_the_life).collect()
        };
        let undisturbed = rows(&plan.to_bytes());
        for (bytes, struck) in plan.live_through_all_faults() {
            if struck.file.ends_with("sys/packet.rs") && struck.error == libc::ENOMEM {
                lives += 1;
                assert_eq!(rows(&bytes), undisturbed, "{}: {struck:?}", plan.name);
            }
        }
    }
    assert!(lives > 30, "it has failed {lives} times");
}
