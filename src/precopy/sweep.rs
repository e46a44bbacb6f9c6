//! Events of connections that are registered before they may be touched.
//!
//! Knows: a poll and its events. Does not know: what is registered there.

use std::io;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll};
use nix::libc;

/// How many events one look takes.
const CAPACITY: usize = 1024;

/// What a poll has told before the grant, to be done after it.
///
/// A successor registers what comes [ahead](crate::Precopy) with its own `Poll` at once, and that poll stays silent: it is not polled
/// while the predecessor serves. But each connection on which something has happened since stands in the queue of the kernel, and the
/// first poll after the grant walks all of them, in the pause: some 5 ms for 19,000. A sweep empties that queue before. It belongs
/// right before the state is asked for. What the sweep tells is kept here, since mio's polls tell an edge once: the program handles it
/// after [`ready`](crate::Restarter::ready) has returned, as events of any other poll.
///
/// ```no_run
/// # use std::time::Duration;
/// # use mio::Poll;
/// # use pollflip::{Predecessor, Restarter, Sweep};
/// # struct Server;
/// # impl Server { fn on_event(&mut self, _: &mio::event::Event) {} fn copy(&mut self, _: &Predecessor, _: &Poll) {} }
/// # fn run(restarter: &mut Restarter, predecessor: &Predecessor, mut poll: Poll, mut server: Server)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// server.copy(predecessor, &poll); // receive_precopy, and registers each connection
/// let mut sweep = Sweep::default();
/// sweep.look(&mut poll)?;
/// let state = predecessor.receive(Duration::from_secs(1))?; // the predecessor stands still
/// # drop(state);
/// restarter.ready()?;
/// for event in sweep {
///     server.on_event(&event);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "what it has been told is told once"]
pub struct Sweep {
    told: Vec<Event>,
}

impl Sweep {
    /// Takes all that the poll tells now, without waiting for more. Returns how many events that were. It can be done more than once.
    ///
    /// # Errors
    ///
    /// The poll cannot be polled. What it had told before is kept.
    pub fn look(&mut self, poll: &mut Poll) -> io::Result<usize> {
        let mut events = Events::with_capacity(CAPACITY);
        let before = self.told.len();
        loop {
            match poll.poll(&mut events, Some(Duration::ZERO)) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) => return Err(error),
            }
            let count = self.told.len();
            self.told.extend(events.iter().cloned());
            if self.told.len() - count < CAPACITY {
                return Ok(self.told.len() - before);
            }
        }
    }

    /// What has been told, in its order. Something that has closed since may be among it.
    pub fn events(&self) -> &[Event] {
        &self.told
    }
}

impl IntoIterator for Sweep {
    type Item = Event;
    type IntoIter = std::vec::IntoIter<Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.told.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use mio::unix::SourceFd;
    use mio::{Interest, Token};

    use super::*;

    #[test]
    fn all_that_a_poll_tells_is_kept_and_the_next_poll_has_only_what_is_new() {
        let mut poll = Poll::new().expect("a poll");
        let (mut theirs, ours): (Vec<_>, Vec<_>) = (0..CAPACITY / 8).map(|_| UnixStream::pair().expect("a pair")).unzip();
        for (token, stream) in ours.iter().enumerate() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), Token(token), interest).expect("a place");
        }
        let mut sweep = Sweep::default();
        // Each can be written, which is told once.
        assert_eq!(sweep.look(&mut poll).expect("a look"), ours.len());
        assert_eq!(sweep.look(&mut poll).expect("a look"), 0);
        theirs[3].write_all(b"word").expect("room");
        assert_eq!(sweep.look(&mut poll).expect("a look"), 1);
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::ZERO)).expect("a look");
        assert!(events.is_empty(), "the first poll after the grant has nothing to walk");
        theirs[5].write_all(b"word").expect("room");
        poll.poll(&mut events, Some(Duration::ZERO)).expect("a look");
        assert_eq!(events.iter().map(Event::token).collect::<Vec<_>>(), [Token(5)]);
        let told: Vec<_> = sweep.into_iter().collect();
        assert_eq!(told.iter().map(Event::token).collect::<BTreeSet<_>>(), (0..ours.len()).map(Token).collect());
        assert!(told.iter().any(|event| event.token() == Token(3) && event.is_readable()));
    }

    /// As many as one look takes, which could be all or not.
    #[test]
    fn as_many_as_one_look_takes_are_told_and_so_is_one_more() {
        let mut poll = Poll::new().expect("a poll");
        let (_theirs, ours) = UnixStream::pair().expect("a pair");
        let mut sweep = Sweep::default();
        let mut numbers = Vec::new();
        for count in [CAPACITY, CAPACITY + 1] {
            while numbers.len() < count {
                // One connection under many numbers.
                numbers.push(ours.try_clone().expect("a descriptor"));
            }
            for number in &numbers {
                let number = number.as_raw_fd();
                // Registered anew, it tells anew; the first time it is not there.
                let _ = poll.registry().deregister(&mut SourceFd(&number));
                poll.registry().register(&mut SourceFd(&number), Token(count), Interest::WRITABLE).expect("a place");
            }
            assert_eq!(sweep.look(&mut poll).expect("a look"), count);
        }
        assert_eq!(sweep.events().len(), 2 * CAPACITY + 1);
    }
}
