//! The paths that belong to the service: the pid file, and what the predecessor had at another path.
//!
//! Knows: paths. Does not know: the loop, and whose the service is.

mod pid_file;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::process;

use crate::restart_coordination_socket::Server;

use pid_file::PidFile;

/// The paths, as far as they are kept.
#[derive(Debug)]
pub(super) struct OwnedPaths {
    pid_file: Option<PidFile>,
    /// The predecessor's, if it is another one: taken away when the service is this process's.
    retired_pid_file: Option<PidFile>,
    /// The predecessor's coordination socket, if this process has it elsewhere: the path goes at the same moment.
    retired_socket: Option<Server>,
}

impl OwnedPaths {
    pub(super) fn new(pid_file: Option<&Path>, predecessors_pid_file: Option<&Path>, retired_socket: Option<Server>) -> OwnedPaths {
        let retired = predecessors_pid_file.filter(|path| pid_file != Some(*path));
        OwnedPaths { pid_file: pid_file.map(PidFile::new), retired_pid_file: retired.map(PidFile::new), retired_socket }
    }

    /// The pid file's path, if it is fit to be handed down.
    pub(super) fn pid_file(&self) -> Option<&str> {
        self.pid_file.as_ref()?.as_text()
    }

    /// The service is this process's.
    pub(super) fn take(&mut self, predecessor: Option<u32>) {
        self.name(process::id());
        if let Some(file) = self.retired_pid_file.take()
            && self.pid_file.as_ref().is_none_or(|own| !file.is_the_same_as(own))
            && let Some(predecessor) = predecessor
        {
            file.remove_retired(predecessor);
        }
        if let Some(mut socket) = self.retired_socket.take() {
            socket.remove_retired_path();
        }
    }

    /// The pid file names that process.
    pub(super) fn name(&self, pid: u32) {
        if let Some(file) = &self.pid_file {
            file.write(pid);
        }
    }

    /// Nobody serves any more.
    pub(super) fn remove(&self) {
        if let Some(file) = &self.pid_file {
            file.remove();
        }
    }
}
