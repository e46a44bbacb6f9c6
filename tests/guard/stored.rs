//! The store of a guard: what a service has it keep, and gets back when it is started again. By
//! nothing but systemd's protocol.

use std::fs;
use std::process::{Command, Stdio};

use crate::kit::{End, POLLFLIP, end_of_command, end_of_output};
use crate::speaker::{NOTES, WORDS, text};
use crate::storer::Does::{self, Again, Die, Exit, Hang, HungUp, Listener, Long, Many, Memory, Say, Unwatched};
use pollflip_kit::harness::own_program;
use pollflip_kit::service::ROLE;
use pollflip_kit::surroundings::directory;

pollflip_kit::trials![
    what_is_stored_is_there_after_a_crash,
    a_service_that_is_not_started_again_stores_nothing,
    what_has_hung_up_is_gone_and_what_is_not_watched_stays,
    what_is_stored_twice_is_there_once,
    what_is_removed_is_gone,
    a_full_store_takes_no_more_and_says_so,
    names_that_no_program_could_be_given_are_left_out,
    hundreds_of_descriptors_get_their_numbers,
    sockets_of_a_manager_come_before_what_is_stored,
    a_store_that_is_too_large_is_an_error_that_says_what_to_do,
    the_next_start_is_told_how_the_last_one_ended,
    what_somebody_kills_is_never_struck_out,
    an_end_that_is_absolved_is_no_strike,
    a_start_that_hangs_is_told_of_as_that_and_is_a_strike,
    a_program_that_is_started_gets_no_descriptor_of_the_guards,
];

/// Runs the storer under a guard: how that ends, what each start was given, and what the guard says.
fn run(options: &[&str], starts: &[&[Does]]) -> (End, Vec<String>, String) {
    run_by("exec \"$0\" \"$@\"", None, options, starts)
}

/// The same, with a script that starts the guard.
fn run_by(script: &str, stdin: Option<Stdio>, options: &[&str], starts: &[&[Does]]) -> (End, Vec<String>, String) {
    let directory = directory();
    let notes = directory.path().join("notes");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, POLLFLIP, "guard", "--restart", "on-failure", "--delay", "1"]).args(options).arg("--").arg(own_program());
    command.env(ROLE, "storer").env(WORDS, text(&starts)).env(NOTES, &notes).env("POLLFLIP_LOG", "info");
    let output = command.stdin(stdin.unwrap_or_else(Stdio::null)).output().expect("a process");
    let (end, said) = (end_of_output(&output), String::from_utf8_lossy(&output.stderr).into_owned());
    let notes = fs::read_to_string(notes).unwrap_or_default();
    (end, notes.lines().map(String::from).collect(), said)
}

fn memory(name: &str, text: &str) -> Does {
    Memory(name.into(), text.into())
}

/// With room for many descriptors.
const MANY: &str = "ulimit -n 10000; exec \"$0\" \"$@\"";
/// What the first start of a service is told.
const FIRST: &str = "- [] 512 - -";

fn what_is_stored_is_there_after_a_crash() {
    let (end, notes, said) =
        run(&[], &[&[memory("state", "one"), Listener("web".into()), memory("state", "two"), Die(11)], &[Die(6)], &[Exit(0)]]);
    assert_eq!(end, End::Code(0), "{said}");
    let expected = [FIRST, "state:web:state [one listens two] 512 signal:11 1", "state:web:state [one listens two] 512 signal:6 2"];
    assert_eq!(notes, expected, "{said}");
}

fn a_service_that_is_not_started_again_stores_nothing() {
    let (end, notes, said) = run(&["--restart", "no"], &[&[memory("state", "one"), Exit(3)]]);
    assert_eq!((end, notes), (End::Code(3), vec!["- [] - - -".into()]));
    assert!(said.contains("the service is not started again"), "{said}");
}

fn what_has_hung_up_is_gone_and_what_is_not_watched_stays() {
    let (_, notes, said) = run(&[], &[&[HungUp("a".into()), Unwatched("b".into()), memory("c", "text"), Exit(1)], &[Exit(0)]]);
    assert_eq!(notes[1], "b:c [socket text] 512 exit:1 1", "{said}");
}

fn what_is_stored_twice_is_there_once() {
    let (_, notes, said) =
        run(&[], &[&[memory("state", "one"), Listener("web".into()), Exit(1)], &[Again("other".into()), Exit(1)], &[Exit(0)]]);
    assert_eq!(notes[2], "state:web [one listens] 512 exit:1 2", "{said}");
}

fn what_is_removed_is_gone() {
    let (_, notes, said) =
        run(&[], &[&[memory("a", "1"), memory("b", "2"), memory("a", "3"), Say("FDSTOREREMOVE=1\nFDNAME=a".into()), Exit(1)], &[Exit(0)]]);
    assert_eq!(notes[1], "b [2] 512 exit:1 1", "{said}");
}

fn a_full_store_takes_no_more_and_says_so() {
    let (_, notes, said) = run(&["--store", "3"], &[&[memory("a", "1"), Many("b".into(), 5), Exit(1)], &[Exit(0)]]);
    assert_eq!(notes, ["- [] 3 - -", "a:b:b [1 0 1] 3 exit:1 1"], "{said}");
    assert!(said.contains("descriptor \"b\": the store has 3 descriptors, and no more may be (--store)"), "{said}");
}

/// systemd tries to start it, and fails, without end.
fn names_that_no_program_could_be_given_are_left_out() {
    let (end, notes, said) = run_by(MANY, None, &["--store", "1000"], &[&[Long(600, 250), Exit(1)], &[Exit(0)]]);
    assert_eq!(end, End::Code(0), "{said}");
    let (names, _) = notes[1].split_once(' ').expect("names");
    let count = names.split(':').count();
    assert!((510..=522).contains(&count), "{count}");
    assert!(names.split(':').all(|name| name.len() == 250) && said.contains("under shorter names"), "{said}");
}

fn hundreds_of_descriptors_get_their_numbers() {
    let starts: &[&[Does]] = &[&[Many("a".into(), 1000), memory("last", "end"), Exit(1)], &[Exit(1)], &[Exit(0)]];
    let (end, notes, said) = run_by(MANY, None, &["--store", "2000"], starts);
    assert_eq!(end, End::Code(0), "{said}");
    let numbers: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let expected = format!("[{} end]", numbers.join(" "));
    assert!(notes[1].contains(&expected) && notes[2].contains(&expected), "{:.200}", notes[1]);
}

fn sockets_of_a_manager_come_before_what_is_stored() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let passed = Some(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    // As a runner does that does not know the number of the process.
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$0\" \"$@\"";
    let (_, notes, said) = run_by(script, passed, &[], &[&[memory("state", "one"), Exit(1)], &[Exit(1)], &[Exit(0)]]);
    assert_eq!(notes[1..], ["web:state [listens one] 512 exit:1 1", "web:state [listens one] 512 exit:1 2"], "{said}");
}

fn a_store_that_is_too_large_is_an_error_that_says_what_to_do() {
    let (end, notes, said) = run(&["--store", "10000000"], &[&[Exit(0)]]);
    assert_eq!((end, notes), (End::Code(125), vec![]));
    assert!(said.contains("ulimit -n, LimitNOFILE=) to 20000064"), "{said}");
}

fn the_next_start_is_told_how_the_last_one_ended() {
    let (_, notes, said) = run(&[], &[&[Exit(7)], &[Die(9)], &[Die(6)], &[Exit(0)]]);
    let told: Vec<&str> = notes.iter().map(|line| line.trim_start_matches("- [] 512 ")).collect();
    assert_eq!(told, ["- -", "exit:7 1", "signal:9 1", "signal:6 2"], "{said}");
}

/// An operator may do so as often as they like.
fn what_somebody_kills_is_never_struck_out() {
    let (end, notes, said) = run(&["--strikes", "2/60"], &[&[Die(9)], &[Die(9)], &[Die(9)], &[Die(9)], &[Exit(1)], &[Exit(1)], &[Exit(0)]]);
    assert_eq!(end, End::Code(1), "{said}");
    assert_eq!(notes.len(), 6, "{said}");
    assert_eq!((notes[4].as_str(), notes[5].as_str()), ("- [] 512 signal:9 0", "- [] 512 exit:1 1"));
}

fn an_end_that_is_absolved_is_no_strike() {
    let absolved = || Say("X_POLLFLIP_ABSOLVED=1".into());
    let absolve: &[Does] = &[absolved(), absolved(), Exit(1)];
    let (end, notes, said) = run(&["--strikes", "2/60"], &[&[Exit(1)], absolve, absolve, absolve, &[Exit(1)]]);
    assert_eq!(end, End::Code(1), "{said}");
    assert_eq!(notes.len(), 5, "{notes:?} {said}");
}

/// The guard has killed it, and nobody outside.
fn a_start_that_hangs_is_told_of_as_that_and_is_a_strike() {
    let (end, notes, said) = run(&["--ready", "0.3", "--strikes", "3/60"], &[&[Exit(1)], &[Hang], &[Die(9)], &[Hang]]);
    assert_eq!(end, End::Signal(nix::sys::signal::Signal::SIGKILL), "{said}");
    let told: Vec<&str> = notes.iter().map(|line| line.trim_start_matches("- [] 512 ")).collect();
    assert_eq!(told, ["- -", "exit:1 1", "not-ready 2", "signal:9 2"], "{said}");
    assert_eq!(said.matches("was killed by the guard because it had not said in time that it was ready").count(), 2, "{said}");
}

/// Neither its own nor copies of what is stored.
fn a_program_that_is_started_gets_no_descriptor_of_the_guards() {
    let directory = directory();
    let list = directory.path().join("list");
    // The storer gives something to store at first, and the list is what a start with that has open.
    let script = "if [ -e \"$LIST\" ]; then ls -l /proc/self/fd >\"$LIST\"; exit 0; fi; : >\"$LIST\"; exec \"$SELF\"";
    let mut command = Command::new(POLLFLIP);
    command.args(["guard", "--restart", "on-failure", "--delay", "1", "--", "/bin/sh", "-c", script]);
    command.env("LIST", &list).env("SELF", own_program()).env(ROLE, "storer").env(WORDS, text(&[[Many("a".into(), 20), Exit(1)]]));
    command.env(NOTES, directory.path().join("notes"));
    let (end, _, said) = end_of_command(command);
    assert_eq!(end, End::Code(0), "{said}");
    let list = fs::read_to_string(list).expect("a list");
    assert_eq!(list.matches("memfd:stored").count(), 20, "{list}");
    assert!(!list.contains("anon_inode:") && !list.contains("socket:"), "{list}");
}
