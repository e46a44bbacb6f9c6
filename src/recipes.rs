//! Recipes: how programs of other shapes than one loop with one listener restart.
//!
//! - [Several threads](#several-threads)
//! - [A listener for each thread](#a-listener-for-each-thread)
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
//! # Several threads
//!
//! One thread has the [`Restarter`](crate::Restarter). The others are told to stop accepting, and
//! they end when their connections have. [`shutdown`](crate::shutdown) does both without a runtime:
//! its signal is a `mio::event::Source`.
//!
//! ```no_run
//! use std::{io, net, thread, time::Duration};
//! use mio::{Events, Interest, Poll, Token, net::TcpListener};
//! use pollflip::{Event, RestartConfig, Shutdown, ShutdownCoordinator, ShutdownHandle};
//!
//! fn main() -> io::Result<()> {
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
//!         Some(Err(workers)) => Err(io::Error::other(format!("{workers} workers did not end in time"))),
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
//! With SO_REUSEPORT the kernel spreads connections over several listeners of one address. Each of
//! them has a queue of its own. A connection in the queue of a listener that nobody holds any more
//! is reset. So:
//!
//! - Each listener has a name of its own and goes over like any other.
//! - **More threads than before**: the successor binds what is missing *after* `ready`. Bound
//!   earlier, it would collect connections that are lost if the attempt fails.
//! - **Fewer threads than before**: the successor takes all of them, and a thread serves more than
//!   one. Listeners that are not asked for are closed at `ready`, with what waits in them.
//!
//! ```no_run
//! use std::{io, net::{SocketAddr, TcpListener}, os::fd::AsRawFd};
//! use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt};
//! use pollflip::{Error, Restarter};
//!
//! /// The listeners of all threads, more than one a thread if there were more threads before. Ends with `ready`.
//! fn listeners(restarter: &mut Restarter, address: SocketAddr, threads: usize) -> Result<Vec<TcpListener>, Error> {
//!     let mut listeners = Vec::new();
//!     let unclaimed = restarter.sockets().unclaimed();
//!     for name in unclaimed.iter().filter(|name| name.starts_with("web/")) {
//!         listeners.push(restarter.sockets().tcp_listener(name, address)?);
//!     }
//!     if listeners.is_empty() {
//!         // The first generation: nobody else has the address, and what cannot be bound is told before `ready`.
//!         listeners.push(restarter.sockets().or_insert_with("web/0", || reuse_port(address))?);
//!     }
//!     restarter.ready()?;
//!     while listeners.len() < threads {
//!         let name = format!("web/{}", listeners.len());
//!         listeners.push(restarter.sockets().or_insert_with(&name, || reuse_port(address))?);
//!     }
//!     Ok(listeners)
//! }
//!
//! fn reuse_port(address: SocketAddr) -> io::Result<TcpListener> {
//!     let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
//!     let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
//!     setsockopt(&socket, sockopt::ReuseAddr, &true)?;
//!     setsockopt(&socket, sockopt::ReusePort, &true)?;
//!     bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
//!     listen(&socket, Backlog::MAXCONN)?;
//!     Ok(socket.into())
//! }
//! ```
//!
//! The names stay without gaps, since nothing is ever removed. To close listeners, end the service
//! once and start it afresh.
//!
//! # A library that blocks in accept
//!
//! Such a library is told of nothing, so it goes on accepting after the successor has the service.
//! Do not `shutdown` the listener to wake it: that reaches the successor's listener too, which is
//! the same. Own the accept, and give the library connections:
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
//!         match listener.accept() { // non-blocking, as `Sockets` returns it; the connection blocks
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
//! `examples/game_loop` prints the frame times.
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
//! A lock that only one process can have must change hands. In the natural order (the successor
//! opens the database, then it is ready) every restart fails, since the predecessor still has the
//! lock. Two orders never collide:
//!
//! | order | predecessor | successor | the service stands still |
//! | --- | --- | --- | --- |
//! | with the state | closes it at [`StateRequested`](crate::Event::StateRequested), *before* [`send`](crate::Handover::send), and opens it again at [`Failed`](crate::Event::Failed) and [`Resumed`](crate::Event::Resumed) | opens it when [`receive`](crate::Predecessor::receive) has returned, before `ready` | from the freeze on, until the database is open |
//! | at the commit | closes it at [`HandedOff`](crate::Event::HandedOff), before it polls again, and opens it again at `Resumed` | opens it at [`Committed`](crate::Event::Committed) | what needs the database, from the grant until then |
//!
//! Right after `ready` is too early for the second order: the predecessor may not have heard yet.
//! With a probation the first is the one.
//!
//! - A lock by `flock` or by `F_OFD_SETLK` belongs to the open file. It can be handed over with
//!   [`Handover::fd`](crate::Handover::fd), and is held throughout. The predecessor then only
//!   closes its descriptor: `LOCK_UN` would unlock it for both.
//! - A POSIX lock (`F_SETLK`) belongs to the process, and is lost when *any* descriptor of that
//!   file is closed in it. Do not hand such a file over; use an OFD lock.
//!
//! # Child processes
//!
//! Children stay children of the predecessor. When it ends, they are given to init or to the
//! nearest subreaper, and run on. The successor cannot wait for them: their exit status goes to
//! their parent.
//!
//! - **Short work**: the predecessor waits for it before it ends, as for a connection.
//! - **Helpers that stay**: hand a pidfd over (`pidfd_open`, then
//!   [`Handover::fd`](crate::Handover::fd)), with the pipes to the helper. The successor sees the
//!   end of the helper when the pidfd becomes readable, and can signal it without meeting another
//!   process of that number.
//! - Have the helper end when its pipe does, so that it does not outlive the service.
//! - Start children with [`std::process::Command`], or give them no descriptors: what a child
//!   inherits stays open as long as it lives.
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
//! A successor is born with the CPU affinity, the nice value and the scheduling policy of the
//! restart thread. That thread has those of the thread that called
//! [`build`](crate::RestartConfig::build), at that moment. So call `build` first, and pin the loop
//! to its processor afterwards: otherwise every later generation, with all its threads, is born on
//! that one processor.
