//! The HTTP of the peers' services: hyper, with the graceful shutdown that it has.

use std::any::Any;
use std::convert::Infallible;
use std::future::{self, Future};
use std::pin::{Pin, pin};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Resolves when the connection is to end, with what it must hold until it has.
pub type Stop = Pin<Box<dyn Future<Output = Box<dyn Any + Send>> + Send>>;

/// Serves one connection: after `stop` the answer under way is its last, and an idle one is closed.
pub async fn run(stream: TcpStream, stop: Stop) {
    let mut connection = pin!(Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    tokio::select! {
        _ = &mut connection => {}
        held = stop => {
            connection.as_mut().graceful_shutdown();
            // What is lost is seen by the client, which counts.
            let _ = connection.await;
            drop(held);
        }
    }
}

fn answer(_: Request<Incoming>) -> future::Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let text = format!("process {}\n", std::process::id());
    future::ready(Ok(Response::new(Full::new(Bytes::from(text)))))
}
