//! Wakers that count, threads with a deadline, a poll, and numbers about this process.

use std::collections::HashSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Token};

/// Nothing here takes this long; a test that waits this long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const MANY: usize = 100_000;

/// A waker that counts, and that a thread can wait for.
#[derive(Default)]
pub(crate) struct Waking {
    count: Mutex<usize>,
    woken: std::sync::Condvar,
}

impl Waking {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn count(&self) -> usize {
        *self.count.lock().unwrap()
    }

    /// How many hold this waker, the test included.
    pub(crate) fn holders(self: &Arc<Self>) -> usize {
        Arc::strong_count(self)
    }

    /// Until it was woken at least once since the last wait.
    pub(crate) fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let (mut count, out) = self.woken.wait_timeout_while(self.count.lock().unwrap(), left, |count| *count == 0).unwrap();
        assert!(!out.timed_out(), "not woken before the deadline");
        *count = 0;
    }
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        *self.count.lock().unwrap() += 1;
        self.woken.notify_all();
    }
}

pub(crate) fn poll<F: Future + Unpin>(future: &mut F, waking: &Arc<Waking>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(waking))))
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (waking, until) = (Waking::new(), Instant::now() + DEADLINE);
    loop {
        match poll(&mut future, &waking) {
            Poll::Ready(output) => return output,
            Poll::Pending => waking.wait(until),
        }
    }
}

/// A thread that must end before the deadline.
pub(crate) fn within_deadline(work: impl FnOnce() + Send + 'static) -> Running {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    Running { ended, thread }
}

pub(crate) struct Running {
    ended: mpsc::Receiver<()>,
    thread: thread::JoinHandle<()>,
}

impl Running {
    pub(crate) fn finish(self) {
        assert_ne!(self.ended.recv_timeout(DEADLINE), Err(mpsc::RecvTimeoutError::Timeout), "hangs");
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

pub(crate) struct Poller {
    pub(crate) poll: mio::Poll,
    events: Events,
}

impl Poller {
    pub(crate) fn new() -> Self {
        Self { poll: mio::Poll::new().unwrap(), events: Events::with_capacity(16) }
    }

    pub(crate) fn register(&self, source: &mut impl mio::event::Source, token: usize) {
        self.poll.registry().register(source, Token(token), Interest::READABLE).unwrap();
    }

    pub(crate) fn ready_now(&mut self) -> Vec<usize> {
        self.turn(Duration::ZERO)
    }

    pub(crate) fn wait(&mut self) -> Vec<usize> {
        let ready = self.turn(DEADLINE);
        assert!(!ready.is_empty(), "no event before the deadline");
        ready
    }

    /// So many sources, in however many turns.
    pub(crate) fn wait_for(&mut self, count: usize) -> HashSet<usize> {
        let mut ready = HashSet::new();
        while ready.len() < count {
            ready.extend(self.wait());
        }
        ready
    }

    pub(crate) fn turn(&mut self, timeout: Duration) -> Vec<usize> {
        let until = Instant::now() + timeout;
        while let Err(error) = self.poll.poll(&mut self.events, Some(until.saturating_duration_since(Instant::now()))) {
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
        }
        self.events.iter().map(|event| event.token().0).collect()
    }
}

pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Other tests of this process have a few of their own meanwhile; what is looked for comes by the thousand.
pub(crate) fn assert_few_more_descriptors_than(before: usize) {
    let now = descriptors();
    assert!(now < before + 200, "{before} descriptors before, {now} now");
}

pub(crate) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
