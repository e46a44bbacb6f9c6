//! The plainest client of a coordination socket: the same for ours and for shellflip, which speak one wire.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Asks for a restart and waits for the answer: the process id of the successor, or why there is none.
pub fn restart(socket: &Path, limit: Duration) -> io::Result<Result<u32, String>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    let request = br#"{"Request":"TryRestart"}"#;
    let mut frame = (request.len() as u32).to_be_bytes().to_vec();
    frame.extend(request);
    stream.write_all(&frame)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length).min(1 << 20) as usize];
    stream.read_exact(&mut body)?;
    let answer: Value = serde_json::from_slice(&body)?;
    Ok(match answer["Response"]["RestartComplete"].as_u64() {
        Some(pid) => Ok(pid as u32),
        None => Err(answer.to_string()),
    })
}
