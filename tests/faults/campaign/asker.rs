//! Somebody who asks for a restart and writes down all that he is told.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};

use pollflip_kit::client::frame;
use pollflip_kit::hub::DEADLINE;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Complete(u32),
    Failed(String),
    Refused(String),
    /// The connection ended without an answer.
    Ended,
}

#[derive(Debug)]
pub struct Asker(JoinHandle<Result<Answer, String>>);

impl Asker {
    /// Asks; the connection is there when this returns.
    pub fn ask(socket: &Path) -> Asker {
        let mut stream = UnixStream::connect(socket).expect("the coordination socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.write_all(&frame(r#"{"Request":"TryRestart"}"#)).expect("it is read");
        Asker(thread::spawn(move || listen(stream)))
    }

    /// What the one answer was.
    pub fn answer(self) -> Answer {
        match self.0.join().expect("a thread") {
            Ok(answer) => answer,
            Err(why) => panic!("the asker was not answered once: {why}"),
        }
    }
}

fn listen(mut stream: UnixStream) -> Result<Answer, String> {
    let Some(text) = receive(&mut stream)? else { return Ok(Answer::Ended) };
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    let response = &json["Response"];
    let string = |name: &str| response[name].as_str().map(String::from);
    let answer = match (response["RestartComplete"].as_u64(), string("RestartFailed"), string("RestartRefused")) {
        (Some(pid), None, None) => Answer::Complete(pid as u32),
        (None, Some(why), None) => Answer::Failed(why),
        (None, None, Some(why)) => Answer::Refused(why),
        _ => return Err(format!("no answer: {text}")),
    };
    // Nothing more may come, and the other side hangs up when this one does.
    stream.shutdown(std::net::Shutdown::Write).map_err(|error| error.to_string())?;
    match receive(&mut stream)? {
        None => Ok(answer),
        Some(more) => Err(format!("{text}, and then {more}")),
    }
}

/// The next frame; `None` at the end.
fn receive(stream: &mut UnixStream) -> Result<Option<String>, String> {
    let ended = |error: &std::io::Error| matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset);
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if ended(&error) => return Ok(None),
        result => result.map_err(|error| format!("cannot read an answer: {error}"))?,
    }
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes).map_err(|error| format!("half an answer: {error}"))?;
    String::from_utf8(bytes).map(Some).map_err(|error| error.to_string())
}
