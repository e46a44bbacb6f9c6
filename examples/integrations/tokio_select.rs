//! The task beside other work, as the front page of the crate shows it.
//!
//!     cargo run --example tokio_select    # serves at 127.0.0.1:7000, or at an address that is given
//!     kill -USR1 PID                      # restarts it

use pollflip::RestartConfig;
use std::{error::Error, time::Duration};

async fn serve() -> Result<(), Box<dyn Error>> {
    let mut task = RestartConfig::new().try_into_restart_task()?; // restarted by SIGUSR1
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
    let listener = task.restarter().sockets().tcp_listener("echo", address)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    task.ready().await?; // the predecessor accepts no more, and this process does
    println!("listening on {}, pid {}", listener.local_addr()?, std::process::id());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => drop(tokio::spawn(async move { drop(connection) })), // serve it
                Err(why) => {
                    eprintln!("cannot accept now: {why}"); // too few descriptors, most likely
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            outcome = &mut task => match outcome {
                Ok(successor) => {
                    println!("process {} serves", successor.pid());
                    return Ok(()); // a real service finishes its connections first
                }
                Err(why) => eprintln!("{why}"), // this process keeps serving, and the task stays pending
            },
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve())
}
