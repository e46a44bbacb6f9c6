//! A handover that fails gives everything back, and says why.

use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use crate::giving::{Give, Wait};
use crate::player::Player;
use crate::service::{Ask, Hold, Lock, Thing};
use crate::taking::{Each, ReceiveWithin, Take};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs::Snapshot;
use pollflip_kit::service::{Config, Log, ms, set};
use pollflip_kit::surroundings::are_many_descriptors_allowed;

pollflip_kit::trials![
    a_handover_that_is_dropped_fails_the_attempt,
    a_handover_that_is_failed_gives_its_reason_in_one_line,
    the_first_error_is_the_reason_whatever_is_said_later,
    a_thread_that_panics_with_the_handover_fails_the_attempt,
    a_successor_that_exits_with_everything_gives_everything_back,
    a_successor_that_crashes_with_everything_gives_everything_back,
    a_successor_that_refuses_gives_its_reason_to_all,
    a_successor_that_cannot_use_what_comes_says_so_and_gives_everything_back,
    a_successor_that_hangs_is_killed_at_the_deadline,
    promise_03_a_successor_that_hangs_with_the_state_is_killed_when_the_freeze_is_over,
    a_successor_that_is_slow_before_it_asks_for_the_state_may_be,
    what_is_sent_during_the_freeze_is_answered_by_the_old_process_if_it_fails,
    a_handover_that_is_kept_past_the_deadline_is_told_of,
    a_handover_that_is_sent_after_the_attempt_has_ended_does_nothing,
    an_own_memory_file_stays_writable_after_an_attempt_that_failed,
    a_successor_that_is_too_impatient_to_wait_is_not_granted_anything,
    a_cancelled_restart_gives_everything_back,
    a_lock_on_a_file_that_is_given_survives_what_becomes_of_the_restart_if_it_is_not_one_of_posix,
];

/// A restart that fails, with the same connections and descriptors before and after it. Returns the reason.
fn fails(service: &Service) -> String {
    let old = service.first();
    let (mut tcp, mut unix) = (Player::tcp(service), Player::unix(service));
    let holds = old.ask(Ask::Holds);
    let before = Snapshot::of(old.pid);
    service.fail_to_restart();
    let why = service.fail_to_restart();
    assert!(old.says_again("event Failed", 1).ends_with(&why), "{why}");
    assert_eq!((tcp.echo("still"), unix.echo("here")), (old.pid, old.pid));
    assert_eq!(old.ask(Ask::Holds), holds);
    assert_eq!(service.status().last_failure.as_deref(), Some(why.as_str()));
    service.expect_unchanged(&old, &before);
    why
}

/// The same, and the next one works.
fn fails_with(take: Take) -> String {
    let service = Setup::new().set(take).start();
    let why = fails(&service);
    let mut player = Player::tcp(&service);
    service.plan_next(set(Take::All));
    let new = service.restart();
    assert_eq!(player.echo("at last"), new.pid);
    why
}

fn a_handover_that_is_dropped_fails_the_attempt() {
    let service = Setup::new().set(Give::Drop).start();
    assert_eq!(
        fails(&service),
        "the handover failed: the predecessor dropped the Handover without sending it; does its release handle Event::StateRequested?"
    );
}

fn a_handover_that_is_failed_gives_its_reason_in_one_line() {
    let service = Setup::new().set(Give::Fail).start();
    assert_eq!(fails(&service), "the handover failed: the program is in no mood");
}

fn the_first_error_is_the_reason_whatever_is_said_later() {
    for how in [Give::ErrorThenFail, Give::ErrorThenSend] {
        let service = Setup::new().set(how).start();
        let why = fails(&service);
        assert!(why.contains("cannot hand \"\" over: a name must have 1 to 255 bytes"), "{how:?}: {why}");
    }
}

fn a_thread_that_panics_with_the_handover_fails_the_attempt() {
    let service = Setup::new().set(Give::ThreadPanics).start();
    let why = fails(&service);
    assert_eq!(why, "the handover failed: the program panicked while it filled the Handover");
}

fn a_successor_that_exits_with_everything_gives_everything_back() {
    assert_eq!(fails_with(Take::Exit), "the successor exited with status 3 before it was ready; its standard error may say why");
}

fn a_successor_that_crashes_with_everything_gives_everything_back() {
    assert_eq!(
        fails_with(Take::Abort),
        "the successor was killed by SIGABRT before it was ready; a failed assertion, or a panic that aborts? see its standard error"
    );
}

fn a_successor_that_refuses_gives_its_reason_to_all() {
    assert_eq!(fails_with(Take::Refuse), "the successor refused: this version likes it not");
}

fn a_successor_that_cannot_use_what_comes_says_so_and_gives_everything_back() {
    let service = Setup::new().set(Take::Each(Each::ButTheThird)).start();
    let _third = Player::tcp(&service);
    let why = fails(&service);
    assert_eq!(why, "the successor refused: the state cannot be taken over: the third is one too many");
}

fn a_successor_that_hangs_is_killed_at_the_deadline() {
    if !are_many_descriptors_allowed("a_successor_that_hangs_is_killed_at_the_deadline") {
        return;
    }
    let service = Setup::new().set(Take::Hang).set(Config::ReadyTimeout(ms(1000))).set(Give::ManyAtOnce(15_000, 0)).start();
    let told =
        "the successor was not ready within 1.0 s and has been given up; it has to call ready() by then; the last that was heard of it: ";
    let why = fails(&service);
    assert!(why.starts_with(told) && why.ends_with(": warming, 40%"), "{why}");
}

fn promise_03_a_successor_that_hangs_with_the_state_is_killed_when_the_freeze_is_over() {
    let service = Setup::new().set(Take::HangWithIt).set(Config::FreezeTimeout(ms(2000))).start();
    let mut player = Player::tcp(&service);
    player.write("half a");
    let why = fails(&service);
    let told = "the successor was not ready within 2.0 s after it had asked for the state, and has been killed: the old process \
                stands still meanwhile; it has to load the state faster, or RestartConfig::freeze_timeout has to be longer; the last \
                that was heard of it: loading, 70%";
    assert_eq!(why, told);
    // It had all of it in its hands, both times, and was not there any more when the asker was told.
    for number in [1, 2] {
        let successor = service.hub.nth(number);
        assert!(successor.said("received").len() == 1 && !std::path::Path::new(&format!("/proc/{}", successor.pid)).exists());
    }
    player.write(" line\n");
    assert_eq!(player.hear(), (service.first().pid, "half a line".into()));
}

fn a_successor_that_is_slow_before_it_asks_for_the_state_may_be() {
    let service = Setup::new().set(Take::Late(ms(4000))).set(Config::FreezeTimeout(ms(3000))).start();
    let mut player = Player::tcp(&service);
    player.write("half a");
    let began = Instant::now();
    let new = service.restart();
    assert!(began.elapsed() > Duration::from_secs(4));
    player.write(" line\n");
    assert_eq!(player.hear(), (new.pid, "half a line".into()));
}

fn what_is_sent_during_the_freeze_is_answered_by_the_old_process_if_it_fails() {
    let service = Setup::new().set(Give::InThread(Wait::AtOnce)).set(Take::Exit).start();
    let mut player = Player::tcp(&service);
    player.write("half a");
    let asked = service.restart_meanwhile();
    service.first().says("frozen");
    player.write(" line, and ");
    player.write("more\n");
    service.first().go();
    asked.join().expect("no panic").expect_err("it fails");
    assert_eq!(player.hear(), (service.first().pid, "half a line, and more".into()));
}

fn a_handover_that_is_kept_past_the_deadline_is_told_of() {
    let setup = Setup::new().set(Give::InThread(Wait::AtOnce)).set(Config::ReadyTimeout(ms(1000))).set(Log::Told);
    let service = setup.start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    // On a busy machine the time can be over before the state has been asked for.
    wait_until("the log", || {
        let why = service.fail_to_restart();
        assert!(why.contains("was not ready within 1.0 s"), "{why}");
        old.ask(Ask::Holds);
        old.said("log ERROR").iter().any(|line| line.contains("still has the Handover"))
    });
    assert_eq!(player.echo("back"), old.pid);
}

fn a_handover_that_is_sent_after_the_attempt_has_ended_does_nothing() {
    let service = Setup::new().set(Give::InThread(Wait::AtOnce)).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let asked = service.restart_meanwhile();
    old.says("frozen");
    service.hub.nth(1).signal(Signal::SIGKILL);
    let why = asked.join().expect("no panic").expect_err("it fails").to_string();
    assert!(why.contains("was killed by SIGKILL"), "{why}");
    assert_eq!(player.echo("back"), old.pid);
    // The thread still has it, and goes on with it now.
    old.go();
    let error = old.says("give-error");
    assert!(error.contains("the successor is gone"), "{error}");
    old.says("given");
    assert_eq!(player.echo("nothing happened"), old.pid);
    assert_eq!(old.said("event Failed").len(), 1);
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
    // The next attempt is another, to which nothing of this one belongs.
    let asked = service.restart_meanwhile();
    frozen_again(&old).go();
    let pid = asked.join().expect("no panic").expect("a restart");
    assert_eq!(player.echo("over"), pid);
}

fn frozen_again(old: &Process) -> &Process {
    old.says_again("frozen", 1);
    old
}

fn an_own_memory_file_stays_writable_after_an_attempt_that_failed() {
    let service = Setup::new().set(Hold(vec![Thing::Memfd])).start();
    let old = service.first();
    service.plan_next(set(Take::Exit));
    service.fail_to_restart();
    assert_eq!(old.ask(Ask::Write(" goes on".into())), "word goes on");
    let inode = old.ask(Ask::Inode("memfd".into()));
    let new = service.restart();
    // It is the same file, not a copy of it.
    assert_eq!(new.ask(Ask::Inode("memfd".into())), inode);
    assert_eq!(new.ask(Ask::Write(" and on".into())), "word goes on and on");
}

fn a_successor_that_is_too_impatient_to_wait_is_not_granted_anything() {
    let service = Setup::new().set(Give::InThread(Wait::AtOnce)).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    service.plan_next(set(ReceiveWithin(ms(50))));
    let why = service.fail_to_restart();
    let told = "the successor exited with status 2 before it was ready: the state that was asked for has not been taken yet";
    assert!(why.starts_with(told), "{why}");
    let new = service.hub.nth(1);
    assert_eq!(new.says("receive-error"), "no state has come from the predecessor within 0.1 s; refuse, or end");
    // Which is what it should do; it tries to be ready.
    assert!(new.says("ready-error").starts_with("the state that was asked for has not been taken yet"));
    old.go();
    assert_eq!(player.echo("mine"), old.pid);
}

fn a_cancelled_restart_gives_everything_back() {
    let service = Setup::new().set(Give::InThread(Wait::BeforeSending)).set(Log::Told).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let asked = service.restart_meanwhile();
    old.says("half");
    assert_eq!(old.ask(Ask::Cancel("the cache\tis being rebuilt".into())), "true");
    let why = asked.join().expect("no panic").expect_err("called off").to_string();
    let told = "the restart was called off: the cache is being rebuilt";
    assert!(why.ends_with(told), "{why}");
    old.says("event Failed");
    assert!(old.said("log ERROR").iter().any(|line| line.ends_with(&format!("keeps serving: {told}"))));
    let status = service.status();
    assert_eq!(status.last_failure.as_deref(), Some(told));
    assert_eq!(status.outcomes.last().map(|last| (last.ok, last.text.as_str())), Some((false, told)));
    assert_eq!(old.ask(Ask::Cancel("by a test".into())), "false", "there is nothing to call off");
    assert_eq!(player.echo("mine"), old.pid);
    old.go();
    assert_eq!(player.echo("still mine"), old.pid);
}

/// Whether somebody else can have a lock of that kind on the file that the service holds.
fn is_free(service: &Service, kind: Lock) -> bool {
    let file = std::fs::File::options().read(true).write(true).open(service.path("held")).expect("a file");
    if kind == Lock::Flock {
        return Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok();
    }
    // It is in the way of locks of both other kinds.
    let whole = nix::libc::flock { l_type: nix::libc::F_WRLCK as _, l_whence: nix::libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLK(&whole)).is_ok()
}

fn a_lock_on_a_file_that_is_given_survives_what_becomes_of_the_restart_if_it_is_not_one_of_posix() {
    for (kind, stays) in [(Lock::Flock, true), (Lock::Ofd, true), (Lock::Posix, false)] {
        for take in [Take::Exit, Take::Abort] {
            let service = Setup::new().set(Hold(vec![Thing::LockedFile(kind)])).start();
            assert!(!is_free(&service, kind), "{kind:?}");
            service.plan_next(set(take));
            service.fail_to_restart();
            // What the documentation of Handover::fd says, and what it offers instead.
            assert_eq!(!is_free(&service, kind), stays, "{kind:?}, {take:?}");
            if stays {
                let new = service.restart();
                service.first().ends();
                assert!(!is_free(&service, kind), "{kind:?}");
                new.signal(Signal::SIGKILL);
                wait_until("the lock to be free", || is_free(&service, kind));
            }
        }
    }
}
