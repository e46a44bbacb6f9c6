//! The words of the machine: what comes in, what goes out, and the names of things in both.
//!
//! Knows: names. Does not know: what happens when.

use crate::error::Refusal;

use super::takeover::TakeoverNotice;

/// The number of one try at a restart. All that comes from outside carries it: a late answer is never taken for the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// One asker waiting for the outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Why an attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The program could not be started.
    SpawnFailed,
    /// The successor ended by itself.
    Exited,
    /// It ended by itself after it had been granted the service.
    DiedOnProbation,
    /// It was not ready in time.
    TimedOut,
    /// It was not ready in time after it had asked for the state.
    FreezeTimedOut,
    /// It said no.
    Refused,
    /// The state could not be given.
    HandoverFailed,
    /// The kernel did not take the grant in time.
    GrantNotTaken,
    /// The kernel did not take it that new flows are the successor's.
    Steering,
    /// It closed its lifeline, or its end has begun.
    HungUp,
    /// It said something that makes no sense.
    Protocol(Violation),
    /// Called off by the program.
    Cancelled,
    /// This process is ending.
    Stopping,
}

/// What the successor did against the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// It asked for the state twice.
    AskedTwice,
    /// It asked for what can go ahead of the state twice, or after it had asked for the state.
    PrecopyOutOfTurn,
    /// It said that it is ready while the state it asked for was on its way.
    ReadyTooSoon,
    /// It said that it is ready and has not asked for the state that belongs to what has gone ahead.
    ReadyWithoutState,
    /// Another process than the one that was started speaks on the lifeline.
    WrongPid,
    /// It sent what cannot be read.
    Garbage,
}

/// Which of two processes gets what bears nobody's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This one.
    This,
    /// The successor.
    Successor,
}

/// Whose connections and descriptors outlive a kill: those that a keeper holds, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those of this process.
    This,
    /// Those of this process, and the connections of a successor that is about to be started.
    Both,
    /// Those of this process, which has the service again. The program is about to be offered its connections: until it has gone on
    /// with them, they are held as they were, too.
    Returned,
    /// Those of the successor. What this process drains ends with it.
    Successor,
}

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// No other process has a claim to the service, although this one is not ready.
    Sole,
    /// The service is this process's.
    Opened,
    /// The other machine has something to tell the user.
    Predecessor(TakeoverNotice),
    /// An earlier generation has ended, and what bears its mark has nobody who reads it.
    MarksFreed,
    /// Somebody asks for a restart.
    Request(Ticket),
    /// The restart thread has started the successor.
    Spawned(Attempt, u32),
    /// The restart thread could not.
    SpawnFailed(Attempt),
    /// The successor has named itself.
    Here(Attempt, u32),
    /// The successor asks for what can go ahead of the state.
    PrecopyRequested(Attempt),
    /// More can go ahead, after there was no room.
    PrecopyRoom(Attempt),
    /// The successor asks for the state.
    StateRequested(Attempt),
    /// The program has given all of it.
    HandoverSent(Attempt),
    /// The program could not.
    HandoverFailed(Attempt),
    /// The successor will not take over.
    Refused(Attempt),
    /// The successor tells how far it is.
    Progress(Attempt),
    /// The successor can serve.
    Ready(Attempt),
    /// [`Action::Steer`] to the successor cannot be carried out, or not whole.
    SteeringFailed(Attempt),
    /// The successor has been told that the service is its own.
    Granted(Attempt),
    /// The lifeline is closed at the other end: nothing more is heard of the successor but its end.
    LifelineClosed(Attempt),
    /// The successor may have said something that cannot be read yet.
    Unread(Attempt),
    /// The successor sent what cannot be read.
    Garbage(Attempt),
    /// The end of the successor has begun and is not over.
    Dying(Attempt),
    /// The successor lives, and no sign of its end is seen: an answer to [`Action::Check`].
    Sound(Attempt),
    /// The successor has been told that this is final, or takes nothing any more.
    CommitTaken(Attempt),
    /// The successor has ended and is reaped, and what it said before has been read.
    Exited(Attempt),
    /// The program calls the attempt off.
    Cancel,
    /// The program is ending, and with it the service, unless a successor has that.
    Stop,
    /// The program wants no restarts any more. The service goes on.
    Dropped,
    /// The restart thread is gone.
    ThreadLost,
    /// [`Action::Commit`] is carried out: the service manager, if there is one, is being told.
    ManagerAsked,
    /// The service manager, if there is one, has been sent the new main PID.
    ManagerTold,
    /// The service manager, if there is one that answers, has taken it in.
    BarrierPassed,
    /// Nobody will poll again, and what is awaited is not awaited any longer.
    GivingUp,
    /// The clock has moved; does something only when [`Machine::poll_timeout`](super::Machine::poll_timeout) has passed.
    Timeout,
}

/// What the driver must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Have the successor started.
    Spawn(Attempt),
    /// Have it killed and reaped should it still come.
    Abandon(Attempt),
    /// Kill it; its end is awaited.
    Kill(Attempt),
    /// Have the kernel send what bears nobody's mark to that side, and what bears a mark to the generation whose it is. Of one to the
    /// successor it is told if it fails, by `SteeringFailed`.
    Steer(Side),
    /// Tell it that the service is its own, unless it is ending. The answer is `Granted`, or `Dying` or `Exited`.
    Grant(Attempt),
    /// Look whether its end has begun. The answer is `Dying` if it has, and `Sound` if not.
    Check(Attempt),
    /// Tell all others that this is final; `ManagerAsked`, `ManagerTold` and `BarrierPassed` are the answers.
    Commit(Attempt),
    /// Tell it that this is final; `CommitTaken` is the answer.
    TellCommit(Attempt),
    /// Have a keeper hold that from now on, and nothing else.
    Hold(Whose),
    /// What the predecessor has left and the program has not taken is kept no more.
    LetSurvivorsGo,
    /// Answer an asker.
    Reply(Ticket, Reply),
    /// Tell the service manager that the service ends, and a keeper that nothing is to outlive it. No `Hold` follows.
    TellStopping,
}

/// The answer to an asker: exactly one for each ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// This process serves now.
    Completed(u32),
    /// The attempt failed.
    Failed(Cause),
    /// None was made: another one is under way, or the process has no service to hand over.
    Refused(Refusal),
    /// None was made, and nothing is under way whose end would be an answer too.
    Forbidden(Refusal),
}

/// What the user must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the event of the same name")]
pub enum Notice {
    Restarting,
    Spawned(u32),
    PrecopyRequested(Attempt),
    PrecopyRoom(Attempt),
    StateRequested(Attempt),
    Progress(Attempt),
    HandedOff(u32),
    Resumed(Cause),
    Completed(u32),
    Failed(Cause),
    SuccessorGone(u32),
    Broken,
    GenerationEnded,
    Predecessor(TakeoverNotice),
}

/// What goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For the driver to do.
    Action(Action),
    /// For the user to know.
    Notice(Notice),
}

impl From<Action> for Output {
    fn from(action: Action) -> Output {
        Output::Action(action)
    }
}

impl From<Notice> for Output {
    fn from(notice: Notice) -> Output {
        Output::Notice(notice)
    }
}
