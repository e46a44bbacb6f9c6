//! A restarter in loops of all kinds: registered, nested, or polled by hand. Each returns when a successor has taken over.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use pollflip::Restarter;

use crate::child::drain;

type Loop = fn(Restarter);

pub(crate) const ALL: &[(&str, Loop)] = &[
    ("mio", mio),
    ("poll", poll),
    ("epoll_level_triggered", |restarter| epoll(restarter, EpollFlags::EPOLLIN)),
    ("epoll_edge_triggered", |restarter| epoll(restarter, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)),
    ("polling", polling),
    ("calloop", calloop),
    ("tokio_async_fd", tokio_async_fd),
    ("async_io", async_io),
    ("ticks_at_60_hz", ticks),
];

/// For reactors that want a descriptor to own.
fn duplicate(restarter: &Restarter) -> OwnedFd {
    restarter.as_fd().try_clone_to_owned().expect("a descriptor")
}

fn mio(mut restarter: Restarter) {
    let mut poll = mio::Poll::new().expect("a poll");
    poll.registry().register(&mut restarter, Token(7), Interest::READABLE).expect("registered");
    let mut events = Events::with_capacity(4);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            result => result.expect("poll"),
        }
        assert!(events.iter().all(|event| event.token() == Token(7)));
        if !events.is_empty() && drain(&mut restarter) {
            return;
        }
    }
}

fn poll(mut restarter: Restarter) {
    loop {
        let mut fds = [PollFd::new(restarter.as_fd(), PollFlags::POLLIN)];
        // A signal interrupts it, which is no event.
        let count = nix::poll::poll(&mut fds, PollTimeout::NONE).unwrap_or(0);
        if count > 0 && drain(&mut restarter) {
            return;
        }
    }
}

fn epoll(mut restarter: Restarter, flags: EpollFlags) {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll");
    epoll.add(restarter.as_fd(), EpollEvent::new(flags, 7)).expect("added");
    let mut events = [EpollEvent::empty(); 4];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
        if count > 0 && drain(&mut restarter) {
            return;
        }
    }
}

fn polling(mut restarter: Restarter) {
    let poller = polling::Poller::new().expect("a poller");
    let source = duplicate(&restarter);
    #[expect(unsafe_code, reason = "this reactor leaves it to its users that a source is removed before it is closed")]
    // SAFETY: `source` outlives `poller`, from which it is deleted at the end.
    unsafe { poller.add_with_mode(&source, polling::Event::readable(7), polling::PollMode::Level) }.expect("added");
    let mut events = polling::Events::new();
    loop {
        events.clear();
        let count = poller.wait(&mut events, None).expect("wait");
        if count > 0 && drain(&mut restarter) {
            break;
        }
    }
    poller.delete(&source).expect("deleted");
}

fn calloop(restarter: Restarter) {
    use calloop::generic::Generic;
    use calloop::{EventLoop, Interest, LoopSignal, Mode, PostAction};

    let mut event_loop: EventLoop<'_, (Restarter, LoopSignal)> = EventLoop::try_new().expect("a loop");
    let source = Generic::new(duplicate(&restarter), Interest::READ, Mode::Level);
    event_loop
        .handle()
        .insert_source(source, |_, _, (restarter, signal)| {
            if drain(restarter) {
                signal.stop();
            }
            Ok(PostAction::Continue)
        })
        .expect("inserted");
    let signal = event_loop.get_signal();
    event_loop.run(None, &mut (restarter, signal), |_| {}).expect("run");
}

fn tokio_async_fd(restarter: Restarter) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        #[expect(unsafe_code, reason = "this reactor leaves it to its users that the descriptor stays the same")]
        // SAFETY: a restarter has the same descriptor as long as it lives.
        let watched = unsafe { tokio::io::unix::AsyncFd::register_with_interest(restarter, tokio::io::Interest::READABLE) };
        let mut watched = watched.expect("registered");
        loop {
            let mut ready = watched.readable_mut().await.expect("readable");
            if drain(ready.get_inner_mut()) {
                return;
            }
            ready.clear_ready();
        }
    });
}

fn async_io(mut restarter: Restarter) {
    let watched = smol::Async::new(duplicate(&restarter)).expect("registered");
    smol::block_on(async {
        loop {
            watched.readable().await.expect("readable");
            if drain(&mut restarter) {
                return;
            }
        }
    });
}

fn ticks(mut restarter: Restarter) {
    while !drain(&mut restarter) {
        thread::sleep(Duration::from_micros(16_667));
    }
}
