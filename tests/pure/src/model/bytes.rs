//! What must hold of the two decoders for any bytes: the bodies of the fuzz targets `wire` and `coordination`.

use pollflip::internals::wire::{
    Coordination, Frames, MAX_DESCRIPTORS, MAX_FRAME, MAX_NAME, MAX_PACKET, MAX_TEXT, Message, Op, Packed, Response, line,
};

/// Any bytes as a packet on the lifeline. Hands back the message, if it is one.
pub fn wire(data: &[u8]) -> Option<Message> {
    one_line(&String::from_utf8_lossy(data));
    let message = match Message::decode(data) {
        Ok(message) => message,
        Err(why) => {
            assert!(!why.is_empty(), "what is wrong is said");
            return None;
        }
    };
    let bytes = message.encode();
    if bytes.len() > MAX_PACKET {
        // The shortest way to write something is not always ours.
        return Some(message);
    }
    assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message), "what is written is read again");
    let cut = data.len() % bytes.len();
    if let Message::Items { ops } = &message {
        list(ops, &bytes, cut);
        return Some(message);
    }
    assert!(Message::decode(&bytes[..cut]).is_err(), "a message that is cut short is none: {message:?}");
    let later = [br#"{"of a later version":[1,{}],"#, &bytes[1..]].concat();
    if later.len() <= MAX_PACKET {
        assert_eq!(Message::decode(&later).as_ref(), Ok(&message), "unknown fields are skipped");
    }
    Some(message)
}

/// A packed list, which can be written in one way only.
fn list(ops: &[Op], bytes: &[u8], cut: usize) {
    let bear_descriptors = ops.iter().filter(|op| op.kind.bears_descriptor()).count();
    assert!(bear_descriptors <= MAX_DESCRIPTORS && ops.iter().all(|op| op.name.len() <= MAX_NAME), "{ops:?}");
    match Message::decode(&bytes[..cut]) {
        // Packets come whole: what is cut between two names is a shorter list.
        Ok(Message::Items { ops: some }) => assert!(ops.starts_with(&some), "no name is made of a part of one"),
        Ok(other) => panic!("{other:?} is no list"),
        Err(why) => assert!(!why.is_empty(), "what is wrong is said"),
    }
    let mut packed = Packed::default();
    let fitting = ops.iter().take_while(|op| packed.push(op.kind, &op.name)).count();
    assert_eq!((fitting, packed.descriptors()), (ops.len(), bear_descriptors), "what came in one packet fits into one");
    assert!(ops.is_empty() || packed.bytes() == bytes, "it is written in one way");
}

/// Any bytes as what comes over a coordination socket; the first says in what portions it comes. Hands back the messages.
pub fn coordination(data: &[u8]) -> Vec<Result<Coordination, String>> {
    let (portion, stream) = data.split_first().unwrap_or((&0, &[]));
    let (frames, end) = cut(stream, stream.len().max(1));
    assert_eq!((&frames, &end), (&cut(stream, 1 + usize::from(*portion)).0, &cut(stream, 1).1), "portions make no difference");
    let read: usize = frames.iter().map(|frame| 4 + frame.len()).sum();
    let whole: Vec<u8> = frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes(), &frame[..]].concat()).collect();
    assert_eq!(whole, stream[..read], "no byte is lost, added or moved");
    match end {
        End::Clean => assert_eq!(read, stream.len()),
        End::Within => assert!(read < stream.len()),
        End::TooLong => {
            let length = stream[read..].first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
            assert!(length > Some(MAX_FRAME), "only what is too long is refused");
        }
    }
    frames.iter().map(|frame| message(frame)).collect()
}

fn message(frame: &[u8]) -> Result<Coordination, String> {
    assert!(frame.len() <= MAX_FRAME);
    let message = Coordination::decode(frame).inspect_err(|why| {
        let answer = Coordination::Response(Response::RestartFailed(why.clone())).encode();
        assert!(!why.is_empty() && answer.len() <= 4 + MAX_FRAME, "what is wrong can be answered");
    })?;
    let bytes = message.encode();
    let (frames, end) = cut(&bytes, 1 + frame.len());
    if bytes.len() <= 4 + MAX_FRAME {
        assert_eq!((frames.len(), end), (1, End::Clean), "a message is a frame");
        assert_eq!(Coordination::decode(&frames[0]).as_ref(), Ok(&message), "what is written is read again");
    }
    Ok(message)
}

/// How a stream ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Clean,
    Within,
    TooLong,
}

/// The frames in a stream that comes in portions of that many bytes.
fn cut(stream: &[u8], portion: usize) -> (Vec<Vec<u8>>, End) {
    let mut cutter = Frames::default();
    let mut frames = Vec::new();
    for bytes in stream.chunks(portion) {
        cutter.push(bytes);
        loop {
            match cutter.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(why) => {
                    assert_eq!(cutter.next_frame(), Err(why), "a stream that makes no sense does not recover");
                    return (frames, End::TooLong);
                }
            }
        }
    }
    (frames, if cutter.within_frame() { End::Within } else { End::Clean })
}

/// A text for people stays short and on its line.
fn one_line(text: &str) {
    let line = line(text);
    assert!(line.len() <= MAX_TEXT + 8, "{} bytes of text", line.len());
    assert!(!line.contains(char::is_control), "{line:?}");
}
