//! What is told in the first byte of a datagram. The second is the number of the flow. An answer has the same first byte, and numbers.

/// A flow begins. The answer is the process that has it.
pub(crate) const BEGIN: u8 = b'b';
/// A flow goes on. The answer is the process that has it, and how many such datagrams it has answered.
pub(crate) const DATA: u8 = b'd';
/// No process knows that flow.
pub(crate) const UNKNOWN: u8 = b'u';
/// The new process is asked what its relay dropped, and how long its turns were since it was last asked.
pub(crate) const REPORT: u8 = b'?';
