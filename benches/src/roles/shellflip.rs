//! shellflip in a service, as its example has it: a tokio runtime of one thread, the restart task in a `select!`.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;
use std::{io, thread};

use async_trait::async_trait;
use shellflip::lifecycle::{LifecycleHandler, PipeWriter, receive_from_old_process};
use shellflip::{RestartConfig, ShutdownCoordinator, ShutdownSignal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::memory::{now, state};

use super::http::{Stop, run};
use super::work::Work;
use super::{Failed, Occupation, Settings, say};

/// What shellflip tells a successor.
const SUCCESSOR: &str = "OXY_NOTIFY_SOCKET";

fn successor() -> bool {
    std::env::var_os(SUCCESSOR).is_some()
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn config(settings: &Settings) -> RestartConfig {
    RestartConfig {
        enabled: true,
        coordination_socket_path: settings.socket.clone(),
        exit_on_error: false,
        lifecycle_handler: Box::new(State(if successor() { Vec::new() } else { state(settings.state) })),
        ..RestartConfig::default()
    }
}

/// The state, in memory.
struct State(Vec<u8>);

#[async_trait]
impl LifecycleHandler for State {
    async fn send_to_new_process(&mut self, mut pipe: PipeWriter) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        say("frozen", &now().to_string());
        pipe.write_all(&self.0).await?;
        // What is not flushed may be lost when the writer is dropped.
        pipe.flush().await
    }
}

pub fn serve(settings: &Settings) -> Result<(), Failed> {
    let successor = successor();
    if successor {
        settings.fail_if_told();
    }
    let runtime = runtime()?;
    if successor && settings.state > 0 {
        let mut held = Vec::with_capacity(settings.state);
        let pipe = receive_from_old_process().ok_or("no state comes")?;
        runtime.block_on(pipe.take(settings.state as u64).read_to_end(&mut held))?;
        say("held", &format!("{} {}", now(), held.len()));
    }
    if let Some(address) = settings.http {
        return serve_http(settings, &runtime, address);
    }
    let guard = runtime.enter();
    let task = config(settings).try_into_restart_task()?;
    drop(guard);
    shellflip::startup_complete()?;
    say("ready", "0");
    let mut work = Work::begin(settings, successor);
    if settings.occupation == Occupation::Frames {
        // A game loop cannot be in the runtime: the runtime has a thread of its own.
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = runtime.block_on(task);
                over.store(true, Ordering::SeqCst);
            });
            work.run_frames(|| over.load(Ordering::SeqCst))
        })?;
    } else {
        runtime.block_on(task)?;
    }
    work.end()
}

/// No socket goes over: each generation binds its own beside the one before.
fn serve_http(settings: &Settings, runtime: &Runtime, address: SocketAddr) -> Result<(), Failed> {
    runtime.block_on(async {
        let mut task = pin!(config(settings).try_into_restart_task()?);
        let listener = listen_beside(address)?;
        say("listening", "");
        let shutdown = ShutdownCoordinator::new();
        loop {
            tokio::select! {
                result = listener.accept() => {
                    let handle = shutdown.handle();
                    let stop: Stop = Box::pin(async move {
                        ShutdownSignal::from(&*handle).on_shutdown().await;
                        Box::new(handle) as Box<dyn Any + Send>
                    });
                    tokio::spawn(run(result?.0, stop));
                }
                result = &mut task => {
                    result?;
                    break;
                }
            }
        }
        drop(listener);
        shutdown.shutdown_with_timeout(5).await;
        Ok(())
    })
}

/// As many ticks of a loop as `state` says, with nothing to do: one poll of the task and one turn of the runtime it needs.
pub fn poll_idle(settings: &Settings) -> Result<(), Failed> {
    let runtime = runtime()?;
    let guard = runtime.enter();
    let mut task = Box::pin(config(&Settings { state: 0, ..settings.clone() }).try_into_restart_task()?);
    drop(guard);
    tick(&runtime, &mut task);
    let begun = Instant::now();
    for _ in 0..settings.state {
        tick(&runtime, &mut task);
    }
    say("idle", &begun.elapsed().as_secs_f64().to_string());
    Ok(())
}

fn tick<F: Future>(runtime: &Runtime, task: &mut Pin<Box<F>>) {
    runtime.block_on(async {
        poll_fn(|context| {
            let _ = task.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
    });
}

/// A listener beside others of the same address.
fn listen_beside(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}
