//! ecdysis in a service, as its example has it. It answers nobody: the old process says when its future has resolved.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use ecdysis::tokio_ecdysis::{SignalKind, StopOnShutdown, TokioEcdysisBuilder};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;

use super::http::{Stop, run};
use super::work::Work;
use super::{Failed, Settings, address, say};

pub fn serve(settings: &Settings) -> Result<(), Failed> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    if let Some(address) = settings.http {
        return serve_http(&runtime, address);
    }
    runtime.block_on(async {
        let builder = TokioEcdysisBuilder::new(SignalKind::hangup())?;
        let successor = builder.is_child();
        if successor {
            settings.fail_if_told();
        }
        let listeners = (0..settings.listeners)
            .map(|number| builder.listen_tcp(StopOnShutdown::Yes, address(settings, number)))
            .collect::<Result<Vec<_>, _>>()?;
        let (_ecdysis, upgraded) = builder.ready()?;
        say("ready", &listeners.len().to_string());
        let work = Work::begin(settings, successor);
        upgraded.await?;
        say("restarted", "");
        work.end()
    })
}

fn serve_http(runtime: &Runtime, address: SocketAddr) -> Result<(), Failed> {
    runtime.block_on(async {
        let builder = TokioEcdysisBuilder::new(SignalKind::hangup())?;
        let mut connections = builder.listen_tcp(StopOnShutdown::Yes, address)?;
        let (_ecdysis, upgraded) = builder.ready()?;
        say("listening", "");
        let upgraded = tokio::spawn(upgraded);
        let (stop, stopped) = watch::channel(());
        let (alive, mut ended) = mpsc::channel::<()>(1);
        while let Some(connection) = connections.next().await {
            let (mut stopped, alive) = (stopped.clone(), alive.clone());
            let stop: Stop = Box::pin(async move {
                let _ = stopped.changed().await;
                Box::new(alive) as Box<dyn Any + Send>
            });
            tokio::spawn(run(connection?, stop));
        }
        upgraded.await??;
        say("restarted", "");
        drop((stop, alive));
        let _ = tokio::time::timeout(Duration::from_secs(5), ended.recv()).await;
        Ok(())
    })
}
