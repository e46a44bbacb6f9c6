//! The scripts that the guide shows, with the example `restarter` as the service.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pollflip::restart_coordination_socket::request_status;

use crate::examples::example;
use pollflip_kit::group::{DEADLINE, Group};
use pollflip_kit::surroundings::directory;

pub(crate) const TRIALS: &[(&str, fn())] = &[
    ("a_deploy_puts_the_new_version_in_the_place_of_the_old_one", deploys),
    ("a_deploy_that_fails_puts_the_old_file_back", puts_back),
    ("a_deploy_whose_command_fails_after_a_restart_that_succeeded_keeps_the_new_file", keeps),
    ("a_deploy_that_is_refused_puts_the_old_file_back_and_says_so", is_refused),
    ("a_roll_goes_over_all_hosts", rolls),
    ("a_roll_stops_at_the_first_host_that_fails_and_leaves_it_the_old_file", roll_stops),
];

/// A service in a directory that looks like the root of a host.
struct Host {
    group: Group,
    program: PathBuf,
}

impl Host {
    fn start() -> Host {
        let directory = directory();
        let root = directory.path().to_owned();
        for path in ["usr/local/bin", "run/echo", "var/tmp"] {
            fs::create_dir_all(root.join(path)).expect("a directory");
        }
        let program = root.join("usr/local/bin/echo-server");
        release(&program);
        let mut command = Command::new(&program);
        command.args(["--listen", "127.0.0.1:0", "--socket"]).arg(root.join("run/echo/restart.sock"));
        let group = Group::start(command, directory);
        group.says("listening on ", 0);
        Host { group, program }
    }

    fn socket(&self) -> PathBuf {
        self.group.path("run/echo/restart.sock")
    }

    fn generation(&self) -> u32 {
        request_status(self.socket(), DEADLINE).expect("it serves").generation
    }

    /// The file, whatever it is called.
    fn file(&self) -> u64 {
        fs::metadata(&self.program).expect("the program").ino()
    }

    fn deploy(&self, new: &Path, command: &[&str]) -> Output {
        let mut script = Command::new("sh");
        script.arg(scripts().join("deploy.sh")).arg(new).arg(&self.program).arg(self.socket()).args(command);
        script.output().expect("it runs")
    }

    /// What the program's file has, in the old version and now.
    fn has_the_file_of(&self, version: &Path) -> bool {
        fs::read(&self.program).expect("the program") == fs::read(version).expect("a version")
    }
}

fn scripts() -> PathBuf {
    pollflip_kit::repository().join("examples/deploy")
}

fn real() -> PathBuf {
    example("restarter").get_program().into()
}

/// A copy: the file is one of its own. Another process writes it, or a child that another test starts meanwhile would keep it from being
/// executed.
fn release(path: &Path) {
    assert!(Command::new("cp").arg(real()).arg(path).status().expect("it runs").success());
}

/// A version that can ask, and cannot serve.
fn broken(path: &Path) {
    script(path, &format!("[ \"$1\" = restart ] && exec '{}' \"$@\"\necho broken >&2\nexit 3", real().display()));
}

fn script(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#]).arg(path).arg(text);
    assert!(shell.status().expect("it runs").success());
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn deploys() {
    let host = Host::start();
    let (new, before) = (host.group.path("new"), host.file());
    release(&new);
    let output = host.deploy(&new, &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(host.generation(), 1);
    assert_ne!(host.file(), before);
    let pid = request_status(host.socket(), DEADLINE).expect("it serves").pid;
    assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).expect("its program"), host.program);
}

fn puts_back() {
    let host = Host::start();
    let new = host.group.path("new");
    broken(&new);
    let output = host.deploy(&new, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("the old file is back"), "{}", text(&output));
    assert_eq!(host.generation(), 0);
    assert!(host.has_the_file_of(&real()));
}

fn keeps() {
    let host = Host::start();
    let new = host.group.path("new");
    release(&new);
    let before = host.file();
    let (program, socket) = (host.program.display().to_string(), host.socket().display().to_string());
    let output = host.deploy(&new, &["sh", "-c", "\"$0\" restart --socket \"$1\"; exit 1", &program, &socket]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("the new version serves (generation 1)"), "{}", text(&output));
    assert_eq!(host.generation(), 1);
    assert_ne!(host.file(), before);
}

fn is_refused() {
    let host = Host::start();
    let new = host.group.path("new");
    broken(&new);
    let output = host.deploy(&new, &["sh", "-c", "exit 2"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert_eq!(host.generation(), 0);
    assert!(host.has_the_file_of(&real()));
}

/// Hosts whose files are in directories, and programs that reach them.
fn roll(new: &Path, hosts: &[(&str, &Host)]) -> Output {
    let around = directory();
    let bin = around.path().join("bin");
    fs::create_dir(&bin).expect("a directory");
    for (name, host) in hosts {
        symlink(host.group.path(""), around.path().join(name)).expect("a link");
    }
    script(&bin.join("scp"), "exec cp \"$2\" \"$HOSTS/${3%%:*}${3#*:}\"");
    script(&bin.join("ssh"), "host=$1; shift\nexec sh -c \"$(echo \"$*\" | sed \"s| /| $HOSTS/$host/|g\")\"");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut script = Command::new("sh");
    script.arg(scripts().join("roll.sh")).arg(new).args(hosts.iter().map(|(name, _)| name));
    script.env("PATH", path).env("HOSTS", around.path()).output().expect("it runs")
}

fn rolls() {
    let (one, two) = (Host::start(), Host::start());
    let new = one.group.path("new");
    release(&new);
    let output = roll(&new, &[("one", &one), ("two", &two)]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!((one.generation(), two.generation()), (1, 1), "{}", text(&output));
}

fn roll_stops() {
    let (one, two) = (Host::start(), Host::start());
    let new = one.group.path("new");
    broken(&new);
    let before = two.file();
    let output = roll(&new, &[("one", &one), ("two", &two)]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("stopped at one (status 1)"), "{}", text(&output));
    assert_eq!((one.generation(), two.generation()), (0, 0));
    assert!(one.has_the_file_of(&real()));
    assert_eq!(two.file(), before);
}
