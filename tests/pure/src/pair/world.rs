//! The pair as it stands: both machines, what their drivers hold, and the lifeline between them.
//!
//! Knows: which facts there are. Does not know: how they change.

use std::hash::{Hash, Hasher};

use super::automaton::Node;

/// All that decides what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    pub old: Old,
    /// Of the attempt under way, or of the one that has taken over.
    pub current: Option<Successor>,
    /// One of an earlier attempt, that was given up and is out of the reach of a kill.
    pub earlier: Option<Successor>,
}

/// Which of the successors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    Current,
    Earlier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    Unborn,
    Alive,
    /// Its end has begun, and its descriptors are still open: it writes a core dump, or has just been killed.
    Dying,
    /// They are closed, and it gives its memory back.
    Closed,
    Ended,
}

impl Life {
    pub fn has_closed(self) -> bool {
        self >= Life::Closed
    }
}

/// The old process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Old {
    pub life: Life,
    pub machine: Node,
    /// Its restarter was dropped.
    pub dropped: bool,
    /// Its program serves.
    pub serves: bool,
    /// It is final that the service is the successor's.
    pub committed: bool,
    pub completed: bool,
    /// It was told that its successor is gone.
    pub told_gone: bool,
    /// How many tickets wait for an answer.
    pub owed: u8,
    pub thread: Thread,
    pub thread_lost: bool,
    /// No lifeline can be made.
    pub lineless: bool,
    /// It will not be taken that new flows are the successor's.
    pub unsteerable: bool,
    /// New flows go to a successor that is forgotten.
    pub astray: bool,
    /// The kernel takes nothing of what it sends.
    pub stalled: bool,
    pub shortage: Shortage,
    pub manager: Manager,
    /// The service manager is being sent the new main PID.
    pub naming: bool,
    pub barrier: Barrier,
    /// A keeper holds what it has,
    pub stored: bool,
    /// and what a successor will have that is not started yet, or had that is gone;
    pub lends: bool,
    /// or nothing, since the service ends.
    pub stopped: bool,
}

/// How long the kernel has lacked what it needs to give out what has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shortage {
    None,
    Short,
    /// For longer than the words of a successor are waited for.
    Long,
}

/// The service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Manager {
    Attends,
    /// It takes nothing of what it is told.
    Busy,
    /// Nor can it be asked for a sign, for want of a descriptor.
    Short,
}

/// The sign of the service manager that it has taken the new main PID in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Barrier {
    /// None is waited for.
    None,
    /// It is waited for.
    Asked,
    /// It has come, or cannot come, and nobody has looked.
    Passed,
}

/// What the restart thread is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thread {
    Idle,
    /// It was told to start the successor of the current attempt.
    Ordered,
    /// That runs, and the thread has yet to come back from starting it.
    Starting,
    /// It has put the answer on the desk.
    Started,
    Failed,
}

/// One successor: as the old process holds it, the lifeline, and the process itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Successor {
    pub held: Held,
    pub line: Line,
    pub wrapper: Wrapper,
    pub life: Life,
    /// A kill does not end it.
    pub undying: bool,
    pub killed: bool,
    /// It came too late: the restart thread kills it when it gets to that.
    pub late: bool,
    /// `None`: it has not read the first message.
    pub takeover: Option<Node>,
    /// Its own restart machine.
    pub machine: Node,
    /// It found nothing on its lifeline that makes it a successor.
    pub orphaned: bool,
    /// It asked for what can go ahead of the state,
    pub precopied: bool,
    pub asked: bool,
    pub taken: bool,
    pub refused: bool,
    pub progressed: bool,
    pub garbled: bool,
    /// For the laws: it was given up; the kernel has taken a grant; it has taken the service.
    pub given_up: bool,
    pub granted: bool,
    pub took_service: bool,
    /// A keeper holds what it has.
    pub stored: bool,
    /// New flows go to it.
    pub steered: bool,
    /// Something was given to it ahead of the state; it has come and is not closed.
    pub sent_ahead: bool,
    pub holds_ahead: bool,
}

/// What the old process holds of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// It knows the process that was started.
    pub process: bool,
    pub copy: Copying,
    pub handover: Handover,
    pub granting: bool,
    pub granted: bool,
    pub committing: bool,
    /// The end of the lifeline has been read.
    pub closed: bool,
    pub deaf: bool,
    /// The kernel has refused what had waited, and nobody has looked.
    pub failed: bool,
    /// The child was reaped, and the machine told.
    pub reaped: bool,
    pub exited: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handover {
    None,
    /// The program has it.
    Open,
    Sent,
    Failed,
    Gone,
}

/// What goes ahead of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Copying {
    /// Nothing is given, or nothing any more.
    None,
    /// The program gives.
    Open,
    /// It waits for room.
    Full,
}

/// What the old process has started: the successor itself, or something that has started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrapper {
    None,
    Runs,
    Ended,
}

/// The lifeline: what the kernel has of it, and what it has not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub to_new: Messages,
    pub to_old: Messages,
    pub unsent_by_old: Messages,
    pub unsent_by_new: Messages,
    /// The old process sends nothing more.
    pub mute: bool,
    pub old_end: bool,
    pub new_end: bool,
    /// Somebody has shut it down: what is in it can still be read.
    pub shut: bool,
    /// A helper has a copy of that end, and outlives the process.
    pub old_copied: bool,
    pub new_copied: bool,
    /// The kernel takes nothing of what the new process sends.
    pub stalled: bool,
    /// The kernel gives out nothing of what has come for it.
    pub short: bool,
}

/// Flags together: a search spends much of its time here.
macro_rules! together {
    ($($flag:ident)*) => {{
        let mut flags = 0u32;
        $(flags = flags << 1 | $flag as u32;)*
        flags
    }};
}

impl Hash for Successor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Successor {
            held,
            line,
            wrapper,
            life,
            undying,
            killed,
            late,
            takeover,
            machine,
            orphaned,
            precopied,
            asked,
            taken,
            refused,
            progressed,
            garbled,
            given_up,
            granted,
            took_service,
            stored,
            steered,
            sent_ahead,
            holds_ahead,
        } = *self;
        (held, line, wrapper, life, takeover, machine).hash(state);
        state.write_u32(
            together!(undying killed late orphaned precopied asked taken refused progressed garbled given_up granted took_service
            stored steered sent_ahead holds_ahead),
        );
    }
}

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Held { process, copy, handover, granting, granted, committing, closed, deaf, failed, reaped, exited } = *self;
        (copy, handover).hash(state);
        state.write_u32(together!(process granting granted committing closed deaf failed reaped exited));
    }
}

impl Hash for Line {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Line { to_new, to_old, unsent_by_old, unsent_by_new, mute, old_end, new_end, shut, old_copied, new_copied, stalled, short } =
            *self;
        (to_new, to_old, unsent_by_old, unsent_by_new).hash(state);
        state.write_u32(together!(mute old_end new_end shut old_copied new_copied stalled short));
    }
}

/// A short queue.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Messages(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    Hello = 1,
    Here,
    Pull,
    State,
    Refuse,
    Ready,
    Granted,
    Commit,
    GivenUp,
    Garbage,
    Progress,
    PrecopyPull,
    Ahead,
    PrecopyComplete,
}

const ALL: [Message; 14] = [
    Message::Hello,
    Message::Here,
    Message::Pull,
    Message::State,
    Message::Refuse,
    Message::Ready,
    Message::Granted,
    Message::Commit,
    Message::GivenUp,
    Message::Garbage,
    Message::Progress,
    Message::PrecopyPull,
    Message::Ahead,
    Message::PrecopyComplete,
];

impl Messages {
    pub const NONE: Messages = Messages(0);

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn push(&mut self, message: Message) {
        let used = (32 - self.0.leading_zeros()).div_ceil(4);
        assert!(used < 8, "so many messages are never on their way");
        self.0 |= (message as u32) << (4 * used);
    }

    pub fn pop(&mut self) -> Option<Message> {
        let first = self.0 & 15;
        self.0 >>= 4;
        ALL.into_iter().find(|message| *message as u32 == first)
    }

    /// The last two come in the other order.
    pub fn swap_last(&mut self) {
        let mut all: Vec<Message> = std::iter::from_fn(|| self.pop()).collect();
        if let [.., before, last] = &mut all[..] {
            std::mem::swap(before, last);
        }
        all.into_iter().for_each(|message| self.push(message));
    }

    /// All of it goes over.
    pub fn append(&mut self, other: &mut Messages) {
        while let Some(message) = other.pop() {
            self.push(message);
        }
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = *self;
        f.debug_list().entries(std::iter::from_fn(|| rest.pop())).finish()
    }
}

impl World {
    /// A process that serves, and restarts nothing yet. `machine`: an open one.
    pub fn new(machine: Node) -> World {
        let old = Old {
            life: Life::Alive,
            machine,
            dropped: false,
            serves: true,
            committed: false,
            completed: false,
            told_gone: false,
            owed: 0,
            thread: Thread::Idle,
            thread_lost: false,
            lineless: false,
            unsteerable: false,
            astray: false,
            stalled: false,
            shortage: Shortage::None,
            manager: Manager::Attends,
            naming: false,
            barrier: Barrier::None,
            stored: true,
            lends: false,
            stopped: false,
        };
        World { old, current: None, earlier: None }
    }

    pub fn get(&self, which: Which) -> Option<&Successor> {
        match which {
            Which::Current => self.current.as_ref(),
            Which::Earlier => self.earlier.as_ref(),
        }
    }

    pub fn successors(&self) -> impl Iterator<Item = (Which, &Successor)> {
        [Which::Current, Which::Earlier].into_iter().filter_map(|which| Some((which, self.get(which)?)))
    }
}

impl Successor {
    /// One that is about to be started, with the first message on its lifeline.
    pub fn unborn() -> Successor {
        let mut to_new = Messages::NONE;
        to_new.push(Message::Hello);
        Successor {
            held: Held {
                process: false,
                copy: Copying::None,
                handover: Handover::None,
                granting: false,
                granted: false,
                committing: false,
                closed: false,
                deaf: false,
                failed: false,
                reaped: false,
                exited: false,
            },
            line: Line {
                to_new,
                to_old: Messages::NONE,
                unsent_by_old: Messages::NONE,
                unsent_by_new: Messages::NONE,
                mute: false,
                old_end: true,
                new_end: true,
                shut: false,
                old_copied: false,
                new_copied: false,
                stalled: false,
                short: false,
            },
            wrapper: Wrapper::None,
            life: Life::Unborn,
            undying: false,
            killed: false,
            late: false,
            takeover: None,
            machine: 0,
            orphaned: false,
            precopied: false,
            asked: false,
            taken: false,
            refused: false,
            progressed: false,
            garbled: false,
            given_up: false,
            granted: false,
            took_service: false,
            stored: false,
            steered: false,
            sent_ahead: false,
            holds_ahead: false,
        }
    }

    /// Whether what the old process has started has ended.
    pub fn child_has_ended(&self) -> bool {
        match self.wrapper {
            Wrapper::None => self.life == Life::Ended,
            Wrapper::Runs => false,
            Wrapper::Ended => true,
        }
    }

    /// Whether its end has begun and is not over.
    pub fn child_is_dying(&self) -> bool {
        self.wrapper == Wrapper::None && matches!(self.life, Life::Dying | Life::Closed)
    }

    /// Whether nobody has the new process's end any more.
    pub fn new_end_is_closed(&self) -> bool {
        self.line.shut || (!self.line.new_copied && (!self.line.new_end || self.life.has_closed()))
    }

    /// Whether nobody has the old process's end any more.
    pub fn old_end_is_closed(&self, old: Life) -> bool {
        self.line.shut || (!self.line.old_copied && (!self.line.old_end || old.has_closed()))
    }
}
