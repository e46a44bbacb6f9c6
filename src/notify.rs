//! What a service and the process that watches over it tell each other: the messages of sd_notify,
//! and what a guard tells in the environment of the next start.
//!
//! Knows: the protocol's words. Does not know: sockets, who may say what, and what comes of it.
//! Nothing is kept of a message, and nothing is allocated for it: a message may be anything, and
//! there may be any number of them.

use std::time::Duration;

use crate::error::Exit;
use crate::machine::supervision::Notification;

/// The longest message that is taken in, as with systemd.
pub const MAX_MESSAGE: usize = 4096;

/// The words that a guard does not pass on to a manager above it. They name processes that only the
/// guard watches, or go with a descriptor that only the guard gets. The guard says STOPPING itself,
/// when the whole service stops.
const OURS: [&str; 10] =
    ["MAINPID", "MAINPIDFD", "MAINPIDFDID", "BARRIER", "FDSTORE", "FDSTOREREMOVE", "FDNAME", "FDPOLL", "STOPPING", ABSOLVED];

/// Says that the end of the main process before is no strike. Only a guard knows this word.
const ABSOLVED: &str = "X_POLLFLIP_ABSOLVED";

/// How many descriptors the manager stores for the service, in the environment: a guard's, and that
/// of systemd from version 254 on.
pub const STORE_SIZE: &str = "FDSTORE";
/// How the main process before has ended, in the environment of the next start; as
/// [`end_as_text`] has it.
pub const LAST_END: &str = "POLLFLIP_LAST_END";
/// How many strikes there are by now, the last end included; beside [`LAST_END`].
pub const STRIKES: &str = "POLLFLIP_STRIKES";

/// The name that systemd gives to a descriptor that is stored without a fit one.
pub const UNNAMED: &str = "stored";
/// The longest name of a stored descriptor.
pub const MAX_FDNAME: usize = 255;

/// What a message wants done with the descriptors that a manager stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Those that come with the message are stored.
    Store {
        /// Under this name.
        name: &'a str,
        /// Until they hang up; otherwise for as long as the service is.
        watched: bool,
    },
    /// All of this name are closed.
    Remove {
        /// The name.
        name: &'a str,
    },
}

/// Has the descriptors that come with it stored under a fit name.
pub fn to_store(name: &str, watched: bool) -> String {
    format!("FDSTORE=1\nFDNAME={name}\n{}", if watched { "" } else { "FDPOLL=0\n" })
}

/// Has all that is stored under a name closed.
pub fn to_remove(name: &str) -> String {
    format!("FDSTOREREMOVE=1\nFDNAME={name}\n")
}

/// Says that the end of the main process before is no strike.
pub fn to_absolve() -> String {
    format!("{ABSOLVED}=1\n")
}

/// Whether LISTEN_FDNAMES can have such a name in it.
pub fn is_fit_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_FDNAME && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b':')
}

/// An end as [`LAST_END`] tells it.
pub fn end_as_text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit:{code}"),
        Exit::Signal(signal) => format!("signal:{signal}"),
        Exit::OutOfMemory => "memory".into(),
        Exit::NotReady => "not-ready".into(),
        Exit::Unknown => "unknown".into(),
    }
}

/// The end that a text tells; `None`: none.
pub fn end_of_text(text: &str) -> Option<Exit> {
    match text {
        "memory" => return Some(Exit::OutOfMemory),
        "not-ready" => return Some(Exit::NotReady),
        "unknown" => return Some(Exit::Unknown),
        _ => {}
    }
    let (how, number) = text.split_once(':')?;
    let number = number_below(number, 256)?;
    match how {
        "exit" => Some(Exit::Code(number)),
        "signal" if number > 0 => Some(Exit::Signal(number)),
        _ => None,
    }
}

fn number_below(text: &str, limit: u64) -> Option<i32> {
    number(text).filter(|number| *number < limit).map(|number| number as i32)
}

/// One message, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    text: &'a str,
}

impl<'a> Message<'a> {
    /// `None`: it is no text, has a NUL byte within, or is too long, and means nothing.
    pub fn new(bytes: &'a [u8]) -> Option<Message<'a>> {
        // C programs send the end of their string too.
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        if bytes.len() > MAX_MESSAGE || bytes.contains(&0) {
            return None;
        }
        std::str::from_utf8(bytes).ok().map(|text| Message { text })
    }

    /// What it tells. MAINPID is what the message says: whose number that is must be looked at.
    pub fn notification(&self) -> Notification {
        Notification {
            has_heard: false,
            main: self.value("MAINPID").and_then(number).filter(|pid| *pid > 0 && *pid <= i32::MAX as u64).map(|pid| pid as u32),
            ready: self.says("READY"),
            reloading: self.says("RELOADING"),
            stopping: self.says("STOPPING"),
            extend: self.value("EXTEND_TIMEOUT_USEC").and_then(number).map(Duration::from_micros),
            absolved: self.says(ABSOLVED),
        }
    }

    /// What it wants of the store, if that is anything. As with systemd, one that removes stores
    /// nothing.
    pub fn wish(&self) -> Option<Wish<'a>> {
        let name = self.value("FDNAME").filter(|name| is_fit_name(name));
        if self.says("FDSTOREREMOVE") {
            return name.map(|name| Wish::Remove { name });
        }
        let watched = self.value("FDPOLL") != Some("0");
        self.says("FDSTORE").then_some(Wish::Store { name: name.unwrap_or(UNNAMED), watched })
    }

    /// Whether the sender waits until this and all before it has been taken in: the descriptor that
    /// comes with it is closed then.
    pub fn is_barrier(&self) -> bool {
        self.says("BARRIER")
    }

    /// The lines that concern a manager above the guard.
    pub fn lines_for_manager(&self) -> impl Iterator<Item = &'a str> {
        self.lines().filter(|(name, _, _)| !OURS.contains(name)).map(|(_, _, line)| line)
    }

    fn says(&self, name: &str) -> bool {
        self.value(name) == Some("1")
    }

    /// The first value of that name.
    fn value(&self, name: &str) -> Option<&'a str> {
        self.lines().find(|(found, _, _)| *found == name).map(|(_, value, _)| value)
    }

    /// Name, value and both.
    fn lines(&self) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        self.text.split('\n').filter_map(|line| line.split_once('=').map(|(name, value)| (name, value, line)))
    }
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Notification {
        Message::new(text.as_bytes()).expect("a text").notification()
    }

    #[test]
    fn what_this_crate_sends_is_understood() {
        let restart = told("RELOADING=1\nMONOTONIC_USEC=17\nEXTEND_TIMEOUT_USEC=40000000\nSTATUS=restarting\n");
        let expected = Notification { reloading: true, extend: Some(Duration::from_secs(40)), ..Notification::default() };
        assert_eq!(restart, expected);
        let handed_over = told("MAINPID=812\nREADY=1\nSTATUS=\n");
        assert_eq!(handed_over, Notification { main: Some(812), ready: true, ..Notification::default() });
        assert!(told("STOPPING=1\n").stopping);
        assert!(Message::new(b"BARRIER=1").is_some_and(|message| message.is_barrier()));
    }

    #[test]
    fn numbers_are_digits_of_a_process() {
        for nonsense in ["", "0", "-1", "+5", " 5", "5 ", "0x5", "2147483648", "99999999999999999999", "5\r"] {
            assert_eq!(told(&format!("MAINPID={nonsense}")).main, None, "{nonsense:?}");
        }
        assert_eq!(told("MAINPID=2147483647").main, Some(i32::MAX as u32));
        assert_eq!(told("MAINPID=5\nMAINPID=6").main, Some(5), "the first counts, as with systemd");
        assert_eq!(told("EXTEND_TIMEOUT_USEC=18446744073709551615").extend, Some(Duration::from_micros(u64::MAX)));
    }

    #[test]
    fn wishes_are_those_of_systemd() {
        let wish = |text: &'static str| Message::new(text.as_bytes()).expect("a text").wish();
        let store = |name, watched| Some(Wish::Store { name, watched });
        assert_eq!(wish("FDSTORE=1"), store("stored", true));
        assert_eq!(wish("FDSTORE=1\nFDNAME=web\nFDPOLL=0"), store("web", false));
        for unfit in ["", "a:b", "\u{e4}", "tab\t"] {
            assert_eq!(Message::new(format!("FDNAME={unfit}\nFDSTORE=1").as_bytes()).unwrap().wish(), store("stored", true), "{unfit:?}");
        }
        assert!(is_fit_name(&"x".repeat(255)) && !is_fit_name(&"x".repeat(256)));
        assert_eq!(wish("FDSTOREREMOVE=1\nFDNAME=web\nFDSTORE=1"), Some(Wish::Remove { name: "web" }));
        for nothing in ["FDSTOREREMOVE=1", "FDSTOREREMOVE=1\nFDNAME=a:b", "FDNAME=web", "FDSTORE=2", "FDPOLL=0"] {
            assert_eq!(wish(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn what_this_crate_asks_of_a_store_is_understood() {
        let understood = |text: &str| format!("{:?}", Message::new(text.as_bytes()).expect("a text").wish());
        assert_eq!(understood(&to_store("a", true)), "Some(Store { name: \"a\", watched: true })");
        assert_eq!(understood(&to_store("a", false)), "Some(Store { name: \"a\", watched: false })");
        assert_eq!(understood(&to_remove("a")), "Some(Remove { name: \"a\" })");
        assert!(told(&to_absolve()).absolved);
    }

    #[test]
    fn an_end_is_read_as_it_is_written() {
        for exit in [Exit::Code(0), Exit::Code(255), Exit::Signal(9), Exit::Signal(64), Exit::OutOfMemory, Exit::NotReady, Exit::Unknown] {
            assert_eq!(end_of_text(&end_as_text(exit)), Some(exit));
        }
        for nonsense in ["", "exit", "exit:", "exit:-1", "exit:256", "signal:0", "signal:999", "died:1", "memory:1"] {
            assert_eq!(end_of_text(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn garbage_means_nothing() {
        for garbage in [&b"READY=1\0STATUS=x"[..], b"\xff\xfe", &[b'x'; MAX_MESSAGE + 1]] {
            assert!(Message::new(garbage).is_none());
        }
        for nothing in ["", "\n\n", "=", "READY", "READY=2", "ready=1", "READY=1 ", " READY=1", "XREADY=1"] {
            assert_eq!(told(nothing), Notification::default(), "{nothing:?}");
        }
        assert!(Message::new(b"READY=1\0").is_some_and(|message| message.notification().ready));
    }

    #[test]
    fn a_manager_above_hears_what_concerns_it() {
        let message = "READY=1\nMAINPID=5\nFDSTORE=1\nFDNAME=x\nSTATUS=a=b\nSTOPPING=1\nERRNO=2\nWATCHDOG=1\nno line\nX_OWN=1\n";
        let message = Message::new(message.as_bytes()).expect("a text");
        let lines: Vec<_> = message.lines_for_manager().collect();
        assert_eq!(lines, ["READY=1", "STATUS=a=b", "ERRNO=2", "WATCHDOG=1", "X_OWN=1"]);
    }
}
