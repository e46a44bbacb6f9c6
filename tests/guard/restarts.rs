//! A service that keeps what it has, killed at each step of a restart: the old process, the new one or both.
//! Afterwards its listener and its connections are there, nobody was refused, and each byte is right.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use pollflip::restart_coordination_socket::request_restart;

use crate::keeping::{Drains, Step, Wish, is_drained};
use crate::kept::{Kept, Player, keeps};
use crate::kit::signal;
use pollflip_kit::debugger::Stopped;
use pollflip_kit::hub::{DEADLINE, wait_for, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Config, ms};

pollflip_kit::trials![
    promise_15_whoever_is_killed_at_a_step_of_the_old_process_the_connections_go_on,
    promise_15_whoever_is_killed_at_a_step_of_the_new_process_the_connections_go_on,
    promise_15_whoever_is_killed_on_probation_the_connections_go_on,
    promise_15_a_successor_that_asks_for_no_state_finds_what_a_predecessor_that_was_killed_has_left,
    promise_15_a_successor_finds_what_a_predecessor_has_left_that_is_killed_when_it_is_asked_for_the_grant,
    what_a_process_drains_is_not_found_when_its_successor_is_killed_as_soon_as_that_is_the_main_process,
    what_a_process_drains_is_not_found_when_its_successor_is_killed_before_it_has_taken_the_service,
    a_process_that_is_killed_at_any_call_while_it_keeps_something_else_under_a_name_has_the_one_or_the_other,
];

/// Who dies, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Old,
    New,
    OldThenNew,
    NewThenOld,
}

/// Where one of the two processes of a restart waits.
struct Held<'a> {
    kept: &'a Kept,
    step: Step,
    pipe: File,
}

impl<'a> Held<'a> {
    fn new(kept: &'a Kept, step: Step) -> Held<'a> {
        let path = kept.wish(Wish::At(step));
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
        // Who has both ends waits for nobody.
        let pipe = OpenOptions::new().read(true).write(true).open(path).expect("a pipe");
        Held { kept, step, pipe }
    }

    /// Who waits there, and who the other process is; 0 before that is born.
    fn waits(&self) -> (u32, u32) {
        let what = format!(" is at {:?}, and the other is ", self.step);
        wait_for(&format!("a process at {:?}", self.step), || {
            let said = self.kept.read("said");
            let (held, other) = said.lines().find_map(|line| line.split_once(&what))?;
            Some((held.parse().ok()?, other.parse().ok()?))
        })
    }

    /// Whoever is left goes on.
    fn opens(mut self) {
        fs::remove_file(self.kept.wish(Wish::At(self.step))).expect("a pipe");
        self.pipe.write_all(b"x").expect("room");
    }
}

/// One that connects again and again.
struct Stranger {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Stranger {
    /// It has connected once.
    fn new(kept: &Kept) -> Stranger {
        let over = Arc::new(AtomicBool::new(false));
        let (address, stop) = (kept.read("address"), Arc::clone(&over));
        let (connected, has_connected) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                TcpStream::connect(&address).map_err(|error| error.to_string())?;
                count += 1;
                let _ = connected.send(());
                thread::yield_now();
            }
            Ok(count)
        });
        has_connected.recv_timeout(DEADLINE).expect("a connection");
        Stranger { over, thread }
    }

    fn was_never_refused(self) {
        self.over.store(true, Ordering::Relaxed);
        assert!(self.thread.join().expect("no panic").expect("nobody is refused") > 0);
    }
}

/// Says later whether there was a restart.
fn ask(kept: &Kept) -> JoinHandle<bool> {
    let socket = kept.path("restart.sock");
    thread::spawn(move || request_restart(socket, Duration::from_secs(20), |_| {}).is_ok())
}

fn all_go_on(players: &mut [Player], when: &str) {
    players.iter_mut().try_for_each(Player::round).unwrap_or_else(|why| panic!("{when}: {why}"));
}

/// One restart, held at a step, at which somebody is killed. `is_of_old`: it is the old process that waits there.
/// `serves`: the new one serves then, and has a connection of its own.
fn killed_at(step: Step, killed: Killed, probation: Duration, is_of_old: bool, serves: bool) {
    let case = format!("{killed:?} at {step:?}, probation {probation:?}");
    let kept = Kept::start(&["--restart", "on-failure"], &keeps().set(Config::Probation(probation)));
    let mut players: Vec<_> = (1..=3).map(|seed| Player::new(&kept, seed)).collect();
    all_go_on(&mut players, &case);
    let stranger = Stranger::new(&kept);
    let held = Held::new(&kept, step);
    let asking = ask(&kept);
    let (waits, other) = held.waits();
    let (old, new) = if is_of_old { (waits, other) } else { (other, waits) };
    if serves {
        kept.pid_after(&old.to_string());
        let mut late = Player::new(&kept, 9);
        all_go_on(std::slice::from_mut(&mut late), &case);
        players.push(late);
    }
    let order: &[u32] = match killed {
        Killed::Old => &[old],
        Killed::New => &[new],
        Killed::OldThenNew => &[old, new],
        Killed::NewThenOld => &[new, old],
    };
    for pid in order.iter().filter(|pid| **pid != 0) {
        // An old process that has handed over may have ended.
        let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
    }
    held.opens();
    let _ = asking.join().expect("no panic");
    // What the new one has accepted ends with it where the service comes back to the old one.
    if serves && !probation.is_zero() && killed == Killed::New {
        assert!(players.pop().expect("a player").round().is_err(), "{case}");
    }
    all_go_on(&mut players, &case);
    wait_until(&format!("{case}: no more connections than there are"), || kept.connections() == players.len());
    stranger.was_never_refused();
    // Nothing is left behind that a further restart or kill would find.
    let (serving, _) = kept.serving();
    signal(serving, Signal::SIGKILL);
    all_go_on(&mut players, &format!("{case}, then killed once more"));
    if probation.is_zero() {
        kept.restart().unwrap_or_else(|error| panic!("{case}, then restarted: {error}"));
        all_go_on(&mut players, &format!("{case}, then restarted"));
    }
    assert_eq!(kept.stop(), 0, "{case}");
}

const ALL: [Killed; 4] = [Killed::Old, Killed::New, Killed::OldThenNew, Killed::NewThenOld];

fn promise_15_whoever_is_killed_at_a_step_of_the_old_process_the_connections_go_on() {
    killed_at(Step::Restarting, Killed::Old, Duration::ZERO, true, false);
    for (step, serves) in
        [(Step::Spawned, false), (Step::Asked, false), (Step::Given, false), (Step::HandedOff, true), (Step::Completed, true)]
    {
        for killed in ALL {
            killed_at(step, killed, Duration::ZERO, true, serves);
        }
    }
}

fn promise_15_whoever_is_killed_at_a_step_of_the_new_process_the_connections_go_on() {
    for step in [Step::Built, Step::Received, Step::Ready, Step::Committed] {
        for killed in ALL {
            killed_at(step, killed, Duration::ZERO, false, false);
        }
    }
}

fn promise_15_whoever_is_killed_on_probation_the_connections_go_on() {
    for killed in ALL {
        killed_at(Step::HandedOff, killed, ms(60_000), true, true);
        killed_at(Step::Ready, killed, ms(60_000), false, false);
    }
}

fn promise_15_a_successor_that_asks_for_no_state_finds_what_a_predecessor_that_was_killed_has_left() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    fs::write(kept.wish(Wish::NoState), "").expect("a file");
    let says = |pid: u32, told: bool| {
        let what = format!("{pid} of the predecessor it is Some({told}) that it has ended");
        wait_until(&what, || kept.read("said").contains(&what));
    };
    let second = kept.restart().expect("a restart");
    [false, true].into_iter().for_each(|told| says(second, told));
    let mut players: Vec<_> = (1..=3).map(|seed| Player::new(&kept, seed)).collect();
    all_go_on(&mut players, "at first");
    let held = Held::new(&kept, Step::Built);
    let asking = ask(&kept);
    let (new, old) = held.waits();
    signal(old, Signal::SIGKILL);
    wait_until("its end", || procfs::has_ended(old));
    held.opens();
    assert!(!asking.join().expect("no panic"));
    says(new, true);
    all_go_on(&mut players, "found by the successor");
    assert_eq!((kept.serving(), kept.stop()), ((new, 3), 0));
}

/// It has looked already, and been told that its predecessor lives.
fn promise_15_a_successor_finds_what_a_predecessor_has_left_that_is_killed_when_it_is_asked_for_the_grant() {
    for killed_then in [false, true] {
        let kept = Kept::start(&["--restart", "on-failure"], &keeps());
        fs::write(kept.wish(Wish::NoState), "").expect("a file");
        let mut players: Vec<_> = (1..=3).map(|seed| Player::new(&kept, seed)).collect();
        all_go_on(&mut players, "at first");
        // The old one grants nothing as long as it waits there.
        let [old_waits, new_waits] = [Step::Spawned, Step::Received].map(|step| Held::new(&kept, step));
        let asking = ask(&kept);
        let (old, _) = old_waits.waits();
        let (new, _) = new_waits.waits();
        let told = format!("{new} of the predecessor it is Some(false) that it has ended");
        assert!(kept.read("said").contains(&told), "{}", kept.read("said"));
        new_waits.opens();
        signal(old, Signal::SIGKILL);
        old_waits.opens();
        assert!(!asking.join().expect("no panic"));
        if killed_then {
            // Whatever it has done of that: nobody is lost to the next start.
            kept.pid_after(&old.to_string());
            signal(new, Signal::SIGKILL);
        }
        all_go_on(&mut players, "found by the successor, or by the next start");
        let (serving, count) = kept.serving();
        assert_eq!((serving == new, count), (!killed_then, 3));
        // And nothing is left behind for a further one.
        signal(serving, Signal::SIGKILL);
        all_go_on(&mut players, "then killed once more");
        assert_eq!((kept.connections(), kept.stop()), (3, 0));
    }
}

/// A service that hands over some of its connections, and finishes the others itself.
struct Divided {
    kept: Kept,
    old: String,
    drained: Vec<Player>,
    handed_over: Vec<Player>,
}

impl Divided {
    fn new() -> Divided {
        let kept = Kept::start(&["--restart", "on-failure"], &keeps().set(Drains));
        let (mut drained, mut handed_over): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        while drained.len() < 2 || handed_over.len() < 2 {
            let mut player = Player::new(&kept, (drained.len() + handed_over.len()) as u64);
            all_go_on(std::slice::from_mut(&mut player), "at first");
            let is_drained = is_drained(player.stream.local_addr().expect("an address"));
            if is_drained { &mut drained } else { &mut handed_over }.push(player);
        }
        Divided { old: kept.pid_after(""), kept, drained, handed_over }
    }

    /// A start has come after the end of the new process, while the old one drains.
    fn is_divided(&mut self, new: u32) {
        let next = wait_for("the next start", || Some(self.kept.pid_after(&self.old)).filter(|pid| *pid != new.to_string()));
        all_go_on(&mut self.handed_over, "found by the next start");
        let expected = (next.parse().expect("a number"), self.handed_over.len());
        assert_eq!(self.kept.serving(), expected, "it has no others: {}", self.kept.read("said"));
    }

    fn ends(mut self) {
        all_go_on(&mut self.drained, "drained by the old one");
        // What an old process drains ends with it, and with nothing else.
        let next = (self.kept.serving().0, self.handed_over.len());
        signal(self.old.parse().expect("a number"), Signal::SIGKILL);
        assert!(self.drained.iter_mut().all(|player| player.round().is_err()));
        all_go_on(&mut self.handed_over, "after the end of the old one");
        // The end of who has asked before takes a moment.
        wait_until("it to have no others", || self.kept.serving() == next);
        assert_eq!(self.kept.stop(), 0);
    }
}

/// The old process has told all others, and has yet to let go of what it has handed over; the new one has told nobody anything.
fn what_a_process_drains_is_not_found_when_its_successor_is_killed_as_soon_as_that_is_the_main_process() {
    let mut divided = Divided::new();
    let kept = &divided.kept;
    let (handed_off, ready) = (Held::new(kept, Step::HandedOff), Held::new(kept, Step::Ready));
    let asking = ask(kept);
    let (old, new) = handed_off.waits();
    ready.waits();
    let Some(stopped) = Stopped::new(old, "the one of what is drained at a commit") else { return };
    handed_off.opens();
    // Three messages to the guard, the last of which it answers, and then the commit. That is sent when the next call is about to
    // be made. A process that is debugged is slow: it may not wait any more after that, but drop at once what it has handed over.
    for _ in 0..4 {
        stopped.go_on_until(nix::libc::SYS_sendmsg);
    }
    stopped.next_call().expect("a living thread");
    assert!(!kept.read("said").contains("has handed over"), "it has gone on for too long");
    signal(new, Signal::SIGKILL);
    ready.opens();
    divided.is_divided(new);
    drop(stopped);
    assert!(asking.join().expect("no panic"), "it was final");
    divided.ends();
}

/// All know but the new process, which has told nobody anything.
fn what_a_process_drains_is_not_found_when_its_successor_is_killed_before_it_has_taken_the_service() {
    let mut divided = Divided::new();
    let kept = &divided.kept;
    let held = Held::new(kept, Step::Ready);
    let asking = ask(kept);
    let (new, old) = held.waits();
    wait_until("the old one to drain", || kept.read("said").contains(&format!("{old} has handed over")));
    all_go_on(&mut divided.drained, "while the new one has not begun to serve");
    signal(new, Signal::SIGKILL);
    held.opens();
    assert!(asking.join().expect("no panic"), "it was final");
    divided.is_divided(new);
    divided.ends();
}

/// What a start has said of the number that it has found.
fn number_of(kept: &Kept, pid: &str) -> Option<u32> {
    let (said, what) = (kept.read("said"), format!("{pid} has number "));
    let found = said.lines().find_map(|line| line.strip_prefix(&what))?;
    found.strip_prefix("Some(")?.strip_suffix(')')?.parse().ok()
}

fn a_process_that_is_killed_at_any_call_while_it_keeps_something_else_under_a_name_has_the_one_or_the_other() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let (mut number, mut stored) = (0, 0);
    for calls in 0.. {
        let pid = kept.pid_after("");
        let Some(stopped) = Stopped::new(pid.parse().expect("a number"), "the one of what is replaced") else { return };
        stopped.go_on_until_it_waits();
        fs::write(kept.wish(Wish::Renumber(pid.parse().expect("a number"))), "").expect("a file");
        // It has stored the one and removed the other, and waits.
        let (mut sent, mut goes_on) = (0, true);
        // The first one is kept whole.
        for _ in 0..if number == 0 { usize::MAX } else { calls } {
            let Some(call) = stopped.next_call() else { panic!("it has ended") };
            if sent >= if number == 0 { 1 } else { 2 } && call.waits() {
                goes_on = false;
                break;
            }
            sent += usize::from(call.number() == nix::libc::SYS_sendmsg);
        }
        signal(pid.parse().expect("a number"), Signal::SIGKILL);
        drop(stopped);
        let next = kept.pid_after(&pid);
        let found = number_of(&kept, &next).unwrap_or_else(|| panic!("killed after {calls} calls: nothing is kept"));
        assert!(found == number || found == number + 1, "killed after {calls} calls: {found} after {number}");
        stored += usize::from(found > number);
        let is_first = std::mem::replace(&mut number, found) == 0;
        if !goes_on && !is_first {
            println!("{calls} calls to keep something else under a name; a kill after {stored} of them leaves that");
            assert!(calls > 10 && stored > 1, "no more than {calls} calls");
            break;
        }
    }
    assert_eq!(kept.stop(), 0);
}
