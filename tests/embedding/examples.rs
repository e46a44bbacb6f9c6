//! The examples do what they say.

use std::fs;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair};
use nix::sys::stat::fstat;
use pollflip::RestartConfig;
use pollflip::internals::wire::{Given, Hello, Message, OLDEST, VERSION};
use pollflip::restart_coordination_socket::request_restart;

use tempfile::TempDir;

use crate::child::path;
use pollflip_kit::group::{DEADLINE, Group, ROLE, has_ended, signal, wait_until};
use pollflip_kit::surroundings::{directory, temporary};

pub(crate) const TRIALS: &[(&str, fn())] = &[
    ("a_test_that_waits_for_a_line_of_a_program_that_has_ended_fails_at_once_with_what_was_said", unsaid),
    ("examples_tell_how_they_are_used", usage),
    ("hello_tells_what_becomes_of_each_restart", hello),
    ("hello_that_cannot_start_says_why_in_a_sentence", hello_cannot_start),
    ("tokio_select_restarts_and_outlives_a_want_of_descriptors", tokio_select),
    ("tokio_select_keeps_serving_when_no_restart_is_possible", || keeps_serving("tokio_select", ["127.0.0.1:0"])),
    ("any_executor_keeps_serving_when_no_restart_is_possible_in_tokio", || {
        keeps_serving("any_executor", ["tokio", "--listen", "127.0.0.1:0"]);
    }),
    ("any_executor_keeps_serving_when_no_restart_is_possible_in_smol", || {
        keeps_serving("any_executor", ["smol", "--listen", "127.0.0.1:0"]);
    }),
    ("live_connections_go_on_where_they_were", live_connections),
    ("any_executor_keeps_connections_and_count_in_tokio", || any_executor("tokio")),
    ("any_executor_keeps_connections_and_count_in_smol", || any_executor("smol")),
    ("any_executor_gives_no_number_twice_in_tokio", || any_executor_numbers("tokio")),
    ("any_executor_gives_no_number_twice_in_smol", || any_executor_numbers("smol")),
    ("any_executor_cuts_what_does_not_end_in_tokio", || any_executor_cuts("tokio")),
    ("any_executor_cuts_what_does_not_end_in_smol", || any_executor_cuts("smol")),
    ("any_executor_outlives_a_want_of_descriptors_in_tokio", || any_executor_runs_out("tokio")),
    ("any_executor_outlives_a_want_of_descriptors_in_smol", || any_executor_runs_out("smol")),
    ("promise_01_zero_downtime_survives_a_bad_release", bad_release),
    ("game_server_keeps_every_player_with_states_written", || game_server("written", "yes")),
    ("game_server_keeps_every_player_with_states_shared", || game_server("shared", "yes")),
    ("game_server_keeps_every_player_when_all_go_at_the_freeze", || game_server("written", "no")),
    ("game_server_that_keeps_loses_nobody_to_kills_and_restarts", game_server_keeps),
    ("game_server_sees_a_successor_that_reads_before_the_grant", || game_server_is_wrong("read")),
    ("game_server_sees_a_successor_that_writes_before_the_grant", || game_server_is_wrong("write")),
    ("game_server_says_first_that_there_are_too_few_descriptors", game_server_lacks_descriptors),
    ("game_server_names_ports_as_what_is_missing", game_server_lacks_ports),
    ("kill_me_counts_no_loss_over_kills_restarts_and_poison", kill_me),
    ("kill_me_counts_no_loss_where_a_process_of_a_restart_is_killed", kill_me_in_restarts),
    ("kill_me_sees_a_server_that_reads_before_it_records", kill_me_is_wrong),
    ("promise_14_udp_flows_stay_with_eight_generations_over_twenty_restarts", || udp_flows(example("udp_flows"))),
    ("promise_14_udp_flows_do_so_for_a_user_without_rights", udp_flows_of_nobody),
    ("udp_flows_says_at_once_that_its_user_may_not_ask_for_a_restart", udp_flows_of_the_overflow_user),
    ("udp_game_loses_no_input_of_a_player", udp_game),
    ("udp_relay_accounts_for_what_a_stopped_process_does_not_take", udp_relay),
    ("game_loop_prints_frame_times_across_its_generations", game_loop),
    ("game_loop_plays_on_when_its_world_cannot_be_handed_over", game_loop_plays_on),
    ("promise_07_game_loop_goes_on_when_its_predecessor_dies_at_the_handover", || {
        goes_on_alone(example("game_loop").args(["play", "--restarts", "1", "--seconds", "0.1"]), "frames of");
    }),
    ("promise_07_any_executor_goes_on_when_its_predecessor_dies_at_the_handover", || {
        goes_on_alone(example("any_executor").args(["tokio", "--listen", "127.0.0.1:0"]), "listening on");
    }),
];

/// An example, which `cargo test` builds beside the tests.
pub(crate) fn example(name: &str) -> Command {
    let own = std::env::current_exe().expect("the path of this program");
    let profile = own.ancestors().nth(2).expect("target/PROFILE/deps/embedding");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "there is no {}: `cargo test` builds the examples, `cargo test --test` does not", path.display());
    let mut command = Command::new(path);
    command.env("TMPDIR", temporary());
    command
}

/// What a generation says first: its address and its process id.
pub(crate) fn listening(group: &Group, generation: usize) -> (SocketAddr, u32) {
    let line = group.says("listening on ", generation);
    let (address, rest) = line.split_once(", pid ").expect("an address and a pid");
    let pid = rest.split(',').next().unwrap_or_default();
    (address.parse().expect("an address"), pid.parse().expect("a pid"))
}

fn unsaid() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo one line; echo why >&2"]);
    let (group, began) = (Group::start(command, directory()), Instant::now());
    assert_eq!(group.says("one", 0), "line");
    let panic = thread::spawn(move || group.says("another", 0)).join().expect_err("nothing comes");
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    let said = panic.downcast_ref::<String>().expect("a text");
    assert!(said.contains("have ended") && said.contains("\"another\"") && said.contains("one line") && said.contains("why"), "{said}");
}

fn usage() {
    for name in ["game_loop", "game_server", "kill_me", "tcp_proxy", "any_executor"] {
        let help = example(name).arg("--help").output().expect("it runs");
        assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("usage:"), "{name}");
        let nonsense = example(name).arg("--nonsense").stdin(Stdio::null()).output().expect("it runs");
        assert_eq!(nonsense.status.code(), Some(2), "{name}");
        assert!(String::from_utf8_lossy(&nonsense.stderr).contains("see --help"), "{name}");
    }
}

fn start(executor: &str, drain: &str) -> Group {
    let directory = directory();
    let mut command = example("any_executor");
    command.args([executor, "--listen", "127.0.0.1:0", "--drain", drain, "--socket"]).arg(directory.path().join("restart.sock"));
    Group::start(command, directory)
}

/// A client, which has been told its number.
struct Client(BufReader<TcpStream>, u64);

impl Client {
    fn connect(address: SocketAddr) -> Client {
        Client::wait(address).expect("a number")
    }

    /// Or not, with why.
    fn wait(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let number = line.strip_prefix("client ").and_then(|number| number.trim_end().parse().ok());
        Ok(Client(stream, number.ok_or(io::ErrorKind::InvalidData)?))
    }

    fn echo(&mut self, text: &str) {
        self.0.get_mut().write_all(format!("{text}\n").as_bytes()).expect("it is read");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an echo");
        assert_eq!(line.trim_end(), text);
    }

    fn expect_end(&mut self) {
        let mut line = String::new();
        assert_eq!(self.0.read_line(&mut line).expect("an end"), 0, "{line}");
    }
}

fn any_executor(executor: &str) {
    let group = start(executor, "600");
    let (address, first) = listening(&group, 0);
    let mut old = Client::connect(address);
    old.echo("before");
    // The task becomes ready on its first poll, which may be after the first connection.
    let second = request_restart(group.socket(), DEADLINE, |_| {}).expect("a restart");
    assert_eq!(listening(&group, 1), (address, second));
    assert!(group.says("listening on ", 1).ends_with("1 clients so far"));
    old.echo("served by the old process to its end");
    let mut new = Client::connect(address);
    new.echo("served by the new one");
    assert_eq!((old.1, new.1), (1, 2));
    assert!(!has_ended(first));
    drop(old);
    wait_until("the old process to end", || has_ended(first));
    let third = request_restart(group.socket(), DEADLINE, |_| {}).expect("a restart");
    assert_eq!(listening(&group, 2), (address, third));
    let mut next = Client::connect(address);
    next.echo("and by the next");
    assert_eq!(next.1, 3);
}

/// What the example says of its state: clients come all the time, restarts succeed and fail with the state in their hands, and no number
/// is given out twice or left out.
fn any_executor_numbers(executor: &str) {
    let releases = Releases::of("any_executor");
    let socket = releases.directory.path().join("restart.sock");
    let group = releases.start([executor, "--listen", "127.0.0.1:0", "--socket", socket.to_str().expect("a path")]);
    let (address, _) = listening(&group, 0);
    let stop = AtomicBool::new(false);
    let mut numbers = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut numbers = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        numbers.push(Client::connect(address).1);
                    }
                    numbers
                })
            })
            .collect();
        for _ in 0..5 {
            releases.deploy_bad();
            let error = request_restart(&socket, DEADLINE, |_| {}).expect_err("it takes the state and ends");
            assert!(error.to_string().contains("exited with status 3"), "{error}");
            releases.deploy_good();
            request_restart(&socket, DEADLINE, |_| {}).expect("a restart");
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect::<Vec<_>>()
    });
    numbers.sort_unstable();
    println!("any_executor in {executor}: {} clients over 5 restarts and 5 that failed", numbers.len());
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
}

/// An example, and what is deployed in its place: a link that is moved.
struct Releases {
    directory: TempDir,
    good: PathBuf,
}

impl Releases {
    fn of(name: &str) -> Releases {
        let releases = Releases { directory: directory(), good: example(name).get_program().into() };
        releases.deploy_good();
        releases
    }

    fn start<const N: usize>(&self, arguments: [&str; N]) -> Group {
        let mut command = Command::new(self.directory.path().join("current"));
        // The role is for the release that is bad.
        command.args(arguments).env(ROLE, "taker").env("TMPDIR", temporary());
        Group::start(command, directory())
    }

    fn deploy_good(&self) {
        self.deploy(&self.good);
    }

    /// One that takes the state and ends.
    fn deploy_bad(&self) {
        self.deploy(&std::env::current_exe().expect("the path of this program"));
    }

    fn deploy(&self, program: &Path) {
        let new = self.directory.path().join("new");
        symlink(program, &new).and_then(|()| fs::rename(new, self.directory.path().join("current"))).expect("a link");
    }
}

/// What a server has said to a client that says nothing.
fn hears(address: SocketAddr) -> String {
    let mut text = String::new();
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
    BufReader::new(stream).read_line(&mut text).expect("a line");
    text
}

fn hello() {
    let releases = Releases::of("hello");
    let group = releases.start(["127.0.0.1:0"]);
    let (address, first) = listening(&group, 0);
    assert_eq!(hears(address), format!("hello from process {first}\n"));
    releases.deploy_bad();
    signal(first, Signal::SIGUSR1);
    let why = group.says(&format!("{first}: goes on:"), 0);
    assert!(why.contains("the successor exited with status 3 before it was ready"), "{why}");
    assert_eq!(hears(address), format!("hello from process {first}\n"));
    releases.deploy_good();
    signal(first, Signal::SIGUSR1);
    let (same, second) = listening(&group, 1);
    assert_eq!(group.says(&format!("{first}: process {second} is getting"), 0), "ready");
    assert_eq!(group.says(&format!("{first}: process {second} serves,"), 0), "this one ends");
    assert_eq!((same, hears(address)), (address, format!("hello from process {second}\n")));
    wait_until("the old process to end", || has_ended(first));
}

/// The first that a user may see of the crate: what a `main` prints that returns the error.
fn hello_cannot_start() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = holder.local_addr().expect("an address");
    let output = example("hello").arg(address.to_string()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.starts_with("Error: cannot bind \"hello\" as a TCP listener on "), "{said}");
}

fn tokio_select() {
    let releases = Releases::of("tokio_select");
    let group = releases.start(["127.0.0.1:0"]);
    let (address, first) = listening(&group, 0);
    let limit = |soft: u64| {
        let mut command = Command::new("prlimit");
        let status = command.args([format!("--pid={first}"), format!("--nofile={soft}:")]).status();
        assert!(status.expect("prlimit of util-linux").success());
    };
    // Until then it has all that it wants.
    let free = (0..).find(|number| !Path::new(&format!("/proc/{first}/fd/{number}")).exists()).expect("a number");
    limit(free);
    let waiting = TcpStream::connect(address).expect("a place in the queue");
    wait_until("a want of descriptors", || has_ended(first) || group.stderr().contains("cannot accept now"));
    limit(free + 100);
    waiting.set_read_timeout(Some(DEADLINE)).expect("a limit");
    assert_eq!((&waiting).read(&mut [0; 8]).expect("it is taken in after all"), 0);
    signal(first, Signal::SIGUSR1);
    let (same, second) = listening(&group, 1);
    assert_eq!((same, group.says(&format!("process {second}"), 0)), (address, "serves".into()));
    assert_eq!(hears(address), "");
    wait_until("the old process to end", || has_ended(first));
}

/// As a unit of systemd that takes no notifications: each restart is refused, and always will be.
fn keeps_serving<const N: usize>(name: &str, arguments: [&str; N]) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "SYSTEMD_EXEC_PID=$$ exec \"$0\" \"$@\""]).arg(example(name).get_program()).args(arguments);
    let group = Group::start(command, directory());
    let (address, first) = listening(&group, 0);
    signal(first, Signal::SIGUSR1);
    wait_until("the refusal", || group.stderr().contains("no further restart is possible: systemd takes no notifications"));
    // Were it to end, its listener would be closed in a moment.
    for _ in 0..3 {
        hears(address);
    }
    assert!(!has_ended(first), "{}", group.stderr());
}

fn live_connections() {
    let releases = Releases::of("live_connections");
    let group = releases.start(["127.0.0.1:0"]);
    let (address, mut serving) = listening(&group, 0);
    let mut clients: Vec<_> = (0..20).map(|_| BufReader::new(TcpStream::connect(address).expect("a connection"))).collect();
    let mut sent = 0;
    let mut all_send = |text: &str| {
        sent += text.len();
        for client in &mut clients {
            client.get_ref().set_read_timeout(Some(DEADLINE)).expect("a limit");
            client.get_mut().write_all(text.as_bytes()).expect("it is read");
            let mut line = String::new();
            client.read_line(&mut line).expect("a line");
            assert_eq!(line, format!("{sent} bytes so far\n"));
        }
    };
    all_send("before");
    for generation in 1..=3 {
        releases.deploy_bad();
        signal(serving, Signal::SIGUSR1);
        wait_until("a successor that takes all of it", || fs::remove_file(group.path("taken")).is_ok());
        all_send("heard when that one has ended");
        wait_until("its end", || children(serving) == 0);
        releases.deploy_good();
        signal(serving, Signal::SIGUSR1);
        let (_, new) = listening(&group, generation);
        all_send("in the next process");
        wait_until("the old process to end", || has_ended(serving));
        all_send("alone");
        serving = new;
    }
}

/// How many a process has.
fn children(of: u32) -> usize {
    let lists = fs::read_dir(format!("/proc/{of}/task")).expect("a process").flatten();
    lists.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default().split_whitespace().count()).sum()
}

/// A release that takes the state and does not live to serve.
pub(crate) fn take_and_end() -> ExitCode {
    let restarter = RestartConfig::new().build().expect("a restarter");
    let Ok(_state) = restarter.predecessor().expect("a predecessor").receive(DEADLINE) else { return ExitCode::FAILURE };
    fs::write(path("taken"), "").expect("written");
    // For as long as others may be tempted to take clients in.
    thread::sleep(Duration::from_millis(50));
    ExitCode::from(3)
}

fn any_executor_cuts(executor: &str) {
    let group = start(executor, "0.2");
    let (address, first) = listening(&group, 0);
    let mut old = Client::connect(address);
    old.echo("before");
    request_restart(group.socket(), DEADLINE, |_| {}).expect("a restart");
    old.expect_end();
    wait_until("the old process to end", || has_ended(first));
    let stderr = group.stderr();
    assert!(stderr.contains("1 connections have not ended in time and are cut"), "{stderr}");
}

fn any_executor_runs_out(executor: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 50; exec \"$0\" \"$1\" --listen 127.0.0.1:0"]).arg(example("any_executor").get_program()).arg(executor);
    let group = Group::start(command, directory());
    let (address, pid) = listening(&group, 0);
    let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    wait_until("a want of descriptors", || has_ended(pid) || group.stderr().contains("cannot accept now"));
    drop(clients);
    Client::connect(address).echo("there is room again");
}

/// The demonstration: the line at its end says what a person would look for.
fn bad_release() {
    let mut command = example("zero_downtime");
    // A bad release crashes after 0.2 s, and is no bad one if the machine lets it live to the end of its probation.
    command.args(["--bad-release", "--restarts", "2", "--seconds", "1", "--probation", "4", "--connections", "6"]);
    let mut group = Group::start(command, directory());
    let line = group.says("restarts=", 0);
    println!("zero_downtime under test: restarts={line}");
    let status = group.exit();
    assert!(status.success(), "{status}: restarts={line}\n{}", group.stderr());
    assert!(line.starts_with("2 "), "{line}");
    for part in [" failed=0 ", " refused=0 ", " lost_with_the_bad_release=", r#" told="the successor was killed by SIGABRT on probation; "#]
    {
        assert!(line.contains(part), "{line}");
    }
}

/// Players who stay, and some who come and go, over restarts and a try that fails.
fn game_server(state: &str, precopy: &str) {
    let mut command = example("game_server");
    command.args(["--players", "600", "--restarts", "3", "--visitors", "100", "--state", state, "--precopy", precopy]);
    let mut group = Group::start(command, directory());
    let status = group.exit();
    let line = group.says("players=", 0);
    println!("game_server under test, states {state}, pre-copy {precopy}: players={line}");
    assert!(
        status.success() && line.starts_with("600 restarts=3 disconnected=0 out_of_sequence=0 "),
        "{status}: {line}\n{}",
        group.stderr()
    );
}

/// Killed, restarted, and restarted in vain, with two players who read slowly.
fn game_server_keeps() {
    let mut command = example("game_server");
    command.args(["--players", "1000", "--restarts", "2", "--keep", "--kills", "4"]);
    let mut group = Group::start(command, directory());
    let status = group.exit();
    let line = group.says("players=", 0);
    println!("game_server under test, kept: players={line}");
    let wanted = "1000 restarts=2 kills=4 disconnected=0 out_of_sequence=0 ";
    assert!(status.success() && line.starts_with(wanted), "{status}: {line}\n{}", group.stderr());
}

/// What the run counts is what would go wrong: a successor that is not patient costs a player its connection or its order.
fn game_server_is_wrong(how: &str) {
    let mut command = example("game_server");
    command.args(["--players", "20", "--restarts", "0", "--wrong", how]);
    let mut group = Group::start(command, directory());
    let status = group.exit();
    let (line, stderr) = (group.says("players=", 0), group.stderr());
    println!("game_server with a successor that is wrong, {how}: players={line}");
    assert_eq!(status.code(), Some(1), "{line}\n{stderr}");
    let seen = match how {
        "read" => stderr.contains("players were answered"),
        _ => line.contains(" out_of_sequence=") && !line.contains(" out_of_sequence=0 "),
    };
    assert!(seen, "{line}\n{stderr}");
}

fn kill_me() {
    let mut command = example("kill_me");
    command.args(["--kills", "8", "--restarts", "3", "--poison", "3", "--connections", "50"]);
    let mut group = Group::start(command, directory());
    let status = group.exit();
    let line = group.says("kills=", 0);
    println!("kill_me under test: kills={line}");
    let wanted = "8 restarts=3 poisoned=3 connections=50 refused=0 cut=0 wrong=0 pause_ms_p50=";
    assert!(status.success() && line.starts_with(wanted), "{status}: {line}\n{}", group.stderr());
}

/// Either of the two may be killed, at any moment.
fn kill_me_in_restarts() {
    let mut command = example("kill_me");
    command.args(["--kills", "0", "--restarts", "0", "--during", "25", "--connections", "20"]);
    let mut group = Group::start(command, directory());
    let status = group.exit();
    let line = group.says("kills=", 0);
    println!("kill_me in restarts: kills={line}");
    let wanted = "0 restarts=0 killed_in_restart=25 connections=20 refused=0 cut=0 wrong=0 ";
    assert!(status.success() && line.starts_with(wanted), "{status}: {line}\n{}", group.stderr());
}

/// Its connections are closed rather than continued wrongly.
fn kill_me_is_wrong() {
    let mut command = example("kill_me");
    command.args(["--kills", "1", "--restarts", "0", "--connections", "20", "--wrong"]);
    let mut group = Group::start(command, directory());
    let status = group.exit();
    let line = group.says("kills=", 0);
    println!("kill_me with a server that is wrong: kills={line}");
    assert!(status.code() == Some(1) && !line.contains(" cut=0 ") && line.contains(" wrong=0 "), "{status}: {line}\n{}", group.stderr());
}

fn game_server_lacks_descriptors() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 500; exec \"$0\" --players 100"]).arg(example("game_server").get_program());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("100 players need 700 descriptors") && said.contains("`ulimit -n 700`"), "{said}");
}

/// In a network of its own, whose addresses have two ports each to give.
fn game_server_lacks_ports() {
    let script =
        "set -e; ip link set lo up; echo 32768 32769 >/proc/sys/net/ipv4/ip_local_port_range; echo made >&2; exec \"$0\" --players 300";
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", script]).arg(example("game_server").get_program()).env("TMPDIR", temporary());
    let output = command.output();
    let said = output.as_ref().map_or_else(ToString::to_string, |output| String::from_utf8_lossy(&output.stderr).into_owned());
    if !said.contains("made") {
        return eprintln!("skipped: no network namespace can be had here: {said}");
    }
    assert_eq!(output.expect("it runs").status.code(), Some(1), "{said}");
    assert!(said.contains("cannot connect: no port is left at 127.0.0.") && said.contains("net.ipv4.ip_local_port_range"), "{said}");
}

fn udp_flows(command: Command) {
    let mut group = Group::start(command, directory());
    let status = group.exit();
    let line = group.says("restarts=20", 0);
    println!("udp_flows under test: restarts=20 {line}");
    let is_right = line.starts_with("generations=") && line.ends_with(" lost=0 misrouted=0");
    assert!(status.success() && is_right, "{status}: {line}\n{}", group.stderr());
}

fn udp_flows_of_nobody() {
    if let Some((command, _place)) = udp_flows_as(12_345) {
        udp_flows(command);
    }
}

/// Of whom it cannot be told whether they are that user.
fn udp_flows_of_the_overflow_user() {
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|text| text.trim().parse().ok());
    if let Some((mut command, _place)) = udp_flows_as(overflow.unwrap_or(65_534)) {
        let began = Instant::now();
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("may not ask, although the service runs as that user"), "{said}");
        assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    }
}

/// As that user, and the directory that has the program.
fn udp_flows_as(user: u32) -> Option<(Command, TempDir)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root to become another user; the test beside it runs without rights here");
        return None;
    }
    // The directories that the example is built in need not be open to others.
    let place = directory();
    let copy = place.path().join("udp_flows");
    let copied = Command::new("cp").arg(example("udp_flows").get_program()).arg(&copy).status().expect("cp");
    assert!(copied.success());
    let mut command = Command::new(copy);
    command.env("TMPDIR", temporary()).current_dir(place.path()).uid(user).gid(user);
    Some((command, place))
}

fn udp_game() {
    let mut command = example("udp_game");
    command.args(["--restarts", "5"]);
    let mut group = Group::start(command, directory());
    let status = group.exit();
    let line = group.says("players=200", 0);
    println!("udp_game under test: players=200 {line}");
    assert!(status.success() && line.starts_with("restarts=5") && line.contains(" lost=0 "), "{status}: {line}\n{}", group.stderr());
}

fn udp_relay() {
    let mut group = Group::start(example("udp_relay"), directory());
    let status = group.exit();
    let line = group.says("old_flow_stayed=100", 0);
    println!("udp_relay under test: old_flow_stayed=100 {line}");
    assert!(status.success() && line.contains(" unaccounted=0 "), "{status}: {line}\n{}", group.stderr());
    let number = |key: &str| -> u64 {
        let value = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{key} in {line}"))
    };
    // Without optimisation the wrapper of the call takes as long as the call.
    let limit = if cfg!(debug_assertions) { 2000 } else { 1000 };
    assert!((1..limit).contains(&number("refused_send_ns")), "a refusal costs next to nothing: {line}");
    // By the time of the processor: what a busy machine gives to others is nobody's turn.
    let (running, stopped) = (number("longest_turn_cpu_us"), number("longest_turn_cpu_us_stopped"));
    assert!(stopped <= 2 * running, "a stopped process makes no turn longer: {line}");
}

fn game_loop() {
    let mut command = example("game_loop");
    command.args(["--restarts", "3", "--seconds", "1"]);
    let mut group = Group::start(command, directory());
    let status = group.exit();
    assert!(status.success(), "{status}: {}", group.stderr());
    let p999 = group.says("p99.9", 0);
    println!("game_loop under test, without and with restarts: p99.9 {p999}");
    assert!(group.says("frames of", 0).ends_with("3 restarts"));
    group.says("longest call into the library with restarts", 0);
}

/// There is room for less than the world: no restart succeeds, and none does harm.
fn game_loop_plays_on() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -f 100; exec \"$0\" play --restarts 1 --seconds 0.5"]).arg(example("game_loop").get_program());
    let group = Group::start(command, directory());
    wait_until("a second restart that fails", || {
        assert!(!has_ended(group.first()), "the game has ended");
        group.stderr().matches("RLIMIT_FSIZE").count() > 1
    });
}

/// As a successor, whose predecessor ends when it has been asked for the state: nobody else is left then.
fn goes_on_alone(command: &mut Command, says: &str) {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
    let place = fstat(&theirs).map(|stat| format!("0:{}:{}", stat.st_dev, stat.st_ino)).expect("a socket");
    // It looks to poll as the pidfd of a process that ends when the other end is closed.
    let (life, end) = std::io::pipe().expect("a pipe");
    let hello = Message::Hello(Hello {
        version: VERSION,
        oldest: OLDEST,
        pid: std::process::id(),
        generation: 1,
        probation_ms: None,
        signal: None,
        pid_file: None,
        given: vec![Given::Predecessor],
        following: 0,
        outcomes: Vec::new(),
    });
    let rights = [life.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(&hello.encode())], &rights, MsgFlags::empty(), None).expect("room");
    let mut child = command.env("POLLFLIP_LIFELINE", place).stdin(theirs).stdout(Stdio::piped()).spawn().expect("the example");
    loop {
        let mut packet = [0; 1000];
        let length = recv(ours.as_raw_fd(), &mut packet, MsgFlags::empty()).expect("a message");
        if Message::decode(&packet[..length]) == Ok(Message::Pull) {
            break;
        }
    }
    // In this order: one that lives on without its lifeline has given the new one up.
    drop(end);
    drop(ours);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let said = lines.any(|line| line.starts_with(says));
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    assert!(said, "it has ended");
}
