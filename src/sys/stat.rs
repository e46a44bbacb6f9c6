//! What `/proc` says of a process or of one of its threads, in one line.

use std::fs;
use std::io::{self, Read};

/// Flags of a thread, as the kernel shows them: it exits, which others of its process may survive; it writes a core dump, or a signal has
/// ended it, which none does.
const EXITING: u64 = 0x4;
const DUMPING: u64 = 0x200;
const SIGNALED: u64 = 0x400;

/// What is seen of a process, or of one of its threads.
pub(super) struct Stat {
    pub(super) is_zombie: bool,
    pub(super) parent: u32,
    /// Of processes.
    pub(super) group: u32,
    flags: u64,
    /// In ticks since the machine was started.
    pub(super) born: u64,
    /// As `wait` would tell it; 0 if this process may not see it.
    pub(super) status: i32,
}

impl Stat {
    /// Whether this thread ends, by itself or with all of its process.
    pub(super) fn is_exiting(&self) -> bool {
        self.flags & EXITING != 0
    }

    /// Whether its whole process has been ended.
    pub(super) fn is_killed(&self) -> bool {
        self.flags & (DUMPING | SIGNALED) != 0
    }
}

/// Longer than that file is: 52 numbers and a name.
const STAT: usize = 2048;

/// One look, which costs three calls of the system: a guard has to look often.
pub(super) fn look_at(path: &str) -> Option<Stat> {
    let mut text = [0; STAT];
    let mut file = fs::File::open(path).ok()?;
    let length = loop {
        match file.read(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.ok()?,
        }
    };
    let text = &text[..length];
    // The name comes before, with anything in it.
    let after = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = text[after..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    // By its number, which is 3 for the first after the name; each call takes those before it away.
    let mut next = 3;
    let mut field = |number: usize| {
        let field = fields.nth(number - next)?;
        next = number + 1;
        std::str::from_utf8(field).ok()
    };
    Some(Stat {
        is_zombie: field(3)? == "Z",
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        flags: field(9)?.parse().ok()?,
        born: field(22)?.parse().ok()?,
        status: field(52).and_then(|status| status.parse().ok()).unwrap_or(0),
    })
}
