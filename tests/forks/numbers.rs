//! Process ids that a parent and its child have in common: each is the first process of a namespace.

use std::future::Future;
use std::os::unix::fs::FileTypeExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use pollflip::{RestartConfig, RestartTask};

use crate::child::{Fork, Verdict, claim, ends, fork};
use crate::kernels::can_wipe;
use crate::shutdown::Parent;
use crate::successor::path;
use pollflip_kit::group::wait_until;

cases![a_first_process_and_its_child_that_is_one_too];

/// Whether this process may have namespaces; says aloud if not.
pub(crate) fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped {what}: it needs root");
    }
    root
}

fn a_first_process_and_its_child_that_is_one_too() {
    if !is_root("a process id that two have") || !can_wipe() {
        return;
    }
    match fork(Fork::KernelIntoNamespace, in_the_outer_namespace) {
        Ok(child) => ends(child),
        Err(error) => println!("skipped a process id that two have: no namespace can be had: {error}"),
    }
}

struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn in_the_outer_namespace() -> Verdict {
    claim(std::process::id() == 1, "a first process")?;
    let mut parent = Parent::new();
    let socket = path("restart.sock");
    let restarter = RestartConfig::new().coordination_socket(&socket).build().map_err(|_| "a restarter")?;
    // A thread waits for it.
    let mut task = RestartTask::from(restarter);
    let alarm = Arc::new(Alarm(AtomicBool::new(false)));
    let waker = Waker::from(alarm.clone());
    let mut context = Context::from_waker(&waker);
    for _ in 0..3 {
        claim(Pin::new(&mut task).poll(&mut context).is_pending(), "a task that is pending")?;
    }
    let mut task = Some(task);
    let child = fork(Fork::KernelIntoNamespace, || {
        claim(std::process::id() == 1, "a first process again")?;
        drop(task.take());
        parent.is_dropped()?;
        let mut own = RestartConfig::new().build().map_err(|_| "a restarter of its own")?;
        own.ready().map_err(|_| "that it serves")
    });
    ends(child.map_err(|_| "a namespace within")?);
    let is_there = std::fs::symlink_metadata(&socket).is_ok_and(|found| found.file_type().is_socket());
    claim(is_there, "a coordination socket that the child has left alone")?;
    parent.goes_on();
    let mut task = task.ok_or("the parent's own")?;
    claim(Pin::new(&mut task).poll(&mut context).is_pending(), "a task that is pending still")?;
    claim(task.restarter().status().state == pollflip::ServiceState::Serving, "a restarter that is idle")?;
    alarm.0.store(false, Ordering::SeqCst);
    // It would wake nobody any more.
    claim(!task.restarter().cancel("by a test"), "nothing to call off")?;
    wait_until("the thread to wake the task", || alarm.0.load(Ordering::SeqCst));
    Ok(())
}
