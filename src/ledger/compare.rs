//! What was recorded of a connection, beside what the kernel counts.
//!
//! Knows: numbers. Does not know: where they are from.

use super::layout::Entry;

/// How a record and its connection stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Both are at the same point.
    Even,
    /// The record is ahead by what can still be done.
    Behind {
        /// So many bytes are to be taken that were worked on before.
        untaken: u64,
        /// So many bytes at the end of the recorded output are to be written.
        unwritten: u64,
    },
    /// More has happened than is in the record.
    Unrecorded {
        /// So many bytes were read.
        read: u64,
        /// So many bytes were written.
        written: u64,
    },
    /// The record has more than ever came, or the end of an output whose beginning was never
    /// written: it is not that of this connection.
    Ahead,
}

/// Compares a record that ends with so many bytes of output with where its connection is, of which
/// so many bytes wait to be read.
pub fn compare(recorded: Entry, output: u64, connection: Entry, unread: u64) -> Standing {
    let untaken = recorded.read.checked_sub(connection.read);
    let unwritten = recorded.written.checked_sub(connection.written);
    match (untaken, unwritten) {
        (Some(0), Some(0)) => Standing::Even,
        (Some(untaken), Some(unwritten)) if untaken <= unread && unwritten <= output => Standing::Behind { untaken, unwritten },
        (Some(_), Some(_)) => Standing::Ahead,
        _ => Standing::Unrecorded {
            read: connection.read.saturating_sub(recorded.read),
            written: connection.written.saturating_sub(recorded.written),
        },
    }
}
