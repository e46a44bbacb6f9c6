use std::fs;
use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::steering::Mark;

use super::*;

/// Nothing was inherited or passed.
fn empty() -> Sockets {
    Sockets::new(Vec::new(), Vec::new(), Vec::new(), Family::default())
}

/// That of a process that has a predecessor.
fn of_predecessor() -> Family {
    Family { predecessor: Some(1), earlier: Vec::new() }
}

/// A listener of before.
fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener")
}

fn same(one: &impl AsRawFd, other: &impl AsRawFd) -> bool {
    sys::identity(one.as_raw_fd()) == sys::identity(other.as_raw_fd())
}

fn both_flags(fd: &impl AsFd) -> (FdFlag, OFlag) {
    let flag = |argument| fcntl(fd, argument).expect("a descriptor");
    (FdFlag::from_bits_retain(flag(FcntlArg::F_GETFD)), OFlag::from_bits_retain(flag(FcntlArg::F_GETFL)))
}

fn names(sockets: &Sockets) -> Vec<&str> {
    let mut names: Vec<_> = sockets.given().map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_name_means_the_same_socket_each_time_and_the_program_gets_a_duplicate() {
    let directory = temp_dir::TempDir::new().expect("a directory");
    let path = directory.path().join("socket");
    let mut sockets = empty();
    let one = sockets.unix_listener("web", &path).expect("a listener");
    let two = sockets.unix_listener("web", &path).expect("a listener");
    assert!(same(&one, &two) && one.as_raw_fd() != two.as_raw_fd());
    for listener in [&one, &two] {
        let (descriptor, description) = both_flags(listener);
        assert!(descriptor.contains(FdFlag::FD_CLOEXEC) && description.contains(OFlag::O_NONBLOCK));
    }
    drop((one, two));
    // It is kept for a successor.
    UnixStream::connect(&path).expect("somebody who listens");
    assert_eq!(names(&sockets), ["web"]);
    assert!(sockets.remove("web") && !sockets.remove("web"));
    assert!(UnixStream::connect(&path).is_err() && names(&sockets).is_empty());
}

#[test]
fn a_name_of_another_kind_or_address_is_an_error_until_it_is_removed() {
    let mut sockets = empty();
    let first = sockets.udp_socket("web", (Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let error = sockets.tcp_listener("web", (Ipv4Addr::LOCALHOST, 0)).expect_err("another kind");
    assert!(matches!(&error, Error::WrongSocket(why) if why.contains("is a UDP socket on 127.0.0.1:")), "{error}");
    assert!(sockets.udp_socket("web", (Ipv4Addr::new(127, 0, 0, 2), 0)).is_err(), "another address");
    assert!(same(&first, &sockets.udp_socket("web", first.local_addr().expect("an address")).expect("the same")));
    sockets.remove("web");
    let second = sockets.tcp_listener("web", (Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    assert!(both_flags(&first).1.contains(OFlag::O_NONBLOCK) && both_flags(&second).1.contains(OFlag::O_NONBLOCK));
    assert!(matches!(sockets.tcp_listener("a\nb", "127.0.0.1:0"), Err(Error::InvalidName(_))), "no name");
}

#[test]
fn of_several_that_came_by_one_name_each_is_found_by_its_address() {
    let (one, other) = (listener(), listener());
    let addresses = [&one, &other].map(|listener| listener.local_addr().expect("an address"));
    let mut sockets =
        Sockets::new(vec![("web".into(), one.into()), ("web".into(), other.into())], Vec::new(), Vec::new(), of_predecessor());
    assert_eq!(sockets.unclaimed(), ["web"]);
    for address in addresses {
        let found = sockets.tcp_listener("web", address).expect("the one of before");
        assert_eq!(found.local_addr().expect("an address"), address);
    }
    assert!(sockets.unclaimed().is_empty());
    assert_eq!(names(&sockets), ["web", "web"]);
}

#[test]
fn what_was_inherited_and_not_asked_for_is_closed() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    let directory = temp_dir::TempDir::new().expect("a directory");
    let [kept_at, unused_at] = ["kept", "unused"].map(|name| directory.path().join(name));
    let [kept, unused] = [&kept_at, &unused_at].map(|path| UnixListener::bind(path).expect("a listener"));
    let inherited = vec![("pair".into(), ours.into()), ("kept".into(), kept.into()), ("unused".into(), unused.into())];
    let mut sockets = Sockets::new(inherited, Vec::new(), Vec::new(), of_predecessor());
    drop(sockets.unix_listener("kept", &kept_at).expect("the one of before"));
    assert_eq!(sockets.unclaimed(), ["pair", "unused"]);
    sockets.close_unclaimed();
    assert_eq!(theirs.read(&mut [0]).expect("the end"), 0);
    assert!(UnixStream::connect(&unused_at).is_err());
    UnixStream::connect(&kept_at).expect("somebody who listens");
    assert_eq!(names(&sockets), ["kept"]);
}

#[test]
fn after_the_end_there_are_none_and_nothing_is_bound() {
    let directory = temp_dir::TempDir::new().expect("a directory");
    let path = directory.path().join("socket");
    let mut sockets = empty();
    let listener = sockets.unix_listener("web", &path).expect("a listener");
    sockets.close();
    UnixStream::connect(&path).expect("the program still has its own");
    drop(listener);
    assert!(UnixStream::connect(&path).is_err());
    let error = sockets.unix_listener("web", &path).expect_err("too late");
    assert!(matches!(&error, Error::TooLate(why) if why.contains("too late")), "{error}");
    let made = sockets.or_insert_with("file", || -> io::Result<OwnedFd> { panic!("nothing is made") });
    assert!(matches!(made, Err(Error::TooLate(_))) && names(&sockets).is_empty());
}

#[test]
fn what_systemd_passed_is_left_to_the_program_until_it_asks_for_any_socket() {
    // Born without CLOEXEC, as what is passed is.
    let passed = listener();
    fcntl(&passed, FcntlArg::F_SETFD(FdFlag::empty())).expect("a descriptor");
    let number = passed.as_raw_fd();
    let mut sockets = Sockets::new(Vec::new(), Vec::new(), vec![Passed { name: "web".into(), number }], Family::default());
    // Whatever its number is here, a successor finds the first of them at the first number that systemd gives.
    let untouched: Vec<_> = sockets.untouched().map(|(name, socket, number)| (name, same(&socket, &passed), number)).collect();
    assert_eq!(untouched, [("web", true, 3)]);
    assert!(names(&sockets).is_empty() && both_flags(&passed) == (FdFlag::empty(), both_flags(&passed).1));

    sockets.udp_socket("other", (Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    assert_eq!((sockets.untouched().count(), names(&sockets)), (0, vec!["other", "web"]));
    let (descriptor, description) = both_flags(&passed);
    assert!(descriptor.contains(FdFlag::FD_CLOEXEC), "nothing inherits the number any more");
    assert!(description.contains(OFlag::O_NONBLOCK));
    let found = sockets.tcp_listener("web", passed.local_addr().expect("an address")).expect("the one that was passed");
    assert!(same(&found, &passed));
}

#[test]
fn the_flags_of_what_another_process_may_wait_on_are_left_as_they_are() {
    let (inherited, passed) = (listener(), listener());
    let addresses = [&inherited, &passed].map(|listener| listener.local_addr().expect("an address"));
    let given = vec![("inherited".into(), inherited.try_clone().expect("a duplicate").into())];
    let mut sockets = Sockets::new(given, Vec::new(), vec![Passed { name: "passed".into(), number: passed.as_raw_fd() }], of_predecessor());
    for (name, address) in [("inherited", addresses[0]), ("passed", addresses[1])] {
        let found = sockets.tcp_listener(name, address).expect("the one of before");
        assert!(!both_flags(&found).1.contains(OFlag::O_NONBLOCK), "{name}");
    }
}

/// What a name server that is away makes of an address.
struct Unresolved(ErrorKind);

impl ToSocketAddrs for Unresolved {
    type Iter = std::vec::IntoIter<std::net::SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Err(io::Error::new(self.0, "failed to lookup address information"))
    }
}

#[test]
fn an_inherited_socket_is_taken_although_its_address_does_not_resolve() {
    let away = || Unresolved(ErrorKind::Other);
    let (tcp, udp) = (listener(), UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket"));
    let address = tcp.local_addr().expect("an address");
    let two = [listener(), listener()].map(|listener| ("two".to_string(), OwnedFd::from(listener)));
    let given = [("tcp".into(), tcp.into()), ("udp".into(), udp.into())];
    let mut sockets = Sockets::new(given.into_iter().chain(two).collect(), Vec::new(), Vec::new(), of_predecessor());
    assert_eq!(sockets.tcp_listener("tcp", away()).expect("the one of before").local_addr().expect("an address"), address);
    drop(sockets.udp_socket("udp", away()).expect("the one of before"));
    // Another kind, none, several, and an address that is none.
    for name in ["udp", "none", "two"] {
        let error = sockets.tcp_listener(name, away()).expect_err("not to be told");
        assert!(error.to_string().contains("cannot resolve the address"), "{error}");
    }
    let error = sockets.tcp_listener("new", "127.0.0.1").expect_err("without a port");
    assert!(error.to_string().contains("HOST:PORT"), "{error}");
    assert!(sockets.udp_socket("tcp", away()).is_err() && sockets.tcp_listener("tcp", Unresolved(ErrorKind::InvalidInput)).is_err());
    // One that was bound here is no reason not to look.
    let bound = sockets.tcp_listener("bound", (Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    assert!(sockets.tcp_listener("bound", away()).is_err());
    drop(bound);
}

#[test]
fn get_returns_what_is_there_and_binds_nothing() {
    let several = [listener(), listener()];
    let addresses = several.each_ref().map(|listener| listener.local_addr().expect("an address"));
    let given = several.into_iter().map(|listener| ("several".to_string(), OwnedFd::from(listener))).collect();
    let passed = listener();
    let mut sockets =
        Sockets::new(given, Vec::new(), vec![Passed { name: "passed".into(), number: passed.as_raw_fd() }], Family::default());
    assert!(sockets.is_inherited("passed") && sockets.is_inherited("several"), "although nothing has been asked for");
    assert!(!sockets.is_inherited("nothing"));
    assert!(sockets.get("nothing").expect("no error").is_none());
    let found = sockets.get("passed").expect("no error").expect("it was passed");
    assert!(same(&found, &passed) && sockets.is_inherited("passed"));
    let mut next = || TcpListener::from(sockets.get("several").expect("no error").expect("one of them")).local_addr().expect("an address");
    assert_eq!([next(), next(), next()], [addresses[0], addresses[1], addresses[0]]);
    assert!(sockets.unclaimed().is_empty(), "they are the program's");

    drop(sockets.udp_socket("bound", (Ipv4Addr::LOCALHOST, 0)).expect("a socket"));
    assert!(sockets.get("bound").expect("no error").is_some() && !sockets.is_inherited("bound"));
    assert!(matches!(sockets.get("a\nb"), Err(Error::InvalidName(_))));
    sockets.close();
    assert!(matches!(sockets.get("passed"), Err(Error::TooLate(_))));
}

#[test]
fn a_path_is_bound_over_a_socket_that_nobody_serves_and_over_nothing_else() {
    let directory = temp_dir::TempDir::new().expect("a directory");
    let path = directory.path().join("socket");
    drop(UnixListener::bind(&path).expect("a listener"));
    let mut sockets = empty();
    let listener = sockets.unix_listener("one", &path).expect("nobody serves it");
    UnixStream::connect(&path).expect("somebody who listens");
    let served = empty().unix_listener("one", &path).expect_err("it is served");
    assert!(matches!(&served, Error::Os { error, .. } if error.kind() == ErrorKind::AddrInUse), "{served}");
    let held = sockets.unix_listener("two", &path).expect_err("it is served here");
    assert!(held.to_string().contains("under the name \"one\""), "{held}");
    // The path stays, and the next one finds it.
    sockets.remove("one");
    drop(listener);
    assert!(path.exists());
    fs::remove_file(&path).expect("a socket");
    fs::write(&path, "a file").expect("a file");
    assert!(empty().unix_datagram("one", &path).is_err());
    assert_eq!(fs::read_to_string(&path).expect("a file"), "a file");
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1, "nothing is left beside it");
}

/// A mark for these tests.
const MARK: Mark = Mark::byte(0, 0xf0);

#[test]
fn promise_14_no_datagram_goes_astray_while_the_group_is_bound() {
    let flooded = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("an address");
    let stop = Arc::new(AtomicBool::new(false));
    let flood = thread::spawn({
        let stop = stop.clone();
        move || {
            let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a client");
            // Nobody is there at first.
            while !stop.load(Ordering::Relaxed) {
                let _ = client.send_to(&[0xff; 8], flooded);
            }
        }
    });
    for _ in 0..50 {
        let mut sockets = empty();
        let group = sockets.udp_group("game", flooded, MARK).expect("a group");
        let own = group.socket().expect("a socket");
        own.set_nonblocking(false).expect("a flag");
        own.recv(&mut [0; 8]).expect("a datagram");
        let others =
            sockets.members().filter(|member| member.slot != 0).map(|member| sys::duplicate(member.socket, 3).expect("a duplicate"));
        for (slot, other) in others.map(UdpSocket::from).enumerate() {
            let found = other.recv(&mut [0; 8]).expect_err("nothing").kind();
            assert_eq!(found, ErrorKind::WouldBlock, "socket {}", slot + 1);
        }
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().expect("a thread");
}

#[test]
fn a_group_is_found_by_its_name_and_is_a_udp_socket_to_who_knows_none() {
    let mut sockets = empty();
    let group = sockets.udp_group("game", (Ipv4Addr::LOCALHOST, 0), MARK).expect("a group");
    let own = group.socket().expect("a socket");
    let address = own.local_addr().expect("an address");
    assert!(both_flags(&own).0.contains(FdFlag::FD_CLOEXEC) && both_flags(&own).1.contains(OFlag::O_NONBLOCK));
    let again = sockets.udp_group("game", address, MARK).expect("the same").socket().expect("a socket");
    assert!(same(&own, &again) && same(&own, &sockets.udp_socket("game", address).expect("the same")));
    assert!(same(&own, &sockets.get("game").expect("no error").expect("the same")));
    assert_eq!(sockets.members().count(), 8);
    for error in [
        sockets.udp_group("game", address, Mark::byte(0, 0x0f)).expect_err("another mark"),
        sockets.udp_group("game", (Ipv4Addr::new(127, 0, 0, 2), address.port()), MARK).expect_err("another address"),
        sockets.tcp_listener("game", address).expect_err("another kind"),
    ] {
        assert!(matches!(error, Error::WrongSocket(_)), "{error}");
    }
    let plain = sockets.udp_socket("plain", (Ipv4Addr::LOCALHOST, 0)).expect("a socket").local_addr().expect("an address");
    let error = sockets.udp_group("plain", plain, MARK).expect_err("it is there already");
    assert!(error.to_string().contains("cannot become a UDP group: this process has bound it"), "{error}");
    let held = sockets.udp_socket("other", address).expect_err("it is bound here");
    assert!(held.to_string().contains("under the name \"game\""), "{held}");
    assert_eq!(
        (group.mark(), group.owner(&[0x10]), group.owner(&[0x20]), group.owner(&[])),
        (0x10, Owner::This, Owner::Unmarked, Owner::Unmarked)
    );
    assert_eq!(group.recv_orphaned(&mut [0; 8]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    assert!(!group.stamp(&mut [0; 9]));
    // A process that stops passes nothing on; what the program has stays.
    sockets.close_all();
    assert_eq!(sockets.members().count(), 0);
    assert!(UdpSocket::bind(address).is_err());
    drop((group, own, again));
    UdpSocket::bind(address).expect("it is free");
}

#[test]
fn slots_are_given_in_turn_to_those_that_come_and_kept_by_those_that_live() {
    let mut sockets = empty();
    let group = sockets.udp_group("game", (Ipv4Addr::LOCALHOST, 0), MARK.generations(3)).expect("a group");
    let own = std::process::id();
    let lives = |pid| pid == own;
    let given = |sockets: &Sockets| {
        let all: Vec<_> = sockets.members().map(|member| (member.owner, member.is_successors)).collect();
        all
    };
    assert!(sockets.have_room(lives));
    sockets.reserve(lives);
    assert_eq!(given(&sockets), [(Some(own), false), (None, true), (None, false)]);
    // What is sent before the switch comes here, and after it to the successor's socket.
    let to = group.socket().expect("a socket").local_addr().expect("an address");
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a client");
    sockets.steer_to_successor(lives).expect("a switch");
    client.send_to(b"hello", to).expect("room");
    assert_eq!(group.socket().expect("a socket").recv(&mut [0; 8]).expect_err("not here").kind(), ErrorKind::WouldBlock);
    assert_eq!(group.recv_orphaned(&mut [0; 8]).expect_err("not mine").kind(), ErrorKind::WouldBlock);
    sockets.steer_to_this(lives).expect("a switch back");
    assert_eq!(group.recv_orphaned(&mut [0; 8]).expect("what was on its way").0, 5);
    client.send_to(b"again", to).expect("room");
    assert_eq!(group.socket().expect("a socket").recv(&mut [0; 8]).expect("it is here"), 5);
}

#[test]
fn an_address_that_cannot_be_bound_is_an_error_that_says_what_to_look_at() {
    // RFC 5737: no machine has this one.
    let elsewhere = empty().tcp_listener("one", "192.0.2.1:80").expect_err("nobody has that address");
    let told = "cannot bind \"one\" as a TCP listener on 192.0.2.1:80: Cannot assign requested address (os error 99); no interface of this machine";
    assert!(elsewhere.to_string().starts_with(told), "{elsewhere}");
    let privileged = Kind::Tcp(vec!["127.0.0.1:80".parse().expect("an address")]);
    assert!(privileged.advice(ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
    assert_eq!(Kind::UnixStream("/a/path".into()).advice(ErrorKind::PermissionDenied), "");
}
