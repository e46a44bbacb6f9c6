//! The mark of the connection at work.

use std::sync::Arc;
use std::thread;

use super::book::Book;

/// A connection is in hand as long as this lives: if the process ends meanwhile, it is the suspect.
///
/// Made by [`Account::in_hand`](super::Account::in_hand). A panic that drops it leaves the mark: the
/// process may be about to end of it. The next mark of the same connection replaces it.
#[derive(Debug)]
#[must_use = "the connection is in hand only as long as this lives"]
pub struct InHand {
    book: Arc<Book>,
    account: usize,
}

impl InHand {
    pub(super) fn new(book: &Arc<Book>, account: usize) -> InHand {
        if book.is_here() {
            // It is told apart by that from one of before a start that has ended.
            book.serves();
            book.words().mark(account, book.number());
        }
        InHand { book: Arc::clone(book), account }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if !thread::panicking() && self.book.is_here() {
            self.book.words().mark(self.account, 0);
        }
    }
}
