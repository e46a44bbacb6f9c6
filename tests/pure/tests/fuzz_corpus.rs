//! What the fuzz targets run, run over their committed corpus: the same code on the same bytes.
//!
//! The seeds are made here (`POLLFLIP_BLESS=1 cargo test --test fuzz_corpus` writes them); what fuzzing adds beside them is run as well.

use std::collections::BTreeSet;
use std::time::Duration;

use pollflip::internals::machine::{Limits, TakeoverInput};
use pollflip::internals::wire::{MAX_DESCRIPTORS, MAX_FRAME, Message};
use pollflip_tests_pure::model;
use pollflip_tests_pure::model::corpus::{Seed, corpus, is_seed};
use pollflip_tests_pure::model::operation::{Whose, limits_to_byte};
use pollflip_tests_pure::model::rows::{If, ROWS};
use pollflip_tests_pure::model::say::{way_to, way_with_a_state_to};
use pollflip_tests_pure::model::takeover::step::setting_to_byte;
use pollflip_tests_pure::model::takeover::{Setting, TAKEOVER_ROWS, TakeoverStep};
use pollflip_tests_pure::model::{After, ON_PROBATION, On, Operation, PLAIN, Room, bytes, machine, takeover};

fn seed(name: &str, limits: Limits, steps: impl IntoIterator<Item = Operation>) -> Seed {
    let steps = steps.into_iter().flat_map(Operation::to_bytes);
    (name.into(), std::iter::once(limits_to_byte(limits)).chain(steps).collect())
}

/// One for each row of the table, and some of what is between the rows.
fn machine_seeds() -> Vec<Seed> {
    let plain = |ways: &[&[On]]| ways.concat().into_iter().map(Operation::plain).collect::<Vec<_>>();
    let aftermath: &[On] = &[On::Exited, On::Request, On::Spawned];
    let rows = ROWS.iter().map(|row| {
        let limits = if row.only == If::NoProbation { PLAIN } else { ON_PROBATION };
        let closed: &[On] = if matches!(row.only, If::Lost | If::LostForGood) { &[On::LifelineClosed] } else { &[] };
        let way = if row.only == If::Gave { way_with_a_state_to(row.at[0]) } else { way_to(row.at[0]) };
        seed(row.name, limits, plain(&[&way, closed, &row.on[..1], aftermath]))
    });
    let paused = |on, drain| Operation { drain, ..Operation::plain(on) };
    let timed = |on, after| Operation { after, ..Operation::plain(on) };
    let of = |on, whose| Operation { whose, ..Operation::plain(on) };
    let try_again: &[On] = &[On::Request, On::Spawned, On::Exited];
    let between = [
        seed("between-spawn-taken-back", PLAIN, plain(&[&[On::Opened]]).into_iter().chain([paused(On::Request, 1), paused(On::Cancel, 0)])),
        seed("between-spawn-too-late", PLAIN, plain(&[&[On::Opened]]).into_iter().chain([paused(On::Request, 2), paused(On::Stop, 1)])),
        seed("between-grant-taken-back", ON_PROBATION, {
            plain(&[&way_to(Room::Waiting)]).into_iter().chain([paused(On::Ready, 0), paused(On::Stop, 0)]).chain(plain(&[&[On::Exited]]))
        }),
        seed("between-grant-too-late", PLAIN, plain(&[&way_to(Room::Waiting), &[On::Ready, On::Exited, On::Granted, On::Request]])),
        seed("between-granted-in-advance", ON_PROBATION, {
            let advance = [paused(On::Ready, 0), paused(On::Granted, 0), paused(On::LifelineClosed, 1)];
            plain(&[&way_to(Room::Waiting), &[On::Granted]]).into_iter().chain(advance).chain(plain(&[aftermath]))
        }),
        seed("between-nobody-listens", ON_PROBATION, way_to(Room::UndyingGranted).into_iter().map(|on| paused(on, 0))),
        seed("between-late-answers", PLAIN, {
            let late = [On::Spawned, On::Ready, On::Granted, On::Exited].map(|on| of(on, Whose::Past));
            plain(&[&[On::Opened], try_again, &[On::Request]]).into_iter().chain(late)
        }),
        seed("between-early-answers", PLAIN, {
            let early = [On::Spawned, On::SpawnFailed, On::Exited].map(|on| of(on, Whose::Future));
            plain(&[&[On::Opened]]).into_iter().chain(early).chain(plain(&[try_again]))
        }),
        seed("between-deadlines", ON_PROBATION, {
            let close = [After::JustBeforeDeadline, After::Nanosecond].map(|after| timed(On::Timeout, after));
            plain(&[&way_to(Room::Proving)]).into_iter().chain(close)
        }),
        seed("between-eternity", Limits { ready: Duration::MAX, ..PLAIN }, {
            let eternal = [On::Request, On::Spawned, On::Timeout, On::Timeout].map(|on| timed(on, After::Eternity));
            plain(&[&[On::Opened]]).into_iter().chain(eternal)
        }),
        seed("between-stopped-and-broken", PLAIN, plain(&[&way_to(Room::Killing), &[On::ThreadLost, On::Stop, On::Exited]])),
        seed("between-broken-at-last", ON_PROBATION, plain(&[&way_to(Room::KillingGranted), &[On::ThreadLost, On::Timeout, On::Exited]])),
        seed("between-broken-on-probation", ON_PROBATION, plain(&[&way_to(Room::Proving), &[On::ThreadLost, On::Exited]])),
        seed("between-fourth-try", PLAIN, plain(&[&[On::Opened], try_again, try_again, try_again, &way_to(Room::Committed)[1..]])),
    ];
    rows.chain(between).collect()
}

/// One for each row of the table, and some of what is between the rows.
fn takeover_seeds() -> Vec<Seed> {
    use pollflip::internals::machine::TakeoverInput::*;
    use takeover::say::*;
    let seed = |name: &str, setting, steps: Vec<TakeoverStep>| -> Seed {
        let steps = steps.into_iter().flat_map(TakeoverStep::to_bytes);
        (name.into(), std::iter::once(setting_to_byte(setting)).chain(steps).collect())
    };
    let plain = |ways: &[&[TakeoverInput]]| ways.concat().into_iter().map(TakeoverStep::plain).collect::<Vec<_>>();
    let paused = |input, drain| TakeoverStep { drain, ..TakeoverStep::plain(input) };
    let timed = |input, after| TakeoverStep { after, ..TakeoverStep::plain(input) };
    let aftermath: &[TakeoverInput] = &[PredecessorEnded, Attach];
    let rows = TAKEOVER_ROWS.iter().map(|row| {
        let (setting, way) = way_to_row(row);
        seed(row.name, setting, plain(&[&way, &row.on[..1], aftermath]))
    });
    let eternal = Setting::Successor(Some(Duration::MAX));
    let between = [
        seed("between-early-words", PROBATIONER, plain(&[STARTING, &[Granted, Commit, StateComplete, SayReady, Commit]])),
        seed("between-late-words", PROBATIONER, plain(&[GIVEN_UP, &[Granted, Commit, SayReady, SayRefuse, Pull], aftermath])),
        seed("between-lost-and-asked", SUCCESSOR, plain(&[ASKED, &[CLOSED, StateComplete, StateUnusable, SayReady]])),
        seed("between-dying", SUCCESSOR, {
            let dies =
                [After::JustBeforeDeadline, After::JustBeforeDeadline, After::AtDeadline].map(|after| timed(PredecessorDying, after));
            plain(&[READY_SENT, &[CLOSED]]).into_iter().chain(dies).chain(plain(&[&[Timeout]])).collect()
        }),
        seed("between-deadlines", PROBATIONER, {
            let looks = [After::JustBeforeDeadline, After::Nanosecond, After::JustAfterDeadline].map(|after| timed(Timeout, after));
            plain(&[GRANTED]).into_iter().chain(looks).collect()
        }),
        seed("between-stale-clock", SUCCESSOR, {
            let stale = TakeoverStep { stale: true, ..TakeoverStep::plain(Timeout) };
            plain(&[GRANTED, &[CLOSED_BY_US]]).into_iter().chain([stale, TakeoverStep::plain(Timeout)]).collect()
        }),
        seed("between-eternity", eternal, {
            let eternal = [Timeout, CLOSED, PredecessorDying, Timeout].map(|input| timed(input, After::Eternity));
            plain(&[GRANTED]).into_iter().chain(eternal).collect()
        }),
        seed("between-restarters", PROBATIONER, {
            let dropped = [paused(PredecessorEnded, 0), paused(Attach, 1), paused(Attach, 2)];
            plain(&[READY_SENT]).into_iter().chain(dropped).chain(plain(&[&[Attach]])).collect()
        }),
        seed("between-no-restarter", PROBATIONER, plain(&[&[SayReady, Granted, CLOSED, Timeout], aftermath])),
        seed(
            "between-nobody-listens",
            SUCCESSOR,
            [Attach, SayReady, Granted, CLOSED, Timeout, PredecessorEnded].map(|input| paused(input, 0)).into(),
        ),
        seed("between-first-again", FIRST, plain(&[STARTING, &[Attach, SayReady, Attach, PredecessorEnded, Granted]])),
    ];
    rows.chain(between).collect()
}

/// Marks of both kinds in datagrams of both kinds.
fn steering_seeds() -> Vec<Seed> {
    let seed = |name: &str, mark: [u8; 6], live: u32, datagram: &[u8]| -> Seed {
        (name.into(), [&mark[..], &live.to_le_bytes(), datagram].concat())
    };
    let cid = [3, 3 ^ 0xa5, 7, 7, 7, 7, 7, 7, 7];
    [
        seed("byte", [0, 2, 0, 0xf0, 0, 1], 0b1010, &[0, 0, 0x40, 9]),
        seed("byte-unmarked", [0, 2, 0, 0xf0, 8, 1], u32::MAX, &[0, 0, 0x0f]),
        seed("byte-of-nobody", [0, 0, 0, 0x03, 3, 2], 0, &[0xff]),
        seed("byte-too-short", [0, 40, 0, 0xff, 32, 0], u32::MAX, &[1; 40]),
        seed("byte-out-of-range", [0, 0xff, 0xff, 0xff, 0, 0], 0, &[]),
        seed("bits-apart", [0, 0, 0, 0x05, 0, 0], 0, &[5]),
        seed("quic-short-header", [1, 9, 0, 0, 0, 2], 0b1000, &[&[0x40][..], &cid].concat()),
        seed("quic-long-header", [1, 9, 0, 0, 4, 2], 0b1000, &[&[0xc0, 0, 0, 0, 1, 9][..], &cid].concat()),
        seed("quic-other-length", [1, 9, 0, 0, 4, 2], 0b1000, &[&[0xc0, 0, 0, 0, 1, 8][..], &cid].concat()),
        seed("quic-cut-short", [1, 9, 0, 0, 4, 2], 0b1000, &[0x40, 3, 3 ^ 0xa5]),
        seed("quic-too-long", [1, 21, 0, 0, 0, 0], 0, &[]),
    ]
    .into()
}

fn wire_seeds() -> Vec<Seed> {
    [
        ("hello", r#"{"type":"hello","version":2,"oldest":2,"pid":7,"generation":1,"probation_ms":5000,"signal":10,"given":[{"is":"predecessor"},{"is":"coordination","path":"/run/x.sock"}],"following":3}"#),
        ("hello-with-history", r#"{"type":"hello","version":2,"oldest":2,"pid":7,"generation":4,"signal":10,"pid_file":"/run/x.pid","given":[{"is":"predecessor"},{"is":"coordination","path":"/run/x.sock","file":[25,1234],"root":[8,2]}],"following":0}"#),
        ("hello-with-a-group", r#"{"type":"hello","version":2,"oldest":2,"pid":7,"generation":1,"given":[{"is":"member","name":"game","slot":0,"of":2,"mark":"byte:0:240/2","owner":7,"yours":false},{"is":"member","name":"game","slot":1,"of":2,"mark":"byte:0:240/2","owner":null,"yours":true}],"following":0}"#),
        ("hello-brief", r#"{"type":"hello","version":2,"oldest":2,"pid":7,"generation":1,"given":[],"following":0}"#),
        ("hello-of-a-later-version", r#"{"type":"hello","version":9,"oldest":2,"pid":7,"generation":1,"given":[{"is":"moon","phase":[1]}],"following":0,"x":{"y":1}}"#),
        ("hello-of-version-1", r#"{"type":"hello","version":1,"oldest":1,"pid":7,"generation":1,"given":[{"is":"socket","name":"http"}],"more":false}"#),
        ("hello-incomplete", r#"{"type":"hello","version":1}"#),
        ("more", r#"{"type":"more","given":[{"is":"draining","pid":9},{"is":"x","name":"\u00fc\"\n"}]}"#),
        ("here", r#"{"type":"here","version":2,"oldest":2,"pid":4294967295}"#),
        ("here-out-of-range", r#"{"type":"here","version":-1,"oldest":1e99,"pid":4294967296}"#),
        ("challenge", r#"{"type":"challenge","number":18446744073709551615}"#),
        ("proof", r#"{"type":"proof","number":18446744073709551615}"#),
        ("pull", r#"{"type":"pull"}"#),
        ("precopy-pull", r#"{"type":"precopy_pull"}"#),
        ("precopy-complete", r#"{"type":"precopy_complete","items":18446744073709551615}"#),
        ("items", "\u{1}\u{1}\u{1}\0\0\0a\u{2}\u{2}\0\0\0ü\0\u{1}\0\0\0a"),
        ("items-none", "\u{1}"),
        ("items-cut-in-a-name", "\u{1}\u{1}\u{3}\0\0\0ab"),
        ("items-cut-in-a-length", "\u{1}\u{1}\u{1}\0\0\0a\u{2}\u{3}\0"),
        ("items-of-an-unknown-kind", "\u{1}\u{3}\u{1}\0\0\0a"),
        ("items-too-long", "\u{1}\u{1}\0\u{1}\0\0a"),
        ("end", r#"{"type":"end","items":18446744073709551615,"precopied":3}"#),
        ("trouble", r#"{"type":"trouble","reason":"cannot bind it"}"#),
        ("refuse", r#"{"type":"refuse","reason":"no \\ \ud83d\ude00"}"#),
        ("progress", r#" { "text" : "warming the cache,\t40%" , "type" : "progress" } "#),
        ("ready", r#"{"type":"ready"}"#),
        ("granted", r#"{"type":"granted"}"#),
        ("commit", r#"{"type":"commit"}"#),
        ("given_up", r#"{"type":"given_up"}"#),
        ("later", r#"{"type":"later","and":["more",null,true,1.5]}"#),
        ("twice", r#"{"type":"ready","type":"commit"}"#),
        ("no-type", r#"{"text":"x"}"#),
        ("no-object", r#"["pull"]"#),
        ("cut", r#"{"type":"progress","text":"war"#),
        ("trailing", r#"{"type":"pull"}{"type":"ready"}"#),
        ("deep", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["),
        ("empty", ""),
        ("not-text", "\u{0}\u{7f}\u{2028}"),
    ]
    .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
    .into_iter()
    .chain([
        ("items-no-text".to_owned(), b"\x01\x01\x02\0\0\0a\xff".to_vec()),
        ("items-beyond-a-packet".to_owned(), b"\x01\x01\xff\xff\xff\xff".to_vec()),
        ("items-as-many-as-fit".to_owned(), [&[1], &[1, 0, 0, 0, 0].repeat(MAX_DESCRIPTORS)[..]].concat()),
        ("items-one-too-many".to_owned(), [&[1], &[1, 0, 0, 0, 0].repeat(MAX_DESCRIPTORS + 1)[..]].concat()),
    ])
    .collect()
}

fn coordination_seeds() -> Vec<Seed> {
    let frame = |json: &str| [&(json.len() as u32).to_be_bytes(), json.as_bytes()].concat();
    let stream = |name: &str, portion: u8, parts: &[Vec<u8>]| (name.to_owned(), [&[portion], &parts.concat()[..]].concat());
    let (restart, status) = (frame(r#"{"Request":"TryRestart"}"#), frame(r#"{"Request":"Status"}"#));
    vec![
        stream("try-restart", 0, std::slice::from_ref(&restart)),
        stream("restart", 3, &[frame(r#"{"Request":{"Restart":{"progress":true}}}"#), frame(r#"{"Request":{"Restart":{}}}"#)]),
        stream("status", 255, std::slice::from_ref(&status)),
        stream("complete", 7, &[frame(r#"{"Response":{"Progress":"40%"}}"#), frame(r#"{"Response":{"RestartComplete":7}}"#)]),
        stream("failed", 7, &[frame(r#"{"Response":{"RestartFailed":"it exited with status 1"}}"#)]),
        stream("refused", 7, &[frame(r#"{"Response":{"RestartRefused":"not ready"}}"#)]),
        stream("impossible", 7, &[frame(r#"{"Response":{"RestartImpossible":"PID 1"}}"#)]),
        stream("status-answer", 9, &[frame(r#"{"Response":{"Status":{"pid":7,"generation":2,"state":"idle","successor":null,"x":[]}}}"#)]),
        stream("two-in-one", 200, &[restart.clone(), status.clone()]),
        stream("one-and-a-half", 5, &[restart.clone(), status[..9].to_vec()]),
        stream("length-cut", 1, &[restart.clone(), vec![0, 0]]),
        stream("nothing-in-it", 0, &[frame(""), restart.clone()]),
        stream("not-json", 0, &[frame("restart, please")]),
        stream("unknown-kind", 0, &[frame(r#"{"Request":"Dance"}"#), frame(r#"{"Question":1}"#), frame("null")]),
        stream("out-of-range", 0, &[frame(r#"{"Response":{"RestartComplete":4294967296}}"#)]),
        stream("too-long", 3, &[restart.clone(), (MAX_FRAME as u32 + 1).to_be_bytes().to_vec()]),
        stream("http", 0, &[b"GET / HTTP/1.1\r\n\r\n".to_vec()]),
        stream("nothing", 0, &[]),
    ]
}

#[test]
fn the_machine_does_what_the_model_does_and_every_row_is_in_the_corpus() {
    let mut reached = BTreeSet::new();
    for (file, bytes) in corpus("machine", &machine_seeds()) {
        let life = machine(&bytes);
        if is_seed(&file) {
            reached.extend(life.cells().iter().map(|(row, ..)| *row));
        }
    }
    let missing: Vec<_> = ROWS.iter().enumerate().filter(|(index, _)| !reached.contains(index)).map(|(_, row)| row.name).collect();
    assert!(missing.is_empty(), "no file reaches {missing:?}");
}

#[test]
fn the_takeover_does_what_its_model_does_and_every_row_is_in_the_corpus() {
    let mut reached = BTreeSet::new();
    for (file, bytes) in corpus("takeover", &takeover_seeds()) {
        let life = takeover::takeover(&bytes);
        if is_seed(&file) {
            reached.extend(life.cells().iter().map(|(row, ..)| *row));
        }
    }
    let missing: Vec<_> = TAKEOVER_ROWS.iter().enumerate().filter(|(index, _)| !reached.contains(index)).map(|(_, row)| row.name).collect();
    assert!(missing.is_empty(), "no file reaches {missing:?}");
}

#[test]
fn steps_are_written_as_they_are_read() {
    for what in 0..=255 {
        for when in 0..=255 {
            let operation = Operation::of_bytes([what, when]);
            assert_eq!(Operation::of_bytes(operation.to_bytes()), operation);
            let step = TakeoverStep::of_bytes([what, when]);
            assert_eq!(TakeoverStep::of_bytes(step.to_bytes()), step);
        }
    }
}

#[test]
fn any_packet_is_a_message_or_an_error_and_every_message_is_in_the_corpus() {
    let mut kinds = BTreeSet::new();
    for (_, packet) in corpus("wire", &wire_seeds()) {
        let kind = |message: Message| format!("{message:?}").split([' ', '(']).next().map(str::to_owned);
        kinds.extend(bytes::wire(&packet).and_then(kind));
    }
    let all = [
        "Challenge",
        "Commit",
        "End",
        "GivenUp",
        "Granted",
        "Hello",
        "Here",
        "Items",
        "More",
        "PrecopyComplete",
        "PrecopyPull",
        "Progress",
        "Proof",
        "Pull",
        "Ready",
        "Refuse",
        "Trouble",
        "Unknown",
    ];
    assert!(kinds.iter().eq(all), "{kinds:?}");
}

#[test]
fn any_mark_is_read_alike_by_the_program_and_by_the_model_or_is_told_to_be_none() {
    let files = corpus("steering", &steering_seeds());
    let layouts = files.iter().filter(|(_, bytes)| model::steering::steering(bytes).is_some()).count();
    assert!(layouts >= 8, "{layouts} of {}", files.len());
}

#[test]
fn any_stream_is_frames_or_an_error() {
    let read: Vec<_> = corpus("coordination", &coordination_seeds()).iter().map(|(_, stream)| bytes::coordination(stream)).collect();
    let (good, bad): (Vec<_>, Vec<_>) = read.iter().flatten().partition(|message| message.is_ok());
    assert!(good.len() >= 12 && bad.len() >= 6, "{good:?} {bad:?}");
}

/// A request may be as long as a frame may be, and what is said of one that makes no sense must still be a frame.
#[test]
fn the_answer_to_a_frame_full_of_nonsense_is_no_longer_than_a_frame() {
    let nonsense = format!("{{\"Request\":\"{}\"}}", "x".repeat(65_500));
    let stream = [&(nonsense.len() as u32).to_be_bytes()[..], nonsense.as_bytes()].concat();
    bytes::coordination(&stream);
}
