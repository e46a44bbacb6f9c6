//! One who attacks a coordination socket: a process of its own, with as many descriptors as the kernel gives it. It does one thing with
//! all of its connections, says `holds N` when it has done it, and keeps at it until its standard input ends.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::confine::NOBODY;
use crate::service::ROLE;
use pollflip_kit::client::frame;

pub const STATUS: &str = r#"{"Request":"Status"}"#;
const RESTART: &str = r#"{"Request":"TryRestart"}"#;

/// One that runs; it is ended when it is dropped.
#[derive(Debug)]
pub struct Attacker {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Attacker {
    /// `how` is what [`opening`] knows; a `user` is what root becomes for it.
    pub fn start(path: &Path, how: &str, connections: usize, user: Option<u32>) -> Attacker {
        let mut command = Command::new("/proc/self/exe");
        command.env(ROLE, "attacker").args([path.as_os_str(), how.as_ref(), connections.to_string().as_ref()]);
        command.env("POLLFLIP_TEST_USER", user.map_or(String::new(), |user| user.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("an attacker");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        Attacker { child, input, output }
    }

    /// Waits until it is at it with all that it could get; returns how many that are.
    pub fn holds(&mut self) -> usize {
        let mut text = String::new();
        let mut byte = [0];
        while self.output.read_exact(&mut byte).is_ok() && byte != *b"\n" {
            text.push(byte[0] as char);
        }
        text.strip_prefix("holds ").and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("the attacker said {text:?}"))
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.input = None;
        // It ends with its input; if it does not, it is ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("a path"));
    let how = arguments.next().expect("a way");
    let count: usize = arguments.next().and_then(|text| text.parse().ok()).expect("a number");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the hard limit");
    if std::env::var("POLLFLIP_TEST_USER").is_ok_and(|user| !user.is_empty()) {
        nix::unistd::setuid(NOBODY.into()).expect("another user");
    }
    static OVER: AtomicBool = AtomicBool::new(false);
    let attack = thread::spawn(move || {
        let mut held: Vec<_> = (0..count).filter_map(|number| connect(&path, &how, number)).collect();
        println!("holds {}", held.len());
        // Whoever is thrown out comes back at once.
        while !OVER.load(Ordering::Relaxed) {
            let mut idle = true;
            for (number, stream) in held.iter_mut().enumerate() {
                if !goes_on(stream, &how)
                    && let Some(new) = connect(&path, &how, number)
                {
                    *stream = new;
                    idle = false;
                }
            }
            if idle {
                // Nothing that it could wait for: it looks at all of them again.
                thread::park_timeout(Duration::from_millis(20));
            }
        }
    });
    // Until the test is over.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    OVER.store(true, Ordering::Relaxed);
    attack.join().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// A connection on which the first thing is said; none if the service does not take more.
fn connect(path: &Path, how: &str, number: usize) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(path).ok()?;
    stream.set_nonblocking(true).ok()?;
    // Refused already, perhaps.
    let _ = stream.write(&opening(how, number));
    Some(stream)
}

/// What a connection begins with.
fn opening(how: &str, number: usize) -> Vec<u8> {
    match how {
        "silence" | "crowd" => Vec::new(),
        "drip" => vec![0, 0, 0xff, 0xff],
        // A length alone, half a length, all of a long frame but its last byte.
        "halves" => match number % 3 {
            0 => vec![0, 0, 0, 24],
            1 => vec![0, 0],
            _ => frame(&" ".repeat(65_536))[..65_539].to_vec(),
        },
        "lengths" => [&u32::MAX.to_be_bytes()[..], b"0123456789"].concat(),
        "depth" => frame(&"[".repeat(60_000)),
        "deaf" => frame(STATUS).repeat(2_000),
        "requests" => frame(RESTART),
        other => panic!("no such way: {other}"),
    }
}

/// Goes on with one connection; `false`: it is over.
fn goes_on(stream: &mut UnixStream, how: &str) -> bool {
    let would_block = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    match how {
        // It came to be many, and does not come back.
        "crowd" => true,
        // One byte of a frame that never ends.
        "drip" => stream.write(b" ").map_or_else(|error| would_block(&error), |_| true),
        // It never reads, and sends as long as anything goes in.
        "deaf" => stream.write(&frame(STATUS)).map_or_else(|error| would_block(&error), |_| true),
        "requests" => {
            let mut answer = [0; 1024];
            match stream.read(&mut answer) {
                Ok(0) => false,
                Ok(_) => stream.write(&frame(RESTART)).is_ok(),
                Err(error) => would_block(&error),
            }
        }
        _ => match stream.read(&mut [0; 1024]) {
            Ok(count) => count > 0,
            Err(error) => would_block(&error),
        },
    }
}
