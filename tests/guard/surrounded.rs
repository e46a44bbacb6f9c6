//! What the service is born with, and what a manager above the guard hears.

use std::process::Command;

use nix::libc;
use nix::sys::signal::Signal;

use crate::kit::{End, POLLFLIP, end_of, end_of_command, guarded, how, is_ignored, signal};
use pollflip_kit::harness::Setup;
use pollflip_kit::manager::Manager;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Step, at};

pollflip_kit::trials![
    the_service_is_born_with_the_mask_and_dispositions_of_others,
    the_service_is_born_with_the_descriptors_of_the_guard,
    variables_that_name_the_guard_name_the_service,
    sockets_of_systemd_reach_the_service_and_the_one_after_a_crash,
    a_manager_above_hears_what_concerns_it,
    a_manager_above_does_not_hear_of_an_end_that_is_none,
];

fn the_service_is_born_with_the_mask_and_dispositions_of_others() {
    let script = "cat /proc/self/status";
    let output = |mut command: Command| end_of_command(command_stdin(&mut command)).1;
    fn command_stdin(command: &mut Command) -> Command {
        std::mem::replace(command, Command::new("true"))
    }
    let lines = |text: String| -> Vec<String> {
        text.lines().filter(|line| ["SigBlk", "SigIgn", "SigCgt"].iter().any(|name| line.starts_with(name))).map(String::from).collect()
    };
    let mut plain = Command::new("/bin/sh");
    plain.args(["-c", script]);
    let mut under = Command::new(POLLFLIP);
    under.args(["guard", "--", "/bin/sh", "-c", script]);
    assert_eq!(lines(output(under)), lines(output(plain)));

    // One that ignores the ends of its children, and has blocked a signal, starts the guard.
    let service = guarded(Setup::new(), "").start();
    assert!(!is_ignored(service.first().pid, libc::SIGCHLD));
}

fn the_service_is_born_with_the_descriptors_of_the_guard() {
    let service = guarded(Setup::new(), "").start();
    let list = |command: &mut Command| {
        let output = command.args(["/bin/sh", "-c", "exec 9</dev/null; ls /proc/self/fd"]).stdin(std::process::Stdio::null()).output();
        String::from_utf8_lossy(&output.expect("a process").stdout).into_owned()
    };
    assert_eq!(list(Command::new(POLLFLIP).args(["guard", "--"])), list(&mut Command::new("env")));
    // The guard has an epoll, signals and notifications, and one descriptor for each generation.
    let count = procfs::descriptors(service.launched()).into_iter().filter(|(number, _)| *number > 2).count();
    let new = service.restart();
    new.says("event PredecessorGone");
    pollflip_kit::hub::wait_until("the guard to forget the first", || {
        procfs::descriptors(service.launched()).into_iter().filter(|(number, _)| *number > 2).count() == count
    });
}

fn variables_that_name_the_guard_name_the_service() {
    let script = "export SYSTEMD_EXEC_PID=$$ WATCHDOG_PID=$$ LISTEN_PID=$$ LISTEN_FDS=0 LISTEN_PIDFDID=5 MAINPID=$$ POLLFLIP_GUARD=1 \
                  NOTIFY_SOCKET=/nobody OTHER=$$; exec \"$0\" guard -- /bin/sh -c 'echo $$; env' 2>/dev/null";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, POLLFLIP]);
    let (end, out, _) = end_of_command(command);
    assert_eq!(end, End::Code(0));
    let pid = out.lines().next().expect("a number");
    let value = |name: &str| out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    for name in ["SYSTEMD_EXEC_PID", "WATCHDOG_PID", "LISTEN_PID"] {
        assert_eq!(value(name), Some(pid), "{name}: {out}");
    }
    for name in ["LISTEN_PIDFDID", "MAINPID", "POLLFLIP_GUARD"] {
        assert_eq!(value(name), None, "{out}");
    }
    assert_eq!(value("LISTEN_FDS"), Some("0"));
    assert_eq!(value("POLLFLIP_GUARDED"), value("OTHER"), "{out}");
    assert!(value("NOTIFY_SOCKET").is_some_and(|address| address.starts_with('@')), "{out}");
    // What names another process is left as it is.
    let mut command = Command::new(POLLFLIP);
    command.env("SYSTEMD_EXEC_PID", "1").args(["guard", "--", "/bin/sh", "-c", "echo $SYSTEMD_EXEC_PID"]);
    assert_eq!(end_of_command(command).1, "1\n");
}

fn sockets_of_systemd_reach_the_service_and_the_one_after_a_crash() {
    let script = "exec 3</etc/passwd; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" guard --restart always --strikes 2/60 --delay 1 -- \
                  /bin/sh -c '[ $LISTEN_PID = $$ ] && readlink /proc/$$/fd/3'";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, POLLFLIP]);
    assert_eq!(end_of_command(command).1, "/etc/passwd\n/etc/passwd\n");
}

fn a_manager_above_hears_what_concerns_it() {
    let (manager, setup) = Manager::new(Setup::new());
    let service = guarded(setup, "").start();
    manager.expect(&["READY=1"]);
    let new = service.restart();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    // Neither the main process nor the barrier: the guard stays, and has taken both in.
    manager.expect(&["READY=1", "STATUS="]);
    // The watchdog of a unit is fed through the guard.
    assert_eq!(new.ask(Act::Notify(vec!["WATCHDOG=1".into(), "MAINPID=1".into()])), "told");
    manager.expect(&["WATCHDOG=1"]);
    let more = ["ERRNO=5", "EXTEND_TIMEOUT_USEC=1000000", "BUSERROR=org.example.Error"];
    assert_eq!(new.ask(Act::Notify(more.map(String::from).to_vec())), "told");
    assert_eq!(manager.receive().lines, more);
    service.plan_next(at(Step::Born, Act::Exit(4)));
    service.fail_to_restart();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    let failed = manager.receive().lines;
    assert!(failed[0] == "READY=1" && failed[1].contains("status 4"), "{failed:?}");
    assert_eq!(new.ask(Act::Stop), "stopped");
    manager.expect(&["STOPPING=1"]);
    signal(service.launched(), Signal::SIGTERM);
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGTERM));
}

/// A service that is started again does not stop.
fn a_manager_above_does_not_hear_of_an_end_that_is_none() {
    let (manager, setup) = Manager::new(Setup::new());
    let service = guarded(setup, "--restart always --delay 1").start();
    manager.expect(&["READY=1"]);
    assert_eq!(service.first().ask(Act::Stop), "stopped");
    service.first().tell(Act::Exit(0));
    service.hub.nth(1).says("serving");
    loop {
        let lines = manager.receive().lines;
        assert!(!lines.iter().any(|line| line.starts_with("STOPPING")), "{lines:?}");
        if lines.contains(&"READY=1".into()) {
            break;
        }
    }
}
