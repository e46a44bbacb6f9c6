//! Under real runit, s6 and supervisord, and as containers and others start it: with the files of
//! `examples/guard`, in which nothing is changed but the paths of the two programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::kit::{CONTAINER, End, POLLFLIP, end_of, has_program, how, own_descriptors, there_are_containers};
use pollflip_kit::client::Load;
use pollflip_kit::harness::{Service, Setup, own_program};
use pollflip_kit::hub::{Process, wait_for, wait_until};
use pollflip_kit::manager::Manager;
use pollflip_kit::procfs;
use pollflip_kit::service::Act;

pollflip_kit::trials![
    twenty_restarts_under_runit,
    twenty_restarts_under_s6,
    twenty_restarts_under_supervisord,
    the_entry_point_of_an_image,
    the_command_of_a_pod,
    a_line_of_a_procfile,
    the_command_of_a_unit,
];

/// A file of the examples, for the programs of this test.
fn example(name: &str) -> String {
    let path = pollflip_kit::repository().join("examples/guard").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.contains("/usr/local/bin/pollflip") && text.contains("/usr/local/bin/restarter"), "{name}");
    let service = own_program().display().to_string();
    text.replace("/usr/local/bin/pollflip", POLLFLIP).replace("/usr/local/bin/restarter", &service)
}

fn write_script(path: &Path, text: &str) {
    pollflip_kit::harness::install(path, text.as_bytes());
    assert_eq!(fs::metadata(path).expect("a file").permissions().mode() & 0o111, 0o111);
}

/// A supervisor's service directory with the script of the examples, and one that notes how that
/// has ended.
fn directory(setup: &Setup, name: &str) -> PathBuf {
    let directory = setup.path("sv");
    fs::create_dir(&directory).expect("a directory");
    write_script(&directory.join("run"), &example(name));
    let note = setup.path("finished");
    write_script(&directory.join("finish"), &format!("#!/bin/sh\necho \"$1 $2\" >>'{}'\n", note.display()));
    directory
}

/// Runs one of a supervisor's tools. What it says.
fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().expect("a tool");
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The process that a supervisor names, in words such as `up (pid 812) 3 seconds`.
fn named(said: &str) -> Option<u32> {
    let digits = said.split_once("(pid ").map_or(said, |(_, rest)| rest).split(')').next()?;
    digits.trim().parse().ok()
}

/// The guard: the parent of a first generation.
fn guard_of(first: &Process) -> u32 {
    procfs::stat(first.pid).expect("a process")[1].parse().expect("a parent")
}

/// Ends a guard that is in no group that the end of the test would reach.
struct Reaper(u32);

impl Drop for Reaper {
    fn drop(&mut self) {
        if procfs::executable(self.0) == Path::new(POLLFLIP) {
            crate::kit::signal(self.0, Signal::SIGKILL);
        }
    }
}

/// Twenty restarts under load, by the tool of the supervisor and otherwise; the pid that it knows
/// stays.
fn twenty_restarts(name: &str, service: &Service, restart: impl Fn(), pid: impl Fn() -> Option<u32>) -> Reaper {
    let guard = guard_of(&service.first());
    let reaper = Reaper(guard);
    // What it has started may serve before it has written down that it has.
    wait_until("the supervisor to name the guard", || pid() == Some(guard));
    let load = Load::start(service.address(), 4);
    for number in 1..=20 {
        if number % 4 == 0 {
            restart();
            service.hub.nth(number).says("event PredecessorGone");
        } else {
            service.restart().says("event PredecessorGone");
        }
    }
    let served = load.served();
    let failed = load.stop();
    println!("20 restarts under {name}: {served} served, {} failed", failed.len());
    assert!(served > 0 && failed.is_empty(), "{failed:?}");
    assert_eq!(pid(), Some(guard));
    let last = service.hub.nth(20);
    wait_until("no zombies and no former generations", || procfs::children(guard) == [last.pid]);
    wait_until("the guard to have its own descriptors only", || own_descriptors(guard) == 4);
    reaper
}

/// The supervisor starts the service again after each end of it. The third generation of each life
/// ends in another way, and `is_told` waits until the supervisor knows how; the first life begins
/// with the process of that number. Returns the number of the process that serves in the end, and
/// its guard.
fn third_generations_end(service: &Service, mut first: usize, is_told: impl Fn(usize, End)) -> (usize, Reaper) {
    let by = |signal| (Act::Raise(signal), End::Signal(signal));
    let ends = [(Act::Exit(7), End::Code(7)), by(Signal::SIGSEGV), by(Signal::SIGKILL)];
    for (life, (act, end)) in ends.into_iter().enumerate() {
        service.hub.nth(first).says("serving");
        let _guard = Reaper(guard_of(&service.hub.nth(first)));
        service.restart().says("event PredecessorGone");
        let third = service.restart();
        third.says("event PredecessorGone");
        if end == End::Signal(Signal::SIGSEGV) {
            // The standard library has a handler for it.
            assert_eq!(third.ask(Act::Default(Signal::SIGSEGV)), "set");
        }
        third.tell(act);
        is_told(life, end);
        first += 3;
    }
    service.hub.nth(first).says("serving");
    (first, Reaper(guard_of(&service.hub.nth(first))))
}

/// What a `finish` script is given: a status and `0`, or `by_signal` and the number of a signal.
fn arguments(end: End, by_signal: &str) -> String {
    match end {
        End::Code(code) => format!("{code} 0"),
        End::Signal(signal) => format!("{by_signal} {}", signal as i32),
    }
}

/// How the supervisor has been told that the guard has ended.
fn finished(service: &Service, count: usize) -> String {
    let notes = || fs::read_to_string(service.path("finished")).unwrap_or_default();
    wait_for("the supervisor to be told", || notes().lines().nth(count).map(String::from))
}

fn twenty_restarts_under_runit() {
    if !has_program("runsv") {
        return;
    }
    let setup = Setup::new();
    let directory = directory(&setup, "runit/run");
    let sv = directory.display().to_string();
    let service = setup.env("SV", &directory).shell("exec runsv \"$SV\"").start();
    let restart = || drop(tool("sv", &["1", &sv]));
    let _guard = twenty_restarts("runit", &service, restart, || named(&tool("sv", &["status", &sv])));
    service.hub.nth(20).tell(Act::Abort);
    assert_eq!(finished(&service, 0), "-1 6");
    let is_told = |life, end| assert_eq!(finished(&service, life + 1), arguments(end, "-1"));
    let (last, _guard) = third_generations_end(&service, 21, is_told);
    tool("sv", &["-w", "30", "exit", &sv]);
    service.hub.nth(last).ends();
    end_of(&service);
}

fn twenty_restarts_under_s6() {
    if !has_program("s6-supervise") {
        return;
    }
    let setup = Setup::new();
    let directory = directory(&setup, "s6/run");
    let sv = directory.display().to_string();
    let service = setup.env("SV", &directory).shell("exec s6-supervise \"$SV\" 2>/dev/null").start();
    let restart = || drop(tool("s6-svc", &["-1", &sv]));
    let _guard = twenty_restarts("s6", &service, restart, || named(&tool("s6-svstat", &[&sv])));
    service.hub.nth(20).tell(Act::Abort);
    assert_eq!(finished(&service, 0), "256 6");
    let is_told = |life, end| assert_eq!(finished(&service, life + 1), arguments(end, "256"));
    let (last, _guard) = third_generations_end(&service, 21, is_told);
    tool("s6-svc", &["-xd", &sv]);
    service.hub.nth(last).ends();
    end_of(&service);
}

fn twenty_restarts_under_supervisord() {
    if !has_program("supervisord") {
        return;
    }
    let setup = Setup::new();
    let (config, socket, log) = (setup.path("supervisord.conf"), setup.path("supervisor.sock"), setup.path("supervisord.log"));
    let base = format!(
        "[supervisord]\nnodaemon=true\nuser=root\nlogfile={}\npidfile={}\nchildlogdir={}\n[unix_http_server]\nfile={}\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl=unix://{}\n",
        log.display(),
        setup.path("supervisord.pid").display(),
        setup.path(".").display(),
        socket.display(),
        socket.display(),
    );
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root");
        return;
    }
    fs::write(&config, format!("{base}\n{}", example("supervisord/restarter.conf"))).expect("a file");
    let configuration = config.display().to_string();
    let service = setup.env("CONFIG", &config).shell("exec supervisord -c \"$CONFIG\" >/dev/null 2>&1").start();
    let ask = |words: &[&str]| tool("supervisorctl", &[&["-c", &configuration], words].concat());
    let restart = || drop(ask(&["signal", "USR1", "restarter"]));
    let _guard = twenty_restarts("supervisord", &service, restart, || named(&ask(&["pid", "restarter"])));
    let said = || fs::read_to_string(&log).unwrap_or_default();
    // It starts a program again that has run for a second, as often as that ends.
    let runs = |lives| wait_until("it to run for supervisord", || said().matches("entered RUNNING state").count() == lives);
    let is_told = |how: String| wait_until(&format!("supervisord to be told: {how}"), || said().contains(&how));
    service.hub.nth(20).tell(Act::Abort);
    is_told("exited: restarter (terminated by SIGABRT".into());
    runs(2);
    let (last, _guard) = third_generations_end(&service, 21, |life, end| {
        is_told(match end {
            End::Code(code) => format!("exited: restarter (exit status {code}; not expected"),
            End::Signal(signal) => format!("exited: restarter (terminated by {signal}"),
        });
        runs(life + 3);
    });
    ask(&["stop", "restarter"]);
    service.hub.nth(last).ends();
    ask(&["shutdown"]);
    end_of(&service);
}

/// The words of a list in JSON behind `key` in a file.
fn words(text: &str, key: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
    serde_json::from_str(line.trim()).expect("a list")
}

/// As a container runtime starts it: the first process, that command.
fn contained(command: &[String]) {
    if !there_are_containers() {
        return;
    }
    let quoted: Vec<_> = command.iter().map(|word| format!("'{word}'")).collect();
    let service = Setup::new().shell(&format!("exec {CONTAINER} {}", quoted.join(" "))).start();
    for _ in 0..3 {
        service.restart().says("event PredecessorGone");
    }
    assert_eq!(service.connect().generation, 3);
    service.hub.nth(3).tell(Act::Exit(0));
    assert_eq!(how(end_of(&service)), End::Code(0));
}

fn the_entry_point_of_an_image() {
    let text = example("container/Dockerfile");
    contained(&[words(&text, "ENTRYPOINT"), words(&text, "CMD")].concat());
}

fn the_command_of_a_pod() {
    let text = example("container/pod.yaml");
    contained(&[words(&text, "command:"), words(&text, "args:")].concat());
}

fn a_line_of_a_procfile() {
    let text = example("Procfile");
    let line = text.lines().find_map(|line| line.strip_prefix("echo: ")).expect("a line");
    let service = Setup::new().shell(line).start();
    service.restart().says("event PredecessorGone");
    service.hub.nth(1).tell(Act::Exit(3));
    assert_eq!(how(end_of(&service)), End::Code(3));
}

/// A real systemd has it in `tests/systemd`; here a test stands in for it.
fn the_command_of_a_unit() {
    let text = example("systemd/restarter.service");
    assert!(text.lines().any(|line| line == "KillMode=mixed") && text.lines().any(|line| line == "Type=notify"));
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let (manager, setup) = Manager::new(Setup::new());
    let service = setup.env("RUNTIME_DIRECTORY", "/run/restarter").shell(&format!("exec {command}")).start();
    manager.expect(&["READY=1"]);
    service.restart().says("event PredecessorGone");
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    manager.expect(&["READY=1", "STATUS="]);
    service.hub.nth(1).tell(Act::Exit(0));
    assert_eq!(how(end_of(&service)), End::Code(0));
}
