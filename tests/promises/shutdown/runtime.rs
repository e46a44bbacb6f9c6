//! In a runtime.

use std::time::{Duration, Instant};

use pollflip::shutdown::{ShutdownCoordinator, ShutdownHandle};

use crate::tools::DEADLINE;

/// An echo server in tokio: connections finish when their client does, or when the shutdown is forced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_server_drains_and_then_cuts_short_what_would_not_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn echo(mut socket: TcpStream, handle: ShutdownHandle) {
        let mut signal = handle.signal();
        let mut buffer = [0; 1024];
        loop {
            tokio::select! {
                read = socket.read(&mut buffer) => match read {
                    Ok(n) if n > 0 => socket.write_all(&buffer[..n]).await.unwrap(),
                    _ => return,
                },
                () = signal.on_shutdown() => {
                    if signal.is_forced() {
                        return;
                    }
                    socket.write_all(b"!").await.unwrap(); // read exactly once by each client: the loop does not spin
                }
            }
        }
    }
    async fn expect(client: &mut TcpStream, text: &[u8]) {
        let mut buffer = vec![0; text.len()];
        tokio::time::timeout(DEADLINE, client.read_exact(&mut buffer)).await.expect("in time").unwrap();
        assert_eq!(buffer, text);
    }

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let coordinator = ShutdownCoordinator::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        tokio::spawn(echo(listener.accept().await.unwrap().0, coordinator.handle()));
    }
    for client in &mut clients {
        client.write_all(b"hello").await.unwrap();
        expect(client, b"hello").await;
    }
    let mut draining = coordinator.shutdown();
    for client in &mut clients {
        expect(client, b"!").await;
        client.write_all(b"still served").await.unwrap();
        expect(client, b"still served").await;
    }
    drop(clients.pop());
    let until = Instant::now() + DEADLINE;
    while draining.remaining() > 2 {
        assert!(Instant::now() < until, "the connection of the client that left must end");
        tokio::task::yield_now().await;
    }
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut draining).await.is_err());
    assert_eq!(draining.remaining(), 2);
    draining.force();
    tokio::time::timeout(DEADLINE, draining).await.expect("forced");
    for client in &mut clients {
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "closed");
    }
}
