//! Messages to bytes and back: what goes over the lifeline, and what goes over the coordination socket.
//!
//! Knows: the shape of the messages and how large they may be, and how a lifeline is named in the environment. Does not know: sockets, processes, time.
//!
//! **Lifeline.** One JSON object a packet, told apart by `"type"`; descriptors travel beside it, in the order in which the message
//! labels them. A message of a type that this version does not know is [`Message::Unknown`], unknown fields are skipped, and the
//! descriptors of a label that it does not know are closed: two versions of this crate can talk as long as [`serves`] says so.
//! Names that come by the thousand are a packet of another form, [`Message::Items`]: a list of [`Op`]s, whose first byte is 0x01.
//!
//! **Coordination socket.** Frames of a 4-byte big-endian length and JSON, the wire of shellflip 2: a [`Frames`] cuts them out of a stream.

mod coordination;
mod message;
mod packed;
mod status;

use std::fmt;

use nojson::{DisplayJson, JsonFormatter, JsonParseError, RawJson, RawJsonValue};

pub use coordination::{Coordination, Frames, MAX_FRAME, Request, Response};
pub use message::{Given, Hello, Message};
pub use packed::{Op, OpKind, Packed};
pub use status::{Outcome, ServiceState, Status};

/// The version of the lifeline's protocol that this crate speaks.
pub const VERSION: u32 = 2;
/// The oldest version of the other side that it can still serve.
pub const OLDEST: u32 = 2;
/// The largest packet on a lifeline, in bytes.
pub const MAX_PACKET: usize = 64 * 1024;
/// The most descriptors that the kernel lets go with one packet.
pub const MAX_DESCRIPTORS: usize = 253;
/// The longest name of a socket, a descriptor or a blob, in bytes. As many long ones as a packet takes
/// descriptors do not fit into one: see [`Packed::push`].
pub const MAX_NAME: usize = 255;
/// The length in bytes at which a text (a reason, a line of progress) is cut, behind a whole character.
pub const MAX_TEXT: usize = 4096;

/// Tells a successor of its own start, as a [`Birth`].
pub const BIRTH_VARIABLE: &str = "POLLFLIP_BIRTH";
/// Names the lifeline in the environment of a successor, as a [`Place`].
pub const LIFELINE_VARIABLE: &str = "POLLFLIP_LIFELINE";

/// What tells one file from another as long as both are there, sockets and pipes included. Written `dev:ino`, sent as both numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

impl FileId {
    /// The file that the numbers name, if they are two.
    pub fn from_numbers(numbers: &[u64]) -> Option<FileId> {
        match *numbers {
            [device, inode] => Some(FileId { device, inode }),
            _ => None,
        }
    }

    /// Both numbers.
    pub fn to_numbers(self) -> [u64; 2] {
        [self.device, self.inode]
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

/// A descriptor by its number, and what must be there for it to be the one that is meant. Written `fd:dev:ino`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number.
    pub number: i32,
    /// The file that it is open to.
    pub identity: FileId,
}

impl Place {
    /// The place that a text names, if it does.
    pub fn parse(text: &str) -> Option<Place> {
        let (number, identity) = text.split_once(':')?;
        let (device, inode) = identity.split_once(':')?;
        let identity = FileId { device: device.parse().ok()?, inode: inode.parse().ok()? };
        Some(Place { number: number.parse().ok()?, identity })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.identity)
    }
}

/// What a successor is told of its own start in its environment, by the thread that has started it. Written `dev:ino` of the lifeline, then
/// `,name=value` for each fact; facts of other names are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// The lifeline that it belongs to: an older release hands the variable down as it is.
    pub lifeline: FileId,
    /// The program that the predecessor executes.
    pub program: Option<FileId>,
    /// How many descriptors the predecessor had open.
    pub open: usize,
    /// How many of these the successor has got, besides the standard streams and what this crate passes.
    pub inherited: usize,
    /// The `oom_score_adj` of the predecessor, which the successor gets back when the restart is final.
    pub oom_score_adj: Option<i16>,
    /// Where the predecessor has its memory counted.
    pub counter: Option<KillCounter>,
}

/// Where the kernel counts the processes that it ends for want of memory in a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillCounter {
    /// A digest of what the kernel calls the groups of the process: in others it is another file.
    pub groups: u64,
    /// `None`: none of these groups counts that.
    pub file: Option<String>,
}

impl Birth {
    /// What a text says, if it says that.
    pub fn parse(text: &str) -> Option<Birth> {
        let (lifeline, facts) = text.split_once(',')?;
        let file = |text: &str| {
            let (device, inode) = text.split_once(':')?;
            Some(FileId { device: device.parse().ok()?, inode: inode.parse().ok()? })
        };
        let mut birth = Birth { lifeline: file(lifeline)?, program: None, open: 0, inherited: 0, oom_score_adj: None, counter: None };
        let mut file_of_counter = None;
        for fact in facts.split(',') {
            let (name, value) = fact.split_once('=')?;
            match name {
                "program" => birth.program = Some(file(value)?),
                "open" => birth.open = value.parse().ok()?,
                "inherited" => birth.inherited = value.parse().ok()?,
                "oom_score_adj" => birth.oom_score_adj = Some(value.parse().ok()?),
                "groups" => birth.counter = Some(KillCounter { groups: value.parse().ok()?, file: None }),
                "counter" => file_of_counter = Some(value.to_owned()),
                _ => {}
            }
        }
        if let Some(counter) = &mut birth.counter {
            counter.file = file_of_counter;
        }
        Some(birth)
    }
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},open={},inherited={}", self.lifeline, self.open, self.inherited)?;
        if let Some(program) = self.program {
            write!(f, ",program={program}")?;
        }
        if let Some(score) = self.oom_score_adj {
            write!(f, ",oom_score_adj={score}")?;
        }
        if let Some(KillCounter { groups, file }) = &self.counter
            && !file.as_ref().is_some_and(|file| file.contains(','))
        {
            write!(f, ",groups={groups}")?;
            file.iter().try_for_each(|file| write!(f, ",counter={file}"))?;
        }
        Ok(())
    }
}

/// Whether a peer that speaks `version` and serves down to `oldest` can be talked to; an error says why not.
pub fn serves(version: u32, oldest: u32) -> Result<(), String> {
    if version < OLDEST {
        Err(format!("it speaks version {version} of the lifeline, and this process none before {OLDEST}"))
    } else if oldest > VERSION {
        Err(format!("it speaks no version of the lifeline before {oldest}, and this process none after {VERSION}"))
    } else {
        Ok(())
    }
}

/// Whether a name is fit to go over the lifeline; an error says why not.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME {
        Err(format!("a name must have 1 to {MAX_NAME} bytes, and this one has {}", name.len()))
    } else if name.chars().any(char::is_control) {
        Err(format!("a name must not contain control characters: {name:?}"))
    } else {
        Ok(())
    }
}

/// At most so many bytes does a text without control characters take in a JSON message, with what
/// tells what it is.
pub fn room_for(text: &str) -> usize {
    2 * text.len() + 64
}

/// A text for people, in one line and not too long.
pub fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_TEXT));
    for c in text.trim().chars() {
        if line.len() >= MAX_TEXT {
            line.push('…');
            break;
        }
        line.push(visible(c));
    }
    line
}

/// The same of any length, for texts of another process that are bounded already: what a terminal would obey, or show as a line of
/// its own, is a space.
pub fn on_one_line(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn visible(c: char) -> char {
    // The ends of lines and paragraphs of Unicode, and what turns the direction of the text that follows.
    let is_format = matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || is_format { ' ' } else { c }
}

/// A value that is read from JSON.
trait FromJson<'text, 'raw>: TryFrom<RawJsonValue<'text, 'raw>, Error = JsonParseError> {}

impl<'text, 'raw, T: TryFrom<RawJsonValue<'text, 'raw>, Error = JsonParseError>> FromJson<'text, 'raw> for T {}

/// What an object has under that name.
fn field<'text, 'raw, T: FromJson<'text, 'raw>>(object: RawJsonValue<'text, 'raw>, name: &str) -> Result<T, JsonParseError> {
    object.to_member(name)?.required()?.try_into()
}

/// The same, or the default if it is left out.
fn field_or_default<'text, 'raw, T: FromJson<'text, 'raw> + Default>(
    object: RawJsonValue<'text, 'raw>,
    name: &str,
) -> Result<T, JsonParseError> {
    Ok(object.to_member(name)?.map(T::try_from)?.unwrap_or_default())
}

/// Reads one JSON text; an error says what is wrong with it.
fn read<T>(bytes: &[u8], read: impl FnOnce(RawJsonValue<'_, '_>) -> Result<T, JsonParseError>) -> Result<T, String> {
    let unreadable = |why: &dyn fmt::Display| format!("a message that cannot be read ({})", line(&why.to_string()));
    let text = std::str::from_utf8(bytes).map_err(|error| unreadable(&error))?;
    let json = RawJson::parse(text).map_err(|error| unreadable(&error))?;
    read(json.value()).map_err(|error| unreadable(&error))
}

/// Writes one JSON text.
fn written(value: &dyn DisplayJson) -> Vec<u8> {
    nojson::Json(value).to_string().into_bytes()
}

/// Writes an object with these members.
fn object(f: &mut JsonFormatter<'_, '_>, members: &[(&str, &dyn DisplayJson)]) -> fmt::Result {
    f.object(|f| members.iter().try_for_each(|(name, value)| f.member(name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_nothing_that_a_terminal_obeys_or_shows_as_another_line() {
        let text = "\u{1b}[31mred\u{7}\u{9b}2J\r\n\u{2028}next\u{2029}\u{202e}turned\u{2066} é…";
        assert_eq!(line(text), " [31mred  2J   next  turned  é…");
        assert_eq!(on_one_line(text), " [31mred  2J   next  turned  é…");
    }

    #[test]
    fn what_a_successor_is_told_of_its_start_is_read_as_it_was_written() {
        let file = |inode| FileId { device: u64::MAX, inode };
        let counter = |file: Option<&str>| Some(KillCounter { groups: u64::MAX, file: file.map(String::from) });
        let whole = Birth {
            lifeline: file(1),
            program: Some(file(2)),
            open: 20_000,
            inherited: 3,
            oom_score_adj: Some(-1000),
            counter: counter(Some("/sys/fs/cgroup/a=b/memory.events")),
        };
        let none_counts = Birth { counter: counter(None), ..whole.clone() };
        for birth in [whole.clone(), none_counts, Birth { program: None, oom_score_adj: None, counter: None, ..whole.clone() }] {
            assert_eq!(Birth::parse(&birth.to_string()), Some(birth.clone()));
            // A later version may say more.
            assert_eq!(Birth::parse(&format!("{birth},colour=red")), Some(birth));
        }
        // A path that cannot be written is found again.
        let unwritten = Birth { counter: counter(Some("/a,b")), ..whole.clone() };
        assert_eq!(Birth::parse(&unwritten.to_string()), Some(Birth { counter: None, ..whole }));
        for text in ["", "1:1", "1:1,", "1,open=1", "1:1,open", "1:1,open=-1", "1:1,oom_score_adj=40000", "1:1,program=1"] {
            assert_eq!(Birth::parse(text), None, "{text}");
        }
    }
}
