//! A program that knows its restarts from shellflip: `main` keeps its shape, in any executor.
//!
//!     cargo run --example any_executor -- tokio --socket echo.sock
//!     cargo run --example any_executor -- smol --socket echo.sock
//!
//! The restart is one future among those that the program waits for anyway. It needs nothing of the
//! executor; only the lines that talk to clients differ. The state that crosses is how many clients
//! there have been, ever: each is told its number first, and no two generations give out the same.
//!
//! So nobody is taken in from the moment at which the state is given until the restart has failed:
//! clients wait in the queue of the listener, which the next process has too. Those who are in keep
//! their process, which is nobody's state.

use lexopt::{Arg, Parser, ValueExt};
use pollflip::{
    Failure, Handover, HookResult, LifecycleHandler, Predecessor, RestartConfig, RestartTask, Shutdown, ShutdownCoordinator,
    ShutdownHandle, startup_complete,
};
use std::error::Error;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::process::{self, ExitCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

const HELP: &str = "\
An echo server that can be restarted, in the executor of your choice.

usage: any_executor tokio|smol [OPTIONS]
  --listen ADDRESS  where to serve (127.0.0.1:7000); port 0 is any
  --socket PATH     coordination socket (none: restart with SIGUSR1)
  --drain SECONDS   after a restart, how long connections may last (30)

The exit status is 0 for success, 1 for failure, 2 for wrong usage.";

/// Until who could not be taken in is tried again: there are no descriptors left, most likely.
const PAUSE: Duration = Duration::from_millis(100);

type AnyError = Box<dyn Error + Send + Sync>;

/// How many clients there have been: what goes to the next process.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<Count>>);

#[derive(Default)]
struct Count {
    so_far: u64,
    /// It is the next process's, or may be: it does not change here.
    given: bool,
    /// Who waits for it to come back.
    waiting: Option<Waker>,
}

impl Clients {
    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next client and its number, as soon as this process may take one in.
    async fn next<C>(&self, accept: impl Future<Output = io::Result<C>>) -> io::Result<(C, u64)> {
        let mut accept = pin!(accept);
        poll_fn(|context| {
            // Held until both are done: no client is taken in that the state does not know.
            let mut count = self.count();
            if count.given {
                count.waiting = Some(context.waker().clone());
                return Poll::Pending;
            }
            accept.as_mut().poll(context).map_ok(|client| {
                count.so_far += 1;
                (client, count.so_far)
            })
        })
        .await
    }
}

impl LifecycleHandler for Clients {
    fn send_to_new_process(&mut self, mut handover: Handover) -> HookResult {
        let mut count = self.count();
        count.given = true;
        handover.bytes("clients", &count.so_far.to_be_bytes())?;
        handover.send();
        Ok(())
    }

    /// A next version may serve without having asked for the state.
    fn new_process_granted(&mut self, _: u32) {
        self.count().given = true;
    }

    fn new_process_failed(&mut self, _: &Failure) {
        let mut count = self.count();
        count.given = false;
        if let Some(waiting) = count.waiting.take() {
            waiting.wake();
        }
    }
}

/// How many the predecessor has taken in.
fn clients_so_far(predecessor: &Predecessor) -> Result<u64, AnyError> {
    let bytes = match predecessor.receive(Duration::from_secs(5)) {
        // It is dead, and its listener is here.
        Err(pollflip::Error::PredecessorGone { .. }) => None,
        inheritance => inheritance?.bytes("clients")?,
    };
    Ok(bytes.map(|bytes| bytes.as_slice().try_into().map(u64::from_be_bytes)).transpose()?.unwrap_or_default())
}

/// The part that is the same everywhere: before there is an executor, so that it may block.
fn start(options: &Options) -> Result<(RestartTask, TcpListener, Clients), AnyError> {
    let mut config = RestartConfig::new();
    if let Some(path) = &options.socket {
        config = config.coordination_socket(path);
    }
    let mut task = config.try_into_restart_task()?;
    // From the predecessor if there is one, else bound here.
    let listener = task.restarter().sockets().tcp_listener("echo", options.listen)?;
    let so_far = match task.restarter().predecessor() {
        // The one who asked for the restart is told what was wrong.
        Some(predecessor) => clients_so_far(&predecessor).inspect_err(|why| predecessor.refuse(&why.to_string()))?,
        None => 0,
    };
    // The first poll of the task says the same and does not wait. This waits for the grant: a client
    // that is accepted before that could still be the predecessor's to count.
    startup_complete()?;
    // Nobody may be reading: no reason to end.
    let _ = writeln!(std::io::stdout(), "listening on {}, pid {}, {so_far} clients so far", listener.local_addr()?, process::id());
    let clients = Clients::default();
    clients.count().so_far = so_far;
    Ok((task.with_handler(clients.clone()), listener, clients))
}

// --- tokio ---

fn in_tokio(options: &Options) -> Result<(), AnyError> {
    let (mut task, listener, clients) = start(options)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shutdown = ShutdownCoordinator::new();
        loop {
            tokio::select! {
                accepted = clients.next(listener.accept()) => match accepted {
                    Ok(((stream, _), number)) => drop(tokio::spawn(echo_in_tokio(stream, number, shutdown.handle()))),
                    Err(error) => {
                        log(&format!("cannot accept now: {error}"));
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                restarted = &mut task => match restarted {
                    Ok(successor) => break log(&format!("process {} serves now", successor.pid())),
                    Err(why) => log(&format!("no more restarts: {why}")), // from now on it stays pending
                },
            }
        }
        drop(listener);
        let mut draining = shutdown.shutdown();
        if tokio::time::timeout(options.drain, &mut draining).await.is_err() {
            cut_short(&draining);
            draining.await;
        }
        Ok(())
    })
}

async fn echo_in_tokio(mut stream: tokio::net::TcpStream, number: u64, handle: ShutdownHandle) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut signal = handle.signal();
    let mut buffer = [0; 4096];
    if stream.write_all(greeting(number).as_bytes()).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(length) if length > 0 => {
                    if stream.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            // Once when the shutdown begins, which is for the client to end, and once when it is forced.
            () = signal.on_shutdown() => if signal.is_forced() { return },
        }
    }
}

// --- smol ---

fn in_smol(options: &Options) -> Result<(), AnyError> {
    let (mut task, listener, clients) = start(options)?;
    smol::block_on(async {
        let listener = smol::net::TcpListener::try_from(listener)?;
        let shutdown = ShutdownCoordinator::new();
        loop {
            // Whichever is first; the other is dropped, and asked again in the next turn.
            let accepted = smol::future::or(async { Ok(clients.next(listener.accept()).await) }, async { Err((&mut task).await) });
            match accepted.await {
                Ok(Ok(((stream, _), number))) => smol::spawn(echo_in_smol(stream, number, shutdown.handle())).detach(),
                Ok(Err(error)) => {
                    log(&format!("cannot accept now: {error}"));
                    smol::Timer::after(PAUSE).await;
                }
                Err(Ok(successor)) => break log(&format!("process {} serves now", successor.pid())),
                Err(Err(why)) => log(&format!("no more restarts: {why}")),
            }
        }
        drop(listener);
        let mut draining = shutdown.shutdown();
        let limit = async {
            smol::Timer::after(options.drain).await;
        };
        smol::future::or(&mut draining, limit).await;
        if draining.poll().is_pending() {
            cut_short(&draining);
            draining.await;
        }
        Ok(())
    })
}

async fn echo_in_smol(mut stream: smol::net::TcpStream, number: u64, handle: ShutdownHandle) {
    use smol::io::{AsyncReadExt, AsyncWriteExt};
    let mut signal = handle.signal();
    let mut buffer = [0; 4096];
    if stream.write_all(greeting(number).as_bytes()).await.is_err() {
        return;
    }
    loop {
        let read = smol::future::or(async { Some(stream.read(&mut buffer).await) }, async {
            signal.on_shutdown().await;
            None
        });
        match read.await {
            Some(Ok(length)) if length > 0 => {
                if stream.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            None if !signal.is_forced() => {}
            _ => return,
        }
    }
}

// --- both ---

fn greeting(number: u64) -> String {
    format!("client {number}\n")
}

fn cut_short(draining: &Shutdown) {
    log(&format!("{} connections have not ended in time and are cut", draining.remaining()));
    draining.force();
}

fn log(text: &str) {
    eprintln!("any_executor, process {}: {text}", process::id());
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            let _ = writeln!(std::io::stdout(), "{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("any_executor: {error} (see --help)");
            return ExitCode::from(2);
        }
    };
    match (options.run)(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

struct Options {
    run: fn(&Options) -> Result<(), AnyError>,
    listen: SocketAddr,
    socket: Option<PathBuf>,
    drain: Duration,
}

impl Options {
    /// `None`: help is wanted.
    fn parse() -> Result<Option<Options>, lexopt::Error> {
        let mut run: Option<fn(&Options) -> _> = None;
        let (mut listen, mut socket, mut drain) = (SocketAddr::from(([127, 0, 0, 1], 7000)), None, 30.0);
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Value(word) if word == "tokio" && run.is_none() => run = Some(in_tokio),
                Arg::Value(word) if word == "smol" && run.is_none() => run = Some(in_smol),
                Arg::Long("listen") => listen = arguments.value()?.parse()?,
                Arg::Long("socket") => socket = Some(arguments.value()?.into()),
                Arg::Long("drain") => drain = arguments.value()?.parse::<f64>()?,
                other => return Err(other.unexpected()),
            }
        }
        if !(0.0..=86400.0).contains(&drain) {
            return Err("a time is given in seconds, from 0 to 86400".into());
        }
        let run = run.ok_or("say which executor: tokio or smol")?;
        Ok(Some(Options { run, listen, socket, drain: Duration::from_secs_f64(drain) }))
    }
}
