//! What a guard costs. The figures are printed: of a release build,
//! `cargo test --release --test guard -- figures --nocapture` prints all that are promised, and fails
//! where a size is more than that.

use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{POLLFLIP, guarded, has_program, log, wake_ups};
use crate::speaker::{NOTES, WORDS, Word, text};
use pollflip_kit::harness::{Setup, own_program};
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, ROLE};

pollflip_kit::trials![
    a_guard_that_has_nothing_to_do_sleeps,
    a_new_main_process_is_taken_in_at_once,
    what_takes_long_to_find_is_found_once,
    restarts_take_as_long_as_without,
];

fn a_guard_that_has_nothing_to_do_sleeps() {
    let service = guarded(Setup::new(), "").start();
    service.restart().says("event PredecessorGone");
    let guard = service.launched();
    wait_until("the first to be reaped", || procfs::children(guard).len() == 1);
    // What the service has said last may still be on its way. And the one place where time has to pass:
    // nothing is waited for.
    let sleeps_for = |time| {
        let before = wake_ups(guard);
        thread::sleep(time);
        procfs::state(guard) == Some('S') && wake_ups(guard) == before
    };
    wait_until("it to sleep", || sleeps_for(Duration::from_millis(200)));
    let before = wake_ups(guard);
    assert!(sleeps_for(Duration::from_secs(2)));
    assert_eq!(wake_ups(guard), before);
    assert_eq!(procfs::status(guard, "Threads").as_deref(), Some("1"));
    let kib = |name| procfs::status(guard, name).and_then(|text| text.split(' ').next()?.parse::<u32>().ok()).expect("a size");
    let (resident, private, shared) = (kib("VmRSS"), kib("RssAnon"), resident_libraries(guard));
    println!(
        "a guard: {resident} KiB resident (2500), {shared} of them the system's libraries, {private} KiB of its own (300), 1 thread, \
         0 wake-ups in 2 s"
    );
    // A debug build is larger, and so is one of another C library. How much of a library is resident the page cache decides; the rest it does
    // not.
    assert!(cfg!(debug_assertions) || resident < 2500, "{resident} KiB");
    assert!(cfg!(any(debug_assertions, target_env = "musl")) || resident - shared < 1100, "{} KiB", resident - shared);
    assert!(private < 300, "{private} KiB");
}

/// In KiB: of the files that the process maps, but for its program.
fn resident_libraries(pid: u32) -> u32 {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("its memory");
    let mut is_library = false;
    let mut sum = 0;
    for line in maps.lines() {
        match line.split_once(char::is_whitespace).expect("two words") {
            ("Rss:", size) if is_library => sum += size.trim().trim_end_matches(" kB").parse::<u32>().expect("a size"),
            (field, _) if field.ends_with(':') => {}
            _ => is_library = line.contains('/') && !line.ends_with(POLLFLIP),
        }
    }
    sum
}

fn a_new_main_process_is_taken_in_at_once() {
    const TIMES: usize = 40;
    let setup = Setup::new();
    let notes = setup.path("notes");
    let service = guarded(setup, "").start();
    let first = service.first();
    let times = || -> Vec<u64> {
        std::fs::read_to_string(&notes).unwrap_or_default().lines().map(|line| line.parse().expect("a number")).collect()
    };
    let program = own_program();
    for number in 1..=TIMES {
        let script =
            format!("exec env {ROLE}=speaker {WORDS}='{}' {NOTES}='{}' '{}'", text(&[Word::Time]), notes.display(), program.display());
        first.ask(Act::StartHelper(script));
        wait_until("the helper", || times().len() == number);
        let is_main = format!("the service is process {}\n", first.own);
        wait_until("the service to be itself again", || log(&service).matches(&is_main).count() > number);
    }
    println!("a new main process: taken in after {} µs (1000; median of {TIMES})", median(times()));
}

/// The kernel writes all mounts of the machine down for whoever asks, and a restart waits for the guard.
fn what_takes_long_to_find_is_found_once() {
    if !has_program("strace") {
        return;
    }
    let setup = Setup::new();
    let (log_path, trace) = (setup.path("guard.log"), setup.path("trace"));
    let shell = "exec strace -o \"$TRACE\" -e 'trace=?open,openat' \"$POLLFLIP\" guard -- \"$0\" 2>>\"$LOG\"";
    let setup = setup.env("POLLFLIP", POLLFLIP).env("LOG", log_path).env("POLLFLIP_LOG", "info").env("TRACE", &trace);
    let service = setup.shell(shell).start();
    for _ in 0..3 {
        let new = service.restart();
        new.says("event PredecessorGone");
        wait_until("the guard to know", || log(&service).contains(&format!("the service is process {}\n", new.pid)));
    }
    let calls = std::fs::read_to_string(trace).expect("a trace");
    assert!(calls.contains("/proc/self/cgroup"), "{calls}");
    assert!(calls.matches("/proc/self/mountinfo").count() <= 1, "{calls}");
}

fn restarts_take_as_long_as_without() {
    const TIMES: usize = 200;
    let alone = Setup::new().start();
    let under = guarded(Setup::new(), "").start();
    let [mut without, mut with] = [const { Vec::new() }; 2];
    for _ in 0..TIMES {
        for (service, times) in [(&alone, &mut without), (&under, &mut with)] {
            let began = Instant::now();
            service.restart();
            times.push(began.elapsed());
        }
    }
    let (without, with) = (median(without), median(with));
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    println!("a restart: {without:?} without a guard, {with:?} with one: {ratio:.2} (1.10; medians of {TIMES}, interleaved)");
}

fn median<T: Ord + Copy>(mut times: Vec<T>) -> T {
    times.sort();
    times[times.len() / 2]
}
