//! The mark of the connection at work.

use std::sync::Arc;
use std::thread;

use super::book::Book;
use super::layout::{Work, Worker};

/// A connection is in hand as long as this lives: if the process ends meanwhile, it is the suspect.
///
/// Made by [`Account::in_hand`](super::Account::in_hand). A panic that drops it leaves the mark: the
/// process may be about to end of it. The next mark of the same connection replaces it. If it is dropped
/// otherwise, the work was done.
#[derive(Debug)]
#[must_use = "the connection is in hand only as long as this lives"]
pub struct InHand {
    book: Arc<Book>,
    account: usize,
    work: Work,
    /// The work was done, or is when this is dropped.
    pub(super) is_done: bool,
}

impl InHand {
    pub(super) fn new(book: &Arc<Book>, account: usize, work: Work) -> InHand {
        if book.is_here() {
            // It is told apart by that from one of before a start that has ended.
            book.serves();
            book.words().set_mark(account, Some(Worker { process: book.number(), work }));
        }
        InHand { book: Arc::clone(book), account, work, is_done: work == Work::Other }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if !thread::panicking() && self.book.is_here() {
            self.book.words().set_mark(self.account, None);
            if self.is_done {
                self.book.words().clear(self.account, self.work);
            }
        }
    }
}
