//! What goes over the coordination socket: frames of a 4-byte big-endian length and JSON, the wire of shellflip 2.

use std::borrow::Cow;
use std::fmt;

use nojson::{DisplayJson, JsonFormatter, JsonParseError, JsonValueKind, RawJsonValue};

use super::status::{Json, Status};
use super::{field_or_default, object, on_one_line, read, written};

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
    /// None was tried, and none ever will be, and why.
    RestartImpossible(String),
    /// How far it is.
    Progress(String),
    /// Where the service stands.
    Status(Box<Status>),
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

impl Response {
    /// As a client shows it: the service can be another user's, and the client root at a terminal.
    pub fn on_lines(self) -> Response {
        match self {
            Response::RestartFailed(why) => Response::RestartFailed(on_one_line(&why)),
            Response::RestartRefused(why) => Response::RestartRefused(on_one_line(&why)),
            Response::RestartImpossible(why) => Response::RestartImpossible(on_one_line(&why)),
            Response::Progress(text) => Response::Progress(on_one_line(&text)),
            Response::Status(status) => Response::Status(Box::new(status.on_lines())),
            Response::RestartComplete(_) => self,
        }
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
            Response::RestartImpossible(why) => object(f, &[("RestartImpossible", why)]),
            Response::Progress(text) => object(f, &[("Progress", text)]),
            Response::Status(status) => object(f, &[("Status", &Json(&**status))]),
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
            "RestartImpossible" => Response::RestartImpossible(value.try_into()?),
            "Progress" => Response::Progress(value.try_into()?),
            "Status" => Response::Status(Box::new(Json::try_from(value)?.0)),
            name => return Err(json.invalid(format!("unknown response `{name}`"))),
        })
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
