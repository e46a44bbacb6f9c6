//! The unix socket over which an operator asks for a restart and learns how it ended.
//!
//! This page is the client, for a program's own `restart` and `status` subcommands. The server is part of the
//! [`Restarter`](crate::Restarter): name a path with [`RestartConfig::coordination_socket`] and it serves there, in each generation in
//! turn, for root and for the user that the service runs as. The path belongs to the user that built the restarter: see
//! [`coordination_socket`](RestartConfig::coordination_socket).
//!
//! ```no_run
//! use std::time::Duration;
//! use pollflip::restart_coordination_socket::request_restart;
//!
//! // As long as the service's ready timeout and probation together, and some seconds.
//! match request_restart("/run/echo.sock", Duration::from_secs(90), |line| eprintln!("{line}")) {
//!     Ok(pid) => println!("process {pid} serves now"),
//!     Err(why) => eprintln!("{why}"),
//! }
//! ```
//!
//! The wire is that of shellflip 2: frames of a 4-byte big-endian length and JSON. `{"Request":"TryRestart"}` is answered by
//! `{"Response":{"RestartComplete":PID}}` or `{"Response":{"RestartFailed":"reason"}}`; `{"Request":{"Restart":{"progress":true}}}` may
//! also be answered by `RestartRefused` or `RestartImpossible`, with any number of
//! `{"Response":{"Progress":"line"}}` before; `{"Request":"Status"}` by
//! `{"Response":{"Status":{…}}}`. A request must be whole within 5 s.
//!
//! The service talks to 64 clients at a time. When more come, it hangs up on the oldest, unless
//! that one waits for the end of a restart or is younger than 10 ms. If it had not read the request
//! of that client, nothing was done for it. A process that has just been replaced hangs up on a
//! question for the status too: ask again, and its successor answers.
//!
//! Knows: the frames, and who may ask. Does not know: what a restart is.

mod client;
mod door;
mod place;
mod server;

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::SockType;

use crate::config::RestartConfig;
use crate::error::RequestError;
use crate::sockets::unix_client;
use crate::sys;
use crate::wire::{Coordination, Frames, Request, Response};

pub use crate::wire::{Outcome, ServiceState, Status};

pub(crate) use server::{Asked, ClientId, Server};

/// Asks the service at `path` for a restart and waits for its end. Returns the process id of the successor, which serves then.
/// `progress` is called with each line that it says of itself meanwhile.
///
/// # Errors
///
/// See [`RequestError`]. After `Refused`, `Impossible` and `Failed` the old process keeps serving; after
/// `TimedOut` and `HungUp` the status tells.
pub fn request_restart(path: impl AsRef<Path>, limit: Duration, mut progress: impl FnMut(&str)) -> Result<u32, RequestError> {
    let request = Request::Restart { progress: true };
    let (mut client, response) = Client::ask(path.as_ref(), limit, &request)?;
    client.outcome(response, &mut progress)
}

/// Asks the service at `path` where it stands.
///
/// # Errors
///
/// See [`RequestError`].
pub fn request_status(path: impl AsRef<Path>, limit: Duration) -> Result<Status, RequestError> {
    let (_, response) = Client::ask(path.as_ref(), limit, &Request::Status)?;
    Client::status(response)
}

/// The client on a stream that the program has made: one that was passed to it or is forwarded from
/// elsewhere, or is connected already. It asks as the two functions do by path; but it has one stream, and
/// cannot connect once more where they do: after an error it is of no more use, and
/// [`RequestError::HungUp`] says also that the service has just been replaced, or is shellflip's and knows
/// [`TryRestart`](self) alone.
///
/// ```no_run
/// use std::{os::unix::net::UnixStream, time::Duration};
/// use pollflip::restart_coordination_socket::RestartCoordinationSocket;
///
/// let mut socket = RestartCoordinationSocket::new(UnixStream::connect("/run/echo.sock")?);
/// println!("{}", socket.request_status(Duration::from_secs(5))?.state);
/// println!("process {} serves now", socket.request_restart(Duration::from_secs(90), |line| eprintln!("{line}"))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RestartCoordinationSocket(Client);

impl RestartCoordinationSocket {
    /// A client that talks to the service at the other end. The stream may be non-blocking: that is
    /// changed when something is asked.
    pub fn new(stream: UnixStream) -> RestartCoordinationSocket {
        RestartCoordinationSocket(Client::new(stream, Duration::ZERO, None))
    }

    /// Asks for a restart and waits for its end: as [`request_restart`] does by path.
    ///
    /// # Errors
    ///
    /// See [`RequestError`].
    pub fn request_restart(&mut self, limit: Duration, mut progress: impl FnMut(&str)) -> Result<u32, RequestError> {
        let response = self.ask(limit, &Request::Restart { progress: true })?;
        self.0.outcome(response, &mut progress)
    }

    /// Asks where the service stands: as [`request_status`] does by path.
    ///
    /// # Errors
    ///
    /// See [`RequestError`].
    pub fn request_status(&mut self, limit: Duration) -> Result<Status, RequestError> {
        let response = self.ask(limit, &Request::Status)?;
        Client::status(response)
    }

    fn ask(&mut self, limit: Duration, request: &Request) -> Result<Response, RequestError> {
        self.0.stream.set_nonblocking(false).map_err(RequestError::Unreachable)?;
        self.0.begin(limit, Instant::now().checked_add(limit));
        self.0.ask_once(request).map_err(Client::gone)
    }
}

impl From<UnixStream> for RestartCoordinationSocket {
    fn from(stream: UnixStream) -> RestartCoordinationSocket {
        RestartCoordinationSocket::new(stream)
    }
}

impl RestartConfig {
    /// Asks the service that runs with this configuration for a restart, over its coordination socket, and waits for its end: the ready
    /// timeout, the probation, and some seconds. Returns the process id of the successor. What that says of itself meanwhile goes to the
    /// log; [`request_restart`] the function tells it to a callback.
    ///
    /// # Errors
    ///
    /// See [`RequestError`]. Without a coordination socket in the configuration the service is unreachable.
    pub fn request_restart(&self) -> Result<u32, RequestError> {
        let limit = self.ready_timeout.saturating_add(self.probation.unwrap_or_default()).saturating_add(MARGIN);
        request_restart(self.configured_socket()?, limit, |line| log::info!("{line}"))
    }

    /// Asks the service that runs with this configuration where it stands, over its coordination socket, and waits some seconds for the
    /// answer.
    ///
    /// # Errors
    ///
    /// See [`RequestError`]. Without a coordination socket in the configuration the service is unreachable.
    pub fn request_status(&self) -> Result<Status, RequestError> {
        request_status(self.configured_socket()?, MARGIN)
    }

    fn configured_socket(&self) -> Result<&Path, RequestError> {
        let why = || RequestError::Unreachable(io::Error::new(io::ErrorKind::NotFound, "no coordination socket is configured"));
        self.socket.as_deref().ok_or_else(why)
    }
}

/// How much longer than the service may take it is waited for.
const MARGIN: Duration = Duration::from_secs(10);
/// How soon a service that hung up, or its successor, is asked again.
const RETRY: Duration = Duration::from_millis(5);
/// For what is there already: std refuses a limit of zero.
const LAST_LOOK: Duration = Duration::from_micros(1);
/// How many of them: more than what the kernel holds takes.
const LAST_LOOKS: u32 = 128;

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    frames: Frames,
    limit: Duration,
    deadline: Option<Instant>,
    /// After the deadline, for what has come before it.
    last_looks: u32,
}

/// Why there is no answer.
enum Lost {
    /// The service hung up. `unread`: before it had read the request.
    HungUp {
        error: io::Error,
        unread: bool,
    },
    Error(RequestError),
}

impl From<RequestError> for Lost {
    fn from(error: RequestError) -> Lost {
        Lost::Error(error)
    }
}

impl Client {
    /// Asks, and returns the first answer. A process that hands over may have taken the connection in and end before it reads the
    /// request; then its successor is asked. One under attack may have needed the place for others; then it is asked again.
    fn ask(path: &Path, limit: Duration, request: &Request) -> Result<(Client, Response), RequestError> {
        let deadline = Instant::now().checked_add(limit);
        let mut request = request.clone();
        loop {
            let mut client = Client::connect(path, limit, deadline)?;
            match client.ask_once(&request) {
                Ok(response) => return Ok((client, response)),
                Err(Lost::HungUp { unread, .. }) if unread || request == Request::Status => thread::sleep(RETRY),
                // shellflip hangs up on what it does not know, and has not tried it then.
                Err(Lost::HungUp { .. }) if matches!(request, Request::Restart { .. }) && Client::is_plain(path, deadline) => {
                    request = Request::TryRestart;
                }
                Err(lost) => return Err(Client::gone(lost)),
            }
        }
    }

    fn ask_once(&mut self, request: &Request) -> Result<Response, Lost> {
        // Even one that does not read the request may have said why.
        let written = self.write(request);
        self.answer().map_err(|lost| written.err().unwrap_or(lost))
    }

    /// Whether the service there hangs up on a question that every service of ours answers.
    fn is_plain(path: &Path, deadline: Option<Instant>) -> bool {
        let limit = Duration::from_secs(1);
        let deadline = [deadline, Instant::now().checked_add(limit)].into_iter().flatten().min();
        let asked = Client::connect(path, limit, deadline).map(|mut client| client.ask_once(&Request::Status));
        matches!(asked, Ok(Err(Lost::HungUp { unread: false, .. })))
    }

    fn connect(path: &Path, limit: Duration, deadline: Option<Instant>) -> Result<Client, RequestError> {
        let stream = unix_client(path, SockType::Stream, deadline).map(UnixStream::from).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "is the service running, with this coordination socket?".into(),
                io::ErrorKind::ConnectionRefused if fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket()) => {
                    "it is no socket; is that the path of a coordination socket?".into()
                }
                io::ErrorKind::ConnectionRefused => "nobody serves it any more; is the service running?".into(),
                io::ErrorKind::PermissionDenied => Client::who_can_reach(path),
                io::ErrorKind::TimedOut => "the service does not take connections in; is it stopped or overloaded?".into(),
                _ => "is that the path of a coordination socket?".into(),
            };
            let text = format!("cannot reach a service at {}: {error}; {hint}", path.display());
            RequestError::Unreachable(io::Error::new(error.kind(), text))
        })?;
        stream.set_nonblocking(false).map_err(RequestError::Unreachable)?;
        Ok(Client::new(stream, limit, deadline))
    }

    fn new(stream: UnixStream, limit: Duration, deadline: Option<Instant>) -> Client {
        Client { stream, frames: Frames::default(), limit, deadline, last_looks: LAST_LOOKS }
    }

    /// For the next question.
    fn begin(&mut self, limit: Duration, deadline: Option<Instant>) {
        (self.limit, self.deadline, self.last_looks) = (limit, deadline, LAST_LOOKS);
    }

    /// How the restart ends that was asked for.
    fn outcome(&mut self, mut response: Response, progress: &mut dyn FnMut(&str)) -> Result<u32, RequestError> {
        loop {
            match response {
                Response::RestartComplete(pid) => return Ok(pid),
                Response::RestartFailed(why) => return Err(RequestError::Failed(why)),
                Response::RestartRefused(why) => return Err(RequestError::Refused(why)),
                Response::RestartImpossible(why) => return Err(RequestError::Impossible(why)),
                Response::Progress(line) => progress(&line),
                other => return Err(RequestError::Protocol(format!("{other:?} to a request for a restart"))),
            }
            response = self.answer().map_err(Client::gone)?;
        }
    }

    fn status(response: Response) -> Result<Status, RequestError> {
        match response {
            Response::Status(status) => Ok(*status),
            Response::RestartRefused(why) => Err(RequestError::Refused(why)),
            other => Err(RequestError::Protocol(format!("{other:?} to a request for the status"))),
        }
    }

    /// The user of the service need not be able to: the path is of the one that it had when it was made.
    fn who_can_reach(path: &Path) -> Cow<'static, str> {
        match fs::metadata(path).map(|found| found.uid()) {
            Ok(0) => "the path belongs to root: ask as root".into(),
            Ok(owner) => format!("the path belongs to user {owner}: ask as that user or as root").into(),
            Err(_) => "a directory on the way cannot be entered: ask as root".into(),
        }
    }

    /// What is left of the time; std refuses a limit of zero.
    fn left(&self) -> Result<Option<Duration>, RequestError> {
        match self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => Err(RequestError::TimedOut(self.limit)),
            left => Ok(left),
        }
    }

    fn write(&mut self, request: &Request) -> Result<(), Lost> {
        self.stream.set_write_timeout(self.left()?).map_err(RequestError::Unreachable)?;
        let frame = Coordination::Request(request.clone()).encode();
        let mut left = &frame[..];
        while !left.is_empty() {
            match sys::send_part(&self.stream, left) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<Response, Lost> {
        loop {
            let no_frame = |why| RequestError::Protocol(format!("{why}; is that the path of a coordination socket?"));
            if let Some(frame) = self.frames.next_frame().map_err(no_frame)? {
                return match Coordination::decode(&frame).map_err(RequestError::Protocol)? {
                    Coordination::Response(response) => Ok(response.on_lines()),
                    Coordination::Request(_) => Err(RequestError::Protocol("a request came as an answer".into()).into()),
                };
            }
            // What has come by the deadline is in time, although this process may have been stopped.
            let left = match self.left() {
                Err(_) if self.last_looks > 0 => {
                    self.last_looks -= 1;
                    Some(LAST_LOOK)
                }
                left => left?,
            };
            self.stream.set_read_timeout(left).map_err(RequestError::Unreachable)?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.frames.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
    }

    fn lost(&self, error: io::Error) -> Lost {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Lost::Error(RequestError::TimedOut(self.limit)),
            // It cannot be written any more, or was closed with something unread in it.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Lost::HungUp { error, unread: true },
            _ => Lost::HungUp { error, unread: false },
        }
    }

    fn gone(lost: Lost) -> RequestError {
        match lost {
            Lost::Error(error) => error,
            Lost::HungUp { error, .. } => RequestError::HungUp(error),
        }
    }
}
