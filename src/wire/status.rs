//! Where a service stands, as its clients are told.

use std::fmt;
use std::time::Duration;

use nojson::{DisplayJson, JsonFormatter, JsonParseError, RawJsonValue};

use super::{field, field_or_default, object, on_one_line};

/// Where a service stands: what [`Restarter::status`](crate::Restarter::status) returns and
/// [`request_status`](crate::restart_coordination_socket::request_status) fetches.
///
/// ```no_run
/// use std::time::Duration;
/// use pollflip::restart_coordination_socket::request_status;
///
/// # fn main() -> Result<(), pollflip::RequestError> {
/// let status = request_status("/run/echo/restart.sock", Duration::from_secs(5))?;
/// println!("process {} is generation {}", status.pid, status.generation);
/// if let Some(last) = status.outcomes.last() {
///     println!("the last restart {}: {}", if last.ok { "succeeded" } else { "failed" }, last.text);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The process that answers.
    pub pid: u32,
    /// How many restarts lie behind it.
    pub generation: u32,
    /// What it is at.
    pub state: ServiceState,
    /// What it calls its version, if it does: see [`RestartConfig::version`](crate::RestartConfig::version).
    pub version: Option<String>,
    /// The path of the program that a restart starts; empty where it is not known.
    pub program: String,
    /// Earlier generations that still finish their work, by their process ids, the oldest first.
    pub draining: Vec<u32>,
    /// The process that it is starting or has handed over to.
    pub successor: Option<u32>,
    /// How long the restart under way has taken so far, in milliseconds; one on probation is still under way.
    pub under_way_ms: Option<u64>,
    /// The last line that the successor under way said of itself.
    pub progress: Option<String>,
    /// Why no restart of that process is possible, if the reason is
    /// [permanent](crate::Refusal::is_permanent): every request is refused.
    pub impossible: Option<String>,
    /// How the last restart that was tried in this process has failed.
    pub last_failure: Option<String>,
    /// How the last restarts have ended, in this process and those before it, the latest last.
    pub outcomes: Vec<Outcome>,
    /// What an operator has to know of this process and its successor: what is not as it should be, and lasts. Empty if all is well.
    pub notes: Vec<String>,
}

/// What a service is at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceState {
    /// It has not said yet that it is ready.
    NotReady,
    /// It serves, and no restart is under way.
    Serving,
    /// A successor is being started.
    Spawning,
    /// A successor has been started, and has not said yet that it is ready.
    AwaitingReady,
    /// Its successor serves, on probation.
    HandingOff,
    /// Its successor serves, and that is final.
    HandedOff,
    /// A successor that was given up is being killed.
    Killing,
    /// It serves, and its predecessor can still take the service back.
    OnProbation,
    /// It is ending, and restarts nothing any more.
    Stopping,
    /// It serves, and no further restart is possible.
    NoMoreRestarts,
    /// The word of a later version of this crate.
    Other(String),
}

/// The states with a word of their own.
const STATES: [(ServiceState, &str); 10] = [
    (ServiceState::NotReady, "not ready"),
    (ServiceState::Serving, "idle"),
    (ServiceState::Spawning, "spawning"),
    (ServiceState::AwaitingReady, "awaiting ready"),
    (ServiceState::HandingOff, "handing off"),
    (ServiceState::HandedOff, "handed off"),
    (ServiceState::Killing, "killing"),
    (ServiceState::OnProbation, "on probation"),
    (ServiceState::Stopping, "stopping"),
    (ServiceState::NoMoreRestarts, "broken"),
];

impl ServiceState {
    /// The word for it in [`Status::to_json`] and on the coordination socket.
    pub fn as_str(&self) -> &str {
        match self {
            ServiceState::Other(word) => word,
            state => STATES.iter().find(|(known, _)| known == state).map_or("", |(_, word)| word),
        }
    }

    fn of(word: String) -> ServiceState {
        match STATES.iter().find(|(_, known)| *known == word) {
            Some((state, _)) => state.clone(),
            None => ServiceState::Other(word),
        }
    }
}

/// For people.
impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ServiceState::Serving => "serving",
            ServiceState::NoMoreRestarts => "serving, no more restarts",
            state => state.as_str(),
        })
    }
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
    pub(crate) fn new(pid: u32, generation: u32, state: ServiceState) -> Status {
        Status {
            pid,
            generation,
            state,
            version: None,
            program: String::new(),
            draining: Vec::new(),
            successor: None,
            under_way_ms: None,
            progress: None,
            impossible: None,
            last_failure: None,
            outcomes: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// As a client shows it, each text on one line.
    pub(super) fn on_lines(self) -> Status {
        let line = |text: Option<String>| text.map(|text| on_one_line(&text));
        Status {
            state: ServiceState::of(on_one_line(self.state.as_str())),
            version: line(self.version),
            program: on_one_line(&self.program),
            progress: line(self.progress),
            impossible: line(self.impossible),
            last_failure: line(self.last_failure),
            outcomes: self.outcomes.into_iter().map(|outcome| Outcome { text: on_one_line(&outcome.text), ..outcome }).collect(),
            notes: self.notes.iter().map(|note| on_one_line(note)).collect(),
            pid: self.pid,
            generation: self.generation,
            draining: self.draining,
            successor: self.successor,
            under_way_ms: self.under_way_ms,
        }
    }

    /// As one JSON object, its members named as the fields are; what is not there is `null`.
    pub fn to_json(&self) -> String {
        nojson::Json(Json(self)).to_string()
    }

    /// How long the restart under way has taken so far.
    pub fn under_way(&self) -> Option<Duration> {
        self.under_way_ms.map(Duration::from_millis)
    }
}

/// How these types are written and read: the public ones have no trait of another crate's.
#[derive(Debug, Default)]
pub(super) struct Json<T>(pub(super) T);

impl DisplayJson for Json<&Status> {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        let status = self.0;
        let members: &[(&str, &dyn DisplayJson)] = &[
            ("pid", &status.pid),
            ("generation", &status.generation),
            ("state", &status.state.as_str()),
            ("version", &status.version),
            ("program", &status.program),
            ("draining", &status.draining),
            ("successor", &status.successor),
            ("under_way_ms", &status.under_way_ms),
            ("progress", &status.progress),
            ("impossible", &status.impossible),
            ("last_failure", &status.last_failure),
            ("outcomes", &Json(&status.outcomes)),
            ("notes", &status.notes),
        ];
        object(f, members)
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Json<Status> {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Json<Status>, JsonParseError> {
        Ok(Json(Status {
            pid: field(json, "pid")?,
            generation: field(json, "generation")?,
            state: ServiceState::of(field(json, "state")?),
            version: field_or_default(json, "version")?,
            program: field_or_default(json, "program")?,
            draining: field_or_default(json, "draining")?,
            successor: field_or_default(json, "successor")?,
            under_way_ms: field_or_default(json, "under_way_ms")?,
            progress: field_or_default(json, "progress")?,
            impossible: field_or_default(json, "impossible")?,
            last_failure: field_or_default(json, "last_failure")?,
            outcomes: field_or_default::<Json<Vec<Outcome>>>(json, "outcomes")?.0,
            notes: field_or_default(json, "notes")?,
        }))
    }
}

impl DisplayJson for Json<&Vec<Outcome>> {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        f.array(|f| self.0.iter().try_for_each(|outcome| f.element(Json(outcome))))
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Json<Vec<Outcome>> {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Json<Vec<Outcome>>, JsonParseError> {
        let outcomes = json.to_array()?.map(|outcome| Ok(Json::<Outcome>::try_from(outcome)?.0));
        Ok(Json(outcomes.collect::<Result<_, JsonParseError>>()?))
    }
}

impl DisplayJson for Json<&Outcome> {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        let Outcome { at, took_ms, ok, text } = self.0;
        object(f, &[("at", at), ("took_ms", took_ms), ("ok", ok), ("text", text)])
    }
}

impl TryFrom<RawJsonValue<'_, '_>> for Json<Outcome> {
    type Error = JsonParseError;

    fn try_from(json: RawJsonValue<'_, '_>) -> Result<Json<Outcome>, JsonParseError> {
        Ok(Json(Outcome { at: field(json, "at")?, took_ms: field(json, "took_ms")?, ok: field(json, "ok")?, text: field(json, "text")? }))
    }
}
