//! A connection that there is no account for, with the reason.
//!
//! Knows: the two. Does not know: who else has the connection open.

use std::error;
use std::fmt;
use std::io;

/// [`begin`](super::Ledger::begin) or [`recover`](super::Ledger::recover) has failed. The connection
/// comes back as it was.
///
/// If the connection is [kept](crate::Keeper::keep_stream), dropping it does not end it: its peer
/// would wait until the next start finds it. So [forget](crate::Keeper::forget_stream) it. That is
/// why `?` does not turn this into an [`io::Error`]. After `ResourceBusy` and `AlreadyExists`
/// another duplicate of the connection is in use in this process: do not forget it then, since that
/// would end the other too.
///
/// ```
/// # use std::net::TcpStream;
/// # use pollflip::{Keeper, ledger::{Account, Ledger}};
/// # fn begin(keeper: &Keeper, ledger: &Ledger, stream: TcpStream) -> std::io::Result<Account<TcpStream>> {
/// ledger.begin(stream, b"the first state").map_err(|failed| {
///     keeper.forget_stream(&failed.connection);
///     failed.error
/// })
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct NoAccount<S> {
    /// The connection.
    pub connection: S,
    /// Why it has no account.
    pub error: io::Error,
}

impl<S> NoAccount<S> {
    pub(super) fn new(connection: S, error: io::Error) -> NoAccount<S> {
        NoAccount { connection, error }
    }
}

impl<S> fmt::Display for NoAccount<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<S: fmt::Debug> error::Error for NoAccount<S> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.error.source()
    }
}
