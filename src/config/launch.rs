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
use crate::wire::{FileId, LIFELINE_VARIABLE};

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
}

impl Launch {
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
}

impl RestartConfig {
    /// What a successor is started as, with the path, environment and directory of now. In a
    /// process that has gained rights, its caller may have chosen these, and none of them is taken.
    pub(crate) fn launch(&self) -> Result<Launch, Error> {
        let program = match self.program_to_start()? {
            Ok(path) => Ok(self.called(path)?),
            Err(refusal) => Err(refusal),
        };
        let directory = match &self.directory {
            Some(directory) => Some(settled(directory, "the directory to start in")?),
            None if sys::has_gained_rights() => Some("/".into()),
            // A directory that is gone cannot be gone back to.
            None => env::current_dir().ok(),
        };
        let stays = self.directory.is_none() && !sys::has_gained_rights();
        Ok(Launch {
            program,
            environment: self.environment_to_start()?,
            directory: directory.map(|path| c_string(path.into_os_string(), "the directory")).transpose()?,
            own_directory: if stays { sys::working_directory() } else { None },
            mask: SigSet::thread_get_mask().map_err(|error| Error::os("cannot read the signal mask")(error.into()))?,
        })
    }

    /// The path of the program, or why none can be believed: in a process that has gained rights
    /// not even that of the file that runs, which may be a hard link of its caller's.
    fn program_to_start(&self) -> Result<Result<PathBuf, Refusal>, Error> {
        Ok(match &self.program {
            Some(path) if path.is_relative() && sys::has_gained_rights() => Err(Refusal::Privileged),
            Some(path) => Ok(absolute(path)?),
            None if sys::has_gained_rights() => Err(Refusal::Privileged),
            None => own_path().ok_or(Refusal::UnknownProgram),
        })
    }

    /// With its name and arguments.
    fn called(&self, path: PathBuf) -> Result<Program, Error> {
        let mut arguments = env::args_os();
        let name = arguments.next().filter(|_| self.program.is_none()).unwrap_or_else(|| path.clone().into());
        let rest = self.arguments.clone().unwrap_or_else(|| arguments.collect());
        Ok(Program {
            executable: c_string(path.clone().into_os_string(), "the program")?,
            arguments: [name].into_iter().chain(rest).map(|text| c_string(text, "an argument")).collect::<Result<_, _>>()?,
            path,
        })
    }

    fn environment_to_start(&self) -> Result<Vec<CString>, Error> {
        let inherited = if sys::has_gained_rights() { systemd::handed_down() } else { env::vars_os().collect() };
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
    FOR_ONE_PROCESS.iter().chain([&LIFELINE_VARIABLE]).any(|own| name == *own)
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
fn own_path() -> Option<PathBuf> {
    let name = || env::args_os().next().map(PathBuf::from);
    let path = match sys::executed_path() {
        // Executed again with the arguments of its interpreter, a script would have them doubled.
        Some(script) if is_interpreted(&script) => {
            name().filter(|name| name.as_os_str().as_bytes().contains(&b'/') && is_this_program(name))
        }
        // It means nothing to a successor. Who executes a descriptor (fexecve) says in the name
        // what that was opened by: the links on the way are in no other place.
        Some(path) if path.starts_with("/dev/fd") || path.starts_with("/proc") => {
            name().filter(|name| name.is_absolute() && is_this_program(name))
        }
        Some(path) => Some(path).filter(|path| path.is_absolute() || is_this_program(path)),
        None => None,
    };
    let own_file = || env::current_exe().ok().filter(|path| is_this_program(path));
    path.or_else(own_file).and_then(|path| absolute(&path).ok())
}

/// Whether what is there is the very file that this process executes.
fn is_this_program(path: &Path) -> bool {
    sys::identity_behind(path).is_some_and(|found| Some(found) == sys::identity_behind(Path::new("/proc/self/exe")))
}

/// Whether this process was started as the interpreter of that script: the kernel gives it the path
/// of the script as an argument. If not, the script is a new release of the program.
fn is_interpreted(path: &Path) -> bool {
    is_script(path) && env::args_os().skip(1).any(|argument| argument == path)
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
