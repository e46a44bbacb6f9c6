//! What a guard costs. The figures are printed; what is asserted is what no busy machine changes.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Service, Setup};
use crate::hub::wait_until;
use crate::kit::{guarded, log, wake_ups};
use crate::procfs;

trials![a_guard_that_has_nothing_to_do_sleeps, restarts_take_as_long_as_without];

fn a_guard_that_has_nothing_to_do_sleeps() {
    let service = guarded(Setup::new(), "").start();
    service.restart().says("event PredecessorGone");
    let guard = service.launched();
    wait_until("the first to be reaped", || procfs::children(guard).len() == 1);
    wait_until("it to sleep", || procfs::state(guard) == Some('S'));
    let before = wake_ups(guard);
    // The one place where time has to pass: nothing is waited for.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(wake_ups(guard), before);
    assert_eq!(procfs::status(guard, "Threads").map(|text| text.trim().to_owned()).as_deref(), Some("1"));
    let size = |name| procfs::status(guard, name).unwrap_or_default().trim().to_owned();
    println!("a guard: VmRSS {}, RssAnon {}, 1 thread, 0 wake-ups in 2 s", size("VmRSS"), size("RssAnon"));
}

fn restarts_take_as_long_as_without() {
    const TIMES: usize = 200;
    let alone = Setup::new().start();
    let under = guarded(Setup::new(), "").start();
    let (mut without, mut with, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    let restart = |service: &Service| {
        let began = Instant::now();
        let new = service.restart();
        (began.elapsed(), new.pid)
    };
    for _ in 0..TIMES {
        without.push(restart(&alone).0);
        let (time, pid) = restart(&under);
        with.push(time);
        let began = Instant::now();
        wait_until("the guard to know", || log(&under).contains(&format!("the service is process {pid}\n")));
        taken.push(began.elapsed());
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (without, with, taken) = (median(without), median(with), median(taken));
    println!(
        "a restart: {without:?} without a guard, {with:?} with one (medians of {TIMES}); known to it {taken:?} after that at the latest"
    );
    assert!(fs::metadata(under.path("guard.log")).is_ok());
}
