//! What a service keeps outlives it: killed at any moment, it comes back with its listeners, its
//! connections and their state, byte for byte.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollflip::restart_coordination_socket::request_restart;
use tempfile::TempDir;

use crate::keeping::{Wish, step};
use crate::kit::{End, POLLFLIP, end_of_command, has_program, own_descriptors};
use pollflip_kit::harness::own_program;
use pollflip_kit::hub::{wait_for, wait_until, wait_until_equal};
use pollflip_kit::procfs;
use pollflip_kit::service::{Config, DIRECTORY, ROLE, SETTINGS, Settings, ms};
use pollflip_kit::surroundings::directory;

pollflip_kit::trials![
    promise_15_kept_connections_go_on_after_kills_at_any_moment,
    kept_connections_go_on_after_kills_between_and_in_restarts,
    promise_15_a_connection_that_kills_the_service_is_dropped_and_the_others_go_on,
    a_successor_that_is_killed_on_probation_gives_the_connections_back,
    a_stopped_service_leaves_nothing_and_refuses_clients,
    a_release_that_keeps_nothing_ends_what_was_kept,
    without_a_keeper_a_service_runs_as_it_does_without,
    connections_that_come_and_go_leave_nothing_behind,
    a_user_keeps_as_many_connections_as_its_limit_allows_and_can_restart,
    a_connection_that_no_account_can_be_begun_for_ends_and_is_not_kept,
    a_listener_of_the_service_is_kept_once_and_to_keep_it_by_name_is_an_error,
    a_listener_that_a_release_has_kept_by_name_outlives_a_kill_of_the_next_one_that_has_it_in_sockets,
    a_keeper_that_is_too_small_is_an_error_that_says_so,
    a_start_that_hangs_counts_as_the_service_s_own_doing,
];

/// Any number, from a seed that is printed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let given = std::env::var("POLLFLIP_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64 | 1);
        println!("POLLFLIP_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// The settings of a service that keeps what it has.
pub fn keeps() -> Settings {
    Settings::default().set(Config::Keep(true))
}

/// A guard with that service.
pub struct Kept {
    guard: Child,
    directory: TempDir,
}

impl Kept {
    pub fn start(options: &[&str], settings: &Settings) -> Kept {
        Kept::start_as(&own_program(), options, settings)
    }

    fn start_as(program: &Path, options: &[&str], settings: &Settings) -> Kept {
        Kept::start_by("exec \"$0\" \"$@\"", Path::new(POLLFLIP), program, directory(), options, settings)
    }

    /// With a script that starts the guard.
    fn start_by(script: &str, guard: &Path, program: &Path, directory: TempDir, options: &[&str], settings: &Settings) -> Kept {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(guard).args(["guard", "--delay", "1"]).args(options).arg("--").arg(program);
        command.env(ROLE, "keeping").env(DIRECTORY, directory.path()).env(SETTINGS, settings.to_text()).env("POLLFLIP_LOG", "info");
        let log = fs::File::create(directory.path().join("guard.log")).expect("a file");
        let guard = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("a guard");
        let kept = Kept { guard, directory };
        kept.pid_after("");
        kept
    }

    pub fn guard(&self) -> u32 {
        self.guard.id()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Who serves, once another one than that does.
    pub fn pid_after(&self, before: &str) -> String {
        wait_for(&format!("a process that serves; said:\n{}\n{}", self.read("said"), self.read("guard.log")), || {
            let said = self.read("said");
            let pid = said.lines().rev().find_map(|line| line.split_once(" serves ").map(|(pid, _)| pid.to_owned()))?;
            Some(pid).filter(|pid| pid != before)
        })
    }

    /// A file, or something else, in the directory of the service.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What is there as long as the service is to do that.
    pub fn wish(&self, wish: Wish) -> PathBuf {
        wish.path(self.directory.path())
    }

    /// How many connections the service has, that of who asks left out.
    pub fn connections(&self) -> usize {
        self.serving().1
    }

    /// Who serves now, and how many connections that one has besides.
    pub fn serving(&self) -> (u32, usize) {
        let mut stream = self.connect().expect("nobody is refused");
        stream.write_all(b"!").expect("a connection");
        let mut line = String::new();
        let mut stream = io::BufReader::new(stream);
        stream.read_line(&mut line).expect("an answer");
        // Who asks is a connection too. Its end is seen a moment before the service closes its side: what that answers later comes after.
        let _ = stream.get_ref().shutdown(std::net::Shutdown::Write).and_then(|()| stream.read(&mut [0]));
        let (pid, count) = line.trim_end().split_once(' ').expect("two numbers");
        (pid.parse().expect("a number"), count.parse::<usize>().expect("a number") - 1)
    }

    /// How many descriptors the service has open.
    pub fn open(&self) -> usize {
        self.descriptors().len()
    }

    /// What they are, sorted. The directory of each service is its own, and left out of their names.
    pub fn descriptors(&self) -> Vec<String> {
        let snapshot = procfs::Snapshot::of(self.pid_after("").parse().expect("a number"));
        let name = |what: String| what.rsplit('/').next().unwrap_or_default().to_owned();
        snapshot.descriptors.into_iter().map(name).collect()
    }

    pub fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.read("address"))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub fn kill(&self) -> String {
        let pid = self.pid_after("");
        let _ = kill(Pid::from_raw(pid.parse().expect("a number")), Signal::SIGKILL);
        pid
    }

    /// Be it a process that recovers still, or one that has yet to execute the program.
    fn kill_whoever_is_there(&self) {
        wait_until("somebody to kill", || {
            let living = |pid: &u32| procfs::state(*pid).is_some_and(|state| state != 'Z');
            let child = procfs::children(self.guard()).into_iter().find(living);
            child.is_some_and(|pid| kill(Pid::from_raw(pid as i32), Signal::SIGKILL).is_ok())
        });
    }

    /// Waits until a process serves that lives.
    fn serves(&self) {
        wait_until("a process that serves", || {
            let pid = self.pid_after("").parse().expect("a number");
            procfs::children(self.guard()).contains(&pid) && procfs::state(pid) != Some('Z')
        });
    }

    pub fn restart(&self) -> Result<u32, pollflip::RequestError> {
        request_restart(self.path("restart.sock"), Duration::from_secs(20), |_| {})
    }

    pub fn stop(mut self) -> i32 {
        fs::write(self.wish(Wish::Stop), "").expect("a file");
        let pid = self.guard.id();
        wait_until(&format!("the end of the guard: {}", self.read("guard.log")), || procfs::has_ended(pid));
        self.guard.wait().expect("a child").code().expect("a status")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Its death brings the service SIGTERM.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        for line in self.read("said").lines() {
            let pid = line.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a number");
            if fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|all| String::from_utf8_lossy(&all).contains(&*self.directory.path().to_string_lossy()))
            {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// In kilobytes.
pub fn private_memory(pid: u32) -> u64 {
    procfs::status(pid, "RssAnon").and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).expect("a number")
}

/// One that sends bytes, and checks each answer.
pub struct Player {
    pub stream: TcpStream,
    state: u64,
    random: Random,
}

impl Player {
    pub fn new(kept: &Kept, seed: u64) -> Player {
        Player { stream: kept.connect().expect("nobody is refused"), state: 0, random: Random(seed * 2 + 1) }
    }

    pub fn round(&mut self) -> Result<(), String> {
        let expected = self.sends().map_err(|error| format!("cut: {error}"))?;
        let mut answer = vec![0; expected.len()];
        self.stream.read_exact(&mut answer).map_err(|error| format!("cut: {error}"))?;
        if answer == expected { Ok(()) } else { Err("wrong".into()) }
    }

    /// Sends something; the answer that it will have.
    pub fn sends(&mut self) -> io::Result<Vec<u8>> {
        let length = 1 + self.random.below(3_000) as usize;
        // Neither poison nor a question.
        let bytes: Vec<u8> = (0..length).map(|_| b'a' + self.random.below(26) as u8).collect();
        let expected: Vec<u8> = bytes
            .iter()
            .map(|byte| {
                let (state, answer) = step(self.state, *byte);
                self.state = state;
                answer
            })
            .collect();
        self.stream.write_all(&bytes)?;
        Ok(expected)
    }
}

/// Players that play until they are told to stop, and one that connects anew each time.
struct Load {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u64, String>>>,
    worst: Arc<AtomicU64>,
}

impl Load {
    fn new(kept: &Kept, players: u64) -> Load {
        let (over, worst) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut threads: Vec<JoinHandle<Result<u64, String>>> = Vec::new();
        for number in 0..players {
            let (mut player, over, worst) = (Player::new(kept, number + 1), Arc::clone(&over), Arc::clone(&worst));
            threads.push(thread::spawn(move || {
                let mut rounds = 0;
                while !over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    player.round()?;
                    worst.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                    rounds += 1;
                }
                Ok(rounds)
            }));
        }
        let (address, stop) = (kept.read("address"), Arc::clone(&over));
        threads.push(thread::spawn(move || {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                TcpStream::connect(&address).map_err(|error| format!("refused: {error}"))?;
                rounds += 1;
                thread::sleep(Duration::from_micros(500));
            }
            Ok(rounds)
        }));
        Load { over, threads, worst }
    }

    fn ends_well(self, kept: &Kept, what: &str) {
        self.over.store(true, Ordering::Relaxed);
        let results: Vec<_> = self.threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let bad: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        let rounds: u64 = results.iter().flatten().sum();
        println!(
            "{what}: {rounds} rounds, longest {:.1} ms, refused, cut or wrong: {bad:?}",
            self.worst.load(Ordering::Relaxed) as f64 / 1e3
        );
        assert!(bad.is_empty(), "{bad:?}; said:\n{}\n{}", kept.read("said"), kept.read("guard.log"));
        assert!(results.iter().all(|result| result.as_ref().is_ok_and(|rounds| *rounds > 0)));
    }
}

fn promise_15_kept_connections_go_on_after_kills_at_any_moment() {
    let mut random = Random::new();
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let load = Load::new(&kept, 20);
    // The long form: a thousand.
    let kills = std::env::var("POLLFLIP_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let mut before = 0;
    for number in 0..kills {
        thread::sleep(Duration::from_micros(random.below(60_000)));
        kept.kill_whoever_is_there();
        // On a busy machine all would be killed while they recover, and none would serve.
        if number % 5 == 4 {
            kept.serves();
        }
        if number == 10 {
            before = private_memory(kept.guard());
        }
    }
    kept.serves();
    load.ends_well(&kept, &format!("{kills} kills"));
    let after = private_memory(kept.guard());
    println!("private memory of the guard after 10 kills: {before} kB, after {kills}: {after} kB");
    assert!(after <= before + 64, "{before} kB, then {after} kB");
    // Without clients it has what one has that was never killed.
    wait_until("the connections to end", || kept.connections() == 0);
    let fresh = Kept::start(&["--restart", "on-failure"], &keeps());
    println!("descriptors of the guard: {}, of the service: {}", own_descriptors(kept.guard()), kept.open());
    let open = |kept: &Kept| (own_descriptors(kept.guard()), kept.descriptors());
    wait_until_equal("it to have the descriptors that another one has", || open(&kept), || open(&fresh));
    assert_eq!(kept.stop(), 0);
}

fn kept_connections_go_on_after_kills_between_and_in_restarts() {
    let mut random = Random::new();
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let load = Load::new(&kept, 10);
    let mut restarts = 0;
    let mut killed = String::new();
    for round in 0..20 {
        kept.pid_after(&killed);
        let socket = kept.path("restart.sock");
        let asking = thread::spawn(move || request_restart(socket, Duration::from_secs(20), |_| {}).is_ok());
        if round % 2 == 0 {
            restarts += u32::from(asking.join().expect("no panic"));
            thread::sleep(Duration::from_micros(random.below(20_000)));
            killed = kept.kill();
        } else {
            thread::sleep(Duration::from_micros(random.below(60_000)));
            killed = kept.kill();
            restarts += u32::from(asking.join().expect("no panic"));
        }
    }
    let last = kept.kill();
    kept.pid_after(&last);
    load.ends_well(&kept, &format!("21 kills, {restarts} restarts"));
    assert!(restarts >= 5, "{}\n{}", kept.read("said"), kept.read("guard.log"));
    assert_eq!(kept.stop(), 0);
}

fn promise_15_a_connection_that_kills_the_service_is_dropped_and_the_others_go_on() {
    let kept = Kept::start(&["--restart", "on-failure", "--strikes", "3/60"], &keeps());
    let load = Load::new(&kept, 10);
    for _ in 0..100 {
        let mut poison = kept.connect().expect("nobody is refused");
        poison.write_all(b"poisonP").expect("a connection");
        let mut rest = Vec::new();
        // It is shut down, or reset for what it has sent and nobody has read.
        match poison.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    load.ends_well(&kept, "100 poisonous clients");
    assert_eq!(kept.read("said").matches("after Signal(6) 1").count(), 100, "no strike remains: {}", kept.read("said"));
    assert_eq!(kept.stop(), 0);
}

fn a_successor_that_is_killed_on_probation_gives_the_connections_back() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps().set(Config::Probation(ms(20_000))));
    let mut players: Vec<_> = (1..=5).map(|seed| Player::new(&kept, seed)).collect();
    players.iter_mut().try_for_each(Player::round).expect("an answer");
    let old = kept.pid_after("");
    let socket = kept.path("restart.sock");
    let asking = thread::spawn(move || request_restart(socket, Duration::from_secs(20), |_| {}).map_err(|error| error.to_string()));
    let new = kept.pid_after(&old);
    // Both of before and of the time of the successor.
    players.push(Player::new(&kept, 9));
    players.iter_mut().try_for_each(Player::round).expect("an answer");
    kill(Pid::from_raw(new.parse().expect("a number")), Signal::SIGKILL).expect("it is there");
    assert!(asking.join().expect("no panic").is_err());
    wait_until("the old one to resume", || kept.read("said").contains(&format!("{old} resumed 5")));
    let mut late = players.pop().expect("a player");
    players.iter_mut().try_for_each(Player::round).expect("it goes on");
    assert!(late.round().is_err(), "what the successor had accepted ends with it");
    // What is kept now is what it has.
    kept.kill();
    kept.pid_after(&old);
    players.iter_mut().try_for_each(Player::round).expect("it goes on");
    assert_eq!(kept.stop(), 0);
}

fn a_stopped_service_leaves_nothing_and_refuses_clients() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut player = Player::new(&kept, 1);
    player.round().expect("an answer");
    let old = kept.kill();
    kept.pid_after(&old);
    player.round().expect("it goes on");
    let address = kept.read("address");
    assert_eq!(kept.stop(), 0);
    assert!(player.round().is_err(), "it has ended");
    assert_eq!(TcpStream::connect(address).expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
}

fn a_release_that_keeps_nothing_ends_what_was_kept() {
    let program = own_program();
    // The next start has other settings, as a former release has.
    let settings = keeps().set(Config::Keep(false)).to_text();
    let script = format!("#!/bin/sh\n{SETTINGS}='{settings}' exec '{}'\n", program.display());
    let scripts = directory();
    let path = scripts.path().join("service");
    pollflip_kit::harness::install(&path, format!("#!/bin/sh\nexec '{}'\n", program.display()).as_bytes());
    let kept = Kept::start_as(&path, &["--restart", "on-failure"], &keeps());
    let mut player = Player::new(&kept, 1);
    player.round().expect("an answer");
    pollflip_kit::harness::install(&path, script.as_bytes());
    let old = kept.kill();
    kept.pid_after(&old);
    assert!(player.round().is_err(), "its end is seen");
    let said = kept.read("said");
    assert!(said.trim_end().ends_with("serves 0 false"), "{said}");
    // The listener stays.
    Player::new(&kept, 2).round().expect("an answer");
}

fn without_a_keeper_a_service_runs_as_it_does_without() {
    let kept = Kept::start(&["--restart", "no"], &keeps());
    let mut player = Player::new(&kept, 1);
    player.round().expect("an answer");
    let said = kept.read("said");
    assert!(said.trim_end().ends_with("serves 0 false"), "{said}");
    kept.restart().expect("a restart");
    player.round().expect("it was handed over");
    assert_eq!(kept.stop(), 0);
}

fn connections_that_come_and_go_leave_nothing_behind() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let open = |kept: &Kept| (own_descriptors(kept.guard.id()), kept.open());
    let mut seen = Vec::new();
    let mut stays = Player::new(&kept, 7);
    for round in 0..6 {
        for seed in 1..=200 {
            let mut player = Player::new(&kept, seed);
            player.round().expect("an answer");
            player.stream.shutdown(std::net::Shutdown::Write).expect("a connection");
            assert_eq!(player.stream.read(&mut [0; 8]).expect("the end"), 0, "others have it open");
        }
        stays.round().expect("an answer");
        seen.push(open(&kept));
        if round % 2 == 1 {
            let old = kept.kill();
            kept.pid_after(&old);
            stays.round().expect("it goes on");
        }
    }
    println!("descriptors of the guard and of the service: {seen:?}");
    assert!(seen[2..].iter().all(|open| *open == seen[2]), "{seen:?}");
    assert_eq!(kept.stop(), 0);
}

/// The kernel counts what lies in queues and what is on its way to a successor alike.
fn a_user_keeps_as_many_connections_as_its_limit_allows_and_can_restart() {
    use std::os::unix::fs::{PermissionsExt, chown};
    if !nix::unistd::geteuid().is_root() || !has_program("setpriv") {
        return eprintln!("skipped: it needs root and setpriv");
    }
    let directory = directory();
    let [guard, program] = ["pollflip", "service"].map(|name| directory.path().join(name));
    for (from, to) in [(Path::new(POLLFLIP), &guard), (&own_program(), &program)] {
        fs::copy(from, to).expect("a copy");
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("a file");
    }
    // A user of whom nothing else runs here.
    let user = 61_734;
    chown(directory.path(), Some(user), Some(user)).expect("a directory");
    let script = format!("ulimit -n 1024; exec setpriv --reuid={user} --regid={user} --clear-groups \"$0\" \"$@\"");
    let kept = Kept::start_by(&script, &guard, &program, directory, &["--restart", "on-failure"], &keeps());
    let mut players: Vec<_> = (1..=300).map(|seed| Player::new(&kept, seed)).collect();
    players.iter_mut().try_for_each(Player::round).expect("an answer");
    let said = kept.read("said");
    assert_eq!(said.matches("not kept: 256 connections are kept, and this user may have no more").count(), 44, "{said}");
    let old = kept.pid_after("");
    kept.restart().expect("a restart");
    kept.pid_after(&old);
    players.iter_mut().try_for_each(Player::round).expect("it was handed over");
    let old = kept.kill();
    kept.pid_after(&old);
    let living = players.iter_mut().filter_map(|player| player.round().ok()).count();
    assert_eq!(living, 256, "{}", kept.read("guard.log"));
    assert_eq!(kept.stop(), 0);
}

/// The keeper has a copy by then, which would hold it open.
fn a_connection_that_no_account_can_be_begun_for_ends_and_is_not_kept() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut stays = Player::new(&kept, 1);
    stays.round().expect("an answer");
    fs::write(kept.wish(Wish::LongState), "").expect("a file");
    let mut refused = kept.connect().expect("nobody is refused");
    assert_eq!(refused.read(&mut [0]).expect("an end, and not the time limit"), 0);
    wait_until("the reason", || kept.read("said").contains("longer than a record of 16384 bytes; 1 are kept"));
    fs::remove_file(kept.wish(Wish::LongState)).expect("a file");
    let old = kept.kill();
    kept.pid_after(&old);
    stays.round().expect("it goes on");
    assert_eq!(kept.connections(), 1);
    assert_eq!(kept.stop(), 0);
}

/// A keeper would say that it is there already, and the next start would have nothing of that name.
fn a_listener_of_the_service_is_kept_once_and_to_keep_it_by_name_is_an_error() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    fs::write(kept.wish(Wish::KeepListener), "").expect("a file");
    let is_refused = |pid: String| {
        let said = kept.read("said");
        assert!(said.contains(&format!("{pid} keeps its listener by name: Err(AlreadyExists)")), "{said}");
    };
    // Of the guard, and of a predecessor.
    let old = kept.kill();
    is_refused(kept.pid_after(&old));
    is_refused(kept.restart().expect("a restart").to_string());
    let old = kept.kill();
    is_refused(kept.pid_after(&old));
    kept.connect().expect("nobody is refused");
    assert_eq!(kept.stop(), 0);
}

/// The keeper has it under the first name, and would take the second one for done.
fn a_listener_that_a_release_has_kept_by_name_outlives_a_kill_of_the_next_one_that_has_it_in_sockets() {
    for is_restarted in [true, false] {
        let directory = directory();
        let is_own = Wish::OwnListener.path(directory.path());
        fs::write(&is_own, "").expect("a file");
        let script = "exec \"$0\" \"$@\"";
        let kept = Kept::start_by(script, Path::new(POLLFLIP), &own_program(), directory, &["--restart", "on-failure"], &keeps());
        let (address, mut player) = (kept.read("address"), Player::new(&kept, 1));
        player.round().expect("an answer");
        kept.pid_after(&kept.kill());
        player.round().expect("it goes on");
        fs::remove_file(is_own).expect("a file");
        if is_restarted {
            kept.restart().expect("a restart");
        } else {
            kept.pid_after(&kept.kill());
        }
        for when in ["in the next release", "after one kill", "after two"] {
            player.round().unwrap_or_else(|why| panic!("{when}: {why}"));
            let killed = kept.kill().parse().expect("a number");
            wait_until("its end", || procfs::has_ended(killed));
            TcpStream::connect(&address).unwrap_or_else(|why| panic!("killed {when}, restarted: {is_restarted}: {why}"));
            kept.serves();
        }
        assert_eq!(kept.stop(), 0);
    }
}

fn a_keeper_that_is_too_small_is_an_error_that_says_so() {
    let directory = directory();
    let mut command = Command::new(POLLFLIP);
    command.args(["guard", "--restart", "on-failure", "--strikes", "1/60", "--store", "4", "--"]).arg(own_program());
    command.env(ROLE, "keeping").env(DIRECTORY, directory.path()).env(SETTINGS, keeps().to_text());
    let (end, _, said) = end_of_command(command);
    assert_eq!(end, End::Code(101), "{said}");
    assert!(
        said.contains("holds 4 descriptors at the most, 4 are kept, and 1 more do not fit: have it hold more (pollflip guard --store"),
        "{said}"
    );
}

/// The guard kills it, and the one after it goes on with what was kept.
fn a_start_that_hangs_counts_as_the_service_s_own_doing() {
    let kept = Kept::start(&["--restart", "on-failure", "--ready", "2"], &keeps());
    let mut player = Player::new(&kept, 1);
    player.round().expect("an answer");
    fs::write(kept.wish(Wish::Hang), "").expect("a file");
    let old = kept.kill();
    kept.pid_after(&old);
    player.round().expect("it goes on");
    let said = kept.read("said");
    let ends: Vec<_> = said.lines().filter_map(|line| line.split_once(" after ").map(|(_, end)| end)).collect();
    assert_eq!(ends, ["Signal(9) 0", "NotReady 1"], "{said}");
    let mut command = Command::new(POLLFLIP);
    command.arg("status").arg(kept.path("restart.sock"));
    let (end, status, _) = end_of_command(command);
    assert_eq!(end, End::Code(0));
    assert!(status.contains("was killed by the guard because it had not said in time that it was ready"), "{status}");
    assert_eq!(kept.stop(), 0);
}
