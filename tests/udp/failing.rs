//! What cannot be steered: the attempt or the start fails with a reason, and who serves goes on.

use crate::flows::address;
use crate::peer::Peer;
use crate::service::{Address, Ask, Deny, Generations, Has, Marks};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::service::{Act, set};

pollflip_kit::trials!(
    a_second_instance_is_told_that_the_address_is_in_use,
    promise_14_a_connected_member_fails_the_restart_and_not_the_service,
    a_sandbox_that_forbids_it_at_the_first_start_is_named,
    promise_14_a_sandbox_that_forbids_it_to_the_successor_fails_the_attempt,
    promise_14_a_sandbox_that_is_handed_down_fails_the_attempt,
    promise_14_a_sandbox_that_forbids_it_at_the_grant_alone_fails_the_attempt,
    a_kernel_that_takes_the_program_and_does_nothing_is_named,
    another_mark_than_the_predecessor_s_is_refused_before_ready,
    a_mark_that_makes_no_sense_is_an_error,
    a_restart_is_refused_while_each_socket_has_a_reader,
    a_stop_closes_what_is_passed_on_and_flows_go_on,
);

/// The service goes on with its flows, and takes new ones.
fn goes_on(service: &Service, peer: &mut Peer, flow: crate::peer::Flow) {
    peer.stays(flow);
    assert_eq!(peer.begins().pid, service.first().own);
}

fn a_second_instance_is_told_that_the_address_is_in_use() {
    let service = Setup::new().start();
    let at = address(&service).to_string();
    for kind in [Has::Group, Has::PlainSocket] {
        let second = Setup::new().set(Address(at.clone())).set(kind).launch();
        let error = second.first().says("socket-error");
        assert!(error.contains("cannot bind \"flows\"") && error.contains("(os error 98)"), "{error}");
        assert!(error.contains(&format!("process {} has", service.first().pid)), "{error}");
    }
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    goes_on(&service, &mut peer, flow);
}

fn promise_14_a_connected_member_fails_the_restart_and_not_the_service() {
    let service = Setup::new().start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    assert_eq!(service.first().ask(Ask::ConnectAnother), "connected");
    for _ in 0..2 {
        let why = service.fail_to_restart();
        assert!(why.contains("new UDP flows could not be given") && why.contains("connect()"), "{why}");
        goes_on(&service, &mut peer, flow);
    }
    assert!(service.first().said("event Failed").iter().all(|failed| failed.starts_with("Steering")));
}

fn a_sandbox_that_forbids_it_at_the_first_start_is_named() {
    let service = Setup::new().set(Deny::Born).launch();
    let error = service.first().says("socket-error");
    assert!(error.contains("SO_ATTACH_REUSEPORT_CBPF") && error.contains("option 51 of SOL_SOCKET"), "{error}");
}

fn promise_14_a_sandbox_that_forbids_it_to_the_successor_fails_the_attempt() {
    let service = Setup::new().start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    service.plan_next(set(Deny::Born));
    let why = service.fail_to_restart();
    assert!(why.contains("SO_ATTACH_REUSEPORT_CBPF"), "{why}");
    goes_on(&service, &mut peer, flow);
    assert_eq!(peer.begins().pid, service.first().own);
    let new = service.restart();
    peer.stays(flow);
    assert_eq!(peer.begins().pid, new.own);
}

fn promise_14_a_sandbox_that_is_handed_down_fails_the_attempt() {
    let service = Setup::new().plan(set(Deny::Serving)).start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    // Of the successor it is what forbids it too, which that finds out first.
    let why = service.fail_to_restart();
    assert!(why.contains("SO_ATTACH_REUSEPORT_CBPF"), "{why}");
    goes_on(&service, &mut peer, flow);
}

fn promise_14_a_sandbox_that_forbids_it_at_the_grant_alone_fails_the_attempt() {
    let service = Setup::new().plan(set(Deny::Granting)).start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    for attempt in 1..=2 {
        let why = service.fail_to_restart();
        assert!(why.contains("new UDP flows could not be given") && why.contains("(os error 1)") && why.contains("option 51"), "{why}");
        // The successor had all it needs.
        service.hub.nth(attempt).says("claimed");
        goes_on(&service, &mut peer, flow);
    }
    assert!(service.first().said("event Failed").iter().all(|failed| failed.starts_with("Steering")));
}

fn a_kernel_that_takes_the_program_and_does_nothing_is_named() {
    let told = "this kernel takes a program for SO_REUSEPORT and does nothing with it";
    let error = Setup::new().set(Deny::Ignored).launch().first().says("socket-error");
    assert!(error.contains(told), "{error}");
    let service = Setup::new().start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    service.plan_next(set(Deny::Ignored));
    let why = service.fail_to_restart();
    assert!(why.contains(told), "{why}");
    goes_on(&service, &mut peer, flow);
}

fn another_mark_than_the_predecessor_s_is_refused_before_ready() {
    let service = Setup::new().start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    // Another place, a group that is smaller than it was, one that is larger, and another kind.
    for (other, told) in [
        (set(Marks::Byte(0, 15)), "bits 0x0f of byte 0"),
        (set(Marks::Byte(1, 0xf0)), "bits 0xf0 of byte 1"),
        (set(Generations(4)), "4 generations"),
        (set(Generations(15)), "15 generations"),
        (set(Marks::Quic(9)), "connection IDs of 9 bytes"),
    ] {
        service.plan_next(other);
        let why = service.fail_to_restart();
        assert!(why.contains("each release has to use the same mark") && why.contains(told), "{why}");
        goes_on(&service, &mut peer, flow);
    }
}

fn a_mark_that_makes_no_sense_is_an_error() {
    for (wrong, told) in [
        (set(Marks::Byte(0, 5)), "side by side"),
        (set(Marks::Byte(0, 16)), "take more bits"),
        (set(Marks::Byte(65507, 0xf0)), "out of range"),
        (set(Marks::Quic(21)), "2 to 20 bytes"),
        (set(Marks::Byte(0, 255)).set(Generations(33)), "2 to 32 generations, and 33"),
        (set(Marks::Byte(0, 3)).set(Generations(4)), "2 to 3 generations, and 4"),
    ] {
        let error = Setup::new().plan(wrong).launch().first().says("socket-error");
        assert!(error.contains(told), "{error}");
    }
}

fn a_restart_is_refused_while_each_socket_has_a_reader() {
    let service = Setup::new().set(Generations(2)).start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    let new = service.restart();
    new.says("serving");
    let why = service.try_restart().expect_err("both are taken").to_string();
    assert!(why.contains("1 earlier generation still finishes its work"), "{why}");
    peer.stays(flow);
    peer.send(flow.mark, udp_flows::protocol::END, flow.number);
    assert_eq!(peer.hears().kind, udp_flows::protocol::END);
    service.first().ends();
    let last = service.restart();
    assert_eq!(peer.begins().pid, last.own);
}

fn a_stop_closes_what_is_passed_on_and_flows_go_on() {
    let service = Setup::new().start();
    let mut peer = Peer::new(address(&service));
    let flow = peer.begins();
    assert_eq!(service.first().ask(Act::Stop), "stopped");
    goes_on(&service, &mut peer, flow);
    assert_eq!(service.first().ask(Act::Drop), "dropped");
    service.first().tell(Act::Exit(0));
    service.first().ends();
    let again = Setup::new().set(Address(address(&service).to_string())).start();
    assert!(again.first().lives());
}
