use std::error::Error as _;

use super::*;

const WORDS: &str = "the words of the system";

fn system() -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, WORDS)
}

fn all() -> Vec<Box<dyn std::error::Error>> {
    let spawn = |reason| ChildSpawnError::new(Path::new("/a/program"), system(), reason);
    vec![
        Box::new(Error::os("cannot do that")(system())),
        Box::new(Error::setting("a setting")),
        Box::new(Error::NoMoreRestarts(Refusal::Stopping)),
        Box::new(io::Error::from(Error::os("cannot do that")(system()))),
        Box::new(Failure::from(spawn(None))),
        Box::new(Failure::from(spawn(Some("it is a directory".into())))),
        Box::new(Failure::Exited { exit: Exit::Code(1), reason: Some("cannot bind it".into()) }),
        Box::new(spawn(None)),
        Box::new(spawn(Some("it is a directory".into()))),
        Box::new(ChildSpawnError::RestartThreadGone),
        Box::new(RequestError::Unreachable(system())),
        Box::new(RequestError::HungUp(system())),
        Box::new(RequestError::Refused("busy".into())),
        Box::new(RequestError::Impossible("it is PID 1".into())),
        Box::new(Refusal::NotReady),
    ]
}

/// What a program prints that goes through the sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

#[test]
fn no_error_says_what_its_source_says_once_more() {
    for error in all() {
        if let Some(source) = error.source() {
            assert!(!error.to_string().contains(&source.to_string()), "{error}");
        }
        assert!(chain(&*error).matches(WORDS).count() <= 1, "{}", chain(&*error));
    }
}

#[test]
fn the_text_of_an_error_is_the_whole_sentence() {
    assert_eq!(Error::os("cannot do that")(system()).to_string(), format!("cannot do that: {WORDS}"));
    let spawn = ChildSpawnError::new(Path::new("/a/program"), system(), Some("it is a directory".into()));
    assert_eq!(Failure::from(spawn.clone()).to_string(), format!("could not start /a/program: {WORDS}: it is a directory"));
    assert_eq!(spawn.to_string(), "could not start /a/program: it is a directory");
    let source = spawn.source().and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::AddrInUse));
    assert_eq!(RequestError::Unreachable(system()).to_string(), WORDS);
}

#[test]
fn what_a_main_prints_that_returns_an_error_is_its_sentence() {
    let error = Error::os("cannot do that")(system());
    assert_eq!(format!("{error:?}"), error.to_string());
    assert!(format!("{:?}", io::Error::from(error)).contains("cannot do that"));
    let error = RequestError::Refused("busy".into());
    assert_eq!(format!("{error:?}"), "restart refused: busy");
}

#[test]
fn an_error_becomes_an_io_error_of_the_same_kind() {
    assert_eq!(io::Error::from(Error::os("cannot do that")(system())).kind(), io::ErrorKind::AddrInUse);
    assert_eq!(io::Error::from(Error::TimedOut { limit: Duration::ZERO }).kind(), io::ErrorKind::TimedOut);
    assert_eq!(io::Error::from(Error::AnotherRestarter).kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_death_by_a_signal_has_a_hint_where_to_look() {
    let text = |number| Failure::Exited { exit: Exit::Signal(number), reason: None }.to_string();
    assert_eq!(text(11), "the successor was killed by SIGSEGV before it was ready; a fault in the program? look for a core dump");
    assert_eq!(text(15), "the successor was killed by SIGTERM before it was ready");
    assert!(text(31).ends_with("; a seccomp filter forbids a system call"));
    assert!(
        Failure::DiedOnProbation(Exit::Signal(6))
            .to_string()
            .ends_with("on probation; a failed assertion, or a panic that aborts? see its standard error")
    );
}

#[test]
fn a_shortage_of_descriptors_says_what_to_raise() {
    let error = Error::os("cannot make a timer")(io::Error::from_raw_os_error(nix::libc::EMFILE));
    assert!(error.to_string().ends_with("raise the limit of open descriptors (RLIMIT_NOFILE), with LimitNOFILE= or ulimit -n"), "{error}");
}
