//! A service that is brought to a step, struck there, and let go on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::asker::{Answer, Asker};
use crate::case::Fault::*;
use crate::case::Step::*;
use crate::case::{Case, Step, Victim};
use crate::expected::{self, Serves, Told};
use crate::guard::{Above, Guard};
use crate::service::{Pulls, SpeaksByHand, StopOnSignals};
use crate::strike::{Line, Strike};
use crate::watchdog::Watchdog;
use crate::{judge, strike};
use pollflip_kit::client::Connection;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_for, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, Plan, RunAs, at, ms, plan, set};

/// The time to become ready where it is to pass.
pub const IMPATIENT: Duration = Duration::from_millis(2500);
/// Probation in the cases in which it is to pass.
const SHORT_PROBATION: Duration = ms(2500);

/// A service, and who serves now.
#[derive(Debug)]
pub struct World {
    pub service: Service,
    pub owner: Process,
    /// Its size when nothing is under way.
    pub before: Snapshot,
    /// A probation that ends only when the old process is told to stop.
    pub has_long_probation: bool,
    /// What is above it, if the campaign has one.
    pub guard: Option<Guard>,
}

/// One case in a world of its own.
pub fn run(case: Case) {
    if case.fault == Crowded && !nix::unistd::geteuid().is_root() {
        eprintln!("skipped, for want of the right to become another user: {case}");
        return;
    }
    World::new(case).suffer(case);
}

/// Settings that a case needs.
pub fn setup(case: Case) -> Setup {
    let mut setup = Setup::new();
    if case.is_impatient() {
        setup = setup.set(Config::ReadyTimeout(IMPATIENT));
    }
    if case.step == Probation {
        setup = setup.set(Config::Probation(if case.is_long() { SHORT_PROBATION } else { ms(120_000) }));
    }
    if case.fault == Terminate {
        setup = setup.set(StopOnSignals);
    }
    if case.fault == Crowded {
        // The limit does not hold for root. Everybody may write into the directory.
        fs::set_permissions(setup.path(""), fs::Permissions::from_mode(0o777)).expect("permissions");
        setup = setup.set(RunAs(64999));
    }
    setup
}

impl World {
    pub fn new(case: Case) -> World {
        World::start(setup(case), case.step == Probation && !case.is_long())
    }

    pub fn start(setup: Setup, has_long_probation: bool) -> World {
        let above = Above::wanted();
        let service = match above {
            Some(above) => above.put_above(setup).launch(),
            None => setup.launch(),
        };
        fs::set_permissions(service.path(crate::service::HUB), fs::Permissions::from_mode(0o777)).expect("permissions");
        let owner = service.first();
        owner.says("serving");
        let before = judge::size(&service, &owner);
        let guard = above.map(|above| Guard::of(above, &service));
        World { service, owner, before, has_long_probation, guard }
    }

    /// Goes through a case, and returns with whoever serves afterwards as the owner; `false`: nobody does.
    pub fn suffer(&mut self, case: Case) -> bool {
        self.suffer_to(case, &expected::outcomes(case))
    }

    /// The same with other outcomes.
    pub fn suffer_to(&mut self, case: Case, expected: &[(Serves, Told)]) -> bool {
        let _watchdog = Watchdog::new(case.to_string(), &self.service);
        let under_way = if case.is_impatient() { self.reach_with_a_deadline(case) } else { self.reach(case.step, case.has_state()) };
        self.strike(case, &under_way);
        let outcome = self.let_go(case, under_way);
        judge::judge(self, case, outcome, expected)
    }

    /// Asks for a restart and brings it to a step.
    pub fn reach(&self, step: Step, has_state: bool) -> UnderWay {
        self.reach_in_time(step, has_state, false, &mut false).expect("a restart that has time")
    }

    /// The same with a short time to become ready. Where that is over too soon, which a busy machine may do, the case has not begun. The old
    /// one waits then, so that the time is not over for it before it is struck.
    fn reach_with_a_deadline(&self, case: Case) -> UnderWay {
        let mut is_planned = false;
        wait_for(&format!("{case} to be reached in time"), || self.reach_in_time(case.step, case.has_state(), true, &mut is_planned))
    }

    /// `None`: its time was over before. `is_planned`: the old one has been told already where to wait.
    fn reach_in_time(&self, step: Step, has_state: bool, has_deadline: bool, is_planned: &mut bool) -> Option<UnderWay> {
        let (service, old) = (&self.service, self.owner.clone());
        // What it has said so far is here with the answer.
        old.ask(Act::Status);
        let waits = old.said("waits").len();
        let (births, failures) = (old.said("event Spawned").len(), old.said("event Failed").len());
        let nothing = Plan::default();
        let (old_waits_at, new_plan) = match step {
            BeforeSpawn => (Some(plan::Step::Restarting), nothing),
            AfterSpawn => (Some(plan::Step::Spawned), at(plan::Step::Born, Act::Wait)),
            Hello => (None, set(SpeaksByHand)),
            Here => (None, at(plan::Step::Built, Act::Wait)),
            Precopy => (Some(plan::Step::PrecopyRequested), nothing),
            HalfAhead => (Some(plan::Step::HalfAhead), nothing),
            Ahead => (None, at(plan::Step::ArrivedAll, Act::Wait)),
            Pull => (Some(plan::Step::StateRequested), nothing),
            Half => (Some(plan::Step::Half), nothing),
            End => (None, at(plan::Step::Inherited, Act::Wait)),
            Ready => (None, at(plan::Step::Claimed, Act::Wait)),
            Granted => (Some(plan::Step::HandedOff), nothing),
            Probation | Drain => (None, nothing),
            Commit => (Some(plan::Step::Completed), nothing),
        };
        let pulls = match (has_state, step.goes_ahead()) {
            (false, _) => Plan::default(),
            (true, false) => set(Pulls::State),
            (true, true) => set(Pulls::Ahead),
        };
        service.plan_next(new_plan.and(pulls));
        if let Some(step) = old_waits_at.filter(|_| !*is_planned) {
            old.on(step, Act::Wait);
            *is_planned = true;
        }
        // One who is served: an old process with work left lives on.
        let kept = service.connect();
        assert_eq!(kept.pid, old.own);
        let asker = Asker::ask(&service.socket());
        let mut under_way = UnderWay { old: old.clone(), new: None, old_waits: old_waits_at.is_some(), new_waits: false, kept, asker };
        let is_too_late = || old.said("event Failed").len() > failures;
        let in_time =
            |what: &str, look: &dyn Fn() -> bool| wait_for(what, || if look() { Some(true) } else { is_too_late().then_some(false) });
        let says = |process: &Process, line: &str, after: usize| {
            in_time(&format!("{line:?} of process {}", process.pid), &|| process.said(line).len() > after)
        };
        // What it does not do any more when it has been told to wait, and has said so.
        let waits_in_time = || {
            // All that was said to it before has been read when the second of these is answered.
            old.ask(Act::Status);
            old.ask(Act::Status);
            old.tell(Act::Wait);
            old.says_again("waits", waits);
            // The successor may have been killed, and not be dead.
            let is_too_late = is_too_late() || old.said("comes-to-wait").last().is_some_and(|state| state == "killing");
            if is_too_late {
                old.go();
            }
            !is_too_late
        };
        if under_way.old_waits && !says(&old, "waits", waits) {
            return self.is_too_late(under_way);
        }
        if step == BeforeSpawn {
            return Some(under_way);
        }
        let spawned = || old.said("event Spawned").get(births).and_then(|pid| pid.parse::<u32>().ok());
        if !in_time("a birth", &|| spawned().is_some_and(|pid| service.hub.pids().contains(&pid))) {
            return self.is_too_late(under_way);
        }
        let new = service.hub.process(spawned().expect("it was spawned"));
        under_way.new = Some(new.clone());
        let is_reached = match step {
            AfterSpawn => {
                under_way.new_waits = true;
                says(&new, "waits", 0)
            }
            Here | Ahead | End => {
                under_way.new_waits = true;
                under_way.old_waits = has_deadline;
                says(&new, "waits", 0) && (!has_deadline || waits_in_time())
            }
            Hello => says(&new, "hello", 0),
            Precopy | Pull => says(&new, "pulls", 0),
            HalfAhead | Half => in_time("the first part", &|| procfs::descriptors(new.pid).len() > 250),
            Ready => {
                under_way.old_waits = true;
                let is_reached = says(&new, "waits", 0) && waits_in_time();
                if is_reached {
                    new.go();
                    new.says("readies");
                    self.strike_with(&old, Strike::Unread(Line::Down));
                }
                is_reached
            }
            Granted | Probation => says(&new, "serving", 0),
            Commit | Drain => {
                new.says("serving");
                new.says("event Committed");
                old.says("event Completed");
                true
            }
            BeforeSpawn => true,
        };
        if is_reached { Some(under_way) } else { self.is_too_late(under_way) }
    }

    /// Waits until a restart whose time was over is over itself.
    fn is_too_late(&self, under_way: UnderWay) -> Option<UnderWay> {
        match under_way.asker.answer() {
            Answer::Failed(why) => assert!(why.contains("was not ready within"), "{why}\n{}", self.service.hub.story()),
            other => panic!("{other:?}\n{}", self.service.hub.story()),
        }
        None
    }

    /// Has something done by the thread that does such things, and waits until it has been done.
    pub fn strike_with(&self, victim: &Process, strike: Strike) -> String {
        let prefix = format!("struck {strike:?}:");
        let before = victim.said(&prefix).len();
        self.send_strike(victim, strike);
        victim.says_again(&prefix, before)
    }

    /// The same without waiting.
    pub fn send_strike(&self, victim: &Process, strike: Strike) {
        let socket = UnixDatagram::unbound().expect("a socket");
        let text = serde_json::to_vec(&strike).expect("text");
        socket.send_to(&text, strike::path(&self.service.path(""), victim.own)).expect("it can be struck");
    }

    pub fn strike(&self, case: Case, under_way: &UnderWay) {
        let (victim, line) = match case.victim {
            Victim::Old => (&under_way.old, Line::Down),
            Victim::New => (under_way.new.as_ref().expect("a successor"), Line::Up),
        };
        match case.fault {
            Kill => victim.signal(Signal::SIGKILL),
            Exit0 => self.send_strike(victim, Strike::Exit(0)),
            Exit1 => self.send_strike(victim, Strike::Exit(1)),
            Abort => self.send_strike(victim, Strike::Abort),
            Close => drop(self.strike_with(victim, Strike::Close(line))),
            // It may be killed for it before it has told.
            Garbage if case.victim == Victim::New && !under_way.old_waits => {
                let before = victim.said("struck Garbage(Up):").len();
                self.send_strike(victim, Strike::Garbage(Line::Up));
                let has_told = || victim.said("struck Garbage(Up):").len() > before;
                wait_until("the garbage to be out", || has_told() || !victim.lives());
            }
            Garbage => drop(self.strike_with(victim, Strike::Garbage(line))),
            Helper => {
                self.strike_with(victim, Strike::Helper(line));
                victim.signal(Signal::SIGKILL);
            }
            Full => drop(self.strike_with(victim, Strike::Full)),
            Crowded => drop(self.strike_with(victim, Strike::Crowded)),
            // The first is handled, the second ends it; two that come at once are one.
            Terminate => wait_until("the end by signals", || {
                let sent = kill(Pid::from_raw(victim.pid as i32), Signal::SIGTERM);
                sent.is_err() || !victim.lives()
            }),
            Pause | Suspend => stop(victim),
            Sleep => [victim, under_way.new.as_ref().expect("a successor")].into_iter().for_each(stop),
            Slow => {}
        }
        if case.fault.is_deadly() {
            victim.ends();
            // The first of its threads may have ended before the others.
            let threads = || std::fs::read_dir(format!("/proc/{}/task", victim.pid)).map_or(0, Iterator::count);
            wait_until("the end of all of its threads", || threads() < 2);
        }
    }

    /// Lets both go on, to the answer.
    fn let_go(&self, case: Case, under_way: UnderWay) -> Outcome {
        let UnderWay { old, new, old_waits, new_waits, kept, asker } = under_way;
        let (old_is_struck, new_is_struck) = (case.victim == Victim::Old, case.victim == Victim::New);
        let dies = case.fault.is_deadly();
        let begun = Instant::now();
        // The old one, which goes on, kills it for its garbage; when, nobody knows.
        let is_killed = new_is_struck && (dies || (case.fault == Garbage && !old_waits));
        if let Some(new) = new.as_ref().filter(|_| new_waits && !is_left_waiting(case) && !is_killed) {
            new.go();
        }
        if let Some(new) = new.as_ref().filter(|_| new_waits && old_is_struck && case.fault == Suspend && !case.goes_ahead()) {
            // What it says in time is there; then it sleeps until it is granted the service.
            new.says("readies");
            wait_until("the new one to wait for its grant", || procfs::state(new.pid) == Some('S'));
        }
        if case.is_long() && old_is_struck {
            // The clock is what this is about.
            std::thread::sleep((IMPATIENT + Duration::from_millis(200)).saturating_sub(begun.elapsed()));
        }
        if case.fault == Sleep {
            new.as_ref().expect("a successor").signal(Signal::SIGCONT);
        }
        if case.fault == Pause || (case.is_long() && old_is_struck) {
            let victim = if old_is_struck { &old } else { new.as_ref().expect("a successor") };
            victim.signal(Signal::SIGCONT);
        }
        if old_waits && !(old_is_struck && dies) {
            old.go();
        }
        if case.step == Probation && !case.is_long() && !dies {
            // A probation that would last for long: it ends well now, or the new one's end is seen before.
            self.end_probation(case, &old);
        }
        let answer = asker.answer();
        if case.fault == Suspend && new_is_struck && case.step == Probation {
            new.as_ref().expect("a successor").signal(Signal::SIGCONT);
        }
        Outcome { old, new, answer, kept }
    }

    fn end_probation(&self, case: Case, old: &Process) {
        if case.victim == Victim::New && matches!(case.fault, Close | Garbage) {
            return;
        }
        old.ask(Act::Stop);
    }
}

/// A restart at a step.
#[derive(Debug)]
pub struct UnderWay {
    pub old: Process,
    pub new: Option<Process>,
    pub old_waits: bool,
    pub new_waits: bool,
    pub kept: Connection,
    pub asker: Asker,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub old: Process,
    pub new: Option<Process>,
    pub answer: Answer,
    /// A connection of the old one's.
    pub kept: Connection,
}

/// One without a lifeline that does not know it yet would not be a successor if it went on.
fn is_left_waiting(case: Case) -> bool {
    case.fault == Slow || (case.fault == Close && case.victim == Victim::New && case.step == AfterSpawn)
}

/// Stops it, and waits until it stands still.
pub fn stop(process: &Process) {
    process.signal(Signal::SIGSTOP);
    wait_until("a stopped process", || procfs::state(process.pid) == Some('T'));
}
