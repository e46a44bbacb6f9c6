//! A guard that may do little: no /proc, that of others, a root that cannot be written, a user
//! without rights, no room for processes.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use pollflip::RequestError;

use crate::kit::{End, POLLFLIP, end_of, end_of_command, how, log, signal, there_are_containers, wake_ups};
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::{wait_for, wait_until};
use pollflip_kit::manager::Manager;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Listen};

pollflip_kit::trials![
    without_proc_there_is_no_guard,
    with_the_proc_of_others_there_is_no_guard,
    a_read_only_root_and_nobody_as_user_are_enough,
    in_another_network_namespace_restarts_are_refused,
    a_full_process_table_is_told_of,
    a_process_table_that_is_full_at_a_later_start_is_a_strike,
    a_guard_without_descriptors_takes_a_new_process_in,
    a_guard_that_gets_no_more_memory_goes_on,
    a_standard_error_that_is_gone_does_not_end_it,
];

/// A shell in a container, with the program as `$0`.
fn in_container(options: &str, script: &str) -> (End, String, String) {
    let mut command = Command::new("unshare");
    command.args(options.split(' ')).args(["/bin/sh", "-c", script, POLLFLIP]);
    end_of_command(command)
}

fn without_proc_there_is_no_guard() {
    if !there_are_containers() {
        return;
    }
    let (end, _, said) = in_container("--mount --fork --kill-child", "mount -t tmpfs none /proc; exec \"$0\" guard -- true");
    assert_eq!(end, End::Code(125), "{said}");
    assert!(said.contains("needs /proc") && said.contains("--mount-proc"), "{said}");
}

fn with_the_proc_of_others_there_is_no_guard() {
    if !there_are_containers() {
        return;
    }
    let (end, _, said) = in_container("--pid --fork --kill-child", "exec \"$0\" guard -- true");
    assert_eq!(end, End::Code(125), "{said}");
    assert!(said.contains("of its own PID namespace"), "{said}");
}

fn a_read_only_root_and_nobody_as_user_are_enough() {
    if !there_are_containers() {
        return;
    }
    let setup = Setup::new();
    let log_path = setup.path("guard.log");
    let program = setup.path("pollflip");
    pollflip_kit::harness::install(&program, &std::fs::read(POLLFLIP).expect("the program"));
    // All but the test's own directory, where the coordination socket is.
    let script = "chmod 666 \"$POLLFLIP_TEST_DIRECTORY/hub\"; \
                  mount --bind \"$POLLFLIP_TEST_DIRECTORY\" \"$POLLFLIP_TEST_DIRECTORY\" && mount -o remount,ro,bind / || exit 98; \
                  ! touch /usr/is-writable 2>/dev/null || exit 99; \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
                  \"$POLLFLIP\" guard -- \"$0\" 2>>\"$LOG\"";
    let _ = std::fs::File::create(&log_path);
    std::fs::set_permissions(setup.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("permissions");
    std::fs::set_permissions(&log_path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("permissions");
    let own = setup.path("service");
    pollflip_kit::harness::install_copy(&own);
    let shell = format!("exec unshare --mount --pid --fork --kill-child --mount-proc /bin/sh -c '{script}' \"$0\"");
    let service = setup.program(own).env("POLLFLIP", program).env("LOG", log_path).shell(&shell).start();
    for _ in 0..3 {
        service.restart();
    }
    let inner = crate::kit::init_of(&service);
    assert_eq!(procfs::status(inner, "Uid").expect("a process").split_whitespace().next(), Some("65534"));
    assert_eq!(procfs::status(inner, "CapEff").map(|text| text.trim().to_owned()).as_deref(), Some("0000000000000000"));
    service.hub.nth(3).tell(Act::Exit(6));
    assert_eq!(how(end_of(&service)), End::Code(6), "{}", log(&service));
}

/// The guard cannot be told there who the service is, and would take the end of the first process
/// for that of the service.
fn in_another_network_namespace_restarts_are_refused() {
    let mut probe = Command::new("unshare");
    if !probe.args(["--net", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no network namespace can be had here; it needs root");
        return;
    }
    let shell = "exec \"$POLLFLIP\" guard -- unshare --net \"$0\"";
    let service = Setup::new().set(Listen::Nowhere).env("POLLFLIP", POLLFLIP).shell(shell).start();
    match service.try_restart() {
        Err(RequestError::Impossible(why)) => assert!(why.contains("in the network namespace of the guard"), "{why}"),
        other => panic!("{other:?}"),
    }
    service.first().tell(Act::Exit(2));
    assert_eq!(how(end_of(&service)), End::Code(2));
}

/// A guard of a user whose processes are counted, started by that. No other test may have processes
/// of that user.
fn guard_of(user: &str, starter: &[&str], arguments: &[&str]) -> Option<(End, String, String)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root, to become a user who may have few processes");
        return None;
    }
    let directory = pollflip_kit::surroundings::directory();
    let program = directory.path().join("pollflip");
    pollflip_kit::harness::install(&program, &std::fs::read(POLLFLIP).expect("the program"));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--clear-groups", "--bounding-set=-all"]).args(starter);
    command.arg(&program).arg("guard").args(arguments);
    Some(end_of_command(command))
}

fn a_full_process_table_is_told_of() {
    let arguments = ["--restart", "always", "--", "true"];
    let Some((end, _, said)) = guard_of("64999", &["prlimit", "--nproc=1"], &arguments) else { return };
    assert_eq!(end, End::Code(126), "{said}");
    assert!(said.contains("cannot start true: Resource temporarily unavailable"), "{said}");
}

/// The service leaves no room for another one.
fn a_process_table_that_is_full_at_a_later_start_is_a_strike() {
    let script = "echo run; prlimit --pid=$PPID --nproc=1; exit 5";
    let arguments = ["--restart", "always", "--strikes", "3/60", "--delay", "1", "--", "/bin/sh", "-c", script];
    let Some((end, out, said)) = guard_of("64997", &[], &arguments) else { return };
    assert_eq!((end, out.as_str()), (End::Code(5), "run\n"), "{said}");
    assert_eq!(said.matches("cannot start /bin/sh: Resource temporarily unavailable").count(), 2, "{said}");
    assert!(said.contains("ended too often"), "{said}");
}

/// All that it says fails, and nothing comes of that.
fn a_standard_error_that_is_gone_does_not_end_it() {
    for gone in ["2>&-", "2>/dev/full"] {
        let script = format!("\"$0\" guard --restart always --strikes 2/60 --delay 1 -- sh -c 'echo run; exit 5' {gone}; echo $?");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, POLLFLIP]);
        assert_eq!(end_of_command(command).1, "run\nrun\n5\n", "{gone}");
    }
    // Each line brings SIGPIPE, or SIGXFSZ, which is for the guard and not for the service.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(POLLFLIP);
    command.args(["guard", "--", "sh", "-c", "sleep 0.3; exit 6"]).env("POLLFLIP_LOG", "info").stdout(Stdio::null()).stderr(writer);
    assert_eq!(command.status().expect("a process").code(), Some(6));
    let directory = pollflip_kit::surroundings::directory();
    let mut command = Command::new("prlimit");
    command.args(["--fsize=10", POLLFLIP, "guard", "--", "sh", "-c", "sleep 0.3; exit 6"]).env("POLLFLIP_LOG", "info");
    command.stdout(Stdio::null()).stderr(std::fs::File::create(directory.path().join("log")).expect("a file"));
    assert_eq!(command.status().expect("a process").code(), Some(6));
    let setup = Setup::new();
    let shell = "exec \"$POLLFLIP\" guard -- \"$0\" 2>/dev/full";
    let service = setup.env("POLLFLIP", POLLFLIP).env("POLLFLIP_LOG", "info").shell(shell).start();
    service.restart().says("event PredecessorGone");
    wait_until("the first to be reaped", || procfs::children(service.launched()).len() == 1);
}

/// It has had what it needs, and loses at the most what it would pass on.
fn a_guard_that_gets_no_more_memory_goes_on() {
    if cfg!(target_env = "musl") {
        eprintln!("skipped: musl keeps nothing back for the few bytes that a turn of the guard needs, once longer messages have taken all");
        return;
    }
    let (manager, setup) = Manager::new(Setup::new());
    let service = crate::kit::guarded(setup, "").start();
    let guard = service.launched();
    manager.expect(&["READY=1"]);
    let mut limit = Command::new("prlimit");
    limit.args([&format!("--pid={guard}"), "--as=4096", "--data=4096"]);
    assert_eq!(end_of_command(limit).0, End::Code(0));
    // It is the longest that a guard takes in, and many wait for a manager that hears nothing.
    let long = || vec![format!("STATUS={}", "x".repeat(4_000)), "WATCHDOG=1".into()];
    for number in 1..=20 {
        let new = service.restart();
        new.says("event PredecessorGone");
        wait_until("the guard to know", || log(&service).contains(&format!("the service is process {}", new.pid)));
        for _ in 0..20 {
            assert_eq!(new.ask(Act::Notify(long())), "told");
        }
        signal(guard, Signal::SIGWINCH);
        assert_eq!(service.hub.pids().len(), number + 1);
    }
    wait_until("the ones before to be reaped", || procfs::children(guard).len() == 1);
    service.hub.nth(20).tell(Act::Exit(11));
    assert_eq!(how(end_of(&service)), End::Code(11), "{}", log(&service));
}

fn a_guard_without_descriptors_takes_a_new_process_in() {
    let service = crate::kit::guarded(Setup::new(), "").start();
    let guard = service.launched();
    // In a turn it gives those away that it keeps for that: it must have slept all the time.
    let used = wait_for("the guard to have nothing to do", || {
        let sleeps = || (procfs::state(guard) == Some('S')).then(|| wake_ups(guard));
        let before = sleeps()?;
        let used: Vec<i32> = procfs::descriptors(guard).into_iter().map(|(number, _)| number).collect();
        (sleeps() == Some(before)).then_some(used)
    });
    let free = (0..).find(|number| !used.contains(number)).expect("a number");
    let mut limit = Command::new("prlimit");
    limit.args([&format!("--pid={guard}"), &format!("--nofile={free}:{free}")]);
    assert_eq!(end_of_command(limit).0, End::Code(0));
    for _ in 0..3 {
        let new = service.restart();
        new.says("event PredecessorGone");
        wait_until("the guard to know", || log(&service).contains(&format!("the service is process {}", new.pid)));
        wait_until("the one before to be reaped", || procfs::children(guard) == [new.pid]);
    }
    service.hub.nth(3).tell(Act::Exit(11));
    assert_eq!(how(end_of(&service)), End::Code(11), "{}", log(&service));
}
