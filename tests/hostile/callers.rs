//! A program that has more rights than its caller, and a caller who means no good: a copy of this
//! binary that is setuid, setgid or has capabilities, started by a user without rights, from a
//! directory and with an environment and a name of that user's choice.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::is_root;
use crate::service::{HUB, KeepVariables, ROLE};
use pollflip_kit::harness::{Service, Setup, install_copy};
use pollflip_kit::service::{Log, directory};
use serde::{Deserialize, Serialize};

/// The user who starts the program.
pub const CALLER: u32 = 23456;
/// The group of one that is setgid.
const GROUP: u32 = 34567;
/// What the caller does: a list of [`Wish`]es.
const WISHES: &str = "POLLFLIP_TEST_WISHES";

/// How the caller starts the program. The last of a kind counts.
#[derive(Debug, Serialize, Deserialize)]
pub enum Wish {
    /// What is executed.
    Path(PathBuf),
    /// What it is called.
    Name(PathBuf),
    /// Where.
    Directory(PathBuf),
    /// The caller passes a listener of its own, at 3.
    Listens,
    /// As systemd would, with so many listeners that are there.
    Systemd(usize),
    /// With so many listeners that are said to be there for nobody in particular.
    Unaddressed(usize),
}

/// What the program has and its caller has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// It is setuid, and root's.
    User,
    Group,
    Capabilities,
    /// Nothing: any other program.
    None,
}

/// More than its caller.
pub const MORE: [Rights; 3] = [Rights::User, Rights::Group, Rights::Capabilities];

/// How the program is started.
#[derive(Debug)]
pub struct Call {
    setup: Setup,
    wishes: Vec<Wish>,
}

impl Call {
    /// `None`: that cannot be had here, which is said aloud.
    pub fn new(test: &str, rights: Rights) -> Option<Call> {
        if !is_root(test) {
            return None;
        }
        let setup = Setup::new();
        let flags = statvfs(&setup.path(".")).expect("a file system").flags();
        if flags.contains(FsFlags::ST_NOSUID) || nix::sys::prctl::get_no_new_privs() != Ok(false) {
            eprintln!("skipped {test}: no program has more rights than its caller here (nosuid, or no_new_privs)");
            return None;
        }
        // The directory of the test is the caller's, but for what the program is in.
        chown(setup.path("."), Some(CALLER), Some(CALLER)).expect("another owner");
        fs::create_dir(setup.path("root")).expect("a directory");
        let program = setup.path("root/server");
        install_copy(&program);
        if let Err(error) = grant(&program, rights) {
            eprintln!("skipped {test}: {rights:?} cannot be given to a file here: {error}");
            return None;
        }
        // A successor gets nothing of the environment but what is set for it.
        let setup = setup.set(KeepVariables).set(Log::Told);
        Some(Call { wishes: vec![Wish::Path(program)], setup })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.setup.path(name)
    }

    /// Where the program is that has the rights.
    pub fn program(&self) -> PathBuf {
        self.path("root/server")
    }

    pub fn with(self, change: impl FnOnce(Setup) -> Setup) -> Call {
        Call { setup: change(self.setup), ..self }
    }

    pub fn wish(mut self, wish: Wish) -> Call {
        self.wishes.push(wish);
        self
    }

    pub fn launch(self) -> Service {
        let wishes = serde_json::to_string(&self.wishes).expect("text");
        self.setup.env(ROLE, "caller").env(WISHES, wishes).launch()
    }

    pub fn start(self) -> Service {
        let service = self.launch();
        service.first().says("serving");
        service
    }
}

fn grant(program: &Path, rights: Rights) -> std::io::Result<()> {
    match rights {
        Rights::User => fs::set_permissions(program, fs::Permissions::from_mode(0o4755)),
        Rights::Group => {
            chown(program, None, Some(GROUP))?;
            fs::set_permissions(program, fs::Permissions::from_mode(0o2755))
        }
        // To bind ports below 1024.
        Rights::Capabilities => give_capabilities(program, &[10]),
        Rights::None => Ok(()),
    }
}

/// Gives the program these capabilities, in effect from the moment on at which it is executed, and no others.
#[allow(unsafe_code, reason = "std has no extended attributes")]
pub fn give_capabilities(program: &Path, capabilities: &[u32]) -> std::io::Result<()> {
    /// VFS_CAP_REVISION_2 and VFS_CAP_FLAGS_EFFECTIVE.
    const HEADER: u32 = 0x0200_0001;
    let permitted = capabilities.iter().fold(0u32, |all, one| all | 1 << one);
    // What is permitted and what can be inherited, in two halves.
    let value: Vec<u8> = [HEADER, permitted, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    let path = std::ffi::CString::new(program.as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: both names end with a NUL byte, and the kernel reads as many bytes of the value as it
    // has.
    let result = unsafe { libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The caller: root in the beginning, who lets everybody into the hub.
pub fn main() -> ExitCode {
    let wishes: Vec<Wish> = serde_json::from_str(&std::env::var(WISHES).expect("wishes")).expect("wishes");
    let hub = directory().join(HUB);
    fs::set_permissions(hub, fs::Permissions::from_mode(0o666)).expect("a mode");
    let (user, group) = (Uid::from_raw(CALLER), Gid::from_raw(CALLER));
    setgroups(&[]).expect("no groups");
    setresgid(group, group, group).expect("another group");
    setresuid(user, user, user).expect("another user");

    let path = wishes.iter().rev().find_map(|wish| if let Wish::Path(path) = wish { Some(path) } else { None }).expect("a program");
    let mut command = Command::new(path);
    command.env(ROLE, "service").env_remove(WISHES).args(["--port", "a b"]).current_dir("/");
    // Held until the program is executed.
    let mut listener = None;
    for wish in &wishes {
        match wish {
            Wish::Path(_) => {}
            Wish::Name(name) => _ = command.arg0(name),
            Wish::Directory(path) => _ = command.current_dir(path),
            Wish::Listens => listener = Some(listen_at_3()),
            Wish::Systemd(count) => {
                let pid = process::id().to_string();
                command.env("SYSTEMD_EXEC_PID", &pid).env("LISTEN_PID", &pid);
                command.env("LISTEN_FDS", count.to_string()).env("LISTEN_FDNAMES", vec!["web"; *count].join(":"));
            }
            Wish::Unaddressed(count) => {
                command.env_remove("LISTEN_PID").env("LISTEN_FDS", count.to_string()).env("LISTEN_FDNAMES", "web");
            }
        }
    }
    let error = command.exec();
    drop(listener);
    panic!("cannot execute {}: {error}", path.display());
}

fn listen_at_3() -> TcpListener {
    let _ = nix::unistd::close(3);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    assert_eq!(listener.as_raw_fd(), 3);
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).expect("a descriptor");
    listener
}
