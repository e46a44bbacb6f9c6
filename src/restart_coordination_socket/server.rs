//! The server: a listener and a slab of clients, never blocking, bounded in what it holds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::event::Source;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::libc;
use slab::Slab;

use crate::predecessor::Coordination;
use crate::sockets::{Directory, Found};
use crate::sys;
use crate::wire::{FileId, MAX_FRAME, Request, Response};

use super::client::{Client, Waits};
use super::door::Door;
use super::place::{bind_private, is_taken_away};

/// How many clients are talked to at a time.
const MOST_CLIENTS: usize = 64;
/// How long a client may take to say what it wants, and to read what it is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client keeps its place at least. One that has just connected must come to say what it wants; and 64 in this time is what a
/// flood of connections can have of the loop.
const GRACE: Duration = Duration::from_millis(10);
/// How many connections are taken in before others have their turn.
const TURN: usize = 16;
/// How long to leave the listener alone when this process has no descriptor left.
const RETRY: Duration = Duration::from_millis(100);

/// The server.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    /// What the path names: removed at the end if it still does.
    identity: Option<FileId>,
    /// The root directory in which the path means that.
    root: Option<FileId>,
    listener: Option<UnixListener>,
    /// The predecessor has it as well, and answers there.
    shared: bool,
    accepts: bool,
    retry_at: Option<Duration>,
    clients: Slab<Client>,
    /// How many have been taken in.
    admitted: u64,
    door: Door,
    /// The tokens of the clients begin here.
    first_token: usize,
}

/// One client: its slot, and what tells it from a later one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientId {
    key: usize,
    number: u64,
}

/// What a client asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    Restart(ClientId),
    Status(ClientId),
}

impl Server {
    /// A fresh listener at `path`.
    pub(crate) fn new(path: &Path, first_token: usize) -> io::Result<Server> {
        let (listener, identity) = bind_private(path)?;
        let root = sys::identity_of(Path::new("/"));
        let server = Server::inherited(Coordination { path: path.into(), identity: Some(identity), root, listener }, first_token);
        Ok(Server { shared: false, ..server })
    }

    /// Whether a predecessor's socket is the one at `path`: there may be two names for it, where a directory is a link to another.
    pub(crate) fn is_at(given: &Coordination, path: &Path) -> bool {
        let is_there = |path| given.identity.is_some() && sys::identity_of(path) == given.identity;
        given.path == path || (is_there(path) && is_there(&given.path))
    }

    /// The predecessor's listener, or a fresh one if nobody can get to that one any more. Where the path means something else, in another
    /// root, nothing is known of that.
    pub(crate) fn go_on(given: Coordination, first_token: usize) -> Server {
        let path = given.path.clone();
        let is_elsewhere = given.root.is_none() || given.root != sys::identity_of(Path::new("/"));
        // This process is configured with the path: what is there is taken for the predecessor's if that one could not look at it.
        let seen = || if is_elsewhere { None } else { sys::identity_of(&path) };
        let given = Coordination { identity: given.identity.or_else(seen), ..given };
        if is_elsewhere || given.identity.is_none_or(|own| !is_taken_away(&path, own)) {
            return Server::inherited(given, first_token);
        }
        match Server::new(&path, first_token) {
            Ok(server) => {
                log::warn!(target: "pollflip", "the coordination socket {} had been taken away; there is another one now", path.display());
                server
            }
            Err(error) => {
                log::error!(target: "pollflip", "nobody can ask at the coordination socket {} any more, until the service is started afresh: it had been taken away, and cannot be bound again: {error}", path.display());
                Server::inherited(given, first_token)
            }
        }
    }

    /// A listener that is there. It is the path's only as long as that is the same one.
    pub(crate) fn inherited(given: Coordination, first_token: usize) -> Server {
        Server {
            identity: given.identity,
            root: given.root,
            path: given.path,
            listener: Some(UnixListener::from_std(given.listener.into())),
            shared: true,
            accepts: false,
            retry_at: None,
            clients: Slab::new(),
            admitted: 0,
            door: Door::new(),
            first_token,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the predecessor takes in who asks here, as long as it lives.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// The predecessor does not, any more.
    pub(crate) fn answers_alone(&mut self) {
        self.shared = false;
    }

    /// What the path names, and the root directory in which it does.
    pub(crate) fn identities(&self) -> [Option<FileId>; 2] {
        [self.identity, self.root]
    }

    /// The listener, for the successor.
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Starts to take clients in, or tries it again a little later.
    pub(crate) fn open(&mut self, registry: &Registry, token: Token, now: Duration) {
        let waits = self.accepts || self.retry_at.is_some_and(|at| now < at);
        let Some(listener) = self.listener.as_mut().filter(|_| !waits) else { return };
        match sys::may_fail(&[libc::ENOMEM, libc::ENOSPC]).and_then(|()| listener.register(registry, token, Interest::READABLE)) {
            Ok(()) => self.accepts = true,
            Err(error) => {
                log::error!("cannot watch the coordination socket {}: {error}; trying again", self.path.display());
                self.retry_at = Some(now + RETRY);
            }
        }
    }

    /// The listener is the successor's from now on. It is deregistered first: the kernel keeps a closed descriptor in epoll while another
    /// process holds it. The clients stay until they have been answered.
    pub(crate) fn hand_over(&mut self, registry: &Registry) {
        if let Some(mut listener) = self.listener.take()
            && self.accepts
            && let Err(error) = listener.deregister(registry)
        {
            log::warn!("cannot deregister the coordination socket: {error}");
        }
        self.accepts = false;
        self.identity = None;
        // This process may end before it reads them, which would look like a crash.
        self.clients.retain(|_, client| {
            let why = || "this process has just been replaced: ask again".into();
            let Ok(Some(request)) = client.read() else { return true };
            match request {
                // A service that hangs up on this question is not the one to ask any more.
                Request::Status => return false,
                Request::TryRestart => client.tell(&Response::RestartFailed(why())),
                Request::Restart { .. } => client.tell(&Response::RestartRefused(why())),
            }
            client.ending = true;
            !client.is_over()
        });
    }

    /// Takes the path away, if it is still this server's.
    pub(crate) fn remove_path(&mut self) {
        self.remove_path_if(|_| true);
    }

    /// The same for a path that the predecessor has named and that this process is not configured with: if the socket belongs to this user,
    /// too. Anybody could have named it.
    pub(crate) fn remove_retired_path(&mut self) {
        self.remove_path_if(Found::is_own);
    }

    fn remove_path_if(&mut self, may_go: impl FnOnce(&Found) -> bool) {
        let Some(own) = self.identity.take() else { return };
        let is_ours = |found: &Found| found.identity == own && found.is_socket() && may_go(found);
        match Directory::of(&self.path).and_then(|(directory, name)| directory.remove(name, is_ours)) {
            Ok(true) => {}
            Ok(false) => log::info!("{} is left alone: it is not this service's socket any more, or another user's", self.path.display()),
            // Nor is the directory there any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::warn!("cannot remove {}: {error}", self.path.display()),
        }
    }

    /// When [`Server::expire`] is next needed.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.clients.iter().filter_map(|(_, client)| client.deadline).chain(self.retry_at).min()
    }

    /// Drops the clients whose time is over. `true`: it is time to accept again.
    pub(crate) fn expire(&mut self, now: Duration) -> bool {
        self.clients.retain(|_, client| client.deadline.is_none_or(|deadline| now < deadline));
        self.retry_at.take_if(|at| now >= *at).is_some()
    }

    /// Takes new clients in; most have said already what they want, and are to be read at once: before others can take their place.
    pub(crate) fn accept(&mut self, registry: &Registry, now: Duration) -> Vec<Token> {
        let mut newcomers = Vec::new();
        for _ in 0..TURN {
            let Some(listener) = self.listener.as_ref().filter(|_| self.accepts) else { return newcomers };
            let leaving = match self.first_to_leave() {
                _ if self.clients.len() < MOST_CLIENTS => None,
                Some((key, at)) if at <= now => Some(key),
                // The others stay where they are, in the kernel's queue.
                first => {
                    self.retry_at = Some(first.map_or(now + GRACE, |(_, at)| at));
                    return newcomers;
                }
            };
            let accepted = sys::may_fail(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ECONNABORTED]);
            match accepted.and_then(|()| listener.accept()) {
                Ok((stream, _)) => newcomers.extend(self.admit(stream, leaving, registry, now)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return newcomers,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    log::warn!("cannot take in who asks at {} (accept4): {error}; trying again", self.path.display());
                    self.retry_at = Some(now + RETRY);
                    return newcomers;
                }
            }
        }
        // There may be more, for which no event will come.
        self.retry_at = Some(now);
        newcomers
    }

    /// The client that has to go if somebody needs its place, and from when on: the oldest of those that wait for no restart. A client that has
    /// been answered can read the answer without it; one that has not been read can ask again, and our own client does.
    fn first_to_leave(&self) -> Option<(usize, Duration)> {
        let all = self.clients.iter().filter(|(_, client)| client.waits.is_none());
        all.map(|(key, client)| (key, client.since + GRACE)).min_by_key(|(_, at)| *at)
    }

    /// Takes a client in, in the place of the one `leaving`, or tells it why not.
    fn admit(&mut self, stream: UnixStream, leaving: Option<usize>, registry: &Registry, now: Duration) -> Option<Token> {
        self.admitted += 1;
        let mut client = Client::new(stream, self.admitted, now, now + PATIENCE);
        if let Some(why) = self.door.refusal(&client.stream, now) {
            client.tell(&Response::RestartRefused(why));
            return None;
        }
        if let Some(key) = leaving {
            self.clients.remove(key);
        }
        let slot = self.clients.vacant_entry();
        let token = Token(self.first_token + slot.key());
        let watched = sys::may_fail(&[libc::ENOMEM, libc::ENOSPC]);
        match watched.and_then(|()| client.stream.register(registry, token, Interest::READABLE | Interest::WRITABLE)) {
            Ok(()) => {
                slot.insert(client);
                Some(token)
            }
            Err(error) => {
                log::warn!("cannot watch a client of the coordination socket: {error}");
                None
            }
        }
    }

    /// Writes to and reads from the client of that token; returns what it wants.
    pub(crate) fn client(&mut self, token: Token, now: Duration) -> Option<Asked> {
        let key = token.0.checked_sub(self.first_token)?;
        let client = self.clients.get_mut(key)?;
        client.write();
        let request = client.read().unwrap_or_else(|why| {
            client.tell(&Response::RestartFailed(format!("the request makes no sense: {why}")));
            client.ending = true;
            client.deadline = Some(now + PATIENCE);
            None
        });
        let id = ClientId { key, number: client.number };
        let asked = request.map(|request| match request {
            Request::Status => Asked::Status(id),
            Request::TryRestart | Request::Restart { .. } => {
                let progress = request == Request::Restart { progress: true };
                client.waits = Some(Waits { progress, plain: request == Request::TryRestart });
                client.deadline = None;
                Asked::Restart(id)
            }
        });
        if client.is_over() {
            self.clients.remove(key);
        }
        asked
    }

    /// Answers that client, if it has not left. Returns its token if it may have asked for something else already.
    pub(crate) fn answer(&mut self, ClientId { key, number }: ClientId, response: Response, now: Duration) -> Option<Token> {
        let client = self.clients.get_mut(key).filter(|client| client.number == number)?;
        let plain = client.waits.take().is_some_and(|waits| waits.plain);
        client.tell(&match response {
            Response::RestartRefused(why) | Response::RestartImpossible(why) if plain => Response::RestartFailed(why),
            response => response,
        });
        client.deadline = Some(now + PATIENCE);
        if client.is_over() {
            self.clients.remove(key);
            return None;
        }
        Some(Token(self.first_token + key))
    }

    /// Tells all who want to know how far the restart is.
    pub(crate) fn progress(&mut self, text: &str) {
        for (_, client) in &mut self.clients {
            // What a client does not read must not pile up.
            if client.waits.as_ref().is_some_and(|waits| waits.progress) && client.out.len() < MAX_FRAME {
                client.tell(&Response::Progress(text.into()));
            }
        }
    }
}
