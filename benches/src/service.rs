//! A service in a role, and its generations: started, restarted, listened to, and gone at the end.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client;
use crate::plan::Peer;
use crate::proc;
use crate::roles::{Role, Settings, VARIABLE};

/// Nothing here takes so long.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A line that a role said.
#[derive(Debug)]
pub struct Line {
    pub word: String,
    pub pid: u32,
    pub rest: String,
}

/// A running service.
pub struct Service {
    peer: Peer,
    group: Pid,
    lines: Receiver<Line>,
    early: VecDeque<Line>,
    pub input: ChildStdin,
    /// The generation that serves.
    pub pid: u32,
    pub socket: PathBuf,
    /// Where the socket is.
    _directory: TempDir,
}

impl Service {
    /// A service of that peer, which is ready.
    pub fn start(peer: Peer, settings: Settings) -> Result<Service, String> {
        let mut service = Service::launch(peer, Settings { role: Role::of(peer), ..settings })?;
        service.pid = service.wait_for("ready")?.pid;
        Ok(service)
    }

    /// A process in the role that the settings say.
    pub fn launch(peer: Peer, mut settings: Settings) -> Result<Service, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot start {}: {error}", peer.name());
        let mut command = Command::new(own_program().map_err(|error| failed(&error))?);
        Service::spawn(peer, |socket| {
            settings.socket = socket.into();
            command.env(VARIABLE, serde_json::to_string(&settings).map_err(|error| failed(&error))?);
            Ok(command)
        })
    }

    /// A program, by a command that is given the path of a coordination socket.
    pub fn spawn(peer: Peer, command: impl FnOnce(&Path) -> Result<Command, String>) -> Result<Service, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot start {}: {error}", peer.name());
        let directory = tempfile::tempdir().map_err(|error| failed(&error))?;
        let socket = directory.path().join("restart.sock");
        let mut child =
            command(&socket)?.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn().map_err(|error| failed(&error))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { return Err(failed(&"no pipes")) };
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut parts = line.splitn(3, ' ');
                let mut next = || parts.next().unwrap_or_default().to_owned();
                let line = Line { word: next(), pid: next().parse().unwrap_or(0), rest: next() };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let pid = child.id();
        Ok(Service { peer, group: Pid::from_raw(pid as i32), lines, early: VecDeque::new(), input, pid, socket, _directory: directory })
    }

    /// The next line that begins with this word; others are kept.
    pub fn wait_for(&mut self, word: &str) -> Result<Line, String> {
        if let Some(index) = self.early.iter().position(|line| line.word == word) {
            return self.early.remove(index).ok_or_else(|| "lost a line".into());
        }
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).map_err(|_| format!("{} does not say {word:?}", self.peer.name()))?;
            match line.word.as_str() {
                found if found == word => return Ok(line),
                "failed" => return Err(format!("{}: {}", self.peer.name(), line.rest)),
                _ => self.early.push_back(line),
            }
        }
    }

    /// Forgets what it said so far.
    pub fn forget(&mut self) {
        self.early.clear();
        while self.lines.try_recv().is_ok() {}
    }

    /// A line for its standard input.
    pub fn tell(&mut self, line: &str) -> Result<(), String> {
        writeln!(self.input, "{line}").map_err(|error| format!("cannot write to {}: {error}", self.peer.name()))
    }

    /// Asks for a restart and waits for the answer; from the request on, in seconds.
    pub fn restart(&mut self) -> Result<f64, String> {
        let begun = Instant::now();
        self.pid = self.ask()?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Until the successor says that it is ready, which need not be when the old process knows of it.
    pub fn restart_until_ready(&mut self) -> Result<f64, String> {
        let begun = Instant::now();
        kill(Pid::from_raw(self.pid as i32), Signal::SIGHUP).map_err(|error| format!("cannot signal {}: {error}", self.peer.name()))?;
        self.pid = self.wait_for("ready")?.pid;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// By signal where there is no answer over a socket: then the old process says when it knows.
    fn ask(&mut self) -> Result<u32, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{} does not restart: {error}", self.peer.name());
        if self.peer == Peer::Ecdysis {
            kill(Pid::from_raw(self.pid as i32), Signal::SIGHUP).map_err(|error| failed(&error))?;
            self.wait_for("restarted")?;
            let new = self.early.iter().rev().find(|line| matches!(line.word.as_str(), "ready" | "listening"));
            return new.map(|line| line.pid).ok_or_else(|| "ecdysis has no successor".into());
        }
        client::restart(&self.socket, LIMIT).map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    /// Waits until that process has ended.
    pub fn wait_for_end(&self, pid: u32) -> Result<(), String> {
        let deadline = Instant::now() + LIMIT;
        while !proc::has_ended(pid) {
            if Instant::now() > deadline {
                return Err(format!("process {pid} of {} does not end", self.peer.name()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.reap();
        Ok(())
    }

    /// Until what has just been touched has settled, and a restart finds its code in the processor's caches again: gigabytes that pass
    /// through them leave the kernel's and the program's own out, which is not meant by the size of a process. So a small service of the
    /// same peer is restarted a few times before.
    pub fn settle(&self) -> Result<(), String> {
        const SETTLE: Duration = Duration::from_millis(300);
        // Half a second each, of which next to nothing is work.
        let warming = if self.peer == Peer::Ecdysis { 1 } else { 3 };
        thread::sleep(SETTLE);
        for _ in 0..warming {
            let mut small = Service::start(self.peer, Settings::default())?;
            small.wait_for("warm")?;
            small.measure()?;
        }
        Ok(())
    }

    /// One restart, in seconds; of the limit, one start of a process.
    pub fn measure(&mut self) -> Result<f64, String> {
        if self.peer != Peer::Limit {
            return self.restart();
        }
        self.tell("go")?;
        self.wait_for("spawned")?.rest.parse().map_err(|error| format!("{error}"))
    }

    /// Reaps what has ended of this service and has no other parent.
    pub fn reap(&self) {
        while waitpid(Pid::from_raw(-self.group.as_raw()), Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // All generations, as they are of one group; it may be empty.
        let _ = killpg(self.group, Signal::SIGKILL);
        let deadline = Instant::now() + LIMIT;
        // Children of generations become ours as their parents die.
        while waitpid(Pid::from_raw(-self.group.as_raw()), Some(WaitPidFlag::WNOHANG)) != Err(Errno::ECHILD) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// This program, by an absolute path: the peers restart by it.
fn own_program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Whether a program of that name is installed.
pub fn is_installed(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|paths| std::env::split_paths(&paths).any(|path: PathBuf| Path::new(&path).join(name).is_file()))
}
