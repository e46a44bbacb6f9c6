//! The descriptors that a service has its guard keep, as systemd's descriptor store does: they live
//! on when the service is killed, and the next start of it gets them.
//!
//! Knows: descriptors, their names, and how much of both there may be. Does not know: who stores
//! them, and when they are of use.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::sys::{self, HangUps};
use crate::wire::FileId;

/// What is kept.
#[derive(Debug)]
pub(super) struct Store {
    entries: Vec<Entry>,
    /// So many descriptors at the most.
    size: usize,
    /// So many bytes of names, each with the colon after it.
    room: usize,
    /// There is one as soon as something is watched.
    hang_ups: Option<HangUps>,
    /// The key of the next entry.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    key: u64,
    name: String,
    descriptor: OwnedFd,
    file: Option<FileId>,
}

/// Why a descriptor is not kept.
#[derive(Debug)]
pub(super) enum Refused {
    /// There are as many as there may be.
    Full,
    /// All names together would be longer than a program can be given.
    NamesTooLong,
    /// There is no memory for the name.
    NoMemory,
    /// It cannot be watched.
    Unwatchable(io::Error),
}

impl Store {
    pub(super) fn new(size: usize, room: usize) -> Store {
        Store { entries: Vec::new(), size, room, hang_ups: None, next: 0 }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keeps a descriptor, until it hangs up if it is watched. What is kept already, be it under
    /// another name, stays as it is. What is not kept is handed back.
    pub(super) fn put(&mut self, name: &str, descriptor: OwnedFd, watched: bool) -> Result<(), (Refused, OwnedFd)> {
        let file = sys::identity(descriptor.as_raw_fd());
        if self.entries.iter().any(|entry| entry.is_same(name, &descriptor, file)) {
            return Ok(());
        }
        let mut own_name = String::new();
        let room = self.check_room(name).and_then(|()| {
            let reserved = own_name.try_reserve_exact(name.len()).and_then(|()| self.entries.try_reserve(1));
            reserved.map_err(|_| Refused::NoMemory)
        });
        if let Err(why) = room.and_then(|()| self.watch(&descriptor, watched)) {
            return Err((why, descriptor));
        }
        own_name += name;
        self.entries.push(Entry { key: self.next, name: own_name, descriptor, file });
        self.next += 1;
        Ok(())
    }

    fn check_room(&self, name: &str) -> Result<(), Refused> {
        if self.entries.len() >= self.size {
            return Err(Refused::Full);
        }
        let taken: usize = self.entries.iter().map(|entry| entry.name.len() + 1).sum();
        if taken + name.len() + 1 > self.room {
            return Err(Refused::NamesTooLong);
        }
        Ok(())
    }

    fn watch(&mut self, descriptor: &OwnedFd, watched: bool) -> Result<(), Refused> {
        if !watched {
            return Ok(());
        }
        let hang_ups = match &mut self.hang_ups {
            Some(hang_ups) => hang_ups,
            none => none.insert(HangUps::new().map_err(Refused::Unwatchable)?),
        };
        hang_ups.watch(descriptor, self.next).map(drop).map_err(Refused::Unwatchable)
    }

    /// Closes all of that name; says how many.
    pub(super) fn remove(&mut self, name: &str) -> usize {
        self.close(|entry| entry.name == name)
    }

    pub(super) fn clear(&mut self) {
        self.close(|_| true);
        self.hang_ups = None;
    }

    /// Closes what has hung up; says how many.
    pub(super) fn remove_hung_up(&mut self) -> usize {
        let mut count = 0;
        while let Some(key) = self.hang_ups.as_ref().and_then(HangUps::next) {
            count += self.close(|entry| entry.key == key);
        }
        count
    }

    fn close(&mut self, is_meant: impl Fn(&Entry) -> bool) -> usize {
        let gone: Vec<_> = self.entries.extract_if(.., |entry| is_meant(entry)).map(|entry| entry.descriptor).collect();
        if let Some(hang_ups) = &self.hang_ups {
            gone.iter().for_each(|descriptor| hang_ups.unwatch(descriptor));
        }
        let count = gone.len();
        sys::close_aside(gone);
        count
    }

    /// Readable when something has hung up, once there is something to watch.
    pub(super) fn hang_ups(&self) -> Option<BorrowedFd<'_>> {
        self.hang_ups.as_ref().map(AsFd::as_fd)
    }

    /// All of it, in the order in which it came.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), entry.descriptor.as_fd()))
    }
}

impl Entry {
    /// Whether it is the same open file. Where the kernel does not tell, the same file under the
    /// same name is.
    fn is_same(&self, name: &str, descriptor: &OwnedFd, file: Option<FileId>) -> bool {
        file.is_some() && self.file == file && sys::is_same_open_file(&self.descriptor, descriptor).unwrap_or_else(|_| self.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write, pipe};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    fn store() -> Store {
        Store::new(4, 100)
    }

    fn names(store: &Store) -> Vec<&str> {
        store.kept().map(|(name, _)| name).collect()
    }

    fn copy(fd: impl AsFd) -> OwnedFd {
        sys::duplicate(fd, 3).expect("a duplicate")
    }

    /// Waits until something has hung up: a child that another test forks has a copy of each descriptor
    /// until it executes its program.
    fn remove_what_hangs_up(store: &mut Store) -> usize {
        let watched = store.hang_ups().expect("something is watched");
        assert!(sys::is_readable_within(watched, std::time::Duration::from_secs(60)), "nothing hangs up");
        store.remove_hung_up()
    }

    #[test]
    fn what_is_kept_stays_in_order_and_goes_by_its_name() {
        let mut store = store();
        for name in ["a", "b", "a"] {
            store.put(name, File::open("/dev/null").expect("a file").into(), true).expect("room");
        }
        assert_eq!(names(&store), ["a", "b", "a"]);
        assert_eq!(store.remove("a"), 2);
        assert_eq!(store.remove("a"), 0);
        assert_eq!(names(&store), ["b"]);
        store.clear();
        assert!(store.is_empty());
    }

    #[test]
    fn one_open_file_is_kept_once_under_its_first_name() {
        let mut store = store();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        store.put("first", copy(&listener), true).expect("room");
        store.put("second", copy(&listener), false).expect("it is there");
        assert_eq!(names(&store), ["first"]);
        // Another open file of the same file is another one.
        let [one, other] = [(); 2].map(|()| OwnedFd::from(File::open("/dev/null").expect("a file")));
        store.put("null", one, false).expect("room");
        store.put("null", other, false).expect("room");
        assert_eq!(store.len(), 3);
    }

    #[test]
    fn it_is_full_when_it_has_its_size_or_its_names_have_their_length() {
        let mut store = store();
        for number in 0..4 {
            store.put(&number.to_string(), File::open("/dev/null").expect("a file").into(), false).expect("room");
        }
        let more = || OwnedFd::from(File::open("/dev/null").expect("a file"));
        assert!(matches!(store.put("x", more(), false), Err((Refused::Full, _))));
        store.clear();
        store.put(&"x".repeat(49), more(), false).expect("room");
        assert!(matches!(store.put(&"y".repeat(50), more(), false), Err((Refused::NamesTooLong, _))));
        store.put(&"y".repeat(49), more(), false).expect("room for so many");
        assert!(matches!(store.put("z", more(), false), Err((Refused::NamesTooLong, _))));
    }

    #[test]
    fn what_hangs_up_goes_if_it_is_watched() {
        let mut store = store();
        assert!(store.hang_ups().is_none(), "nothing is made for nothing");
        let (near, far) = UnixStream::pair().expect("a pair");
        store.put("watched", copy(&near), true).expect("room");
        let (other, gone) = UnixStream::pair().expect("a pair");
        store.put("kept", other.into(), false).expect("room");
        // A memory file never hangs up, and is no error.
        store.put("memory", sys::memory_file().expect("a file").into(), true).expect("room");
        drop(gone);
        assert_eq!(store.remove_hung_up(), 0);
        drop(far);
        // The service still has the same open file.
        assert_eq!(remove_what_hangs_up(&mut store), 1);
        assert_eq!(store.remove_hung_up(), 0);
        assert_eq!(names(&store), ["kept", "memory"]);
    }

    #[test]
    fn the_end_of_what_a_peer_sends_removes_nothing_and_its_end_does() {
        let mut store = store();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (mut server, _) = listener.accept().expect("a connection");
        store.put("c", copy(&server), true).expect("room");
        client.shutdown(Shutdown::Write).expect("a connection");
        assert_eq!(server.read(&mut [0]).expect("the end"), 0);
        assert_eq!(store.remove_hung_up(), 0);
        // As a service that forgets a connection does.
        server.shutdown(Shutdown::Both).expect("a connection");
        assert_eq!(store.remove_hung_up(), 1);
    }

    #[test]
    fn what_comes_in_wakes_nobody() {
        let mut store = store();
        let (read, write) = pipe().expect("a pipe");
        store.put("p", copy(&read), true).expect("room");
        (&write).write_all(b"much").expect("room");
        let watched = store.hang_ups().expect("something is watched");
        assert!(!sys::is_readable_within(watched, std::time::Duration::ZERO));
        drop(write);
        assert_eq!(remove_what_hangs_up(&mut store), 1);
    }

    /// A connection whose last close waits until the peer has taken all that was sent.
    fn lingering() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (peer, _) = listener.accept().expect("a connection");
        client.set_nonblocking(true).expect("a socket");
        while Write::write(&mut &client, &[0; 65_536]).is_ok() {}
        let lingers = nix::libc::linger { l_onoff: 1, l_linger: 1_000 };
        nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::Linger, &lingers).expect("a socket");
        (client, peer)
    }

    fn nobody_waits_to_remove(what: OwnedFd, peer: TcpStream) {
        let (told, hears) = std::sync::mpsc::channel();
        let removing = thread::spawn(move || {
            let mut store = store();
            store.put("c", what, true).expect("room");
            assert_eq!(store.remove("c"), 1);
            told.send(()).expect("somebody hears");
        });
        let result = hears.recv_timeout(std::time::Duration::from_secs(60));
        // Those that wait do so no more.
        drop(peer);
        removing.join().expect("no panic");
        result.expect("nobody waits for the peer");
    }

    #[test]
    fn a_connection_that_lingers_is_not_waited_for() {
        let (client, peer) = lingering();
        nobody_waits_to_remove(client.into(), peer);
    }

    #[test]
    fn a_queue_in_which_a_connection_lies_that_lingers_is_not_waited_for() {
        let (client, peer) = lingering();
        let (write, read) = sys::packet_sockets().expect("sockets");
        sys::send(&write, &[0], &[client.as_fd()]).expect("room");
        drop((client, write));
        nobody_waits_to_remove(read, peer);
    }
}
