//! What goes over the coordination socket: frames of a 4-byte big-endian length and JSON, the wire of shellflip 2.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::line;

/// The largest frame on a coordination socket, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// What goes over the coordination socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coordination {
    /// From the client.
    Request(Request),
    /// From the service.
    Response(Response),
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A restart, with the answers that shellflip's clients know.
    TryRestart,
    /// A restart, with all the answers there are.
    Restart {
        /// Whether lines of progress are wanted.
        #[serde(default)]
        progress: bool,
    },
    /// Where the service stands.
    Status,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(default)]
    pub successor: Option<u32>,
    /// How long the restart under way has taken so far, in milliseconds.
    #[serde(default)]
    pub under_way_ms: Option<u64>,
    /// The last line that the successor under way said of itself.
    #[serde(default)]
    pub progress: Option<String>,
    /// How the last restart that was tried in this process has failed.
    #[serde(default)]
    pub last_failure: Option<String>,
    /// How the last restarts have ended, in this process and those before it, the latest last.
    #[serde(default)]
    pub outcomes: Vec<Outcome>,
}

/// How a restart has ended: a line of [`Status::outcomes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// When, in seconds since 1970.
    pub at: u64,
    /// How long it took, in milliseconds.
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
        }
    }

    /// How long the restart under way has taken so far.
    pub fn under_way(&self) -> Option<Duration> {
        self.under_way_ms.map(Duration::from_millis)
    }
}

impl Coordination {
    /// The frame, its length first.
    pub fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut frame = (json.len() as u32).to_be_bytes().to_vec();
        frame.extend(json);
        frame
    }

    /// The message in a frame without its length; an error says what is wrong with it.
    pub fn decode(frame: &[u8]) -> Result<Coordination, String> {
        serde_json::from_slice(frame).map_err(|error| format!("a message that cannot be read ({})", line(&error.to_string())))
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
