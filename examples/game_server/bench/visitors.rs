//! Players who come and go: each stays for a moment, says goodbye, and sees how long it takes from the
//! answer until its connection has ended.

use super::loopback::Loopback;
use super::seen::Span;
use crate::clock;
use crate::protocol::{Input, Update, Wants};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

/// How long one stays.
const STAY: Duration = Duration::from_millis(250);

pub(crate) struct Visitors {
    loopback: Loopback,
    /// One comes as often as this.
    every: Duration,
    next: Duration,
    /// Where their tokens begin.
    first_token: usize,
    visitors: Slab<Visitor>,
    /// Who says goodbye when.
    leaving: VecDeque<(Duration, usize)>,
}

struct Visitor {
    stream: TcpStream,
    said_goodbye: bool,
    heard_at: Duration,
    received: usize,
}

impl Visitors {
    pub(crate) fn new(loopback: Loopback, a_second: u32, first_token: usize) -> Option<Self> {
        let every = Duration::from_secs(1).checked_div(a_second)?;
        Some(Self { loopback, every, next: clock::now(), first_token, visitors: Slab::new(), leaving: VecDeque::new() })
    }

    /// Who should come comes, and who should go says goodbye.
    pub(crate) fn turn(&mut self, now: Duration, registry: &Registry) -> Result<(), String> {
        while self.next <= now {
            // Who was held up does not come twice.
            self.next = (self.next + self.every).max(now.saturating_sub(self.every));
            let number = self.visitors.vacant_key();
            let stream = self.loopback.connect(number)?;
            self.welcome(stream, now, registry).map_err(|error| error.to_string())?;
        }
        while let Some(&(time, key)) = self.leaving.front()
            && time <= now
        {
            self.leaving.pop_front();
            let goodbye = Input { number: 1, wants: Wants::Leave, velocity: 0 }.encode();
            if let Some(visitor) = self.visitors.get_mut(key) {
                visitor.said_goodbye = true;
                visitor.stream.write_all(&goodbye).map_err(|error| format!("it cannot say goodbye: {error}"))?;
            }
        }
        Ok(())
    }

    fn welcome(&mut self, stream: std::net::TcpStream, now: Duration, registry: &Registry) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let entry = self.visitors.vacant_entry();
        let key = entry.key();
        registry.register(&mut stream, Token(self.first_token + key), Interest::READABLE)?;
        entry.insert(Visitor { stream, said_goodbye: false, heard_at: now, received: 0 });
        self.leaving.push_back((now + STAY, key));
        Ok(())
    }

    /// Something has come for one. Returns its farewell once its connection has ended.
    pub(crate) fn hear(&mut self, token: usize) -> Result<Option<Span>, String> {
        let key = token - self.first_token;
        let Some(visitor) = self.visitors.get_mut(key) else { return Ok(None) };
        let mut chunk = [0; 1024];
        loop {
            match visitor.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => {
                    visitor.received += length;
                    visitor.heard_at = clock::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let visitor = self.visitors.remove(key);
        if !visitor.said_goodbye {
            return Err("its connection ended before it said goodbye".into());
        }
        // The greeting, the answer, and whatever it was told in between: all of it whole.
        if visitor.received < 2 * Update::LENGTH || !visitor.received.is_multiple_of(Update::LENGTH) {
            return Err(format!("its connection ended after {} bytes", visitor.received));
        }
        Ok(Some(Span { begin: visitor.heard_at, end: clock::now() }))
    }
}
