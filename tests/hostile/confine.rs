//! What a thread can give up.

use std::path::PathBuf;
use std::sync::Once;

use nix::libc;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter, apply_filter_all_threads};

use pollflip_kit::service::Setting;
use pollflip_kit::service::report::say;
use serde::{Deserialize, Serialize};

pollflip_kit::settings![Deny];

/// The user that a service becomes.
pub const NOBODY: u32 = 12345;

/// What the service gives up once its restarter is built, in its loop and in a thread beside that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Confine {
    /// No process can be made and no program executed by this thread.
    Seccomp,
    /// The same for all threads.
    Tsync,
    Capabilities,
    /// It becomes [`NOBODY`].
    Setuid,
    /// A call, of all threads.
    Denied(Deny),
    /// Of a program that is setuid: nobody can see from then on that it was started by another user.
    Root,
    /// No timer can be set by this thread.
    Timer,
    /// As one who is root in effect alone, on a kernel that cannot be asked what that one may.
    Before5_8,
    Chroot(PathBuf),
}

impl Setting for Confine {
    fn becomes_another(&self) -> bool {
        matches!(self, Confine::Setuid)
    }
}

impl Confine {
    /// Gives that up in this thread; some of it reaches all others too.
    pub fn this_thread(&self) {
        match self {
            Confine::Seccomp => apply_filter(&no_processes()).expect("a filter"),
            Confine::Tsync => apply_filter_all_threads(&no_processes()).expect("a filter for all threads"),
            Confine::Capabilities => {
                drop_capabilities();
                nix::sys::prctl::set_no_new_privs().expect("no new privileges");
            }
            Confine::Setuid => become_nobody(),
            Confine::Denied(denied) => denied.apply(),
            Confine::Root => {
                setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).expect("another group");
                setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).expect("another user");
            }
            Confine::Timer => {
                let program = filter([libc::SYS_timerfd_settime], SeccompAction::Allow, SeccompAction::Errno(libc::ENOMEM as u32));
                apply_filter(&program).expect("a filter");
            }
            Confine::Before5_8 => {
                let program = filter([libc::SYS_faccessat2], SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32));
                apply_filter_all_threads(&program).expect("a filter for all threads");
                setresuid(Uid::from_raw(NOBODY), Uid::from_raw(0), Uid::from_raw(0)).expect("another real user");
            }
            Confine::Chroot(root) => {
                // Once for all threads; whoever comes second is there already.
                if nix::unistd::chroot(root).is_ok() {
                    std::env::set_current_dir("/").expect("the new root");
                }
            }
        }
        say(&format!("confined {self:?}"));
    }
}

/// A system call, by its name, and the error that it gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deny(pub String, pub i32);

impl Deny {
    /// To all threads, and to all that is started from here on.
    pub fn apply(&self) {
        let Deny(call, error) = self;
        #[cfg(target_pointer_width = "64")]
        let number = crate::listed::number(call).expect("a call of this machine");
        #[cfg(not(target_pointer_width = "64"))]
        let number = panic!("no calls are known by name here: {call}");
        let program = filter([number], SeccompAction::Allow, SeccompAction::Errno(*error as u32));
        apply_filter_all_threads(&program).expect("a filter for all threads");
    }
}

/// Denies what makes processes and executes programs.
fn no_processes() -> BpfProgram {
    let denied = [libc::SYS_execve, libc::SYS_execveat, libc::SYS_clone, libc::SYS_clone3];
    // Later machines never had them.
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    let older = [libc::SYS_fork, libc::SYS_vfork];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
    let older = [];
    filter(denied.into_iter().chain(older), SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

/// The calls of the list get `listed`, all others `otherwise`.
#[allow(clippy::useless_conversion, reason = "narrower on 32-bit machines")]
pub fn filter(calls: impl IntoIterator<Item = libc::c_long>, otherwise: SeccompAction, listed: SeccompAction) -> BpfProgram {
    let rules = calls.into_iter().map(|call| (i64::from(call), Vec::new())).collect();
    let machine = std::env::consts::ARCH.try_into().expect("a machine that has filters");
    SeccompFilter::new(rules, otherwise, listed, machine).and_then(TryInto::try_into).expect("a program")
}

/// The C library's calls, as programs make them: they reach all threads.
pub fn become_nobody() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A successor is nobody from birth.
        if Uid::effective().is_root() {
            let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            setgroups(&[]).expect("no groups");
            setresgid(group, group, group).expect("another group");
            setresuid(user, user, user).expect("another user");
        }
    });
}

/// Of this thread alone: the C library knows nothing of it.
#[allow(unsafe_code, reason = "nix has no capset")]
fn drop_capabilities() {
    /// _LINUX_CAPABILITY_VERSION_3
    const VERSION: u32 = 0x2008_0522;
    let header = [VERSION, 0];
    let none = [0u32; 6];
    // SAFETY: the kernel reads a header of two numbers and two sets of three, which is what it is given.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(result, 0, "capset: {}", std::io::Error::last_os_error());
}
