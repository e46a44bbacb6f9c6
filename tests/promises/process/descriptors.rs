//! What a successor gets of the descriptors of its predecessor: what is not CLOEXEC, unless it is
//! told otherwise; and what is said of it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pollflip_kit::harness::{Service, Setup, own_program};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, Linger, Log, Step, at};
use pollflip_kit::surroundings::are_many_descriptors_allowed;

pollflip_kit::trials![
    a_descriptor_that_is_passed_on_purpose_goes_from_generation_to_generation_without_a_word,
    descriptors_that_become_more_with_each_generation_are_named,
    descriptors_that_become_more_are_named_where_the_restart_fails_too,
    descriptors_that_are_not_cloexec_are_closed_where_the_program_says_so,
    a_successor_gets_what_stands_above_many_descriptors_that_it_does_not_get,
    a_successor_gets_the_last_number_that_is_allowed,
    a_program_that_is_named_by_a_descriptor_is_started,
    a_program_in_a_directory_that_is_named_by_a_descriptor_is_started,
    what_it_costs_to_start_a_successor_from_many_descriptors_is_bounded,
];

/// What a process was born with beside its standard streams and its lifeline, by the numbers.
fn born_with(process: &Process) -> Vec<i32> {
    let all = process.says("descriptors");
    let lifeline: i32 = process.says("lifeline").split(':').next().and_then(|number| number.parse().ok()).unwrap_or(-1);
    let numbers = all.trim_matches(['[', ']']).split(", ").map(|number| number.parse::<i32>().expect("a number"));
    numbers.filter(|number| *number > 2 && *number != lifeline).collect()
}

fn warnings(process: &Process) -> Vec<String> {
    process.said("log WARN").into_iter().filter(|line| line.contains("CLOEXEC")).collect()
}

/// A service with this open as number 9.
fn with(file: OwnedFd) -> Setup {
    Setup::new().stdin(file).set(Log::Told).shell("exec 9<&0 </dev/null; exec \"$0\"")
}

fn a_descriptor_that_is_passed_on_purpose_goes_from_generation_to_generation_without_a_word() {
    let service = with(tempfile::tempfile().expect("a file").into()).start();
    assert_eq!(born_with(&service.first()), [9]);
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(born_with(&new), [9]);
        assert_eq!(warnings(&new), [""; 0]);
    }
    assert_eq!(warnings(&service.first()), [""; 0]);
}

/// Each generation opens this before it builds its restarter.
fn leaking(setup: Setup) -> Setup {
    setup.set(Log::Told).plan(at(Step::Born, Act::Leak("/dev/zero".into())))
}

fn descriptors_that_become_more_with_each_generation_are_named() {
    let service = leaking(Setup::new().set(Linger)).start();
    let mut process = service.first();
    for generation in 1..=3 {
        let before = born_with(&process).len();
        service.plan_next(at(Step::Born, Act::Leak("/dev/zero".into())));
        let new = service.restart();
        // The first one is not told what it was born with. The restart waits for no warning.
        if generation > 1 {
            wait_until("a warning", || !warnings(&process).is_empty());
            let [told] = &warnings(&process)[..] else { panic!("{:?}", warnings(&process)) };
            assert!(told.contains(&format!("{generation} descriptors")) && told.contains(&format!("was born with {before}")), "{told}");
            assert!(told.contains("(/dev/zero)") && told.contains("RestartConfig::inherit_descriptors(false)"), "{told}");
        }
        assert_eq!(born_with(&new).len(), generation);
        process = new;
    }
    assert_eq!(warnings(&service.first()), [""; 0]);
    assert_eq!(service.connect().pid, process.pid);
}

fn descriptors_that_become_more_are_named_where_the_restart_fails_too() {
    let service = Setup::new().set(Log::Told).start();
    let first = service.first();
    let number = first.ask(Act::Leak("/dev/zero".into()));
    let before = Snapshot::of(first.pid);
    service.plan_next(at(Step::Born, Act::Exit(3)));
    assert!(service.fail_to_restart().contains("exited with status 3"));
    wait_until("a warning", || !warnings(&first).is_empty());
    let told = warnings(&first);
    assert!(told.len() == 1 && told[0].contains(&format!("{number} (/dev/zero)")), "{told:?}");
    service.expect_unchanged(&first, &before);
    service.restart();
}

fn descriptors_that_are_not_cloexec_are_closed_where_the_program_says_so() {
    let service = leaking(Setup::new().set(Config::InheritDescriptors(false)).set(Linger)).start();
    let mut last = service.first();
    for _ in 0..3 {
        let before = Snapshot::of(last.pid);
        for (act, reason) in [(Act::Exit(3), "exited with status 3"), (Act::Raise(Signal::SIGKILL), "SIGKILL")] {
            service.plan_next(at(Step::Built, act));
            assert!(service.fail_to_restart().contains(reason));
            service.expect_unchanged(&last, &before);
            assert_eq!(service.connect().pid, last.pid);
        }
        service.plan_next(at(Step::Born, Act::Leak("/dev/zero".into())));
        let new = service.restart();
        assert_eq!(born_with(&new), [0; 0]);
        assert_eq!(warnings(&new), [""; 0]);
        // Until then it has its oom_score_adj open.
        new.says("event Committed");
        last = new;
    }
}

fn a_successor_gets_what_stands_above_many_descriptors_that_it_does_not_get() {
    let service = Setup::new().set(Log::Told).start();
    let first = service.first();
    assert_eq!(first.ask(Act::OpenFiles(500)), "open");
    let number: i32 = first.ask(Act::Leak("/dev/zero".into())).parse().expect("a number");
    assert!(number > 500);
    assert_eq!(first.ask(Act::OpenFiles(500)), "open");
    let new = service.restart();
    assert_eq!(born_with(&new), [number]);
    assert!(procfs::descriptors(new.pid).contains(&(number, "/dev/zero".into())));
    assert_eq!(service.connect().pid, new.pid);
}

fn a_successor_gets_the_last_number_that_is_allowed() {
    let service = Setup::new().plan(at(Step::Born, Act::LeakLast(63))).start();
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(born_with(&new), [63]);
        assert_eq!(service.connect().pid, new.pid);
    }
}

fn a_program_that_is_named_by_a_descriptor_is_started() {
    for where_from in ["/proc/self/fd", "/dev/fd"] {
        let setup = Setup::new();
        let program = own_program();
        let number = 60;
        // CLOEXEC: the name leads nowhere in a process that does not have it any more.
        let service = setup
            .set(Config::Program(Path::new(where_from).join(number.to_string())))
            .plan(at(Step::Born, Act::OpenAs(number, program)))
            .start();
        let new = service.restart();
        assert_eq!(service.connect().pid, new.pid);
    }
}

fn a_program_in_a_directory_that_is_named_by_a_descriptor_is_started() {
    for where_from in ["/proc/self/fd", "/dev/fd", "/dev/../proc/self/./fd"] {
        let setup = Setup::new();
        let program = own_program();
        let (directory, name) = (program.parent().expect("a directory"), program.file_name().expect("a name"));
        let number = 60;
        let path = Path::new(where_from).join(number.to_string()).join(name);
        let service = setup.set(Config::Program(path)).plan(at(Step::Born, Act::OpenAs(number, directory.into()))).start();
        let new = service.restart();
        assert_eq!(service.connect().pid, new.pid);
    }
}

/// How long it takes from a request until the successor is there, in the middle of some times.
fn start_takes(service: &Service) -> Duration {
    let first = service.first();
    let mut times: Vec<_> = (0..15)
        .map(|_| {
            let (spawned, failed) = (first.said("event Spawned").len(), first.said("event Failed").len());
            service.plan_next(at(Step::Born, Act::Exit(1)));
            let since = Instant::now();
            assert_eq!(first.ask(Act::Request), "ok");
            first.says_again("event Spawned", spawned);
            let took = since.elapsed();
            first.says_again("event Failed", failed);
            took
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// `cargo test --test process -- many_descriptors_is_bounded --nocapture` prints the figures.
fn what_it_costs_to_start_a_successor_from_many_descriptors_is_bounded() {
    if !are_many_descriptors_allowed("what_it_costs_to_start_a_successor_from_many_descriptors") {
        return;
    }
    let mut least = Duration::MAX;
    for count in [100, 10_000, 19_000] {
        let service = Setup::new().start();
        let first = service.first();
        assert_eq!(first.ask(Act::OpenFiles(count)), "open");
        let before = Snapshot::of(first.pid);
        let takes = start_takes(&service);
        service.expect_unchanged(&first, &before);
        least = least.min(takes);
        eprintln!("a start from {count} descriptors takes {:.2} ms", takes.as_secs_f64() * 1e3);
        // A microsecond each, and what a busy machine adds.
        assert!(takes < least + Duration::from_millis(500), "{takes:?}");
        assert_eq!(born_with(&service.restart()), [0; 0]);
    }
}
