//! Promise 10 for a program that gains rights by being executed: its file has capabilities, which leave user and group as they are. Anybody
//! can start it with a lifeline of their own making. It goes on for nobody but a process that has these capabilities.
//!
//! The forger is a user without rights. It makes a lifeline, and says on it what a predecessor would; or a child of it does, while it becomes
//! something better.

use std::fs;
use std::io::{IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair};
use nix::sys::stat::fstat;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::Pid;
use pollflip::internals::wire::{Given, Hello, MAX_PACKET, Message, OLDEST, VERSION};

use crate::confine::Confine;
use crate::is_root;
use crate::service::{HUB, KeepVariables, ROLE};
use crate::{callers, confine};
use pollflip_kit::harness::{Service, Setup, install_copy};
use pollflip_kit::hub::{wait_for, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, set};
use pollflip_kit::surroundings::stale_socket;

pollflip_kit::trials![
    promise_10_a_program_with_capabilities_goes_on_for_nobody_who_has_them_not,
    promise_10_a_lifeline_whose_maker_has_executed_a_program_with_capabilities_since_is_refused,
    promise_10_a_lifeline_whose_maker_executes_a_program_to_answer_and_another_one_again_is_refused,
    promise_10_a_lifeline_whose_maker_has_capabilities_of_another_user_namespace_is_refused,
    promise_10_a_lifeline_whose_maker_has_ended_is_refused,
    promise_10_a_lifeline_that_names_another_process_than_its_maker_is_refused,
    promise_10_a_program_with_capabilities_is_restarted_by_one_that_has_them,
    promise_10_a_release_with_more_capabilities_than_the_one_before_is_refused,
    promise_10_a_predecessor_that_proc_does_not_show_is_refused,
    promise_10_what_an_honest_lifeline_names_is_removed_only_if_it_is_the_services,
];

const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_NET_RAW: u32 = 13;
pub const IDLE: &str = "idle";
pub const FORGER: &str = "forger";
const ALONE: &str = "alone";
const ANSWER: &str = "answer";

/// `false`: files cannot have capabilities here, which is said aloud.
fn give_capabilities(program: &Path, capabilities: &[u32]) -> bool {
    let has_no_rights = statvfs(program).expect("a file system").flags().contains(FsFlags::ST_NOSUID);
    match callers::give_capabilities(program, capabilities) {
        Ok(()) if !has_no_rights => true,
        other => {
            eprintln!("skipped: files cannot have capabilities here ({other:?})");
            false
        }
    }
}

/// What a service of a user without rights needs: this program with and without capabilities.
fn furnish(test: &str, capabilities: &[u32]) -> Option<(Setup, PathBuf)> {
    if !is_root(test) {
        return None;
    }
    let setup = Setup::new();
    let (program, plain) = (setup.path("server"), setup.path("plain"));
    install_copy(&program);
    install_copy(&plain);
    // A successor gets nothing of the environment but what is set for it, and the path is named.
    let setup = setup.set(KeepVariables).set(Config::Program(program.clone()));
    give_capabilities(&program, capabilities).then(|| (setup.program(program), plain))
}

/// Files that a forged lifeline names.
struct Victims {
    socket: PathBuf,
    pid_file: PathBuf,
}

impl Victims {
    fn new(setup: &Setup) -> Victims {
        let (socket, pid_file) = (setup.path("victim.sock"), setup.path("victim.pid"));
        stale_socket(&socket);
        fs::write(&pid_file, "1\n").expect("a file");
        Victims { socket, pid_file }
    }

    fn are_there(&self) -> bool {
        [&self.socket, &self.pid_file].iter().all(|path| fs::symlink_metadata(path).is_ok())
    }
}

/// A service that is started by a forger: why it could not be built.
fn refusal_of_forged(how: &str, test: &str) -> Option<String> {
    let (setup, plain) = furnish(test, &[CAP_DAC_OVERRIDE])?;
    let victims = Victims::new(&setup);
    let names = format!("{} {}", victims.socket.display(), victims.pid_file.display());
    // A shell that does not become the maker reaps it.
    let exec = if how == "reaped" { "" } else { "exec" };
    let service = setup.shell(&format!("{ROLE}={FORGER} {exec} {} {how} \"$0\" {names}; exit 0", plain.display())).launch();
    let process = service.first();
    let outcome = wait_for("an outcome", || {
        let built = process.said("event Committed").pop().map(|_| String::new());
        process.said("build-error").pop().or(built)
    });
    if outcome.is_empty() {
        // It heeds what was said to it in its next turn.
        process.ask(Act::Turns);
    }
    assert!(victims.are_there(), "a file of root is gone");
    assert!(!outcome.is_empty(), "a forged lifeline was taken for an honest one");
    assert!(process.said("serving").is_empty());
    Some(outcome)
}

fn promise_10_a_program_with_capabilities_goes_on_for_nobody_who_has_them_not() {
    if let Some(why) = refusal_of_forged("lives", "the one of a program with capabilities") {
        assert!(why.contains("has made it, whose rights this process exceeds"), "{why}");
    }
}

fn promise_10_a_lifeline_whose_maker_has_executed_a_program_with_capabilities_since_is_refused() {
    let test = "the one of a maker that has become a program with capabilities";
    for (how, told) in [("executes", "answers in its place"), ("executes-alone", "has made it, whose rights this process exceeds")] {
        let Some(why) = refusal_of_forged(how, test) else { return };
        assert!(why.contains(told), "{why}");
    }
}

fn promise_10_a_lifeline_whose_maker_executes_a_program_to_answer_and_another_one_again_is_refused() {
    if let Some(why) = refusal_of_forged("comes-back", "the one of a maker that comes back to a program with capabilities") {
        assert!(why.contains("has not had the rights of this process all the time"), "{why}");
    }
}

/// Anybody has all of them in a namespace of their own, where they are good for nothing outside of it.
fn promise_10_a_lifeline_whose_maker_has_capabilities_of_another_user_namespace_is_refused() {
    let test = "the one of a maker with capabilities of another user namespace";
    if !Command::new("unshare").args(["-U", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped {test}: there are no user namespaces here");
    }
    if let Some(why) = refusal_of_forged("namespace", test) {
        assert!(why.contains("has made it, whose rights this process exceeds"), "{why}");
    }
}

fn promise_10_a_lifeline_whose_maker_has_ended_is_refused() {
    for how in ["ends", "reaped"] {
        let Some(why) = refusal_of_forged(how, "the one of a maker that has ended") else { return };
        assert!(why.contains("its origin cannot be found out") || why.contains("has ended"), "{why}");
    }
}

fn promise_10_a_lifeline_that_names_another_process_than_its_maker_is_refused() {
    if let Some(why) = refusal_of_forged("lies", "the one of a maker that gives itself out for another") {
        assert!(why.contains("has made it, and process 1 says that it has"), "{why}");
    }
}

/// A service of a user without rights, whose program has capabilities.
fn start(setup: Setup, plain: &Path) -> Service {
    let service = setup.shell(&format!("{ROLE}={FORGER} exec {} becomes \"$0\"", plain.display())).launch();
    fs::set_permissions(service.path(HUB), fs::Permissions::from_mode(0o666)).expect("a mode");
    service.first().says("serving");
    service
}

fn promise_10_a_program_with_capabilities_is_restarted_by_one_that_has_them() {
    for confine in [None, Some(Confine::Capabilities)] {
        let Some((mut setup, plain)) = furnish("the one of a program with capabilities that restarts", &[CAP_DAC_OVERRIDE]) else { return };
        if let Some(how) = &confine {
            // The thread that starts successors has them still.
            setup = setup.set(how.clone());
        }
        let pid_file = setup.path("pid");
        let service = start(setup.set(Config::PidFile(pid_file.clone())), &plain);
        assert_eq!(procfs::status(service.first().pid, "Uid").map(|line| line.starts_with(&confine::NOBODY.to_string())), Some(true));
        for _ in 0..2 {
            let new = service.restart();
            new.says("event Committed");
            assert_eq!(service.connect().pid, new.pid);
        }
        if confine.is_some() {
            // The loop may not write to the directory of root any more.
            continue;
        }
        // A release that has them elsewhere takes its own files away.
        let (socket, other) = (service.path("other.sock"), service.path("other.pid"));
        service.plan_next(set(Config::Socket(socket.clone())).set(Config::PidFile(other.clone())));
        let new = service.restart();
        new.says("event Committed");
        wait_until("the old paths to go", || !service.socket().exists() && !pid_file.exists());
        assert!(socket.exists() && other.exists());
    }
}

fn promise_10_a_release_with_more_capabilities_than_the_one_before_is_refused() {
    let Some((setup, plain)) = furnish("the one of a release with more capabilities", &[CAP_DAC_OVERRIDE]) else { return };
    let program = setup.path("server");
    let service = start(setup, &plain);
    fs::remove_file(&program).expect("the program");
    install_copy(&program);
    assert!(give_capabilities(&program, &[CAP_DAC_OVERRIDE, CAP_NET_RAW]));
    let why = service.fail_to_restart();
    assert!(why.contains("has made it, whose rights this process exceeds"), "{why}");
    // With fewer it goes.
    assert!(give_capabilities(&program, &[]));
    assert!(give_capabilities(&program, &[CAP_DAC_OVERRIDE]));
    service.restart();
}

fn promise_10_a_predecessor_that_proc_does_not_show_is_refused() {
    let test = "the one of a predecessor that is hidden";
    let release = nix::sys::utsname::uname().expect("a kernel").release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(5), Some(8)) {
        // All mounts of it would hide processes, and not that one alone.
        return eprintln!("skipped {test}: there is but one /proc before Linux 5.8");
    }
    let Some((setup, plain)) = furnish(test, &[CAP_DAC_OVERRIDE]) else { return };
    let mount = "mount -t proc -o hidepid=2 proc /proc";
    if !Command::new("unshare").args(["-m", "sh", "-c", mount]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped {test}: /proc cannot be mounted here");
    }
    let becomes = format!("{ROLE}={FORGER} exec {} becomes \"$0\"", plain.display());
    let service = setup.shell(&format!("exec unshare -m sh -c '{mount} && {becomes}' \"$0\"")).launch();
    fs::set_permissions(service.path(HUB), fs::Permissions::from_mode(0o666)).expect("a mode");
    service.first().says("serving");
    let why = service.fail_to_restart();
    assert!(why.contains(&format!("/proc does not show process {} to this one", service.first().pid)), "{why}");
    assert_eq!(service.connect().pid, service.first().pid);
}

fn promise_10_what_an_honest_lifeline_names_is_removed_only_if_it_is_the_services() {
    // By a process of the same user, for a program that gains nothing: it is believed, and can be mistaken all the same.
    for how in ["regular", "unknown", "linked", "socket"] {
        let setup = Setup::new();
        let victims = Victims::new(&setup);
        let keep = setup.path("precious");
        match how {
            // What is named is no socket, whatever its number.
            "regular" => {
                fs::remove_file(&victims.socket).expect("the socket");
                fs::write(&victims.socket, "precious").expect("a file");
            }
            // Nor is a pid file a link to one.
            "linked" => {
                fs::rename(&victims.pid_file, &keep).expect("the file");
                std::os::unix::fs::symlink(&keep, &victims.pid_file).expect("a link");
            }
            _ => {}
        }
        let names = format!("{} {}", victims.socket.display(), victims.pid_file.display());
        let service = setup.shell(&format!("{ROLE}={FORGER} exec \"$0\" {how} \"$0\" {names}")).launch();
        let process = service.first();
        process.says("event Committed");
        process.ask(Act::Turns);
        let are_there = [&victims.socket, &victims.pid_file].map(|path| fs::symlink_metadata(path).is_ok());
        let expected = match how {
            "regular" | "unknown" => [true, false],
            "linked" => [false, true],
            _ => [false, false],
        };
        assert_eq!(are_there, expected, "{how}");
    }
}

/// The forger: `HOW PROGRAM SOCKET PID-FILE`; and the one that talks for it, with two numbers of descriptors and the maker's pid after those.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [how, program] = [0, 1].map(|index| arguments[index].as_str());
    if how == ANSWER {
        answer(&arguments);
    }
    if arguments.len() > 4 {
        talk(&arguments);
        return ExitCode::SUCCESS;
    }
    if how == "lies" || how == "becomes" || is_honest_about_itself(how) {
        confine::become_nobody();
    }
    if how == "becomes" {
        panic!("cannot execute {program}: {}", Command::new(program).env(ROLE, "service").exec());
    }
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("a pair of sockets");
    let numbers = [ours.as_raw_fd(), theirs.as_raw_fd(), std::process::id() as RawFd].map(|number| number.to_string());
    let execute = |input: Stdio, alone: &str| -> ! {
        panic!("cannot execute {program}: {}", Command::new(program).arg(alone).env(ROLE, IDLE).stdin(input).exec())
    };
    let mut talker = Command::new("/proc/self/exe");
    talker.args(&arguments).args(&numbers);
    match how {
        "ends" | "reaped" => drop(talker.spawn().expect("a process that talks")),
        "executes" | "executes-alone" => {
            drop(talker.spawn().expect("a process that talks"));
            execute(Stdio::null(), if how == "executes" { "" } else { ALONE });
        }
        "comes-back" => {
            let (orders, order) = std::io::pipe().expect("a pipe");
            drop(talker.stdin(Stdio::null()).stdout(order).spawn().expect("a process that talks"));
            execute(orders.into(), "");
        }
        _ => {
            talk(&arguments.into_iter().chain(numbers).collect::<Vec<_>>());
            rest();
        }
    }
    ExitCode::SUCCESS
}

/// A program that does nothing, in two threads unless it is told to be alone; until it is told to execute another one.
pub fn idle() -> ! {
    if std::env::args().nth(1).as_deref() != Some(ALONE) {
        thread::spawn(|| rest());
    }
    let mut order = String::new();
    std::io::stdin().read_line(&mut order).expect("an input");
    let mut words = order.split_whitespace();
    if let Some(program) = words.next() {
        panic!("cannot execute {program}: {}", Command::new(program).args(words).env(ROLE, FORGER).exec());
    }
    rest()
}

fn rest() -> ! {
    loop {
        thread::park();
    }
}

/// Answers a challenge while the one who has put it is stopped: `ANSWER PROGRAM SOCKET NUMBER PID`.
fn answer(arguments: &[String]) -> ! {
    let [program, socket, number, challenger] = [1, 2, 3, 4].map(|index| arguments[index].as_str());
    let challenger: u32 = challenger.parse().expect("a number");
    kill(Pid::from_raw(challenger as i32), Signal::SIGSTOP).expect("a process of the same user");
    wait_until("it to stop", || procfs::state(challenger) == Some('T'));
    let socket = inherited(socket.parse().expect("a number"));
    prove(&socket, number.parse().expect("a number"));
    panic!("cannot execute {program}: {}", Command::new(program).env(ROLE, IDLE).exec());
}

fn prove(socket: &OwnedFd, number: u64) {
    let descriptors = [socket.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    // It may have ended.
    let bytes = Message::Proof { number }.encode();
    let _ = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None);
}

/// Whether that forger says its own number.
fn is_honest_about_itself(how: &str) -> bool {
    ["lives", "namespace", "executes", "executes-alone", "comes-back", "ends", "reaped"].contains(&how)
}

fn permitted(pid: u32) -> Option<u64> {
    u64::from_str_radix(procfs::status(pid, "CapPrm")?.trim(), 16).ok()
}

fn has_them_in_two_threads(pid: u32) -> bool {
    permitted(pid).is_some_and(|set| set != 0) && fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() == 2)
}

/// Starts the program with the lifeline, and says on it what a predecessor says.
fn talk(arguments: &[String]) {
    let [how, program, socket, pid_file] = [0, 1, 2, 3].map(|index| arguments[index].as_str());
    let [ours, theirs, maker] = [4, 5, 6].map(|index| arguments[index].parse::<i32>().expect("a number"));
    let maker = maker as u32;
    match how {
        "executes-alone" => wait_until("the maker to have the capabilities", || permitted(maker).is_some_and(|set| set != 0)),
        "executes" | "comes-back" => wait_until("the maker to have them in two threads", || has_them_in_two_threads(maker)),
        "ends" => wait_until("the maker to have ended", || procfs::has_ended(maker)),
        "reaped" => wait_until("the maker to be gone", || !Path::new(&format!("/proc/{maker}")).exists()),
        _ => {}
    }
    let [ours, theirs] = [ours, theirs].map(inherited);
    let found = fs::symlink_metadata(socket).expect("a victim");
    let root = fs::metadata("/").expect("a root");
    let file = if how == "unknown" { Vec::new() } else { vec![found.dev(), found.ino()] };
    let hello = Message::Hello(Hello {
        version: VERSION,
        oldest: OLDEST,
        // The one that the file names.
        pid: if is_honest_about_itself(how) { maker } else { 1 },
        generation: 1,
        probation_ms: None,
        signal: None,
        pid_file: Some(pid_file.into()),
        given: vec![Given::Predecessor, Given::Coordination { path: socket.into(), file, root: vec![root.dev(), root.ino()] }],
        following: 0,
        outcomes: Vec::new(),
    });
    let name = SocketAddr::from_abstract_name(format!("pollflip-forger-{maker}")).expect("a name");
    let listener = UnixListener::bind_addr(&name).expect("a listener");
    // Not readable: such a process lives.
    let (life, _open) = std::io::pipe().expect("a pipe");
    let descriptors = [life.as_raw_fd(), listener.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(&hello.encode())], &control, MsgFlags::empty(), None).expect("room for it");
    let stat = fstat(&theirs).expect("a socket");
    let place = format!("{}:{}:{}", theirs.as_raw_fd(), stat.st_dev, stat.st_ino);
    fcntl(&ours, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a flag");
    let mut command = Command::new(program);
    if how == "namespace" {
        // It stays outside, where its capabilities are good for something.
        command = Command::new("sh");
        command.args(["-c", "read _ && exec \"$0\"", program]).stdin(Stdio::piped());
    }
    let mut service = command.env(ROLE, "service").env("POLLFLIP_LIFELINE", place).spawn().expect("the program");
    drop(theirs);
    if let Some(mut order) = service.stdin.take() {
        enter_own_user_namespace();
        thread::spawn(|| rest());
        writeln!(order).expect("a shell that waits");
    }
    let mut bytes = vec![0; MAX_PACKET];
    loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let length = match recvmsg::<()>(ours.as_raw_fd(), &mut parts, None, MsgFlags::empty()) {
            Ok(message) if message.bytes > 0 => message.bytes,
            Err(Errno::EINTR) => continue,
            _ => break,
        };
        match Message::decode(&bytes[..length]) {
            Ok(Message::Challenge { number }) if how == "comes-back" => {
                let plain = fs::read_link("/proc/self/exe").expect("this program");
                println!("{} {ANSWER} {program} {} {number} {}", plain.display(), ours.as_raw_fd(), service.id());
                wait_until("the one who asks to be stopped", || procfs::state(service.id()) == Some('T'));
                wait_until("the maker to be back", || has_them_in_two_threads(maker));
                kill(Pid::from_raw(service.id() as i32), Signal::SIGCONT).expect("a process of the same user");
            }
            Ok(Message::Challenge { number }) => prove(&ours, number),
            Ok(Message::Ready) => {
                for answer in [Message::Granted, Message::Commit] {
                    // It may have ended.
                    let _ = sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(&answer.encode())], &[], MsgFlags::MSG_NOSIGNAL, None);
                }
            }
            _ => {}
        }
    }
    service.wait().expect("the program");
}

#[allow(unsafe_code, reason = "nix has this call only with a feature that nothing else needs")]
fn enter_own_user_namespace() {
    // SAFETY: unshare takes a number, and this process has one thread.
    let result = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
    Errno::result(result).expect("a user namespace");
}

#[allow(unsafe_code, reason = "an inherited descriptor has no owner yet")]
fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: this process was started with that number for this one use.
    unsafe { OwnedFd::from_raw_fd(number) }
}
