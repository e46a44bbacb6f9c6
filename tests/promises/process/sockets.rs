//! Named sockets through restarts, and promise 9: nobody's flags are changed, and a path stays connectable.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, socket};

use pollflip_kit::client::{Connection, greeting};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, Process, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Kind, Listen, Step, at, set, tcp};
use pollflip_kit::surroundings::stale_socket;

pollflip_kit::trials![
    sockets_of_every_kind_are_the_same_after_restarts,
    four_hundred_descriptors_pass_through_a_restart,
    a_descriptor_that_was_made_without_cloexec_comes_by_its_name_alone,
    an_address_whose_zone_the_kernel_does_not_keep_is_the_same_after_a_restart,
    a_path_by_another_way_to_it_is_the_same,
    a_listener_that_was_shut_down_is_named_as_such_by_the_next_generation,
    an_inherited_listener_is_taken_although_its_name_does_not_resolve,
    what_the_new_version_does_not_claim_is_closed_at_ready,
    what_was_removed_is_not_passed_on,
    what_is_bound_and_removed_when_a_restart_begins_is_what_its_successor_gets,
    a_socket_that_is_bound_or_removed_while_a_successor_starts_fails_the_attempt_with_a_word,
    a_socket_that_is_bound_while_the_state_is_handed_over_fails_the_attempt_with_a_word,
    a_socket_that_is_bound_just_before_the_grant_fails_the_attempt_with_a_word,
    promise_09_flags_of_inherited_descriptions_are_unchanged,
    promise_09_a_unix_path_stays_connectable_throughout,
    promise_09_a_unix_listener_replaces_a_stale_path_and_nothing_else,
];

/// One of each kind.
pub fn all_kinds(setup: Setup) -> Setup {
    let path = |name: &str| setup.path(name).display().to_string();
    let (stream, datagram, packet, file) = (path("stream"), path("datagram"), path("packet"), path("file"));
    setup
        .set(Listen::To(tcp("echo", "127.0.0.1:0")))
        .set(Listen::To(Kind::Udp.socket("udp", "127.0.0.1:0")))
        .set(Listen::To(Kind::Unix.socket("stream", stream)))
        .set(Listen::To(Kind::Datagram.socket("datagram", datagram)))
        .set(Listen::To(Kind::Seqpacket.socket("packet", packet)))
        .set(Listen::To(Kind::File.socket("file", file)))
}

const NAMES: [&str; 6] = ["echo", "udp", "stream", "datagram", "packet", "file"];

fn read_greeting(stream: UnixStream) -> u32 {
    use std::io::BufRead;
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut line = String::new();
    std::io::BufReader::new(stream).read_line(&mut line).expect("a greeting");
    greeting(&line).0
}

fn ask_datagram(service: &Service, path: &Path) -> u32 {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let own: PathBuf = service.path(&format!("client-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let socket = UnixDatagram::bind(&own).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    socket.send_to(b"?", path).expect("somebody there");
    datagram(|buffer| socket.recv(buffer))
}

/// Who has greeted.
fn datagram(receive: impl Fn(&mut [u8]) -> std::io::Result<usize>) -> u32 {
    let mut buffer = [0; 100];
    let count = loop {
        match receive(&mut buffer) {
            // A machine that was paused goes on with that.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => break result.expect("an answer"),
        }
    };
    greeting(&String::from_utf8_lossy(&buffer[..count])).0
}

fn ask_seqpacket(path: &Path) -> u32 {
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let raw = std::os::fd::AsRawFd::as_raw_fd(&client);
    connect(raw, &UnixAddr::new(path).expect("an address")).expect("somebody there");
    let mut buffer = [0; 100];
    let count = recv(raw, &mut buffer, MsgFlags::empty()).expect("an answer");
    greeting(&String::from_utf8_lossy(&buffer[..count])).0
}

fn sockets_of_every_kind_are_the_same_after_restarts() {
    let service = all_kinds(Setup::new()).start();
    let first = service.first();
    let udp = procfs_udp_address(&service);
    let mut serving = first.clone();
    for _ in 0..3 {
        serving = service.restart();
        for name in NAMES {
            let line = format!("socket {name}");
            assert_eq!(serving.says(&line), first.says(&line), "{name}");
        }
        serving.says("event PredecessorGone");
        assert_eq!(service.connect().pid, serving.pid);
        assert_eq!(read_greeting(UnixStream::connect(service.path("stream")).expect("somebody there")), serving.pid);
        assert_eq!(ask_datagram(&service, &service.path("datagram")), serving.pid);
        assert_eq!(ask_seqpacket(&service.path("packet")), serving.pid);
        let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        client.send_to(b"?", udp).expect("a datagram");
        assert_eq!(datagram(|buffer| client.recv(buffer)), serving.pid);
    }
    assert_eq!(serving.ask(Act::Unclaimed), "");
}

/// The address of the service's UDP socket: /proc knows sockets by their inodes.
fn procfs_udp_address(service: &Service) -> std::net::SocketAddr {
    let description = service.first().says("socket udp");
    let inode = description.split(' ').nth(1).expect("an inode");
    let table = fs::read_to_string(format!("/proc/{}/net/udp", service.first().pid)).expect("a table");
    let line = table.lines().find(|line| line.split_whitespace().nth(9) == Some(inode)).expect("the socket");
    let port = line.split_whitespace().nth(1).and_then(|address| address.split(':').nth(1)).expect("a port");
    ([127, 0, 0, 1], u16::from_str_radix(port, 16).expect("a port")).into()
}

fn four_hundred_descriptors_pass_through_a_restart() {
    let service =
        Setup::new().set(Listen::To(tcp("echo", "127.0.0.1:0"))).set(Listen::To(Kind::Many(400).socket("null", "/dev/null"))).start();
    for _ in 0..2 {
        let new = service.restart();
        new.says("event PredecessorGone");
        let nulls = procfs::descriptors(new.pid).iter().filter(|(number, what)| *number > 2 && what == "/dev/null").count();
        // 401 that are kept, and the duplicate of one.
        assert_eq!(nulls, 402);
        assert_eq!(service.connect().pid, new.pid);
    }
}

fn a_descriptor_that_was_made_without_cloexec_comes_by_its_name_alone() {
    let service =
        Setup::new().set(Listen::To(tcp("echo", "127.0.0.1:0"))).set(Listen::To(Kind::Inheritable.socket("null", "/dev/null"))).start();
    for _ in 0..2 {
        let new = service.restart();
        new.says("event PredecessorGone");
        let nulls = procfs::descriptors(new.pid).iter().filter(|(number, what)| *number > 2 && what == "/dev/null").count();
        // What is kept, and its duplicate.
        assert_eq!(nulls, 2);
    }
}

fn an_address_whose_zone_the_kernel_does_not_keep_is_the_same_after_a_restart() {
    if TcpListener::bind("[::1]:0").is_err() {
        return println!("no IPv6 here");
    }
    let service = Setup::new().set(Listen::To(tcp("echo", "[::1%1]:0"))).start();
    let new = service.restart();
    // As it is with a port that was named from the start.
    assert_eq!(new.ask(Act::Claim(tcp("echo", format!("[::1%1]:{}", service.address().port())))), "ok");
    assert_eq!(service.connect().pid, new.pid);
}

fn an_inherited_listener_is_taken_although_its_name_does_not_resolve() {
    let service = Setup::new().start();
    // No name server knows a name of this domain.
    let answer = service.first().ask(Act::Claim(tcp("other", "nowhere.invalid:80")));
    assert!(answer.contains("cannot resolve the address of \"other\""), "{answer}");
    let new = service.restart();
    assert_eq!(new.ask(Act::Claim(tcp("echo", "nowhere.invalid:80"))), "ok");
    assert_eq!(service.connect().pid, new.pid);
}

/// As /var/run is to /run.
fn a_path_by_another_way_to_it_is_the_same() {
    let service = all_kinds(Setup::new()).start();
    let way = service.path("way");
    std::os::unix::fs::symlink(".", &way).expect("a link");
    let new = service.restart();
    for (kind, name, file) in
        [(Kind::Unix, "stream", "stream"), (Kind::Datagram, "datagram", "datagram"), (Kind::Seqpacket, "packet", "packet")]
    {
        assert_eq!(new.ask(Act::Claim(kind.socket(name, way.join(file).display()))), "ok");
    }
}

fn what_the_new_version_does_not_claim_is_closed_at_ready() {
    let service = all_kinds(Setup::new()).start();
    let sockets = |process: &Process| {
        let all = procfs::descriptors(process.pid);
        let inodes: Vec<_> =
            NAMES.map(|name| service.first().says(&format!("socket {name}")).split(' ').nth(1).expect("an inode").to_owned()).into();
        all.iter().filter(|(_, what)| inodes.iter().any(|inode| what.contains(&format!("[{inode}]")))).count()
    };
    service.plan_next(set(Listen::OnlyTo(tcp("echo", "127.0.0.1:0"))).at(Step::Claimed, Act::Unclaimed).at(Step::Claimed, Act::Wait));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    assert_eq!(new.did(&Act::Unclaimed), "datagram file packet stream udp");
    // One of each, the file not being a socket, and the duplicate that the program has.
    assert_eq!(sockets(&new), 6);
    new.go();
    asker.join().expect("a thread").expect("a restart");
    wait_until("the listener alone", || sockets(&new) == 2);
    assert_eq!(service.connect().pid, new.pid);
    new.says("event PredecessorGone");
    assert!(UnixStream::connect(service.path("stream")).is_err());
    assert_eq!(new.ask(Act::Unclaimed), "");
}

fn what_was_removed_is_not_passed_on() {
    let service = all_kinds(Setup::new()).start();
    let first = service.first();
    assert_eq!(first.ask(Act::Remove("udp".into())), "true");
    assert_eq!(first.ask(Act::Remove("udp".into())), "false");
    assert_eq!(first.ask(Act::Remove("nothing".into())), "false");
    service.plan_next(set(Listen::OnlyTo(tcp("echo", "127.0.0.1:0"))).at(Step::Claimed, Act::Unclaimed));
    let new = service.restart();
    assert_eq!(new.did(&Act::Unclaimed), "datagram file packet stream");
}

fn what_is_bound_and_removed_when_a_restart_begins_is_what_its_successor_gets() {
    let service = all_kinds(Setup::new()).start();
    let first = service.first();
    let (remove, bind) = (|name: &str| Act::Remove(name.into()), |name: &str| Act::Bind(name.into()));
    for act in [remove("udp"), remove("stream"), bind("stream"), bind("late")] {
        first.on(Step::Restarting, act);
    }
    service.plan_next(set(Listen::OnlyTo(tcp("echo", "127.0.0.1:0"))).at(Step::Claimed, Act::Unclaimed));
    let new = service.restart();
    assert_eq!(new.did(&Act::Unclaimed), "datagram file late packet stream");
}

fn a_socket_that_is_bound_or_removed_while_a_successor_starts_fails_the_attempt_with_a_word() {
    let service = all_kinds(Setup::new()).start();
    let first = service.first();
    let changes = [(Act::Bind("late".into()), "socket \"late\" was bound"), (Act::Remove("udp".into()), "socket \"udp\" was removed")];
    for (number, (change, word)) in changes.into_iter().enumerate() {
        service.plan_next(at(Step::Claimed, Act::Wait).at(Step::Claimed, Act::Hang));
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(number + 1);
        new.says("waits");
        first.ask(change);
        // It says that it goes on, to nobody but the test: the loop of the first hears of the change with the next thing that happens.
        new.go();
        service.status();
        let error = asker.join().expect("a thread").expect_err("it has other sockets").to_string();
        assert!(error.contains(word) && error.contains("ask for the restart again"), "{error}");
    }
    // Asked again, it gets what there is.
    service.plan_next(set(Listen::OnlyTo(tcp("echo", "127.0.0.1:0"))).at(Step::Claimed, Act::Unclaimed));
    let new = service.restart();
    assert_eq!(new.did(&Act::Unclaimed), "datagram file late packet stream");
    assert_eq!(service.connect().pid, new.pid);
}

/// The loop looks for the successor when that is ready already, and is told first that it has been started: nothing but the grant is left.
fn a_socket_that_is_bound_just_before_the_grant_fails_the_attempt_with_a_word() {
    let service = Setup::new().start();
    let first = service.first();
    first.on(Step::Spawning, Act::Wait);
    first.on(Step::Spawned, Act::Bind("late".into()));
    service.plan_next(at(Step::Claimed, Act::Progress("nearly".into())));
    let asker = service.restart_meanwhile();
    first.says("waits");
    // Its start may have been seen before the wait: then the attempt is at its end by now.
    let is_nearly_ready =
        |pid: &u32| !service.hub.process(*pid).said(r#"did Progress("nearly"):"#).is_empty() && procfs::state(*pid) == Some('S');
    wait_until("it to wait for the grant", || {
        !first.said(r#"did Bind("late"):"#).is_empty() || service.hub.pids().iter().any(is_nearly_ready)
    });
    first.go();
    let error = asker.join().expect("a thread").expect_err("it lacks a socket").to_string();
    assert!(error.contains("socket \"late\" was bound"), "{error}");
    service.restart();
}

fn a_socket_that_is_bound_while_the_state_is_handed_over_fails_the_attempt_with_a_word() {
    let service = Setup::new().start();
    let first = service.first();
    first.on(Step::StateRequested, Act::Bind("late".into()));
    service.plan_next(at(Step::Claimed, Act::Receive));
    let why = service.fail_to_restart();
    assert!(why.contains("socket \"late\" was bound after the successor had been given the sockets"), "{why}");
    assert_eq!(service.connect().pid, first.pid);
    service.restart();
}

fn promise_09_flags_of_inherited_descriptions_are_unchanged() {
    let setup = all_kinds(Setup::new()).set(Listen::To(Kind::Blocking.socket("slow", "127.0.0.1:0")));
    let service = setup.start();
    let first = service.first();
    let flags = |process: &Process, name: &str| {
        let line = process.says(&format!("socket {name}"));
        i32::from_str_radix(line.split(' ').nth(3).expect("flags"), 8).expect("flags")
    };
    let before: Vec<_> = NAMES.iter().map(|name| flags(&first, name)).collect();
    assert!(before[..5].iter().all(|flags| flags & libc::O_NONBLOCK != 0));
    assert_eq!(flags(&first, "slow") & libc::O_NONBLOCK, 0, "what the program made is as it made it");
    // A restart that fails, one that succeeds, and what the old one sees of it.
    service.plan_next(at(Step::Claimed, Act::Exit(1)));
    service.fail_to_restart();
    let new = service.restart();
    assert_eq!(NAMES.iter().map(|name| flags(&new, name)).collect::<Vec<_>>(), before);
    assert_eq!(flags(&new, "slow") & libc::O_NONBLOCK, 0);
    for name in NAMES {
        assert!(new.says(&format!("socket {name}")).ends_with("cloexec 1"), "{name}");
    }
}

fn promise_09_a_unix_path_stays_connectable_throughout() {
    let service = all_kinds(Setup::new()).start();
    let (stream, coordination) = (service.path("stream"), service.socket());
    let stop = AtomicBool::new(false);
    let connected = thread::scope(|scope| {
        let clients = [&stream, &coordination].map(|path| {
            let stop = &stop;
            scope.spawn(move || {
                let mut connected = 0;
                while !stop.load(Ordering::Relaxed) {
                    let connection = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    if path.ends_with("stream") {
                        read_greeting(connection);
                    }
                    connected += 1;
                    // The coordination socket takes 64 clients at a time.
                    thread::sleep(std::time::Duration::from_millis(1));
                }
                connected
            })
        });
        for number in 0..6 {
            if number == 2 {
                service.plan_next(at(Step::Claimed, Act::Exit(1)));
                service.fail_to_restart();
            } else {
                service.restart();
            }
        }
        stop.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().expect("a path that is always there"))
    });
    assert!(connected.iter().all(|count| *count > 0), "{connected:?}");
}

fn promise_09_a_unix_listener_replaces_a_stale_path_and_nothing_else() {
    let setup = Setup::new();
    let (stale, file, served) = (setup.path("stale"), setup.path("regular"), setup.path("served"));
    stale_socket(&stale);
    fs::write(&file, "precious").expect("a file");
    let _listener = std::os::unix::net::UnixListener::bind(&served).expect("a listener");
    let service = setup.start();
    let first = service.first();
    assert_eq!(first.ask(Act::Claim(Kind::Unix.socket("stale", stale.display()))), "ok");
    let answer = first.ask(Act::Claim(Kind::Unix.socket("file", file.display())));
    assert!(answer.contains("something that is no socket is there; it is left alone"), "{answer}");
    let answer = first.ask(Act::Claim(Kind::Unix.socket("served", served.display())));
    assert!(answer.contains("another process serves it"), "{answer}");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "precious");
    assert!(UnixStream::connect(&stale).is_ok());
    let _ = Connection::open(service.address());
}

fn a_listener_that_was_shut_down_is_named_as_such_by_the_next_generation() {
    let setup = Setup::new();
    let path = setup.path("service.sock");
    for (kind, address) in [(Kind::Tcp, "127.0.0.1:0".into()), (Kind::Unix, path.display().to_string())] {
        let service = Setup::new().set(Listen::To(kind.socket("echo", address))).start();
        let old = service.first();
        // By the old one when it has handed over, as is habit in C: the new one cannot know yet.
        old.on(Step::HandedOff, Act::ShutListenersDown);
        let new = service.restart();
        for _ in 0..2 {
            let reason = service.fail_to_restart();
            assert!(reason.contains("exited with status 2"), "{reason}");
        }
        let third = service.hub.nth(2);
        let error = third.says("socket-error");
        assert!(error.contains("echo") && error.contains("somebody has shut it down"), "{error}");
        assert!(new.lives() && service.status().pid == new.pid);
    }
}
