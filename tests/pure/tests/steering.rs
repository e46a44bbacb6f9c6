//! The program of a UDP group and the real kernel: what it decides is what `owner` says.
//!
//! `POLLFLIP_SEED=N cargo test --test steering` has the same chance again.
#![cfg(target_os = "linux")]

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket, sockopt};
use pollflip::Mark;
use pollflip::internals::steering::{Instruction, Layout, Steering, layout, owner, program, to_one};
use pollflip_tests_pure::model::random::Random;
use pollflip_tests_pure::model::steering::{marked, run, steering};

/// How many datagrams are sent for each family of addresses.
const CASES: usize = 9000;

fn attach(socket: &UdpSocket, program: &[Instruction]) -> nix::Result<()> {
    let instruction = |&Instruction { code, then, otherwise, k }| libc::sock_filter { code, jt: then, jf: otherwise, k };
    let mut filter: Vec<_> = program.iter().map(instruction).collect();
    setsockopt(socket, sockopt::AttachReusePortCbpf, &libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() })
}

/// As many sockets at one address as a group can have.
fn group(address: &str) -> Option<Vec<UdpSocket>> {
    let mut address: SockaddrStorage = address.parse::<std::net::SocketAddr>().expect("an address").into();
    let family = if address.as_sockaddr_in().is_some() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut group = Vec::new();
    for _ in 0..32 {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Datagram, flags, None).ok()?;
        setsockopt(&socket, sockopt::ReusePort, &true).expect("an option");
        match bind(socket.as_raw_fd(), &address) {
            Err(Errno::EADDRNOTAVAIL) => return None,
            result => result.expect("an address"),
        }
        address = getsockname(socket.as_raw_fd()).expect("an address");
        group.push(socket.into());
    }
    Some(group)
}

fn below(random: &mut Random, end: u64) -> u64 {
    random.next() % end
}

fn any_layout(random: &mut Random) -> Layout {
    loop {
        let mark = match below(random, 3) {
            0 => Mark::quic(below(random, 22) as u8),
            _ => {
                let width = 1 + below(random, 8) as u32;
                let bits = (0xff_u32 >> (8 - width) << below(random, u64::from(9 - width))) as u8;
                Mark::byte(below(random, 24) as u16, bits)
            }
        };
        let mark = if below(random, 2) == 0 { mark } else { mark.generations(below(random, 33) as u8) };
        if let Ok(layout) = layout(mark) {
            return layout;
        }
    }
}

fn decides_alike(address: &str, to: &str) {
    let Some(group) = group(address) else { return eprintln!("{address}: no such address here") };
    let port = group[0].local_addr().expect("an address").port();
    let to: std::net::SocketAddr = format!("{to}:{port}").parse().expect("an address");
    let client = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).expect("a client");
    let mut random = Random::seeded();
    let mut is_marked = 0;
    let mut buffer = vec![0; 65_536];
    for case in 0..CASES {
        let layout = any_layout(&mut random);
        let serving = below(&mut random, layout.generations().into()) as u8;
        let steering = Steering { live: random.next() as u32, serving };
        // The sockets beyond its own generations are strangers, which never get anything.
        attach(&group[below(&mut random, 32) as usize], &program(layout, steering)).expect("a program");
        let length = if case % 500 == 0 { 65_507 } else { below(&mut random, 65) as usize };
        let mut datagram: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        if below(&mut random, 4) > 0 {
            datagram = marked(layout, below(&mut random, layout.generations().into()) as u8, &datagram);
            let cut = below(&mut random, 3) as usize;
            datagram.truncate(datagram.len().saturating_sub(cut));
        }
        let decided = owner(layout, steering, &datagram);
        is_marked += usize::from(decided != serving);
        assert_eq!(run(&program(layout, steering), &datagram), Some(decided.into()));
        client.send_to(&datagram, to).expect("room");
        let got = group.iter().position(|socket| socket.recv(&mut buffer).is_ok_and(|length| buffer[..length] == datagram));
        assert_eq!(got, Some(decided.into()), "case {case}: {layout:?} {steering:?} {datagram:?}");
    }
    assert!(is_marked > CASES / 8, "only {is_marked} of {CASES} had a mark of somebody else's");
}

#[test]
fn promise_14_the_kernel_decides_as_owner_does_by_ipv4() {
    decides_alike("127.0.0.1:0", "127.0.0.1");
}

#[test]
fn promise_14_the_kernel_decides_as_owner_does_by_ipv6() {
    decides_alike("[::1]:0", "[::1]");
}

#[test]
fn promise_14_the_kernel_decides_as_owner_does_for_both_at_once() {
    decides_alike("[::]:0", "127.0.0.1");
}

#[test]
fn the_last_byte_of_the_longest_datagram_can_be_the_mark() {
    let group = group("127.0.0.1:0").expect("an address");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a client");
    let to = group[0].local_addr().expect("an address");
    let layout = layout(Mark::byte(65_506, 0x0f)).expect("a mark");
    attach(&group[0], &program(layout, Steering { live: 1 << 5, serving: 3 })).expect("a program");
    let mut datagram = vec![0; 65_507];
    datagram[65_506] = layout.mark(5);
    for (length, expected) in [(65_507, 5), (65_506, 3), (0, 3)] {
        client.send_to(&datagram[..length], to).expect("room");
        let got = group.iter().position(|socket| socket.recv(&mut [0; 65_536]).is_ok_and(|got| got == length));
        assert_eq!(got, Some(expected), "of {length} bytes");
    }
}

#[test]
fn a_datagram_that_is_cut_short_anywhere_goes_to_the_one_that_serves_or_its_owner() {
    let group = group("127.0.0.1:0").expect("an address");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a client");
    let to = group[0].local_addr().expect("an address");
    for mark in [Mark::byte(2, 0xf0), Mark::byte(20, 0xff), Mark::quic(2), Mark::quic(20)] {
        let layout = layout(mark).expect("a mark");
        let steering = Steering { live: 1 << 5, serving: 3 };
        attach(&group[0], &program(layout, steering)).expect("a program");
        for first in [0, 0x80] {
            let whole = marked(layout, 5, &[first; 40]);
            for length in 0..whole.len() {
                client.send_to(&whole[..length], to).expect("room");
                let got = group.iter().position(|socket| socket.recv(&mut [0; 64]).ok() == Some(length));
                assert_eq!(got, Some(owner(layout, steering, &whole[..length]).into()), "{layout:?} {length}");
            }
        }
    }
    attach(&group[0], &to_one(7)).expect("a program");
    client.send_to(&[0xff; 40], to).expect("room");
    assert!(group[7].recv(&mut [0; 64]).is_ok());
}

#[test]
fn any_bytes_are_a_mark_and_a_datagram_or_are_told_to_be_none() {
    let mut random = Random::seeded();
    let mut layouts = 0;
    for _ in 0..20_000 {
        let mut data: Vec<u8> = (0..10 + below(&mut random, 80)).map(|_| random.next() as u8).collect();
        data[2] &= if below(&mut random, 2) == 0 { 0 } else { 0xff };
        data[1] %= 64;
        data[4] %= 34;
        layouts += usize::from(steering(&data).is_some());
    }
    assert!(layouts > 2000, "{layouts}");
}

/// What steering costs a datagram, and a switch: figures for people, of interleaved rounds.
/// `cargo test --release --test steering -- --ignored --nocapture`
#[test]
#[ignore = "it measures"]
fn figures() {
    let layout = layout(Mark::byte(0, 0xf0)).expect("a mark");
    let plain = vec![UdpSocket::bind("127.0.0.1:0").expect("a socket")];
    plain[0].set_nonblocking(true).expect("a flag");
    let steered: Vec<UdpSocket> = group("127.0.0.1:0").expect("an address").into_iter().take(8).collect();
    let client = UdpSocket::bind("127.0.0.1:0").expect("a client");
    let mut times: [Vec<f64>; 2] = Default::default();
    let mut buffer = [0; 128];
    for round in 0..400 {
        for (of, sockets) in times.iter_mut().zip([&plain, &steered]) {
            let last = sockets.len() - 1;
            let slot = if last == 0 { 0 } else { round % 8 };
            if last > 0 {
                attach(&sockets[0], &program(layout, Steering { live: 0xff, serving: 0 })).expect("a program");
            }
            let to = sockets[0].local_addr().expect("an address");
            let datagram = [layout.mark(slot as u8); 100];
            let begun = Instant::now();
            for _ in 0..32 {
                for _ in 0..64 {
                    client.send_to(&datagram, to).expect("room");
                }
                for _ in 0..64 {
                    sockets[slot].recv(&mut buffer).expect("it is here");
                }
            }
            of.push(begun.elapsed().as_nanos() as f64 / 2048.0);
        }
    }
    let [plain, of_group] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 10]
    });
    let mut switches: Vec<_> = (0..200)
        .map(|round| {
            let begun = Instant::now();
            for socket in &steered {
                attach(socket, &program(layout, Steering { live: 0xff, serving: round % 8 })).expect("a program");
            }
            begun.elapsed()
        })
        .collect();
    switches.sort();
    println!("a datagram, p10 of 400 rounds: plain {plain:.0} ns, steered {of_group:.0} ns, ratio {:.3}", of_group / plain);
    println!("a switch by all 8 sockets: median {:?}, p99 {:?}", switches[100], switches[198]);
}
