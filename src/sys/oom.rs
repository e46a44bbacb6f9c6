//! Which process the kernel ends when memory is short, and whether it has ended one.
//!
//! Knows: `oom_score_adj`, and what control groups count. Does not know: who should go first.

use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::wire::KillCounter;

use super::{Process, read_proc, rights, simulation};

/// The value of the one that goes before all others.
const FIRST: i16 = 1000;
/// Allows to set a value below the one that the process has been given, and makes that the lowest
/// for everybody else.
const CAP_SYS_RESOURCE: u32 = 24;

/// The `oom_score_adj` of another process, held open: what may be written is judged when the file
/// is opened.
#[derive(Debug)]
pub(crate) struct OomScore {
    file: File,
    before: i16,
}

impl OomScore {
    /// That of a process that is not yet the first that the kernel ends when memory is short.
    /// `None`: it is.
    ///
    /// # Errors
    ///
    /// `/proc` is not there or another namespace's; the process is another user's, or may not be
    /// looked into.
    pub(crate) fn open(process: &Process) -> io::Result<Option<OomScore>> {
        if simulation::is_simulated() {
            return Ok(None);
        }
        // Elsewhere the number is that of a process that this one has nothing to do with.
        if !super::proc_is_ours() {
            return Err(io::Error::other("/proc is that of another namespace of processes"));
        }
        let file = open_when_executed(&format!("/proc/{}/oom_score_adj", process.pid()))?;
        let score = OomScore { before: read(&file)?, file };
        // Only if it has not ended by now was the number its own.
        if process.has_ended() || score.before >= FIRST {
            return Ok(None);
        }
        Ok(Some(score))
    }

    /// Makes the process the first that the kernel ends.
    pub(crate) fn raised(self) -> io::Result<OomScore> {
        // With the capability this would also be the lowest value that a thread without it may set
        // later.
        rights::without_capability(CAP_SYS_RESOURCE, || self.file.write_all_at(format!("{FIRST}\n").as_bytes(), 0))?;
        Ok(self)
    }

    /// The value from before, unless it was changed meanwhile. That the process has ended is no
    /// error.
    pub(crate) fn restore(&self) -> io::Result<()> {
        match read(&self.file) {
            // No call that a filter of the loop would have to allow for this alone.
            Ok(FIRST) => (&self.file).write_all(format!("{}\n", self.before).as_bytes()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
        .or_else(|error| if error.raw_os_error() == Some(nix::libc::ESRCH) { Ok(()) } else { Err(error) })
    }
}

/// The value of this process.
pub(crate) fn own_oom_score() -> Option<i16> {
    if simulation::is_simulated() {
        return None;
    }
    read(&File::open("/proc/self/oom_score_adj").ok()?).ok()
}

/// The `oom_score_adj` of this process, for the moment at which its predecessor should have set it
/// back: by then this process may have given up the rights to open it.
#[derive(Debug)]
pub(crate) struct OwnOomScore {
    score: OomScore,
}

impl OwnOomScore {
    /// `before`: what the predecessor has said that it becomes again. An error will be told when it
    /// matters.
    pub(crate) fn open(before: i16) -> Option<OwnOomScore> {
        let file = OpenOptions::new().read(true).write(true).open("/proc/self/oom_score_adj").ok()?;
        Some(OwnOomScore { score: OomScore { file, before } })
    }

    /// Sets it back, if nobody else has; says to what.
    pub(crate) fn restore(&self) -> io::Result<Option<i16>> {
        let before = self.score.before;
        if before >= FIRST || read(&self.score.file)? != FIRST {
            return Ok(None);
        }
        self.score.restore().map(|()| Some(before))
    }
}

/// How long the kernel may take to finish an execution that has begun.
const EXECUTION_LIMIT: Duration = Duration::from_millis(20);
/// How soon that is looked at again.
const EXECUTION_RETRY: Duration = Duration::from_micros(200);

/// A start returns while the kernel is still executing the program. Of a process that has changed
/// its user, the memory cannot be looked into until then, and its files in `/proc` are root's.
fn open_when_executed(path: &str) -> io::Result<File> {
    let since = Instant::now();
    loop {
        let is_over = since.elapsed() >= EXECUTION_LIMIT;
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_over => thread::sleep(EXECUTION_RETRY),
            result => return result,
        }
    }
}

fn read(file: &File) -> io::Result<i16> {
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0)?;
    let number = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| io::Error::other("/proc does not tell the oom_score_adj of a process"))
}

/// Where the kernel counts the processes that it ends for memory in the control group of this one.
/// To find that takes longer than to look whether it is still there. `None`: the groups of this
/// process cannot be seen.
pub(crate) fn kill_counter() -> Option<KillCounter> {
    own_groups().as_deref().map(counter_of)
}

/// The control groups of this process, as the kernel names them.
fn own_groups() -> Option<String> {
    if simulation::is_simulated() { None } else { read_proc("/proc/self/cgroup").ok() }
}

fn counter_of(groups: &str) -> KillCounter {
    let mounts = read_proc("/proc/self/mountinfo").ok();
    let path = mounts.and_then(|mounts| counter(groups, &mounts));
    KillCounter { groups: digest(groups), file: path.and_then(|path| path.into_os_string().into_string().ok()) }
}

/// Of another build it may be another one: then the counter is found again.
fn digest(groups: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    groups.hash(&mut hasher);
    hasher.finish()
}

/// How many processes the kernel has ended for memory, counted from a moment on.
#[derive(Debug)]
pub(crate) struct OomKills {
    file: File,
    before: u64,
}

impl OomKills {
    /// From now on. `counter`: where they were counted, unless this process has been moved to
    /// another group since. `None`: this process is in no control group that counts that, or may
    /// not read it.
    pub(crate) fn since_now(counter: Option<&KillCounter>) -> Option<OomKills> {
        let groups = own_groups()?;
        let file = match counter.filter(|counter| counter.groups == digest(&groups)) {
            Some(counter) => counter.file.clone(),
            None => counter_of(&groups).file,
        };
        let file = File::open(file?).ok()?;
        let before = count(&file)?;
        Some(OomKills { file, before })
    }

    /// Whether there was one.
    pub(crate) fn has_risen(&self) -> bool {
        count(&self.file).is_some_and(|now| now > self.before)
    }
}

fn count(file: &File) -> Option<u64> {
    let mut text = [0; 512];
    let length = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// The file with the count: of the memory controller in the first version of control groups, or of
/// the one tree of the second.
fn counter(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = |is_it: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            fields.next().filter(|controllers| is_it(controllers))?;
            fields.next()
        })
    };
    let first = group(&|controllers| controllers.split(',').any(|controller| controller == "memory"));
    let (kind, option, group, name) = match first {
        Some(group) => ("cgroup", Some("memory"), group, "memory.oom_control"),
        None => ("cgroup2", None, group(&|controllers| controllers.is_empty())?, "memory.events"),
    };
    mounts.lines().find_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        let (mut place, mut what) = (place.split(' ').skip(3), what.split(' '));
        let (root, point) = (place.next()?, place.next()?);
        let (found, options) = (what.next()?, what.nth(1)?);
        let is_it = found == kind && option.is_none_or(|option| options.split(',').any(|found| found == option));
        // What is mounted can be a part of the tree.
        let below = Path::new(group).strip_prefix(root).ok()?;
        is_it.then(|| Path::new(point).join(below).join(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const FIRST_VERSION: &str = "35 30 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                                 36 30 0:32 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn the_counter_of_a_control_group_is_found_by_where_the_tree_is_mounted() {
        let found = |groups, mounts| counter(groups, mounts).map(|path| path.display().to_string());
        assert_eq!(found("0::/system.slice/a.service\n", SECOND).unwrap(), "/sys/fs/cgroup/system.slice/a.service/memory.events");
        assert_eq!(found("0::/\n", SECOND).unwrap(), "/sys/fs/cgroup/memory.events");
        let groups = "5:cpu:/docker/1\n4:memory:/docker/1/a\n0::/\n";
        assert_eq!(found(groups, FIRST_VERSION).unwrap(), "/sys/fs/cgroup/memory/a/memory.oom_control");
        // Above what is mounted here, and nothing at all.
        assert_eq!(found("4:memory:/elsewhere\n0::/\n", FIRST_VERSION), None);
        assert_eq!(found("", SECOND), None);
    }

    #[test]
    fn a_counter_of_other_groups_is_not_believed() {
        let Some(own) = kill_counter() else { return eprintln!("SKIPPED: /proc does not tell the control groups") };
        let elsewhere = |groups| KillCounter { groups, file: Some("/dev/null".into()) };
        let is_there = own.file.as_ref().is_some_and(|file| File::open(file).is_ok());
        assert_eq!(OomKills::since_now(Some(&elsewhere(!own.groups))).is_some(), is_there);
        assert!(OomKills::since_now(Some(&elsewhere(own.groups))).is_none(), "nothing is counted there");
        assert_eq!(OomKills::since_now(Some(&own)).is_some(), is_there);
    }
}
