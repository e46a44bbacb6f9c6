//! Messages to bytes and back: what goes over the lifeline, and what goes over the coordination socket.
//!
//! Knows: the shape of the messages and how large they may be. Does not know: sockets, processes, time.
//!
//! **Lifeline.** One JSON object a packet, told apart by `"type"`; descriptors travel beside it, in the order in which the message
//! labels them. A message of a type that this version does not know is [`Message::Unknown`], unknown fields are skipped, and the
//! descriptors of a label that it does not know are closed: two versions of this crate can talk as long as [`serves`] says so.
//!
//! **Coordination socket.** Frames of a 4-byte big-endian length and JSON, the wire of shellflip 2: a [`Frames`] cuts them out of a stream.

mod coordination;

use serde::{Deserialize, Serialize};

pub use coordination::{Coordination, Frames, MAX_FRAME, Outcome, Request, Response, Status};

/// The version of the lifeline's protocol that this crate speaks.
pub const VERSION: u32 = 1;
/// The oldest version of the other side that it can still serve.
pub const OLDEST: u32 = 1;
/// The largest packet on a lifeline, in bytes.
pub const MAX_PACKET: usize = 64 * 1024;
/// The most descriptors that the kernel lets go with one packet.
pub const MAX_DESCRIPTORS: usize = 253;
/// The longest name of a socket, a descriptor or a blob, in bytes. A packet's worth of them stays below [`MAX_PACKET`].
pub const MAX_NAME: usize = 255;
/// The longest text (a reason, a line of progress) that is sent; what is longer is cut.
pub const MAX_TEXT: usize = 4096;

/// What goes over the lifeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// Predecessor: who we are. Written before the successor is started.
    Hello(Hello),
    /// Predecessor: more descriptors than went with the first message.
    More {
        /// What the descriptors of this packet are.
        given: Vec<Given>,
        /// Whether still more follow.
        more: bool,
    },
    /// Successor: who it is.
    Here {
        /// The version it speaks.
        version: u32,
        /// The oldest that it can serve.
        oldest: u32,
        /// Its process id.
        pid: u32,
    },
    /// Successor: freeze, and send me the state.
    Pull,
    /// Predecessor: a part of the state, one descriptor each.
    Items {
        /// What the descriptors of this packet are.
        items: Vec<Item>,
    },
    /// Predecessor: that was all of it.
    End {
        /// How many items there were.
        items: u64,
    },
    /// Successor: I will not take over.
    Refuse {
        /// Why.
        reason: String,
    },
    /// Successor: how far I am.
    Progress {
        /// A line for people.
        text: String,
    },
    /// Successor: I can serve.
    Ready,
    /// Predecessor: the service is yours.
    Granted,
    /// Predecessor: for good.
    Commit,
    /// Something a later version says.
    #[serde(other)]
    Unknown,
}

/// The body of [`Message::Items`].
#[derive(Deserialize)]
struct Items {
    items: Vec<Item>,
}

/// What the first message of either side has in all versions.
#[derive(Deserialize)]
struct Speaks {
    version: u32,
    oldest: u32,
}

/// The first message on a lifeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version that the predecessor speaks.
    pub version: u32,
    /// The oldest that it can serve.
    pub oldest: u32,
    /// The predecessor's process id.
    pub pid: u32,
    /// The generation of the successor.
    pub generation: u32,
    /// How long the service can be taken back, in milliseconds.
    #[serde(default)]
    pub probation_ms: Option<u64>,
    /// The signal that is blocked in the successor, for it to unblock once it has a handler.
    #[serde(default)]
    pub signal: Option<i32>,
    /// What the descriptors of this packet are.
    pub given: Vec<Given>,
    /// Whether more follow.
    pub more: bool,
    /// How the last restarts have ended, the latest last.
    #[serde(default)]
    pub outcomes: Vec<Outcome>,
}

/// What a descriptor that comes with a [`Hello`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Given {
    /// A pidfd of the predecessor.
    Predecessor,
    /// The coordination socket.
    Coordination {
        /// Where it is bound.
        path: String,
    },
    /// A pidfd of an earlier process, which still finishes its work.
    Draining {
        /// Its process id.
        pid: u32,
    },
    /// A socket of the program's.
    Socket {
        /// Its name.
        name: String,
    },
    /// Something a later version gives.
    #[serde(other)]
    Unknown,
}

/// One named descriptor of a handover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ItemKind,
}

/// What a descriptor of a handover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// A connection, file or the like, for what it is.
    Descriptor,
    /// A memfd, for what it holds.
    Blob,
    /// Something a later version gives: it is kept by its name.
    #[serde(other)]
    Unknown,
}

impl Message {
    /// The bytes of the packet.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The message in a packet; an error says what is wrong with it.
    pub fn decode(packet: &[u8]) -> Result<Message, String> {
        if packet.len() > MAX_PACKET {
            return Err(format!("a message of more than {MAX_PACKET} bytes"));
        }
        // The one message that comes by the hundred, without the detour that its type costs.
        if packet.starts_with(br#"{"type":"items","#)
            && let Ok(Items { items }) = serde_json::from_slice(packet)
        {
            return Ok(Message::Items { items });
        }
        serde_json::from_slice(packet).map_err(|error| {
            // What a version that is too new or too old says of itself is the better reason.
            let speaks = serde_json::from_slice(packet).map(|Speaks { version, oldest }| serves(version, oldest));
            match speaks {
                Ok(Err(why)) => why,
                _ => format!("a message that cannot be read ({})", line(&error.to_string())),
            }
        })
    }

    /// How many descriptors come with it.
    pub fn descriptors(&self) -> usize {
        match self {
            Message::Hello(Hello { given, .. }) | Message::More { given, .. } => given.len(),
            Message::Items { items } => items.len(),
            _ => 0,
        }
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

/// At most so many bytes does a checked name take in a packet, with what tells what it names.
pub fn room_for(name: &str) -> usize {
    2 * name.len() + 64
}

/// A text for people, in one line and not too long.
pub fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_TEXT));
    for c in text.trim().chars() {
        if line.len() >= MAX_TEXT {
            line.push('…');
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}
