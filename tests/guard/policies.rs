//! Programs that know nothing of the guard: statuses, strikes, what they leave behind; and the
//! command line.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::kit::{End, POLLFLIP, end_of_command, has_program, run};
use crate::speaker::{WORDS, Word, text};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{wait_for, wait_until};
use pollflip_kit::service::{Act, Step, at};
use pollflip_kit::surroundings::directory;

pollflip_kit::trials![
    it_ends_as_the_program_does,
    a_guard_that_dies_of_a_signal_leaves_no_core_dump_of_its_own,
    a_program_that_cannot_be_started_is_told_of_as_shells_do,
    a_program_is_found_in_the_path,
    a_loop_of_crashes_is_struck_out,
    always_starts_again_what_has_ended_in_order,
    a_program_that_is_replaced_is_started_as_it_is_then,
    a_program_that_is_gone_after_a_crash_is_struck_out,
    a_program_that_never_says_ready_is_killed_at_the_limit,
    without_a_limit_it_need_not_say_anything,
    a_program_that_goes_into_the_background_is_ended,
    what_does_not_end_when_told_is_killed,
    what_is_left_behind_by_what_was_left_behind_is_killed_too,
    what_is_being_killed_does_not_become_the_service,
    what_a_script_has_started_before_the_guard_is_left_alone,
    wrong_usage_is_64,
    nobody_to_ask_is_3,
    a_service_is_asked_for_a_restart_and_for_its_status,
    a_restart_that_another_one_is_in_the_way_of_is_2,
    no_outcome_in_time_is_4,
    a_service_that_can_never_be_restarted_is_5,
    a_status_for_programs_is_one_object,
];

fn it_ends_as_the_program_does() {
    for status in [0, 1, 7, 255] {
        assert_eq!(run(&[], &format!("exit {status}")).0, End::Code(status));
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGUSR2] {
        let (end, _, said) = run(&[], &format!("kill -{} $$", signal as i32));
        assert_eq!(end, End::Signal(signal));
        assert_eq!(said, "");
    }
}

/// The program has left one, or whoever collects them has it. A crash of the guard would be a second one.
fn a_guard_that_dies_of_a_signal_leaves_no_core_dump_of_its_own() {
    let directory = directory();
    let crash = [POLLFLIP, "guard", "--", "/bin/sh", "-c", "kill -ABRT $$"];
    let mut command = Command::new("prlimit");
    command.arg("--core=unlimited").args(crash).current_dir(directory.path()).stdin(Stdio::null()).stderr(Stdio::null());
    let status = command.status().expect("a process");
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::SIGABRT as i32), false));
    if !has_program("strace") {
        return;
    }
    // A program that /proc/sys/kernel/core_pattern names gets a dump whatever the limit is.
    let trace = directory.path().join("trace");
    let mut command = Command::new("strace");
    command.arg("-o").arg(&trace).args(["-e", "trace=prctl"]).args(crash).current_dir(directory.path());
    assert_eq!(end_of_command(command).0, End::Signal(Signal::SIGABRT));
    let calls = fs::read_to_string(trace).expect("a trace");
    assert!(calls.lines().any(|line| line.starts_with("prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE)") && line.ends_with("= 0")), "{calls}");
}

fn a_program_that_cannot_be_started_is_told_of_as_shells_do() {
    let directory = directory();
    let plain = directory.path().join("plain");
    fs::write(&plain, "no program").expect("a file");
    let empty = directory.path().join("is/not/there");
    for (program, status) in
        [("no-such-program", 127), (empty.to_str().expect("a text"), 127), (plain.to_str().expect("a text"), 126), ("/", 126)]
    {
        for policy in ["no", "always"] {
            let mut command = Command::new(POLLFLIP);
            command.args(["guard", "--restart", policy, "--", program]);
            let (end, _, said) = end_of_command(command);
            assert_eq!(end, End::Code(status), "{program}: {said}");
            assert!(said.starts_with("pollflip guard: cannot start ") && said.contains(program), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            let advice =
                [("no-such", "no directory in PATH"), ("is/not/there", "no such file"), ("plain", "chmod +x"), ("/", "is no file")];
            let (_, advice) = advice.into_iter().find(|(name, _)| program.contains(name)).expect("an advice");
            assert!(said.contains(advice), "{said}");
        }
    }
}

fn a_program_is_found_in_the_path() {
    let mut command = Command::new(POLLFLIP);
    command.args(["guard", "sh", "-c", "echo $0 $1", "a", "-b"]);
    assert_eq!(end_of_command(command), (End::Code(0), "a -b\n".into(), String::new()));
}

fn a_loop_of_crashes_is_struck_out() {
    let (end, runs, said) = run(&["--restart", "on-failure", "--strikes", "4/60", "--delay", "1"], "echo run; exit 3");
    assert_eq!((end, runs.lines().count()), (End::Code(3), 4), "{said}");
    assert!(said.contains("ended too often"), "{said}");
}

fn always_starts_again_what_has_ended_in_order() {
    let (end, runs, said) = run(&["--restart", "always", "--strikes", "2/60", "--delay", "1"], "echo run");
    assert_eq!((end, runs.lines().count()), (End::Code(0), 2), "{said}");
}

/// A crash starts the path as it is by then, be it broken.
fn a_program_that_is_replaced_is_started_as_it_is_then() {
    let directory = directory();
    let program = directory.path().join("program");
    pollflip_kit::harness::install(&program, b"#!/bin/sh\necho one\nmv \"$0.new\" \"$0\"\nexit 1\n");
    pollflip_kit::harness::install(&directory.path().join("program.new"), b"#!/bin/sh\necho two\nexit 2\n");
    let mut command = Command::new(POLLFLIP);
    command.args(["guard", "--restart", "on-failure", "--strikes", "3/60", "--delay", "1", "--"]).arg(&program);
    let (end, runs, said) = end_of_command(command);
    assert_eq!((end, runs.as_str()), (End::Code(2), "one\ntwo\ntwo\n"), "{said}");
}

fn a_program_that_is_gone_after_a_crash_is_struck_out() {
    let directory = directory();
    let program = directory.path().join("program");
    pollflip_kit::harness::install(&program, b"#!/bin/sh\nrm \"$0\"\nexit 9\n");
    let mut command = Command::new(POLLFLIP);
    command.args(["guard", "--restart", "on-failure", "--strikes", "3/60", "--delay", "1", "--"]).arg(&program);
    let (end, _, said) = end_of_command(command);
    assert_eq!(end, End::Code(9), "the last that ran: {said}");
    assert_eq!(said.matches("No such file").count(), 2, "{said}");
}

fn a_program_that_never_says_ready_is_killed_at_the_limit() {
    let began = Instant::now();
    let (end, _, said) = run(&["--ready", "0.2"], "exec sleep 1000");
    assert_eq!(end, End::Signal(Signal::SIGKILL), "{said}");
    assert!(said.contains("has not said in time that it is ready"), "{said}");
    assert!(began.elapsed() >= Duration::from_millis(200));
}

fn without_a_limit_it_need_not_say_anything() {
    assert_eq!(run(&[], "sleep 0.3; exit 4").0, End::Code(4));
}

fn a_program_that_goes_into_the_background_is_ended() {
    let (end, out, said) = run(&[], "sh -c 'trap \"echo told; exit\" TERM; echo $$; while :; do sleep 0.01; done' & sleep 0.2; exit 0");
    assert_eq!(end, End::Code(0), "{said}");
    assert!(out.ends_with("told\n"), "{out}");
    assert!(said.contains("a service stays in the foreground"), "{said}");
}

fn what_does_not_end_when_told_is_killed() {
    let began = Instant::now();
    let (end, _, said) = run(&[], "sh -c 'trap \"\" TERM; echo on; exec sleep 1000' & sleep 0.2; exit 3");
    assert_eq!(end, End::Code(3), "{said}");
    assert!(said.contains("is killed"), "{said}");
    assert!(began.elapsed() >= Duration::from_secs(5), "it has a moment for that");
}

/// Each end hands the next one to the guard.
fn what_is_left_behind_by_what_was_left_behind_is_killed_too() {
    let directory = directory();
    let path = directory.path().join("nest");
    let nest =
        "#!/bin/sh\ntrap '' TERM\n[ $1 -gt 0 ] || { echo $$ >\"$0.last\"; exec sleep 1000; }\n\"$0\" $(($1-1)) &\nwait\nsleep 1000\n";
    pollflip_kit::harness::install(&path, nest.as_bytes());
    let script = format!("{0} 4 & until [ -s {0}.last ]; do sleep 0.01; done; cat {0}.last; exit 3", path.display());
    let began = Instant::now();
    let (end, last, said) = run(&[], &script);
    assert_eq!(end, End::Code(3), "{said}");
    let last = last.trim().parse().expect("a process");
    assert!(pollflip_kit::procfs::has_ended(last), "{said}");
    assert!(!said.contains("left to itself"), "{said}");
    // They are told to end once, and killed once.
    assert!(began.elapsed() < Duration::from_secs(9), "{said}");
}

/// What is left behind is killed and does not die: a debugger holds it. Its helper names it the
/// service meanwhile. It stays what it is, and what comes next waits for its end.
fn what_is_being_killed_does_not_become_the_service() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    let script = r#"cd "$1"; [ ! -e left ] || exit 0
        sh -c 'trap "" TERM
            ( until [ -e go ]; do sleep 0.01; done; exec env POLLFLIP_TEST_ROLE=speaker "$0" ) &
            echo $$ >left.new; mv left.new left; wait; sleep 1000' "$2" &
        until [ -e crash ]; do sleep 0.01; done; exit 5"#;
    let mut command = Command::new(POLLFLIP);
    command.args(["guard", "--restart", "on-failure", "--delay", "1", "--", "sh", "-c", script, "-"]);
    command.arg(directory.path()).arg(pollflip_kit::harness::own_program()).stdin(Stdio::null()).stdout(Stdio::null());
    command.env(WORDS, text(&[Word::MainPidIn(path("left")), Word::Garbage]));
    command.stderr(fs::File::create(path("log")).expect("a file"));
    let mut guard = command.spawn().expect("a process");
    let said = || fs::read_to_string(path("log")).unwrap_or_default();
    let left = wait_for("what is left behind", || fs::read_to_string(path("left")).ok()?.trim().parse().ok().map(Pid::from_raw));
    if let Err(error) = ptrace::seize(left, ptrace::Options::PTRACE_O_TRACEEXIT | ptrace::Options::PTRACE_O_EXITKILL) {
        eprintln!("skipped: no process can be debugged here: {error}");
        guard.kill().expect("a process");
        guard.wait().expect("a status");
        return;
    }
    fs::write(path("crash"), "").expect("a file");
    wait_until("it to be killed", || said().contains("does not end, and is killed"));
    wait_until("it to be held at its end", || {
        let flags = Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG);
        match waitpid(left, flags).expect("it is debugged") {
            WaitStatus::PtraceEvent(..) => true,
            WaitStatus::Stopped(_, signal) => ptrace::cont(left, signal).map(|()| false).expect("it is stopped"),
            _ => false,
        }
    });
    fs::write(path("go"), "").expect("a file");
    // The helper has named it before.
    wait_until("the guard to hear the helper", || said().contains("it is no text, or too long"));
    assert!(!said().contains("is started again"), "{}", said());
    ptrace::detach(left, None).expect("it is held");
    wait_until("what comes next", || said().contains("is started again"));
    assert_eq!(guard.wait().expect("a status").code(), Some(0), "{}", said());
    assert!(!said().contains("left to itself"), "{}", said());
}

/// `helper & exec pollflip guard -- service`: the helper is a child of the guard, and none of the
/// service.
fn what_a_script_has_started_before_the_guard_is_left_alone() {
    let script = "sh -c 'trap \"echo told\" TERM; while [ -e \"$1\" ]; do sleep 0.01; done; echo kept' - \"$1\" & \
                  exec \"$0\" guard --restart on-failure --strikes 3/60 --delay 1 -- sh -c 'exit 5'";
    let directory = directory();
    let flag = directory.path().join("flag");
    fs::write(&flag, "").expect("a file");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, POLLFLIP]).arg(&flag).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut guard = command.spawn().expect("a process");
    assert_eq!(guard.wait().expect("its status").code(), Some(5));
    fs::remove_file(&flag).expect("a file");
    let mut out = String::new();
    guard.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
    assert_eq!(out, "kept\n");
}

fn wrong_usage_is_64() {
    let wrong: [&[&str]; 14] = [
        &[],
        &["serve"],
        &["guard"],
        &["guard", "--"],
        &["guard", "--", ""],
        &["guard", "--restart", "sometimes", "true"],
        &["guard", "--strikes", "0/5", "true"],
        &["guard", "--strikes", "5", "true"],
        &["guard", "--strikes", "5/-1", "true"],
        &["guard", "--delay", "x", "true"],
        &["guard", "--unknown", "true"],
        &["restart"],
        &["status", "a", "b"],
        &["restart", "a", "--wait"],
    ];
    for arguments in wrong {
        let mut command = Command::new(POLLFLIP);
        command.args(arguments);
        let (end, out, said) = end_of_command(command);
        assert_eq!((end, out.as_str()), (End::Code(64), ""), "{arguments:?}: {said}");
        assert!(said.starts_with("pollflip: ") && said.contains("--help"), "{said}");
    }
    for help in [&["--help"][..], &["guard", "-h"], &["restart", "--help"]] {
        let mut command = Command::new(POLLFLIP);
        command.args(help);
        let (end, out, _) = end_of_command(command);
        assert!(end == End::Code(0) && out.contains("usage: pollflip guard"));
    }
}

fn nobody_to_ask_is_3() {
    for what in ["restart", "status"] {
        let mut command = Command::new(POLLFLIP);
        command.args([what, "/nobody/is/here.sock"]);
        let (end, out, said) = end_of_command(command);
        assert_eq!((end, out.as_str()), (End::Code(3), ""), "{said}");
    }
}

/// Asks a service by the operator's program.
fn ask(service: &Service, what: &str, options: &[&str]) -> (End, String, String) {
    let mut command = Command::new(POLLFLIP);
    command.arg(what).arg(service.socket()).args(options);
    end_of_command(command)
}

/// It is waited for while a restart is under way; how the second one ends that is asked for.
fn during_a_restart(options: &[&str]) -> (End, String, String) {
    let service = Setup::new().start();
    service.plan_next(at(Step::Built, Act::Wait));
    let first = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    let asked = ask(&service, "restart", options);
    new.go();
    assert_eq!(first.join().expect("no panic").expect("a restart"), new.pid);
    asked
}

fn a_restart_that_another_one_is_in_the_way_of_is_2() {
    let (end, out, said) = during_a_restart(&[]);
    assert_eq!((end, out.as_str()), (End::Code(2), ""), "{said}");
    assert!(said.starts_with("pollflip: ") && said.contains("a restart has been under way for"), "{said}");
}

fn no_outcome_in_time_is_4() {
    let service = Setup::new().start();
    service.plan_next(at(Step::Built, Act::Wait));
    let (end, out, said) = ask(&service, "restart", &["--wait", "0.2"]);
    assert_eq!((end, out.as_str()), (End::Code(4), ""), "{said}");
    // The restart goes on, and nobody waits for it any more.
    let new = service.hub.nth(1);
    new.go();
    new.says("event PredecessorGone");
    assert_eq!(service.connect().pid, new.pid);
    service.hub.nth(1).signal(Signal::SIGSTOP);
    let (end, _, said) = ask(&service, "restart", &["--wait", "0.2"]);
    assert_eq!(end, End::Code(4), "{said}");
}

/// Its guard would not be told who the service is.
fn a_service_that_can_never_be_restarted_is_5() {
    let shell = "exec \"$POLLFLIP\" guard -- env NOTIFY_SOCKET=@pollflip-nobody-listens \"$0\"";
    let service = Setup::new().env("POLLFLIP", POLLFLIP).shell(shell).start();
    let (end, out, said) = ask(&service, "restart", &[]);
    assert_eq!((end, out.as_str()), (End::Code(5), ""), "{said}");
    let (end, out, _) = ask(&service, "status", &[]);
    assert!(end == End::Code(0) && out.contains("\nno restart is possible: "), "{out}");
}

fn a_status_for_programs_is_one_object() {
    let service = Setup::new().start();
    let new = service.restart();
    new.says("event PredecessorGone");
    let (end, out, said) = ask(&service, "status", &["--json"]);
    assert_eq!(end, End::Code(0), "{said}");
    let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&status["pid"], &status["generation"], &status["state"]), (&new.pid.into(), &1.into(), &"idle".into()), "{out}");
    assert_eq!(status["outcomes"][0]["ok"], true, "{out}");
    assert_eq!(out.lines().count(), 1, "{out}");
}

fn a_service_is_asked_for_a_restart_and_for_its_status() {
    let service = Setup::new().start();
    let ask = |what| ask(&service, what, &[]);
    let old = service.first().pid;
    let (end, out, said) = ask("restart");
    let new = service.hub.nth(1).pid;
    assert_eq!((end, out), (End::Code(0), format!("{new}\n")), "{said}");
    service.plan_next(at(Step::Born, Act::Exit(7)));
    let (end, out, said) = ask("restart");
    assert_eq!((end, out.as_str()), (End::Code(1), ""));
    assert!(said.starts_with("pollflip: restart failed: the successor exited with status 7"), "{said}");
    let (end, out, said) = ask("status");
    assert_eq!(end, End::Code(0), "{said}");
    assert!(out.starts_with(&format!("process {new}, generation 1: serving\n")), "{out}");
    let ended: Vec<_> = out.lines().filter_map(|line| line.split_once(" s ago, after ")).collect();
    let [(restarted, took_over), (failed, exited)] = ended[..] else { panic!("{out}") };
    assert!(restarted.starts_with("restarted ") && took_over.contains(&format!("took over from process {old}")), "{out}");
    assert!(failed.starts_with("failed ") && exited.contains("exited with status 7"), "{out}");
}
