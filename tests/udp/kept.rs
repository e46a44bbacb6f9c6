//! A service that keeps what it has, under a guard: killed while earlier generations still have flows, it comes back on its group.

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::flows::address;
use crate::peer::{Flow, Peer};
use crate::service::{Address, Has, Name};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_for, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Log, RunAs, Step, at, ms, set};
use udp_flows::clients::Clients;
use udp_flows::protocol::{BEGIN, DATA, END, UNKNOWN};

pollflip_kit::trials!(
    promise_14_a_service_killed_while_others_drain_comes_back_on_its_group,
    promise_14_what_comes_while_nobody_serves_waits_for_the_next_start,
    promise_14_a_drainer_and_the_serving_one_killed_at_once_leave_the_other_drainer_its_flows,
    promise_14_both_killed_on_probation_leave_a_drainer_its_flows,
    promise_14_nothing_is_misrouted_over_kills_and_restarts_under_load,
    a_start_that_is_killed_before_it_is_ready_leaves_the_group_to_the_next_one,
    a_group_comes_back_for_another_user_by_ipv6_and_by_both_at_once,
    a_number_that_is_another_process_s_by_now_is_no_drainer,
    a_release_that_keeps_nothing_goes_on_with_the_group_all_the_same,
    a_keeper_without_room_for_a_group_is_told_of_and_the_service_goes_on_without,
    a_group_that_is_removed_or_stopped_is_kept_no_more,
    what_a_release_has_no_use_for_after_a_kill_is_kept_no_more,
    what_a_release_that_keeps_nothing_has_no_use_for_is_kept_no_more,
    a_socket_that_has_become_a_group_comes_back_as_one,
    descriptors_are_as_many_after_many_kills,
);

const POLLFLIP: &str = env!("CARGO_BIN_EXE_pollflip-of-udp");

/// A service under a guard.
pub struct Kept(pub Service);

impl Kept {
    pub fn start(setup: Setup) -> Kept {
        Kept::with(setup, "")
    }

    fn with(setup: Setup, options: &str) -> Kept {
        let log = setup.path("guard.log");
        let shell = format!("exec \"$POLLFLIP\" guard --restart on-failure --strikes 1000/1 --delay 1 {options} -- \"$0\" 2>>\"$LOG\"");
        let setup = setup
            .set(Config::Keep(true))
            .env("POLLFLIP", POLLFLIP)
            .env("LOG", log)
            .env("POLLFLIP_LOG", "info")
            .set(Log::Told)
            .shell(&shell);
        Kept(setup.start())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.path("guard.log")).unwrap_or_default()
    }

    /// The process that is started next, whenever that is.
    fn next(&self, after: usize) -> Process {
        let process = self.0.hub.nth(after);
        process.says("born");
        process
    }

    /// Kills that one, which serves, and returns the one that serves after it.
    fn kill(&self, serving: &Process) -> Process {
        let born = self.0.hub.pids().len();
        serving.signal(Signal::SIGKILL);
        let new = self.0.hub.nth(born);
        assert_eq!(new.says("serving"), address(&self.0).to_string(), "{}", self.log());
        new
    }

    /// How many sockets the guard has that this process has too, and how many besides. One is its own.
    fn held(&self, serving: &Process) -> (usize, usize) {
        let sockets = |pid| -> BTreeSet<String> {
            procfs::descriptors(pid).into_iter().map(|(_, what)| what).filter(|what| what.starts_with("socket:")).collect()
        };
        let (guard, service) = (sockets(self.0.launched()), sockets(serving.pid));
        let shared = guard.intersection(&service).count();
        (shared, guard.len() - shared)
    }

    pub fn restart(&self) -> Process {
        let new = self.0.restart();
        new.says("event Committed");
        new
    }
}

impl Drop for Kept {
    /// Its processes have a group of their own, which the harness does not know.
    fn drop(&mut self) {
        let directory = self.0.path("").display().to_string();
        for pid in [self.0.launched()].into_iter().chain(self.0.hub.pids()) {
            let is_ours = fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| String::from_utf8_lossy(&all).contains(&directory));
            if is_ours {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
        }
    }
}

/// Two that drain a flow each, and the one that serves, with a flow too.
fn three_generations(kept: &Kept) -> (Peer, [Flow; 3], [Process; 3]) {
    let mut peer = Peer::new(address(&kept.0));
    let mut flows = vec![peer.begins()];
    let mut processes = vec![kept.0.first()];
    for _ in 0..2 {
        processes.push(kept.restart());
        flows.push(peer.begins());
    }
    let (Ok(flows), Ok(processes)) = (flows.try_into(), processes.try_into()) else { panic!("three of each") };
    (peer, flows, processes)
}

/// The flow ends, and with it the process.
fn ends(peer: &Peer, flow: Flow, process: &Process) {
    peer.send(flow.mark, END, flow.number);
    let answer = peer.hears();
    assert_eq!((answer.pid, answer.kind), (flow.pid, END));
    process.ends();
}

fn promise_14_a_service_killed_while_others_drain_comes_back_on_its_group() {
    let kept = Kept::start(Setup::new());
    let (mut peer, [one, two, lost], [first, second, third]) = three_generations(&kept);
    let mut serving = third;
    for _ in 0..5 {
        let new = kept.kill(&serving);
        // It has the slot of the one that was killed: what is marked by it is its own, and no flow that it knows.
        assert_eq!(peer.goes_on(lost), (new.own, UNKNOWN));
        let begun = peer.begins();
        assert_eq!((begun.pid, begun.mark), (new.own, lost.mark));
        for flow in [one, two, begun] {
            peer.stays(flow);
        }
        serving = new;
    }
    assert_eq!(kept.0.status().draining.len(), 2);
    // It learns of their ends as a successor does.
    ends(&peer, one, &first);
    assert_eq!(serving.says("event GenerationEnded"), first.own.to_string());
    peer.stays(two);
    let last = kept.restart();
    peer.stays(two);
    ends(&peer, two, &second);
    assert_eq!(last.says("event GenerationEnded"), second.own.to_string());
    // From then on its mark is nobody's.
    assert_eq!(peer.goes_on(two), (last.own, UNKNOWN));
}

fn promise_14_what_comes_while_nobody_serves_waits_for_the_next_start() {
    let kept = Kept::start(Setup::new());
    let (peer, [one, two, lost], [_, second, third]) = three_generations(&kept);
    let born = kept.0.hub.pids().len();
    kept.0.plan_next(at(Step::Born, Act::Wait));
    third.signal(Signal::SIGKILL);
    let new = kept.next(born);
    new.says("waits");
    for number in 100..120 {
        peer.send(0, BEGIN, number);
        peer.send(lost.mark, DATA, number);
        peer.stays(one);
    }
    // One more ends, and leaves some unread.
    second.signal(Signal::SIGSTOP);
    wait_until("the stop", || procfs::status(second.pid, "State").is_some_and(|state| state.starts_with('T')));
    for number in 200..220 {
        peer.send(two.mark, DATA, number);
    }
    second.signal(Signal::SIGKILL);
    second.ends();
    new.go();
    let mut answers: Vec<_> = (0..60).map(|_| peer.hears()).map(|answer| (answer.flow, answer.pid, answer.kind)).collect();
    answers.sort_unstable();
    let all = (100..120).flat_map(|number| [(number, BEGIN), (number, UNKNOWN)]).chain((200..220).map(|number| (number, UNKNOWN)));
    let mut expected: Vec<_> = all.map(|(number, kind)| (number, new.own, kind)).collect();
    expected.sort_unstable();
    // A flow may have begun before its first other datagram is read.
    let is_known = |(number, pid, kind): (u32, u32, u8)| (number, pid, if kind == DATA { UNKNOWN } else { kind });
    let mut found: Vec<_> = answers.into_iter().map(is_known).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    peer.stays(one);
}

fn promise_14_a_drainer_and_the_serving_one_killed_at_once_leave_the_other_drainer_its_flows() {
    let kept = Kept::start(Setup::new());
    let (mut peer, [one, two, lost], [_, second, third]) = three_generations(&kept);
    second.signal(Signal::SIGKILL);
    let new = kept.kill(&third);
    for gone in [two, lost] {
        assert_eq!(peer.goes_on(gone), (new.own, UNKNOWN));
    }
    peer.stays(one);
    assert_eq!(peer.begins().pid, new.own);
    assert_eq!(kept.0.status().draining.len(), 1);
}

fn promise_14_both_killed_on_probation_leave_a_drainer_its_flows() {
    let kept = Kept::start(Setup::new().set(Config::Probation(ms(60000))).plan(set(Config::Probation(ms(0)))));
    let mut peer = Peer::new(address(&kept.0));
    let one = peer.begins();
    let old = kept.restart();
    let two = peer.begins();
    let asker = kept.0.restart_meanwhile();
    let new = kept.0.hub.nth(2);
    new.says("serving");
    old.says("event HandedOff");
    let three = peer.begins();
    assert_eq!((two.pid, three.pid), (old.own, new.own));
    old.signal(Signal::SIGSTOP);
    wait_until("the stop", || procfs::status(old.pid, "State").is_some_and(|state| state.starts_with('T')));
    new.signal(Signal::SIGKILL);
    old.signal(Signal::SIGKILL);
    asker.join().expect("a thread").expect_err("nobody is there");
    let again = kept.0.hub.nth(3);
    again.says("serving");
    peer.stays(one);
    for gone in [two, three] {
        assert_eq!(peer.goes_on(gone), (again.own, UNKNOWN));
    }
    assert_eq!(peer.begins().pid, again.own);
    peer.stays(one);
}

fn promise_14_nothing_is_misrouted_over_kills_and_restarts_under_load() {
    let kept = Kept::start(Setup::new());
    let load = Clients::start(address(&kept.0), 60).expect("clients");
    let mut serving = kept.0.first();
    let mut kills = 0;
    for round in 0..16 {
        load.wait_for_flows(10).expect("a server");
        if round % 2 == 0 {
            serving = kept.kill(&serving);
            kills += 1;
        } else {
            let pid = wait_for("a restart", || kept.0.try_restart().ok());
            serving = kept.0.hub.process(pid);
            serving.says("event Committed");
        }
    }
    load.wait_for_flows(10).expect("a server");
    let tally = load.stop();
    println!(
        "kills={kills} restarts=8 datagrams={} lost={} misrouted={} begun_anew={}",
        tally.answered, tally.lost, tally.misrouted, tally.begun_anew
    );
    assert_eq!(tally.misrouted, 0, "{}", kept.0.hub.story());
    // What the killed had read and not answered is lost with them: of 60 flows, each of which has one on its way, a few.
    assert!(tally.lost <= kills * 8, "{} lost\n{}", tally.lost, kept.0.hub.story());
}

fn a_start_that_is_killed_before_it_is_ready_leaves_the_group_to_the_next_one() {
    let kept = Kept::start(Setup::new());
    let (mut peer, [one, two, lost], [.., third]) = three_generations(&kept);
    for step in [Step::Born, Step::Claimed] {
        let born = kept.0.hub.pids().len();
        kept.0.plan_next(at(step, Act::Wait));
        let serving = if step == Step::Born { third.clone() } else { kept.0.hub.nth(born - 1) };
        serving.signal(Signal::SIGKILL);
        let held = kept.next(born);
        held.says("waits");
        peer.send(0, BEGIN, 500);
        held.signal(Signal::SIGKILL);
        let new = kept.next(born + 1);
        new.says("serving");
        assert_eq!((peer.hears().pid, peer.begins().mark), (new.own, lost.mark));
        for flow in [one, two] {
            peer.stays(flow);
        }
    }
}

fn a_group_comes_back_for_another_user_by_ipv6_and_by_both_at_once() {
    let at = |address: &str| Setup::new().set(Address(address.into()));
    for setup in [at("127.0.0.1:0").set(RunAs(12345)), at("[::1]:0"), at("[::]:0"), at("0.0.0.0:0")] {
        let kept = Kept::start(setup);
        let mut peer = Peer::new(address(&kept.0));
        let flow = peer.begins();
        let serving = kept.restart();
        let new = kept.kill(&serving);
        peer.stays(flow);
        assert_eq!(peer.begins().pid, new.own);
    }
}

fn a_number_that_is_another_process_s_by_now_is_no_drainer() {
    let kept = Kept::start(Setup::new());
    let (mut peer, [one, two, _], [_, second, third]) = three_generations(&kept);
    // In the memory file the second one gets another birth: its number is that of a process that was born later.
    let roster = roster_of(&third);
    let text = fs::read_to_string(&roster).expect("a roster");
    let line = text.lines().find(|line| line.starts_with("reads ") && line.split(' ').nth(2) == Some(&second.own.to_string()));
    let line = line.expect("it reads a slot");
    let (head, born) = line.rsplit_once(' ').expect("words");
    let other = format!("{head} {}", born.parse::<u64>().expect("a number") + 1);
    let mut changed = text.replace(line, &other).into_bytes();
    changed.resize(text.len(), b'\n');
    fs::write(&roster, changed).expect("a roster");
    let new = kept.kill(&third);
    peer.stays(one);
    assert_eq!(peer.goes_on(two), (new.own, UNKNOWN), "its mark is nobody's");
    assert_eq!(peer.begins().pid, new.own);
}

fn a_release_that_keeps_nothing_goes_on_with_the_group_all_the_same() {
    let kept = Kept::start(Setup::new());
    let (mut peer, [one, two, lost], [.., third]) = three_generations(&kept);
    kept.0.plan_next(set(Config::Keep(false)));
    let mut serving = kept.kill(&third);
    for _ in 0..2 {
        for flow in [one, two] {
            peer.stays(flow);
        }
        let begun = peer.begins();
        assert_eq!((begun.pid, begun.mark), (serving.own, lost.mark));
        // The one after that keeps again.
        serving = kept.kill(&serving);
    }
}

/// The memory file of the group, as that process has it.
fn roster_of(process: &Process) -> PathBuf {
    let files = procfs::descriptors(process.pid).into_iter().filter(|(_, what)| what.contains("memfd:pollflip"));
    let mut paths = files.map(|(number, _)| PathBuf::from(format!("/proc/{}/fd/{number}", process.pid)));
    paths.find(|path| fs::read_to_string(path).is_ok_and(|text| text.starts_with("pollflip UDP group"))).expect("a roster")
}

fn a_keeper_without_room_for_a_group_is_told_of_and_the_service_goes_on_without() {
    let kept = Kept::with(Setup::new(), "--store 12");
    let mut peer = Peer::new(address(&kept.0));
    let flow = peer.begins();
    wait_until("the warning", || kept.0.first().said("log").iter().any(|line| line.contains("\"flows\" is not kept")));
    let serving = kept.restart();
    peer.stays(flow);
    assert_eq!(peer.begins().pid, serving.own);
    ends(&peer, flow, &kept.0.first());
    // Nobody has it: a new one is bound.
    let born = kept.0.hub.pids().len();
    serving.signal(Signal::SIGKILL);
    let new = kept.0.hub.nth(born);
    let mut peer = Peer::new(new.says("serving").parse().expect("an address"));
    assert_eq!(peer.begins().pid, new.own);
}

fn a_group_that_is_removed_or_stopped_is_kept_no_more() {
    let kept = Kept::start(Setup::new());
    // Its queue is held too, which is four.
    wait_until("the group to be held", || kept.held(&kept.0.first()) == (12, 1));
    assert_eq!(kept.0.first().ask(Act::Remove("flows".into())), "true");
    wait_until("it to be held no more", || kept.held(&kept.0.first()) == (4, 1));
    let at = address(&kept.0).to_string();
    assert_eq!(kept.0.first().ask(Act::Stop), "stopped");
    assert_eq!(kept.0.first().ask(Act::Drop), "dropped");
    kept.0.first().tell(Act::Exit(0));
    kept.0.first().ends();
    let again = Setup::new().set(Address(at.clone())).start();
    assert_eq!(Peer::new(address(&again)).begins().pid, again.first().own);
}

fn what_a_release_has_no_use_for_after_a_kill_is_kept_no_more() {
    for kind in [Has::Group, Has::PlainSocket] {
        let kept = Kept::start(Setup::new().set(kind));
        let serving = kept.restart();
        kept.0.first().ends();
        kept.0.plan_next(set(Name("other".into())));
        serving.signal(Signal::SIGKILL);
        let new = kept.0.hub.nth(2);
        new.says("serving");
        wait_until("the address to be free", || UdpSocket::bind(address(&kept.0)).is_ok());
    }
}

fn what_a_release_that_keeps_nothing_has_no_use_for_is_kept_no_more() {
    for (kind, earlier) in [(Has::Group, 0), (Has::Group, 1), (Has::PlainSocket, 0)] {
        let kept = Kept::start(Setup::new().set(kind));
        let mut serving = kept.0.first();
        // Releases that keep nothing either, and go on with it.
        for _ in 0..earlier {
            kept.0.plan_next(set(Config::Keep(false)));
            serving = kept.kill(&serving);
        }
        kept.0.plan_next(set(Config::Keep(false)).set(Name("other".into())));
        serving.signal(Signal::SIGKILL);
        let new = kept.0.hub.nth(earlier + 1);
        new.says("serving");
        wait_until("nothing to be held", || kept.held(&new) == (0, 1));
    }
}

fn a_socket_that_has_become_a_group_comes_back_as_one() {
    let kept = Kept::start(Setup::new().plan(set(Has::PlainSocket)));
    let serving = kept.restart();
    let mut peer = Peer::new(address(&kept.0));
    let flow = peer.begins();
    assert_eq!(flow.pid, serving.own);
    wait_until("the group to be held", || kept.held(&serving) == (12, 1));
    let new = kept.kill(&kept.restart());
    peer.stays(flow);
    assert_eq!(peer.begins().pid, new.own);
}

fn descriptors_are_as_many_after_many_kills() {
    // Another guard and service, which the many kills do not befall. Both are looked at until they agree: a
    // guard amid a turn has other descriptors than one that waits.
    let count = |kept: &Kept, serving: &Process| {
        // What processes before had held is removed soon.
        wait_until("nothing but what this one has to be held", || kept.held(serving) == (12, 1));
        (procfs::descriptors(kept.0.launched()).len(), procfs::descriptors(serving.pid).len())
    };
    let fresh = Kept::start(Setup::new());
    let mut of_another = Peer::new(address(&fresh.0));
    of_another.begins();
    let of_fresh = fresh.kill(&fresh.restart());
    let kept = Kept::start(Setup::new());
    let mut peer = Peer::new(address(&kept.0));
    let flow = peer.begins();
    let mut serving = kept.restart();
    // The long form: a thousand.
    let kills = std::env::var("POLLFLIP_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    for _ in 0..kills {
        serving = kept.kill(&serving);
    }
    wait_until("as many descriptors", || count(&kept, &serving) == count(&fresh, &of_fresh));
    peer.stays(flow);
    assert_eq!(peer.begins().pid, serving.own);
}
