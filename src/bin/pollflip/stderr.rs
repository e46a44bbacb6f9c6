//! Lines for people, on a standard error that may be gone: `eprintln!` panics then.

use std::fmt::{self, Arguments, Write as _};
use std::io::{self, Write as _};

/// The longest line. What is longer is cut off.
const LONGEST: usize = 1024;

/// One line, written at once and without allocating.
pub(crate) fn line(text: Arguments<'_>) {
    let mut line = Line { bytes: [0; LONGEST], length: 0 };
    // It is cut off where it is full.
    let _ = line.write_fmt(text);
    let end = line.length.min(LONGEST - 1);
    line.bytes[end] = b'\n';
    let _ = io::stderr().write_all(&line.bytes[..=end]);
}

struct Line {
    bytes: [u8; LONGEST],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let part = &text.as_bytes()[..text.len().min(LONGEST - self.length)];
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
        if part.len() < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// What the library logs, from warnings on; all of it with `POLLFLIP_LOG=info`.
pub(crate) fn log_to_stderr() {
    static STDERR: Stderr = Stderr;
    let level = match std::env::var("POLLFLIP_LOG").as_deref() {
        Ok("info") => log::LevelFilter::Info,
        Ok("debug") => log::LevelFilter::Debug,
        _ => log::LevelFilter::Warn,
    };
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(level);
    }
}

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        line(format_args!("pollflip guard: {}", record.args()));
    }

    fn flush(&self) {}
}
