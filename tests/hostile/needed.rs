//! Promise 11, the other way round: the list of the guide names nothing that the loop does not need. Each call is taken off it in turn, and a
//! service that goes through all that a loop does is killed at it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use libtest_mimic::Trial;
use nix::libc;
use nix::sys::signal::Signal;
use pollflip::RequestError;

use crate::attacker::Attacker;
use crate::confine::NOBODY;
use crate::listed;
use crate::listed::{Ask, Instead, Keeps, Without};
use crate::syscalls::Manager;
use pollflip_kit::client::frame;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Command, DEADLINE, Process, wait_for};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, ms, set};

/// Which of these is made is up to the C library, its version and the machine; here, one of each row at least.
const ALTERNATIVES: [&[&str]; 7] = [
    &["epoll_wait", "epoll_pwait"],
    &["poll", "ppoll"],
    &["open", "openat"],
    &["stat", "lstat", "statx"],
    &["fstat", "newfstatat"],
    &["unlink", "unlinkat"],
    &["rename", "renameat", "renameat2"],
];

/// Calls that are made now and then, which cannot be shown, and when.
const AT_TIMES: [(&str, &str); 7] = [
    ("getdents64", "a successor that has begun to exit takes its time"),
    ("clock_gettime", "the clock cannot be read without a call, in some virtual machines"),
    ("brk", "the memory of the first thread grows, and this loop has another"),
    ("mprotect", "that of another thread does, and by more than this loop needs"),
    ("mremap", "a large piece of memory grows where there is no room"),
    ("madvise", "the allocator gives memory back"),
    ("sched_yield", "the restart thread is half-way through taking what it is given"),
];

pub fn trials() -> Vec<Trial> {
    let at_times = AT_TIMES.map(|(name, _)| name);
    let alone = listed::names().into_iter().filter(|name| !ALTERNATIVES.concat().contains(&&**name) && !at_times.contains(&&**name));
    let together = ALTERNATIVES.map(|names| names.join(" "));
    let besides = listed::names_of_keeping();
    let of_keeping = besides.into_iter().filter(|name| !listed::names().contains(name));
    let needed = alone.chain(together).chain(of_keeping).map(|names| {
        Trial::test(format!("needed::promise_11_the_loop_needs_the_listed_{}", names.replace(' ', "_or_")), move || {
            assert!(gets_through(&names).is_err(), "{names}: listed, and nobody has made such a call");
            Ok(())
        })
    });
    let excused = Trial::test("needed::promise_11_nothing_is_excused_that_is_not_listed", move || {
        let listed = listed::names();
        for name in ALTERNATIVES.concat().into_iter().chain(at_times) {
            assert!(listed.iter().any(|listed| listed == name), "{name}");
        }
        // The exercise itself is sound.
        gets_through("").expect("a loop with all that is listed");
        Ok(())
    });
    needed.chain([excused]).collect()
}

/// A process was killed at a call that was taken off the list.
#[derive(Debug)]
struct Killed(#[allow(dead_code, reason = "told by a panic")] String);

/// All that a loop does, without these calls.
fn gets_through(without: &str) -> Result<(), Killed> {
    restarts(without)?;
    failures(without)?;
    with_systemd(without)?;
    keeping(without)
}

fn start(setup: Setup, without: &str) -> Result<Exercise, Killed> {
    let service = setup.set(Without(without.split(' ').map(String::from).collect())).env(crate::service::ROLE, "listed").launch();
    let exercise = Exercise { service };
    let first = exercise.service.first();
    exercise.says(&first, "serving", 0)?;
    Ok(exercise)
}

fn restarts(without: &str) -> Result<(), Killed> {
    let exercise = start(Setup::new(), without)?;
    let service = &exercise.service;
    exercise.restart()?;
    let before = service.hub.pids().len();
    service.hub.nth(before - 1).signal(Signal::SIGUSR1);
    let new = exercise.born(before)?;
    exercise.says(&new, "event Committed", 0)?;
    // Called off by the program, and by its end.
    service.plan_next(set(Instead::Hang));
    exercise.ask(&new, Act::Request)?;
    let hanging = exercise.born(before + 1)?;
    exercise.says(&hanging, "hangs", 0)?;
    exercise.ask(&new, Act::Cancel)?;
    exercise.says(&new, "event Failed", 0)?;
    exercise.clients()?;
    exercise.interrupted(&new)?;
    let last = exercise.restart()?;
    exercise.ask(&last, Act::Stop)?;
    match service.try_restart() {
        Err(RequestError::Refused(why)) if why.contains("stopping") => {}
        other => return Err(exercise.killed(&format!("{other:?}"))),
    }
    exercise.ask(&last, Act::Drop)?;
    // Its handler stays, and this thread is now the one that runs it.
    last.signal(Signal::SIGUSR1);
    exercise.ask(&last, Act::Status)?;
    Ok(())
}

fn failures(without: &str) -> Result<(), Killed> {
    // None but one that hangs has a short time.
    let impatient = start(Setup::new().set(Config::ReadyTimeout(ms(500))), without)?;
    impatient.fails(Instead::Hang, "was not ready")?;
    drop(impatient);
    let exercise = start(Setup::new().set(Config::Probation(ms(60000))), without)?;
    let service = &exercise.service;
    let first = service.first();
    for (how, expected) in [(Instead::Exit, "exited with status 3"), (Instead::Refuse, "as planned"), (Instead::Die, "status 9")] {
        exercise.fails(how, expected)?;
    }
    exercise.says(&first, "event Resumed", 0)?;
    service.plan_next(set(Instead::Hang));
    let births = service.hub.pids().len();
    let asker = service.restart_meanwhile();
    let hanging = exercise.born(births)?;
    exercise.says(&hanging, "hangs", 0)?;
    exercise.ask(&first, Act::Drop)?;
    asker.join().expect("a thread").expect_err("it was given up");
    Ok(())
}

fn with_systemd(without: &str) -> Result<(), Killed> {
    let setup = Setup::new();
    let path = setup.path("notify");
    let _manager = Manager::listen(&path);
    let exercise = start(setup.env("NOTIFY_SOCKET", &path), without)?;
    exercise.restart()?;
    let last = exercise.restart()?;
    exercise.ask(&last, Act::Stop)?;
    exercise.ask(&last, Act::Drop)?;
    Ok(())
}

fn keeping(without: &str) -> Result<(), Killed> {
    let setup = Setup::new().set(Keeps);
    let path = setup.path("notify");
    let _manager = Manager::listen(&path);
    let exercise = start(setup.env("NOTIFY_SOCKET", &path), without)?;
    let last = exercise.restart()?;
    exercise.ask(&last, Ask::Keep)?;
    Ok(())
}

/// A service that may be killed at any step, which is then the end of it.
struct Exercise {
    service: Service,
}

impl Exercise {
    /// What the last step came to because somebody was killed. Anything else is a fault of the exercise.
    fn killed(&self, found: &str) -> Killed {
        let reason = || self.dead().or_else(|| found.contains("SIGSYS").then(|| found.to_owned()));
        Killed(wait_for(&format!("somebody who was killed, since {found}"), reason))
    }

    /// Who has ended and was not to.
    fn dead(&self) -> Option<String> {
        let hub = &self.service.hub;
        let mut all = hub.pids().into_iter().map(|pid| hub.process(pid));
        let is_dead = |process: &Process| !process.lives() && process.said("fails").is_empty() && process.said("over").is_empty();
        let dead = all.find(is_dead)?;
        // The last it said may be on its way.
        dead.ends();
        is_dead(&dead).then(|| format!("process {} was killed", dead.pid))
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Killed> {
        wait_for(what, || look().map(Ok).or_else(|| self.dead().map(|why| Err(Killed(why)))))
    }

    fn says(&self, process: &Process, beginning: &str, after: usize) -> Result<String, Killed> {
        self.wait(beginning, || process.said(beginning).into_iter().nth(after))
    }

    fn born(&self, number: usize) -> Result<Process, Killed> {
        self.wait("a birth", || (self.service.hub.pids().len() > number).then(|| self.service.hub.nth(number)))
    }

    fn ask(&self, process: &Process, act: impl Command) -> Result<String, Killed> {
        let before = process.said("answer").len();
        // It may have been killed already: then it does not answer either.
        let _ = process.try_tell(act);
        self.says(process, "answer", before)
    }

    fn fails(&self, how: Instead, expected: &str) -> Result<(), Killed> {
        self.service.plan_next(set(how));
        match self.service.try_restart() {
            Err(RequestError::Failed(why)) if why.contains(expected) => Ok(()),
            other => Err(self.killed(&format!("{other:?}"))),
        }
    }

    fn restart(&self) -> Result<Process, Killed> {
        let new = match self.service.try_restart() {
            Ok(pid) => self.service.hub.process(pid),
            Err(why) => return Err(self.killed(&format!("{why:?}"))),
        };
        self.says(&new, "state", 0)?;
        self.says(&new, "event Committed", 0)?;
        let named = format!("{}\n", new.pid);
        self.wait("the pid file", || fs::read_to_string(self.service.path("pid")).is_ok_and(|text| text == named).then_some(()))?;
        Ok(new)
    }

    /// Some that ask, more than are talked to, and some that talk nonsense.
    fn clients(&self) -> Result<(), Killed> {
        let failed = |error: std::io::Error| self.killed(&error.to_string());
        let connect = || UnixStream::connect(self.service.socket()).map_err(failed);
        let mut clients = (0..70).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;
        clients[68].write_all(b"\xff\xff\xff\xff").map_err(failed)?;
        clients[69].write_all(&frame(r#"{"Request":"Status"}"#)).map_err(failed)?;
        for client in &mut clients[68..] {
            client.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            client.read_exact(&mut [0; 8]).map_err(failed)?;
        }
        drop(clients);
        // Root and the service's own user may ask; who is root needs no other to be told from.
        if nix::unistd::geteuid().is_root() {
            fs::set_permissions(self.service.socket(), fs::Permissions::from_mode(0o666)).expect("a mode");
            Attacker::start(&self.service.socket(), "silence", 1, Some(NOBODY)).holds();
        }
        let mut honest = connect()?;
        honest.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        honest.write_all(&frame(r#"{"Request":"Status"}"#)).and_then(|()| honest.read_exact(&mut [0; 8])).map_err(failed)
    }

    /// A successor that is stopped while it waits for its predecessor to grant it the service, and goes on.
    fn interrupted(&self, old: &Process) -> Result<(), Killed> {
        let births = self.service.hub.pids().len();
        self.service.plan_next(set(Instead::Wait));
        let asker = self.service.restart_meanwhile();
        let new = self.born(births)?;
        self.says(&new, "waits", 0)?;
        self.stop(old)?;
        let _ = new.try_tell(Act::Ready);
        self.says(&new, "readies", 0)?;
        self.wait("a loop that polls", || polls(new.pid).then_some(()))?;
        self.stop(&new)?;
        new.signal(Signal::SIGCONT);
        // It is killed as soon as it goes on, or polls again.
        self.wait("a loop that goes on", || polls(new.pid).then_some(()))?;
        old.signal(Signal::SIGCONT);
        self.says(&new, "event Committed", 0)?;
        match asker.join().expect("a thread") {
            Ok(_) => Ok(()),
            Err(why) => Err(self.killed(&format!("{why:?}"))),
        }
    }

    fn stop(&self, process: &Process) -> Result<(), Killed> {
        process.signal(Signal::SIGSTOP);
        self.wait("a stopped process", || (procfs::state(process.pid) == Some('T')).then_some(()))
    }
}

/// Whether the loop waits in `poll`, or goes on with that after it was interrupted.
fn polls(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(|task| Some(task.ok()?.path()));
    let is_loop = |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "loop\n");
    let mut call = tasks.filter(is_loop).filter_map(|path| fs::read_to_string(path.join("syscall")).ok());
    let waits = [libc::SYS_poll, libc::SYS_restart_syscall].map(|number| format!("{number} "));
    call.any(|call| waits.iter().any(|number| call.starts_with(number)))
}
