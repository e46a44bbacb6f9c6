//! Bytes in a memory file: however many, they cross in constant time.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};

use nix::libc;

use crate::sys::{self, Origin};

/// State that is written by the old process and read by the new one: a [`Write`] into memory that is handed over as it is.
///
/// Small writes are collected. An error is kept, and fails the handover. The memory is shared with a forked child, whose copy writes nothing:
/// a child that puts the state together writes into a file of its own.
///
/// ```
/// use std::io::{self, Write};
/// use pollflip::{Blob, Handover};
///
/// fn save(table: &[u32], mut handover: Handover) -> io::Result<()> {
///     let mut blob = Blob::new()?;
///     for entry in table {
///         blob.write_all(&entry.to_le_bytes())?;
///     }
///     handover.blob("table.v1", blob)?;
///     handover.send();
///     Ok(())
/// }
///
/// let mut inheritance = Handover::rehearse(|handover| save(&[1, 2], handover).expect("a save")).expect("a handover");
/// assert_eq!(inheritance.bytes("table.v1").unwrap().unwrap(), [1, 0, 0, 0, 2, 0, 0, 0]);
/// ```
#[derive(Debug)]
pub struct Blob {
    writer: BufWriter<Limited>,
    failed: FirstError,
}

/// The first error of a blob. Dropped, it stays with the thread: a program that gives the blob up because of it gives the handover up too, but
/// that knows nothing of a blob it was never given.
#[derive(Debug, Default)]
struct FirstError(Option<(io::ErrorKind, String)>);

thread_local! {
    static LOST: Cell<Option<String>> = const { Cell::new(None) };
}

/// What went wrong with a blob that this thread has given up since [`forget_lost`].
pub(super) fn take_lost() -> Option<String> {
    LOST.try_with(Cell::take).ok().flatten()
}

pub(super) fn forget_lost() {
    drop(take_lost());
}

impl Drop for FirstError {
    fn drop(&mut self) {
        if let Some((_, text)) = self.0.take() {
            // A thread that is ending hands nothing over.
            let _ = LOST.try_with(|lost| lost.set(Some(text)));
        }
    }
}

impl Blob {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// No descriptor or memory can be had.
    pub fn new() -> io::Result<Blob> {
        let file = sys::memory_file()?;
        let file = Limited { file, origin: Origin::here() };
        Ok(Blob { writer: BufWriter::with_capacity(64 * 1024, file), failed: FirstError::default() })
    }

    /// The file with all that was written, which nobody changes any more.
    pub(crate) fn seal(mut self) -> io::Result<File> {
        self.writer.get_ref().check_here()?;
        // What is wrong is kept.
        let _ = self.flush();
        if let Some((kind, text)) = self.failed.0.take() {
            return Err(io::Error::new(kind, text));
        }
        let Ok(Limited { file, .. }) = self.writer.into_inner() else { return Err(io::ErrorKind::WriteZero.into()) };
        sys::seal(&file)?;
        Ok(file)
    }

    fn keep<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed.0.get_or_insert_with(|| (error.kind(), error.to_string()));
            }
        })
    }
}

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.writer.get_ref().check_here().and_then(|()| self.writer.write(bytes));
        self.keep(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.writer.flush();
        self.keep(result)
    }
}

/// A file that is never written beyond RLIMIT_FSIZE, since the kernel would kill the process for
/// that. A forked child does not write to it either: the child has a copy of what its parent has
/// collected, and would write that once more when it drops the copy.
#[derive(Debug)]
struct Limited {
    file: File,
    origin: Origin,
}

impl Limited {
    fn check_here(&self) -> io::Result<()> {
        self.origin.check("Blob")
    }
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_here()?;
        sys::may_grow_to(|| Ok((&self.file).stream_position()?.saturating_add(bytes.len() as u64)))?;
        sys::may_fail(&[libc::ENOSPC, libc::ENOMEM])?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
