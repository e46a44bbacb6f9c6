//! Named sockets that a program asks for and cannot have: the error says why, and what to do.

use std::net::TcpListener;

use crate::sockets::all_kinds;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::service::{Act, Config, Kind, Linger, Listen, Step, at, set, tcp};

pollflip_kit::trials![
    a_name_with_another_kind_behind_it_is_an_error_that_says_both,
    a_name_with_another_address_behind_it_is_an_error_that_says_both,
    a_socket_asked_for_after_the_handoff_is_an_error,
    an_address_that_is_there_under_another_name_is_told_with_that,
    names_are_checked,
    an_empty_path_is_an_error,
    an_address_that_somebody_has_is_an_error_that_says_who_may,
    an_address_that_overlaps_one_of_the_predecessor_is_an_error_that_names_it,
    an_address_that_an_earlier_generation_has_is_an_error_that_names_it,
];

fn a_name_with_another_kind_behind_it_is_an_error_that_says_both() {
    let service = all_kinds(Setup::new()).start();
    let new = service.restart();
    let answer = new.ask(Act::Claim(Kind::Udp.socket("echo", "127.0.0.1:0")));
    assert!(
        answer.contains("\"echo\" is a TCP listener on 127.0.0.1:") && answer.contains("and a UDP socket on 127.0.0.1:0 was asked for"),
        "{answer}"
    );
    let answer = new.ask(Act::Claim(tcp("file", "127.0.0.1:0")));
    assert!(answer.contains("\"file\" is no socket, and a TCP listener on 127.0.0.1:0 was asked for"), "{answer}");
    let path = service.path("stream");
    let answer = new.ask(Act::Claim(Kind::Datagram.socket("stream", path.display())));
    assert!(answer.contains("is a unix listener at") && answer.contains("a unix datagram socket at"), "{answer}");
    let answer = new.ask(Act::Claim(Kind::Seqpacket.socket("stream", path.display())));
    assert!(answer.contains("is a unix listener at") && answer.contains("a unix seqpacket listener at"), "{answer}");
    // Nothing of that has harmed it.
    service.restart();
}

fn a_name_with_another_address_behind_it_is_an_error_that_says_both() {
    let service = all_kinds(Setup::new()).start();
    let address = service.address();
    let new = service.restart();
    let answer = new.ask(Act::Claim(tcp("echo", "127.0.0.2:0")));
    assert!(
        answer.contains(&format!("is a TCP listener on {address}")) && answer.contains("a TCP listener on 127.0.0.2:0 was asked for"),
        "{answer}"
    );
    assert_eq!(new.ask(Act::Claim(tcp("echo", address))), "ok");
    let other = service.path("other");
    let answer = new.ask(Act::Claim(Kind::Unix.socket("stream", other.display())));
    assert!(answer.contains("/stream") && answer.contains("/other was asked for"), "{answer}");
    assert!(!other.exists());
}

fn a_socket_asked_for_after_the_handoff_is_an_error() {
    let service = Setup::new().set(Linger).start();
    let old = service.first();
    service.restart();
    old.says("event Completed");
    let answer = old.ask(Act::Claim(tcp("echo", "127.0.0.1:0")));
    assert!(answer.contains("asked for too late: this process has handed over"), "{answer}");
}

fn an_address_that_is_there_under_another_name_is_told_with_that() {
    let service = Service::start();
    // As a release meets it that has renamed its socket.
    let answer = service.first().ask(Act::Claim(tcp("other", service.address())));
    assert!(answer.contains(r#"this process has it already, under the name "echo": ask for it by that name"#), "{answer}");
}

fn names_are_checked() {
    let service = Service::start();
    let first = service.first();
    let answer = first.ask(Act::Claim(tcp("", "127.0.0.1:0")));
    assert!(answer.contains("must have 1 to 255 bytes, and this one has 0"), "{answer}");
    let answer = first.ask(Act::Claim(tcp(&"n".repeat(256), "127.0.0.1:0")));
    assert!(answer.contains("this one has 256"), "{answer}");
    let longest = "n".repeat(255);
    assert_eq!(first.ask(Act::Claim(tcp(&longest, "127.0.0.1:0"))), "ok");
    service.plan_next(set(Listen::To(tcp("echo", "127.0.0.1:0"))).set(Listen::To(tcp(&longest, "127.0.0.1:0"))));
    let new = service.restart();
    assert_eq!(new.says(&format!("socket {longest}")), first.says(&format!("socket {longest}")));
    let answer = new.ask(Act::Claim(tcp("web", "300.0.0.1:80")));
    assert!(answer.contains("\"web\""), "{answer}");
}

fn an_empty_path_is_an_error() {
    let service = Service::start();
    for kind in [Kind::Unix, Kind::Datagram, Kind::Seqpacket] {
        let answer = service.first().ask(Act::Claim(kind.socket("name", "")));
        assert!(answer.contains("cannot bind \"name\"") && answer.contains("the path is empty"), "{kind:?}: {answer}");
    }
    service.restart();
}

fn an_address_that_somebody_has_is_an_error_that_says_who_may() {
    let service = Service::start();
    let other = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = other.local_addr().expect("an address");
    let answer = service.first().ask(Act::Claim(tcp("other", address)));
    assert!(
        answer.contains("cannot bind \"other\"")
            && answer.contains(&format!("(os error 98); process {} has {address}: end", std::process::id())),
        "{answer}"
    );
    // One that was started by a restart may be of a release that has failed.
    let another = Service::start();
    let left = another.restart();
    left.says("event PredecessorGone");
    let answer = service.first().ask(Act::Claim(tcp("other", another.address())));
    let told = format!("process {} has {}, and a restart has started that process", left.pid, another.address());
    assert!(answer.contains(&told), "{answer}");
}

fn an_address_that_overlaps_one_of_the_predecessor_is_an_error_that_names_it() {
    let service = Service::start();
    let first = service.first();
    let address = service.address();
    let told = format!("the predecessor (process {}) still has {address}", first.pid);
    // Under another name, with the old one still inherited; and under the same name, with that removed.
    let only = |name: &str| set(Listen::OnlyTo(tcp(name, format!("0.0.0.0:{}", address.port()))));
    service.plan_next(only("other"));
    service.fail_to_restart();
    let error = service.hub.nth(1).says("socket-error");
    assert!(
        error.contains(&told) && error.contains("which is \"echo\" here") && error.contains("\"Another address\" in the recipes"),
        "{error}"
    );
    service.plan_next(only("echo").at(Step::Built, Act::Remove("echo".into())));
    service.fail_to_restart();
    let error = service.hub.nth(2).says("socket-error");
    assert!(error.contains(&told) && !error.contains("here") && error.contains("Event::PredecessorGone"), "{error}");
    assert_eq!(service.connect().pid, first.pid);
    // The advice: when the predecessor has ended.
    service.plan_next(at(Step::Built, Act::Remove("echo".into())).set(Listen::Nowhere));
    let new = service.restart();
    new.says("event PredecessorGone");
    assert_eq!(new.ask(Act::Claim(tcp("echo", format!("0.0.0.0:{}", address.port())))), "ok");
    assert_eq!(service.connect().pid, new.pid);
}

fn an_address_that_an_earlier_generation_has_is_an_error_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    // The first generation has it from elsewhere, as number 9, and passes it to nobody.
    let setup = Setup::new().set(Linger).set(Config::InheritDescriptors(false)).set(Listen::To(tcp("echo", "127.0.0.1:0")));
    let service = setup.stdin(listener).shell("exec 9<&0 </dev/null; exec \"$0\"").start();
    let first = service.first();
    let second = service.restart();
    for number in 2..4 {
        service.plan_next(set(Listen::To(tcp("other", address))));
        service.fail_to_restart();
        let error = service.hub.nth(number).says("socket-error");
        let told = format!("an earlier generation (process {}), which still finishes its work, has {address}", first.pid);
        assert!(error.contains(&told), "{error}");
        assert_eq!(service.connect().pid, second.pid);
    }
    // The advice.
    first.tell(Act::Exit(0));
    first.ends();
    service.plan_next(set(Listen::To(tcp("other", address))));
    let new = service.restart();
    new.says("socket other");
    assert_eq!(service.connect().pid, new.pid);
}
