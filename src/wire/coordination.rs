//! What goes over the coordination socket: frames of a 4-byte big-endian length and JSON, the wire of shellflip 2.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use nojson::{DisplayJson, JsonFormatter, JsonParseError, JsonValueKind, RawJsonValue};

use super::{field, field_or_default, object, read, written};

/// The largest frame on a coordination socket, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// What goes over the coordination socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coordination {
    /// From the client.
    Request(Request),
    /// From the service.
    Response(Response),
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A restart, with the answers that shellflip's clients know.
    TryRestart,
    /// A restart, with all the answers there are.
    Restart {
        /// Whether lines of progress are wanted.
        progress: bool,
    },
    /// Where the service stands.
    Status,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// This process serves now.
    RestartComplete(u32),
    /// The new version did not start, and why.
    RestartFailed(String),
    /// None was tried, and why.
    RestartRefused(String),
    /// How far it is.
    Progress(String),
    /// Where the service stands.
    Status(Status),
}

/// Where a service stands: what [`Restarter::status`](crate::Restarter::status) returns and
/// [`request_status`](crate::restart_coordination_socket::request_status) fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The process that answers.
    pub pid: u32,
    /// How many restarts lie behind it.
    pub generation: u32,
    /// `not ready`, `idle`, `spawning`, `awaiting ready`, `handing off` (the successor is on probation), `handed off`, `killing` (a successor
    /// that was given up), `on probation` (by its predecessor), `stopping` or `broken`.
    pub state: String,
    /// The process that it is starting or has handed over to.
    pub successor: Option<u32>,
    /// How long the restart under way has taken so far, in milliseconds; one on probation is still under way.
    pub under_way_ms: Option<u64>,
    /// The last line that the successor under way said of itself.
    pub progress: Option<String>,
    /// How the last restart that was tried in this process has failed.
    pub last_failure: Option<String>,
    /// How the last restarts have ended, in this process and those before it, the latest last.
    pub outcomes: Vec<Outcome>,
    /// What an operator has to know of this process and its successor: what is not as it should be, and lasts. Empty if all is well.
    pub notes: Vec<String>,
}

/// How a restart has ended: a line of [`Status::outcomes`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// When, in seconds since 1970.
    pub at: u64,
    /// How long it took, in milliseconds: one that failed from the request on, and one that succeeded from the successor's
    /// [`build`](crate::RestartConfig::build) until that was ready.
    pub took_ms: u64,
    /// Whether it has succeeded.
    pub ok: bool,
    /// Who has taken over from whom, or why it failed.
    pub text: String,
}

impl Status {
    pub(crate) fn new(pid: u32, generation: u32, state: &str) -> Status {
        Status {
            pid,
            generation,
            state: state.into(),
            successor: None,
            under_way_ms: None,
            progress: None,
            last_failure: None,
            outcomes: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// As one JSON object, its members named as the fields are; what is not there is `null`.
    pub fn to_json(&self) -> String {
        nojson::Json(self).to_string()
    }

    /// How long the restart under way has taken so far.
    pub fn under_way(&self) -> Option<Duration> {
        self.under_way_ms.map(Duration::from_millis)
    }
}

impl Coordination {
    /// The frame, its length first.
    pub fn encode(&self) -> Vec<u8> {
        let json = written(self);
        let mut frame = (json.len() as u32).to_be_bytes().to_vec();
        frame.extend(json);
        frame
    }

    /// The message in a frame without its length; an error says what is wrong with it.
    pub fn decode(frame: &[u8]) -> Result<Coordination, String> {
        read(frame, |json| json.try_into())
    }
}

impl DisplayJson for Coordination {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        match self {
            Coordination::Request(request) => object(f, &[("Request", request)]),
            Coordination::Response(response) => object(f, &[("Response", response)]),
        }
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Coordination {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Coordination, JsonParseError> {
        let (name, value) = variant(json)?;
        match &*name {
            "Request" => Ok(Coordination::Request(value.try_into()?)),
            "Response" => Ok(Coordination::Response(value.try_into()?)),
            name => Err(json.invalid(format!("`{name}` is neither a request nor a response"))),
        }
    }
}

impl DisplayJson for Request {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        match self {
            Request::TryRestart => f.value("TryRestart"),
            Request::Restart { progress } => object(f, &[("Restart", &nojson::json(|f| object(f, &[("progress", progress)])))]),
            Request::Status => f.value("Status"),
        }
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Request {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Request, JsonParseError> {
        let unknown = |name: &str| Err(json.invalid(format!("unknown request `{name}`")));
        if json.kind() == JsonValueKind::String {
            return match &*json.to_unquoted_string_str()? {
                "TryRestart" => Ok(Request::TryRestart),
                "Status" => Ok(Request::Status),
                name => unknown(name),
            };
        }
        let (name, value) = variant(json)?;
        match &*name {
            "Restart" => Ok(Request::Restart { progress: field_or_default(value, "progress")? }),
            name => unknown(name),
        }
    }
}

impl DisplayJson for Response {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        match self {
            Response::RestartComplete(pid) => object(f, &[("RestartComplete", pid)]),
            Response::RestartFailed(why) => object(f, &[("RestartFailed", why)]),
            Response::RestartRefused(why) => object(f, &[("RestartRefused", why)]),
            Response::Progress(text) => object(f, &[("Progress", text)]),
            Response::Status(status) => object(f, &[("Status", status)]),
        }
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Response {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Response, JsonParseError> {
        let (name, value) = variant(json)?;
        Ok(match &*name {
            "RestartComplete" => Response::RestartComplete(value.try_into()?),
            "RestartFailed" => Response::RestartFailed(value.try_into()?),
            "RestartRefused" => Response::RestartRefused(value.try_into()?),
            "Progress" => Response::Progress(value.try_into()?),
            "Status" => Response::Status(value.try_into()?),
            name => return Err(json.invalid(format!("unknown response `{name}`"))),
        })
    }
}

impl DisplayJson for Status {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        let members: &[(&str, &dyn DisplayJson)] = &[
            ("pid", &self.pid),
            ("generation", &self.generation),
            ("state", &self.state),
            ("successor", &self.successor),
            ("under_way_ms", &self.under_way_ms),
            ("progress", &self.progress),
            ("last_failure", &self.last_failure),
            ("outcomes", &self.outcomes),
            ("notes", &self.notes),
        ];
        object(f, members)
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Status {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Status, JsonParseError> {
        Ok(Status {
            pid: field(json, "pid")?,
            generation: field(json, "generation")?,
            state: field(json, "state")?,
            successor: field_or_default(json, "successor")?,
            under_way_ms: field_or_default(json, "under_way_ms")?,
            progress: field_or_default(json, "progress")?,
            last_failure: field_or_default(json, "last_failure")?,
            outcomes: field_or_default(json, "outcomes")?,
            notes: field_or_default(json, "notes")?,
        })
    }
}

impl DisplayJson for Outcome {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        object(f, &[("at", &self.at), ("took_ms", &self.took_ms), ("ok", &self.ok), ("text", &self.text)])
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Outcome {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Outcome, JsonParseError> {
        Ok(Outcome { at: field(json, "at")?, took_ms: field(json, "took_ms")?, ok: field(json, "ok")?, text: field(json, "text")? })
    }
}

/// The name and the body of an object with one member: that is how a choice is written.
fn variant<'text, 'raw>(json: RawJsonValue<'text, 'raw>) -> Result<(Cow<'text, str>, RawJsonValue<'text, 'raw>), JsonParseError> {
    let mut members = json.to_object()?;
    match (members.next(), members.next()) {
        (Some((name, value)), None) => Ok((name.to_unquoted_string_str()?, value)),
        _ => Err(json.invalid("an object with one member was expected")),
    }
}

/// Cuts the frames out of a stream of bytes.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    /// Takes in what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, without its length; an error if it announces more than [`MAX_FRAME`] bytes.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, String> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(format!("a frame of {length} bytes; no more than {MAX_FRAME} are taken"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let frame = rest[..length].to_vec();
        self.buffer.drain(..4 + length);
        Ok(Some(frame))
    }

    /// Whether a frame has begun and not ended.
    pub fn within_frame(&self) -> bool {
        !self.buffer.is_empty()
    }
}
