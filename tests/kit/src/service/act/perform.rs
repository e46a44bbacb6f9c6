//! What does an act: every one has an arm here, or the compiler tells.

use std::sync::Arc;
use std::thread;

use nix::sys::signal::{SigSet, raise};
use pollflip::{Predecessor, Restarter, startup_complete};

use super::process::answer;
use super::{Act, descriptors, process, restarter};
use crate::service::report;

impl Act {
    /// Does it, and says how it went if that comes back. `None`: it is an act of the loop, or of a capability.
    pub fn perform(&self, own: &mut Option<Restarter>) -> Option<String> {
        Some(match self {
            Act::On(..) | Act::GoOn | Act::Ready | Act::Build | Act::Claim(_) | Act::Connections => return None,
            Act::Turns | Act::ForgetSetting | Act::Other(_) => return None,
            Act::Wait => {
                report::wait_for_go();
                "gone on".into()
            }
            Act::Hang => process::hang(),
            Act::Exit(status) => std::process::exit(*status),
            Act::Panic => panic!("as planned"),
            Act::Abort => std::process::abort(),
            Act::Raise(signal) => {
                raise(*signal).expect("raise");
                "raised".into()
            }
            Act::RunAsChild => process::run_as_child(),
            Act::ExecuteByDescriptor(program) => process::execute_by_descriptor(program),
            Act::LeavePlan(plan) => process::leave_plan(plan),
            Act::Handle(signal) => answer(signal_hook::flag::register(*signal as i32, Arc::default()), "handled"),
            Act::Count(signal) => process::count(*signal),
            Act::Counted => process::counted(),
            Act::Default(signal) => process::set_to_default(*signal),
            Act::Block(signal) => answer([*signal].into_iter().collect::<SigSet>().thread_block(), "blocked"),
            Act::EndWithParent(signal) => answer(nix::sys::prctl::set_pdeathsig(*signal), "asked for"),
            Act::SetVariable(name, value) => process::set_variable(name, value),
            Act::ForgetVariable(name) => process::forget_variable(name),
            Act::ChangeDirectory(path) => answer(std::env::set_current_dir(path), "there"),
            Act::Become(user) => {
                let user = (*user).into();
                answer(nix::unistd::setresuid(user, user, user), "became")
            }
            Act::SetOomScore(score) => answer(std::fs::write("/proc/self/oom_score_adj", score.to_string()), "set"),
            Act::TouchMebibytes(count) => process::touch(count << 20),
            Act::SpawnDirectly => process::spawn_directly(),
            Act::StartThread => {
                thread::spawn(process::park);
                "started".into()
            }
            Act::ReapAny => {
                thread::spawn(process::reap_any);
                "started".into()
            }
            Act::StartHelper(script) => process::start_helper(script),
            Act::Notify(lines) => process::notify(lines),
            Act::StartupComplete => answer(startup_complete(), "ok"),
            Act::StartupCompleteElsewhere => answer(thread::spawn(startup_complete).join().expect("no panic"), "ok"),
            Act::FixUpSystemdVariables => process::fix_up_systemd_variables(),
            Act::StatusOf(path) => process::status_of(path),
            Act::RestartOf(path, limit) => process::restart_of(path, *limit),
            Act::Leak(path) => descriptors::leak(path),
            Act::LeakLast(number) => descriptors::leak_last(*number),
            Act::OpenAs(number, path) => descriptors::open_as(*number, path),
            Act::OpenFiles(count) => descriptors::open_files(*count),
            Act::SpareDescriptors(count) => descriptors::spare(*count),
            Act::HoldPipe(content) => descriptors::hold_pipe(content),
            Act::ReadPipe => descriptors::read_pipe(),
            Act::ShutListenersDown => descriptors::shut_listeners_down().to_string(),
            Act::CloseLifeline => descriptors::close(descriptors::lifeline()),
            Act::SayOnLifeline(text) => descriptors::say_on_lifeline(text),
            Act::ReuseLifeline => with(own, |own| descriptors::reuse_lifeline(own).unwrap_or_else(|error| error.to_string())),
            Act::ClosePidfd => descriptors::close(descriptors::pidfd()),
            Act::ReusePidfd => descriptors::reuse_pidfd(),
            Act::Drop => own.take().map_or("there was none", |_| "dropped").into(),
            Act::DropInAFork => restarter::drop_in_a_fork(own),
            Act::Successor => restarter::successor(own),
            Act::Request => with(own, restarter::request),
            Act::Cancel => with(own, |own| own.cancel("by a test").to_string()),
            Act::Stop => with(own, |own| {
                own.stop();
                "stopped".into()
            }),
            Act::Status => with(own, |own| own.status().to_json()),
            Act::Refuse(why) => with_predecessor(own, |predecessor| {
                predecessor.refuse(why);
                "refused".into()
            }),
            Act::RefuseAtLength { lines, characters } => {
                with_predecessor(own, |predecessor| restarter::refuse_at_length(&predecessor, *lines, *characters))
            }
            Act::Progress(text) => with_predecessor(own, |predecessor| {
                predecessor.progress(text);
                "told".into()
            }),
            Act::Pull => with_predecessor(own, |predecessor| {
                predecessor.pull();
                "asked".into()
            }),
            Act::Receive => with_predecessor(own, restarter::receive),
            Act::ReceiveAfter(file) => with_predecessor(own, |predecessor| restarter::receive_after(predecessor, file)),
            Act::Bind(name) => with(own, |own| answer(own.sockets().udp_socket(name, "127.0.0.1:0"), "bound")),
            Act::Remove(name) => with(own, |own| own.sockets().remove(name).to_string()),
            Act::Unclaimed => with(own, |own| own.sockets().unclaimed().join(" ")),
        })
    }
}

fn with(own: &mut Option<Restarter>, act: impl FnOnce(&mut Restarter) -> String) -> String {
    own.as_mut().map_or_else(|| "there is no restarter".into(), act)
}

fn with_predecessor(own: &mut Option<Restarter>, act: impl FnOnce(Predecessor) -> String) -> String {
    with(own, |own| act(own.predecessor().expect("a predecessor, which the first process does not have")))
}
