//! The service under test: that of the kit, which also holds connections and files, by name, and echoes on the connections: `PID LINE` for each line, as soon as it is whole.
//!
//! It holds `tcp/N` and `unix/N`, accepted, and what it is told to ([`Hold`]). The beginning of a line is state: it goes over in the blob `buffers`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::iter;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use pollflip::Event;

use crate::{copying, dialects, giving, taking};
use pollflip_kit::hub::Command;
use pollflip_kit::service::report::say;
use pollflip_kit::service::{self, Act, Capability, Core, Settings, Socket};
use serde::{Deserialize, Serialize};

/// The name of the socket on which unix connections are accepted.
pub const UNIX: &str = "service.sock";

/// How often the service looks around.
const TURN: Duration = Duration::from_millis(2);

pub use pollflip_kit::service::{HUB, NEXT, ROLE};

pollflip_kit::settings![Hold, Limit];

pub fn main() -> ExitCode {
    service::main_with(|_| Box::new(Holder::default()))
}

/// What it holds from the start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hold(pub Vec<Thing>);

#[derive(Debug, Serialize, Deserialize)]
pub enum Thing {
    File,
    LockedFile(Lock),
    /// Both ends.
    Pipe,
    Memfd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    Flock,
    Ofd,
    Posix,
}

/// How much of something this process may have.
#[derive(Debug, Serialize, Deserialize)]
pub enum Limit {
    /// Descriptors.
    Files(u64),
    /// Bytes of a file.
    FileSize(u64),
}

impl Limit {
    fn set(self) {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (resource, limit) = match self {
            Limit::Files(count) => (Resource::RLIMIT_NOFILE, count),
            Limit::FileSize(bytes) => (Resource::RLIMIT_FSIZE, bytes),
        };
        let (_, hard) = getrlimit(resource).expect("a limit");
        setrlimit(resource, limit, hard).expect("a lower limit");
    }
}

/// Locks the whole file, until it is closed everywhere or, if it is a lock of POSIX, once here.
fn lock(file: &File, kind: Lock) {
    use nix::fcntl::{FcntlArg, fcntl};
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as nix::libc::c_short,
        l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match kind {
        Lock::Flock => {
            let copy = file.try_clone().expect("a descriptor");
            // The guard would unlock it when it is dropped.
            nix::fcntl::Flock::lock(copy, nix::fcntl::FlockArg::LockExclusiveNonblock).map(std::mem::forget).map_err(|(_, error)| error)
        }
        Lock::Ofd => fcntl(file, FcntlArg::F_OFD_SETLK(&whole)).map(drop),
        Lock::Posix => fcntl(file, FcntlArg::F_SETLK(&whole)).map(drop),
    }
    .expect("a lock");
}

/// What it can be told to do besides.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Calls it off, with a reason. Whether there was one.
    Cancel(String),
    /// The names of all that it holds.
    Holds,
    /// Appends that to the memory file. What is in it then.
    Write(String),
    /// What is in a file.
    Read(String),
    /// The inode of a file.
    Inode(String),
    /// Writes into its pipe. What comes out of it.
    Pipe,
    /// Closes what has that name: the only one that is held, with a word for the other side.
    Close(String),
    /// Gives the same name ahead again, for another file, so often: "given".
    Again(usize),
    /// Says that all has gone ahead: "complete".
    Complete,
    /// Gives something more ahead: "given", or the error.
    GiveLate,
    /// For how many there is room ahead.
    Room,
    /// Gives nothing more ahead: "dropped".
    GiveNothingMore,
}

impl Command for Ask {}

/// Something that is held.
#[derive(Debug)]
pub struct Held {
    pub fd: Kind,
    /// The beginning of a line.
    pub buffer: Vec<u8>,
}

#[derive(Debug)]
pub enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    Other(File),
}

impl Kind {
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Kind::Tcp(stream) => stream.as_fd(),
            Kind::Unix(stream) => stream.as_fd(),
            Kind::Other(file) => file.as_fd(),
        }
    }
}

pub type Holdings = BTreeMap<String, Held>;

#[derive(Default)]
pub struct Holder {
    listeners: Option<(TcpListener, UnixListener)>,
    pub holdings: Holdings,
    /// What goes ahead of the state.
    pub copy: Option<copying::Copy>,
    accepted: usize,
    /// Nothing is touched that may be another's.
    frozen: bool,
    /// Wakes a thread that gives.
    go: Option<Sender<()>>,
}

impl Capability for Holder {
    fn born(&mut self, settings: &Settings) {
        if let Some(limit) = settings.get::<Limit>() {
            limit.set();
        }
    }

    fn before_build(&mut self, settings: &Settings) {
        if let Some(how) = settings.get() {
            dialects::successor(how);
        }
        if let Some(how) = settings.get() {
            dialects::predecessor(how);
        }
    }

    fn built(&mut self, core: &mut Core) -> Result<(), String> {
        let text = |error: pollflip::Error| error.to_string();
        let sockets = core.restarter().sockets();
        let tcp = sockets.tcp_listener("tcp", "127.0.0.1:0").map_err(text)?;
        self.listeners = Some((tcp, sockets.unix_listener("unix", service::directory().join(UNIX)).map_err(text)?));
        if core.restarter().generation() == 0 {
            self.hold_files(&core.settings);
        } else {
            taking::take(self, core)?;
        }
        self.accepted = self.holdings.len();
        Ok(())
    }

    fn sockets(&mut self, _: &mut Core) -> Option<Vec<Socket>> {
        Some(Vec::new())
    }

    fn address(&self) -> Option<String> {
        let (tcp, _) = self.listeners.as_ref()?;
        Some(tcp.local_addr().expect("an address").to_string())
    }

    fn patience(&self) -> Option<Duration> {
        Some(TURN)
    }

    fn wakes(&mut self, _: &mut Core) -> Result<bool, String> {
        if !self.frozen {
            self.accept();
            self.echo();
        }
        Ok(false)
    }

    fn event(&mut self, core: &mut Core, event: Event) -> Result<Option<Event>, String> {
        match event {
            Event::PrecopyRequested(precopy) => copying::begin(self, core, precopy),
            Event::PrecopyRoom => copying::go_on(self, core),
            Event::StateRequested(handover) => {
                self.frozen = true;
                let (sender, go) = channel();
                self.go = Some(sender);
                giving::give(self, core.settings.get().unwrap_or(giving::Give::All), handover, go);
                say("frozen");
            }
            Event::Failed(_) | Event::Resumed(_) => (self.frozen, self.copy) = (false, None),
            Event::HandedOff(_) => self.frozen = true,
            Event::Completed(_) => self.holdings.clear(),
            _ => {}
        }
        Ok(None)
    }

    fn perform(&mut self, core: &mut Core, act: &Act) -> Option<String> {
        Some(match act.other()? {
            Ask::Cancel(why) => core.restarter().cancel(&why).to_string(),
            Ask::Holds => self.holdings.keys().cloned().collect::<Vec<_>>().join(" "),
            Ask::Write(text) => self.file("memfd", |file| append(file, &text)),
            Ask::Read(name) => self.file(&name, contents),
            Ask::Inode(name) => self.file(&name, |file| Ok(std::os::unix::fs::MetadataExt::ino(&file.metadata()?).to_string())),
            Ask::Pipe => self.file("pipe/write", |mut file| file.write_all(b"through").map(|()| String::new())) + &self.pipe(),
            Ask::Close(name) => {
                let held = self.holdings.remove(&name).expect("it is held");
                copying::closed(self, &name, &held.fd);
                "closed".into()
            }
            ask => copying::obey(self, &ask).unwrap_or_else(|| "nothing goes ahead".into()),
        })
    }

    fn go_on(&mut self) {
        if let Some(go) = self.go.take() {
            // It may have given up.
            let _ = go.send(());
        }
    }
}

impl Holder {
    fn hold_files(&mut self, settings: &Settings) {
        let file = || {
            let file = File::options().create(true).truncate(true).read(true).write(true).open(service::directory().join("held"));
            file.expect("a file")
        };
        let Some(Hold(things)) = settings.get() else { return };
        for thing in things {
            match thing {
                Thing::File => self.hold("file", Kind::Other(file())),
                Thing::LockedFile(kind) => {
                    let file = file();
                    lock(&file, kind);
                    self.hold("file", Kind::Other(file));
                }
                Thing::Pipe => {
                    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
                    self.hold("pipe/read", Kind::Other(read.into()));
                    self.hold("pipe/write", Kind::Other(write.into()));
                }
                Thing::Memfd => self.hold("memfd", Kind::Other(memory())),
            }
        }
    }

    pub fn hold(&mut self, name: &str, fd: Kind) {
        self.holdings.insert(name.into(), Held { fd, buffer: Vec::new() });
    }

    fn file(&self, name: &str, with: impl FnOnce(&File) -> std::io::Result<String>) -> String {
        match self.holdings.get(name).map(|held| &held.fd) {
            Some(Kind::Other(file)) => with(file).unwrap_or_else(|error| format!("error: {error}")),
            _ => "no such file".into(),
        }
    }

    fn pipe(&self) -> String {
        let mut bytes = [0; 7];
        self.file("pipe/read", |mut file| file.read_exact(&mut bytes).map(|()| String::new())) + &String::from_utf8_lossy(&bytes)
    }

    fn accept(&mut self) {
        let Some((tcp, unix)) = &self.listeners else { return };
        let mut new: Vec<_> = iter::from_fn(|| tcp.accept().ok()).map(|(stream, _)| ("tcp", Kind::Tcp(stream))).collect();
        new.extend(iter::from_fn(|| unix.accept().ok()).map(|(stream, _)| ("unix", Kind::Unix(stream))));
        for (kind, stream) in new {
            self.accepted += 1;
            self.hold(&format!("{kind}/{}", self.accepted), stream);
        }
    }

    fn echo(&mut self) {
        let mut over = Vec::new();
        for (name, held) in &mut self.holdings {
            let goes_on = match &mut held.fd {
                Kind::Tcp(stream) => echo(stream, &mut held.buffer),
                Kind::Unix(stream) => echo(stream, &mut held.buffer),
                Kind::Other(_) => true,
            };
            if !goes_on {
                over.push(name.clone());
            }
        }
        for name in over {
            if let Some(held) = self.holdings.remove(&name) {
                copying::closed(self, &name, &held.fd);
            }
        }
    }
}

/// Whether the connection is still there.
fn echo(stream: &mut (impl Read + Write + Nonblocking), buffer: &mut Vec<u8>) -> bool {
    stream.nonblocking();
    let mut chunk = [0; 1024];
    match stream.read(&mut chunk) {
        Ok(0) => return false,
        Ok(length) => buffer.extend_from_slice(&chunk[..length]),
        Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
    while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = buffer.drain(..=end).collect();
        let answer = format!("{} {}", std::process::id(), String::from_utf8_lossy(&line));
        if stream.write_all(answer.as_bytes()).is_err() {
            return false;
        }
    }
    true
}

/// An accepted connection does not inherit it.
trait Nonblocking {
    fn nonblocking(&self);
}

impl Nonblocking for TcpStream {
    fn nonblocking(&self) {
        self.set_nonblocking(true).expect("a socket");
    }
}

impl Nonblocking for UnixStream {
    fn nonblocking(&self) {
        self.set_nonblocking(true).expect("a socket");
    }
}

/// A memory file of the program's own, which holds a word.
pub fn memory() -> File {
    let memory = memfd_create(c"own", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).expect("a memfd");
    let mut file = File::from(memory);
    file.write_all(b"word").expect("room");
    file
}

fn append(mut file: &File, text: &str) -> std::io::Result<String> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::End(0))?;
    file.write_all(text.as_bytes())?;
    contents(file)
}

pub fn contents(file: &File) -> std::io::Result<String> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
