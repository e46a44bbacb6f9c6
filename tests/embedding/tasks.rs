//! A task in executors of all kinds, and in loops without one. Each returns when a successor has taken over.

use std::future::Future;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use pollflip::{Error, RestartTask, Successor};
use tokio::runtime::Builder;

use crate::child::{Teller, tell};

type Loop = fn(RestartTask);

pub(crate) const ALL: &[(&str, Loop)] = &[
    ("task_in_tokio_on_one_thread", tokio_one_thread),
    ("task_in_tokio_on_many_threads", tokio_many_threads),
    ("task_in_select_beside_other_futures", tokio_select),
    ("task_in_smol", smol),
    ("task_in_futures_block_on", |task| ended(&futures_executor::block_on(task.with_handler(Teller)))),
    ("task_in_a_hand_written_executor", |task| ended(&block_on(task.with_handler(Teller)))),
    ("task_by_its_events", events),
    ("task_ticking_at_60_hz", ticks),
    ("task_registered_in_mio", mio),
    ("task_nested_in_poll", poll),
];

fn ended(result: &Result<Successor, Error>) {
    assert!(result.as_ref().expect("a successor").pid() > 0);
}

fn tokio_one_thread(task: RestartTask) {
    let runtime = Builder::new_current_thread().build().expect("a runtime without any driver");
    ended(&runtime.block_on(task.with_handler(Teller)));
}

fn tokio_many_threads(task: RestartTask) {
    let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let running = runtime.spawn(task.with_handler(Teller));
    ended(&runtime.block_on(running).expect("it does not panic"));
}

/// The other futures end over and over, so that the task is polled at odd moments by the same loop.
fn tokio_select(task: RestartTask) {
    let mut task = task.with_handler(Teller);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        loop {
            tokio::select! {
                result = &mut task => return ended(&result),
                _ = interval.tick() => {}
                _ = listener.accept() => {}
            }
        }
    });
}

fn smol(task: RestartTask) {
    let running = smol::spawn(task.with_handler(Teller));
    ended(&smol::block_on(running));
}

/// The smallest executor there is.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    #[derive(Default)]
    struct Alarm(Mutex<bool>, Condvar);
    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            *self.0.lock().expect("no panic") = true;
            self.1.notify_one();
        }
    }
    let mut future = pin!(future);
    let alarm = Arc::new(Alarm::default());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&Waker::from(alarm.clone()))) {
            return output;
        }
        let mut rung = alarm.1.wait_while(alarm.0.lock().expect("no panic"), |rung| !*rung).expect("no panic");
        *rung = false;
    }
}

fn events(mut task: RestartTask) {
    block_on(async { while !tell(&task.next_event().await) {} });
}

fn ticks(task: RestartTask) {
    let mut task = task.with_handler(Teller);
    loop {
        if let Poll::Ready(result) = task.poll() {
            return ended(&result);
        }
        thread::sleep(Duration::from_micros(16_667));
    }
}

fn mio(task: RestartTask) {
    let mut task = task.with_handler(Teller);
    let mut poll = mio::Poll::new().expect("a poll");
    poll.registry().register(&mut task, Token(7), Interest::READABLE).expect("registered");
    let mut events = Events::with_capacity(4);
    loop {
        // The first poll of the task says that it is ready.
        if let Poll::Ready(result) = task.poll() {
            return ended(&result);
        }
        if let Err(error) = poll.poll(&mut events, None) {
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
        }
    }
}

fn poll(task: RestartTask) {
    let mut task = task.with_handler(Teller);
    loop {
        if let Poll::Ready(result) = task.poll() {
            return ended(&result);
        }
        let mut fds = [PollFd::new(task.as_fd(), PollFlags::POLLIN)];
        let _ = nix::poll::poll(&mut fds, PollTimeout::NONE);
    }
}
