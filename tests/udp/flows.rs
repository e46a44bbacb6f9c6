//! Flows that stay where they are, and datagrams that find their way.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::peer::Peer;
use crate::service::{Address, Generations, Has};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_for, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Config, Linger, RunAs, ms, set};
use udp_flows::clients::Clients;
use udp_flows::protocol::{BEGIN, DATA, Datagram, END, UNKNOWN};

pollflip_kit::trials!(
    promise_14_a_flow_stays_with_its_generation_over_twenty_restarts,
    promise_14_so_it_does_for_another_user_by_ipv6_and_by_both_at_once,
    promise_14_a_drainer_killed_loses_nothing_that_was_queued,
    promise_14_a_successor_killed_on_probation_gives_its_hellos_back,
    promise_14_a_stopped_drainer_costs_the_new_one_nothing,
    promise_14_the_serving_one_killed_leaves_the_flows_of_two_drainers,
    promise_14_an_old_process_does_not_read_what_is_a_later_one_s,
    a_release_without_groups_gets_its_slot_and_passes_the_group_on,
    the_plain_socket_of_a_predecessor_becomes_the_first_of_a_group,
    promise_14_a_drainer_and_the_serving_one_killed_at_once_leave_the_flows_of_the_other_drainer,
    an_empty_datagram_goes_to_the_one_that_serves_and_the_longest_one_to_whom_it_names,
    descriptors_are_as_many_as_slots_after_many_restarts,
);

pub fn address(service: &Service) -> SocketAddr {
    service.first().says("serving").parse().expect("an address")
}

fn under_load(service: &Service, restarts: usize, flows: usize) {
    let mut to = address(service);
    if to.ip().is_unspecified() {
        to.set_ip(if to.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let load = Clients::start(to, flows).expect("clients");
    let mut alive = 1;
    for _ in 0..restarts {
        load.wait_for_flows(8).expect("a server");
        let mut refused = 0;
        while let Err(why) = service.try_restart() {
            // All sockets are somebody's.
            assert!(why.to_string().contains("still finish"), "{why}");
            refused += 1;
            assert!(refused < 1000, "{why}");
            load.wait_for_flows(1).expect("a server");
        }
        alive = alive.max(1 + service.status().draining.len());
    }
    load.wait_for_flows(8).expect("a server");
    let tally = load.stop();
    assert_eq!((tally.lost, tally.misrouted, tally.begun_anew), (0, 0, 0), "of {} datagrams\n{}", tally.answered, service.hub.story());
    assert!(alive >= 3, "{alive} generations at a time");
}

fn promise_14_a_flow_stays_with_its_generation_over_twenty_restarts() {
    under_load(&Setup::new().start(), 20, 60);
}

fn promise_14_so_it_does_for_another_user_by_ipv6_and_by_both_at_once() {
    let nobody = Setup::new().set(RunAs(12345)).set(Address("127.0.0.1:0".into())).start();
    under_load(&nobody, 8, 40);
    drop(nobody);
    for address in ["[::1]:0", "[::]:0", "0.0.0.0:0"] {
        under_load(&Setup::new().set(Address(address.into())).start(), 4, 40);
    }
}

/// A drainer with a flow, and the one that serves.
fn two_generations(setup: Setup) -> (Service, Peer, crate::peer::Flow, Process) {
    let service = setup.start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    let new = service.restart();
    new.says("serving");
    peer.stays(flow);
    (service, peer, flow, new)
}

fn promise_14_a_drainer_killed_loses_nothing_that_was_queued() {
    let (service, peer, flow, new) = two_generations(Setup::new());
    service.first().signal(Signal::SIGSTOP);
    wait_until("the stop", || procfs::status(service.first().pid, "State").is_some_and(|state| state.starts_with('T')));
    for _ in 0..20 {
        peer.send(flow.mark, DATA, flow.number);
    }
    service.first().signal(Signal::SIGKILL);
    for _ in 0..20 {
        let answer = peer.hears();
        assert_eq!((answer.pid, answer.kind), (new.own, UNKNOWN), "the client is told");
    }
    new.says_again("orphan", 19);
    // From then on they come to it at once.
    assert_eq!(peer.goes_on(flow), (new.own, UNKNOWN));
}

fn promise_14_a_successor_killed_on_probation_gives_its_hellos_back() {
    let service = Setup::new().set(Config::Probation(ms(60000))).start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("serving");
    service.first().says("event HandedOff");
    new.signal(Signal::SIGSTOP);
    wait_until("the stop", || procfs::status(new.pid, "State").is_some_and(|state| state.starts_with('T')));
    for number in 100..120 {
        peer.send(0, BEGIN, number);
    }
    new.signal(Signal::SIGKILL);
    asker.join().expect("a thread").expect_err("it has failed");
    for _ in 0..20 {
        let answer = peer.hears();
        assert_eq!((answer.pid, answer.kind), (service.first().own, BEGIN));
    }
    peer.stays(flow);
    assert_eq!(peer.begins().pid, service.first().own);
}

fn promise_14_a_stopped_drainer_costs_the_new_one_nothing() {
    let (service, mut peer, flow, new) = two_generations(Setup::new());
    service.first().signal(Signal::SIGSTOP);
    wait_until("the stop", || procfs::status(service.first().pid, "State").is_some_and(|state| state.starts_with('T')));
    peer.send(flow.mark, DATA, flow.number);
    for _ in 0..50 {
        assert_eq!(peer.begins().pid, new.own);
    }
    // A restart goes on as well.
    let newer = service.restart();
    assert_eq!(peer.begins().pid, newer.own);
    service.first().signal(Signal::SIGCONT);
    let answer = peer.hears();
    assert_eq!((answer.pid, answer.kind), (service.first().own, DATA), "it has waited");
}

fn promise_14_the_serving_one_killed_leaves_the_flows_of_two_drainers() {
    let (service, mut peer, flow, _) = two_generations(Setup::new());
    let other = peer.begins();
    let serving = service.restart();
    serving.says("serving");
    serving.signal(Signal::SIGKILL);
    serving.ends();
    for _ in 0..100 {
        peer.stays(flow);
        peer.stays(other);
    }
    // New ones have nobody: they are nobody else's.
    peer.send(0, BEGIN, 999);
    peer.stays(flow);
    assert!(service.first().said("orphan").is_empty());
}

fn promise_14_an_old_process_does_not_read_what_is_a_later_one_s() {
    // Two slots of three are used in turn: what the first process has found free is a later one's soon.
    let service = Setup::new().set(Generations(3)).start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    for _ in 0..10 {
        // Refused until the one before the last has ended.
        let pid = wait_for("a restart", || service.try_restart().ok());
        let new = service.hub.process(pid);
        new.says("serving");
        let flows: Vec<_> = (0..5).map(|_| peer.begins()).collect();
        assert!(flows.iter().all(|begun| begun.pid == new.own), "{flows:?} of {}", new.own);
        peer.stays(flow);
        for flow in flows {
            peer.stays(flow);
            assert_eq!((peer.send(flow.mark, END, flow.number), peer.hears().kind), ((), END));
        }
    }
}

fn a_release_without_groups_gets_its_slot_and_passes_the_group_on() {
    let (service, mut peer, flow, _) = two_generations(Setup::new().set(Linger));
    service.plan_next(set(Has::PlainSocket));
    let plain = service.restart();
    plain.says("serving");
    let unmarked = peer.begins();
    assert_eq!((unmarked.pid, unmarked.mark), (plain.own, 0));
    peer.stays(flow);
    let last = service.restart();
    last.says("serving");
    let marked = peer.begins();
    assert!(marked.pid == last.own && marked.mark != 0);
    peer.stays(flow);
    peer.stays(marked);
    assert_eq!(peer.goes_on(unmarked), (last.own, UNKNOWN), "it bears no mark");
}

fn the_plain_socket_of_a_predecessor_becomes_the_first_of_a_group() {
    for (uid, works) in [(0, true), (12345, true)] {
        let service = Setup::new().set(RunAs(uid)).plan(set(Has::PlainSocket)).start();
        let mut peer = Peer::new(address(&service));
        assert_eq!(peer.begins().mark, 0);
        let new = service.restart();
        new.says("serving");
        let flow = peer.begins();
        assert!((flow.pid == new.own) == works && flow.mark != 0);
        let last = service.restart();
        last.says("serving");
        peer.stays(flow);
        assert_eq!(peer.begins().pid, last.own);
    }
}

fn an_empty_datagram_goes_to_the_one_that_serves_and_the_longest_one_to_whom_it_names() {
    let (service, peer, flow, new) = two_generations(Setup::new());
    peer.socket.send(&[]).expect("room");
    new.says("datagram of 0 bytes");
    let longest = |mark, kind, flow| {
        let mut bytes = vec![0xff; 65_507];
        let head = Datagram { mark, kind, flow, number: 1, pid: 0 }.encode();
        bytes[..head.len()].copy_from_slice(&head);
        peer.socket.send(&bytes).expect("room");
        let answer = peer.hears();
        (answer.pid, answer.kind)
    };
    assert_eq!(longest(0, BEGIN, 700), (new.own, BEGIN));
    assert_eq!(longest(flow.mark, DATA, flow.number), (flow.pid, DATA));
    // A mark that nobody has.
    assert_eq!(longest(0xf0, DATA, 701), (new.own, UNKNOWN));
    assert!(service.first().said("datagram").is_empty());
}

fn promise_14_a_drainer_and_the_serving_one_killed_at_once_leave_the_flows_of_the_other_drainer() {
    let (service, mut peer, flow, drains) = two_generations(Setup::new());
    let gone = peer.begins();
    let serving = service.restart();
    serving.says("serving");
    let lost = peer.begins();
    assert_eq!((gone.pid, lost.pid), (drains.own, serving.own));
    for killed in [&drains, &serving] {
        killed.signal(Signal::SIGKILL);
    }
    // What nobody reads any more is nobody else's.
    for _ in 0..50 {
        peer.send(gone.mark, DATA, gone.number);
        peer.send(lost.mark, DATA, lost.number);
        peer.send(0, BEGIN, 999);
        peer.stays(flow);
    }
    drains.ends();
    serving.ends();
    peer.stays(flow);
    assert!(service.first().said("orphan").is_empty());
    // The address is in use as long as the last flow lasts, and then is not.
    let at = address(&service).to_string();
    let early = Setup::new().set(Address(at.clone())).launch().first().says("socket-error");
    assert!(early.contains("cannot bind") && early.contains(&format!("process {} has", service.first().pid)), "{early}");
    peer.send(flow.mark, END, flow.number);
    assert_eq!(peer.hears().kind, END);
    service.first().ends();
    let again = Setup::new().set(Address(at.clone())).start();
    assert_eq!(Peer::new(address(&again)).begins().pid, again.first().own);
}

fn descriptors_are_as_many_as_slots_after_many_restarts() {
    let service = Setup::new().start();
    let sockets = |process: &Process| {
        let all = procfs::descriptors(process.pid).into_iter();
        let mut all: Vec<_> = all.map(|(_, what)| what).filter(|what| what.starts_with("socket:")).collect();
        all.sort();
        all.dedup();
        all.len()
    };
    let first = service.restart();
    first.says("event Committed");
    service.first().ends();
    let before = sockets(&first);
    // The long form: a thousand.
    let restarts = std::env::var("POLLFLIP_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    for _ in 0..restarts {
        service.restart();
    }
    let last = service.hub.nth(service.hub.pids().len() - 1);
    last.says("event PredecessorGone");
    wait_until("as many sockets", || sockets(&last) == before);
}
