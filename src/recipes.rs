//! Recipes: how programs of other shapes than one loop with one listener restart.
//!
//! - [A loop that drains its connections](#a-loop-that-drains-its-connections)
//! - [A service that comes back from a kill](#a-service-that-comes-back-from-a-kill)
//! - [Several threads](#several-threads)
//! - [A listener for each thread](#a-listener-for-each-thread)
//! - [Another address](#another-address)
//! - [UDP: three ways through a restart](#udp-three-ways-through-a-restart)
//! - [UDP flows that outlive a kill](#udp-flows-that-outlive-a-kill)
//! - [QUIC](#quic)
//! - [A multicast group](#a-multicast-group)
//! - [A library that blocks in accept](#a-library-that-blocks-in-accept)
//! - [io_uring](#io_uring)
//! - [TLS](#tls)
//! - [A game loop at a fixed tick](#a-game-loop-at-a-fixed-tick)
//! - [Locks and embedded databases](#locks-and-embedded-databases)
//! - [Child processes](#child-processes)
//! - [Ports that a library binds](#ports-that-a-library-binds)
//! - [Affinity and scheduling](#affinity-and-scheduling)
//!
//! All of them follow from two rules. Until [`Restarter::ready`](crate::Restarter::ready) has
//! returned, the successor touches nothing that the predecessor still uses. From
//! [`Event::HandedOff`](crate::Event::HandedOff) on, the predecessor takes no new work.
//!
//! The orders of locks, listeners, addresses, children and processors are kept by tests through
//! many restarts, and through restarts that fail (`tests/promises/recipes`).
//!
//! # A loop that drains its connections
//!
//! Connections that are not handed over are finished by the predecessor. A client that never hangs
//! up would keep that process alive without end, so the drain has a time limit. It begins at
//! [`Event::Completed`](crate::Event::Completed), and is the timeout of the poll from then on.
//!
//! ```no_run
//! use std::{collections::HashMap, error, io, time::{Duration, Instant}};
//! use mio::{Events, Interest, Poll, Token, net::{TcpListener, TcpStream}};
//! use pollflip::{Event, Gate, RestartConfig};
//!
//! fn main() -> Result<(), Box<dyn error::Error>> {
//!     let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
//!     let mut restarter = RestartConfig::new().build()?;
//!     poll.registry().register(&mut restarter, Token(1), Interest::READABLE)?;
//!     let listener = restarter.sockets().tcp_listener("echo", "127.0.0.1:7000")?;
//!     let mut gate = Gate::new(TcpListener::from_std(listener), Token(0));
//!     restarter.ready()?;
//!     gate.follow(&restarter, poll.registry())?;
//!     let mut clients: HashMap<Token, TcpStream> = HashMap::new();
//!     let mut tokens = (2..).map(Token);
//!     let mut drain_ends: Option<Instant> = None;
//!     loop {
//!         let left = drain_ends.map(|end| end.saturating_duration_since(Instant::now()));
//!         if left.is_some_and(|left| clients.is_empty() || left.is_zero()) {
//!             return Ok(()); // clients that are still there are cut off
//!         }
//!         match poll.poll(&mut events, left) {
//!             Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
//!             _ => {}
//!         }
//!         while let Some(event) = restarter.poll() {
//!             gate.follow(&restarter, poll.registry())?;
//!             if let Event::Completed(_) = event {
//!                 drain_ends = Some(Instant::now() + Duration::from_secs(30));
//!             }
//!         }
//!         while let Ok(Some((mut client, _))) = gate.accept() {
//!             let token = tokens.next().expect("they do not run out");
//!             poll.registry().register(&mut client, token, Interest::READABLE)?;
//!             clients.insert(token, client);
//!         }
//!         for event in &events {
//!             let is_over = clients.get_mut(&event.token()).is_some_and(serve);
//!             if is_over && let Some(mut client) = clients.remove(&event.token()) {
//!                 poll.registry().deregister(&mut client)?;
//!             }
//!         }
//!     }
//! }
//!
//! /// Reads and answers until `WouldBlock`; `true`: the client has hung up.
//! fn serve(client: &mut TcpStream) -> bool {
//!     # let _ = client;
//!     unimplemented!()
//! }
//! ```
//!
//! - A client that is idle between two requests can be told to come again (`Connection: close`) or
//!   be hung up on at `Completed`: the drain is shorter then.
//! - The restarter is polled during the drain too:
//!   [`SuccessorGone`](crate::Event::SuccessorGone) may come.
//! - `examples/tcp_proxy.rs` is a whole program that drains.
//!
//! # A service that comes back from a kill
//!
//! Three things work together. [`RestartConfig::keep`](crate::RestartConfig::keep) has the
//! listeners held. The [`Keeper`](crate::Keeper) has the connections and the ledger held. The
//! [`Ledger`](crate::ledger::Ledger) knows how far each connection is. The
//! [guide](crate::guide#when-the-service-is-killed) says what starts the service again. A whole
//! server with a loop is `examples/comes_back.rs`; this is the order of the calls:
//!
//! ```no_run
//! use std::{error, net::TcpStream, time::Duration};
//! use pollflip::ledger::{Account, Ledger, Recovered, Scope};
//! use pollflip::{Error, Keeper, RestartConfig};
//!
//! type Open = Account<TcpStream>;
//!
//! /// For a connection that is new, was handed over, or has outlived a process. `None`: it ends. No
//! /// client can end the process, however many there are.
//! fn go_on(keeper: &Keeper, ledger: &Ledger, stream: TcpStream) -> Option<Open> {
//!     let _ = stream.set_nodelay(true);
//!     let _ = keeper.keep_stream(&stream); // then its account: killed in between, it is `Untouched`
//!     let account = match ledger.recover(stream) {
//!         Ok(Recovered::Even(account) | Recovered::Behind(account)) => Ok(account),
//!         Ok(Recovered::Untouched(stream)) if ledger.free() > 0 => ledger.begin(stream, b"the first state"),
//!         Ok(other) => {
//!             keeper.forget_stream(&other.into_connection());
//!             return None;
//!         }
//!         Err(failed) => Err(failed),
//!     };
//!     account.map_err(|failed| keeper.forget_stream(&failed.connection)).ok()
//! }
//!
//! fn end(keeper: &Keeper, account: Open) {
//!     let stream = account.close(); // first: killed here, the next process finds it over
//!     keeper.forget_stream(&stream);
//! }
//!
//! fn main() -> Result<(), Box<dyn error::Error>> {
//!     let mut restarter = RestartConfig::new().keep(true).build()?;
//!     let keeper = restarter.keeper();
//!     let ledger = match keeper.take("ledger").map(|file| Ledger::open("echo.v1", file)) {
//!         Some(Ok(ledger)) => ledger,
//!         Some(Err(error)) if restarter.predecessor().is_some() => return Err(error.into()),
//!         _ => Ledger::new("echo.v1", 10_000, 4_096)?, // none, of another release, or damaged
//!     };
//!     keeper.keep("ledger", &ledger)?;
//!     let listener = restarter.sockets().tcp_listener("echo", "127.0.0.1:7000")?;
//!     let mut accounts = Vec::new();
//!     match restarter.predecessor().map(|old| old.receive(Duration::from_secs(5))) {
//!         None | Some(Err(Error::PredecessorGone { .. })) => {}
//!         Some(state) => {
//!             for (_, stream) in state?.drain() {
//!                 accounts.extend(go_on(&keeper, &ledger, stream.into()));
//!             }
//!         }
//!     }
//!     // None while a predecessor serves.
//!     if let Some(mut survivors) = restarter.survivors() {
//!         let judgement = ledger.judge(survivors.cause())?;
//!         if judgement.scope != Scope::All && !judgement.is_strike {
//!             survivors.absolve();
//!         }
//!         for survivor in survivors.streams() {
//!             accounts.extend(go_on(&keeper, &ledger, survivor.into()));
//!         }
//!         ledger.close_unclaimed()?;
//!     }
//!     restarter.ready()?;
//!     // What is behind, which nobody may write as long as a predecessor serves.
//!     for mut account in accounts {
//!         if account.flush().is_err() {
//!             end(&keeper, account);
//!         } // else it is registered and served by `advance`
//!     }
//!     # drop(listener);
//!     Ok(())
//! }
//! ```
//!
//! - At [`StateRequested`](crate::Event::StateRequested) the program gives the
//!   [connection](crate::ledger::Account::connection) of each account. It needs the accounts at
//!   [`Failed`](crate::Event::Failed). The ledger goes along on its own, as all that has a name.
//! - At [`Completed`](crate::Event::Completed) it drops its accounts, without closing them.
//! - At [`PredecessorGone`](crate::Event::PredecessorGone) it asks for
//!   [survivors](crate::Restarter::survivors) once more, and does the same with them: the predecessor
//!   may have been killed after the first look.
//! - An error of `keep_stream` means that the connection does not outlive a kill. A program can
//!   serve it all the same.
//! - After [`Scope::NotStreams`](crate::ledger::Scope::NotStreams) and `Scope::Listeners` a
//!   survivor that is `Untouched` is shut down too:
//!   [`Ledger::judge`](crate::ledger::Ledger::judge).
//!
//! # Several threads
//!
//! One thread has the [`Restarter`](crate::Restarter). The others are told to stop accepting, and
//! they end when their connections have. [`shutdown`](crate::shutdown) does both without a runtime:
//! its signal is a `mio::event::Source`.
//!
//! ```no_run
//! use std::{error, io, net, thread, time::Duration};
//! use mio::{Events, Interest, Poll, Token, net::TcpListener};
//! use pollflip::{Event, RestartConfig, Shutdown, ShutdownCoordinator, ShutdownHandle};
//!
//! fn main() -> Result<(), Box<dyn error::Error>> {
//!     let mut restarter = RestartConfig::new().build()?;
//!     let listener = restarter.sockets().tcp_listener("web", "127.0.0.1:8080")?;
//!     restarter.ready()?; // before a worker accepts
//!     let (mut working, mut ending): (_, Option<Shutdown>) = (Some(start_workers(&listener)?), None);
//!     while let Some(event) = restarter.wait(Duration::MAX) {
//!         match event {
//!             Event::HandedOff(_) => ending = working.take().map(ShutdownCoordinator::shutdown),
//!             Event::Resumed(_) => working = Some(start_workers(&listener)?), // only with a probation
//!             Event::Completed(_) => break,
//!             _ => {}
//!         }
//!     }
//!     match ending.map(|shutdown| shutdown.wait(Duration::from_secs(30))) {
//!         Some(Err(workers)) => Err(format!("{workers} workers did not end in time").into()),
//!         _ => Ok(()),
//!     }
//! }
//!
//! fn start_workers(listener: &net::TcpListener) -> io::Result<ShutdownCoordinator> {
//!     let coordinator = ShutdownCoordinator::new();
//!     for _ in 0..4 {
//!         // A duplicate: all workers accept from one queue.
//!         let (listener, handle) = (TcpListener::from_std(listener.try_clone()?), coordinator.handle());
//!         thread::spawn(move || worker(listener, handle));
//!     }
//!     Ok(coordinator)
//! }
//!
//! fn worker(mut listener: TcpListener, handle: ShutdownHandle) -> io::Result<()> {
//!     const LISTENER: Token = Token(0);
//!     const STOP: Token = Token(1);
//!     let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
//!     let mut stop = handle.signal();
//!     poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
//!     poll.registry().register(&mut stop, STOP, Interest::READABLE)?;
//!     loop {
//!         match poll.poll(&mut events, None) {
//!             Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
//!             _ => {}
//!         }
//!         for event in &events {
//!             match event.token() {
//!                 // Another worker may have been quicker: that is `WouldBlock`.
//!                 LISTENER => while let Ok((connection, _)) = listener.accept() { /* serve it */ drop(connection) },
//!                 // Deregistered before it is closed: the successor has it too, and epoll would go on telling of it.
//!                 _ => return poll.registry().deregister(&mut listener), // a real worker finishes its connections first
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! # A listener for each thread
//!
//! With `SO_REUSEPORT` the kernel spreads connections over all listeners of an address. Each has a
//! queue of its own. A connection in the queue of a listener that nobody holds any more is reset.
//! So a group grows and shrinks like this:
//!
//! - The successor takes over all listeners that its predecessor has, also if it has fewer threads:
//!   one thread then serves several.
//! - It binds additional ones when it serves. If it bound them earlier, connections would wait in
//!   them, and be lost if the attempt fails.
//!
//! ```no_run
//! use std::{io, net::{SocketAddr, TcpListener}, os::fd::AsRawFd};
//! use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage};
//! use nix::sys::socket::{bind, listen, setsockopt, socket, sockopt};
//! use pollflip::{Error, Restarter};
//!
//! /// As many as are wanted, and more if there were more before. Calls `ready`.
//! fn group(restarter: &mut Restarter, address: SocketAddr, wanted: usize) -> Result<Vec<TcpListener>, Error> {
//!     let mut listeners = Vec::new();
//!     let adopted = restarter.sockets().unclaimed();
//!     for name in adopted.iter().filter(|name| name.starts_with("web ")) {
//!         listeners.push(restarter.sockets().or_insert_with(name, || with_reuse_port(address))?);
//!     }
//!     restarter.ready()?;
//!     for name in (0..wanted).map(|number| format!("web {number}")).filter(|name| !adopted.contains(name)) {
//!         listeners.push(restarter.sockets().or_insert_with(&name, || with_reuse_port(address))?);
//!     }
//!     Ok(listeners)
//! }
//!
//! fn with_reuse_port(address: SocketAddr) -> io::Result<TcpListener> {
//!     let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
//!     let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
//!     let socket = socket(family, SockType::Stream, flags, None)?;
//!     setsockopt(&socket, sockopt::ReuseAddr, &true)?;
//!     setsockopt(&socket, sockopt::ReusePort, &true)?;
//!     bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
//!     listen(&socket, Backlog::MAXCONN)?;
//!     Ok(socket.into())
//! }
//! ```
//!
//! With a probation, additional ones are bound at [`Committed`](crate::Event::Committed): what
//! waits in them is reset if the successor dies. A group is made smaller by a fresh start, or where
//! `net.ipv4.tcp_migrate_req` is 1.
//!
//! # Another address
//!
//! A new address that has nothing to do with the old one is bound before `ready`, under another
//! name. One that overlaps it (`127.0.0.1:80` and `0.0.0.0:80`) cannot be bound as long as the
//! predecessor listens: without more it is bound at
//! [`PredecessorGone`](crate::Event::PredecessorGone), and until then nobody listens there, or only
//! the old one does. Without a gap it is the recipe for groups, with a name for each address, such
//! as `web 0.0.0.0:80`:
//!
//! 1. The successor takes over what the predecessor has, and accepts from it.
//! 2. After [`ready`](crate::Restarter::ready) it sets `SO_REUSEPORT` on that, in case the release
//!    before has not.
//! 3. It binds the new address with `SO_REUSEPORT`, and accepts from both. The kernel prefers the
//!    listener with the narrower address.
//!
//! The old listener stays: connections wait in it. Where an address must not be served any more,
//! the listener is [removed](crate::Sockets::remove) and closed when nothing has come on it for a
//! while.
//!
//! # UDP: three ways through a restart
//!
//! One UDP socket serves all flows. Two processes that read it take each other's datagrams, so a
//! predecessor that shares it stops reading at [`HandedOff`](crate::Event::HandedOff), and its flows
//! end unless something is done for them:
//!
//! | | the state is handed over | marks | a relay |
//! | --- | --- | --- | --- |
//! | with | [`udp_socket`](crate::Sockets::udp_socket), [`Handover`](crate::Handover) | [`udp_group`](crate::Sockets::udp_group) | `udp_socket`, and a pair of sockets between both processes |
//! | the protocol needs | a state that can be written down | four bits that clients send back, or connection IDs of the server | a way to tell "not mine" |
//! | an old flow, per datagram | nothing | a few 10 ns more for all | a copy, and both processes awake |
//! | the old process | ends at once | goes on until its flows have ended | the same |
//! | the new process is stopped | all flows stop | old flows go on | all flows stop |
//! | a kept service is killed | its flows go on if the state was kept | old flows go on; those of the killed process as with the state, or they are told | its flows are told |
//! | the old process is killed | – | what it has not read is read, its flows are told | the same, but for what is in the relay |
//! | for | games, DNS, everything short | QUIC, long flows | protocols without a mark, sandboxes without classic BPF |
//! | example | `udp_game` | `udp_flows`, and `examples/quic` for [QUIC](#quic) | `udp_relay` |
//!
//! With marks the program goes on reading after `HandedOff`, and ends when its last flow has. A
//! datagram of a flow that it does not know is answered with "begin anew": a reset, a version
//! negotiation, or something else that makes a client start over. The clients of a generation that
//! was killed get that answer at once. What lay unread in its socket is read by the process that
//! serves ([`recv_orphaned`](crate::UdpGroup::recv_orphaned)), and what these clients send later
//! comes to that process too, as what is unmarked does. Datagrams are lost that the killed process
//! had read and not answered.
//!
//! If the process that serves is killed, all datagrams wait for the next start, which has the same
//! mark if the service is [kept](crate::guide#when-the-service-is-killed).
//! [`UdpGroup`](crate::UdpGroup) lists what a group cannot do, connected sockets above all.
//!
//! Whichever of the three it is, the loop reads a bounded number of datagrams in one turn. A socket that is
//! read until it is empty can be flooded, and the restarter waits for the end of the turn. Under a flood, on
//! a busy machine, a turn of `udp_relay` took 8 to 44 ms without a bound; with 64 datagrams it takes 0.2 ms.
//!
//! A restart can turn a plain socket into a group: the new release asks for a `udp_group` of the
//! same name. Its user must be the one that bound the socket, and must be allowed to bind the port.
//! A later release can ask for a `udp_socket` of that name again: it gets one socket of the group,
//! and the others go on for the earlier generations.
//!
//! # UDP flows that outlive a kill
//!
//! With [`RestartConfig::keep`](crate::RestartConfig::keep) a killed service gets its group back. Its
//! flows go on if their state is in a file that the service [keeps](crate::Keeper::keep), a memory file
//! say. The file belongs to one process. A successor is given the file of its predecessor under the
//! name too, and must not use it: the predecessor goes on with those flows. So a process uses the file
//! only where there are [survivors](crate::Restarter::survivors), and otherwise keeps one of its own
//! under the same name:
//!
//! ```no_run
//! use std::{error, fs::File, io, time::Duration};
//! use nix::sys::memfd::{MFdFlags, memfd_create};
//! use pollflip::{Error, Mark, RestartConfig};
//!
//! /// Room for the flows: an id and what belongs to it, one record for each.
//! fn table() -> io::Result<File> {
//!     let file = File::from(memfd_create(c"flows", MFdFlags::MFD_CLOEXEC)?);
//!     file.set_len(4_096 * 64)?;
//!     Ok(file)
//! }
//!
//! fn main() -> Result<(), Box<dyn error::Error>> {
//!     let mut restarter = RestartConfig::new().keep(true).build()?;
//!     let keeper = restarter.keeper();
//!     let group = restarter.sockets().udp_group("game", "0.0.0.0:7777", Mark::byte(0, 0xf0))?;
//!     // No state comes, but whether the predecessor lives: it may have been killed meanwhile.
//!     match restarter.predecessor().map(|old| old.receive(Duration::from_secs(5))) {
//!         None | Some(Ok(_) | Err(Error::PredecessorGone { .. })) => {}
//!         Some(Err(why)) => return Err(why.into()),
//!     }
//!     let flows = match (restarter.survivors(), keeper.take("flows")) {
//!         (Some(_), Some(file)) => File::from(file), // of the process that was killed
//!         _ => table()?,
//!     };
//!     keeper.keep("flows", &flows)?;
//!     restarter.ready()?;
//!     // Each record is written at its place before the datagram is answered. The answer bears the
//!     // mark of this process, which after a kill in the middle of a restart is another than before.
//!     # drop(group);
//!     Ok(())
//! }
//! ```
//!
//! - At [`StateRequested`](crate::Event::StateRequested) the predecessor only calls
//!   [`send`](crate::Handover::send). It goes on with its flows.
//! - A datagram that was read and not answered is lost in a kill. The client sends it again, so each has
//!   a number, and one that comes twice changes nothing.
//! - The flows of an earlier generation that is killed begin anew, and those of a predecessor that is
//!   killed after `receive` and before it has handed the service over.
//!
//! # QUIC
//!
//! Keys and streams cannot go over, so connections stay with their generation, by marks in the connection
//! IDs that the server gives out. `examples/quic` is a server and a client on quinn-proto and this crate;
//! its tests stop a restart at each place where something of a connection can be on its way.
//!
//! | what | what the server does | what becomes of it over a restart |
//! | --- | --- | --- |
//! | a connection | [stamps](crate::UdpGroup::stamp) each ID that it gives out, of 7 bytes: see [`Mark::quic`](crate::Mark::quic) | stays, also when the client moves to another address |
//! | a client's first datagram | accepts, after [`HandedOff`](crate::Event::HandedOff) too: some are queued | belongs to the generation that serves when it comes |
//! | the same, repeated over the restart or cut in two by it | answers with a Retry for some 10 s after it was given the service | a client goes by the answer that was first. Without a Retry both generations begin a connection with the same keys, and not every client can keep the two apart |
//! | a handshake | counts it among the connections for which it waits | goes on with the generation that has answered |
//! | a Retry, an address token | has one key for all generations, from a file or handed over | is good for the next one |
//! | early data, resumption | nothing, unless the ticket keys are [shared](#tls) | a full handshake once; early data are sent again |
//! | clients that stay | tells them to ask elsewhere (GOAWAY of HTTP/3) at [`Completed`](crate::Event::Completed), closes those that are left after a time | their next request begins anew |
//! | clients of a generation that was killed | has one key for stateless resets, reads [what is left](crate::UdpGroup::recv_orphaned) | are told as soon as they send something. Only a handshake of which the server's part was not whole is lost silently |
//! | a datagram for another generation | drops what [`owner`](crate::UdpGroup::owner) gives to another, and what has a short header and is unmarked unless it serves | without that, a reset could end a connection that is alive |
//!
//! # A multicast group
//!
//! A socket that is inherited is in its groups already, and joining one again is an error
//! (`EADDRINUSE`): see [`udp_socket`](crate::Sockets::udp_socket).
//!
//! # A library that blocks in accept
//!
//! Nobody tells such a library of a restart, so it keeps accepting after the successor has the service.
//! Do not wake it by `shutdown` of the listener: both processes have the same listener, and the
//! successor could not accept any more. Accept in the program, and give the library connections:
//!
//! ```
//! use std::{io, net::{TcpListener, TcpStream}, os::{fd::AsFd, unix::net::UnixStream}, thread};
//! use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
//!
//! /// Accepts until the other end of `stop` is dropped: at `HandedOff`.
//! fn accept(listener: TcpListener, stop: UnixStream, mut serve: impl FnMut(TcpStream)) -> io::Result<()> {
//!     loop {
//!         let mut both = [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
//!         match poll(&mut both, PollTimeout::NONE) {
//!             Err(nix::errno::Errno::EINTR) => continue,
//!             result => result?,
//!         };
//!         if both[1].any() == Some(true) {
//!             return Ok(());
//!         }
//!         match listener.accept() { // non-blocking, as `Sockets` binds it; the connection blocks
//!             Ok((connection, _)) => serve(connection),
//!             Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // the other process has it
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//!
//! # fn main() -> io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:0")?; // or the one of `Sockets`
//! # listener.set_nonblocking(true)?;
//! # let address = listener.local_addr()?;
//! let (keep, stop) = UnixStream::pair()?;
//! let acceptor = thread::spawn(move || accept(listener, stop, |connection| drop(connection)));
//! # TcpStream::connect(address)?;
//! drop(keep); // at `HandedOff`
//! acceptor.join().expect("no panic")?;
//! # Ok(())
//! # }
//! ```
//!
//! A library that insists on a listener gets one of its own, a unix socket in a private directory,
//! and this thread forwards.
//!
//! # io_uring
//!
//! - The restarter's descriptor is polled by `IORING_OP_POLL_ADD`. After each completion call
//!   [`poll`](crate::Restarter::poll) until it returns `None`, then submit the next one.
//! - At [`HandedOff`](crate::Event::HandedOff), cancel the accepts (`IORING_OP_ASYNC_CANCEL`) and
//!   wait for their completions. An accept that completes meanwhile has brought a connection: serve
//!   it.
//! - At [`StateRequested`](crate::Event::StateRequested), cancel all reads and writes on what is
//!   handed over, and wait for the completions *before* the state is saved. What a read has brought
//!   is state: the successor cannot read it again.
//! - The ring itself, registered files and registered buffers do not go over. A successor makes its
//!   own.
//!
//! # TLS
//!
//! | what | becomes of it |
//! | --- | --- |
//! | live connections | stay with the predecessor, which finishes them: their keys are in the memory of the TLS library. Drain them under a time limit |
//! | resumption by tickets | goes on if both processes have the same ticket keys: hand them over as a blob, or derive them from a file. Otherwise each client makes a full handshake once |
//! | resumption by session ids | the cache in memory is lost: a full handshake once |
//! | certificates | read by the successor at its start: a restart renews them |
//!
//! # A game loop at a fixed tick
//!
//! Three things keep a restart from being seen: the next tick stays where it was, no datagram is
//! lost while the world stands still, and the pause is as long as the handover and no longer.
//! `examples/integrations/game_loop` prints the frame times.
//!
//! ```
//! use std::time::Duration;
//! use nix::time::{ClockId, clock_gettime};
//! use pollflip::{Handover, Inheritance};
//!
//! /// Both processes have this clock. An `Instant` cannot be handed over.
//! fn now() -> Duration {
//!     Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"))
//! }
//!
//! fn save(mut handover: Handover, next_tick: Duration) -> std::io::Result<()> {
//!     handover.bytes("next_tick", &(next_tick.as_nanos() as u64).to_le_bytes())?;
//!     handover.send();
//!     Ok(())
//! }
//!
//! fn load(inheritance: &mut Inheritance) -> std::io::Result<Duration> {
//!     let bytes = inheritance.bytes("next_tick")?.and_then(|bytes| bytes.try_into().ok());
//!     Ok(bytes.map_or_else(now, |bytes| Duration::from_nanos(u64::from_le_bytes(bytes))))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let next_tick = now() + Duration::from_millis(16);
//! let mut inheritance = Handover::rehearse(|handover| save(handover, next_tick).expect("a save"))?;
//! assert_eq!(load(&mut inheritance)?, next_tick);
//! # Ok(())
//! # }
//! ```
//!
//! - While the world stands still, the predecessor calls
//!   [`wait`](crate::Restarter::wait)`(next_tick - now)` in the place of its sleep.
//! - What comes meanwhile waits in the socket, if there is room: set SO_RCVBUF to at least
//!   (datagrams a second) × (pause in seconds) × 2 KiB, and raise `net.core.rmem_max` where it is
//!   lower.
//!
//! # Locks and embedded databases
//!
//! A database or a single instance has a lock that only one process can have. Before
//! [`ready`](crate::Restarter::ready) has returned, the predecessor still has it, and a successor
//! that waits for it is never ready. Right after `ready` it may still have it. Two orders never
//! collide:
//!
//! | order | the predecessor lets it go at | the successor takes it | who has it meanwhile |
//! | --- | --- | --- | --- |
//! | with the state | [`StateRequested`](crate::Event::StateRequested), before it [sends](crate::Handover::send) | after [`receive`](crate::Predecessor::receive), before `ready` | nobody from then on until the successor takes it: the service stands still anyway |
//! | with the service | [`HandedOff`](crate::Event::HandedOff) | at [`Committed`](crate::Event::Committed) | nobody between the two, during a whole probation too |
//!
//! In both the predecessor takes the lock again at [`Failed`](crate::Event::Failed) and at
//! [`Resumed`](crate::Event::Resumed), if it has let it go: the successor has ended by then. The
//! first process takes the lock at its start. With the state:
//!
//! ```no_run
//! use std::time::Duration;
//! use pollflip::{Event, RestartConfig};
//!
//! # use std::fs::File;
//! # fn lock() -> std::io::Result<File> { unimplemented!() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut restarter = RestartConfig::new().build()?;
//! if let Some(predecessor) = restarter.predecessor() {
//!     predecessor.receive(Duration::from_secs(5))?;
//! }
//! // By flock, or as a database opens its store.
//! let mut held = Some(lock()?);
//! restarter.ready()?;
//! loop {
//!     match restarter.wait(Duration::from_secs(1)) {
//!         Some(Event::StateRequested(handover)) => {
//!             held = None;
//!             handover.send();
//!         }
//!         Some(Event::Failed(_) | Event::Resumed(_)) if held.is_none() => held = Some(lock()?),
//!         Some(Event::Completed(_)) => return Ok(()),
//!         _ => {}
//!     }
//! }
//! # }
//! ```
//!
//! - A lock by `flock` or by `F_OFD_SETLK` belongs to the open file. It can be handed over with
//!   [`Handover::fd`](crate::Handover::fd), and is held throughout. The predecessor then only
//!   closes its descriptor: `LOCK_UN` would unlock it for both.
//! - A POSIX lock (`F_SETLK`) belongs to the process, and is lost when *any* descriptor of that
//!   file is closed in it. Do not hand such a file over; use an OFD lock.
//!
//! # Child processes
//!
//! A helper is the child of the process that has started it, and no later generation can wait for
//! it (`ECHILD`). Its number may be another process's one day. A pidfd (`pidfd_open`) is not:
//!
//! - It goes to each successor by [`Handover::fd`](crate::Handover::fd).
//! - It becomes readable when the helper has ended, so the loop watches it.
//! - `pidfd_send_signal` ends the helper, and nobody else.
//! - Its exit status stays unknown to later generations. The parent reaps it, and after its end the
//!   process that takes orphans in.
//! - A helper that asks for a signal at the end of its parent (`PR_SET_PDEATHSIG`), or that watches
//!   its parent, ends with the first restart.
//!
//! After a restart that has failed the helper is still a child of the process that has started it.
//!
//! Short work is simpler: the predecessor waits for it before it ends, as for a connection. What a
//! child inherits stays open as long as it lives, so give it no descriptors of the service.
//!
//! # Ports that a library binds
//!
//! A metrics exporter or an admin console that binds its own port finds it in use: the predecessor
//! still has it. In the order of preference:
//!
//! 1. Give the library a listener: [`Sockets::tcp_listener`](crate::Sockets::tcp_listener), then
//!    its `from_listener` or the like.
//! 2. Stop the library at [`HandedOff`](crate::Event::HandedOff), and start it at
//!    [`Committed`](crate::Event::Committed) in the successor. Its port is closed in between.
//! 3. Bind with SO_REUSEPORT, if the library can be told so. Connections in the queue of the
//!    predecessor's listener are reset when it closes.
//!
//! # Affinity and scheduling
//!
//! Affinity, niceness and scheduling policy belong to a thread, and a successor is born with those
//! of the restart thread, which has those of the thread that calls
//! [`build`](crate::RestartConfig::build). So a program sets them after `build`. Set before, they
//! come to every later generation: one that starts a worker for each processor then starts one
//! worker, and a niceness that is raised each time adds up.
