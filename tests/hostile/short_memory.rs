//! A control group that has not enough memory for two generations: the kernel ends the successor,
//! whoever has more, and the one who asked learns why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use pollflip::RequestError;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Step, at, ms};

pollflip_kit::trials![
    a_successor_that_takes_too_much_memory_is_the_one_that_the_kernel_ends,
    a_successor_that_takes_too_much_memory_on_probation_gives_the_service_back,
    a_service_that_was_moved_to_another_control_group_learns_why_its_successor_was_killed,
];

/// A control group of our own, for the service.
struct Group {
    path: PathBuf,
}

impl Group {
    /// With so much memory and no swap. `None`: this machine or user does not have the means, which
    /// is said.
    fn of(mebibytes: usize, test: &str) -> Option<Group> {
        let bytes = (mebibytes << 20).to_string();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let first = own.lines().find_map(|line| line.split_once(":memory:")).map(|(_, group)| group.trim_start_matches('/'));
        let name = format!("pollflip-{}-{test}", process::id());
        // Where the memory controller is one of the second version, it is given to groups at the
        // root.
        let (path, limits): (_, &[_]) = match first {
            Some(group) => {
                let path = Path::new("/sys/fs/cgroup/memory").join(group).join(name);
                (path, &[("memory.limit_in_bytes", &*bytes), ("memory.swappiness", "0")])
            }
            None => (Path::new("/sys/fs/cgroup").join(name), &[("memory.max", &*bytes), ("memory.swap.max", "0")]),
        };
        let group = fs::create_dir(&path).map(|()| Group { path });
        let limited = group.and_then(|group| {
            fs::write(group.path.join(limits[0].0), limits[0].1)?;
            // Without swap there is nothing to forbid.
            let _ = fs::write(group.path.join(limits[1].0), limits[1].1);
            Ok(group)
        });
        limited.inspect_err(|error| eprintln!("skipped {test}: no control group with a limit of memory can be made: {error}")).ok()
    }

    /// A service in it that has touched so much.
    fn start(&self, setup: Setup, mebibytes: usize) -> Service {
        let procs = self.path.join("cgroup.procs");
        let plan = at(Step::Born, Act::TouchMebibytes(mebibytes));
        setup.env("GROUP", procs).plan(plan).shell("echo $$ > \"$GROUP\" && exec \"$0\"").start()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // When the last process is gone.
        let deadline = std::time::Instant::now() + DEADLINE;
        while fs::remove_dir(&self.path).is_err() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

const WORDS: &str = "was killed by the kernel because memory was short";

/// A restart whose successor takes too much at that step, and what it fails with. Only one that takes its time is put first, and a busy
/// machine may do that late.
fn takes_too_much(service: &Service, step: Step) -> String {
    service.plan_next(at(step, Act::Wait).at(step, Act::TouchMebibytes(80)));
    let births = service.hub.pids().len();
    let asked = service.restart_meanwhile();
    let new = service.hub.nth(births);
    new.says("waits");
    wait_until("the successor to be put first", || procfs::oom_score(new.pid) == 1000);
    new.go();
    match asked.join().expect("no panic") {
        Err(RequestError::Failed(why)) => why,
        other => panic!("{other:?}\n{}", service.hub.story()),
    }
}

fn a_successor_that_takes_too_much_memory_is_the_one_that_the_kernel_ends() {
    let Some(group) = Group::of(160, "a_successor_that_takes_too_much_memory") else { return };
    // The old one has more: it is the one that the kernel would take.
    let service = group.start(Setup::new(), 100);
    let first = service.first();
    let mut connection = service.connect();
    for _ in 0..3 {
        let why = takes_too_much(&service, Step::Built);
        assert!(why.contains(WORDS) && why.contains("before it was ready"), "{why}");
        connection.echo("still here");
    }
    assert_eq!(service.connect().pid, first.pid);
    assert!(service.status().last_failure.expect("a failure").contains(WORDS));
    assert!(procfs::children(first.pid).is_empty());
    // A smaller one fits in.
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
    drop(connection);
    drop(service);
}

fn a_successor_that_takes_too_much_memory_on_probation_gives_the_service_back() {
    let Some(group) = Group::of(160, "a_successor_that_takes_too_much_memory_on_probation") else { return };
    let service = group.start(Setup::new().set(Config::Probation(ms(120000))), 100);
    let first = service.first();
    let mut connection = service.connect();
    let why = takes_too_much(&service, Step::Granted);
    assert!(why.contains(WORDS) && why.contains("on probation"), "{why}");
    first.says("event Resumed");
    connection.echo("still here");
    assert_eq!(service.connect().pid, first.pid);
    drop(connection);
    drop(service);
}

fn a_service_that_was_moved_to_another_control_group_learns_why_its_successor_was_killed() {
    let Some(group) = Group::of(60, "a_service_that_was_moved") else { return };
    let service = Setup::new().start();
    fs::write(group.path.join("cgroup.procs"), service.first().pid.to_string()).expect("a group to move to");
    let fails_for_memory = || {
        service.plan_next(at(Step::Built, Act::TouchMebibytes(80)));
        match service.try_restart() {
            Err(RequestError::Failed(why)) => assert!(why.contains(WORDS), "{why}"),
            other => panic!("{other:?}\n{}", service.hub.story()),
        }
    };
    fails_for_memory();
    // The next one is born there, of a process that was not.
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
    fails_for_memory();
    drop(service);
}
