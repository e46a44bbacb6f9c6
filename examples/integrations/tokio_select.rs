//! The task beside other work, as the front page of the crate shows it.
//!
//!     cargo run --example tokio_select

use pollflip::RestartConfig;
use std::io;

async fn serve() -> io::Result<()> {
    let mut task = RestartConfig::new().coordination_socket("/run/echo/restart.sock").try_into_restart_task()?;
    let listener = task.restarter().sockets().tcp_listener("echo", "127.0.0.1:7000")?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    task.ready().await?; // the predecessor accepts no more, and this process does
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (connection, _) = accepted?;
                tokio::spawn(async move { drop(connection) }); // serve it
            }
            outcome = &mut task => {
                let successor = outcome?; // an error: no restart is possible any more
                println!("process {} serves", successor.pid());
                return Ok(()); // a real service finishes its connections first
            }
        }
    }
}

fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve())
}
