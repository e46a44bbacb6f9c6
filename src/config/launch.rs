//! What a successor is started as: as this process was, with what the settings change of that.
//!
//! Knows: the path, the arguments, the environment and the directory of this process, and which of
//! them its caller may have chosen. Does not know: how it is started.

use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::signal::SigSet;

use crate::error::{Error, Refusal};
use crate::sys;
use crate::systemd::{self, FOR_ONE_PROCESS};
use crate::wire::{BIRTH_VARIABLE, FileId, LIFELINE_VARIABLE};

use super::{RestartConfig, absolute, settled};

/// What a successor is started as.
#[derive(Debug)]
pub(crate) struct Launch {
    /// Or why nothing can be started.
    pub(crate) program: Result<Program, Refusal>,
    pub(crate) environment: Vec<CString>,
    pub(crate) directory: Option<CString>,
    /// What tells that one from others, if it is the one in which the restarter was built.
    pub(crate) own_directory: Option<FileId>,
    pub(crate) mask: SigSet,
    /// Whether descriptors that are not CLOEXEC go along.
    pub(crate) inherit_descriptors: bool,
    /// How many of those this process was born with.
    pub(crate) inherited_descriptors: usize,
}

impl Launch {
    /// The directory of the successor, as far as that is known.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(|directory| Path::new(OsStr::from_bytes(directory.as_bytes())))
    }

    /// The directory that the successor is to enter. `None`: it stays in that of this process, where there is no other or its user may not
    /// enter that one anew: it was another user's, who has been given up.
    pub(crate) fn directory_to_enter(&self) -> Option<&CStr> {
        let directory = self.directory.as_deref()?;
        let is_there = self.own_directory.is_some() && self.own_directory == sys::working_directory();
        let is_shut = || sys::may_enter(directory).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        (!is_there || !is_shut()).then_some(directory)
    }
}

/// The program, and what it is called with.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) executable: CString,
    pub(crate) arguments: Vec<CString>,
    /// This process was started by this relative path, and by which name its directory was entered is not known: a link on that way which
    /// is switched to another release is not followed.
    pub(crate) unfollowed: Option<PathBuf>,
}

impl RestartConfig {
    /// What a successor is started as, made of the path, environment and directory that this
    /// process has now. A process with more rights than its caller takes none of them, since its
    /// caller may have chosen them.
    pub(crate) fn launch(&self) -> Result<Launch, Error> {
        let is_asked_for = self.program.is_none() && !sys::has_gained_rights();
        let started = if is_asked_for { started_by() } else { None };
        let program = match self.program_to_start(started.as_deref())? {
            Ok(path) => Ok(self.called(path, started)?),
            Err(refusal) => Err(refusal),
        };
        let directory = match &self.directory {
            Some(directory) => Some(followed(settled(directory, "the directory to start in")?, directory)),
            None if sys::has_gained_rights() => Some("/".into()),
            None => own_directory(program.as_ref().ok().map(|program| &*program.path)),
        };
        let stays = self.directory.is_none() && !sys::has_gained_rights();
        Ok(Launch {
            program,
            environment: self.environment_to_start()?,
            directory: directory.map(|path| c_string(path.into_os_string(), "the directory")).transpose()?,
            own_directory: if stays { sys::working_directory() } else { None },
            mask: SigSet::thread_get_mask().map_err(|error| Error::os("cannot read the signal mask")(error.into()))?,
            inherit_descriptors: self.inherit_descriptors,
            inherited_descriptors: 0,
        })
    }

    /// The path of the program, or why none can be believed: in a process that has gained rights
    /// not even that of the file that runs, which may be a hard link of its caller's.
    fn program_to_start(&self, started: Option<&Path>) -> Result<Result<PathBuf, Refusal>, Error> {
        Ok(match &self.program {
            Some(path) if path.is_relative() && sys::has_gained_rights() => Err(Refusal::Privileged),
            Some(path) => Ok(followed(absolute(path)?, path)),
            None if sys::has_gained_rights() => Err(Refusal::Privileged),
            None => own_path(started).ok_or(Refusal::UnknownProgram),
        })
    }

    /// With its name and arguments.
    fn called(&self, path: PathBuf, started: Option<PathBuf>) -> Result<Program, Error> {
        let mut arguments = env::args_os();
        let name = arguments.next().filter(|_| self.program.is_none()).unwrap_or_else(|| path.clone().into());
        let rest = self.arguments.clone().unwrap_or_else(|| arguments.collect());
        let is_unfollowed = |name: &PathBuf| name.is_relative() && named_directory().is_none();
        Ok(Program {
            unfollowed: started.filter(is_unfollowed),
            executable: c_string(path.clone().into_os_string(), "the program")?,
            arguments: [name].into_iter().chain(rest).map(|text| c_string(text, "an argument")).collect::<Result<_, _>>()?,
            path,
        })
    }

    fn environment_to_start(&self) -> Result<Vec<CString>, Error> {
        let inherited = if sys::has_gained_rights() {
            systemd::handed_down()
        } else if self.environment_as_executed {
            executed_environment().map_err(Error::os("cannot read the environment that this process was executed with"))?
        } else {
            env::vars_os().collect()
        };
        let mut environment = Vec::new();
        for (name, value) in inherited {
            if !is_for_one_process(&name) && !self.environment.iter().any(|(changed, _)| *changed == name) {
                environment.push(variable(&name, &value)?);
            }
        }
        for (name, value) in &self.environment {
            if value.is_some() && is_for_one_process(name) {
                let why = "it is about one process, and a successor gets its own; leave it to the restarter";
                return Err(Error::setting(format!("{name:?} cannot be set for a successor: {why}")));
            }
            environment.extend(value.as_ref().map(|value| variable(name, value)).transpose()?);
        }
        Ok(environment)
    }
}

/// Whether a variable is never handed down as it is, nor set by the program.
fn is_for_one_process(name: &OsStr) -> bool {
    FOR_ONE_PROCESS.iter().chain([&LIFELINE_VARIABLE, &BIRTH_VARIABLE]).any(|own| name == *own)
}

/// The form that an environment has.
pub(crate) fn variable(name: &OsStr, value: &OsStr) -> Result<CString, Error> {
    if name.is_empty() || name.as_bytes()[1..].contains(&b'=') {
        return Err(Error::setting(format!("{name:?} cannot be the name of an environment variable")));
    }
    let mut text = name.to_owned();
    text.push("=");
    text.push(value);
    c_string(text, "an environment variable")
}

fn c_string(text: OsString, what: &str) -> Result<CString, Error> {
    CString::new(text.into_vec()).map_err(|error| Error::setting(format!("{what} contains a NUL byte: {error}")))
}

/// The path by which this process was started, absolute. A relative one is believed only if it
/// leads to the file that runs: the directory may be another one by now. If no path is believed,
/// that of the file itself is taken, as long as it has one.
fn own_path(started: Option<&Path>) -> Option<PathBuf> {
    // What is no path of the file that runs names another one by now. An absolute one may: there stands a new release.
    let is_believed = |path: &&Path| (path.is_absolute() && sys::executed_path().as_deref() == Some(*path)) || is_this_program(path);
    let own_file = || env::current_exe().ok().filter(|path| is_this_program(path));
    let believed = started.filter(|path| !is_by_way_of_a_process(path)).filter(is_believed);
    let path = believed.map(Path::to_path_buf).or_else(own_file)?;
    absolute(&path).ok().map(|whole| followed(whole, &path))
}

/// The path by which this process was started, as it was given.
fn started_by() -> Option<PathBuf> {
    let name = || env::args_os().next().map(PathBuf::from);
    match sys::executed_path()? {
        // Executed again with the arguments of its interpreter, a script would have them doubled.
        script if is_interpreted(&script) => name().filter(|name| name.as_os_str().as_bytes().contains(&b'/')),
        // It means nothing to a successor. Who executes a descriptor (fexecve) says in the name
        // what that was opened by: the links on the way are in no other place.
        path if path.starts_with("/dev/fd") || path.starts_with("/proc") => name().filter(|name| name.is_absolute()),
        path => Some(path),
    }
}

/// The environment as it was when the program was executed: what the program has set since is kept elsewhere.
fn executed_environment() -> io::Result<Vec<(OsString, OsString)>> {
    let bytes = fs::read("/proc/self/environ")?;
    let entries = bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    // A name may begin with that character, as std has it.
    let split = |entry: &[u8]| entry.iter().skip(1).position(|byte| *byte == b'=').map(|at| at + 1);
    let variable = |entry: &[u8]| {
        let at = split(entry)?;
        Some((OsString::from_vec(entry[..at].to_vec()), OsString::from_vec(entry[at + 1..].to_vec())))
    };
    Ok(entries.filter_map(variable).collect())
}

/// The name by which a shell has entered the directory of now, links and all. What another process has left in the variable counts only if
/// it is that directory.
fn named_directory() -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("PWD")?);
    let here = sys::working_directory()?;
    let is_believed = path.is_absolute() && !is_by_way_of_a_process(&path) && !sys::has_gained_rights();
    Some(path).filter(|path| is_believed && sys::identity_behind(path) == Some(here))
}

/// Whether a path leads through what a process has: that is another place once this process has
/// changed its directory, or the other one has ended. Its own program stays.
fn is_by_way_of_a_process(path: &Path) -> bool {
    (path.starts_with("/proc") || path.starts_with("/dev/fd")) && path != Path::new("/proc/self/exe")
}

/// The absolute form of a relative path. It begins with the name by which the current directory was
/// entered, where that is known: if a `current` link in that name is switched, the path leads to
/// the new release.
fn followed(absolute: PathBuf, path: &Path) -> PathBuf {
    if path.is_absolute() { absolute } else { named_directory().map_or(absolute, |directory| directory.join(path)) }
}

/// The current directory, by a name that follows a `current` link if such a name is known: the one by
/// which a shell has entered the directory, or the beginning of the program's path. `None`: the
/// directory is gone, and no path leads to it.
fn own_directory(program: Option<&Path>) -> Option<PathBuf> {
    let here = env::current_dir().ok()?;
    let named = named_directory().filter(|named| *named != here);
    let program = program.filter(|program| !is_by_way_of_a_process(program));
    Some(named.or_else(|| beside(program?, &here)).unwrap_or(here))
}

/// The same directory on the way of the program: `/srv/current/bin/server` was started, and `/srv/current` leads to a directory that this
/// one is, or lies in.
fn beside(program: &Path, here: &Path) -> Option<PathBuf> {
    program.ancestors().skip(1).find_map(|ancestor| {
        let found = fs::canonicalize(ancestor).ok().filter(|found| found != ancestor)?;
        let below = here.strip_prefix(found).ok()?;
        Some(if below.as_os_str().is_empty() { ancestor.into() } else { ancestor.join(below) })
    })
}

/// Whether what is there is the very file that this process executes.
fn is_this_program(path: &Path) -> bool {
    sys::identity_behind(path).is_some_and(|found| Some(found) == sys::own_program())
}

/// Whether this process was started as the interpreter of that script: the kernel gives it the path
/// of the script as an argument. If not, the script is a new release of the program.
fn is_interpreted(path: &Path) -> bool {
    env::args_os().skip(1).any(|argument| argument == path) && is_script(path)
}

fn is_script(path: &Path) -> bool {
    // A path that names a descriptor leads to whatever the program has there by now: what is read of a pipe, its owner does not get.
    if !fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let mut head = [0; 2];
    // What has come there just now must not keep anybody waiting.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    file.is_ok_and(|mut file| file.read_exact(&mut head).is_ok()) && head == *b"#!"
}
