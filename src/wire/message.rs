//! The messages of the lifeline.
//!
//! Knows: what each says, and its bytes. Does not know: who says it when.

use std::borrow::Cow;
use std::fmt;

use nojson::{DisplayJson, JsonFormatter, JsonParseError, RawJsonValue};

use super::packed::{self, Op, PACKED};
use super::status::{Json, Outcome};
use super::{MAX_PACKET, field, field_or_default, object, read, serves, written};

/// What goes over the lifeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Predecessor: who we are. Written before the successor is started.
    Hello(Hello),
    /// Predecessor: more descriptors than went with the first message.
    More {
        /// What the descriptors of this packet are.
        given: Vec<Given>,
    },
    /// Successor: who it is.
    Here {
        /// The version it speaks.
        version: u32,
        /// The oldest that it can serve.
        oldest: u32,
        /// Its process id.
        pid: u32,
        /// The path of its program, if that is the very file that the predecessor executes.
        again: Option<String>,
    },
    /// Successor: show that it is you who are at the other end.
    Challenge {
        /// A number that nobody can guess.
        number: u64,
    },
    /// Predecessor: the answer to that. What counts is who sends it. A descriptor goes with it, any one: a program that copies to its standard
    /// output what it is told can be made to say all but that.
    Proof {
        /// The same number.
        number: u64,
    },
    /// Successor: freeze, and send me the state.
    Pull,
    /// Successor: give me ahead what you can, and keep serving.
    PrecopyPull,
    /// Predecessor: descriptors by their names, and what is gone of those before. After the first
    /// message these are its sockets; then what goes ahead; then the state.
    Items {
        /// In the order in which it happened.
        ops: Vec<Op>,
    },
    /// Predecessor: all that could go ahead has been given. More may come as it arises.
    PrecopyComplete {
        /// How many items there were until then.
        items: u64,
    },
    /// Predecessor: that was all of the state.
    End {
        /// How many items were given after the freeze and are not gone.
        items: u64,
        /// How many of those that went ahead belong to it.
        precopied: u64,
    },
    /// Successor: I will not take over.
    Refuse {
        /// Why.
        reason: String,
    },
    /// Successor: this has gone wrong here, and I may end for it. Not a refusal: the program decides.
    Trouble {
        /// What.
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
    /// Predecessor: the grant is final.
    Commit,
    /// Predecessor: you are given up, and nothing of this is yours, whatever becomes of me.
    GivenUp,
    /// Something a later version says.
    Unknown,
}

/// The first message on a lifeline.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub probation_ms: Option<u64>,
    /// The signal that is blocked in the successor, for it to unblock once it has a handler.
    pub signal: Option<i32>,
    /// The pid file of the predecessor.
    pub pid_file: Option<String>,
    /// What the descriptors of this packet are.
    pub given: Vec<Given>,
    /// How many descriptors come with the packets after this one, until it is whole: in
    /// [`Message::More`], and the program's sockets in [`Message::Items`].
    pub following: u64,
    /// How the last restarts have ended, the latest last.
    pub outcomes: Vec<Outcome>,
}

/// What a descriptor that comes with a [`Hello`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A pidfd of the predecessor.
    Predecessor,
    /// The coordination socket.
    Coordination {
        /// Where it is bound.
        path: String,
        /// The device and the inode of that path, if they are known.
        file: Vec<u64>,
        /// Those of the root directory in which the path means that.
        root: Vec<u64>,
    },
    /// A pidfd of an earlier process, which still finishes its work.
    Draining {
        /// Its process id.
        pid: u32,
    },
    /// A socket of a UDP group of the program's.
    Member {
        /// The name of the group.
        name: String,
        /// Which of its sockets that is, counted from 0,
        slot: u8,
        /// and of how many.
        of: u8,
        /// Where the group's datagrams bear their marks.
        mark: String,
        /// The process that reads this socket, if one does.
        owner: Option<u32>,
        /// The successor does.
        yours: bool,
    },
    /// Something a later version gives.
    Unknown,
}

impl Message {
    /// The bytes of the packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Message::Items { ops } => packed::encode(ops),
            _ => written(self),
        }
    }

    /// The message in a packet; an error says what is wrong with it.
    pub fn decode(packet: &[u8]) -> Result<Message, String> {
        if packet.len() > MAX_PACKET {
            return Err(format!("a message of more than {MAX_PACKET} bytes"));
        }
        if packet.first() == Some(&PACKED) {
            return packed::decode(packet).map(|ops| Message::Items { ops });
        }
        read(packet, |json| json.try_into()).map_err(|unreadable| {
            // What a version that is too new or too old says of itself is the better reason.
            match read(packet, |json| Ok((field(json, "version")?, field(json, "oldest")?))) {
                Ok((version, oldest)) => serves(version, oldest).err().unwrap_or(unreadable),
                Err(_) => unreadable,
            }
        })
    }

    /// How many descriptors come with it.
    pub fn descriptors(&self) -> usize {
        match self {
            Message::Hello(Hello { given, .. }) | Message::More { given } => given.len(),
            Message::Items { ops } => ops.iter().filter(|op| op.kind.bears_descriptor()).count(),
            Message::Proof { .. } => 1,
            _ => 0,
        }
    }
}

impl DisplayJson for Message {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        match self {
            Message::Hello(hello) => hello.fmt(f),
            Message::More { given } => object(f, &[("type", &"more"), ("given", given)]),
            Message::Here { version, oldest, pid, again } => {
                let members: &[(&str, &dyn DisplayJson)] =
                    &[("type", &"here"), ("version", version), ("oldest", oldest), ("pid", pid), ("again", again)];
                object(f, &members[..members.len() - usize::from(again.is_none())])
            }
            Message::Challenge { number } => object(f, &[("type", &"challenge"), ("number", number)]),
            Message::Proof { number } => object(f, &[("type", &"proof"), ("number", number)]),
            Message::Pull => object(f, &[("type", &"pull")]),
            Message::PrecopyPull => object(f, &[("type", &"precopy_pull")]),
            Message::PrecopyComplete { items } => object(f, &[("type", &"precopy_complete"), ("items", items)]),
            Message::End { items, precopied } => object(f, &[("type", &"end"), ("items", items), ("precopied", precopied)]),
            Message::Refuse { reason } => object(f, &[("type", &"refuse"), ("reason", reason)]),
            Message::Trouble { reason } => object(f, &[("type", &"trouble"), ("reason", reason)]),
            Message::Progress { text } => object(f, &[("type", &"progress"), ("text", text)]),
            Message::Ready => object(f, &[("type", &"ready")]),
            Message::Granted => object(f, &[("type", &"granted")]),
            Message::Commit => object(f, &[("type", &"commit")]),
            Message::GivenUp => object(f, &[("type", &"given_up")]),
            // A list is no JSON.
            Message::Items { .. } | Message::Unknown => object(f, &[("type", &"unknown")]),
        }
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Message {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Message, JsonParseError> {
        let kind: Cow<'_, str> = field(json, "type")?;
        Ok(match &*kind {
            "hello" => Message::Hello(json.try_into()?),
            "more" => Message::More { given: field(json, "given")? },
            "here" => Message::Here {
                version: field(json, "version")?,
                oldest: field(json, "oldest")?,
                pid: field(json, "pid")?,
                again: field_or_default(json, "again")?,
            },
            "challenge" => Message::Challenge { number: field(json, "number")? },
            "proof" => Message::Proof { number: field(json, "number")? },
            "pull" => Message::Pull,
            "precopy_pull" => Message::PrecopyPull,
            "precopy_complete" => Message::PrecopyComplete { items: field(json, "items")? },
            "end" => Message::End { items: field(json, "items")?, precopied: field(json, "precopied")? },
            "refuse" => Message::Refuse { reason: field(json, "reason")? },
            "trouble" => Message::Trouble { reason: field(json, "reason")? },
            "progress" => Message::Progress { text: field(json, "text")? },
            "ready" => Message::Ready,
            "granted" => Message::Granted,
            "commit" => Message::Commit,
            "given_up" => Message::GivenUp,
            _ => Message::Unknown,
        })
    }
}

impl DisplayJson for Hello {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        let members: &[(&str, &dyn DisplayJson)] = &[
            ("type", &"hello"),
            ("version", &self.version),
            ("oldest", &self.oldest),
            ("pid", &self.pid),
            ("generation", &self.generation),
            ("probation_ms", &self.probation_ms),
            ("signal", &self.signal),
            ("pid_file", &self.pid_file),
            ("given", &self.given),
            ("following", &self.following),
            ("outcomes", &Json(&self.outcomes)),
        ];
        object(f, members)
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Hello {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Hello, JsonParseError> {
        Ok(Hello {
            version: field(json, "version")?,
            oldest: field(json, "oldest")?,
            pid: field(json, "pid")?,
            generation: field(json, "generation")?,
            probation_ms: field_or_default(json, "probation_ms")?,
            signal: field_or_default(json, "signal")?,
            pid_file: field_or_default(json, "pid_file")?,
            given: field(json, "given")?,
            following: field(json, "following")?,
            outcomes: field_or_default::<Json<Vec<Outcome>>>(json, "outcomes")?.0,
        })
    }
}

impl DisplayJson for Given {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        match self {
            Given::Predecessor => object(f, &[("is", &"predecessor")]),
            Given::Coordination { path, file, root } => {
                object(f, &[("is", &"coordination"), ("path", path), ("file", file), ("root", root)])
            }
            Given::Draining { pid } => object(f, &[("is", &"draining"), ("pid", pid)]),
            Given::Member { name, slot, of, mark, owner, yours } => object(
                f,
                &[("is", &"member"), ("name", name), ("slot", slot), ("of", of), ("mark", mark), ("owner", owner), ("yours", yours)],
            ),
            Given::Unknown => object(f, &[("is", &"unknown")]),
        }
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Given {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Given, JsonParseError> {
        let what: Cow<'_, str> = field(json, "is")?;
        Ok(match &*what {
            "predecessor" => Given::Predecessor,
            "coordination" => Given::Coordination {
                path: field(json, "path")?,
                file: field_or_default(json, "file")?,
                root: field_or_default(json, "root")?,
            },
            "draining" => Given::Draining { pid: field(json, "pid")? },
            "member" => Given::Member {
                name: field(json, "name")?,
                slot: field(json, "slot")?,
                of: field(json, "of")?,
                mark: field(json, "mark")?,
                owner: field_or_default(json, "owner")?,
                yours: field_or_default(json, "yours")?,
            },
            _ => Given::Unknown,
        })
    }
}
