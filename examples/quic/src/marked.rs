//! The connection IDs that the server gives out: the mark of its generation, and random bytes.
//!
//! A client puts the ID into each datagram that it sends, from whatever address, so the kernel finds the generation by it.

use pollflip::{Mark, UdpGroup};
use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use ring::rand::{SecureRandom, SystemRandom};
use std::time::Duration;

/// The first datagrams of a connection bear an ID that the client has chosen, of 8 bytes at least (RFC 9000, 7.2). IDs of the server that are
/// shorter cannot be taken for one of those. Two of the bytes are the mark, five are left to chance: 2^40.
pub const LENGTH: u8 = 7;
/// Where the kernel finds whose a datagram is.
pub const MARK: Mark = Mark::quic(LENGTH);

/// Makes the IDs of this generation, those of NEW_CONNECTION_ID frames and of Retry packets too.
pub struct MarkedIds {
    group: UdpGroup,
    random: SystemRandom,
}

impl MarkedIds {
    /// Those that lead to this process.
    pub fn new(group: UdpGroup) -> MarkedIds {
        MarkedIds { group, random: SystemRandom::new() }
    }
}

impl ConnectionIdGenerator for MarkedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LENGTH as usize];
        self.random.fill(&mut id).expect("the system has random numbers");
        let is_stamped = self.group.stamp(&mut id);
        assert!(is_stamped, "the group has another mark");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        LENGTH.into()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
