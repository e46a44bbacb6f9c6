//! Hooks at the steps of a restart.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::Failure;
use crate::handover::Handover;
use crate::precopy::Precopy;
use crate::restarter::{Event, Restarter};
use crate::wire;

/// What a hook returns: an error fails the attempt, with its text as the reason. If what a hook gives is not taken because the successor is
/// gone, the reason is how that ended, or what it refused with.
pub type HookResult = Result<(), Box<dyn Error + Send + Sync>>;

/// What a program wants to do at the steps of a restart. All hooks are called on the thread that polls the task. One that returns an error
/// or panics fails that attempt, and nothing else.
///
/// ```
/// use pollflip::{Handover, HookResult, LifecycleHandler};
///
/// struct Counter(u64);
///
/// impl LifecycleHandler for Counter {
///     fn send_to_new_process(&mut self, mut handover: Handover) -> HookResult {
///         handover.bytes("count", &self.0.to_be_bytes())?;
///         handover.send();
///         Ok(())
///     }
/// }
/// ```
pub trait LifecycleHandler: Send + 'static {
    /// A restart was asked for, and the successor is about to be started.
    ///
    /// # Errors
    ///
    /// None is started.
    fn pre_new_process(&mut self) -> HookResult {
        Ok(())
    }

    /// The successor asks for what can go ahead of the state, while this process serves. This is
    /// called once more each time that there is room for more. The task keeps the [`Precopy`] until
    /// the state is asked for. If a connection that went ahead closes between two calls, the
    /// program remembers that, and tells it at the next call ([`Precopy::gone`]) or with the state
    /// ([`Handover::gone`]). A handler that does not have this method gives nothing ahead.
    ///
    /// # Errors
    ///
    /// The successor is killed.
    fn precopy(&mut self, precopy: &mut Precopy) -> HookResult {
        precopy.complete();
        Ok(())
    }

    /// The successor asks for the state: fill the handover and send it, here or on another thread. The
    /// state should not change any more, unless
    /// [`new_process_failed`](LifecycleHandler::new_process_failed) is called.
    ///
    /// # Errors
    ///
    /// The successor is killed.
    fn send_to_new_process(&mut self, handover: Handover) -> HookResult {
        handover.send();
        Ok(())
    }

    /// The successor serves, with this process id: stop accepting. Without a probation the restart
    /// is final now. With one, the task resolves when the probation is over, and two processes must
    /// not serve until then.
    fn new_process_granted(&mut self, pid: u32) {
        let _ = pid;
    }

    /// The restart has failed, before or (on probation) after the successor had taken over: undo what the other hooks did.
    fn new_process_failed(&mut self, why: &Failure) {
        let _ = why;
    }

    /// The restart is final: the successor, of this process id, serves.
    fn new_process_ready(&mut self, pid: u32) {
        let _ = pid;
    }
}

/// For handlers that are chosen at run time.
impl<T: LifecycleHandler + ?Sized> LifecycleHandler for Box<T> {
    fn pre_new_process(&mut self) -> HookResult {
        (**self).pre_new_process()
    }

    fn precopy(&mut self, precopy: &mut Precopy) -> HookResult {
        (**self).precopy(precopy)
    }

    fn send_to_new_process(&mut self, handover: Handover) -> HookResult {
        (**self).send_to_new_process(handover)
    }

    fn new_process_granted(&mut self, pid: u32) {
        (**self).new_process_granted(pid);
    }

    fn new_process_failed(&mut self, why: &Failure) {
        (**self).new_process_failed(why);
    }

    fn new_process_ready(&mut self, pid: u32) {
        (**self).new_process_ready(pid);
    }
}

/// The handler of a task, if it has one.
#[derive(Default)]
pub(super) struct Hooks {
    handler: Option<Box<dyn LifecycleHandler>>,
    /// What goes ahead, until the state is asked for.
    precopy: Option<Precopy>,
}

impl Hooks {
    pub(super) fn new(handler: impl LifecycleHandler) -> Hooks {
        Hooks { handler: Some(Box::new(handler)), precopy: None }
    }

    /// Calls the hook for an event. Returns the event, unless the hook has used it up.
    pub(super) fn run(&mut self, restarter: &mut Restarter, event: Event) -> Option<Event> {
        let Some(handler) = &mut self.handler else { return Some(event) };
        match event {
            Event::PrecopyRequested(precopy) => {
                let precopy = self.precopy.insert(precopy);
                call_off(restarter, caught(|| handler.precopy(precopy)));
                return None;
            }
            Event::PrecopyRoom => {
                if let Some(precopy) = &mut self.precopy {
                    call_off(restarter, caught(|| handler.precopy(precopy)));
                }
                return None;
            }
            Event::StateRequested(handover) => {
                self.precopy = None;
                call_off(restarter, caught(|| handler.send_to_new_process(handover)));
                return None;
            }
            Event::Restarting => call_off(restarter, caught(|| handler.pre_new_process())),
            Event::HandedOff(pid) => log_panic(|| handler.new_process_granted(pid)),
            Event::Failed(ref why) | Event::Resumed(ref why) => {
                self.precopy = None;
                log_panic(|| handler.new_process_failed(why));
            }
            Event::Completed(pid) => log_panic(|| handler.new_process_ready(pid)),
            _ => {}
        }
        Some(event)
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.handler.is_some() { "a handler" } else { "none" })
    }
}

/// A hook without which the attempt cannot go on.
fn call_off(restarter: &mut Restarter, result: Result<(), String>) {
    if let Err(why) = result
        && !restarter.hook_failed(&wire::line(&why))
    {
        log::error!("a hook of this program failed: {why}");
    }
}

/// A hook at the end of an attempt: the next one may be under way already, and is not called off for it.
fn log_panic(hook: impl FnOnce()) {
    let result = caught(|| {
        hook();
        Ok(())
    });
    if let Err(why) = result {
        log::error!("a hook of this program failed: {why}");
    }
}

/// The error of a hook in words, a panic's too. What a hook that panicked leaves half-done is its own.
fn caught(hook: impl FnOnce() -> HookResult) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(hook)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("it panicked: {}", panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}
