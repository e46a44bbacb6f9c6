//! What the world takes this process for: whether somebody ends what is left of the service when this process ends.
//!
//! Knows: the parent of this process, and its PID namespace. Does not know: who asks.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process;

use nix::unistd::getppid;

use crate::error::Refusal;
use crate::sys;
use crate::systemd;

/// Programs that end, as PID 1, with the first process that they have started.
const INITS: [&str; 9] =
    ["tini", "tini-static", "docker-init", "podman-init", "dumb-init", "catatonit", "bwrap", "(sd-stubinit)", "my_init"];
/// Programs that end a container with the process that they have started, as its parent seen in a PID namespace that it shares.
const RUNTIMES: [&str; 2] = ["containerd-shim", "conmon"];

/// What is seen of the world.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::restarter) struct World {
    /// This process is PID 1.
    is_init: bool,
    /// The parent, if it is one that ends the service with this process.
    fatal_parent: Option<u32>,
    /// The service manager knows processes by other numbers.
    other_numbers: bool,
}

impl World {
    /// Looks at it. A successor is a child of its predecessor, or comes to the process that takes orphans in, and the process that systemd has
    /// started is gone: that tells nothing, and what held for the first generation holds for it. One that the first generation has not
    /// gone by, since the program `is_trusted` to know better, is seen in all.
    pub(in crate::restarter) fn look(is_first: bool, is_trusted: bool) -> World {
        if sys::is_simulated() {
            return World::default();
        }
        let fatal_parent = Some(getppid().as_raw() as u32).filter(|parent| is_first && is_fatal(*parent));
        let other_numbers = (is_first || is_trusted) && systemd::numbers_differ();
        World { is_init: process::id() == 1, fatal_parent, other_numbers }
    }

    /// Whether the service manager knows processes by other numbers.
    pub(in crate::restarter) fn has_other_numbers(&self) -> bool {
        self.other_numbers
    }

    /// Why no restart can be, unless the program knows better. Against the end of PID 1 nothing can be known.
    pub(super) fn refusal(&self, is_trusted: bool) -> Option<Refusal> {
        let init = self.is_init.then_some(Refusal::ContainerInit);
        let parent = self.fatal_parent.map(|parent| Refusal::ContainerMain { parent });
        let numbers = self.other_numbers.then_some(Refusal::OtherPidNamespace);
        init.or(parent.or(numbers).filter(|_| !is_trusted))
    }
}

/// Whether that parent ends the service with this process. Where it cannot be seen, it does not.
fn is_fatal(parent: u32) -> bool {
    if parent == 0 {
        return true;
    }
    if !sys::proc_is_ours() {
        return false;
    }
    // An orphan that init has taken in is none of those that it waits for.
    parent == 1 && is_one_of(parent, &INITS) && sys::is_first_child_of(parent) || is_one_of(parent, &RUNTIMES)
}

/// Whether a process has one of these names: that which the kernel shows, that of its file, or that by which it was called.
fn is_one_of(pid: u32, names: &[&str]) -> bool {
    let file_name = |path: &Path| Some(path.file_name()?.as_bytes().to_vec());
    let shown = fs::read(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_ascii_end().to_vec());
    let file = fs::read_link(format!("/proc/{pid}/exe")).ok().and_then(|path| file_name(&path));
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let called = line.split(|byte| *byte == 0).next().and_then(|name| file_name(Path::new(std::ffi::OsStr::from_bytes(name))));
    [shown, file, called].into_iter().flatten().any(|name| names.iter().any(|known| known.as_bytes() == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_service_is_refused_unless_the_program_knows_better() {
        let init = World { is_init: true, ..World::default() };
        let child = World { fatal_parent: Some(1), ..World::default() };
        let apart = World { other_numbers: true, ..World::default() };
        let both = World { fatal_parent: Some(0), other_numbers: true, is_init: false };
        assert_eq!(World::default().refusal(false), None);
        assert_eq!((init.refusal(false), init.refusal(true)), (Some(Refusal::ContainerInit), Some(Refusal::ContainerInit)));
        assert_eq!((child.refusal(false), child.refusal(true)), (Some(Refusal::ContainerMain { parent: 1 }), None));
        assert_eq!((apart.refusal(false), apart.refusal(true)), (Some(Refusal::OtherPidNamespace), None));
        assert_eq!((both.refusal(false), both.refusal(true)), (Some(Refusal::ContainerMain { parent: 0 }), None));
    }

    #[test]
    fn a_process_is_known_by_each_of_its_names() {
        let own = process::id();
        let file = std::env::current_exe().expect("a path").file_name().expect("a name").to_string_lossy().into_owned();
        assert!(is_one_of(own, &["tini", &file]));
        assert!(!is_one_of(own, &INITS) && !is_one_of(own, &RUNTIMES));
        assert!(!is_one_of(u32::MAX, &INITS), "one that cannot be seen");
    }
}
