//! What holds in every world, whatever happens in it.

/// A promise of the guard. Each is checked after each step, where not told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// It is over only when no process lives that is or was the service.
    NeverOverWhileAGenerationLives,
    /// A service is started only when none runs or is being started, and nothing of the last one is
    /// left that could be one. What was killed and does not die is waited for no longer than its
    /// time.
    OneStartAtATime,
    /// Each process that is the service when the guard is told to end, or becomes it later, is
    /// told; and nothing is started from then on.
    ToldIsNeverForgotten,
    /// Former main processes that live are told to end as well.
    EarlierOnesAreToldToo,
    /// Nobody is told to end twice who was told once: a second signal cuts off what the first one
    /// lets end in order.
    NobodyIsToldTwice,
    /// No more starts than strikes within their time.
    StrikesEndALoop,
    /// When it is over, its status is that of the last generation.
    TheStatusIsTheLastGenerations,
    /// Nothing is started again that the policy does not want again.
    ThePolicyDecides,
    /// A successor that may still name itself is not killed.
    ASuccessorIsWaitedFor,
    /// A signal goes to a process that lives.
    NoSignalToTheDead,
    /// Who is the service for the machine is the service.
    TheMainProcessIsKnown,
    /// What the main process has stored is there when the service is started again.
    WhatIsStoredIsThereAtTheNextStart,
    /// Nothing stays stored that nobody will be started for: a listener of which would take clients
    /// in that nobody serves.
    NothingIsStoredForNobody,
    /// From everywhere: when all processes end and the time passes, it is over.
    AnEndIsReached,
}
